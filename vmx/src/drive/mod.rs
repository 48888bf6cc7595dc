//! The half that drives the CPU: VMX operation, VM entries and VM exits.
//!
//! [`Vmx`] implements the core's [`Virtualization`] seam. What is allowed and what exits is not decided here: entries
//! ask the table of [rules](crate::rules), guest events ask [`decide`]. Here is what the
//! processor does about the answers.
//!
//! - [`region`]: the layout of a VMCS region in simulated memory.
//! - [`offered`]: the capability MSRs of this processor.
//! - `instructions`: the VMX instructions with their VMsucceed and VMfail; `entry`, `exit`, `state`, `lists`: the
//!   transitions; `held`: data that stay on-chip until VMCLEAR; `timers`: what happens at instruction boundaries; `registers`: control registers as the guest
//!   sees them; `apic`: the virtual APIC; `exceptions`: violations that become #VE; `shadow`: shadow VMCSs; `view`: what
//!   decisions read.

mod apic;
mod entry;
mod exceptions;
mod exit;
mod held;
mod instructions;
mod lists;
pub mod offered;
pub mod region;
mod registers;
mod shadow;
mod state;
mod timers;
mod view;
mod watcher;

pub use state::segment_fields;
pub use watcher::Watcher;

use crate::decide::{Controls, PauseLoop, Table, View, decide};
use crate::definitions::field::{Access, Kind};
use crate::rules::Passed;
use crate::{Capabilities, Field, FieldSet, SecondaryControls, Vmcs};
use entry::Classes;
use rootmode_arch::record::Level;
use rootmode_arch::{Efer, Event, HostPhysical, Reaction, Stage, Vendor, msr};
use rootmode_cpu::{Context, Cpu, Fault, Instruction, Model, Opcode, Outcome, Result, Slot, Virtualization};
use rootmode_mmu::Digest;

/// Whether the mode is one that has VMX instructions: protected, and 64-bit if long.
fn is_vmx_mode(cpu: &Cpu) -> bool {
    let compatibility = cpu.efer.contains(Efer::LMA) && !cpu.is_64_bit();
    cpu.is_protected() && !compatibility
}

/// VMX of one logical processor.
#[derive(Clone, Debug)]
pub struct Vmx {
    capabilities: Capabilities,
    fields: FieldSet,
    /// What runs outside guests.
    host_level: Level,
    /// In VMX operation, with this VMXON pointer.
    vmxon: Option<HostPhysical>,
    /// The current-VMCS pointer.
    current: Option<HostPhysical>,
    /// Data of the current VMCS. Memory has the same, unless they are held on-chip.
    vmcs: Box<Vmcs>,
    /// The current VMCS is held on-chip, and this is its launch state.
    launched: Option<bool>,
    /// Active VMCSs that are held on-chip and not current.
    held: Vec<held::Held>,
    /// What is known of its checks, and the fields that changed since.
    passed: Passed,
    changed: FieldSet,
    /// A control changed since `controls` were taken from it.
    controls_changed: bool,
    /// In VMX non-root operation.
    guest: bool,
    /// The current VMCS's controls, while the guest runs.
    controls: Controls,
    /// What follows from them: classes of events that may exit, or that they make undefined.
    classes: Classes,
    pause_loop: PauseLoop,
    pending_mtf: bool,
    /// The guest took a bus lock, and has not exited since.
    bus_locked: bool,
    apic: apic::Virtual,
    /// [`Cpu::tick`] at the last entry: whatever completes in the guest takes at least one tick.
    entry_tick: u64,
    /// Not part of the state.
    watcher: Option<Watcher>,
}

impl Vmx {
    /// VMX of a processor of `model`, outside VMX operation. `host_level` is what records say about software in VMX root
    /// operation.
    pub fn new(model: &Model, host_level: Level) -> Self {
        Self::offering(&offered::Offer::FULL, model, host_level)
    }

    /// The same with less than everything.
    pub fn offering(offer: &offered::Offer, model: &Model, host_level: Level) -> Self {
        let capabilities = offered::capabilities(offer, model);
        Self {
            fields: offered::fields(&capabilities),
            capabilities,
            host_level,
            vmxon: None,
            current: None,
            vmcs: Box::new(Vmcs::zeroed()),
            launched: None,
            held: Vec::new(),
            passed: Passed::default(),
            changed: FieldSet::none(),
            controls_changed: true,
            guest: false,
            controls: Controls::default(),
            classes: Classes::of(&Controls::default()),
            pause_loop: PauseLoop::default(),
            pending_mtf: false,
            bus_locked: false,
            apic: apic::Virtual::default(),
            entry_tick: 0,
            watcher: None,
        }
    }

