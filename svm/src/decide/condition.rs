//! [`Condition`]: what a row asks for beyond an intercept bit.

use super::apic::{ApicBehaviour, apic_behaviour};
use super::view::{Controls, View};
use crate::bitmap::{Access, PermissionMaps, msr_intercepted, port_intercepted};
use rootmode_arch::event::{ExceptionSource, TableInstruction};
use rootmode_arch::{Cr0, Event, msr, vector};

/// What must hold, beyond the gate, for a row to apply. Section titles are of APM Vol. 2 (24593 rev. 3.43).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Always,
    /// INT1: it has an intercept of its own ("#DB (Debug)").
    Int1,
    /// Any other exception.
    NotInt1,
    /// #MC while interrupts are forced to exit ("Interrupt Injection Restrictions").
    ForcedMachineCheck,
    /// Interrupts are forced to exit ("Interrupt Injection Restrictions").
    Forced,
    /// HWCR.SmmLock is 0 ("SMI Intercept").
    SmmUnlocked,
    /// An SEV-ES guest ("Interaction with SMI and #MC", "Control Register Write Traps").
    SevEs,
    /// Not an SEV-ES guest ("VMGEXIT").
    NotSevEs,
    /// An SNP-active guest ("Running SNP-Active Virtual Machines").
    Snp,
    /// The bus-lock threshold counter is 0 ("Bus Lock Threshold").
    BusLocksExhausted,
    /// A register that faults on this access ("Virtual APIC Register Accesses").
    ApicFault,
    /// A register that traps after this write.
    ApicTrap,
    /// The interrupt command register, and the command could not be delivered ("AVIC IPI Delivery Not Completed").
    IpiFailed,
    /// AVIC is active.
    Avic,
    /// No virtual interrupt is pending ("Instruction Intercepts", Idle HLT).
    NoVirtualInterrupt,
    /// INVLPGB with illegal operands.
    IllegalOperands,
    /// MOV to CR0 that changes a bit other than TS and MP ("Instruction Intercepts", Selective CR0 Write).
    Cr0Changes,
    /// A bit of the access in the I/O permission map ("IN and OUT Behavior").
    PortMap,
    /// The bit for this access in the MSR permission map ("MSR Intercepts"); never SEV_STATUS ("SEV_STATUS MSR").
    MsrMap(Access),
    /// The monitor is armed.
    Armed,
    /// The PAUSE filter lets the intercept see this PAUSE ("Pause Intercept Filtering").
    PauseFilter,
    /// This descriptor-table instruction.
    Table(TableInstruction),
    /// VMLOAD and VMSAVE virtualization is asked for but not recognized ("VMSAVE and VMLOAD Virtualization").
    VirtualizationRefused,
}

impl Condition {
    /// Whether the condition holds for `event`. For an event of a class that it is not about, it does not.
    #[inline(always)]
    pub fn holds<M: PermissionMaps + ?Sized>(self, view: &View<'_, M>, event: &Event) -> bool {
        let (controls, state) = (view.controls, view.state);
        match (self, event) {
            (Self::Always, _) => true,
            (Self::Int1, Event::Exception(e)) => e.source == ExceptionSource::Privileged,
            (Self::NotInt1, Event::Exception(e)) => e.source != ExceptionSource::Privileged,
            (Self::ForcedMachineCheck, Event::Exception(e)) => {
                e.vector == vector::MC && controls.forces_interrupts()
            }
            (Self::BusLocksExhausted, _) => state.bus_lock_counter == 0,
            (Self::ApicFault, Event::ApicAccess { access, .. }) => {
                let offset = access.address.page_offset() as u16;
                controls.is_avic()
                    && apic_behaviour(offset, access.write, controls.traits.extended_lvt)
                        == ApicBehaviour::Fault
            }
            (Self::ApicTrap, Event::ApicWrite { offset }) => {
                controls.is_avic()
                    && apic_behaviour(*offset, true, controls.traits.extended_lvt) == ApicBehaviour::Trap
            }
            (Self::IpiFailed, Event::ApicWrite { offset }) => {
                controls.is_avic() && offset & 0xff0 == 0x300 && state.ipi.failure.is_some()
            }
            (Self::NoVirtualInterrupt, _) => !state.virtual_interrupt_pending,
            (Self::IllegalOperands, _) => state.invlpgb_illegal,
            (Self::Cr0Changes, Event::CrWrite { cr: 0, value, .. }) => {
                (value ^ state.cr0.0) & !(Cr0::TS.0 | Cr0::MP.0) != 0
            }
            (Self::PortMap, Event::PortIo(access)) => port_intercepted(view.maps, access.port, access.size),
            (Self::MsrMap(access), Event::Rdmsr { index } | Event::Wrmsr { index, .. }) => {
                !(controls.traits.sev && *index == msr::SEV_STATUS)
                    && msr_intercepted(view.maps, *index, access)
            }
            (Self::Armed, Event::Mwait { armed }) => *armed,
            (Self::PauseFilter, Event::Pause { tsc, .. }) => state.pause.exits(controls, *tsc),
            (Self::Table(which), Event::DescriptorTable { instruction, .. }) => which == *instruction,
            _ => self.holds_for_controls(controls),
        }
    }

    /// The conditions that are about controls alone.
    #[inline(always)]
    const fn holds_for_controls(self, controls: &Controls) -> bool {
        match self {
            Self::Forced => controls.forces_interrupts(),
            Self::SmmUnlocked => !controls.traits.smm_locked,
            Self::SevEs => controls.is_sev_es(),
            Self::NotSevEs => !controls.is_sev_es(),
            Self::Snp => controls.is_snp(),
            Self::Avic => controls.is_avic(),
            Self::VirtualizationRefused => controls.refuses_virtual_vmload(),
            _ => false,
        }
    }

    /// Whether the condition could hold for some event under `controls`.
    pub const fn may_hold(self, controls: &Controls) -> bool {
        match self {
            Self::Forced
            | Self::SmmUnlocked
            | Self::SevEs
            | Self::NotSevEs
            | Self::Snp
            | Self::Avic
            | Self::VirtualizationRefused => self.holds_for_controls(controls),
            Self::ForcedMachineCheck => controls.forces_interrupts(),
            Self::ApicFault | Self::ApicTrap | Self::IpiFailed => controls.is_avic(),
            _ => true,
        }
    }
}
