//! FNSTENV, FLDENV, FNSAVE, FRSTOR: the x87 environment in its four layouts
//! (SDM Vol. 1 "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE").

use super::{Exec, Flow};
use crate::decode::Decoded;
use crate::fault::Result;
use crate::float::F80;
use crate::vectors::X87;

/// Which layout: 16 or 32 bits wide, with real-mode pointers or selectors.
#[derive(Clone, Copy)]
struct Layout {
    wide: bool,
    linear: bool,
}

impl Layout {
    fn of(x: &Exec<'_, '_>, op: &Decoded) -> Self {
        // 28 and 108 bytes, or 14 and 94.
        Self { wide: matches!(op.size, 28 | 108), linear: !x.cpu.is_protected() }
    }

    /// Bytes of its fields.
    const fn unit(self) -> u8 {
        if self.wide { 4 } else { 2 }
    }

    const fn bytes(self) -> usize {
        if self.wide { 28 } else { 14 }
    }
}

/// The environment as bytes, in the first of the 28.
fn encode(x87: &X87, layout: Layout) -> [u8; 28] {
    let pointer = |selector: u16, offset: u64| {
        if layout.linear { (u32::from(selector) << 4).wrapping_add(offset as u32) } else { offset as u32 }
    };
    let code = pointer(x87.instruction_selector, x87.instruction);
    let data = pointer(x87.operand_selector, x87.operand);
    let opcode = u32::from(x87.opcode & 0x7ff);
    let control = [x87.control, x87.status, x87.tag_word()].map(u32::from);
    let mut bytes = [0; 28];
    if layout.wide {
        // Unused upper halves are ones.
        let ones = 0xffff_0000;
        let [a, b, c] = control.map(|word| word | ones);
        let tail = if layout.linear {
            let high = |pointer: u32| pointer >> 16 << 12;
            [code | ones, high(code) | opcode, data | ones, high(data)]
        } else {
            let selector = u32::from(x87.instruction_selector);
            [code, selector | opcode << 16, data, u32::from(x87.operand_selector) | ones]
        };
        for (n, word) in [a, b, c].into_iter().chain(tail).enumerate() {
            bytes[4 * n..4 * n + 4].copy_from_slice(&word.to_le_bytes());
        }
    } else {
        let tail = if layout.linear {
            let high = |pointer: u32| pointer >> 16 << 12;
            [code, high(code) | opcode, data, high(data)]
        } else {
            [code, u32::from(x87.instruction_selector), data, u32::from(x87.operand_selector)]
        };
        for (n, word) in control.into_iter().chain(tail).enumerate() {
            bytes[2 * n..2 * n + 2].copy_from_slice(&(word as u16).to_le_bytes());
        }
    }
    bytes
}

/// Loads the environment.
fn decode(x87: &mut X87, layout: Layout, bytes: &[u8]) {
    let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let word = |n: usize| {
        if layout.wide {
            u32::from(half(4 * n)) | u32::from(half(4 * n + 2)) << 16
        } else {
            u32::from(half(2 * n))
        }
    };
    let tags = word(2) as u16;
    x87.used = (0..8).filter(|n| tags >> (2 * n) & 3 != 3).fold(0, |used, n| used | 1 << n);
    x87.status = word(1) as u16;
    if layout.linear {
        let pointer = |low: usize| word(low) & 0xffff | (word(low + 1) >> 12 & 0xffff) << 16;
        (x87.instruction, x87.operand) = (u64::from(pointer(3)), u64::from(pointer(5)));
        (x87.instruction_selector, x87.operand_selector) = (0, 0);
        x87.opcode = word(4) as u16 & 0x7ff;
    } else {
        (x87.instruction, x87.operand) = (u64::from(word(3)), u64::from(word(5)));
        (x87.instruction_selector, x87.operand_selector) = (word(4) as u16, word(6) as u16);
        if layout.wide {
            x87.opcode = (word(4) >> 16) as u16 & 0x7ff;
        }
    }
    x87.set_control(word(0) as u16);
}

/// FNSTENV: then all exceptions are masked.
pub(crate) fn store(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    let layout = Layout::of(x, op);
    let bytes = encode(&x.cpu.vectors.x87, layout);
    x.store_area(op, &bytes[..layout.bytes()], layout.unit())?;
    let x87 = &mut x.cpu.vectors.x87;
    x87.set_control(x87.control | 0x3f);
    Ok(Flow::Next)
}

/// FLDENV.
pub(crate) fn load(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let layout = Layout::of(x, op);
    let mut bytes = [0; 28];
    x.load_area(op, &mut bytes[..layout.bytes()], layout.unit())?;
    decode(&mut x.cpu.vectors.x87, layout, &bytes);
    Ok(Flow::Next)
}

/// FNSAVE: the environment and the registers from ST(0) on; then FNINIT.
pub(crate) fn save(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_x87()?;
    let layout = Layout::of(x, op);
    let x87 = &x.cpu.vectors.x87;
    let mut bytes = [0; 108];
    let start = layout.bytes();
    bytes[..start].copy_from_slice(&encode(x87, layout)[..start]);
    for i in 0..8 {
        let at = start + 10 * usize::from(i);
        bytes[at..at + 10].copy_from_slice(&x87.st(i).to_bits().to_le_bytes()[..10]);
    }
    x.store_area(op, &bytes[..start + 80], layout.unit())?;
    x.cpu.vectors.x87.initialise();
    Ok(Flow::Next)
}

/// FRSTOR.
pub(crate) fn restore(x: &mut Exec<'_, '_>, op: &Decoded) -> Result<Flow> {
    x.require_waiting()?;
    let layout = Layout::of(x, op);
    let start = layout.bytes();
    let mut bytes = [0; 108];
    x.load_area(op, &mut bytes[..start + 80], layout.unit())?;
    let x87 = &mut x.cpu.vectors.x87;
    decode(x87, layout, &bytes[..start]);
    let top = usize::from(x87.top());
    for i in 0..8 {
        let at = start + 10 * i;
        let mut number = [0; 16];
        number[..10].copy_from_slice(&bytes[at..at + 10]);
        x87.registers[(top + i) & 7] = F80::from_bits(u128::from_le_bytes(number));
    }
    Ok(Flow::Next)
}
