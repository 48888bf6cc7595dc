//! What everything observable looks like: one envelope, one closed enum of payloads.
//!
//! Recorder, statistics, debugger and reports all read [`Record`]s; `traces/` writes them to files.

use crate::{EventClass, GuestPhysical, HostPhysical, Linear, Vendor};

/// Which hypervisor level ran when something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub enum Level {
    /// The model of KVM, or the simulator itself.
    L0,
    /// A guest hypervisor, or a bare machine's host mode.
    L1,
    /// A nested guest, or a bare hypervisor's guest.
    L2,
}

/// Why a machine stopped by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub enum Stop {
    /// Every vCPU is halted and no deadline is pending.
    Idle,
    /// The guest asked for it (test device, shutdown port) with this value.
    Requested(u32),
    /// Triple fault outside any guest.
    TripleFault,
    /// RIP reached gate address `n` of the host.
    Gate(u32),
    /// The tick limit was reached.
    Limit,
    /// Steps without progress exceeded their bound.
    NoProgress,
    /// An instruction or feature that is not modelled was used; the linear address of the instruction.
    Unmodelled(Linear),
    /// VMX abort with its indicator.
    VmxAbort(u32),
    /// The guest switched the machine off (ACPI S5, the shutdown port).
    PowerOff,
    /// The guest reset the machine (reset control register, keyboard controller).
    Reset,
}

/// One observable fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub struct Record {
    /// Machine time in ticks.
    pub tick: u64,
    /// Virtual processor, from 0.
    pub vcpu: u8,
    /// Who ran.
    pub level: Level,
    /// What happened.
    pub payload: Payload,
}

/// An instruction of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub struct Place {
    /// Machine time in ticks.
    pub tick: u64,
    /// Virtual processor, from 0.
    pub vcpu: u8,
    /// RIP.
    pub rip: u64,
}

/// Use of a cached translation that is stale, where the manuals require an invalidation before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub struct StaleUse {
    /// RIP of the instruction that used it; the record has the time and the processor.
    pub rip: u64,
    /// The linear address.
    pub linear: Linear,
    /// A write.
    pub write: bool,
    /// An instruction fetch.
    pub fetch: bool,
    /// Host-physical page that the access went to.
    pub used: HostPhysical,
    /// Host-physical page where a walk would lead; `None`: it would refuse the access.
    pub walked: Option<HostPhysical>,
    /// Where the translation was cached.
    pub cached: Place,
    /// What made it stale.
    pub why: StaleWhy,
    /// Where that happened; `None`: it is not known, or was no instruction.
    pub changed: Option<Place>,
}

/// What made a cached translation stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub enum StaleWhy {
    /// A paging-structure entry of either stage was changed.
    Entry {
        /// Its host-physical address; of the pair that a 4-byte entry lies in.
        address: HostPhysical,
        /// What it was.
        old: u64,
        /// What it became.
        new: u64,
    },
    /// The tag (PCID, VPID, ASID) now belongs to other tables: CR3 or the second stage's root changed.
    Root,
    /// Another register that governs translation changed.
    Registers,
}

/// A clean bit of a VMCB that was wrongly set, or a host save area that was written while a guest ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub struct TrustedField {
    /// The VMCB, or the host save area.
    pub vmcb: HostPhysical,
    /// The clean bit; all that were set, if the processor did not keep this VMCB and so ignored them; 0: it is the host
    /// save area.
    pub bits: u32,
    /// Offset in the VMCB of the field whose kept value the processor used; `None`: it did not keep this VMCB.
    pub field: Option<u16>,
    /// What it kept.
    pub kept: u64,
    /// What memory held.
    pub written: u64,
}

/// Use of the region of a VMCS that is active on a processor: VMCLEAR there is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub struct HeldRegion {
    /// RIP of the instruction; the record has the time and the processor.
    pub rip: u64,
    /// The region.
    pub region: HostPhysical,
    /// What the instruction did.
    pub how: HeldUse,
    /// Where the VMCS became active.
    pub since: Place,
}

/// What an instruction does to a region that is not its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub enum HeldUse {
    /// Reads the region's bytes.
    Read,
    /// Stores to them.
    Written,
    /// VMPTRLD on another processor.
    Loaded,
    /// VMCLEAR on another processor.
    Cleared,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
pub enum Payload {
    /// A guest was entered.
    Entry {
        /// Whose extension.
        vendor: Vendor,
        /// Guest RIP.
        rip: u64,
        /// Injected event, as the vendor encodes it (0: none).
        injection: u64,
    },
    /// An entry was refused.
    EntryFailed {
        /// Whose extension.
        vendor: Vendor,
        /// VMX: error number or exit reason; SVM: exit code.
        code: u64,
        /// Exit qualification, or EXITINFO1.
        detail: u64,
    },
    /// A guest was left.
    Exit {
        /// Whose extension.
        vendor: Vendor,
        /// Exit reason or exit code.
        code: u64,
        /// Exit qualification or EXITINFO1.
        info1: u64,
        /// Guest-physical address or EXITINFO2.
        info2: u64,
        /// Guest RIP.
        rip: u64,
    },
    /// An event was delivered through the IDT.
    Delivery {
        /// Vector.
        vector: u8,
        /// Error code.
        error_code: Option<u32>,
        /// RIP that was pushed.
        rip: u64,
    },
    /// A port was read or written.
    Port {
        /// Port number.
        port: u16,
        /// Bytes.
        size: u8,
        /// True for a write.
        write: bool,
        /// The data.
        value: u32,
    },
    /// An MSR was read or written without an exit.
    Msr {
        /// Index.
        index: u32,
        /// True for WRMSR.
        write: bool,
        /// The value.
        value: u64,
    },
    /// Translations were invalidated.
    Flush {
        /// The instruction or cause.
        cause: EventClass,
        /// The linear address, for single-address kinds.
        linear: Option<Linear>,
    },
    /// A page was touched that the second stage refused and the hypervisor mapped.
    Mapped {
        /// The page.
        address: GuestPhysical,
    },
    /// L0 reached a named point.
    Point {
        /// Index in the model's table of points.
        point: u16,
        /// Task that stands there.
        task: u16,
    },
    /// A choice was made.
    Choice {
        /// Site number.
        site: u16,
        /// Number of alternatives.
        n: u64,
        /// The one taken.
        k: u64,
    },
    /// The machine stopped.
    Stopped(Stop),
    /// A stale translation was used (hostile hardware only).
    Stale(StaleUse),
    /// A VMCB clean bit was set that should not have been (hostile hardware only).
    Trusted(TrustedField),
    /// The region of an active VMCS was used (hostile hardware only).
    Held(HeldRegion),
}

/// Receives every record. Observers see shared state only and cannot change the machine.
pub trait Observer {
    /// Called once a record, in order.
    fn observe(&mut self, record: &Record);
}

/// The observer of those who do not watch.
impl Observer for () {
    fn observe(&mut self, _: &Record) {}
}
