//! The half that drives the CPU: VMRUN, #VMEXIT and the other SVM instructions.
//!
//! [`Svm`] implements the core's [`Virtualization`] seam. What VMRUN refuses and what exits is not decided here: VMRUN
//! asks the table of [rules](crate::rules), guest events ask [`decide`](crate::decide). Here is what the processor does
//! about the answers. VMCBs and permission maps are read and written in simulated memory, in place; the host's state lies
//! in the page that VM_HSAVE_PA points to, with the offsets of a VMCB's state-save area (the manual leaves the format
//! to the processor).
//!
//! `vmrun` and `vmexit` are the transitions, `state` moves state, `instructions` are the other instructions,
//! `registers` the MSRs, `view` what decisions read.

mod instructions;
mod registers;
mod state;
mod view;
mod vmexit;
mod vmrun;

use crate::decide::{Controls, PauseFilter, Table, View};
use crate::vmcb::IntCtl;
use crate::{Processor, Vmcb};
use rootmode_arch::record::Level;
use rootmode_arch::{Efer, Event, HostPhysical, RFlags, Reaction, Stage, Vendor};
use rootmode_cpu::{
    Context, Cpu, Delivery, DeliveryKind, Fault, Gate, Instruction, Opcode, Outcome, Published, Result, Slot,
    Virtualization,
};
use rootmode_mmu::Digest;

/// SVM of one logical processor.
#[derive(Clone, Debug)]
pub struct Svm {
    processor: Processor,
    /// What runs outside guests.
    host_level: Level,
    /// Global interrupt flag.
    gif: bool,
    vm_cr: u64,
    hsave: u64,
    tsc_ratio: u64,
    /// The VMCB of the guest that runs.
    running: Option<Running>,
}

/// What the processor keeps while a guest runs.
#[derive(Clone, Debug)]
struct Running {
    vmcb: HostPhysical,
    controls: Controls,
    maps: Maps,
    pause: PauseFilter,
    /// Virtual interrupt state: V_TPR, V_IRQ and their like change while the guest runs.
    int_ctl: IntCtl,
    int_vector: u8,
    /// The host's PAT, while nested paging gives the guest its own.
    host_pat: u64,
}

/// Addresses of the permission maps.
#[derive(Clone, Copy, Debug)]
struct Maps {
    msrpm: HostPhysical,
    iopm: HostPhysical,
}

impl Svm {
    /// SVM of a processor with these properties, with GIF set. `host_level` is what records say about software in
    /// host mode.
    pub const fn new(processor: Processor, host_level: Level) -> Self {
        Self { processor, host_level, gif: true, vm_cr: 0, hsave: 0, tsc_ratio: 1 << 32, running: None }
    }

    /// The level that runs as a guest of this processor's host.
    const fn guest_level(&self) -> Level {
        match self.host_level {
            Level::L0 => Level::L1,
            Level::L1 | Level::L2 => Level::L2,
        }
    }

    /// What host mode publishes: with GIF = 0 interrupts and NMIs are held.
    fn publish_host(&self, cpu: &mut Cpu) {
        let gate = if self.gif { Gate::Normal } else { Gate::Closed };
        cpu.published = Published {
            level: self.host_level,
            interrupt_gate: gate,
            nmi_gate: gate,
            ..Published::default()
        };
        cpu.refresh();
    }

    /// Reads a VMCB.
    fn read_vmcb(ctx: &Context<'_>, at: HostPhysical) -> Vmcb {
        let mut bytes = [0; crate::vmcb::SIZE];
        ctx.memory.read(at, &mut bytes);
        Vmcb::from_bytes(bytes)
    }
}

impl Virtualization for Svm {
    fn vendor(&self) -> Vendor {
        Vendor::Amd
    }

