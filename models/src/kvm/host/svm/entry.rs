//! VMRUN by L1: the checks, vmcb02 from vmcb12, and the switch.

use rootmode_arch::record::{Level, Payload};
use rootmode_arch::{Cr0, Cr4, Efer, GuestPhysical, HostPhysical, Vendor, vector};
use rootmode_svm::rules::{EntryContext, Host, PhysicalMemory, Verdict, check_entry};
use rootmode_svm::vmcb::{Field, Intercept, Intercepts, NestedControl};
use rootmode_svm::{ExitCode, Vmcb};

use super::super::backend::Nested;
use super::super::machine::HostBug;
use super::super::point::Point;
use super::nested::raises;
use super::vmcb::SWITCHED;
use super::{ASID02, INTERCEPTS, SvmVcpu};
use crate::kvm::nested::{ActiveMap, Vmcb12};
use crate::kvm::slots::Reader;

impl PhysicalMemory for Reader<'_> {
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

    pub(super) async fn nested_entry(&mut self, address: u64) -> Result<Nested, HostBug> {
        let Some(at) = self.vmcb12_at(address) else { return Ok(raises(vector::GP, Some(0))) };
        // L1 goes on behind VMRUN; the entry itself costs nothing.
        self.advance(self.get(self.vmcb01, Field::NextRip));
        *self.nested.vmcb12 = self.read_vmcb(at);
        self.tasks.point(Point::NestedEntry).await;
        let address = GuestPhysical(address);
        if let Some(code) = self.check12() {
            self.m().emit(Level::L1, Payload::EntryFailed { vendor: Vendor::Amd, code: code.0, detail: 0 });
            return Ok(self.refuse12(address, code));
        }
        if !self.prepare_vmcb02(address)? {
            return Ok(self.refuse12(address, ExitCode::INVALID));
        }
        self.nested.gif = true;
        self.nested.pending = true;
        let injection = self.field12(Field::EventInj) | self.field12(Field::EventInjError) << 32;
        let rip = self.field12(Field::Rip);
        self.m().emit(Level::L2, Payload::Entry { vendor: Vendor::Amd, rip, injection });
        self.tasks.point(Point::SwitchControl).await;
        Ok(Nested::Resumes)
    }

    /// The permission map that L2 runs under. `None`: L1's cannot be read.
    fn merge_maps(&mut self, address: GuestPhysical) -> Option<ActiveMap> {
        let maps = self.maps12(address);
        let mut m = self.machine.lock().expect("no task panics while it holds the machine");
        m.current = self.physical;
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
        active.ok()
    }

    /// The rules' answer about vmcb12.
    pub(super) fn check12(&self) -> Option<ExitCode> {
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
        let mut m = self.m();
        let memory = m.l1();
        let context =
            EntryContext::new(&self.processor, &self.nested.vmcb12).with_host(host).with_memory(&memory);
        match check_entry(&context) {
            Verdict::Refused(rule) => Some(rule.report),
            Verdict::Enters | Verdict::Undecided(..) => None,
        }
    }

    /// VMRUN exits at once.
    fn refuse12(&mut self, address: GuestPhysical, code: ExitCode) -> Nested {
        let Some(at) = self.vmcb12_at(address.0) else { return Nested::Abort };
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
        Nested::Resumes
    }

    /// Fills vmcb02 from vmcb12 and what L0 wants; L2 runs from then on. False: L1's permission map cannot be read.
    pub(super) fn prepare_vmcb02(&mut self, address: GuestPhysical) -> Result<bool, HostBug> {
        let Some(active) = self.merge_maps(address) else { return Ok(false) };
        let nested_paging = self.nested_paging12();
        let asid = self.field12(Field::Asid);
        let mut flush = self.field12(Field::TlbControl) != 0;
        let root = if nested_paging {
            let from = (self.field12(Field::NestedCr3), asid);
            if self.nested.shadow_of != Some(from) || flush {
                self.drop_shadow();
                self.nested.shadow_of = Some(from);
                flush = true;
            }
            self.m().shadow_root(Vendor::Amd)?
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
        ]
        .iter()
        .chain(SWITCHED)
        {
            vmcb.set(*field, self.field12(*field));
        }
        self.m().board.memory.write(self.vmcb02, vmcb.as_bytes());
        self.nested.running = Some(address);
        self.m().set_nested(true);
        Ok(true)
    }
}
