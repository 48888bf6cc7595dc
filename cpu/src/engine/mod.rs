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
mod flow;
mod liveness;
mod moves;
mod ports;
mod select;
mod store;

pub(crate) use store::{Mode, Store};

use crate::Cpu;
use crate::decode::Decoded;
use crate::execute::{Exec, Flow};
use crate::fault::Fault;
use crate::state::Attention;
use rootmode_arch::Linear;
use rootmode_mmu::Bank;
use std::cell::Cell;
use store::Jump;

/// Runs an operation, the one at the given place, and answers the place of the next, or [`LEAVE`].
pub(crate) type Run = fn(&mut Exec<'_, '_>, &Op, u32) -> u32;

/// The chain ends: the processor is at an instruction boundary, or [`Running::fault`] says why not.
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
    /// Width of addresses, or of RIP.
    mask: u64,
    /// Where [`flow`] goes on when a branch is taken; [`LEAVE`] if that is not known yet.
    taken: Cell<u32>,
    /// Where it goes on otherwise.
    next: Cell<u32>,
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
    /// Why an instruction did not complete; RIP is its address.
    pub(crate) fault: Option<Fault>,
    /// The branch that led out of the chain and could be linked, and whether it was taken.
    pub(crate) unlinked: Option<(u32, bool)>,
    code_writes: u64,
    bank: Bank,
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
        fault: None,
        unlinked: None,
        code_writes: 0,
        bank: Bank::Supervisor,
        code_bank: Bank::Supervisor,
        mode: Mode::NONE,
    };

    /// Whether `cpu` still runs code in the chain's mode and with its shortcuts, without a limit or checks of data.
    #[inline]
    fn fits(&self, cpu: &Cpu) -> bool {
        Mode::of(cpu) == self.mode
            && self.mode.is_flat()
            && !cpu.checks_data
            && cpu.bank() == self.bank
            && cpu.code_bank() == self.code_bank
    }

    /// Single instructions up to the tick `until`.
    pub(crate) const fn singly(until: u64) -> Running<'static> {
        Running { until, ..Self::NONE }
    }
}

/// Runs from the block at `first`, whose instructions [`Running::left`] has room for, until the chain ends.
#[inline]
pub(crate) fn chain(x: &mut Exec<'_, '_>, first: u32) {
    let ops = x.run.ops;
    let mut at = enter(x, first);
    while let Some(op) = ops.get(at as usize) {
        at = (op.run)(x, op, at);
    }
}

/// Enters the block at `first`, if all of it fits into what is left.
#[inline(always)]
fn enter(x: &mut Exec<'_, '_>, first: u32) -> u32 {
    let ops = x.run.ops;
    let Some(op) = ops.get(first as usize) else { return LEAVE };
    let rest = i64::from(op.rest);
    if x.run.left < rest {
        return LEAVE;
    }
    x.run.left -= rest;
    first
}

/// Goes on at RIP, which a branch has just set, if the block there is known.
#[inline(always)]
fn dispatch(x: &mut Exec<'_, '_>) -> u32 {
    let linear = if x.run.mode.is_64_bit() { Linear(x.cpu.rip) } else { x.cpu.code_address() };
    let Some(place) = x.cpu.tlb.quick_code(x.run.code_bank, linear) else { return LEAVE };
    match store::find_jump(x.run.jumps, linear, place, x.run.mode) {
        Some(first) => enter(x, first),
        None => LEAVE,
    }
}

/// Goes on at RIP with RFLAGS.RF set, as IRET left it: the flag lasts for the next instruction. Nothing but a breakpoint
/// would look at it before, and none is enabled.
fn resume(x: &mut Exec<'_, '_>) -> u32 {
    let first = dispatch(x);
    let ops = x.run.ops;
    let Some(op) = ops.get(first as usize) else { return LEAVE };
    x.cpu.current.length = 0;
    x.cpu.trap_inhibited = false;
    step(x, op, first, true)
}

/// Runs an instruction through its semantic function, and goes on behind it if nothing stands against it.
pub(crate) fn general(x: &mut Exec<'_, '_>, op: &Op, at: u32) -> u32 {
    step(x, op, at, false)
}

/// [`general`]; an instruction that completes ends a `resuming` RFLAGS.RF.
#[inline(always)]
fn step(x: &mut Exec<'_, '_>, op: &Op, at: u32, resuming: bool) -> u32 {
    let decoded = x.run.decoded;
    let decoded = &decoded[at as usize];
    let start = x.cpu.rip;
    x.cpu.advance_rip(u64::from(op.offset));
    let rest = i64::from(op.rest);
    x.cpu.tick = x.run.until - (x.run.left + rest) as u64;
    x.cpu.current = decoded.current;
    let flow = (decoded.handler)(x, decoded);
    if resuming && matches!(flow, Ok(Flow::Next | Flow::Jumped)) {
        x.cpu.end_resume();
    }
    match flow {
        Ok(Flow::Next) => {
            let quiet = x.cpu.attention.0 == 0
                && !x.cpu.tlb.code_lost()
                && x.ctx.memory.code_writes() == x.run.code_writes
                && !decoded.ends_block;
            if quiet {
                x.cpu.rip = start;
                return at + 1;
            }
            x.cpu.advance_rip(u64::from(decoded.current.length));
            x.run.left += rest - 1;
        }
        Ok(Flow::Jumped) => {
            x.run.left += rest - 1;
            if !x.cpu.tlb.code_lost()
                && x.ctx.memory.code_writes() == x.run.code_writes
                && (decoded.keeps_mode || x.run.fits(x.cpu))
            {
                match x.cpu.attention.0 {
                    0 => return dispatch(x),
                    Attention::RESUME => return resume(x),
                    _ => {}
                }
            }
        }
        Ok(Flow::Repeat) => {
            x.run.left += rest - 1;
            x.cpu.happened.iterations += 1;
        }
        Ok(Flow::Entered) => x.run.left += rest,
        Err(fault) => {
            x.run.left += rest;
            x.run.fault = Some(fault);
        }
    }
    LEAVE
}
