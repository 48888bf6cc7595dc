//! Two runs of the same L1, compared: what may differ is a closed enum, everything else is a difference.

use core::ops::Range;

use rootmode_arch::record::{Level, Payload, Record, Stop};

use super::run::{Contents, Run};
use crate::guests::layout::{CONTROL, HOST_VMCB, VMXON_REGION};

/// A difference that the architecture allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Allowed {
    /// Bytes of a VMCS region: its format is the processor's, and data may be held on-chip
    /// (SDM Vol. 3C "Format of the VMCS Region").
    VmcsRegion,
    /// Bytes of the page that VM_HSAVE_PA names: the processor alone knows the format
    /// (APM Vol. 2 "VM_HSAVE_PA MSR").
    HostSaveArea,
}

/// Something that L1 or L2 could see, and that was not the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The runs stopped for different reasons.
    Stop(Stop, Stop),
    /// The runs took a different number of ticks.
    Ticks(u64, u64),
    /// The n-th fact (from 0) is not the same; `None`: this run has no more.
    Fact(usize, Box<[Option<Record>; 2]>),
    /// A register of L1 at the end: number (16 is RIP) and values.
    Register(usize, u64, u64),
    /// L1's memory at the end: the first address that differs, and the bytes there.
    Memory(u64, u8, u8),
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// The bare run.
    pub bare: Run,
    /// The hosted run.
    pub hosted: Run,
    /// Number of facts that were compared.
    pub facts: usize,
    /// The first forbidden difference of each kind.
    pub differences: Vec<Difference>,
    /// Allowed differences with the number of bytes that differ.
    pub allowed: Vec<(Allowed, u64)>,
}

impl Comparison {
    /// Whether the law holds.
    pub fn holds(&self) -> bool {
        self.differences.is_empty()
    }
}

/// Whether L1 or L2 could see it: exits and entries that L1 makes, ports, deliveries, the end. What L0 does, is not.
pub fn is_fact(record: &Record) -> bool {
    match record.payload {
        Payload::Entry { .. } | Payload::EntryFailed { .. } | Payload::Exit { .. } => {
            record.level != Level::L0
        }
        Payload::Port { .. } | Payload::Delivery { .. } => true,
        _ => false,
    }
}

/// The facts of a run, in order.
pub fn facts(run: &Run) -> impl Iterator<Item = &Record> {
    run.records.iter().filter(|record| is_fact(record))
}

/// Compares a bare and a hosted run.
pub fn compare(bare: Run, hosted: Run, vendor: rootmode_arch::Vendor) -> Comparison {
    let mut differences = Vec::new();
    if bare.stop != hosted.stop {
        differences.push(Difference::Stop(bare.stop, hosted.stop));
    }
    let (count, fact) = compare_facts(&bare, &hosted);
    differences.extend(fact);
    if bare.ticks != hosted.ticks {
        differences.push(Difference::Ticks(bare.ticks, hosted.ticks));
    }
    let registers = bare.registers.iter().zip(&hosted.registers).enumerate();
    let mut registers = registers.filter(|(_, (a, b))| a != b);
    if let Some((number, (a, b))) = registers.next() {
        differences.push(Difference::Register(number, *a, *b));
    }
    let (memory, allowed) = compare_memory(&bare.memory, &hosted.memory, vendor);
    differences.extend(memory);
    Comparison { bare, hosted, facts: count, differences, allowed }
}

/// How many facts agree, and the first that does not.
fn compare_facts(bare: &Run, hosted: &Run) -> (usize, Option<Difference>) {
    let (mut left, mut right) = (facts(bare), facts(hosted));
    let mut count = 0;
    loop {
        match (left.next(), right.next()) {
            (None, None) => return (count, None),
            (a, b) if a == b => count += 1,
            (a, b) => return (count, Some(Difference::Fact(count, Box::new([a.copied(), b.copied()])))),
        }
    }
}

fn page(at: u64) -> Range<u64> {
    at..at + 0x1000
}

fn compare_memory(
    bare: &Contents,
    hosted: &Contents,
    vendor: rootmode_arch::Vendor,
) -> (Option<Difference>, Vec<(Allowed, u64)>) {
    let kinds: &[(Allowed, Range<u64>)] = match vendor {
        rootmode_arch::Vendor::Intel => &[(Allowed::VmcsRegion, page(CONTROL))],
        rootmode_arch::Vendor::Amd => &[(Allowed::HostSaveArea, page(VMXON_REGION))],
    };
    debug_assert!(kinds.iter().all(|(_, range)| !range.contains(&HOST_VMCB)));
    let mut allowed: Vec<(Allowed, u64)> = kinds.iter().map(|(kind, _)| (*kind, 0)).collect();
    let mut first = None;
    for number in bare.differing(hosted) {
        let bytes = bare.page(number).iter().zip(hosted.page(number));
        for (offset, (a, b)) in bytes.enumerate().filter(|(_, (a, b))| a != b) {
            let address = number * 0x1000 + offset as u64;
            match kinds.iter().position(|(_, range)| range.contains(&address)) {
                Some(kind) => allowed[kind].1 += 1,
                None => first = first.or(Some(Difference::Memory(address, *a, *b))),
            }
        }
    }
    allowed.retain(|(_, bytes)| *bytes != 0);
    (first, allowed)
}
