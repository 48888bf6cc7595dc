//! [`Exit`]: what a VM exit reports, built from the event that caused it.

use super::table::Row;
use super::view::{Controls, Processor, View};
use crate::bitmap::Bitmaps;
use crate::information::{Format, InstructionInformation, Interruption, InterruptionType};
use crate::qualification::{
    ApicAccess, ApicAccessKind, CrAccess, CrAccessKind, DebugQualification, EptViolation, Io, LinearAccess,
    LogFull, MovDr, Mwait, TaskSwitch,
};
use crate::{ExitControls, ExitReason, PinControls, SecondaryControls};
use rootmode_arch::event::{Exception, ExceptionSource, GuestPhysicalAccess, MemoryOperand, Operand};
use rootmode_arch::{Cr0, Event, GuestPhysical, Linear, vector};

/// A VM exit as the event determines it. Instruction length, IDT-vectoring information and the saved guest state are
/// the business of whoever performs the exit. Fields that the manual leaves undefined are 0 or `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Basic exit reason.
    pub reason: ExitReason,
    /// Exit qualification.
    pub qualification: u64,
    /// VM-exit instruction information, for exits that have it.
    pub instruction_information: Option<u32>,
    /// VM-exit interruption information; 0 (not valid) for exits without an event.
    pub interruption_information: u32,
    /// VM-exit interruption error code, if bit 11 of the interruption information is 1.
    pub error_code: Option<u32>,
    /// Guest-linear address, for exits that have it.
    pub guest_linear: Option<Linear>,
    /// Guest-physical address, for EPT violations and misconfigurations.
    pub guest_physical: Option<GuestPhysical>,
}

impl Exit {
    /// The exit that `row` makes of `event`.
    pub fn new<B: Bitmaps + ?Sized>(view: &View<'_, B>, event: &Event, row: &Row) -> Self {
        Self::inlined(view, event, row)
    }

    /// [`Self::new`] where row and kind of event are known to the compiler, which then leaves nothing but that exit.
    #[inline(always)]
    pub(super) fn inlined<B: Bitmaps + ?Sized>(view: &View<'_, B>, event: &Event, row: &Row) -> Self {
        let (controls, processor) = (view.controls, view.processor);
        let mut exit = Self::plain(row.reason, 0);
        if let Some(format) = row.information
            && (format != Format::InsOuts || controls.traits.ins_outs_information)
        {
            exit.instruction_information =
                InstructionInformation::of(format, event).map(|information| information.encode(format));
        }
        exit.qualification = match *event {
            Event::Exception(exception) => exit.report_exception(view, &exception),
            Event::Nmi => {
                exit.interruption_information =
                    Interruption::new(InterruptionType::Nmi, vector::NMI).encode();
                0
            }
            Event::ExternalInterrupt { vector } => {
                if controls.exit.contains(ExitControls::ACKNOWLEDGE_INTERRUPT) {
                    exit.interruption_information =
                        Interruption::new(InterruptionType::External, vector).encode();
                }
                0
            }
            Event::SecondStage(access) => {
                exit.guest_physical = Some(access.address);
                if access.misconfigured {
                    0
                } else {
                    exit.guest_linear = access.linear;
                    ept_violation(controls, processor, &access).encode()
                }
            }
            Event::Sipi { vector } | Event::VirtualizedEoi { vector } => vector.into(),
            Event::TaskSwitch { selector, source, .. } => TaskSwitch { selector, source }.encode(),
            Event::ApicAccess { access, in_delivery, .. } => {
                apic_access(processor, &access, in_delivery).encode()
            }
            Event::ApicWrite { offset } => u64::from(offset & 0xfff),
            Event::PageModificationLogFull => {
                LogFull { nmi_unblocking: nmi_unblocking(controls, processor) }.encode()
            }
            Event::Invlpg { linear } => linear.0,
            Event::CrRead { cr, gpr } => CrAccess { cr, kind: CrAccessKind::MovFrom(gpr) }.encode(),
            Event::CrWrite { cr, gpr, .. } => CrAccess { cr, kind: CrAccessKind::MovTo(gpr) }.encode(),
            Event::Clts => CrAccess { cr: 0, kind: CrAccessKind::Clts }.encode(),
            Event::Lmsw { source, memory } => {
                exit.guest_linear = memory;
                CrAccess { cr: 0, kind: CrAccessKind::Lmsw { source, memory: memory.is_some() } }.encode()
            }
            Event::DrRead { dr, gpr } => MovDr { dr, read: true, gpr }.encode(),
            Event::DrWrite { dr, gpr, .. } => MovDr { dr, read: false, gpr }.encode(),
            Event::PortIo(access) => {
                exit.guest_linear = access.string.then_some(access.linear);
                Io::from(&access).encode()
            }
            Event::Mwait { armed } => Mwait { armed }.encode(),
            Event::Invpcid { operand, .. }
            | Event::Xsaves { operand, .. }
            | Event::Xrstors { operand, .. } => displacement(processor, &operand),
            Event::DescriptorTable { operand: Operand::Memory(operand), .. }
            | Event::Vmx { operand: Some(Operand::Memory(operand)), .. } => displacement(processor, &operand),
            _ => 0,
        };
        exit
    }

