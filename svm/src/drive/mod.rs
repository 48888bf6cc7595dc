//! The half that drives the CPU: VMRUN, #VMEXIT and the other SVM instructions.
//!
//! [`Svm`] implements the core's [`Virtualization`] seam. What VMRUN refuses and what exits is not decided here: VMRUN
//! asks the table of [rules](crate::rules), guest events ask [`decide`](crate::decide). Here is what the processor does
//! about the answers. VMCBs and permission maps are read and written in simulated memory, in place; the host's state lies
//! in the page that VM_HSAVE_PA points to, with the offsets of a VMCB's state-save area (the manual leaves the format
//! to the processor).
//!
//! `vmrun` and `vmexit` are the transitions, `state` moves state, `page` is where it moves to, `instructions` are the other
//! instructions, `gates` is about GIF, interrupts and NMIs, `avic` about the guest's APIC, `clean` about what is not read again,
//! `host_area` about where the host's state is meanwhile, `encrypted` about SEV-ES, `registers` the MSRs, `view` what
//! decisions read.

mod avic;
mod clean;
mod encrypted;
mod gates;
mod host_area;
mod instructions;
mod page;
mod registers;
mod state;
mod view;
mod vmexit;
mod vmrun;
mod watcher;

pub use watcher::Watcher;

use crate::decide::{Controls, PauseFilter, Table, View};
use crate::vmcb::IntCtl;
use crate::{Processor, Vmcb};
use rootmode_arch::record::Level;
use rootmode_arch::{Efer, Event, EventClasses, Feature, Gpr, HostPhysical, Reaction, Stage, Vendor, vector};
use rootmode_cpu::{
    Context, Cpu, Fault, Instruction, Opcode, Outcome, Published, Result, Slot, Virtualization,
};
use rootmode_mmu::Digest;

/// Bytes of a VMCB that VMRUN looks at: behind them are the branch-record stack and instruction-based sampling.
const LOOKED_AT: usize = 0x6e8;
/// Where the guest's state begins in it.
const STATE: usize = 0x400;

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
    /// Not part of the state.
    watcher: Option<Watcher>,
    /// The controls of the last VMRUN, and the classes of events that may exit under them.
    interest: (Controls, EventClasses),
    /// The VMCB of the last VMRUN: kept because it is large, not for what it holds.
    image: Option<Box<Vmcb>>,
    /// The VMCB that hostile hardware keeps between runs.
    kept: Option<Box<clean::Kept>>,
    /// What hostile hardware knows of the host while a guest runs.
    host_area: Option<Box<host_area::HostArea>>,
}

/// What the processor keeps while a guest runs.
#[derive(Clone, Debug)]
struct Running {
    vmcb: HostPhysical,
    controls: Controls,
    maps: Maps,
    pause: PauseFilter,
    /// Bus locks that pass before one is intercepted.
    bus_locks: u16,
    /// Virtual interrupt state: V_TPR, V_IRQ and their like change while the guest runs.
    int_ctl: IntCtl,
    int_vector: u8,
    /// The host's PAT, while nested paging gives the guest its own.
    host_pat: u64,
    /// The host's SPEC_CTRL, while the guest has its own.
    host_speculation: u64,
    /// RFLAGS.IF of the host at VMRUN.
    host_interrupts: bool,
    /// Virtual GIF is in use.
    virtual_gif: bool,
    /// Virtual NMIs are in use: blocking by NMI is V_NMI_MASK while the guest runs.
    virtual_nmi: bool,
    /// Blocking by NMI at VMRUN, while `virtual_nmi`.
    host_nmi_blocked: bool,
    /// Branch records are switched.
    virtual_branches: bool,
    /// AVIC, if the guest has it.
    avic: Option<avic::Avic>,
    /// The guest has SEV-ES.
    encrypted: Option<encrypted::Encrypted>,
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
    pub fn new(processor: Processor, host_level: Level) -> Self {
        Self {
            processor,
            host_level,
            gif: true,
            vm_cr: 0,
            hsave: 0,
            tsc_ratio: 1 << 32,
            running: None,
            watcher: None,
            interest: (Controls::default(), EventClasses::NONE),
            image: None,
            kept: None,
            host_area: None,
        }
    }

    /// The same, watched.
    #[must_use]
    pub fn watched(self, watcher: Option<Watcher>) -> Self {
        Self { watcher, ..self }
    }

    /// The level that runs as a guest of this processor's host.
    const fn guest_level(&self) -> Level {
        match self.host_level {
            Level::L0 => Level::L1,
            Level::L1 | Level::L2 => Level::L2,
        }
    }

    /// What host mode publishes. [`Cpu::refresh`] must follow.
    fn publish_host(&self, cpu: &mut Cpu) {
        cpu.published = Published { level: self.host_level, ..Published::default() };
        self.set_gates(cpu);
    }
}

/// Reads what VMRUN looks at of the VMCB at `at`.
fn read_vmcb(ctx: &Context<'_>, at: HostPhysical, vmcb: &mut Vmcb) {
    ctx.memory.read(at, &mut vmcb.bytes_mut()[..LOOKED_AT]);
}

impl Virtualization for Svm {
    fn vendor(&self) -> Vendor {
        Vendor::Amd
    }

