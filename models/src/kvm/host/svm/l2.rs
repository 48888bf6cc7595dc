//! Exits of L2: L0's own, and those that L1 gets.

use rootmode_arch::record::{Level, Stop};
use rootmode_arch::{Efer, Gpr, GuestPhysical, Linear, Vendor};
use rootmode_svm::ExitCode;
use rootmode_svm::encode::{IoioInfo, NpfInfo};
use rootmode_svm::vmcb::{Field, Intercept, NestedControl};

use super::super::machine::{HostBug, Machine};
use super::super::second_stage::{Access12, Guest12, Mapped12, Refused};
use super::SvmVcpu;
use crate::kvm::interception::Access;
use crate::kvm::nested::{Handler, svm_msr_exit_handler};

impl SvmVcpu {
    pub(super) async fn handle_l2_exit(&mut self, code: ExitCode) -> Result<(), HostBug> {
        if code == ExitCode::NPF {
            return self.second_stage_exit().await;
        }
        let wanted = code.intercept().is_some_and(|intercept| self.intercepts12().has(intercept));
        match code.intercept() {
            Some(Intercept::IOIO_PROT) if !(wanted && self.l1_wants_port()) => self.emulate_port(Level::L2),
            Some(Intercept::MSR_PROT) if !self.l1_wants_msr() => self.emulate_msr(),
            _ if wanted => return self.exit_to_l1(code).await,
            Some(Intercept::CPUID) => self.emulate_cpuid(),
            Some(Intercept::HLT) => self.halt(),
            Some(Intercept::SHUTDOWN) => return self.exit_to_l1(code).await,
            _ => self.unmodelled(),
        }
        Ok(())
    }

    /// L1's I/O permission map, as many bits as the access has bytes. What cannot be read is intercepted.
    fn l1_wants_port(&self) -> bool {
        let info = IoioInfo::decode(self.get(self.vmcb02, Field::ExitInfo1));
        let base = self.field12(Field::IopmBase) & !0xfff;
        let m = self.m();
        (0..u64::from(info.size)).any(|byte| {
            let bit = u64::from(info.port) + byte;
            let address = base + bit / 8;
            let word = m.l1().quadword(address & !7);
            word.is_none_or(|word| word >> (8 * (address & 7) + bit % 8) & 1 != 0)
        })
    }

    fn l1_wants_msr(&self) -> bool {
        let write = self.get(self.vmcb02, Field::ExitInfo1) & 1 != 0;
        let access = if write { Access::Write } else { Access::Read };
        let maps = self.maps12(self.nested.running.unwrap_or(GuestPhysical(0)));
        let m = self.m();
        let index = m.gpr(Gpr::Rcx) as u32;
        svm_msr_exit_handler(&maps, index, access, &mut m.l1(), self.config.regressions) == Handler::L1
    }

    /// L2 touched a page that the tables it runs on do not allow: L1's tables decide whose business that is.
    async fn second_stage_exit(&mut self) -> Result<(), HostBug> {
        let address = GuestPhysical(self.get(self.vmcb02, Field::ExitInfo2));
        let info = NpfInfo(self.get(self.vmcb02, Field::ExitInfo1));
        if self.field12(Field::NestedControl) & NestedControl::NP_ENABLE.0 == 0 {
            if self.m().map01(address)? {
                self.requeue_interrupted();
            } else {
                self.unmodelled();
            }
            return Ok(());
        }
        self.mmu.acquire().await;
        let outcome = match self.walk12(address, info) {
            Ok(mapped) => self.map_shadow(address, mapped).map(Ok),
            Err(refused) => Ok(Err(refused)),
        };
        self.mmu.release().await;
        match outcome? {
            Ok(()) => {
                self.requeue_interrupted();
                Ok(())
            }
            Err(refused) => {
                let info =
                    info.set(NpfInfo::PRESENT, refused.present).set(NpfInfo::RESERVED, refused.malformed);
                self.set(self.vmcb02, Field::ExitInfo1, info.0);
                self.exit_to_l1(ExitCode::NPF).await
            }
        }
    }

    fn walk12(&self, address: GuestPhysical, info: NpfInfo) -> Result<Mapped12, Refused> {
        let tables = Guest12 {
            vendor: Vendor::Amd,
            root: self.field12(Field::NestedCr3),
            accessed_dirty: true,
            no_execute: Efer(self.get(self.vmcb01, Field::Efer)).contains(Efer::NXE),
            physical_width: self.model.physical_width(),
        };
        let write = info.contains(NpfInfo::WRITE);
        let fetch = info.contains(NpfInfo::FETCH);
        let mut m = self.m();
        let Machine { board, slots, .. } = &mut *m;
        tables.walk(&mut board.memory, slots, address, Access12 { read: !fetch, write, fetch })
    }

    /// Puts the page into the shadow.
    fn map_shadow(&self, address: GuestPhysical, mapped: Mapped12) -> Result<(), HostBug> {
        let mut m = self.m();
        let Some(host) = m.slots.host(mapped.guest.page_base()) else {
            m.stop = Some(Stop::Unmodelled(Linear(address.0)));
            return Ok(());
        };
        let Machine { board, frames, shadow, .. } = &mut *m;
        match shadow {
            Some(shadow) => {
                let (memory, rights) = (&mut board.memory, mapped.rights);
                shadow.map(memory, frames, address, host, rights).ok_or(HostBug::OutOfFrames)
            }
            None => Ok(()),
        }
    }
}
