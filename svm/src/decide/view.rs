//! [`View`]: everything that [`decide`](super::decide) may read, as plain public fields.

use crate::bitmap::PermissionMaps;
use crate::capabilities::Processor;
use crate::encode::IpiFailure;
use crate::vmcb::{Field, IntCtl, Intercepts, NestedControl, VirtExt, Vmcb};
use rootmode_arch::{Cr0, Feature, RFlags};

/// What a decision reads: the VMCB's controls, a few values of the processor, and the permission maps in place.
#[derive(Clone, Copy, Debug)]
pub struct View<'a, M: PermissionMaps + ?Sized> {
    /// VMCB fields and facts of the processor model: they change only while the guest does not run.
    pub controls: &'a Controls,
    /// What changes while the guest runs.
    pub state: &'a State,
    /// The permission maps that the VMCB points to.
    pub maps: &'a M,
}

/// The control fields that decide about exits, and what the processor model adds. [`Default`]: nothing exits that has an
/// intercept bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Controls {
    /// The six intercept vectors.
    pub intercepts: Intercepts,
    /// AVIC and other enables at byte 0x60. (The virtual interrupt state itself is [`State`]'s.)
    pub int_ctl: IntCtl,
    /// Nested paging and encryption enables at byte 0x90.
    pub nested: NestedControl,
    /// Enables at byte 0xb8.
    pub virt_ext: VirtExt,
    /// PAUSE filter count.
    pub pause_filter_count: u16,
    /// PAUSE filter threshold, in ticks of the TSC.
    pub pause_filter_threshold: u16,
    /// SEV_FEATURES of the VMSA; 0 without SEV-ES.
    pub sev_features: u64,
    /// What the processor model adds.
    pub traits: Traits,
}

/// Facts of the processor model and its set-up that change what an exit reports or when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Traits {
    /// EXITINFO1 names registers, vectors and addresses (CPUID 0x8000000a EDX bit 7).
    pub decode_assists: bool,
    /// The next RIP is saved (EDX bit 3).
    pub nrip_save: bool,
    /// The PAUSE filter count works (EDX bit 10).
    pub pause_filter: bool,
    /// The PAUSE filter threshold works (EDX bit 12).
    pub pause_filter_threshold: bool,
    /// AVIC exists (EDX bit 13).
    pub avic: bool,
    /// x2AVIC exists (EDX bit 18).
    pub x2avic: bool,
    /// VMLOAD and VMSAVE can be virtualized (EDX bit 15).
    pub virtual_vmload: bool,
    /// Read-only guest page tables exist (EDX bit 21).
    pub read_only_tables: bool,
    /// Extended LVT registers are accelerated (EDX bit 27).
    pub extended_lvt: bool,
    /// SEV exists, and memory encryption is on: SEV and SEV-ES enables count, and SEV_STATUS is never intercepted.
    pub sev: bool,
    /// The hypervisor executed VMRUN in 64-bit mode.
    pub host_64_bit: bool,
    /// HWCR.SmmLock: SMIs are not intercepted.
    pub smm_locked: bool,
}

/// What changes while the guest runs. [`Default`] is all zero: real mode, CPL 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct State {
    /// CR0 before the instruction.
    pub cr0: Cr0,
    /// RFLAGS before the event. A task switch reports RF.
    pub rflags: RFlags,
    /// Address of the next sequential instruction.
    pub next_rip: u64,
    /// Address size of the current code in bytes (2, 4, 8), prefixes counted: what IN and OUT report.
    pub address_size: u8,
    /// PAUSEs seen since VMRUN.
    pub pause: PauseFilter,
    /// What is left of the bus-lock threshold counter.
    pub bus_lock_counter: u16,
    /// A virtual interrupt or virtual NMI is pending (V_IRQ, V_NMI, or a bit of AVIC's IRR).
    pub virtual_interrupt_pending: bool,
    /// The INVLPGB at hand has illegal operands.
    pub invlpgb_illegal: bool,
    /// What became of the interrupt command that the guest wrote last, with AVIC.
    pub ipi: IpiOutcome,
}

/// What became of an interrupt command that AVIC handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IpiOutcome {
    /// The command: ICRH in bits 63:32, ICRL in bits 31:0.
    pub icr: u64,
    /// Why it could not be delivered to every target; `None`: it was.
    pub failure: Option<IpiFailure>,
    /// Index of the table entry that stands in the way, for causes that have one.
    pub index: u16,
}

/// The PAUSE filter's internal counter (APM Vol. 2 (24593 rev. 3.43) "Pause Intercept Filtering").
///
/// The manual says both that the intercept happens when the counter "reaches zero" and when it "goes below zero"; here,
/// with its table of instruction intercepts and the threshold mode, it is below: a count of *n* lets *n* PAUSEs pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PauseFilter {
    /// The counter; VMRUN loads it from the VMCB.
    pub left: u16,
    /// Time-stamp counter at the most recent PAUSE since VMRUN.
    pub last: Option<u64>,
}