    fn raise(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, event: &Event, stage: Stage) -> Reaction {
        let Some(running) = &mut self.running else { return Reaction::Proceed };
        let x2avic = stage == Stage::AfterPrivilege && running.controls.is_x2avic();
        if stage != Stage::AfterOperands && !x2avic && !Table::BUILT_IN.may_exit_at(stage, event) {
            return Reaction::Proceed;
        }
        let state = view::state(running, cpu, ctx.memory);
        let maps = view::MemoryMaps { memory: ctx.memory, maps: running.maps };
        let view = View { controls: &running.controls, state: &state, maps: &maps };
        if let Some(exit) = Table::BUILT_IN.decide_at(stage, &view, event) {
            if let Some(reaction) = running.instead_of(cpu, &exit, Some(event)) {
                return reaction;
            }
            if matches!(event, Event::CrWritten { .. } | Event::EferWritten { .. }) {
                running.note_trap(cpu, exit);
                return Reaction::Proceed;
            }
            self.leave(cpu, ctx, &exit, Some(event));
            return Reaction::Exit;
        }
        match (*event, stage) {
            (Event::Pause { tsc, .. }, Stage::AfterOperands) => {
                running.pause = running.pause.after(&running.controls, tsc);
            }
            (Event::ApicAccess { access, .. }, _) => {
                let reaction = running.reach_backing_page(&access);
                self.follow_boundary(cpu);
                return reaction;
            }
            (Event::CrWrite { cr: 8, .. }, Stage::AfterOperands) => {
                if let Some(avic) = &mut running.avic {
                    avic.note_cr8();
                }
                self.follow_boundary(cpu);
            }
            (Event::Rdmsr { index: index @ 0x800..=0x8ff }, Stage::AfterPrivilege)
                if running.controls.is_x2avic() =>
            {
                return self.reach_by_msr(cpu, ctx, index, None);
            }
            (Event::Wrmsr { index: index @ 0x800..=0x8ff, value }, Stage::AfterPrivilege)
                if running.controls.is_x2avic() =>
            {
                return self.reach_by_msr(cpu, ctx, index, Some(value));
            }
            (Event::BusLock, _) => running.bus_locks = running.bus_locks.saturating_sub(1),
            _ => {}
        }
        Reaction::Proceed
    }

    fn permit(&self, cpu: &Cpu, opcode: Opcode) -> Result {
        // VMMCALL and VMGEXIT have no use outside intercepts (APM Vol. 3 "VMMCALL").
        let exists = opcode != Opcode::Skinit || self.processor.has(Feature::Skinit);
        let permitted = cpu.efer.contains(Efer::SVME) && cpu.is_protected() && exists;
        if !permitted || matches!(opcode, Opcode::Vmmcall | Opcode::Vmgexit) {
            return Err(Fault::UD);
        }
        let addressed = matches!(opcode, Opcode::Vmrun | Opcode::Vmload | Opcode::Vmsave);
        if cpu.cpl != 0 {
            return Err(Fault::GP0);
        }
        if addressed && self.running.is_some() {
            // The address is checked before the intercept (APM Vol. 3 "VMRUN", "VMLOAD", "VMSAVE").
            let address = cpu.register(Gpr::Rax);
            self.check_vmcb_address(cpu, if cpu.is_64_bit() { address } else { address & 0xffff_ffff })?;
        }
        Ok(())
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
        self.deliver_virtual(cpu, ctx, slot)
    }

    fn read_msr(&mut self, _: &Cpu, index: u32) -> Option<Result<u64>> {
        self.read_own_msr(index)
    }

    fn write_msr(&mut self, cpu: &mut Cpu, index: u32, value: u64) -> Option<Result> {
        self.write_own_msr(cpu, index, value)
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

    fn init(&mut self, cpu: &mut Cpu) -> Option<Fault> {
        if self.vm_cr & registers::R_INIT != 0 {
            // APM Vol. 2 "INIT Support": INIT becomes #SX with error code 1.
            return Some(Fault::with_code(vector::SX, 1));
        }
        if self.vm_cr & registers::LOCK == 0 {
            self.vm_cr &= !registers::SVMDIS;
        }
        self.running = None;
        self.kept = None;
        self.host_area = None;
        self.gif = true;
        self.publish_host(cpu);
        cpu.refresh();
        None
    }

    fn digest(&self, digest: &mut Digest) {
        digest.all(&[self.gif.into(), self.vm_cr, self.hsave, self.tsc_ratio]);
        if let Some(kept) = &self.kept {
            kept.digest(digest);
        }
        if let Some(area) = &self.host_area {
            area.digest(digest);
        }
        if let Some(running) = &self.running {
            digest.all(&[
                running.vmcb.0,
                running.int_ctl.0.into(),
                running.int_vector.into(),
                running.host_pat,
                running.host_speculation,
                running.host_interrupts.into(),
                running.host_nmi_blocked.into(),
            ]);
            digest.u64(running.bus_locks.into());
            if let Some(encrypted) = &running.encrypted {
                digest.all(&[encrypted.vmsa.0, encrypted.ghcb]);
            }
            if let Some(avic) = &running.avic {
                avic.digest(digest);
            }
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
