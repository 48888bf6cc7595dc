//! #VMEXIT from L2 to L1: vmcb12 from vmcb02, and L1's state back from vmcb01.

use rootmode_arch::Vendor;
use rootmode_arch::record::{Level, Payload};
use rootmode_svm::ExitCode;
use rootmode_svm::vmcb::{Field, IntCtl, Intercept, NestedControl};

use super::super::backend::{Arrival, Nested};
use super::super::machine::HostBug;
use super::super::point::Point;
use super::SvmVcpu;
use super::vmcb::SWITCHED;

/// What an exit reports, as the processor left it in vmcb02.
const INFORMATION: &[Field] = &[
    Field::ExitInfo1,
    Field::ExitInfo2,
    Field::ExitIntInfo,
    Field::ExitIntInfoError,
    Field::NextRip,
    Field::BytesFetched,
    Field::InstructionBytes,
];

/// V_TPR and V_IRQ: what of the virtual interrupts the processor changes.
const VIRTUAL: u64 = 0xf | IntCtl::V_IRQ.0 as u64;

impl SvmVcpu {
    /// The exit that the processor just made goes to L1.
    pub(super) async fn exit_to_l1(&mut self, code: ExitCode) -> Result<Nested, HostBug> {
        self.tasks.point(Point::NestedExit).await;
        let Some(address) = self.nested.running.take() else { return Ok(Nested::Resumes) };
        self.nested.pending = false;
        let Some(at) = self.vmcb12_at(address.0) else { return Ok(Nested::Abort) };
        self.copy(self.vmcb02, at, SWITCHED);
        self.copy(self.vmcb02, at, INFORMATION);
        self.set(at, Field::IntCtl, self.virtual_interrupts());
        self.set(at, Field::ExitCode, code.0);
        self.set(at, Field::EventInj, 0);
        self.set(at, Field::EventInjError, 0);
        if self.field12(Field::NestedControl) & NestedControl::NP_ENABLE.0 != 0 {
            self.copy(self.vmcb02, at, &[Field::GPat]);
        }
        let record = Payload::Exit {
            vendor: Vendor::Amd,
            code: code.0,
            info1: self.get(at, Field::ExitInfo1),
            info2: self.get(at, Field::ExitInfo2),
            rip: self.get(at, Field::Rip),
        };
        self.m().emit(Level::L2, record);
        self.m().set_nested(false);
        // L1's state waited in vmcb01. CR2, DR6 and the shadow are not part of what the processor brings back.
        self.nested.gif = false;
        self.copy(self.vmcb02, self.vmcb01, &[Field::Cr2, Field::Dr6]);
        self.set(self.vmcb01, Field::Dr7, 0x400);
        self.set(self.vmcb01, Field::Cpl, 0);
        self.set(self.vmcb01, Field::InterruptState, 0);
        self.tasks.point(Point::SwitchControl).await;
        Ok(Nested::Resumes)
    }

    /// Virtual interrupts of L2 as L1 wanted them and as they are now.
    pub(super) fn virtual_interrupts(&self) -> u64 {
        self.field12(Field::IntCtl) & !VIRTUAL | self.get(self.vmcb02, Field::IntCtl) & VIRTUAL
    }

    /// An exit to L1 that no processor made: L2 is left as it is.
    pub(super) async fn exit_for(&mut self, arrival: Arrival) -> Result<Nested, HostBug> {
        let (intercept, info) = match arrival {
            Arrival::Interrupt(_) => (Intercept::INTR, [0; 2]),
            Arrival::Nmi => (Intercept::NMI, [0; 2]),
            Arrival::Init => (Intercept::INIT, [0; 2]),
            // SVM has none.
            Arrival::Trap => return Ok(Nested::Unmodelled),
            Arrival::Exception(event, detail) => {
                (Intercept::exception(event.vector), [event.error_code.unwrap_or(0).into(), detail])
            }
        };
        for (field, value) in [
            (Field::ExitInfo1, info[0]),
            (Field::ExitInfo2, info[1]),
            (Field::ExitIntInfo, 0),
            (Field::ExitIntInfoError, 0),
            (Field::NextRip, 0),
            (Field::BytesFetched, 0),
        ] {
            self.set(self.vmcb02, field, value);
        }
        self.exit_to_l1(ExitCode::of(intercept)).await
    }
}