    fn raise(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, event: &Event, stage: Stage) -> Reaction {
        let Some(running) = &mut self.running else { return Reaction::Proceed };
        let state = view::state(running, cpu);
        let maps = view::MemoryMaps { memory: ctx.memory, maps: running.maps };
        let view = View { controls: &running.controls, state: &state, maps: &maps };
        if let Some(exit) = Table::BUILT_IN.decide_at(stage, &view, event) {
            self.leave(cpu, ctx, &exit, Some(event));
            return Reaction::Exit;
        }
        if let (Event::Pause { tsc, .. }, Stage::AfterOperands) = (*event, stage) {
            running.pause = running.pause.after(&running.controls, tsc);
        }
        Reaction::Proceed
    }

    fn permit(&self, cpu: &Cpu, opcode: Opcode) -> Result {
        // VMMCALL has no use outside intercepts (APM Vol. 3 "VMMCALL").
        if !cpu.efer.contains(Efer::SVME) || opcode == Opcode::Vmmcall {
            return Err(Fault::UD);
        }
        if cpu.cpl != 0 { Err(Fault::GP0) } else { Ok(()) }
    }

    fn execute(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        instruction: &Instruction,
    ) -> Result<Outcome> {
        self.execute_instruction(cpu, ctx, instruction)
    }

    fn boundary(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, slot: Slot) -> Reaction {
        if slot != Slot::BeforeInterrupt {
            return Reaction::Proceed;
        }
        let Some(running) = &mut self.running else { return Reaction::Proceed };
        let priority = running.int_ctl.contains(IntCtl::V_IGN_TPR)
            || running.int_ctl.v_intr_prio() > running.int_ctl.v_tpr();
        let open = cpu.rflags().contains(RFlags::IF) && !cpu.sti_shadow && !cpu.mov_ss_shadow;
        if !running.int_ctl.contains(IntCtl::V_IRQ) || !priority || !open {
            return Reaction::Proceed;
        }
        let vector = running.int_vector;
        let event = Event::VirtualInterrupt { vector };
        let state = view::state(running, cpu);
        let maps = view::MemoryMaps { memory: ctx.memory, maps: running.maps };
        let view = View { controls: &running.controls, state: &state, maps: &maps };
        if let Some(exit) = crate::decide::decide(&view, &event) {
            // The exit comes before the interrupt is taken: V_IRQ stays.
            self.leave(cpu, ctx, &exit, None);
            return Reaction::Exit;
        }
        running.int_ctl = running.int_ctl.without(IntCtl::V_IRQ);
        cpu.published.boundary = false;
        cpu.injected = Some(Delivery {
            kind: DeliveryKind::External,
            vector,
            error_code: None,
            length: 0,
            return_rip: None,
            detail: 0,
        });
        cpu.update_attention();
        Reaction::Proceed
    }

    fn read_msr(&mut self, _: &Cpu, index: u32) -> Option<Result<u64>> {
        self.read_own_msr(index)
    }

    fn write_msr(&mut self, _: &mut Cpu, index: u32, value: u64) -> Option<Result> {
        self.write_own_msr(index, value)
    }

    fn check_cr(&self, _: &Cpu, _: u8, _: u64) -> Result {
        Ok(())
    }

    fn efer_bits(&self, _: &Cpu) -> u64 {
        self.allowed_efer_bits()
    }

    fn blocks_init(&self, _: &Cpu) -> bool {
        !self.gif
    }

    fn digest(&self, digest: &mut Digest) {
        digest.all(&[self.gif.into(), self.vm_cr, self.hsave, self.tsc_ratio]);
        if let Some(running) = &self.running {
            digest.all(&[
                running.vmcb.0,
                running.int_ctl.0.into(),
                running.int_vector.into(),
                running.host_pat,
            ]);
            digest.all(&[running.pause.left.into(), running.pause.last.map_or(u64::MAX, |last| last)]);
            for word in running.controls.intercepts.0 {
                digest.u64(word.into());
            }
        }
    }

    fn clone_box(&self) -> Box<dyn Virtualization> {
        Box::new(self.clone())
    }
}