    /// An exit with nothing but a reason and a qualification.
    #[inline(always)]
    pub const fn plain(reason: ExitReason, qualification: u64) -> Self {
        Self {
            reason,
            qualification,
            instruction_information: None,
            interruption_information: 0,
            error_code: None,
            guest_linear: None,
            guest_physical: None,
        }
    }

    /// Fills in the interruption information, and answers the qualification.
    fn report_exception<B: Bitmaps + ?Sized>(&mut self, view: &View<'_, B>, exception: &Exception) -> u64 {
        let kind = match exception.source {
            ExceptionSource::Hardware => InterruptionType::HardwareException,
            ExceptionSource::Software => InterruptionType::SoftwareException,
            ExceptionSource::Privileged => InterruptionType::PrivilegedSoftwareException,
        };
        // In real-address mode no error code would be pushed, and none is reported.
        self.error_code = exception.error_code.filter(|_| view.processor.cr0.contains(Cr0::PE));
        self.interruption_information = Interruption {
            error_code: self.error_code.is_some(),
            nmi_unblocking: exception.vector != vector::DF && nmi_unblocking(view.controls, view.processor),
            ..Interruption::new(kind, exception.vector)
        }
        .encode();
        match exception.vector {
            vector::DB => DebugQualification::new(exception.detail).encode(),
            vector::PF => exception.detail,
            _ => 0,
        }
    }
}

/// Bit 12 of interruption information and of qualifications: undefined, and 0 here, during event delivery and
/// if NMIs exit while NMI blocking is not virtualized.
fn nmi_unblocking(controls: &Controls, processor: &Processor) -> bool {
    let undefined = processor.in_delivery
        || controls.pin.contains(PinControls::NMI_EXITING)
            && !controls.pin.contains(PinControls::VIRTUAL_NMIS);
    processor.iret_unblocks_nmi && !undefined
}

/// The displacement, sign-extended. Bits beyond the address size are undefined: outside 64-bit mode they are 0 here.
fn displacement(processor: &Processor, operand: &MemoryOperand) -> u64 {
    match operand.address_size {
        _ if processor.is_64_bit() => operand.displacement,
        2 => operand.displacement & 0xffff,
        _ => operand.displacement & 0xffff_ffff,
    }
}

fn ept_violation(controls: &Controls, processor: &Processor, access: &GuestPhysicalAccess) -> EptViolation {
    let advanced = controls.traits.advanced_ept_information;
    // Without paging every linear address is a user-mode, writable, executable one.
    let paging = processor.cr0.contains(Cr0::PG);
    let linear = match access.linear {
        None => LinearAccess::None,
        Some(_) if access.table_walk => LinearAccess::TableWalk,
        Some(_) => LinearAccess::Final {
            user: advanced && (access.user || !paging),
            writable: advanced && (access.linear_writable || !paging),
            execute_disable: advanced && access.linear_execute_disable && paging,
        },
    };
    let defined = if controls.has_secondary(SecondaryControls::MODE_BASED_EXECUTE) { 0xf } else { 0x7 };
    EptViolation {
        read: access.read,
        write: access.write,
        fetch: access.fetch,
        permissions: access.permissions & defined,
        linear,
        nmi_unblocking: nmi_unblocking(controls, processor),
        shadow_stack: false,
        supervisor_shadow_stack: false,
        paging_verification: false,
        asynchronous: processor.asynchronous,
    }
}

fn apic_access(processor: &Processor, access: &GuestPhysicalAccess, in_delivery: bool) -> ApicAccess {
    let linear = access.linear.is_some() && !access.table_walk;
    let kind = match (linear, in_delivery) {
        (true, true) => ApicAccessKind::LinearDelivery,
        (true, false) if access.fetch => ApicAccessKind::LinearFetch,
        (true, false) if access.write => ApicAccessKind::LinearWrite,
        (true, false) => ApicAccessKind::LinearRead,
        (false, true) => ApicAccessKind::PhysicalDelivery,
        (false, false) => ApicAccessKind::PhysicalExecution,
    };
    // The offset of a guest-physical access is undefined.
    let offset = if linear { access.address.page_offset() as u16 } else { 0 };
    ApicAccess { offset, kind, asynchronous: processor.asynchronous && !in_delivery }
}
