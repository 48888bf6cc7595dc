//! Interrupt commands over drawn ID tables, against the steps that the manual lists, written down once more
//! ("Interprocessor Interrupts", "Logical APIC ID Table", "AVIC IPI Delivery Not Completed").

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::choices::{Choices, Seeded, Site};
use rootmode_arch::{Gpr, HostPhysical};
use rootmode_svm::Field;
use rootmode_svm::vmcb::IntCtl;
use std::collections::BTreeSet;

const VMMCALL: u64 = 0x81;
const INCOMPLETE: u64 = 0x401;
const CASES: u64 = 400;
/// Backing pages of everybody else, by their number.
const PAGES: u64 = 0x9_0000;

/// An entry of the physical table.
#[derive(Clone, Copy, Debug)]
enum Physical {
    Absent,
    Illegal,
    Sleeps(u64),
    Runs(u64),
}

#[derive(Debug)]
struct Case {
    x2: bool,
    own: u64,
    last: u64,
    physical: Vec<Physical>,
    /// Valid entries name a physical ID.
    logical: Vec<Option<u64>>,
    flat: bool,
    icr: u64,
}

fn draw(c: &mut Seeded) -> Case {
    let mut pick = |n: u64| c.choose(Site::State, n);
    let x2 = pick(2) == 0;
    let physical = (0..10)
        .map(|n| match pick(8) {
            0 => Physical::Absent,
            1 if n > 4 => Physical::Illegal,
            2 => Physical::Sleeps(n),
            _ => Physical::Runs(n),
        })
        .collect();
    let logical = (0..60).map(|_| (pick(4) != 0).then(|| pick(11))).collect();
    let destination = match pick(8) {
        0 if x2 => 0xffff_ffff,
        0 => 0xff,
        1 | 2 if x2 => pick(2) << 16 | pick(0x400),
        1 | 2 => pick(0x100),
        _ => pick(12),
    };
    let vector = if pick(10) == 0 { pick(16) } else { 16 + pick(240) };
    let mode = if pick(10) == 0 { pick(8) } else { 0 };
    let level = u64::from(pick(10) == 0);
    let shorthand = if pick(2) == 0 { pick(4) } else { 0 };
    let low = vector | mode << 8 | pick(2) << 11 | 1 << 14 | level << 15 | shorthand << 18;
    Case {
        x2,
        own: pick(4),
        last: 5 + pick(5),
        physical,
        logical,
        flat: pick(2) == 0,
        icr: low | if x2 { destination << 32 } else { destination << 56 },
    }
}

/// What the manual says: whose pages get the request, and the cause and index of an exit.
fn expected(case: &Case) -> (BTreeSet<u64>, Option<(u64, u64)>) {
    let field = |low: u32, bits: u32| case.icr >> low & ((1 << bits) - 1);
    let nobody = BTreeSet::new();
    if field(8, 3) != 0 || field(15, 1) != 0 {
        return (nobody, Some((0, 0)));
    }
    if field(0, 8) < 16 {
        return (nobody, Some((4, 0)));
    }
    let own_page = BTreeSet::from([100]);
    let destination = if case.x2 { case.icr >> 32 } else { case.icr >> 56 };
    let everyone = if case.x2 { 0xffff_ffff } else { 0xff };
    // Pairs of physical ID and the index that an exit names.
    let mut named = Vec::new();
    let is_broadcast = match field(18, 2) {
        1 => return (own_page, None),
        0 => destination == everyone,
        _ => true,
    };
    if is_broadcast {
        for id in 0..=case.last {
            let exists = !matches!(case.physical.get(id as usize), None | Some(Physical::Absent));
            if exists && !(field(18, 2) == 3 && id == case.own) {
                named.push((id, id));
            }
        }
    } else if field(11, 1) == 0 {
        named.push((destination, destination));
    } else if case.x2 {
        for bit in 0..16 {
            if destination & 1 << bit != 0 {
                let id = (destination >> 16) * 16 + bit;
                named.push((id, id));
            }
        }
    } else {
        let (count, cluster) = if case.flat { (8, 0) } else { (4, destination >> 4) };
        for bit in 0..count {
            if destination & 1 << bit != 0 {
                let index = cluster * 4 + bit;
                match case.logical.get(index as usize).copied().flatten() {
                    Some(id) => named.push((id, index)),
                    None => return (nobody, Some((2, index))),
                }
            }
        }
    }
    let mut requested = BTreeSet::new();
    let mut sleeper = None;
    for (id, index) in named {
        let entry = if id > case.last { Physical::Absent } else { case.physical[id as usize] };
        match entry {
            Physical::Absent => return (nobody, Some((2, index & 0xfff))),
            Physical::Illegal => return (nobody, Some((3, index & 0xfff))),
            Physical::Runs(page) => {
                requested.insert(page);
            }
            Physical::Sleeps(page) => {
                requested.insert(page);
                sleeper = sleeper.or(Some((1, index)));
            }
        }
    }
    (requested, sleeper)
}

