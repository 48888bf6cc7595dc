//! The fast engine: basic blocks of resolved operations, chained, that run while nothing wants attention.
//!
//! Every instruction has its semantic function ([`crate::execute`]); the engine runs it through [`general`]. The most
//! frequent instructions have a second, quick form beside it, with operands resolved: registers by number, memory through
//! the TLB's shortcuts. A quick form that cannot complete at once (no shortcut, a watched line) has changed nothing
//! and hands over to the semantic function, so faults, devices, exits and marks live in one place.
//!
//! While a block runs, [`Cpu::rip`](crate::Cpu::rip) is the block's start and [`Running::left`] already counts the whole
//! block as executed; [`general`] puts both right before anyone can see them.

mod arithmetic;
mod fields;
mod flow;
mod liveness;
mod moves;
mod ports;
mod select;
mod store;
mod vector;

pub(crate) use store::{Mode, Store};

use crate::Cpu;
use crate::decode::{Combine, Decoded};
use crate::execute::{Exec, Flow};
use crate::fault::{Fault, Result};
use crate::state::Attention;
use rootmode_arch::Linear;
use rootmode_arch::record::Stop;
use rootmode_mmu::{Access, Bank, Key};
use std::cell::Cell;
use store::Jump;

/// Runs an operation and, within its block, what lies behind it (the slice), and answers the place of the next block, or
/// [`LEAVE`]. Calls nest no deeper than a block is long, also where the compiler does not make jumps of them.
pub(crate) type Run = fn(&mut Exec<'_, '_>, &Op, &[Op]) -> u32;

/// The chain ends: the processor is at an instruction boundary.
pub(crate) const LEAVE: u32 = u32::MAX;

/// An operation: an instruction, or the end of a block that does not end with a jump. One cache line.
#[derive(Clone)]
#[repr(align(64))]
pub(crate) struct Op {
    run: Run,
    /// Displacement of the memory operand, relative to the block's start if the base is RIP.
    displacement: u64,
    /// Immediate operand; target of a branch relative to the block's start.
    immediate: u64,
    /// What a packed operation does with its operands.
    combine: Option<Combine>,
    /// Width of addresses, or of RIP.
    mask: u64,
    /// Where [`flow`] goes on when a branch is taken; [`LEAVE`] if that is not known yet.
    taken: Cell<u32>,
    /// Where it goes on otherwise.
    next: Cell<u32>,
    /// [`Self::rest`] of the two.
    taken_rest: Cell<u16>,
    next_rest: Cell<u16>,
    /// Bytes from the block's start to the instruction.
    offset: u16,
    /// Bytes from the block's start to the next instruction.
    end: u16,
    /// Instructions of the block from this one on.
    rest: u16,
    /// Destination register.
    a: u8,
    /// Source register.
    b: u8,
    /// Register number, [`crate::decode::NO_REGISTER`] or [`crate::decode::RIP_BASE`].
    base: u8,
    index: u8,
    scale: u8,
    /// Number of the segment whose base counts.
    segment: u8,
}

/// What a chain of blocks needs beside processor and context.
pub(crate) struct Running<'a> {
    ops: &'a [Op],
    decoded: &'a [Decoded],
    jumps: &'a [Jump],
    /// Ticks left until [`Self::until`], less those of the whole running block.
    pub(crate) left: i64,
    /// The tick at which the chain must end.
    pub(crate) until: u64,
    /// The tick of the last VM entry or exit, at first the one at which the chain began.
    crossed: u64,
    /// Why the machine must stop.
    pub(crate) stop: Option<Stop>,
    /// The branch that led out of the chain and could be linked, and whether it was taken.
    pub(crate) unlinked: Option<(u32, bool)>,
    /// Branches that were linked on the way.
    pub(crate) links: Vec<u32>,
    returns: Returns<'a>,
    pages: &'a [usize],
    code_writes: u64,
    bank: Bank,
    /// The TLB's key for `bank`.
    key: Key,
    code_bank: Bank,
    mode: Mode,
}

