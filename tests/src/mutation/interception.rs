//! Mutants of the data that the model of KVM goes by: pass-through tables, merge lists, the arithmetic on the maps, what no
//! filter denies; and of filters as the look-up sees them.
//!
//! The judges are the properties of the campaigns, whose oracle says the same as sets and formulas and never reads these
//! tables. A mutant is noticed if a property fails that holds for the tables as they are.

use std::collections::BTreeSet;

use rootmode::campaign::properties::interception::{draw, oracle};
use rootmode::campaign::{self, Property, Regressions, Verdict};
use rootmode_arch::choices::Seeded;
use rootmode_arch::{Choices, Site};
use rootmode_models::kvm::filter::FilterRange;
use rootmode_models::kvm::interception::{Access, Accesses, Condition, Kernel, MapLayout, Part, Row};
use rootmode_models::kvm::nested::{MergedMsr, VirtualRegister};
use rootmode_models::kvm::{Filter, Tables};

use super::Report;

/// A mutant's tables, with what was done.
type Mutants = Vec<(String, Tables)>;

/// Sets of accesses.
const ACCESSES: [Accesses; 3] = [Accesses::R, Accesses::W, Accesses::RW];

/// A copy that lives as long as the process: the model's tables are constants.
fn kept<T: Clone>(rows: &[T]) -> &'static [T] {
    Box::leak(rows.to_vec().into_boxed_slice())
}

/// `rows` with row `at` changed, or dropped.
fn with<T: Clone>(rows: &[T], at: usize, row: Option<T>) -> &'static [T] {
    let mut rows = rows.to_vec();
    match row {
        Some(row) => rows[at] = row,
        None => drop(rows.remove(at)),
    }
    kept(&rows)
}

/// Whether one of the properties fails within `cases` cases of each. Tried in rounds, so that most mutants cost little.
fn noticed(properties: &[Property], tables: Tables, cases: u64) -> bool {
    let tables: &'static Tables = Box::leak(Box::new(tables));
    let mutant = Regressions::NONE.by(tables);
    let (mut start, mut end) = (0, 64.min(cases));
    while start < end {
        let fails = |property: &Property| {
            (start..end).any(|index| {
                let mut choices = Seeded::new(campaign::case_seed(31, property.name, index));
                matches!(campaign::judge(property, &mut choices, mutant), Verdict::Fails(_))
            })
        };
        if properties.iter().any(fails) {
            return true;
        }
        (start, end) = (end, (end * 8).min(cases));
    }
    false
}

fn judged(table: &'static str, names: &[&str], mutants: Mutants, cases: u64) -> Report {
    let properties: Vec<Property> = names
        .iter()
        .map(|name| campaign::property(name).expect("the names in this file are those of properties"))
        .collect();
    let mut report = Report::new(table);
    for (what, tables) in mutants {
        report.count(|| what, noticed(&properties, tables, cases));
    }
    report
}

/// Conditions with a number, one up and one down.
fn neighbours(when: Condition) -> Vec<Condition> {
    let around = |n: u8, make: fn(u8) -> Condition| {
        [Some(n + 1), n.checked_sub(1)].into_iter().flatten().map(make).collect()
    };
    match when {
        Condition::Counter(n) => around(n, Condition::Counter),
        Condition::CoreCounter(n) => around(n, Condition::CoreCounter),
        Condition::FullWidthCounter(n) => around(n, Condition::FullWidthCounter),
        Condition::FixedCounter(n) => around(n, Condition::FixedCounter),
        Condition::TraceAddress(n) => around(n, Condition::TraceAddress),
        _ => Vec::new(),
    }
}

/// What a row decides.
fn cells(row: &Row) -> BTreeSet<(u32, Access)> {
    row.msrs().flat_map(|msr| row.accesses.iter().map(move |access| (msr, access))).collect()
}

