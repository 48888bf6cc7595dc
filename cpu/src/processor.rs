//! [`Processor`]: a [`Cpu`], its decoded code and its extension. Runs guest code, or executes [`Instruction`] values.

use crate::decode::cache::BlockCache;
use crate::decode::{CodeMode, Decoded, decode, resolve};
use crate::execute::events::{Boundary, is_eventful};
use crate::execute::{Exec, Flow};
use crate::fault::{Fault, Result};
use crate::instruction::{Instruction, Outcome};
use crate::state::{Activity, Attention};
use crate::virtualization::Virtualization;
use crate::{Context, Cpu, gate_at};
use rootmode_arch::record::Stop;
use rootmode_arch::{Linear, RFlags};
use rootmode_mmu::{Access, PageKind};

/// Why a run of one processor ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// The tick that was asked for is reached.
    Budget,
    /// Nothing to execute: halted, shut down or waiting for a start-up IPI, and nothing wakes it.
    Asleep,
    /// A device access had effects that the board must apply.
    Effects,
    /// The machine stops.
    Stop(Stop),
}

/// Steps without a tick after which a run ends with [`Stop::NoProgress`].
pub const STALL_BOUND: u32 = 100_000;

/// A logical processor at work: state, decoded code, extension.
pub struct Processor {
    /// The architectural state.
    pub cpu: Cpu,
    /// VMX or SVM, if the model has one.
    pub extension: Option<Box<dyn Virtualization>>,
    cache: BlockCache,
    stalled: u32,
    last_tick: u64,
}

impl Clone for Processor {
    fn clone(&self) -> Self {
        Self {
            cpu: self.cpu.clone(),
            extension: self.extension.as_ref().map(|extension| extension.clone_box()),
            cache: BlockCache::default(),
            stalled: self.stalled,
            last_tick: self.last_tick,
        }
    }
}

impl Processor {
    /// A processor with `cpu`'s state.
    pub fn new(cpu: Cpu, extension: Option<Box<dyn Virtualization>>) -> Self {
        Self { cpu, extension, cache: BlockCache::default(), stalled: 0, last_tick: 0 }
    }

    /// Executes one instruction as a value, in the current mode, at no cost in ticks. RIP does not move, unless a guest is
    /// entered.
    ///
    /// # Errors
    /// The fault that the instruction would raise; nothing was committed.
    pub fn execute(&mut self, ctx: &mut Context<'_>, instruction: &Instruction) -> Result<Outcome> {
        self.exec(ctx).execute(instruction)
    }

    fn exec<'a, 'c>(&'a mut self, ctx: &'a mut Context<'c>) -> Exec<'a, 'c> {
        Exec { cpu: &mut self.cpu, ctx, extension: self.extension.as_deref_mut() }
    }

    /// Reads linear memory as the running program would, at its privilege level.
    ///
    /// # Errors
    /// The fault of the access.
    pub fn read_linear(&mut self, ctx: &mut Context<'_>, linear: Linear, size: u8) -> Result<u64> {
        let mut x = self.exec(ctx);
        let access = x.data(rootmode_mmu::AccessKind::Read);
        x.read(linear, size, access)
    }

    /// Runs until `until` (a tick), or until something else ends the run. The state is at an instruction boundary then.
    pub fn run(&mut self, ctx: &mut Context<'_>, until: u64) -> RunEnd {
        loop {
            if self.cpu.attention.0 & Attention::EFFECTS != 0 {
                self.cpu.attention.0 &= !Attention::EFFECTS;
                return RunEnd::Effects;
            }
            if self.cpu.tick >= until {
                return RunEnd::Budget;
            }
            if self.has_stalled() {
                self.stalled = 0;
                return RunEnd::Stop(Stop::NoProgress);
            }
            let deadline = self.cpu.published.deadline.unwrap_or(u64::MAX);
            let eventful = is_eventful(self.cpu.attention) || self.cpu.tick >= deadline;
            if eventful {
                match self.exec(ctx).boundary() {
                    Ok(Boundary::Execute) => {}
                    Ok(Boundary::Again) => continue,
                    Ok(Boundary::Asleep) => return RunEnd::Asleep,
                    Err(stop) => return RunEnd::Stop(stop),
                }
            }
            if ctx.gates
                && !self.cpu.published.guest
                && let Some(n) = gate_at(self.cpu.rip)
            {
                return RunEnd::Stop(Stop::Gate(n));
            }
            let limit = if eventful { 1 } else { until.min(deadline) - self.cpu.tick };
            if let Err(stop) = self.run_block(ctx, limit, eventful) {
                return RunEnd::Stop(stop);
            }
        }
    }

    /// Whether too many steps were taken since the last tick.
    fn has_stalled(&mut self) -> bool {
        self.cpu.steps += 1;
        if self.cpu.tick == self.last_tick {
            self.stalled += 1;
        } else {
            self.last_tick = self.cpu.tick;
            self.stalled = 0;
        }
        self.stalled >= STALL_BOUND
    }