impl Running<'_> {
    /// No chain: a single instruction as a value, a boundary.
    pub(crate) const NONE: Running<'static> = Running {
        ops: &[],
        decoded: &[],
        jumps: &[],
        left: 0,
        until: 0,
        crossed: 0,
        stop: None,
        unlinked: None,
        links: Vec::new(),
        returns: Returns::NONE,
        pages: &[],
        code_writes: 0,
        bank: Bank::Supervisor,
        key: Key::NONE,
        code_bank: Bank::Supervisor,
        mode: Mode::NONE,
    };

    /// Goes on in the mode and with the shortcuts that `cpu` has now. False: it does not run as chains do, without a limit or
    /// checks of data.
    #[inline]
    fn follow(&mut self, cpu: &Cpu) -> bool {
        let (mode, bank, code_bank) = (Mode::of(cpu), cpu.bank(), cpu.code_bank());
        if !mode.is_flat() || cpu.checks_data {
            return false;
        }
        if (mode, code_bank) != (self.mode, self.code_bank) {
            // The same addresses may lead elsewhere.
            self.returns.forget();
        }
        (self.mode, self.bank, self.code_bank) = (mode, bank, code_bank);
        self.key = cpu.tlb.key(bank);
        true
    }

    /// Whether data accesses of the chain need no segmentation.
    pub(crate) const fn is_flat(&self) -> bool {
        self.mode.is_flat()
    }

    /// Whose shortcuts data accesses use.
    pub(crate) const fn bank(&self) -> Bank {
        self.bank
    }

    /// The place of the operation before `behind`.
    #[inline(always)]
    const fn before(&self, behind: &[Op]) -> u32 {
        (self.ops.len() - behind.len() - 1) as u32
    }

    /// Links the branch at `from` with the block `to`, if they lie in one page.
    fn link(&mut self, from: u32, taken: bool, to: u32) {
        if link(self.ops, self.pages, from, taken, to) {
            self.links.push(from);
        }
    }

    /// Single instructions up to the tick `until`.
    pub(crate) fn singly(until: u64) -> Running<'static> {
        Running { until, ..Self::NONE }
    }
}

/// Links the branch at `from` with the block `to`. False: they do not lie in one page.
fn link(ops: &[Op], pages: &[usize], from: u32, taken: bool, to: u32) -> bool {
    let same = pages.get(from as usize) == pages.get(to as usize);
    let Some(op) = ops.get(from as usize).filter(|_| same) else { return false };
    let Some(target) = ops.get(to as usize) else { return false };
    let (link, rest) = if taken { (&op.taken, &op.taken_rest) } else { (&op.next, &op.next_rest) };
    link.set(to);
    rest.set(target.rest);
    true
}

/// A call of a chain.
#[derive(Clone, Copy, Default)]
pub(crate) struct Call {
    /// Where it will return to.
    rip: u64,
    /// The block there, [`LEAVE`] if that was not known, and how many instructions it has.
    to: u32,
    rest: u16,
    /// Which operation it is.
    at: u32,
}

/// Calls of a chain that have not returned. What a return finds here is true because stores to code end the chain, and whatever
/// drops the translation of code forgets all calls.
pub(crate) struct Returns<'a> {
    ring: &'a [Cell<Call>],
    depth: u32,
}

/// Returns that are remembered; a power of two.
const RETURNS: usize = 32;

impl Returns<'_> {
    const NONE: Returns<'static> = Returns { ring: &[], depth: 0 };

    #[inline(always)]
    fn push(&mut self, call: Call) {
        if let Some(place) = self.ring.get(self.depth as usize % RETURNS) {
            place.set(call);
            self.depth = self.depth.wrapping_add(1);
        }
    }

    /// Nothing is known any more.
    const fn forget(&mut self) {
        self.depth = 0;
    }

    /// The call that returns to `rip` now, if it is known.
    #[inline(always)]
    fn pop(&mut self, rip: u64) -> Option<Call> {
        self.depth = self.depth.checked_sub(1)?;
        let call = self.ring.get(self.depth as usize % RETURNS)?.get();
        (call.rip == rip).then_some(call)
    }
}

/// Runs from the block at `first`, whose instructions [`Running::left`] has room for, until the chain ends.
#[inline]
pub(crate) fn chain(x: &mut Exec<'_, '_>, first: u32) {
    let ops = x.run.ops;
    let mut at = enter(x, first);
    while let Some((op, behind)) = ops.get(at as usize..).and_then(<[Op]>::split_first) {
        at = (op.run)(x, op, behind);
    }
}