/// Whether a row that decides more than before changes nothing, because later rows of the same part decide it again, or
/// others decide it under the same condition.
fn overruled(rows: &[Row], at: usize, mutant: &Row) -> bool {
    let (before, after) = (cells(&rows[at]), cells(mutant));
    let decides = |(place, row): &(usize, &Row)| {
        row.part == mutant.part && (*place > at || (row.when, row.since) == (mutant.when, mutant.since))
    };
    let others = rows.iter().enumerate().filter(|(place, _)| *place != at);
    let decided: BTreeSet<_> = others.filter(decides).flat_map(|(_, row)| cells(row)).collect();
    before.is_subset(&after) && after.difference(&before).all(|cell| decided.contains(cell))
}

/// Every mutant of a row of a pass-through table, with what was done; `None` is the dropped row.
fn of_row(rows: &[Row], at: usize) -> Vec<(String, Option<Row>)> {
    let row = rows[at];
    let mut all = vec![("negated".to_owned(), Some(Row { negated: true, ..row }))];
    if row.when != Condition::Always {
        all.push(("unconditional".to_owned(), Some(Row { when: Condition::Always, ..row })));
    }
    // A condition that never holds leaves nothing else to change.
    if row.when == Condition::NeverLvtTimer {
        return all;
    }
    all.push(("dropped".to_owned(), None));
    for when in neighbours(row.when) {
        all.push((format!("condition {when:?}"), Some(Row { when, ..row })));
    }
    for since in Kernel::ALL.into_iter().filter(|since| *since != row.since) {
        all.push((format!("since {since:?}"), Some(Row { since, ..row })));
    }
    // A row that is evaluated more often, at times when its inputs are as they were, gives what it gave.
    let parts = [Part::Always, Part::LastBranch, Part::Apic];
    let less = |part: &Part| *part != row.part && (row.part, *part) != (Part::Always, Part::LastBranch);
    for part in parts.into_iter().filter(less) {
        all.push((format!("part {part:?}"), Some(Row { part, ..row })));
    }
    let mut bound = |what: &str, first: u32, last: u32| {
        let mutant = Row { first, last, ..row };
        if !overruled(rows, at, &mutant) {
            all.push((what.to_owned(), Some(mutant)));
        }
    };
    bound("first - 1", row.first - 1, row.last);
    bound("last + 1", row.first, row.last + 1);
    if row.first < row.last {
        bound("first + 1", row.first + 1, row.last);
        bound("last - 1", row.first, row.last - 1);
    } else {
        bound("both + 1", row.first + 1, row.last + 1);
        bound("both - 1", row.first - 1, row.last - 1);
    }
    for accesses in ACCESSES.into_iter().filter(|accesses| *accesses != row.accesses) {
        let mutant = Row { accesses, ..row };
        if !overruled(rows, at, &mutant) {
            all.push((format!("accesses {:?}", accesses.iter().collect::<Vec<_>>()), Some(mutant)));
        }
    }
    all
}

fn pass_through(rows: &'static [Row], put: fn(&'static [Row]) -> Tables) -> Mutants {
    let of = |at: usize| {
        let name = format!("{} {:#x} {:?}", at, rows[at].first, rows[at].when);
        of_row(rows, at)
            .into_iter()
            .map(move |(what, row)| (format!("{name}: {what}"), put(with(rows, at, row))))
    };
    (0..rows.len()).flat_map(of).collect()
}

/// Mutates the pass-through table of SVM; a mutant is asked in up to `cases` cases of each property.
#[must_use]
pub fn run_svm(cases: u64) -> Report {
    let mutants = pass_through(Tables::KVM.svm, |svm| Tables { svm, ..*Tables::KVM });
    judged("pass-through-svm", &["svm-map-is-a-function", "svm-map-forgets-history"], mutants, cases)
}

/// Mutates the pass-through table of VMX.
#[must_use]
pub fn run_vmx(cases: u64) -> Report {
    let mutants = pass_through(Tables::KVM.vmx, |vmx| Tables { vmx, ..*Tables::KVM });
    judged("pass-through-vmx", &["vmx-map-is-a-function", "vmx-map-forgets-history"], mutants, cases)
}

