//! Breakpoints: which debug registers an instruction, a data access or a port access matches
//! (SDM Vol. 3B "Breakpoint Field Recognition", "Debug Control Register (DR7)").

use crate::Cpu;
use rootmode_arch::{Cr4, Dr6, Dr7, Feature, Linear};

/// What a breakpoint waits for: DR7's R/W field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Condition {
    Execute = 0,
    Write = 1,
    Port = 2,
    ReadOrWrite = 3,
}

/// One of DR0 to DR3 as DR7 sets it up.
#[derive(Clone, Copy, Debug)]
struct Breakpoint {
    enabled: bool,
    condition: Condition,
    /// First address and number of bytes; the hardware ignores low address bits.
    first: u64,
    bytes: u64,
}

impl Breakpoint {
    fn of(cpu: &Cpu, n: usize) -> Self {
        let field = cpu.dr7 >> (16 + 4 * n);
        let condition = match field & 3 {
            0 => Condition::Execute,
            1 => Condition::Write,
            2 => Condition::Port,
            _ => Condition::ReadOrWrite,
        };
        let bytes = [1, 2, 8, 4][(field >> 2 & 3) as usize];
        Self { enabled: cpu.dr7 >> (2 * n) & 3 != 0, condition, first: cpu.dr[n] & !(bytes - 1), bytes }
    }

    /// Whether an access of `bytes` bytes at `address` touches it.
    const fn overlaps(&self, address: u64, bytes: u64) -> bool {
        let (distance, behind) = (address.wrapping_sub(self.first), self.first.wrapping_sub(address));
        distance < self.bytes || behind < bytes
    }
}

impl Cpu {
    /// The bits of DR6 that are 1 after `value` was written to it: those that do not exist, and the one that tells of bus
    /// locks, unless the processor has it and it was cleared.
    pub(crate) fn dr6_ones(&self, value: u64) -> u64 {
        let detects = self.model.has(Feature::BusLockDetect);
        0xffff_0ff0 & !(if detects { !value & Dr6::BLD.0 } else { 0 })
    }

    /// Bits of DR6 for what `matches` says. Nothing unless an enabled breakpoint is among them: then the hardware shows the
    /// disabled ones that match as well.
    fn matching(&self, matches: impl Fn(&Breakpoint) -> bool) -> u64 {
        let (mut bits, mut enabled) = (0, false);
        for n in 0..4 {
            let breakpoint = Breakpoint::of(self, n);
            if matches(&breakpoint) {
                bits |= 1 << n;
                enabled |= breakpoint.enabled;
            }
        }
        if enabled { bits } else { 0 }
    }

    /// DR6's bits for executing the instruction at `linear`.
    pub(crate) fn execution_matches(&self, linear: Linear) -> u64 {
        self.matching(|b| b.condition == Condition::Execute && b.overlaps(linear.0, 1))
    }

    /// DR6's bits for a data access.
    pub(crate) fn data_matches(&self, linear: Linear, bytes: u8, write: bool) -> u64 {
        self.matching(|b| {
            let kind = b.condition == Condition::ReadOrWrite || write && b.condition == Condition::Write;
            kind && b.overlaps(linear.0, u64::from(bytes))
        })
    }

    /// DR6's bits for a port access; without CR4.DE there are no such breakpoints.
    pub(crate) fn port_matches(&self, port: u16, bytes: u8) -> u64 {
        if !self.cr4.contains(Cr4::DE) || self.dr7 & 0xff == 0 {
            return 0;
        }
        self.matching(|b| b.condition == Condition::Port && b.overlaps(u64::from(port), u64::from(bytes)))
    }

    /// Whether an enabled breakpoint waits for one of `conditions`.
    pub(crate) fn has_breakpoint(&self, conditions: &[Condition]) -> bool {
        const ENABLES: u64 =
            Dr7::L0.0 | Dr7::G0.0 | Dr7::L1.0 | Dr7::G1.0 | Dr7::L2.0 | Dr7::G2.0 | Dr7::L3.0 | Dr7::G3.0;
        self.dr7 & ENABLES != 0
            && (0..4).map(|n| Breakpoint::of(self, n)).any(|b| b.enabled && conditions.contains(&b.condition))
    }
}
