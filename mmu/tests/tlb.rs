//! What stays cached and what goes: tags, global pages, split large pages, permission upgrades, replacement.

use rootmode_arch::{GuestPhysical, HostPhysical, Linear};
use rootmode_mmu::walk::{GuestRights, SecondRights};
use rootmode_mmu::{Access, AccessKind, Digest, PageKind, Paging, PagingMode, Tag, Tlb, Translation};

const READ: Access = Access::data(AccessKind::Read, 0, false);
const WRITE: Access = Access::data(AccessKind::Write, 0, false);

fn paging() -> Paging {
    Paging { mode: PagingMode::Level4, write_protect: true, physical_width: 46, ..Paging::default() }
}

fn page(host: u64, global: bool, shift: u8) -> Translation {
    Translation {
        host: HostPhysical(host),
        guest: GuestPhysical(host),
        rights: GuestRights {
            write: true,
            user: true,
            no_execute: false,
            dirty: false,
            shadow_stack: false,
            global,
            key: 0,
        },
        second: SecondRights::ALL,
        guest_shift: shift,
        host_shift: 48,
    }
}

fn tag(space: u32, pcid: u16, root: u64) -> Tag {
    Tag { space, pcid, root }
}

fn fill(tlb: &mut Tlb, tag: Tag, linear: u64, translation: &Translation) {
    tlb.fill(tag, Linear(linear), translation, PageKind::Ram);
}

fn has(tlb: &Tlb, tag: Tag, linear: u64) -> bool {
    tlb.lookup(&paging(), tag, Linear(linear), READ).is_some()
}

#[test]
fn a_clean_page_is_readable_from_the_tlb_but_a_write_walks() {
    let mut tlb = Tlb::new();
    fill(&mut tlb, tag(0, 0, 0), 0x5000, &page(0x9000, false, 12));
    let found = tlb.lookup(&paging(), tag(0, 0, 0), Linear(0x5123), READ).unwrap();
    assert_eq!(found.host, HostPhysical(0x9123));
    assert_eq!(tlb.lookup(&paging(), tag(0, 0, 0), Linear(0x5123), WRITE), None);
    let mut dirty = page(0x9000, false, 12);
    dirty.rights.dirty = true;
    fill(&mut tlb, tag(0, 0, 0), 0x5000, &dirty);
    assert!(tlb.lookup(&paging(), tag(0, 0, 0), Linear(0x5123), WRITE).is_some());
    assert_eq!(tlb.len(), 1, "the same page and tag is replaced, not doubled");
}

#[test]
fn rights_are_judged_with_the_registers_of_the_access() {
    let mut tlb = Tlb::new();
    fill(&mut tlb, tag(0, 0, 0), 0x5000, &page(0x9000, false, 12));
    let smap = Paging { smap: true, ..paging() };
    assert_eq!(tlb.lookup(&smap, tag(0, 0, 0), Linear(0x5000), READ), None);
    let ac = Access::data(AccessKind::Read, 0, true);
    assert!(tlb.lookup(&smap, tag(0, 0, 0), Linear(0x5000), ac).is_some());
}

#[test]
fn every_tag_keeps_translations_apart_and_global_ones_cross_pcids_only() {
    let mut tlb = Tlb::new();
    fill(&mut tlb, tag(1, 2, 3), 0x5000, &page(0x9000, false, 12));
    fill(&mut tlb, tag(1, 2, 3), 0x6000, &page(0xa000, true, 12));
    for (other, local, global) in [
        (tag(1, 2, 3), true, true),
        (tag(2, 2, 3), false, false),
        (tag(1, 4, 3), false, true),
        (tag(1, 2, 5), false, false),
    ] {
        assert_eq!(has(&tlb, other, 0x5000), local, "{other:?}");
        assert_eq!(has(&tlb, other, 0x6000), global, "{other:?}");
    }
}