/// Goes on with the first operation of `behind`.
#[inline(always)]
fn go_on(x: &mut Exec<'_, '_>, behind: &[Op]) -> u32 {
    match behind.split_first() {
        Some((op, behind)) => (op.run)(x, op, behind),
        None => LEAVE,
    }
}

/// `$value`, or the semantic function.
macro_rules! or_general {
    ($x:ident, $op:ident, $behind:ident, $value:expr) => {
        match $value {
            Some(value) => value,
            None => return $crate::engine::general($x, $op, $behind),
        }
    };
}
use or_general;

/// Enters the block at `first`, if all of it fits into what is left.
#[inline(always)]
fn enter(x: &mut Exec<'_, '_>, first: u32) -> u32 {
    let ops = x.run.ops;
    let Some(op) = ops.get(first as usize) else { return LEAVE };
    enter_known(x, first, op.rest)
}

/// Enters the block at `first` of `rest` instructions, if all of it fits into what is left.
#[inline(always)]
fn enter_known(x: &mut Exec<'_, '_>, first: u32, rest: u16) -> u32 {
    let left = x.run.left - i64::from(rest);
    if left < 0 {
        return LEAVE;
    }
    x.run.left = left;
    first
}

/// The block at RIP, which a branch has just set, if it is known.
#[inline(always)]
fn find(x: &Exec<'_, '_>) -> Option<u32> {
    let linear = if x.run.mode.is_64_bit() { Linear(x.cpu.rip) } else { x.cpu.code_address() };
    let place = x.cpu.tlb.quick_code(x.run.code_bank, linear)?;
    store::find_jump(x.run.jumps, linear, place, x.run.mode)
}

/// The same where the code's translation went: it is looked up, or made, as the caller would next.
#[cold]
fn find_slowly(x: &mut Exec<'_, '_>) -> Option<u32> {
    // A fetch from an APIC-access page, or through one, is an event.
    if !x.cpu.tlb.code_lost() || may_be_gate(x) || x.cpu.published.apic_access.is_some() {
        return None;
    }
    x.cpu.code_room()?;
    let linear = x.cpu.code_address();
    x.translate(linear, Access::fetch(x.cpu.cpl)).ok()?;
    find(x)
}

/// Goes on at RIP, which a branch has just set, if the block there is known.
#[inline(always)]
fn dispatch(x: &mut Exec<'_, '_>) -> u32 {
    match find(x) {
        Some(first) => enter(x, first),
        None => LEAVE,
    }
}

/// What [`step`] answers where the block goes on.
const BEHIND: u32 = LEAVE - 1;

/// Runs an instruction through its semantic function, and goes on behind it if nothing stands against it. Not inlined, so that
/// quick forms end with a jump to it and need no registers of their own.
#[inline(never)]
pub(crate) fn general(x: &mut Exec<'_, '_>, op: &Op, behind: &[Op]) -> u32 {
    match step(x, op, x.run.before(behind), false) {
        BEHIND => go_on(x, behind),
        at => at,
    }
}

/// Runs the instruction `op`, the one at the given place, through its semantic function; one that completes ends a `resuming`
/// RFLAGS.RF.
fn step(x: &mut Exec<'_, '_>, op: &Op, at: u32, resuming: bool) -> u32 {
    let decoded = x.run.decoded;
    let decoded = &decoded[at as usize];
    let start = x.cpu.rip;
    x.cpu.advance_rip(u64::from(op.offset));
    let rest = i64::from(op.rest);
    x.cpu.tick = x.run.until - (x.run.left + rest) as u64;
    x.cpu.current = decoded.current;
    let mut flow = (decoded.handler)(x, decoded);
    if flow == Ok(Flow::Repeat) {
        flow = repeat(x, decoded);
    }
    if resuming && matches!(flow, Ok(Flow::Next | Flow::Jumped)) {
        x.cpu.end_resume();
    }
    match flow {
        Ok(Flow::Next) => {
            let quiet = x.cpu.attention.0 == 0
                && !x.cpu.tlb.code_lost()
                && x.ctx.memory.code_writes() == x.run.code_writes
                && !decoded.ends_block
                && x.run.left >= 0;
            if quiet {
                x.cpu.rip = start;
                return BEHIND;
            }
            x.cpu.advance_rip(u64::from(decoded.current.length));
            x.run.left += rest - 1;
            go_elsewhere(x, decoded.keeps_mode)
        }
        Ok(Flow::Jumped) => {
            x.run.left += rest - 1;
            go_elsewhere(x, decoded.keeps_mode)
        }
        Ok(Flow::Repeat) => {
            x.cpu.repeating = true;
            x.run.left += rest;
            LEAVE
        }
        Ok(Flow::Entered) => {
            x.run.left += rest;
            cross(x)
        }
        Err(fault) => settle(x, fault),
    }
}

