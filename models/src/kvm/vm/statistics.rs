//! Statistics, as `KVM_GET_STATS_FD` shows them: a head, a name, descriptors, and one value for each.

use crate::kvm::abi::{Plain, StatsDesc, StatsHeader};

/// `KVM_STATS_NAME_SIZE`.
const NAME: usize = 48;
/// `KVM_STATS_TYPE_CUMULATIVE` and `KVM_STATS_TYPE_INSTANT`, with `KVM_STATS_UNIT_NONE` and `KVM_STATS_UNIT_BOOLEAN`.
const SUM: u32 = 0;
const NOW: u32 = 1 | 4 << 4;

macro_rules! statistics {
    ($($(#[$meta:meta])* $name:ident = $text:literal, $kind:expr;)*) => {
        /// What is counted of a vCPU. The names are KVM's.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Statistic { $($(#[$meta])* $name,)* }

        const VCPU: &[(&str, u32)] = &[$(($text, $kind)),*];
    };
}

statistics! {
    /// It went to sleep and was woken.
    HaltWakeup = "halt_wakeup", SUM;
    /// It sleeps.
    Blocking = "blocking", NOW;
    /// The second stage refused an access.
    PfTaken = "pf_taken", SUM;
    /// And then a page was mapped.
    PfFixed = "pf_fixed", SUM;
    /// Its translations were flushed.
    TlbFlush = "tlb_flush", SUM;
    /// The guest was left.
    Exits = "exits", SUM;
    /// For a port.
    IoExits = "io_exits", SUM;
    /// `KVM_RUN` ended with an access to memory that no slot has.
    MmioExits = "mmio_exits", SUM;
    /// With a signal.
    SignalExits = "signal_exits", SUM;
    /// An interrupt became possible.
    IrqWindowExits = "irq_window_exits", SUM;
    /// An NMI became possible.
    NmiWindowExits = "nmi_window_exits", SUM;
    /// HLT.
    HaltExits = "halt_exits", SUM;
    /// An interrupt of the host.
    IrqExits = "irq_exits", SUM;
    /// An instruction was emulated.
    InsnEmulation = "insn_emulation", SUM;
    /// Or could not be.
    InsnEmulationFail = "insn_emulation_fail", SUM;
    /// A hypercall.
    Hypercalls = "hypercalls", SUM;
    /// An interrupt was injected.
    IrqInjections = "irq_injections", SUM;
    /// An NMI was.
    NmiInjections = "nmi_injections", SUM;
    /// L1 entered L2.
    NestedRun = "nested_run", SUM;
    /// L2 runs.
    GuestMode = "guest_mode", NOW;
}

/// The statistics of a vCPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Statistics([u64; VCPU.len()]);

impl Default for Statistics {
    fn default() -> Self {
        Self([0; VCPU.len()])
    }
}

impl Statistics {
    /// One more.
    pub(super) const fn count(&mut self, statistic: Statistic) {
        self.0[statistic as usize] += 1;
    }

    /// Something begins or ends.
    pub(super) const fn set(&mut self, statistic: Statistic, value: bool) {
        self.0[statistic as usize] = value as u64;
    }

    /// How many.
    pub(super) const fn get(&self, statistic: Statistic) -> u64 {
        self.0[statistic as usize]
    }

    /// What the descriptor reads as; `id` names the vCPU.
    pub(super) fn file(&self, id: &str) -> Vec<u8> {
        file(id, VCPU, &self.0)
    }
}

/// What the descriptor of a VM reads as: so often all translations were flushed.
pub(super) fn of_vm(id: &str, flushes: u64) -> Vec<u8> {
    file(id, &[("remote_tlb_flush", SUM), ("remote_tlb_flush_requests", SUM)], &[flushes; 2])
}

fn padded(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    let length = name.len().min(NAME - 1);
    bytes[..length].copy_from_slice(&name.as_bytes()[..length]);
    bytes
}

fn file(id: &str, rows: &[(&str, u32)], values: &[u64]) -> Vec<u8> {
    let descriptors = StatsHeader::SIZE + NAME;
    let header = StatsHeader {
        flags: 0,
        name_size: NAME as u32,
        num_desc: rows.len() as u32,
        id_offset: StatsHeader::SIZE as u32,
        desc_offset: descriptors as u32,
        data_offset: (descriptors + rows.len() * (StatsDesc::SIZE + NAME)) as u32,
    };
    let mut bytes = header.to_bytes();
    bytes.extend(padded(id));
    for (place, (name, flags)) in rows.iter().enumerate() {
        StatsDesc { flags: *flags, exponent: 0, size: 1, offset: 8 * place as u32, bucket_size: 0 }
            .put(&mut bytes);
        bytes.extend(padded(name));
    }
    for value in values {
        value.put(&mut bytes);
    }
    bytes
}