#[test]
fn each_invalidation_drops_exactly_its_scope() {
    // (space, pcid, root, global), and for each operation which of them survive.
    let rows =
        [(0, 0, 0, false), (0, 0, 0, true), (0, 1, 0, false), (1, 0, 0x1001, false), (2, 0, 0x2001, true)];
    type Operation = (&'static str, fn(&mut Tlb), [bool; 5]);
    let operations: [Operation; 11] = [
        ("INVLPG", |t| t.flush_page(0, 0, Linear(0x5000)), [false, false, true, true, true]),
        ("INVPCID 0", |t| t.flush_page_of_pcid(0, 0, Linear(0x5000)), [false, true, true, true, true]),
        ("INVPCID 1", |t| t.flush_pcid(0, 0), [false, true, true, true, true]),
        ("INVPCID 2", |t| t.flush_space(0), [false, false, false, true, true]),
        ("INVPCID 3", |t| t.flush_non_global(0), [false, true, false, true, true]),
        ("INVVPID 0", |t| t.flush_page_of_space(1, Linear(0x5fff)), [true, true, true, false, true]),
        ("INVVPID 2", Tlb::flush_all_but_host, [true, true, true, false, false]),
        ("INVVPID 3", |t| t.flush_space_but_global(2), [true, true, true, true, true]),
        ("INVEPT 1", |t| t.flush_root(HostPhysical(0x1000)), [true, true, true, false, true]),
        ("INVEPT 2", Tlb::flush_all_roots, [true, true, true, false, false]),
        ("all", Tlb::flush_all, [false; 5]),
    ];
    for (name, operation, survivors) in operations {
        for (row, survives) in rows.iter().zip(survivors) {
            let mut tlb = Tlb::new();
            let of = tag(row.0, row.1, row.2);
            fill(&mut tlb, of, 0x5000, &page(0x9000, row.3, 12));
            operation(&mut tlb);
            assert_eq!(has(&tlb, of, 0x5000), survives, "{name} on {row:?}");
        }
    }
}

#[test]
fn invlpg_drops_every_piece_of_a_large_page() {
    let mut tlb = Tlb::new();
    for piece in [0x20_0000, 0x2f_f000, 0x3f_f000, 0x40_0000] {
        fill(&mut tlb, tag(0, 0, 0), piece, &page(0x80_0000 + piece, false, 21));
    }
    tlb.flush_page(0, 0, Linear(0x2a_bcde));
    assert_eq!(tlb.len(), 1);
    assert!(has(&tlb, tag(0, 0, 0), 0x40_0000));
}

#[test]
fn a_place_that_held_a_piece_of_a_large_page_can_hold_a_small_one() {
    let mut tlb = Tlb::new();
    fill(&mut tlb, tag(0, 0, 0), 0x20_0000, &page(0x80_0000, false, 21));
    fill(&mut tlb, tag(0, 0, 0), 0x20_0000, &page(0x80_0000, false, 12));
    tlb.flush_page(0, 0, Linear(0x20_1000));
    assert!(has(&tlb, tag(0, 0, 0), 0x20_0000));
    fill(&mut tlb, tag(0, 0, 0), 0x20_0000, &page(0x80_0000, false, 21));
    tlb.flush_page(0, 0, Linear(0x20_1000));
    assert!(tlb.is_empty());
}

#[test]
fn replacement_is_deterministic_and_part_of_the_digest() {
    let digest = |tlb: &Tlb| {
        let mut digest = Digest::new();
        tlb.digest(&mut digest);
        digest.finish()
    };
    let run = |n: u64| {
        let mut tlb = Tlb::new();
        for i in 0..n {
            fill(&mut tlb, tag(0, 0, 0), i * 0x7000, &page(i << 12, false, 12));
        }
        tlb
    };
    assert_eq!(digest(&run(50000)), digest(&run(50000)));
    assert_ne!(digest(&run(50000)), digest(&run(50001)));
    assert!(run(50000).len() <= 4096);
}

#[test]
fn an_eviction_empties_one_place_of_one_set() {
    let mut tlb = Tlb::new();
    let tag = tag(0, 0, 0);
    // Page numbers n << 10 | n share a set.
    let linear = |n: u64| (n << 10 | n) << 12;
    for n in 0..4 {
        fill(&mut tlb, tag, linear(n), &page(0x10_0000 + (n << 12), false, 12));
    }
    fill(&mut tlb, tag, 0x5000, &page(0x5000, false, 12));
    for way in [1, 5] {
        tlb.evict(Linear(linear(3)), way);
        assert_eq!(tlb.len(), 4);
        assert_eq!([0, 1, 2, 3].map(|n| has(&tlb, tag, linear(n))), [true, false, true, true]);
        assert!(has(&tlb, tag, 0x5000));
        fill(&mut tlb, tag, linear(1), &page(0x10_1000, false, 12));
        assert_eq!(tlb.len(), 5);
    }
    tlb.flush_all();
    assert!(tlb.is_empty());
}