    /// Runs at most `limit` instructions of the block at RIP; `careful` when shadows or TF are about.
    fn run_block(&mut self, ctx: &mut Context<'_>, limit: u64, careful: bool) -> Result<(), Stop> {
        let rip = self.cpu.code_address();
        let model = self.cpu.model.clone();
        let mode = self.cpu.code_mode();
        let mut x = Exec { cpu: &mut self.cpu, ctx, extension: self.extension.as_deref_mut() };
        x.cpu.current.length = 0;
        let access = Access::fetch(x.cpu.cpl);
        // Bytes of the code segment from RIP on.
        let Some(room) = x.cpu.code_room() else { return x.settle(Fault::GP0) };
        let at = match x.translate(rip, access) {
            Ok(at) => at,
            Err(fault) => return x.settle(fault),
        };
        if matches!(at.kind, PageKind::Mmio | PageKind::Apic) {
            return Err(Stop::Unmodelled(rip));
        }
        let Some(block) = self.cache.block(x.ctx.memory, at.host, mode, model.features()) else {
            let single = match fetch_across(&mut x, rip, mode, model.features()) {
                Ok(single) => single,
                Err(fault) => return x.settle(fault),
            };
            return run_some(&mut x, &[single], limit, careful, room);
        };
        run_some(&mut x, &block.instructions, limit, careful, room)
    }

    /// Whether a run could do anything: active, or something waits at a boundary.
    pub fn may_run(&self) -> bool {
        let waiting = Attention::INTERRUPT | Attention::INJECTED | Attention::EXTENSION | Attention::DEBUG;
        let deadline = self.cpu.published.deadline.is_some_and(|tick| self.cpu.tick >= tick);
        self.cpu.activity == Activity::Active || self.cpu.attention.0 & waiting != 0 || deadline
    }
}

/// Decodes an instruction that crosses into the next page.
#[cold]
fn fetch_across(
    x: &mut Exec<'_, '_>,
    rip: Linear,
    mode: CodeMode,
    features: &rootmode_arch::FeatureSet,
) -> Result<Decoded> {
    let access = Access::fetch(x.cpu.cpl);
    let mut bytes = [0; 15];
    let here = (4096 - rip.page_offset() as usize).min(15);
    let at = x.translate(rip, access)?;
    x.ctx.memory.read(at.host, &mut bytes[..here]);
    let next = rip.offset(here as u64);
    let next = if mode.bits == 64 { next } else { Linear(next.0 & 0xffff_ffff) };
    if mode.bits == 64 && !next.is_canonical(x.cpu.linear_width()) {
        return Err(Fault::GP0);
    }
    let at = x.translate(next, access)?;
    x.ctx.memory.read(at.host, &mut bytes[here..]);
    // With 15 bytes at hand only an instruction longer than the architecture allows is still incomplete.
    let instruction = decode(&bytes, mode).ok_or(Fault::GP0)?;
    Ok(resolve(&instruction, &bytes, mode, features))
}

/// Executes instructions one after another until one jumps, faults, needs attention or changes code, or `limit` is reached.
#[inline]
fn run_some(
    x: &mut Exec<'_, '_>,
    instructions: &[Decoded],
    limit: u64,
    careful: bool,
    room: u64,
) -> Result<(), Stop> {
    let mut room = room;
    let code_writes = x.ctx.memory.code_writes();
    let mut rest = limit;
    for op in instructions {
        let before = (x.cpu.sti_shadow, x.cpu.mov_ss_shadow, x.cpu.rflags());
        let length = u64::from(op.current.length);
        if length > room {
            return x.settle(Fault::GP0);
        }
        room -= length;
        x.cpu.current = op.current;
        loop {
            let flow = match (op.handler)(x, op) {
                Ok(flow) => flow,
                Err(fault) => return x.settle(fault),
            };
            match flow {
                Flow::Next => x.cpu.advance_rip(length),
                Flow::Jumped | Flow::Repeat => {}
                Flow::Entered => return Ok(()),
            }
            x.cpu.tick += 1;
            rest -= 1;
            if careful {
                // RF lasts for one instruction; what IRET loads counts for the next one.
                if before.2.contains(RFlags::RF) && flow != Flow::Repeat {
                    x.cpu.set_rflags(x.cpu.rflags().without(RFlags::RF));
                }
                x.after_instruction(before.0, before.1, before.2.contains(RFlags::TF), flow);
            }
            if flow == Flow::Jumped
                || rest == 0
                || x.cpu.attention.0 != 0
                || x.ctx.memory.code_writes() != code_writes
            {
                return Ok(());
            }
            if flow == Flow::Next {
                break;
            }
        }
    }
    Ok(())
}
