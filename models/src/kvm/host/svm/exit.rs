//! #VMEXIT from L2 to L1: vmcb12 from vmcb02, and L1's state back from vmcb01.

use rootmode_arch::Vendor;
use rootmode_arch::record::{Level, Payload};
use rootmode_svm::ExitCode;
use rootmode_svm::vmcb::{Field, NestedControl};

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
    Field::IntCtl,
];

impl SvmVcpu {
    /// The exit that the processor just made goes to L1.
    pub(super) async fn exit_to_l1(&mut self, code: ExitCode) -> Result<(), HostBug> {
        self.tasks.point(Point::NestedExit).await;
        let Some(address) = self.nested.running.take() else { return Ok(()) };
        let Some(at) = self.vmcb12_at(address.0) else {
            self.unmodelled();
            return Ok(());
        };
        self.copy(self.vmcb02, at, SWITCHED);
        self.copy(self.vmcb02, at, INFORMATION);
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
        Ok(())
    }
}
