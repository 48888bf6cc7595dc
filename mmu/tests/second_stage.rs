//! EPT and nested paging: what is refused, what is reported, which flags are set.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use rootmode_arch::event::GuestPhysicalAccess;
use rootmode_arch::{Cr3, GuestPhysical, HostPhysical, Linear};
use rootmode_mmu::walk::translate_guest_physical;
use rootmode_mmu::{
    Access, AccessKind, Ept, Npt, PageKind, Paging, PagingMode, PhysicalMemory, SecondStage, Tag, Tlb,
    WalkFault, translate,
};

const READ: Access = Access::data(AccessKind::Read, 0, false);
const WRITE: Access = Access::data(AccessKind::Write, 0, false);

/// Second stage: root 0x1000, guest-physical page n at host-physical 0x10_0000 + n * 0x1000 for n below 512.
/// First stage at guest-physical 0x1000..: linear page n maps guest-physical page n for n below 512.
fn machine(leaf_flags: u64, table_flags: u64) -> PhysicalMemory {
    let mut memory = PhysicalMemory::new();
    memory.add_ram(HostPhysical(0), 0x40_0000).unwrap();
    for (table, next) in [(0x1000, 0x2000), (0x2000, 0x3000), (0x3000, 0x4000)] {
        memory.write_u64(HostPhysical(table), next | table_flags);
    }
    for n in 0..512 {
        memory.write_u64(HostPhysical(0x4000 + n * 8), 0x10_0000 + n * 0x1000 | leaf_flags);
        memory.write_u64(HostPhysical(0x10_4000 + n * 8), n << 12 | 7);
    }
    for (table, next) in [(0x10_1000, 0x2000), (0x10_2000, 0x3000), (0x10_3000, 0x4000)] {
        memory.write_u64(HostPhysical(table), next | 7);
    }
    memory
}

fn paging() -> Paging {
    Paging {
        cr3: Cr3(0x1000),
        mode: PagingMode::Level4,
        write_protect: true,
        no_execute: true,
        physical_width: 46,
        ..Paging::default()
    }
}

fn ept(accessed_dirty: bool) -> SecondStage {
    SecondStage::Ept(Ept {
        root: HostPhysical(0x1000),
        five_level: false,
        accessed_dirty,
        execute_only: true,
        mode_based_execute: false,
        huge_pages: true,
        physical_width: 46,
    })
}

fn npt(no_execute: bool) -> SecondStage {
    SecondStage::Npt(Npt {
        root: HostPhysical(0x1000),
        mode: PagingMode::Level4,
        no_execute,
        smep: false,
        execute_trap: false,
        huge_pages: true,
        physical_width: 46,
        c_bit: 0,
    })
}

fn refused(result: Result<rootmode_mmu::Translation, WalkFault>) -> GuestPhysicalAccess {
    match result {
        Err(WalkFault::SecondStage(access)) => access,
        other => panic!("expected the second stage to refuse, got {other:?}"),
    }
}

#[test]
fn two_stages_compose() {
    let mut memory = machine(0x37, 7);
    let found = translate(&mut memory, &paging(), &ept(false), Linear(0x9_0123), READ).unwrap();
    assert_eq!((found.guest, found.host), (GuestPhysical(0x9_0123), HostPhysical(0x19_0123)));
}

#[test]
fn a_missing_page_names_the_final_access_and_a_missing_table_the_walk() {
    let mut memory = machine(0x37, 7);
    memory.write_u64(HostPhysical(0x4000 + 0x90 * 8), 0);
    let access = refused(translate(&mut memory, &paging(), &ept(false), Linear(0x9_0123), WRITE));
    assert_eq!(access.address, GuestPhysical(0x9_0123));
    assert_eq!(access.linear, Some(Linear(0x9_0123)));
    assert!(access.write && !access.read && !access.table_walk);
    assert_eq!(access.permissions, 0);

    memory.write_u64(HostPhysical(0x4000 + 3 * 8), 0);
    let access = refused(translate(&mut memory, &paging(), &ept(false), Linear(0x9_0123), WRITE));
    assert_eq!(access.address, GuestPhysical(0x3000), "the entry of the page directory");
    assert!(access.table_walk && access.read && !access.write);
}

#[test]
fn with_ept_dirty_flags_a_walk_is_a_write_and_sets_them() {
    // Read-only table page: reading through it is a violation with accessed and dirty flags on.
    let mut memory = machine(0x37, 7);
    let entry = memory.read_u64(HostPhysical(0x4000 + 2 * 8));
    memory.write_u64(HostPhysical(0x4000 + 2 * 8), entry & !2);
    let access = refused(translate(&mut memory, &paging(), &ept(true), Linear(0x9_0000), READ));
    assert!(access.table_walk && access.read && access.write);
    assert_eq!(access.permissions & 7, 0b101);

    let mut memory = machine(0x37, 7);
    translate(&mut memory, &paging(), &ept(true), Linear(0x9_0000), READ).unwrap();
    let flags = |n: u64| memory.read_u64(HostPhysical(0x4000 + n * 8)) >> 8 & 3;
    assert_eq!((flags(1), flags(0x90), flags(0x91)), (3, 1, 0), "table page dirty, data page accessed");
}

#[test]
fn without_ept_dirty_flags_a_guest_flag_update_needs_write_permission() {
    let mut memory = machine(0x37, 7);
    let entry = memory.read_u64(HostPhysical(0x4000 + 4 * 8));
    memory.write_u64(HostPhysical(0x4000 + 4 * 8), entry & !2);
    let access = refused(translate(&mut memory, &paging(), &ept(false), Linear(0x9_0000), READ));
    assert!(access.table_walk && access.write, "setting A in the leaf");
    assert_eq!(access.address, GuestPhysical(0x4000 + 0x90 * 8));
}

