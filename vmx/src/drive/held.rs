//! VMCS data that the processor keeps on-chip until VMCLEAR
//! (SDM Vol. 3C (326019-083, Mar 2024) "Software Access to the VMCS and Related Structures", "Initializing a VMCS").
//!
//! A tame processor writes everything through to the region at once, as the manual allows. Hostile hardware keeps the data
//! of the current VMCS to itself; of one that is no longer current it is a choice whether memory gets them. Only VMCLEAR
//! makes it certain, and a region that is not cleared belongs to its processor: who uses it otherwise is reported.

use super::{Vmx, region};
use crate::{Field, Vmcs};
use rootmode_arch::record::{HeldRegion, HeldUse, Payload, Place};
use rootmode_arch::{HostPhysical, Site};
use rootmode_cpu::{Context, Cpu};
use rootmode_mmu::{Digest, PhysicalMemory};

/// An active VMCS that is not current, with its data on-chip.
#[derive(Clone, Debug)]
pub(super) struct Held {
    at: HostPhysical,
    data: Box<Vmcs>,
    launched: bool,
}

impl Held {
    pub(super) fn digest(&self, digest: &mut Digest) {
        digest.all(&[self.at.0, self.launched.into()]);
        Field::ALL.into_iter().for_each(|field| digest.u64(self.data.value(field)));
    }
}

fn write_back(memory: &mut PhysicalMemory, at: HostPhysical, data: &Vmcs, launched: bool) {
    for field in Field::ALL {
        region::store(memory, at, field, data.value(field));
    }
    region::set_launched(memory, at, launched);
}

const fn place(cpu: &Cpu) -> Place {
    Place { tick: cpu.tick, vcpu: cpu.index, rip: cpu.rip }
}

fn report(cpu: &Cpu, ctx: &mut Context<'_>, at: HostPhysical, how: HeldUse, since: Option<Place>) {
    if let Some(since) = since {
        ctx.emit(cpu, Payload::Held(HeldRegion { rip: cpu.rip, region: at, how, since }));
    }
}

impl Vmx {
    /// Whether the current VMCS's launch state is "launched".
    pub(super) fn is_launched(&self, memory: &PhysicalMemory) -> bool {
        match self.launched {
            Some(launched) => launched,
            None => self.current.is_some_and(|current| region::is_launched(memory, current)),
        }
    }

    /// The current VMCS was launched.
    pub(super) fn set_launched(&mut self, memory: &mut PhysicalMemory, current: HostPhysical) {
        match &mut self.launched {
            Some(launched) => *launched = true,
            None => region::set_launched(memory, current, true),
        }
    }

    /// There is no current VMCS any more. One that is held stays active, and it is a choice whether memory gets its data.
    pub(super) fn put_aside(&mut self, cpu: &Cpu, ctx: &mut Context<'_>) {
        if let (Some(at), Some(launched)) = (self.current.take(), self.launched.take()) {
            if ctx.choose(cpu, Site::VmcsHeld, 2) == 0 {
                self.held.push(Held { at, data: self.vmcs.clone(), launched });
            } else {
                write_back(ctx.memory, at, &self.vmcs, launched);
            }
        }
    }

    /// Makes the VMCS at `at` current.
    pub(super) fn take_up(&mut self, cpu: &Cpu, ctx: &mut Context<'_>, at: HostPhysical) {
        let held = self.held.iter().position(|held| held.at == at).map(|n| self.held.swap_remove(n));
        self.current = Some(at);
        self.launched = None;
        self.controls_changed = true;
        if let Some(held) = held {
            self.vmcs = held.data;
            self.launched = Some(held.launched);
            return;
        }
        *self.vmcs = region::load(ctx.memory, at);
        if ctx.memory.ledger().is_some() {
            self.launched = Some(region::is_launched(ctx.memory, at));
            let elsewhere = ctx.memory.hold_region(at, place(cpu));
            report(cpu, ctx, at, HeldUse::Loaded, elsewhere);
        }
    }

    /// VMCLEAR's work: the data go to memory, and the region is nobody's.
    pub(super) fn clear(&mut self, cpu: &Cpu, ctx: &mut Context<'_>, at: HostPhysical) {
        if self.current == Some(at) {
            if self.launched.take().is_some() {
                write_back(ctx.memory, at, &self.vmcs, false);
            }
            self.current = None;
        } else if let Some(n) = self.held.iter().position(|held| held.at == at) {
            let held = self.held.swap_remove(n);
            write_back(ctx.memory, at, &held.data, false);
        }
        region::set_launched(ctx.memory, at, false);
        let elsewhere = ctx.memory.release_region(at, cpu.index);
        report(cpu, ctx, at, HeldUse::Cleared, elsewhere);
    }

    /// The data of a VMCS that is active, not current and on-chip.
    pub(super) fn held_data(&self, at: HostPhysical) -> Option<&Vmcs> {
        self.held.iter().find(|held| held.at == at).map(|held| &*held.data)
    }

    /// The same, to change.
    pub(super) fn held_data_mut(&mut self, at: HostPhysical) -> Option<&mut Vmcs> {
        self.held.iter_mut().find(|held| held.at == at).map(|held| &mut *held.data)
    }
}
