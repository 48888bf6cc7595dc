//! Random tables in every mode: result, error code, physical address and every byte of memory afterwards are the oracle's.

use crate::draw::{Draw, Style};
use crate::oracle;
use crate::world::{PAGES, USED, World};
use rootmode_arch::{HostPhysical, Linear};
use rootmode_mmu::{PhysicalMemory, SecondStage, Translation, WalkFault, translate};

const STYLES: [Style; 3] = [Style::Narrow, Style::Pae, Style::Long];
/// Accesses to one set of tables, each with registers of its own.
const ACCESSES: u32 = 128;

fn memory_of(world: &World) -> PhysicalMemory {
    let mut memory = PhysicalMemory::new();
    memory.add_ram(HostPhysical(0), PAGES * 4096).unwrap();
    memory.write(HostPhysical(0), &world.bytes);
    memory
}

/// The first page whose entries differ.
fn differs(memory: &PhysicalMemory, world: &World, bytes: usize) -> Option<usize> {
    let mut found = [0; 4096];
    (0..PAGES as usize).find(|page| {
        let at = page * 4096;
        memory.read(HostPhysical(at as u64), &mut found[..bytes]);
        found[..bytes] != world.bytes[at..at + bytes]
    })
}

/// How often each outcome was met, so that a draw that goes stale fails the test.
#[derive(Debug, Default)]
struct Outcomes {
    found: u32,
    large: u32,
    absent: u32,
    reserved: u32,
    protected: u32,
    keyed: u32,
    refused: u32,
    misconfigured: u32,
    table_walks: u32,
}

impl Outcomes {
    fn count(&mut self, result: &Result<Translation, WalkFault>) {
        match result {
            Ok(found) => {
                self.found += 1;
                self.large += u32::from(found.guest_shift > 12);
            }
            Err(WalkFault::Page(code)) if code & 1 == 0 => self.absent += 1,
            Err(WalkFault::Page(code)) if code & 8 != 0 => self.reserved += 1,
            Err(WalkFault::Page(code)) if code & 32 != 0 => self.keyed += 1,
            Err(WalkFault::Page(_)) => self.protected += 1,
            Err(WalkFault::LogFull) => unreachable!("plain memory has no log"),
            Err(WalkFault::SecondStage(access)) => {
                self.refused += u32::from(!access.misconfigured);
                self.misconfigured += u32::from(access.misconfigured);
                self.table_walks += u32::from(access.table_walk);
            }
        }
    }
}

fn compare(seed: u64, cases: u32, mut stage: impl FnMut(&mut Draw, Style) -> SecondStage) -> Outcomes {
    let mut draw = Draw::new(seed);
    let mut outcomes = Outcomes::default();
    for round in 0..cases.div_ceil(ACCESSES) {
        let style = STYLES[draw.below(3) as usize];
        let second = stage(&mut draw, Style::Ept);
        let tables = match second {
            SecondStage::Npt(_) => STYLES[draw.below(3) as usize],
            SecondStage::None | SecondStage::Ept(_) => Style::Ept,
        };
        let mut world = draw.world(style, tables);
        let mut memory = memory_of(&world);
        for number in 0..ACCESSES {
            let paging = draw.paging(style);
            let second = stage(&mut draw, tables);
            let (access, linear) = (draw.access(), draw.linear(paging.mode));
            let expected = oracle::translate(&mut world, &paging, &second, linear, access);
            let found = translate(&mut memory, &paging, &second, Linear(linear), access);
            let case = || format!("{round}.{number}: {linear:#x} {access:?}\n{paging:x?}\n{second:x?}");
            assert_eq!(found, expected, "case {}", case());
            assert_eq!(differs(&memory, &world, USED), None, "entries after case {}", case());
            outcomes.count(&found);
        }
        assert_eq!(differs(&memory, &world, 4096), None, "memory after round {round}");
    }
    outcomes
}

#[test]
fn one_stage_agrees_with_the_obvious_walk_in_every_mode() {
    let met = compare(1, 1_000_000, |_, _| SecondStage::None);
    for (name, count) in [
        ("found", met.found),
        ("large", met.large),
        ("absent", met.absent),
        ("reserved", met.reserved),
        ("protected", met.protected),
        ("keyed", met.keyed),
    ] {
        assert!(count > 10_000, "{name}: only {count} of a million cases");
    }
}

#[test]
fn two_stages_with_ept_agree_with_the_obvious_walk() {
    let met = compare(2, 400_000, |draw, _| draw.ept());
    for (name, count) in [
        ("found", met.found),
        ("absent", met.absent),
        ("protected", met.protected),
        ("refused", met.refused),
        ("misconfigured", met.misconfigured),
        ("in table walks", met.table_walks),
    ] {
        assert!(count > 4_000, "{name}: only {count}");
    }
}

#[test]
fn two_stages_with_nested_paging_agree_with_the_obvious_walk() {
    let met = compare(3, 400_000, Draw::npt);
    for (name, count) in [
        ("found", met.found),
        ("absent", met.absent),
        ("protected", met.protected),
        ("refused", met.refused),
        ("reserved", met.misconfigured),
        ("in table walks", met.table_walks),
    ] {
        assert!(count > 4_000, "{name}: only {count}");
    }
}
