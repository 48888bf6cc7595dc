//! Exits of L2: L0's own, and those that L1 gets.

use rootmode_arch::{Efer, Gpr, GuestPhysical, Vendor};
use rootmode_svm::ExitCode;
use rootmode_svm::encode::{IoioInfo, NpfInfo};
use rootmode_svm::vmcb::{Field, Intercept, NestedControl};

use super::super::backend::{Nested, Shadowed};
use super::super::machine::HostBug;
use super::super::second_stage::{Access12, Guest12, Refused};
use super::SvmVcpu;
use crate::kvm::interception::Access;
use crate::kvm::nested::{Handler, svm_msr_exit_handler};

impl SvmVcpu {
    /// Whether L2's exit is L1's to see, or to decide about.
    pub(super) fn belongs_to_l1(&self, code: ExitCode) -> bool {
        if code == ExitCode::NPF {
            return self.nested_paging12();
        }
        let wanted = code.intercept().is_some_and(|intercept| self.intercepts12().has(intercept));
        match code.intercept() {
            Some(Intercept::IOIO_PROT) => wanted && self.l1_wants_port(),
            Some(Intercept::MSR_PROT) => self.l1_wants_msr(),
            // The host's own.
            Some(Intercept::INTR | Intercept::NMI) => false,
            Some(Intercept::VINTR) => wanted && self.window.is_none(),
            _ => wanted,
        }
    }

    /// Does what belongs to nesting of L2's exit.
    pub(super) async fn nested_exit(&mut self, code: ExitCode) -> Result<Nested, HostBug> {
        if code == ExitCode::NPF { self.second_stage_exit().await } else { self.exit_to_l1(code).await }
    }

    pub(super) fn nested_paging12(&self) -> bool {
        self.field12(Field::NestedControl) & NestedControl::NP_ENABLE.0 != 0
    }

    /// L1's I/O permission map, as many bits as the access has bytes. What cannot be read is intercepted.
    fn l1_wants_port(&self) -> bool {
        let info = IoioInfo::decode(self.get(self.vmcb02, Field::ExitInfo1));
        let base = self.field12(Field::IopmBase) & !0xfff;
        let mut m = self.m();
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
        let mut m = self.m();
        let index = m.gpr(Gpr::Rcx) as u32;
        svm_msr_exit_handler(&maps, index, access, &mut m.l1(), self.config.regressions) == Handler::L1
    }

    /// L2 touched a page that the shadow does not allow: L1's tables decide whose business that is.
    async fn second_stage_exit(&mut self) -> Result<Nested, HostBug> {
        let page = GuestPhysical(self.get(self.vmcb02, Field::ExitInfo2));
        let info = NpfInfo(self.get(self.vmcb02, Field::ExitInfo1));
        self.mmu.acquire().await;
        let outcome = self.shadow(page, info);
        self.mmu.release().await;
        match outcome? {
            Shadowed::Mapped(_) => Ok(Nested::Again),
            Shadowed::Device(at) => Ok(Nested::Device { page: page.page_base(), at: at.page_base() }),
            Shadowed::Refused(refused) => self.refused(info, refused).await,
        }
    }

    /// L1's tables refuse L2's access: L1 gets the exit.
    pub(super) async fn refused(&mut self, info: NpfInfo, refused: Refused) -> Result<Nested, HostBug> {
        let info = info.set(NpfInfo::PRESENT, refused.present).set(NpfInfo::RESERVED, refused.malformed);
        self.set(self.vmcb02, Field::ExitInfo1, info.0);
        self.exit_to_l1(ExitCode::NPF).await
    }

    /// Puts the page into the shadow, as far as L1's tables lead to it.
    pub(super) fn shadow(&self, address: GuestPhysical, info: NpfInfo) -> Result<Shadowed, HostBug> {
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
        match tables.walk(&mut m, address, Access12 { read: !fetch, write, fetch }) {
            Ok(mapped) => Ok(match m.map_shadow(address, mapped, write)? {
                Some(()) => Shadowed::Mapped(mapped.guest),
                None => Shadowed::Device(mapped.guest),
            }),
            Err(refused) => Ok(Shadowed::Refused(refused)),
        }
    }
}