#[test]
fn misconfigurations_are_told_from_violations() {
    for (flags, misconfigured) in [
        (0x37_u64, false),
        (0x32, true),           // writable, not readable
        (0x17, true),           // memory type 2
        (0x37 | 1 << 46, true), // beyond MAXPHYADDR
    ] {
        let mut memory = machine(0x37, 7);
        memory.write_u64(HostPhysical(0x4000 + 0x90 * 8), 0x19_0000 | flags);
        let found = translate(&mut memory, &paging(), &ept(false), Linear(0x9_0000), READ);
        match found {
            Ok(_) => assert!(!misconfigured, "{flags:#x}"),
            other => assert!(refused(other).misconfigured == misconfigured, "{flags:#x}"),
        }
    }
}

#[test]
fn nested_table_walks_are_user_writes() {
    // The documented surprise: a read-only nested page under CR3 faults although nothing needs an update.
    let mut memory = machine(7, 7);
    let entry = memory.read_u64(HostPhysical(0x4000 + 8));
    memory.write_u64(HostPhysical(0x4000 + 8), entry & !2);
    let access = refused(translate(&mut memory, &paging(), &npt(true), Linear(0x9_0000), READ));
    assert!(access.table_walk && access.write);
    assert_eq!((access.address, access.permissions & 1), (GuestPhysical(0x1000), 1));

    let mut memory = machine(3, 7);
    let access = refused(translate(&mut memory, &paging(), &npt(true), Linear(0x9_0000), READ));
    assert!(access.table_walk, "nested pages without U/S refuse every guest access");
}

#[test]
fn nested_no_execute_follows_the_host() {
    let mut memory = machine(7, 7);
    memory.write_u64(HostPhysical(0x4000 + 0x90 * 8), 0x19_0007 | 1 << 63);
    let fetch = Access::fetch(0);
    let access = refused(translate(&mut memory, &paging(), &npt(true), Linear(0x9_0000), fetch));
    assert!(access.fetch && !access.misconfigured);
    let access = refused(translate(&mut memory, &paging(), &npt(false), Linear(0x9_0000), READ));
    assert!(access.misconfigured, "with the host's EFER.NXE = 0 bit 63 is reserved");
}

/// Guest mode execute trap: who may fetch, from pages with U/S and without; and nothing else changes.
#[test]
fn the_execute_trap_lets_each_privilege_level_fetch_from_its_own_pages_and_limits_nothing_else() {
    let SecondStage::Npt(plain) = npt(true) else { unreachable!("nested paging was asked for") };
    let trap = SecondStage::Npt(Npt { execute_trap: true, ..plain });
    for (user_page, no_execute) in [(false, false), (true, false), (false, true), (true, true)] {
        for cpl in [0, 3] {
            let mut memory = machine(7, 7);
            let flags = if user_page { 7 } else { 3 } | u64::from(no_execute) << 63;
            memory.write_u64(HostPhysical(0x4000 + 0x90 * 8), 0x19_0000 | flags);
            let found = translate(&mut memory, &paging(), &trap, Linear(0x9_0000), Access::fetch(cpl));
            if !no_execute && user_page == (cpl == 3) {
                assert_eq!(found.unwrap().host, HostPhysical(0x19_0000));
            } else {
                let access = refused(found);
                assert!(access.fetch && access.permissions & 1 != 0 && !access.misconfigured);
                assert_eq!(access.supervisor_fetch, cpl == 0);
            }
            for kind in [AccessKind::Read, AccessKind::Write] {
                let data = Access::data(kind, cpl, false);
                translate(&mut memory, &paging(), &trap, Linear(0x9_0000), data).unwrap();
            }
        }
    }
    // Guest page tables in pages without U/S are walked all the same.
    let mut memory = machine(3, 7);
    translate(&mut memory, &paging(), &trap, Linear(0x9_0000), Access::fetch(0)).unwrap();
}

/// A translation that one privilege level filled does not let the other one fetch.
#[test]
fn cached_translations_keep_the_execute_trap() {
    let SecondStage::Npt(plain) = npt(true) else { unreachable!("nested paging was asked for") };
    let trap = SecondStage::Npt(Npt { execute_trap: true, ..plain });
    let mut memory = machine(7, 7);
    let (linear, tag) = (Linear(0x9_0000), Tag::default());
    let found = translate(&mut memory, &paging(), &trap, linear, Access::fetch(3)).unwrap();
    let mut tlb = Tlb::new();
    tlb.fill(tag, linear, &found, PageKind::Ram);
    assert!(tlb.lookup(&paging(), tag, linear, Access::fetch(3)).is_some());
    assert!(tlb.lookup(&paging(), tag, linear, Access::fetch(0)).is_none());
    assert!(tlb.lookup(&paging(), tag, linear, READ).is_some());
}

#[test]
fn large_pages_keep_the_offset_of_every_size() {
    let mut memory = machine(0x37, 7);
    memory.write_u64(HostPhysical(0x3000 + 8), 0x20_0000 | 0xb7);
    memory.write_u64(HostPhysical(0x2000 + 8), 0x4000_0000 | 0xb7);
    let at = |memory: &mut PhysicalMemory, guest| {
        translate_guest_physical(memory, &ept(false), GuestPhysical(guest), AccessKind::Read).unwrap().0
    };
    assert_eq!(at(&mut memory, 0x2a_bcde), 0x2a_bcde);
    assert_eq!(at(&mut memory, 0x4123_4567), 0x4123_4567);
}
