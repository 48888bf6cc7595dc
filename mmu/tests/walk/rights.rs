//! Every combination of rights: R/W, U/S and XD at every level, D in the leaf, under every setting of CR0.WP, CR4.SMEP,
//! CR4.SMAP, EFER.NXE and RFLAGS.AC, for every kind of access.

use crate::oracle::{code, together, violation};
use rootmode_arch::{Cr3, HostPhysical, Linear};
use rootmode_mmu::{
    Access, AccessKind, Paging, PagingMode, PhysicalMemory, SecondStage, WalkFault, translate,
};

const KINDS: [AccessKind; 5] = [
    AccessKind::Read,
    AccessKind::Write,
    AccessKind::Execute,
    AccessKind::ShadowStackRead,
    AccessKind::ShadowStackWrite,
];

/// Rights flags of an entry from consecutive bits of `combination`: R/W, U/S and, where entries have it, XD.
fn flags(combination: u32, level: u32, wide: bool) -> u64 {
    let per_level = if wide { 3 } else { 2 };
    let chosen = u64::from(combination >> (per_level * level));
    (chosen & 1) << 1 | (chosen >> 1 & 1) << 2 | if wide { (chosen >> 2 & 1) << 63 } else { 0 }
}

fn put(memory: &mut PhysicalMemory, wide: bool, at: HostPhysical, entry: u64) {
    if wide {
        memory.write_u64(at, entry);
    } else {
        memory.write_u32(at, entry as u32);
    }
}

fn get(memory: &PhysicalMemory, wide: bool, at: HostPhysical) -> u64 {
    if wide { memory.read_u64(at) } else { memory.read_u32(at).into() }
}

/// All combinations in `mode`, whose `levels` tables are the pages from 0x1000 down to one before the page itself.
/// Answers the number of accesses that were allowed and refused.
fn every_combination(mode: PagingMode, levels: u32) -> (u32, u32) {
    let wide = !matches!(mode, PagingMode::Bits32 { .. });
    let mut memory = PhysicalMemory::new();
    memory.add_ram(HostPhysical(0), 0x10_000).unwrap();
    let (mut allowed, mut refused) = (0, 0);
    for combination in 0..1_u32 << (levels * if wide { 3 } else { 2 }) {
        let mut values = Vec::with_capacity(5);
        for level in 0..levels {
            let next = u64::from(level + 2) << 12;
            values.push(next | 0x21 | flags(combination, level, wide));
        }
        for dirty in [0, 1 << 6] {
            let leaf = values.len() - 1;
            values[leaf] = values[leaf] & !(1 << 6) | dirty;
            for (level, value) in values.iter().enumerate() {
                let at = HostPhysical((level as u64 + 1) << 12);
                put(&mut memory, wide, at, *value);
            }
            let reserved = values.iter().any(|value| value >> 63 != 0);
            for control in 0..32_u32 {
                let on = |n: u32| control >> n & 1 != 0;
                let paging = Paging {
                    cr3: Cr3(0x1000),
                    pdptes: [0x1001, 0, 0, 0],
                    mode,
                    write_protect: on(0),
                    smep: on(1),
                    smap: on(2),
                    no_execute: on(3),
                    physical_width: 46,
                    ..Paging::default()
                };
                let page = together(mode, &values);
                for kind in KINDS {
                    for user in [false, true] {
                        let access = Access { kind, user, smap_override: on(4) };
                        let found =
                            translate(&mut memory, &paging, &SecondStage::None, Linear(0x123), access);
                        let expected = if reserved && !on(3) {
                            Some(code(&paging, access) | 9)
                        } else {
                            violation(&paging, page, access)
                        };
                        let place = u64::from(levels + 1) << 12 | 0x123;
                        let expected = expected.map_or(Ok(place), |code| Err(WalkFault::Page(code)));
                        if found.map(|t| t.host.0) != expected {
                            panic!("{values:x?} {paging:?} {access:?}: {found:x?}, expected {expected:x?}");
                        }
                        *if expected.is_ok() { &mut allowed } else { &mut refused } += 1;
                        if kind == AccessKind::Write && expected.is_ok() && dirty == 0 {
                            let at = HostPhysical(u64::from(levels) << 12);
                            assert_eq!(get(&memory, wide, at), values[leaf] | 1 << 6, "now dirty");
                            put(&mut memory, wide, at, values[leaf]);
                        }
                    }
                }
            }
        }
    }
    (allowed, refused)
}

#[test]
fn rights_of_32_bit_paging_are_exact() {
    for pse in [false, true] {
        let (allowed, refused) = every_combination(PagingMode::Bits32 { pse }, 2);
        assert_eq!(allowed + refused, 16 * 2 * 32 * 10);
        assert!(allowed > 2000 && refused > 2000);
    }
}

#[test]
fn rights_of_pae_paging_are_exact() {
    let (allowed, refused) = every_combination(PagingMode::Pae, 2);
    assert_eq!(allowed + refused, 64 * 2 * 32 * 10);
}

#[test]
fn rights_of_4_level_paging_are_exact() {
    let (allowed, refused) = every_combination(PagingMode::Level4, 4);
    assert_eq!(allowed + refused, 4096 * 2 * 32 * 10);
}

#[test]
fn rights_of_5_level_paging_are_exact() {
    let (allowed, refused) = every_combination(PagingMode::Level5, 5);
    assert_eq!(allowed + refused, 32_768 * 2 * 32 * 10);
}
