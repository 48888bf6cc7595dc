//! KVM's instruction emulator, which is the processor: a core with the vCPU's state executes exactly one instruction,
//! and either completes it or says what it needs first.

use std::sync::Arc;

use rootmode_arch::choices::Tame;
use rootmode_arch::event::{Exception, GuestPhysicalAccess};
use rootmode_arch::{Cr0, Cr4, Efer, GuestPhysical, HostPhysical, Linear, Vendor};
use rootmode_cpu::{ApicWindow, Context, Cpu, Effects, Model, Processor, Published, RunEnd};
use rootmode_mmu::{Access, AccessKind, Ept, Npt, PagingMode, SecondStage, WalkFault, translate};

use super::guard::{Abort, CLASSES, Guard, Need, Ports, Script, Sent, Shared};
use crate::kvm::host::{Frames, HostBug, Machine, State};

/// A page that an instruction touches and that is none of memory's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// As the guest calls it.
    pub(super) page: GuestPhysical,
    /// As the client calls it: another address only for guests of guests.
    pub(super) at: GuestPhysical,
}

impl Device {
    /// A page of a guest that is nobody's guest's.
    pub(super) const fn own(address: GuestPhysical) -> Self {
        let page = address.page_base();
        Self { page, at: page }
    }
}

/// How the client calls `address`, which lies on one of the pages of `devices`.
pub(super) fn outside(devices: &[Device], address: GuestPhysical) -> GuestPhysical {
    let found = devices.iter().find(|device| device.page == address.page_base());
    found.map_or(address, |device| device.at.offset(address.page_offset()))
}

/// What came of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Emulated {
    /// The instruction is complete; what it wrote to devices, in order.
    Done(Box<State>, Vec<Sent>),
    /// An answer is missing; nothing happened.
    Needs(Need),
    /// A page is missing; nothing happened.
    Page(GuestPhysicalAccess),
    /// It raised an exception.
    Raised(Exception),
    /// It cannot be emulated: its bytes, as far as they were fetched.
    Failed([u8; 15], u8),
}

/// The processor that emulates, kept between instructions for what it costs to make.
pub(super) struct Emulator {
    processor: Processor,
    script: Shared,
    vendor: Vendor,
    /// A page of L0's memory that stands for every device: accesses to it are seen.
    device: HostPhysical,
    scratch: HostPhysical,
}

impl Emulator {
    /// An emulator for a VM of `machine`.
    pub(super) fn new(machine: &mut Machine, model: Arc<Model>) -> Result<Self, HostBug> {
        let vendor = model.vendor();
        let script = Shared::default();
        let guard = Guard { vendor, script: script.clone() };
        let processor = Processor::new(Cpu::new(0, model), Some(Box::new(guard)));
        let (device, scratch) = (machine.frame(1)?, machine.frame(1)?);
        Ok(Self { processor, script, vendor, device, scratch })
    }

    /// Its pages go back.
    pub(super) fn release(self, frames: &mut Frames) {
        frames.give_back(self.device);
        frames.give_back(self.scratch);
    }

    fn second_stage(&self, root: HostPhysical, physical_width: u8) -> SecondStage {
        match self.vendor {
            Vendor::Intel => SecondStage::Ept(Ept {
                root,
                five_level: false,
                accessed_dirty: false,
                mode_based_execute: false,
                // L1's tables may say so.
                execute_only: true,
                huge_pages: false,
                physical_width,
            }),
            Vendor::Amd => SecondStage::Npt(Npt {
                root,
                mode: PagingMode::of(Cr0::PE | Cr0::PG, Cr4::PAE, Efer::LME | Efer::LMA | Efer::NXE),
                no_execute: true,
                smep: false,
                execute_trap: false,
                c_bit: 0,
                huge_pages: false,
                physical_width,
            }),
        }
    }