/// The chunks that a list brings, by kernel and size; by the oracle's formula.
fn chunks(rows: &[MergedMsr]) -> Vec<BTreeSet<Option<usize>>> {
    let of = |kernel: Kernel, size: usize| {
        let merged = rows.iter().filter(move |row| row.since <= kernel);
        merged.map(|row| oracle::svm_position(row.msr, Access::Read).map(|(byte, _)| byte / size)).collect()
    };
    Kernel::ALL.into_iter().flat_map(|kernel| [4, 8].map(|size| of(kernel, size))).collect()
}

/// Every mutant of a row of a merge list but those of its accesses, with what was done.
fn of_merged(row: MergedMsr, steps: &[u32]) -> Vec<(String, Option<MergedMsr>)> {
    let mut all = vec![("dropped".to_owned(), None)];
    for since in Kernel::ALL.into_iter().filter(|since| *since != row.since) {
        all.push((format!("since {since:?}"), Some(MergedMsr { since, ..row })));
    }
    for &step in steps {
        all.push((format!("MSR + {step}"), Some(MergedMsr { msr: row.msr.wrapping_add(step), ..row })));
        all.push((format!("MSR - {step}"), Some(MergedMsr { msr: row.msr.wrapping_sub(step), ..row })));
    }
    all
}

/// Mutates the list of SVM's merged chunks: only what gives other chunks for some kernel and size is a mutant, since a chunk
/// holds 16 or 32 MSRs and is merged whole.
#[must_use]
pub fn run_svm_merge(cases: u64) -> Report {
    let rows = Tables::KVM.svm_merged;
    let original = chunks(rows);
    let mut mutants = Mutants::new();
    for (at, row) in rows.iter().enumerate() {
        for (what, mutant) in of_merged(*row, &[1, 15, 16, 32, 0x2000]) {
            let svm_merged = with(rows, at, mutant);
            if chunks(svm_merged) != original {
                let tables = Tables { svm_merged, ..*Tables::KVM };
                mutants.push((format!("{:#x}: {what}", row.msr), tables));
            }
        }
    }
    judged("merge-svm", &["svm-merge-list", "svm-merge-is-or", "svm-vmrun-history"], mutants, cases)
}

/// Mutates the list of VMX's merged MSRs and the rules of L2's x2APIC.
#[must_use]
pub fn run_vmx_merge(cases: u64) -> Report {
    let rows = Tables::KVM.vmx_merged;
    let mut mutants = Mutants::new();
    for (at, row) in rows.iter().enumerate() {
        let others = ACCESSES.into_iter().filter(|accesses| *accesses != row.accesses);
        let accesses = others.map(|accesses| {
            let what = format!("accesses {:?}", accesses.iter().collect::<Vec<_>>());
            (what, Some(MergedMsr { accesses, ..*row }))
        });
        for (what, mutant) in of_merged(*row, &[1, 8]).into_iter().chain(accesses) {
            let vmx_merged = with(rows, at, mutant);
            mutants.push((format!("{:#x}: {what}", row.msr), Tables { vmx_merged, ..*Tables::KVM }));
        }
    }
    let rules = Tables::KVM.vmx_x2apic;
    let mut change = |what: String, vmx_x2apic| {
        mutants.push((format!("x2APIC: {what}"), Tables { vmx_x2apic, ..*Tables::KVM }));
    };
    let [first, end] = rules.bytes;
    for (what, bytes) in [
        ("first byte + 1", [first + 1, end]),
        ("first byte - 1", [first - 1, end]),
        ("end + 1", [first, end + 1]),
        ("end - 1", [first, end - 1]),
        ("no registers", [first, first]),
        ("registers of the high range", [first + 0x400, end + 0x400]),
    ] {
        let mut other = rules;
        other.bytes = bytes;
        change(what.to_owned(), other);
    }
    // The write bits of the registers that no row opens are 1 from the start: a distance is a mutant if it misses the bit
    // of one that is opened.
    let opened: Vec<usize> = rules
        .open
        .iter()
        .filter_map(|register| oracle::vmx_position(register.msr, Access::Write))
        .map(|(byte, _)| byte)
        .collect();
    let misses = |write: &usize| opened.iter().any(|byte| !(first + write..end + write).contains(byte));
    for write in (0x7e0..0x820).chain([0, 0x400]).filter(misses) {
        let mut other = rules;
        other.write = write;
        change(format!("write half at {write:#x}"), other);
    }
    for (at, register) in rules.open.iter().enumerate() {
        let mut row = |what: &str, row: Option<VirtualRegister>| {
            let mut other = rules;
            other.open = with(rules.open, at, row);
            change(format!("{:#x} {what}", register.msr), other);
        };
        row("dropped", None);
        row("+ 1", Some(VirtualRegister { msr: register.msr + 1, ..*register }));
        row("- 1", Some(VirtualRegister { msr: register.msr - 1, ..*register }));
        row("condition negated", Some(VirtualRegister { interrupts: !register.interrupts, ..*register }));
        for accesses in ACCESSES.into_iter().filter(|accesses| *accesses != register.accesses) {
            let what = format!("accesses {:?}", accesses.iter().collect::<Vec<_>>());
            row(&what, Some(VirtualRegister { accesses, ..*register }));
        }
    }
    judged("merge-vmx", &["vmx-nested-entry-history", "vmx-l2-is-filtered-at-once"], mutants, cases)
}

