//! [`Processor`]: a [`Cpu`], its decoded code and its extension. Runs guest code, or executes [`Instruction`] values.

use crate::decode::{Decoded, decode, resolve};
use crate::engine::{self, Mode, Running, Store};
use crate::execute::events::{Boundary, is_eventful};
use crate::execute::{Exec, Flow};
use crate::fault::{Fault, Result};
use crate::instruction::{Instruction, Outcome};
use crate::state::{Activity, Attention};
use crate::virtualization::Virtualization;
use crate::{Context, Cpu, gate_at};
use rootmode_arch::record::Stop;
use rootmode_arch::{Linear, RFlags, SegmentName};
use rootmode_mmu::{Access, PageKind, PhysicalMemory};

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
    store: Store,
    stalled: u32,
    last_tick: u64,
}

impl Clone for Processor {
    fn clone(&self) -> Self {
        let SavedProcessor { cpu, extension, stalled, last_tick } = self.save();
        Self { cpu, extension, store: Store::default(), stalled, last_tick }
    }
}

/// The state of a processor at one moment, without what can be computed again.
pub(crate) struct SavedProcessor {
    cpu: Cpu,
    extension: Option<Box<dyn Virtualization>>,
    stalled: u32,
    last_tick: u64,
}

impl Processor {
    /// A processor with `cpu`'s state.
    pub fn new(cpu: Cpu, extension: Option<Box<dyn Virtualization>>) -> Self {
        Self { cpu, extension, store: Store::default(), stalled: 0, last_tick: 0 }
    }

    /// Executes one instruction as a value, in the current mode, at no cost in ticks. RIP does not move, unless a guest is
    /// entered.
    ///
    /// # Errors
    /// The fault that the instruction would raise; nothing was committed.
    pub fn execute(&mut self, ctx: &mut Context<'_>, instruction: &Instruction) -> Result<Outcome> {
        self.exec(ctx).execute(instruction)
    }

    /// The state as it is.
    pub(crate) fn save(&self) -> SavedProcessor {
        SavedProcessor {
            cpu: self.cpu.clone(),
            extension: self.extension.as_ref().map(|extension| extension.clone_box()),
            stalled: self.stalled,
            last_tick: self.last_tick,
        }
    }

    /// Continues from `saved`. Decoded code stays: its memory says whether it is stale.
    pub(crate) fn restore(&mut self, saved: &SavedProcessor) {
        self.cpu = saved.cpu.clone();
        self.extension = saved.extension.as_ref().map(|extension| extension.clone_box());
        self.stalled = saved.stalled;
        self.last_tick = saved.last_tick;
    }