    /// Executes the instruction at `state.rip` once, on the second stage of whoever runs: its top level, and whether it is a
    /// shadow. The pages of `devices` are none of memory's. `answers` are what is known so far of what it reads there and
    /// from ports.
    pub(super) fn attempt(
        &mut self,
        machine: &mut Machine,
        state: &State,
        model: &Arc<Model>,
        (root, nested): (HostPhysical, bool),
        devices: &[Device],
        answers: &[u64],
    ) -> Result<Emulated, HostBug> {
        let mut overlaid = Vec::new();
        for device in devices {
            let Machine { board, frames, tables01, shadows, current, .. } = &mut *machine;
            let shadow = shadows.get_mut(usize::from(*current)).and_then(Option::as_mut);
            let tables = shadow.filter(|_| nested).unwrap_or(tables01);
            let old = tables
                .overlay(&mut board.memory, frames, device.page, self.device)
                .ok_or(HostBug::OutOfFrames)?;
            overlaid.push(old);
        }
        let stage = self.second_stage(root, model.physical_width());
        let physical = machine.cpu();
        let cpu = &mut self.processor.cpu;
        cpu.model = model.clone();
        cpu.tick = physical.tick;
        cpu.vectors = physical.vectors.clone();
        (cpu.xcr0, cpu.xss, cpu.pkru) = (physical.xcr0, physical.xss, physical.pkru);
        cpu.msrs = physical.msrs;
        cpu.dr = physical.dr;
        cpu.tlb.flush_all();
        cpu.published = Published {
            guest: true,
            intercepts: CLASSES,
            second_stage: stage,
            space: 1,
            apic_access: Some(ApicWindow::Host(self.device)),
            ..Published::default()
        };
        // What TF and instruction breakpoints lead to is for whoever asked to decide.
        let quiet = State { rflags: state.rflags & !TF, dr7: state.dr7 & !0xff, ..*state };
        quiet.load_into(cpu);
        *self.script.lock() = Script::new(answers.to_vec(), self.scratch);
        let mut effects = Effects::default();
        let mut ports = Ports(self.script.clone());
        let mut ctx = Context {
            memory: &mut machine.board.memory,
            bus: &mut ports,
            choices: &mut Tame,
            observer: None,
            effects: &mut effects,
            gates: true,
        };
        let until = self.processor.cpu.tick + 1;
        let end = self.processor.run(&mut ctx, until);
        for (place, old) in overlaid.into_iter().rev() {
            machine.board.memory.write_u64(place, old);
        }
        Ok(self.conclude(machine, state, end))
    }

    /// Where a linear address leads, as the tables of `state` say.
    ///
    /// # Errors
    /// The access to guest memory that fails on the way; `None`: the tables do not map it.
    pub(super) fn translate(
        &mut self,
        machine: &mut Machine,
        state: &State,
        model: &Arc<Model>,
        root: HostPhysical,
        linear: Linear,
    ) -> Result<GuestPhysical, Option<GuestPhysicalAccess>> {
        let stage = self.second_stage(root, model.physical_width());
        let cpu = &mut self.processor.cpu;
        cpu.model = model.clone();
        cpu.published = Published { guest: true, second_stage: stage, space: 1, ..Published::default() };
        state.load_into(cpu);
        let access = Access::implicit(AccessKind::Read);
        match translate(&mut machine.board.memory, cpu.paging(), &stage, linear, access) {
            Ok(translation) => Ok(translation.guest),
            Err(WalkFault::SecondStage(access)) if !access.table_walk => Ok(access.address),
            Err(WalkFault::SecondStage(access)) => Err(Some(access)),
            Err(_) => Err(None),
        }
    }

    fn conclude(&mut self, machine: &mut Machine, state: &State, end: RunEnd) -> Emulated {
        let cpu = &self.processor.cpu;
        let script = self.script.lock();
        match (script.abort, end) {
            (Some(Abort::Needs(need)), _) => Emulated::Needs(need),
            (Some(Abort::Page(access)), _) => Emulated::Page(access),
            (Some(Abort::Raised(exception)), _) => Emulated::Raised(exception),
            (None, RunEnd::Budget) => {
                let mut done = State::of(cpu);
                done.rflags = done.rflags & !TF | state.rflags & TF;
                done.dr7 = done.dr7 & !0xff | state.dr7 & 0xff;
                let sent = script.sent(&machine.board.memory);
                let vectors = cpu.vectors.clone();
                let physical = machine.cpu_mut();
                physical.vectors = vectors;
                physical.tick += 1;
                Emulated::Done(Box::new(done), sent)
            }
            _ => Emulated::Failed(cpu.current.bytes, cpu.current.length),
        }
    }
}

/// RFLAGS.TF.
const TF: u64 = 1 << 8;