/// Every mutant of KVM's arithmetic on a map; `ranges` of its ranges count.
fn of_layout(original: &MapLayout, ranges: usize, put: fn(MapLayout) -> Tables) -> Mutants {
    let mut mutants = Mutants::new();
    let mut change = |what: String, how: &dyn Fn(&mut MapLayout)| {
        let mut layout = *original;
        how(&mut layout);
        mutants.push((what, put(layout)));
    };
    for at in 0..ranges {
        change(format!("range {at}: dropped"), &|l| l.ranges[at].count = 0);
        change(format!("range {at}: first + 1"), &|l| l.ranges[at].first += 1);
        change(format!("range {at}: first - 1"), &|l| {
            l.ranges[at].first = l.ranges[at].first.wrapping_sub(1);
        });
        change(format!("range {at}: count + 1"), &|l| l.ranges[at].count += 1);
        change(format!("range {at}: count - 1"), &|l| l.ranges[at].count -= 1);
        for step in [1u32, 8, 0x2000, 0x4000] {
            change(format!("range {at}: bit + {step}"), &|l| l.ranges[at].bit += step);
            change(format!("range {at}: bit - {step}"), &|l| {
                l.ranges[at].bit = l.ranges[at].bit.wrapping_sub(step);
            });
        }
    }
    for per_msr in [0, original.per_msr + 1, original.per_msr * 2] {
        change(format!("{per_msr} bits an MSR"), &|l| l.per_msr = per_msr);
    }
    let [read, write] = original.accesses;
    for accesses in [[write, read], [read, read], [write, write], [read, write + 1], [read + 1, write]] {
        change(format!("bits of accesses {accesses:x?}"), &|l| l.accesses = accesses);
    }
    mutants
}

/// Mutates KVM's arithmetic on MSR permission maps.
#[must_use]
pub fn run_svm_arithmetic(cases: u64) -> Report {
    let mutants = of_layout(&Tables::KVM.msrpm, 3, |msrpm| Tables { msrpm, ..*Tables::KVM });
    judged("arithmetic-svm", &["svm-map-bits", "svm-msr-exit-goes-to-whom-it-concerns"], mutants, cases)
}

/// Mutates KVM's arithmetic on MSR bitmaps.
#[must_use]
pub fn run_vmx_arithmetic(cases: u64) -> Report {
    let mut mutants =
        of_layout(&Tables::KVM.msr_bitmap, 2, |msr_bitmap| Tables { msr_bitmap, ..*Tables::KVM });
    let mut msr_bitmap = Tables::KVM.msr_bitmap;
    msr_bitmap.ranges[2].count = msr_bitmap.ranges[1].count;
    mutants.push(("range 2: as long as AMD's".to_owned(), Tables { msr_bitmap, ..*Tables::KVM }));
    judged("arithmetic-vmx", &["vmx-map-bits", "vmx-msr-exit-goes-to-whom-it-concerns"], mutants, cases)
}

