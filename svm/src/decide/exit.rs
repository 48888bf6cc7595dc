//! [`Exit`]: what a decision reports.

use super::table::Row;
use super::view::View;
use crate::bitmap::PermissionMaps;
use crate::encode::{
    ExitCode, IncompleteIpi, IoioInfo, IpiFailure, MovCr, MovDr, NoAcceleration, NpfInfo, SmiInfo,
    TaskSwitchInfo,
};
use crate::vmcb::NestedControl;
use rootmode_arch::event::ExceptionSource;
use rootmode_arch::{Event, vector};

/// What EXITINFO1 and EXITINFO2 hold. Where the manual leaves a field undefined, it is 0 here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Info {
    /// Nothing.
    Nothing,
    /// The error code; for #PF the faulting address in EXITINFO2.
    Exception,
    /// [`SmiInfo`].
    Smi,
    /// [`TaskSwitchInfo`].
    TaskSwitch,
    /// [`NpfInfo`] and the guest-physical address.
    NestedPageFault,
    /// [`NoAcceleration`].
    NoAcceleration,
    /// [`IncompleteIpi`].
    IncompleteIpi,
    /// The linear address, with decode assists.
    Linear,
    /// [`MovCr`], with decode assists.
    MovCr,
    /// [`MovDr`], with decode assists.
    MovDr,
    /// [`IoioInfo`] and the address of the next instruction.
    Ioio,
    /// 0 for RDMSR, 1 for WRMSR.
    Msr,
    /// The vector of INT n, with decode assists.
    Vector,
    /// The new value of the register.
    NewValue,
}

/// An exit: what the processor writes into the VMCB, apart from the guest's state and EXITINTINFO, which belongs to the
/// event in delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// EXITCODE.
    pub code: ExitCode,
    /// EXITINFO1.
    pub info1: u64,
    /// EXITINFO2.
    pub info2: u64,
    /// nRIP: the next instruction's address for instruction intercepts, MSR, IOIO, INT3, INTO and BOUND; else 0.
    pub next_rip: u64,
    /// The row that decided.
    pub id: &'static str,
}

impl Exit {
    #[inline(always)]
    pub(super) fn new<M: PermissionMaps + ?Sized>(view: &View<'_, M>, event: &Event, row: &Row) -> Self {
        let (info1, info2) = infos(view, event, row.info);
        let next_rip = if view.controls.traits.nrip_save && saves_next_rip(event, row) {
            view.state.next_rip
        } else {
            0
        };
        Self { code: row.code_of(event), info1, info2, next_rip, id: row.id }
    }

    /// Whether the exit of an SEV-ES guest is automatic (AE); the others become #VC in the guest
    /// (APM Vol. 2 (24593 rev. 3.43) "Types of Exits").
    pub const fn is_automatic(&self) -> bool {
        match self.code.0 {
            0x52 | 0x60..=0x64 | 0x77 | 0x78 | 0x7f | 0x8f..=0x9f | 0xa5 | 0xa6 | 0x403 => true,
            0x400 => self.info1 & NpfInfo::RESERVED.0 == 0,
            _ => self.code.is_entry_failure(),
        }
    }
}

/// BOUND's #BR and INTO's #OF have no other source than those instructions.
#[inline(always)]
fn saves_next_rip(event: &Event, row: &Row) -> bool {
    match event {
        Event::Exception(e) => match e.source {
            ExceptionSource::Hardware => matches!(e.vector, vector::OF | vector::BR),
            ExceptionSource::Software | ExceptionSource::Privileged => true,
        },
        _ => row.stage.is_some(),
    }
}

#[inline(always)]
fn infos<M: PermissionMaps + ?Sized>(view: &View<'_, M>, event: &Event, kind: Info) -> (u64, u64) {
    let (controls, state) = (view.controls, view.state);
    let assist = |value| if controls.traits.decode_assists { value } else { 0 };
    match (kind, event) {
        (Info::Exception, Event::Exception(e)) => {
            let address = if e.vector == vector::PF { e.detail } else { 0 };
            (u64::from(e.error_code.unwrap_or(0)), address)
        }
        (Info::Smi, _) => (SmiInfo::EXTERNAL.0, 0),
        (Info::TaskSwitch, Event::TaskSwitch { selector, source, error_code }) => {
            let resume_flag = state.rflags.contains(rootmode_arch::RFlags::RF);
            TaskSwitchInfo::new(*selector, *source, *error_code, resume_flag).encode()
        }
        (Info::NestedPageFault, Event::SecondStage(access)) => {
            let read_only =
                controls.traits.read_only_tables && controls.nested.contains(NestedControl::ROGPT_ENABLE);
            (NpfInfo::new(access, read_only).0, access.address.0)
        }
        (Info::NoAcceleration, Event::ApicAccess { access, .. }) => {
            let offset = access.address.page_offset() as u16;
            NoAcceleration { offset, write: access.write, vector: 0 }.encode()
        }
        (Info::NoAcceleration, Event::ApicWrite { offset }) => {
            NoAcceleration { offset: *offset, write: true, vector: 0 }.encode()
        }
        (Info::NoAcceleration, Event::VirtualizedEoi { vector }) => {
            NoAcceleration { offset: 0xb0, write: true, vector: *vector }.encode()
        }
        (Info::IncompleteIpi, _) => {
            let cause = state.ipi.failure.unwrap_or(IpiFailure::InvalidType);
            IncompleteIpi { icr: state.ipi.icr, cause, index: state.ipi.index }.encode()
        }
        (Info::Linear, Event::Invlpg { linear }) => (assist(linear.0), 0),
        (Info::MovCr, Event::CrRead { gpr, .. } | Event::CrWrite { gpr, .. }) => {
            (assist(MovCr { gpr: Some(*gpr) }.encode()), 0)
        }
        (Info::MovDr, Event::DrRead { gpr, .. } | Event::DrWrite { gpr, .. }) => {
            (assist(MovDr { gpr: *gpr }.encode()), 0)
        }
        (Info::Ioio, Event::PortIo(access)) => {
            (IoioInfo::new(access, state.address_size).encode(), state.next_rip)
        }
        (Info::Msr, Event::Wrmsr { .. }) => (1, 0),
        (Info::Vector, Event::SoftwareInterrupt { vector, .. }) => (assist(u64::from(*vector)), 0),
        (Info::NewValue, Event::EferWritten { value } | Event::CrWritten { value, .. }) => (*value, 0),
        _ => (0, 0),
    }
}
