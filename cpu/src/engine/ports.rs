//! Quick forms of IN and OUT: of programs that may use every port, while no extension asks for port accesses.

use super::{LEAVE, Op, general, go_on};
use crate::execute::Exec;
use rootmode_arch::event::PortAccess;
use rootmode_arch::{EventClass, Gpr, Linear, SegmentName};

/// IN (`INPUT`) or OUT of `N` bytes; the port is an immediate (`IMMEDIATE`) or in DX.
pub(super) fn port<const N: usize, const INPUT: bool, const IMMEDIATE: bool>(
    x: &mut Exec<'_, '_>,
    op: &Op,
    behind: &[Op],
) -> u32 {
    if x.cpu.published.intercepts.contains(EventClass::PortIo) || !x.may_use_ports() {
        return general(x, op, behind);
    }
    let start = x.cpu.rip;
    // Devices see the time, and an SMI the address, of this instruction.
    x.cpu.advance_rip(u64::from(op.offset));
    let rest = i64::from(op.rest);
    x.cpu.tick = x.run.until - (x.run.left + rest) as u64;
    let access = PortAccess {
        port: if IMMEDIATE { op.immediate as u8 as u16 } else { x.gpr(Gpr::Rdx as u8) as u16 },
        size: N as u8,
        input: INPUT,
        string: false,
        rep: false,
        immediate: IMMEDIATE,
        address_size: 0,
        segment: SegmentName::Ds,
        linear: Linear(0),
    };
    if INPUT {
        let value = x.input(&access);
        x.set::<N>(Gpr::Rax as u8, value);
    } else {
        let value = x.gpr(Gpr::Rax as u8);
        x.output(&access, value);
    }
    // No breakpoint is enabled in a chain, so only effects can end it.
    x.cpu.rip = start;
    if x.cpu.attention.0 == 0 {
        return go_on(x, behind);
    }
    x.cpu.advance_rip(u64::from(op.end));
    x.run.left += rest - 1;
    LEAVE
}