/// A change of a filter, with what it is.
type FilterChange = (&'static str, fn(&mut Filter));

fn each(filter: &mut Filter, how: fn(&mut FilterRange)) {
    filter.ranges.iter_mut().for_each(how);
}

/// What a look-up that is wrong about a filter would take it for.
const FILTERS: &[FilterChange] = &[
    ("default negated", |f| f.default_allow = !f.default_allow),
    ("base + 1", |f| each(f, |r| r.base = r.base.wrapping_add(1))),
    ("base - 1", |f| each(f, |r| r.base = r.base.wrapping_sub(1))),
    ("count + 1", |f| each(f, |r| r.nmsrs = r.nmsrs.wrapping_add(1))),
    ("count - 1", |f| each(f, |r| r.nmsrs -= 1)),
    ("bit + 1", |f| each(f, |r| r.bitmap.shift_start(1))),
    ("bit - 1", |f| each(f, |r| r.bitmap.shift_end(1))),
    ("bitmap negated", |f| each(f, |r| r.bitmap = !core::mem::take(&mut r.bitmap))),
    ("flags swapped", |f| {
        each(f, |r| {
            r.accesses = match (r.accesses.has(Access::Read), r.accesses.has(Access::Write)) {
                (true, false) => Accesses::W,
                (false, true) => Accesses::R,
                _ => r.accesses,
            };
        });
    }),
    ("flags ignored", |f| each(f, |r| r.accesses = Accesses::RW)),
    ("read flag only", |f| each(f, |r| r.accesses = Accesses::R)),
    ("write flag only", |f| each(f, |r| r.accesses = Accesses::W)),
    ("order reversed", |f| f.ranges.reverse()),
    ("first range dropped", |f| f.ranges = f.ranges.drain(..).skip(1).collect()),
    ("last range dropped", |f| drop(f.ranges.pop())),
];

/// Whether the look-up on a changed filter differs from what the oracle says of the filter as it was drawn.
fn filter_noticed(how: fn(&mut Filter), cases: u64) -> bool {
    (0..cases).any(|case| {
        let mut choices = Seeded::new(campaign::case_seed(37, "mutated filter", case));
        let c: &mut dyn Choices = &mut choices;
        let drawn = draw::filter(c);
        let mut changed = drawn.build();
        how(&mut changed);
        let probe = |c: &mut dyn Choices| match drawn.ranges.len() as u64 {
            0 => draw::any_msr(c),
            n => {
                let range = &drawn.ranges[c.choose(Site::State, n) as usize];
                let edge =
                    if c.flip(Site::State) { range.base } else { range.base.wrapping_add(range.nmsrs) };
                edge.wrapping_add(c.choose(Site::State, 5) as u32).wrapping_sub(2)
            }
        };
        (0..4).any(|_| {
            let (msr, access) = (probe(c), draw::access(c));
            changed.allows(msr, access, Regressions::NONE) != oracle::allows(&drawn, msr, access)
        })
    })
}

/// Mutates filters as the look-up sees them, and the MSRs that no filter denies.
#[must_use]
pub fn run_filter(cases: u64) -> Report {
    let [first, last] = Tables::KVM.unfilterable;
    let unfilterable = [
        [first + 1, last],
        [first - 1, last],
        [first, last + 1],
        [first, last - 1],
        [last, first],
        [0, u32::MAX],
        [first + 0x4000_0000, last + 0x4000_0000],
    ];
    let mutants = unfilterable
        .map(|unfilterable| {
            let [first, last] = unfilterable;
            (format!("unfilterable: {first:#x} to {last:#x}"), Tables { unfilterable, ..*Tables::KVM })
        })
        .to_vec();
    let mut report =
        judged("filter", &["filter-first-match", "denied-access-never-executes"], mutants, cases);
    for (what, how) in FILTERS {
        report.count(|| format!("look-up: {what}"), filter_noticed(*how, cases));
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_and_filters_as_they_are_give_the_judges_nothing_to_notice() {
        let names = ["svm-map-is-a-function", "vmx-nested-entry-history", "svm-merge-list", "svm-map-bits"];
        let properties: Vec<Property> = names.iter().map(|n| campaign::property(n).unwrap()).collect();
        assert!(!noticed(&properties, *Tables::KVM, 500));
        assert!(!filter_noticed(|_| (), 500));
    }
}
