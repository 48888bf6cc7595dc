//! VMRUN by L1: the checks, vmcb02 from vmcb12, and the switch.

use rootmode_arch::record::{Level, Payload};
use rootmode_arch::{Cr0, Cr4, Efer, GuestPhysical, HostPhysical, Vendor, vector};
use rootmode_svm::rules::{EntryContext, Host, PhysicalMemory, Verdict, check_entry};
use rootmode_svm::vmcb::{Field, Intercept, Intercepts, NestedControl};
use rootmode_svm::{ExitCode, Vmcb};

use super::super::frames::SlotReader;
use super::super::machine::{HostBug, Machine};
use super::super::point::Point;
use super::super::second_stage::Tables;
use super::vmcb::SWITCHED;
use super::{ASID02, INTERCEPTS, SvmVcpu};
use crate::kvm::nested::{ActiveMap, Vmcb12};

impl PhysicalMemory for SlotReader<'_> {
    fn read_u64(&self, address: HostPhysical) -> Option<u64> {
        self.quadword(address.0)
    }
}

impl SvmVcpu {
    /// A field of vmcb12 as it was at the entry.
    pub(super) fn field12(&self, field: Field) -> u64 {
        self.nested.vmcb12.get(field).unwrap_or(0)
    }

    /// Whether L1 intercepts it in L2.
    pub(super) fn intercepts12(&self) -> Intercepts {
        self.nested.vmcb12.intercepts().unwrap_or(Intercepts::NONE)
    }

    /// What the merge of the permission maps has to know.
    pub(super) fn maps12(&self, address: GuestPhysical) -> Vmcb12 {
        Vmcb12 {
            address: address.0,
            msr_prot: self.intercepts12().has(Intercept::MSR_PROT),
            msrpm_base: self.field12(Field::MsrpmBase) & !0xfff,
            hypercalls: false,
            enlightened: false,
            clean: false,
        }
    }

    pub(super) async fn nested_entry(&mut self, address: u64) -> Result<(), HostBug> {
        let Some(at) = self.vmcb12_at(address) else {
            self.inject(vector::GP, Some(0));
            return Ok(());
        };
        // L1 goes on behind VMRUN; the entry itself costs nothing.
        self.advance(self.get(self.vmcb01, Field::NextRip));
        *self.nested.vmcb12 = self.read_vmcb(at);
        self.tasks.point(Point::NestedEntry).await;
        if let Some(code) = self.check12() {
            self.m().emit(Level::L1, Payload::EntryFailed { vendor: Vendor::Amd, code: code.0, detail: 0 });
            self.refuse12(at, code);
            return Ok(());
        }
        let address = GuestPhysical(address);
        let maps = self.maps12(address);
        let merged = {
            let mut m = self.machine.lock().expect("no task panics while it holds the machine");
            let active = self.nested_map.vmrun(
                &mut self.intercepts,
                &maps,
                &self.chunks,
                &mut m.l1(),
                self.config.regressions,
            );
            if active.is_ok() {
                m.board.memory.write(self.msrpm02, self.nested_map.map.as_bytes());
            }
            active
        };
        let Ok(active) = merged else {
            self.refuse12(at, ExitCode::INVALID);
            return Ok(());
        };
        self.prepare_vmcb02(at, active)?;
        self.nested.gif = true;
        self.nested.running = Some(address);
        self.m().set_nested(true);
        let injection = self.field12(Field::EventInj) | self.field12(Field::EventInjError) << 32;
        let rip = self.field12(Field::Rip);
        self.m().emit(Level::L2, Payload::Entry { vendor: Vendor::Amd, rip, injection });
        self.tasks.point(Point::SwitchControl).await;
        Ok(())
    }