impl PauseFilter {
    /// The counter after VMRUN.
    pub const fn at_entry(controls: &Controls) -> Self {
        Self { left: controls.pause_filter_count, last: None }
    }
    /// Whether a PAUSE at `tsc` starts the count anew: in threshold mode, the first one and one that comes late.
    const fn reloads(self, controls: &Controls, tsc: u64) -> bool {
        if !controls.traits.pause_filter_threshold || controls.pause_filter_threshold == 0 {
            return false;
        }
        match self.last {
            Some(last) => tsc.wrapping_sub(last) > controls.pause_filter_threshold as u64,
            None => true,
        }
    }
    /// Whether a PAUSE at `tsc` passes the filter, so that the intercept sees it.
    pub const fn exits(self, controls: &Controls, tsc: u64) -> bool {
        if !controls.traits.pause_filter || controls.pause_filter_count == 0 {
            return true;
        }
        !self.reloads(controls, tsc) && self.left == 0
    }
    /// The filter after a PAUSE at `tsc` that did not exit.
    #[must_use]
    pub const fn after(self, controls: &Controls, tsc: u64) -> Self {
        let left = if self.reloads(controls, tsc) {
            controls.pause_filter_count
        } else {
            self.left.saturating_sub(1)
        };
        Self { left, last: Some(tsc) }
    }
}

/// SEV_FEATURES bits that force the interception of interrupts: restricted and alternate injection, secure AVIC.
const FORCE_INTERRUPTS: u64 = 1 << 3 | 1 << 4 | 1 << 16;

impl Controls {
    /// From a VMCB; fields that are unknown there count as 0. SEV_FEATURES stay 0: they are the VMSA's.
    pub fn of(vmcb: &Vmcb, traits: Traits) -> Self {
        let value = |field| vmcb.get(field).unwrap_or(0);
        let mut intercepts = Intercepts::NONE;
        for (word, field) in intercepts.0.iter_mut().zip(Intercepts::FIELDS) {
            *word = value(field) as u32;
        }
        Self {
            intercepts,
            int_ctl: IntCtl(value(Field::IntCtl) as u32),
            nested: NestedControl(value(Field::NestedControl)),
            virt_ext: VirtExt(value(Field::VirtExt)),
            pause_filter_count: value(Field::PauseFilterCount) as u16,
            pause_filter_threshold: value(Field::PauseFilterThreshold) as u16,
            sev_features: 0,
            traits,
        }
    }
    /// SEV is active.
    pub const fn is_sev(&self) -> bool {
        self.traits.sev && self.nested.contains(NestedControl::SEV_ENABLE)
    }
    /// SEV-ES is active.
    pub const fn is_sev_es(&self) -> bool {
        self.is_sev() && self.nested.contains(NestedControl::SEV_ES_ENABLE)
    }
    /// SEV-SNP is active.
    pub const fn is_snp(&self) -> bool {
        self.is_sev_es() && self.sev_features & 1 != 0
    }
    /// Physical INTR, NMI, INIT and #MC exit whatever their intercepts.
    pub const fn forces_interrupts(&self) -> bool {
        self.is_sev_es() && self.sev_features & FORCE_INTERRUPTS != 0
    }
    /// AVIC is active.
    pub const fn is_avic(&self) -> bool {
        self.traits.avic && self.int_ctl.contains(IntCtl::AVIC_ENABLE)
    }
    /// AVIC is active, and the guest's APIC is in x2APIC mode.
    pub const fn is_x2avic(&self) -> bool {
        self.is_avic() && self.traits.x2avic && self.int_ctl.contains(IntCtl::X2AVIC_ENABLE)
    }
    const fn asks_for_virtual_vmload(&self) -> bool {
        self.traits.virtual_vmload && self.virt_ext.contains(VirtExt::VMLOAD_VMSAVE_ENABLE)
    }
    const fn can_virtualize_vmload(&self) -> bool {
        self.traits.host_64_bit && self.nested.contains(NestedControl::NP_ENABLE) && !self.is_sev()
    }
    /// VMLOAD and VMSAVE virtualization is asked for, but not recognized: both exit.
    pub const fn refuses_virtual_vmload(&self) -> bool {
        self.asks_for_virtual_vmload() && !self.can_virtualize_vmload()
    }
    /// The guest's VMLOAD and VMSAVE take guest-physical addresses.
    pub const fn virtualizes_vmload(&self) -> bool {
        self.asks_for_virtual_vmload() && self.can_virtualize_vmload()
    }
}

impl Traits {
    /// Those of `processor` under a 64-bit host without memory encryption.
    pub const fn of(processor: &Processor) -> Self {
        Self {
            decode_assists: processor.has(Feature::DecodeAssists),
            nrip_save: processor.has(Feature::NripSave),
            pause_filter: processor.has(Feature::PauseFilter),
            pause_filter_threshold: processor.has(Feature::PauseFilterThreshold),
            avic: processor.has(Feature::Avic),
            x2avic: processor.has(Feature::X2Avic),
            virtual_vmload: processor.has(Feature::VirtualVmloadVmsave),
            read_only_tables: processor.has(Feature::ReadOnlyGuestPageTables),
            extended_lvt: false,
            sev: false,
            host_64_bit: true,
            smm_locked: false,
        }
    }
}
