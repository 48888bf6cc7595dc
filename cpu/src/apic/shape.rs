//! Which registers exist in which mode, and what of them can be written
//! (SDM Vol. 3A "The Local APIC Block Diagram", "x2APIC Register Address Space", "Reserved Bit Checking";
//! APM Vol. 2 "Local APIC", "x2APIC Register Address Space").

use super::{Abilities, Mode, register::*};

/// SVR: the APIC is enabled by software.
pub(super) const SVR_ENABLE: u32 = 1 << 8;
/// SVR: no EOI messages for level-triggered vectors.
pub(super) const SVR_SUPPRESS_EOI: u32 = 1 << 12;
/// LVT and, read-only, ICR of xAPIC: delivery status.
pub(super) const LVT_STATUS: u32 = 1 << 12;
/// LVT of LINT0 and LINT1, read-only: a level-triggered interrupt was accepted and not yet ended.
pub(super) const LVT_REMOTE_IRR: u32 = 1 << 14;
/// LVT of LINT0 and LINT1: level-triggered.
pub(super) const LVT_LEVEL: u32 = 1 << 15;
/// LVT: masked.
pub(super) const LVT_MASKED: u32 = 1 << 16;

/// What may be done with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// It can be read (in xAPIC mode a write-only register reads as 0 instead).
    pub(super) read: bool,
    /// It can be written (in xAPIC mode a write of a read-only register is ignored instead).
    pub(super) write: bool,
    /// Bits that a write changes.
    pub(super) writable: u32,
    /// Bits that exist and keep their value; any other bit is reserved.
    pub(super) read_only: u32,
}

const fn read_only() -> Option<Shape> {
    Some(Shape { read: true, write: false, writable: 0, read_only: u32::MAX })
}

const fn read_write(writable: u32, read_only: u32) -> Option<Shape> {
    Some(Shape { read: true, write: true, writable, read_only })
}

const fn write_only(writable: u32) -> Option<Shape> {
    Some(Shape { read: false, write: true, writable, read_only: 0 })
}

/// The shape of the register at `offset` (a multiple of 16) in `mode`; `None` if it is reserved there.
pub(super) fn shape(abilities: &Abilities, mode: Mode, offset: u16) -> Option<Shape> {
    let x2apic = mode == Mode::X2Apic;
    match offset {
        VERSION | PPR | TIMER_CURRENT => read_only(),
        0x100..=0x270 if offset & 0xf == 0 => read_only(),
        ID | LDR if x2apic => read_only(),
        ID | LDR => read_write(0xff00_0000, 0),
        TPR => read_write(0xff, 0),
        // Intel's processors kept the two registers in the xAPIC map only.
        APR | RRR if !x2apic || !abilities.intel => read_only(),
        EOI => write_only(0),
        DFR if !x2apic => read_write(0xf000_0000, 0x0fff_ffff),
        SVR => read_write(0x1ff | if abilities.suppress_eoi { SVR_SUPPRESS_EOI } else { 0 }, 0),
        ESR => read_write(0, 0),
        ICR if x2apic => read_write(0x000c_cfff, 0),
        ICR => read_write(0x000c_cfff, LVT_STATUS),
        ICR_HIGH if !x2apic => read_write(0xff00_0000, 0),
        LVT_CMCI if abilities.cmci => read_write(0x1_07ff, LVT_STATUS),
        LVT_TIMER => read_write(if abilities.tsc_deadline { 0x7_00ff } else { 0x3_00ff }, LVT_STATUS),
        LVT_THERMAL | LVT_PERFORMANCE => read_write(0x1_07ff, LVT_STATUS),
        LVT_LINT0 | LVT_LINT1 => read_write(0x1_a7ff, LVT_STATUS | LVT_REMOTE_IRR),
        LVT_ERROR => read_write(0x1_00ff, LVT_STATUS),
        TIMER_INITIAL => read_write(u32::MAX, 0),
        TIMER_DIVIDE => read_write(0xb, 0),
        SELF_IPI if x2apic => write_only(0xff),
        _ => None,
    }
}

/// Every local vector that `abilities` have.
pub(super) fn local_vectors(abilities: &Abilities) -> impl Iterator<Item = u16> {
    let always = [LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR];
    always.into_iter().chain(abilities.cmci.then_some(LVT_CMCI))
}