fn run(case: &Case) -> (BTreeSet<u64>, Option<(u64, u64)>) {
    let mut bench = Bench::new();
    bench.avic();
    if case.x2 {
        bench.int_ctl(IntCtl::X2AVIC_ENABLE);
    }
    bench.set(Field::AvicPhysicalTable, PHYSICAL_TABLE | case.last);
    for (id, entry) in case.physical.iter().enumerate() {
        let value = match entry {
            Physical::Absent => PAGES,
            Physical::Illegal => 1 << 63 | 1 << 50,
            Physical::Sleeps(page) => 1 << 63 | (PAGES + page * 0x1000),
            Physical::Runs(page) => 3 << 62 | (PAGES + page * 0x1000),
        };
        bench.put(PHYSICAL_TABLE + id as u64 * 8, value);
    }
    for (index, entry) in case.logical.iter().enumerate() {
        let value = entry.map_or(7, |id| 1 << 31 | id as u32);
        bench.board.memory.write_u32(HostPhysical(LOGICAL_TABLE + index as u64 * 4), value);
    }
    bench.put(BACKING + 0x20, if case.x2 { case.own } else { case.own << 24 });
    bench.put(BACKING + 0xe0, if case.flat { 0xffff_ffff } else { 0x0fff_ffff });
    bench.register(Gpr::Rbx, APIC);
    bench.register(Gpr::Rcx, 0x830);
    bench.register(Gpr::Rax, case.icr & 0xffff_ffff);
    bench.register(Gpr::Rdx, case.icr >> 32);
    let x2 = case.x2;
    bench.assemble(|a| {
        if x2 {
            a.wrmsr()?;
        } else {
            a.mov(dword_ptr(rbx + 0x310), edx)?;
            a.mov(dword_ptr(rbx + 0x300), eax)?;
        }
        a.vmmcall()
    });
    let exit = bench.exit();
    let fails = match exit.code {
        VMMCALL => None,
        INCOMPLETE => {
            assert_eq!(exit.info1, case.icr, "{case:?}");
            Some((exit.info2 >> 32, exit.info2 & 0xffff_ffff))
        }
        _ => panic!("{case:?}: {exit:?}"),
    };
    let vector = case.icr & 0xff;
    let has = |page: u64| bench.get(page + 0x200 + vector / 32 * 16) >> (vector % 32) & 1 != 0;
    let mut got: BTreeSet<u64> = (0..10).filter(|n| has(PAGES + n * 0x1000)).collect();
    if has(BACKING) {
        got.insert(100);
    }
    (got, fails)
}

#[test]
fn commands_over_drawn_tables_go_where_the_manuals_steps_say() {
    let mut reached = BTreeSet::new();
    for seed in 0..CASES {
        let case = draw(&mut Seeded::new(seed));
        let answer = run(&case);
        assert_eq!(answer, expected(&case), "seed {seed}: {case:x?}");
        reached.insert((case.x2, answer.1.map(|(cause, _)| cause)));
    }
    // With and without x2AVIC: success and each of the five causes.
    assert_eq!(reached.len(), 12, "{reached:?}");
}
