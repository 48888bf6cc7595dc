//! Tests of the intercept decisions. `causes` is the manual's list of causes, written out a second time with plain numbers;
//! `mutation` changes the table and demands that the list notices; the rest are truth tables and properties.

mod access;
mod causes;
mod interest;
mod mutation;
mod report;
mod truth;

use super::{Controls, Exit, Processor, View, decide};
use crate::bitmap::UniformBitmaps;
use crate::definitions::controls::Word;
use crate::{PrimaryControls, SecondaryControls, TertiaryControls};
use rootmode_arch::event::{GuestPhysicalAccess, MemoryOperand, Operand};
use rootmode_arch::{Cr0, Efer, Event, Gpr, GuestPhysical, Linear, RFlags, SegmentName};

/// 64-bit mode at CPL 0 with interrupts on.
fn long_mode() -> Processor {
    Processor {
        cr0: Cr0::PE | Cr0::PG,
        efer: Efer::LMA | Efer::LME,
        rflags: RFlags::IF | RFlags::ONE,
        cs_long: true,
        ..Processor::default()
    }
}

/// Sets a control by number, and the one that activates its word.
fn turn(controls: &mut Controls, word: Word, bit: u32, on: bool) {
    let bits = 1u64 << bit;
    let low = bits as u32;
    match word {
        Word::Pin => controls.pin = controls.pin.set(crate::PinControls(low), on),
        Word::Primary => controls.primary = controls.primary.set(PrimaryControls(low), on),
        Word::Secondary => {
            controls.primary = controls.primary.with(PrimaryControls(1 << 31));
            controls.secondary = controls.secondary.set(SecondaryControls(low), on);
        }
        Word::Tertiary => {
            controls.primary = controls.primary.with(PrimaryControls(1 << 17));
            controls.tertiary = controls.tertiary.set(TertiaryControls(bits), on);
        }
        Word::Exit => controls.exit = controls.exit.set(crate::ExitControls(low), on),
        _ => unreachable!("no other word decides an exit"),
    }
}

fn ask(controls: &Controls, processor: &Processor, ones: bool, event: &Event) -> Option<Exit> {
    decide(&View { controls, processor, bitmaps: &UniformBitmaps(ones) }, event)
}

/// `[r12 + r13 * 2 - 0x10]` in DS.
const MEMORY: MemoryOperand = MemoryOperand {
    segment: SegmentName::Ds,
    base: Some(Gpr::R12),
    index: Some(Gpr::R13),
    scale: 1,
    address_size: 8,
    displacement: (-0x10i64) as u64,
    linear: Linear(0x7000),
};

/// Its instruction information: scale 2, 64-bit, DS, R13, R12.
const MEMORY_BITS: u32 = 1 | 2 << 7 | 3 << 15 | 13 << 18 | 12 << 23;

/// Its displacement as an exit qualification.
const MEMORY_DISPLACEMENT: u64 = 0xffff_ffff_ffff_fff0;

fn operand() -> Option<Operand> {
    Some(Operand::Memory(MEMORY))
}

/// A linear data read of a guest-physical address.
fn read_of(address: u64) -> GuestPhysicalAccess {
    GuestPhysicalAccess {
        address: GuestPhysical(address),
        linear: Some(Linear(0x40_0000 | address & 0xfff)),
        read: true,
        ..GuestPhysicalAccess::default()
    }
}

/// xorshift64*: a fixed stream of test inputs.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
    fn flip(&mut self) -> bool {
        self.next() >> 40 & 1 != 0
    }
}
