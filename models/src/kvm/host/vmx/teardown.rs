//! The ends of nested operation: INIT and the vCPU's destruction, from whatever state.

use rootmode_arch::{HostPhysical, SegmentName};
use rootmode_cpu::Instruction;
use rootmode_vmx::Field;
use rootmode_vmx::drive::segment_fields;

use super::super::machine::{Ended, HostBug, Request};
use super::super::point::Point;
use super::super::state::State;
use super::VmxVcpu;
use crate::kvm::Regression;

impl VmxVcpu {
    /// Does what was asked of the vCPU while it was out of the guest.
    pub(super) async fn serve(&mut self, request: Request) -> Result<(), HostBug> {
        match request {
            Request::Init => self.init().await,
            Request::Destroy => self.destroy().await,
        }
    }

    /// L2 no longer runs. Which VMCS is current is left to whoever frees the nested state.
    pub(super) fn leave_guest(&mut self) {
        (self.nested.running, self.nested.pending) = (false, false);
        *self.nested.trap.get_mut() = false;
        self.m().set_nested(false);
    }

    /// Gives up L1's VMX operation; from every state, and any number of times.
    pub(super) async fn free_nested(&mut self) -> Result<(), HostBug> {
        let bugs = self.config.regressions;
        let none = self.nested.vmxon.is_none();
        if none && bugs.has(Regression::LoadedVmcsNotLookedAt) {
            return Ok(());
        }
        if !bugs.has(Regression::FreedWhileLoaded) {
            self.load_vmcs(false).await?;
        }
        self.nested.vmxon = None;
        self.nested.current = None;
        self.nested.vpid12 = None;
        self.drop_shadow()
    }

    /// INIT: L1 leaves VMX operation, and its registers are those after reset.
    async fn init(&mut self) -> Result<(), HostBug> {
        self.nested.vmxon = None;
        self.leave_guest();
        self.free_nested().await?;
        let reset = State::reset(self.model.signature());
        self.cache().forget_segments();
        for name in SegmentName::ALL {
            let segment = reset.segment(name);
            let values =
                [segment.selector.0.into(), segment.limit.into(), segment.rights.0.into(), segment.base];
            for (field, value) in segment_fields(name).into_iter().zip(values) {
                self.vmwrite(field, value)?;
            }
            self.point(Point::SegmentReset).await?;
        }
        if !self.config.regressions.has(Regression::SegmentCacheKeptByInit) {
            self.cache().forget_segments();
        }
        self.vmwrite(Field::GuestRip, reset.rip)?;
        let mut segments = reset.segments;
        for name in SegmentName::ALL {
            let segment = &mut segments[name as usize];
            segment.selector.0 = self.segment(name, 0)? as u16;
            segment.limit = self.segment(name, 1)? as u32;
            segment.rights.0 = self.segment(name, 2)? as u32;
            segment.base = self.segment(name, 3)?;
        }
        let loaded02 = self.loaded02;
        self.m().ended = Some(Ended { segments: Some(segments), loaded02, ..Ended::default() });
        Ok(())
    }

    /// The last descriptor of the vCPU was closed: everything that it has is freed.
    async fn destroy(&mut self) -> Result<(), HostBug> {
        self.leave_guest();
        self.free_nested().await?;
        let mut regions = vec![self.vmcs02.region, self.bitmap02];
        if self.config.regressions.has(Regression::NestedStateFreedTwice) {
            regions.push(self.vmcs02.region);
        }
        regions.extend([self.bitmap01, self.vmcs01.region]);
        let mut ended = Ended { loaded02: self.loaded02, ..Ended::default() };
        for region in regions {
            self.free(region, &mut ended)?;
        }
        self.m().ended = Some(ended);
        Ok(())
    }

    fn free(&self, region: HostPhysical, ended: &mut Ended) -> Result<(), HostBug> {
        let current = if self.loaded02 { self.vmcs02.region } else { self.vmcs01.region };
        let mut m = self.m();
        // The last region is vmcs01, which nobody needs any more.
        ended.freed_while_loaded |= region == current && region != self.vmcs01.region;
        if [self.vmcs01.region, self.vmcs02.region].contains(&region) {
            m.vmx(Instruction::Vmclear { region: region.0 })?;
        }
        ended.freed_twice |= !m.frames.held().contains(&region.0);
        m.frames.give_back(region);
        Ok(())
    }
}