    fn exec<'a, 'c>(&'a mut self, ctx: &'a mut Context<'c>) -> Exec<'a, 'c> {
        Exec { cpu: &mut self.cpu, ctx, extension: self.extension.as_deref_mut(), run: Running::NONE }
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
            if self.cpu.tick >= self.cpu.overflow_deadline {
                self.cpu.settle_counters();
            }
            self.cpu.attention.0 &= !Attention::COUNTERS;
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
            if self.cpu.tlb.remembers_origins() {
                self.exec(ctx).note_instruction();
            }
            if eventful {
                match self.exec(ctx).boundary() {
                    Ok(Boundary::Execute) => {}
                    Ok(Boundary::Again) => continue,
                    Ok(Boundary::Asleep) => return RunEnd::Asleep,
                    Err(stop) => return RunEnd::Stop(stop),
                }
            }
            let quiet = until.min(deadline).min(self.cpu.overflow_deadline);
            let limit = if eventful { self.cpu.tick + 1 } else { quiet };
            if let Err(stop) = self.run_blocks(ctx, limit, eventful) {
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

    /// Runs blocks up to the tick `until`, or until something wants attention; `careful` when shadows or TF are about.
    fn run_blocks(&mut self, ctx: &mut Context<'_>, until: u64, careful: bool) -> Result<(), Stop> {
        self.cpu.repeating = false;
        let mut unlinked = None;
        while self.cpu.tick < until {
            if ctx.gates
                && !self.cpu.published.guest
                && let Some(n) = gate_at(self.cpu.rip)
            {
                return Err(Stop::Gate(n));
            }
            self.store.notice_code_writes(ctx.memory);
            let mode = Mode::of(&self.cpu);
            let (first, room) = match self.find_block(ctx, mode)? {
                Found::Block(first, room) => (first, room),
                Found::Single(single, room) => {
                    let mut x = self.exec(ctx);
                    x.run = Running::singly(until);
                    return run_some(&mut x, &[*single], until, careful, room);
                }
                Found::Settled => return Ok(()),
            };
            if let Some(((from, taken), emptied)) = unlinked.take() {
                self.store.link(from, taken, emptied, first);
            }
            let before = self.cpu.tick;
            let left = until - before;
            if careful || self.cpu.checks_data || room != u64::MAX || self.store.length(first) > left {
                let mut x = Exec {
                    cpu: &mut self.cpu,
                    ctx,
                    extension: self.extension.as_deref_mut(),
                    run: Running::singly(until),
                };
                run_some(&mut x, self.store.instructions(first), until, careful, room)?;
            } else {
                let mut x = Exec {
                    run: self.store.running(&self.cpu, left, mode),
                    cpu: &mut self.cpu,
                    ctx,
                    extension: self.extension.as_deref_mut(),
                };
                engine::chain(&mut x, first);
                let branch = x.run.unlinked;
                let links = std::mem::take(&mut x.run.links);
                x.cpu.tick = until - x.run.left as u64;
                let stop = x.run.stop;
                self.store.note_links(links);
                if let Some(stop) = stop {
                    return Err(stop);
                }
                unlinked = branch.map(|branch| (branch, self.store.emptied()));
            }
            // No tick passes in a VM entry that exits at once: the caller counts such steps.
            let still = self.cpu.tick == before;
            if careful
                || still
                || self.cpu.attention.0 != 0
                || self.cpu.published.deadline.is_some_and(|d| d < until)
            {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Finds the block at RIP.
    fn find_block(&mut self, ctx: &mut Context<'_>, mode: Mode) -> Result<Found, Stop> {
        let linear = self.cpu.code_address();
        let limit = self.cpu.segment(SegmentName::Cs).limit;
        let unlimited = mode.is_64_bit() || limit == u32::MAX;
        if unlimited
            && let Some(place) = self.cpu.tlb.quick_code(self.cpu.code_bank(), linear)
            && let Some(first) = self.store.jumped(linear, place, mode)
        {
            self.cpu.tlb.code_kept();
            return Ok(Found::Block(first, u64::MAX));
        }
        let mut x =
            Exec { cpu: &mut self.cpu, ctx, extension: self.extension.as_deref_mut(), run: Running::NONE };
        x.cpu.current.length = 0;
        // Bytes of the code segment from RIP on.
        let Some(room) = x.cpu.code_room() else { return x.settle(Fault::GP0).map(|()| Found::Settled) };
        let room = if unlimited { u64::MAX } else { room };
        let at = match x.translate(linear, Access::fetch(x.cpu.cpl)) {
            Ok(at) => at,
            Err(fault) => return x.settle(fault).map(|()| Found::Settled),
        };
        if x.cpu.published.is_apic(&at)
            && let Err(fault) = x.fetch_from_apic_page(at, linear)
        {
            return x.settle(fault).map(|()| Found::Settled);
        }
        if matches!(at.kind, PageKind::Mmio | PageKind::Apic) {
            return Err(Stop::Unmodelled(linear));
        }
        x.cpu.tlb.code_kept();
        if let Some(place) = x.ctx.memory.offset(at.host)
            && let Some(first) = self.store.block(x.ctx.memory, at.host, place, mode, x.cpu)
        {
            if unlimited && gate_at(x.cpu.rip).is_none() {
                self.store.remember(linear, place, mode, first);
            }
            return Ok(Found::Block(first, room));
        }
        match fetch_across(&mut x, &mut self.store, linear) {
            Ok(single) => Ok(Found::Single(Box::new(single), room)),
            Err(fault) => x.settle(fault).map(|()| Found::Settled),
        }
    }

    /// Whether a run could do anything: active, or something waits at a boundary.
    pub fn may_run(&self, memory: &PhysicalMemory) -> bool {
        let waiting = Attention::INTERRUPT | Attention::INJECTED | Attention::EXTENSION | Attention::DEBUG;
        let deadline = self.cpu.published.deadline.is_some_and(|tick| self.cpu.tick >= tick);
        self.cpu.activity == Activity::Active
            || self.cpu.attention.0 & waiting != 0
            || deadline
            || self.cpu.is_woken(memory)
    }
}

/// What lies at RIP.
enum Found {
    /// A block, and how many bytes of the code segment there are.
    Block(u32, u64),
    /// An instruction that no block holds: it crosses into the next page, or does not lie in RAM.
    Single(Box<Decoded>, u64),
    /// The fetch faulted, and that was settled.
    Settled,
}

/// Decodes an instruction that crosses into the next page, or does not lie in RAM.
#[cold]
fn fetch_across(x: &mut Exec<'_, '_>, store: &mut Store, linear: Linear) -> Result<Decoded> {
    let mode = x.cpu.code_mode();
    let access = Access::fetch(x.cpu.cpl);
    let mut bytes = [0; 15];
    let here = (4096 - linear.page_offset() as usize).min(15);
    let low = x.translate(linear, access)?.host;
    x.ctx.memory.read(low, &mut bytes[..here]);
    let features = x.cpu.model.features();
    // Without the next page's bytes the instruction may already be complete, or wrong.
    if let Some(instruction) = decode(&bytes[..here], mode) {
        return Ok(resolve(&instruction, &bytes, mode, features));
    }
    if here == 15 {
        // Only an instruction longer than the architecture allows is still incomplete.
        return Err(Fault::GP0);
    }
    let next = linear.offset(here as u64);
    let next = if mode.bits == 64 { next } else { Linear(next.0 & 0xffff_ffff) };
    if mode.bits == 64 && !next.is_canonical(x.cpu.linear_width()) {
        return Err(Fault::GP0);
    }
    let high = x.translate(next, access)?.host;
    if let Some(decoded) = store.crossing(x.ctx.memory, [low, high], mode.bits) {
        return Ok(decoded);
    }
    x.ctx.memory.read(high, &mut bytes[here..]);
    let instruction = decode(&bytes, mode).ok_or(Fault::GP0)?;
    let decoded = resolve(&instruction, &bytes, mode, x.cpu.model.features());
    store.keep_crossing(x.ctx.memory, [low, high], mode.bits, decoded);
    Ok(decoded)
}

/// Executes instructions one after another until one jumps, faults, needs attention or changes code or its translation, or the
/// tick `until` is reached. `room`: bytes of the code segment from RIP on.
fn run_some(
    x: &mut Exec<'_, '_>,
    instructions: &[Decoded],
    until: u64,
    careful: bool,
    mut room: u64,
) -> Result<(), Stop> {
    let code_writes = x.ctx.memory.code_writes();
    for op in instructions {
        let from = x.cpu.rip;
        let before = (x.cpu.sti_shadow, x.cpu.mov_ss_shadow, x.cpu.control_flags());
        let length = u64::from(op.current.length);
        if length > room {
            return x.settle(Fault::GP0);
        }
        room -= length;
        x.cpu.current = op.current;
        if x.cpu.tlb.remembers_origins() {
            x.note_instruction();
        }
        if careful && let Err(fault) = x.check_tracker(op) {
            return x.settle(fault);
        }
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
            if flow == Flow::Repeat {
                x.cpu.happened.iterations += 1;
            }
            if careful {
                if op.branches {
                    x.cpu.happened.branches += 1;
                }
                if flow == Flow::Jumped {
                    x.cpu.record_branch(from);
                }
                // RF lasts for one instruction; what IRET loads counts for the next one.
                if before.2.contains(RFlags::RF) && flow != Flow::Repeat {
                    x.cpu.end_resume();
                }
                x.after_instruction(before.0, before.1, before.2.contains(RFlags::TF), flow);
            }
            if flow == Flow::Jumped
                || x.cpu.tick >= until
                || x.cpu.attention.0 != 0
                || x.cpu.tlb.code_lost()
                || x.ctx.memory.code_writes() != code_writes
                || op.ends_block
            {
                x.cpu.repeating = flow == Flow::Repeat;
                return Ok(());
            }
            if flow == Flow::Next {
                break;
            }
        }
    }
    Ok(())
}
