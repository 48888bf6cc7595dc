//! The guest walker against a slow, obvious walk over random page tables: fault codes, addresses, accessed and dirty flags.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use proptest::prelude::*;
use rootmode_arch::choices::{Choices, Seeded};
use rootmode_arch::{Cr3, HostPhysical, Linear, Site};
use rootmode_mmu::{
    Access, AccessKind, Paging, PagingMode, PhysicalMemory, SecondStage, WalkFault, translate,
};

const PAGES: u64 = 8;

/// Random tables: every page is both a table and a data page; entries point anywhere among them.
fn tables(random: &mut Seeded) -> PhysicalMemory {
    let mut memory = PhysicalMemory::new();
    memory.add_ram(HostPhysical(0), 0x1000 * PAGES).unwrap();
    let mut pick = |n| random.choose(Site::State, n);
    for page in 0..PAGES {
        // Few indices are used, so that most walks go deep.
        for index in 0..4 {
            let mut entry = pick(PAGES) << 12 | 7;
            for (bit, odds) in
                [(0, 12), (1, 4), (2, 4), (5, 2), (6, 2), (7, 3), (8, 2), (63, 4), (13, 3), (40, 40)]
            {
                if pick(odds) == 0 {
                    entry ^= 1 << bit;
                }
            }
            entry |= pick(16) << 59;
            memory.write_u64(HostPhysical(page * 0x1000 + index * 8), entry);
        }
    }
    memory
}

#[derive(Debug, PartialEq)]
enum Expected {
    Fault(u32),
    /// Address and the entries that must have A, and the one that must have D.
    Found {
        address: u64,
        entries: Vec<u64>,
        dirty: Option<u64>,
    },
}

/// Written from SDM Vol. 3A "4-Level Paging and 5-Level Paging", "Access Rights", "Page-Fault Exceptions", one rule a line.
fn oracle(memory: &PhysicalMemory, p: &Paging, linear: u64, access: Access) -> Expected {
    let write = access.kind == AccessKind::Write;
    let fetch = access.kind == AccessKind::Execute;
    let mut code = 0;
    if write {
        code += 2;
    }
    if access.user {
        code += 4;
    }
    if fetch && (p.no_execute || p.smep) {
        code += 16;
    }
    let mut places = vec![];
    let mut values: Vec<u64> = vec![];
    let mut table = p.cr3.0 & 0xffff_ffff_f000;
    let mut leaf_bits = 12;
    for (level, shift) in [(4, 39), (3, 30), (2, 21), (1, 12)] {
        let place = table + (linear >> shift) % 512 * 8;
        let entry = memory.read_u64(HostPhysical(place));
        if entry.is_multiple_of(2) {
            return Expected::Fault(code);
        }
        let page = entry & 0x80 != 0;
        let bad = (entry & 0x000f_ffff_ffff_ffff) >> p.physical_width != 0
            || entry >> 63 == 1 && !p.no_execute
            || level == 4 && page
            || level == 3 && page && (!p.huge_pages || entry >> 13 & 0x1_ffff != 0)
            || level == 2 && page && entry >> 13 & 0xff != 0;
        if bad {
            return Expected::Fault(code + 8 + 1);
        }
        places.push(place);
        values.push(entry);
        table = entry & 0x000f_ffff_ffff_f000;
        if page && level != 1 {
            leaf_bits = shift;
            break;
        }
    }
    let user_page = values.iter().all(|e| e & 4 != 0);
    let writable = values.iter().all(|e| e & 2 != 0);
    let executable = !p.no_execute || values.iter().all(|e| e >> 63 == 0);
    let allowed = match (access.user, access.kind) {
        (true, AccessKind::Read) => user_page,
        (true, AccessKind::Write) => user_page && writable,
        (true, AccessKind::Execute) => user_page && executable,
        (false, AccessKind::Read) => !user_page || !p.smap || access.smap_override,
        (false, AccessKind::Write) => {
            (!user_page || !p.smap || access.smap_override) && (writable || !p.write_protect)
        }
        (false, AccessKind::Execute) => executable && !(user_page && p.smep),
        _ => unreachable!("the cases have no shadow-stack accesses"),
    };
    let leaf = *values.last().unwrap();
    let key = leaf >> 59 & 15;
    let (ad, wd) = (p.pkru >> (2 * key) & 1 == 1, p.pkru >> (2 * key + 1) & 1 == 1);
    let key_denies =
        p.protection_keys && user_page && !fetch && (ad || write && wd && (access.user || p.write_protect));
    if !allowed || key_denies {
        return Expected::Fault(code + 1 + if key_denies { 32 } else { 0 });
    }
    let offset = linear & ((1 << leaf_bits) - 1);
    let address = (leaf & 0x000f_ffff_ffff_f000) >> leaf_bits << leaf_bits | offset;
    let dirty = write.then(|| *places.last().unwrap());
    Expected::Found { address, entries: places, dirty }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_walker_agrees_with_the_obvious_walk(seed: u64, flags in 0_u32..256, pkru: u32, kind in 0..3, user: bool, ac: bool) {
        let mut random = Seeded::new(seed);
        let mut memory = tables(&mut random);
        let bit = |n: u32| flags >> n & 1 != 0;
        let paging = Paging {
            cr3: Cr3(0x1000),
            mode: PagingMode::Level4,
            write_protect: bit(0),
            no_execute: bit(1),
            smep: bit(2),
            smap: bit(3),
            pcide: false,
            global: bit(4),
            huge_pages: bit(5),
            protection_keys: bit(6),
            pkru,
            physical_width: if bit(7) { 40 } else { 46 },
            ..Paging::default()
        };
        let kind = [AccessKind::Read, AccessKind::Write, AccessKind::Execute][kind as usize];
        let access = Access { kind, user, smap_override: ac };
        let mut linear = random.choose(Site::State, 4096);
        for shift in [12, 21, 30, 39] {
            linear |= random.choose(Site::State, 4) << shift;
        }
        let before = memory.clone();
        let expected = oracle(&before, &paging, linear, access);
        let found = translate(&mut memory, &paging, &SecondStage::None, Linear(linear), access);
        let mut wanted = before.clone();
        let expected_result = match expected {
            Expected::Fault(code) => Err(WalkFault::Page(code)),
            Expected::Found { address, entries, dirty } => {
                // An entry may be visited at several levels: flags accumulate.
                for place in entries {
                    let entry = wanted.read_u64(HostPhysical(place));
                    wanted.write_u64(HostPhysical(place), entry | 1 << 5);
                }
                if let Some(place) = dirty {
                    let entry = wanted.read_u64(HostPhysical(place));
                    wanted.write_u64(HostPhysical(place), entry | 1 << 6);
                }
                Ok(address)
            }
        };
        prop_assert_eq!(found.map(|t| t.host.0), expected_result);
        for place in (0..PAGES * 0x1000).step_by(8) {
            let at = HostPhysical(place);
            prop_assert_eq!(memory.read_u64(at), wanted.read_u64(at), "entry at {:#x}", place);
        }
    }
}