/// Goes on with a REP instruction that has done an iteration, which is not counted yet, as long as nothing stands against it.
#[inline(never)]
fn repeat(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    let count = |x: &mut Exec<'_, '_>, iterations: u64| {
        x.cpu.happened.iterations += iterations;
        x.cpu.tick += iterations;
        x.run.left -= iterations as i64;
    };
    count(x, 1);
    while x.cpu.tick < x.run.until
        && x.cpu.attention.0 == 0
        && !x.cpu.tlb.code_lost()
        && x.ctx.memory.code_writes() == x.run.code_writes
    {
        let done = x.iterate_in_ram(op, x.run.until - x.cpu.tick);
        count(x, done);
        if x.cpu.tick == x.run.until {
            break;
        }
        match (op.handler)(x, op)? {
            Flow::Repeat => count(x, 1),
            flow => return Ok(flow),
        }
    }
    Ok(Flow::Repeat)
}

/// Settles the fault of the instruction at RIP, and goes on in its handler, or behind the exit, if that took a tick.
#[inline(never)]
fn settle(x: &mut Exec<'_, '_>, fault: Fault) -> u32 {
    let (before, guest) = (x.cpu.tick, x.cpu.published.guest);
    let settled = x.settle(fault);
    x.run.left = x.run.until.wrapping_sub(x.cpu.tick) as i64;
    match settled {
        Ok(()) if x.cpu.tick != before => go_elsewhere(x, false),
        Ok(()) if fault == Fault::Left || x.cpu.published.guest != guest => cross(x),
        Ok(()) => LEAVE,
        Err(stop) => {
            x.run.stop = Some(stop);
            LEAVE
        }
    }
}

/// Whether a gate may be at RIP, which is the caller's business.
const fn may_be_gate(x: &Exec<'_, '_>) -> bool {
    x.ctx.gates && !x.cpu.published.guest
}

/// Goes on at RIP behind a VM entry or exit, which takes no tick, if the chain may.
fn cross(x: &mut Exec<'_, '_>) -> u32 {
    // Without a tick in between, the caller counts such steps.
    let moves = std::mem::replace(&mut x.run.crossed, x.cpu.tick) != x.cpu.tick;
    let in_time = x.cpu.published.deadline.is_none_or(|deadline| deadline >= x.run.until);
    if !moves || !in_time || may_be_gate(x) || x.cpu.tick >= x.run.until {
        return LEAVE;
    }
    x.run.returns.forget();
    go_elsewhere(x, false)
}

/// Goes on at RIP behind an instruction that has completed, if the chain may: nothing wants attention, code is what it was,
/// it runs as before (which `keeps_mode` knows), and the block there is known.
fn go_elsewhere(x: &mut Exec<'_, '_>, keeps_mode: bool) -> u32 {
    let attention = x.cpu.attention.0;
    if attention & !Attention::RESUME != 0
        || x.ctx.memory.code_writes() != x.run.code_writes
        || !keeps_mode && !x.run.follow(x.cpu)
    {
        return LEAVE;
    }
    let Some(first) = find(x).or_else(|| find_slowly(x)) else { return LEAVE };
    if x.cpu.tlb.code_lost() {
        // This page is there, others may not be.
        x.run.returns.forget();
        x.run.key = x.cpu.tlb.key(x.run.bank);
        x.cpu.tlb.code_kept();
    }
    let at = enter(x, first);
    if attention == 0 { at } else { resume(x, at) }
}

/// Goes on with the instruction at `first` under RFLAGS.RF, as IRET left it: the flag lasts for this one. Nothing but a
/// breakpoint would look at it before, and none is enabled.
fn resume(x: &mut Exec<'_, '_>, first: u32) -> u32 {
    let ops = x.run.ops;
    let Some(op) = ops.get(first as usize) else { return LEAVE };
    x.cpu.current.length = 0;
    x.cpu.trap_inhibited = false;
    match step(x, op, first, true) {
        BEHIND => first + 1,
        at => at,
    }
}