    /// The same, watched.
    #[must_use]
    pub fn watched(self, watcher: Option<Watcher>) -> Self {
        Self { watcher, ..self }
    }

    /// The capability MSRs.
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The current-VMCS pointer, if there is one.
    pub const fn current(&self) -> Option<HostPhysical> {
        self.current
    }

    /// Takes over the controls of the current VMCS. Most entries find the ones of the entry before.
    fn take_controls(&mut self) {
        if !std::mem::take(&mut self.controls_changed) {
            return;
        }
        let controls = view::controls(self);
        if controls != self.controls {
            self.classes = Classes::of(&controls);
            self.controls = controls;
        }
    }

    /// Writes a field on-chip, and through to memory unless that is hostile hardware's. Most of what is written was there.
    #[inline(always)]
    fn write(&mut self, ctx: &mut Context<'_>, field: Field, value: u64) {
        if self.vmcs.value(field) != value & field.width().mask() {
            self.change(ctx, field, value);
        }
    }

    #[inline(never)]
    fn change(&mut self, ctx: &mut Context<'_>, field: Field, value: u64) {
        if let Some(region) = self.current {
            self.vmcs.set(field, value);
            self.changed.insert(field);
            self.controls_changed |= field.kind() == Kind::Control;
            if self.launched.is_none() {
                region::store(ctx.memory, region, field, self.vmcs.value(field));
            }
        }
    }

    /// The field of the current VMCS that `encoding` names, for VMREAD and VMWRITE of a host that may execute them.
    fn own_field(&self, cpu: &Cpu, encoding: u64) -> Option<(Field, Access)> {
        let permitted = self.vmxon.is_some() && !self.guest && cpu.cpl == 0 && !cpu.smm;
        self.current.filter(|_| permitted)?;
        let (field, access) = Field::from_encoding(u32::try_from(encoding).ok()?)?;
        self.fields.has(field).then_some((field, access))
    }

    /// The level that runs as a guest of this processor's host.
    const fn guest_level(&self) -> Level {
        match self.host_level {
            Level::L0 => Level::L1,
            Level::L1 | Level::L2 => Level::L2,
        }
    }
}

impl Virtualization for Vmx {
    fn vendor(&self) -> Vendor {
        Vendor::Intel
    }

    fn raise(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, event: &Event, stage: Stage) -> Reaction {
        if let Event::BusLock = event {
            // It exits when the instruction is complete.
            self.bus_locked = true;
            self.rearm(cpu);
            return Reaction::Proceed;
        }
        if stage != Stage::AfterOperands && !Table::BUILT_IN.may_exit_at(stage, event) {
            return Reaction::Proceed;
        }
        let processor = view::processor(self, cpu, ctx.memory);
        let bitmaps = view::MemoryBitmaps { memory: ctx.memory, vmcs: &self.vmcs };
        let view = View { controls: &self.controls, processor: &processor, bitmaps: &bitmaps };
        if let Some(exit) = Table::BUILT_IN.decide_at(stage, &view, event) {
            self.leave(cpu, ctx, &exit, Some(event));
            return Reaction::Exit;
        }
        // What does not exit is virtualized once, at the last stage.
        if stage != Stage::AfterOperands {
            return Reaction::Proceed;
        }
        if let Event::Pause { cpl: 0, tsc } = *event {
            self.pause_loop = self.pause_loop.after(self.controls.ple_gap, tsc);
        }
        if let Event::SecondStage(access) = event {
            return self.virtualization_exception(ctx, &processor, access);
        }
        if let Event::Mwait { .. } = event {
            return self.virtualize_mwait(cpu);
        }
        match self.virtualize_apic(cpu, ctx, &processor, event) {
            Some(reaction) => reaction,
            None => registers::virtualize(&self.controls, cpu, event),
        }
    }