    /// The rules' answer about vmcb12.
    fn check12(&self) -> Option<ExitCode> {
        let value = |field| self.get(self.vmcb01, field);
        let host = Host {
            cr0: Some(Cr0(value(Field::Cr0))),
            cr4: Some(Cr4(value(Field::Cr4))),
            efer: Some(Efer(value(Field::Efer))),
            in_64_bit_mode: Some(value(Field::CsAttrib) >> 9 & 1 != 0),
            u_cet: Some(0),
            smm_locked: Some(false),
            memory_encryption: Some(false),
            secure_nested_paging: Some(false),
            ibs_enabled: Some(false),
            sibling_idle: Some(true),
        };
        let m = self.m();
        let memory = m.l1();
        let context =
            EntryContext::new(&self.processor, &self.nested.vmcb12).with_host(host).with_memory(&memory);
        match check_entry(&context) {
            Verdict::Refused(rule) => Some(rule.report),
            Verdict::Enters | Verdict::Undecided(..) => None,
        }
    }

    /// VMRUN exits at once.
    fn refuse12(&mut self, at: HostPhysical, code: ExitCode) {
        for (field, value) in [
            (Field::ExitCode, code.0),
            (Field::ExitInfo1, 0),
            (Field::ExitInfo2, 0),
            (Field::ExitIntInfo, 0),
            (Field::ExitIntInfoError, 0),
            (Field::NextRip, 0),
        ] {
            self.set(at, field, value);
        }
        self.nested.gif = false;
        self.set(self.vmcb01, Field::Dr7, 0x400);
    }

    /// Fills vmcb02 from vmcb12 and what L0 wants.
    fn prepare_vmcb02(&mut self, at: HostPhysical, active: ActiveMap) -> Result<(), HostBug> {
        let nested_paging = self.field12(Field::NestedControl) & NestedControl::NP_ENABLE.0 != 0;
        let asid = self.field12(Field::Asid);
        let mut flush = self.field12(Field::TlbControl) != 0;
        let root = if nested_paging {
            let from = (self.field12(Field::NestedCr3), asid);
            if self.nested.shadow_of != Some(from) || flush {
                self.drop_shadow();
                self.nested.shadow_of = Some(from);
                flush = true;
            }
            self.shadow_root()?
        } else {
            flush = true;
            self.m().tables01.root()
        };
        let mut vmcb = Vmcb::zeroed();
        let mut intercepts = self.intercepts12();
        for intercept in INTERCEPTS {
            intercepts = intercepts.with(intercept);
        }
        vmcb.set_intercepts(intercepts);
        let pat = if nested_paging { self.field12(Field::GPat) } else { self.get(self.vmcb01, Field::GPat) };
        let tsc_offset = self.get(self.vmcb01, Field::TscOffset).wrapping_add(self.field12(Field::TscOffset));
        let msrpm = if active == ActiveMap::Msrpm01 { self.msrpm01 } else { self.msrpm02 };
        for (field, value) in [
            (Field::IopmBase, self.iopm.0),
            (Field::MsrpmBase, msrpm.0),
            (Field::TscOffset, tsc_offset),
            (Field::Asid, ASID02),
            (Field::TlbControl, if flush { 3 } else { 0 }),
            (Field::NestedControl, NestedControl::NP_ENABLE.0),
            (Field::NestedCr3, root.0),
            (Field::GPat, pat),
        ] {
            vmcb.set(field, value);
        }
        for field in [
            Field::IntCtl,
            Field::IntVector,
            Field::EventInj,
            Field::EventInjError,
            Field::NextRip,
            Field::PauseFilterCount,
            Field::PauseFilterThreshold,
        ] {
            vmcb.set(field, self.field12(field));
        }
        self.m().board.memory.write(self.vmcb02, vmcb.as_bytes());
        self.copy(at, self.vmcb02, SWITCHED);
        Ok(())
    }

    /// The root of the shadow; a new, empty one if there is none.
    fn shadow_root(&self) -> Result<HostPhysical, HostBug> {
        let mut m = self.m();
        if m.shadow.is_none() {
            let Machine { board, frames, shadow, .. } = &mut *m;
            let tables = Tables::new(Vendor::Amd, frames, &mut board.memory).ok_or(HostBug::OutOfFrames)?;
            *shadow = Some(tables);
        }
        Ok(m.shadow.as_ref().map_or(HostPhysical(0), Tables::root))
    }
}