    fn permit(&self, cpu: &Cpu, opcode: Opcode) -> Result {
        if cpu.smm {
            // CR4.VMXE is 0 there ("Default Treatment of SMI Delivery").
            return Err(Fault::UD);
        }
        if self.guest {
            // What else has not exited is in a mode that makes it undefined.
            let shadowing = self.controls.has_secondary(SecondaryControls::VMCS_SHADOWING);
            return match opcode {
                Opcode::Vmfunc if self.controls.has_secondary(SecondaryControls::ENABLE_VM_FUNCTIONS) => {
                    Ok(())
                }
                Opcode::Vmread | Opcode::Vmwrite if shadowing && is_vmx_mode(cpu) => match cpu.cpl {
                    0 => Ok(()),
                    _ => Err(Fault::GP0),
                },
                _ => Err(Fault::UD),
            };
        }
        if !is_vmx_mode(cpu) || opcode == Opcode::Vmfunc {
            return Err(Fault::UD);
        }
        if opcode == Opcode::Vmxon {
            return self.permit_vmxon(cpu);
        }
        match self.vmxon {
            None => Err(Fault::UD),
            Some(_) if cpu.cpl != 0 => Err(Fault::GP0),
            Some(_) => Ok(()),
        }
    }

    fn execute(
        &mut self,
        cpu: &mut Cpu,
        ctx: &mut Context<'_>,
        instruction: &Instruction,
    ) -> Result<Outcome> {
        self.execute_instruction(cpu, ctx, instruction)
    }

    fn field(&self, cpu: &Cpu, encoding: u64) -> Option<u64> {
        let (field, access) = self.own_field(cpu, encoding)?;
        let value = self.vmcs.value(field);
        Some(if access == Access::High { value >> 32 } else { value })
    }

    fn set_field(&mut self, cpu: &Cpu, ctx: &mut Context<'_>, encoding: u64, value: u64) -> bool {
        match self.own_field(cpu, encoding) {
            Some((field, Access::Full)) if field.kind() != Kind::ReadOnly => {
                self.write(ctx, field, value);
                true
            }
            _ => false,
        }
    }

    fn boundary(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>, slot: Slot) -> Reaction {
        if slot == Slot::BeforeDebug {
            self.emulate_apic_write(cpu, ctx);
        }
        for event in self.due(cpu, slot).into_iter().flatten() {
            let processor = view::processor(self, cpu, ctx.memory);
            let bitmaps = view::MemoryBitmaps { memory: ctx.memory, vmcs: &self.vmcs };
            let view = View { controls: &self.controls, processor: &processor, bitmaps: &bitmaps };
            if let Some(exit) = decide(&view, &event) {
                self.leave(cpu, ctx, &exit, None);
                return Reaction::Exit;
            }
        }
        if slot == Slot::BeforeInterrupt {
            self.deliver_virtual_interrupt(cpu, ctx);
        }
        Reaction::Proceed
    }

    fn read_msr(&mut self, _: &Cpu, index: u32) -> Option<Result<u64>> {
        match index {
            msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2 => {
                Some(offered::read(&self.capabilities, index).ok_or(Fault::GP0))
            }
            _ => None,
        }
    }

    fn write_msr(&mut self, _: &mut Cpu, index: u32, _: u64) -> Option<Result> {
        matches!(index, msr::IA32_VMX_BASIC..=msr::IA32_VMX_EXIT_CTLS2).then_some(Err(Fault::GP0))
    }

    fn check_cr(&self, cpu: &Cpu, cr: u8, value: u64) -> Result {
        self.check_fixed(cpu, cr, value)
    }

    fn efer_bits(&self, _: &Cpu) -> u64 {
        0
    }

    fn blocks_init(&self, _: &Cpu) -> bool {
        self.vmxon.is_some() && !self.guest
    }

    fn digest(&self, digest: &mut Digest) {
        let pointer = |p: Option<HostPhysical>| p.map_or(u64::MAX, |p| p.0);
        let flags = [self.guest, self.pending_mtf, self.bus_locked].map(u64::from);
        digest.all(&[pointer(self.vmxon), pointer(self.current)]);
        digest.all(&flags);
        let time = |t: Option<u64>| t.map_or(u64::MAX, |t| t);
        digest.all(&[time(self.pause_loop.first), time(self.pause_loop.last)]);
        self.apic.digest(digest);
        for field in Field::ALL {
            digest.u64(self.vmcs.value(field));
        }
        if let Some(launched) = self.launched {
            digest.u64(launched.into());
        }
        self.held.iter().for_each(|held| held.digest(digest));
    }

    fn clone_box(&self) -> Box<dyn Virtualization> {
        Box::new(self.clone())
    }
}
