//! [`MemoryTypes`]: the memory type range registers (SDM Vol. 3A "Memory Type Range Registers (MTRRs)", APM Vol. 2 "Memory-Type
//! Range Registers"). Caches are coherent and nothing reorders, so they only hold what software writes.

use crate::fault::{Fault, Result};
use rootmode_arch::msr::{IA32_MTRR_DEF_TYPE, IA32_MTRR_FIX4K_C0000, IA32_MTRR_FIX4K_F8000};
use rootmode_arch::msr::{IA32_MTRR_FIX16K_80000, IA32_MTRR_FIX16K_A0000, IA32_MTRR_FIX64K_00000};
use rootmode_arch::msr::{IA32_MTRR_PHYSBASE0, IA32_MTRRCAP};
use rootmode_mmu::Digest;

/// Pairs of registers for ranges of any size, and registers for fixed ranges of eight parts each.
const VARIABLE: usize = 8;
const FIXED: usize = 11;
/// IA32_MTRRCAP: the number of variable ranges, fixed ranges, write-combining.
const CAPABILITIES: u64 = VARIABLE as u64 | 1 << 8 | 1 << 10;
/// IA32_MTRR_DEF_TYPE: E and FE.
const ENABLE: u64 = 3 << 10;
/// IA32_MTRR_PHYSMASKn: V.
const VALID: u64 = 1 << 11;
/// Write-back.
const WRITE_BACK: u64 = 6;
const ALL_WRITE_BACK: u64 = 0x0606_0606_0606_0606;
/// AMD's RdMem and WrMem of a fixed range's part, while SYSCFG.MtrrFixDramModEn shows them.
const DRAM_BITS: u8 = 3 << 3;

/// The registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MemoryTypes {
    default: u64,
    fixed: [u64; FIXED],
    /// IA32_MTRR_PHYSBASEn and IA32_MTRR_PHYSMASKn by turns.
    variable: [u64; 2 * VARIABLE],
}

impl Default for MemoryTypes {
    /// After power-up: write-back everywhere, as firmware leaves RAM.
    fn default() -> Self {
        Self { default: ENABLE | WRITE_BACK, fixed: [ALL_WRITE_BACK; FIXED], variable: [0; 2 * VARIABLE] }
    }
}

/// What decides about reserved bits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// MAXPHYADDR.
    pub(crate) physical_width: u8,
    /// SYSCFG.MtrrFixDramModEn of an AMD processor.
    pub(crate) dram_bits: bool,
}

/// Which fixed range an MSR number means.
const fn fixed(index: u32) -> Option<usize> {
    match index {
        IA32_MTRR_FIX64K_00000 => Some(0),
        IA32_MTRR_FIX16K_80000..=IA32_MTRR_FIX16K_A0000 => {
            Some((index - IA32_MTRR_FIX16K_80000) as usize + 1)
        }
        IA32_MTRR_FIX4K_C0000..=IA32_MTRR_FIX4K_F8000 => Some((index - IA32_MTRR_FIX4K_C0000) as usize + 3),
        _ => None,
    }
}

const fn variable(index: u32) -> Option<usize> {
    let place = index.wrapping_sub(IA32_MTRR_PHYSBASE0) as usize;
    if place < 2 * VARIABLE { Some(place) } else { None }
}

/// UC, WC, WT, WP, WB.
const fn is_type(value: u64) -> bool {
    matches!(value, 0 | 1 | 4..=6)
}

impl MemoryTypes {
    /// RDMSR. `None`: not one of these registers.
    pub(crate) fn read(&self, index: u32) -> Option<u64> {
        match index {
            IA32_MTRRCAP => Some(CAPABILITIES),
            IA32_MTRR_DEF_TYPE => Some(self.default),
            _ => fixed(index)
                .map(|place| self.fixed[place])
                .or_else(|| variable(index).map(|place| self.variable[place])),
        }
    }

    /// WRMSR. `None`: not one of these registers.
    ///
    /// # Errors
    /// #GP(0) for IA32_MTRRCAP, reserved bits and types that do not exist.
    pub(crate) fn write(&mut self, index: u32, value: u64, limits: Limits) -> Option<Result> {
        let beyond = !0 << limits.physical_width;
        let (register, legal) = if index == IA32_MTRRCAP {
            return Some(Err(Fault::GP0));
        } else if index == IA32_MTRR_DEF_TYPE {
            (&mut self.default, value & !(ENABLE | 0xff) == 0 && is_type(value & 0xff))
        } else if let Some(place) = fixed(index) {
            let ignored = if limits.dram_bits { DRAM_BITS } else { 0 };
            let types = value.to_le_bytes();
            (&mut self.fixed[place], types.iter().all(|part| is_type(u64::from(part & !ignored))))
        } else {
            let place = variable(index)?;
            let legal = if place % 2 == 0 {
                value & (beyond | 0xf00) == 0 && is_type(value & 0xff)
            } else {
                value & (beyond | 0xfff & !VALID) == 0
            };
            (&mut self.variable[place], legal)
        };
        if !legal {
            return Some(Err(Fault::GP0));
        }
        *register = value;
        Some(Ok(()))
    }

    /// Adds the registers to `digest`, if software changed any.
    pub(crate) fn digest(&self, digest: &mut Digest) {
        if *self != Self::default() {
            digest.u64(self.default);
            digest.all(&self.fixed);
            digest.all(&self.variable);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_reserved_bits_are_checked() {
        let intel = Limits { physical_width: 46, dram_bits: false };
        let amd = Limits { dram_bits: true, ..intel };
        for (limits, index, value, expected) in [
            (intel, 0xfe, 0x508, Some(false)),
            (intel, 0x2ff, 0xc06, Some(true)),
            (intel, 0x2ff, 0xc02, Some(false)),
            (intel, 0x2ff, 0x206, Some(false)),
            (intel, 0x250, 0x0001_0405_0600_0106, Some(true)),
            (intel, 0x258, 0x0700_0000_0000_0000, Some(false)),
            (intel, 0x259, 0x1e1e_1e1e_1e1e_1e1e, Some(false)),
            (amd, 0x259, 0x1e1e_1e1e_1e1e_1e1e, Some(true)),
            (intel, 0x26f, 0, Some(true)),
            (intel, 0x270, 0, None),
            (intel, 0x251, 0, None),
            (intel, 0x200, 0x2000_0000_0006, Some(true)),
            (intel, 0x200, 0x4000_0000_0006, Some(false)),
            (intel, 0x20e, 0x106, Some(false)),
            (intel, 0x201, 0x3fff_ffff_f800, Some(true)),
            (intel, 0x20f, 0x400, Some(false)),
            (intel, 0x20f, 0x4000_0000_0000, Some(false)),
            (intel, 0x210, 0, None),
        ] {
            let mut types = MemoryTypes::default();
            let written = types.write(index, value, limits);
            assert_eq!(written.map(|result| result.is_ok()), expected, "{index:#x} {value:#x}");
            if expected == Some(true) {
                assert_eq!(types.read(index), Some(value), "{index:#x}");
            } else {
                assert_eq!(types, MemoryTypes::default());
            }
        }
        assert_eq!(MemoryTypes::default().read(0xfe), Some(0x508));
    }

    #[test]
    fn every_register_has_a_place_of_its_own() {
        let limits = Limits { physical_width: 46, dram_bits: false };
        let numbers: Vec<u32> =
            (0x200..0x300).filter(|n| MemoryTypes::default().read(*n).is_some()).collect();
        assert_eq!(numbers.len(), 2 * VARIABLE + FIXED + 1);
        let mut types = MemoryTypes::default();
        for number in &numbers {
            let before = types;
            // Valid for all of them but the masks, which take V.
            let value = if *number < 0x210 && number % 2 == 1 { VALID } else { 5 };
            assert!(matches!(types.write(*number, value, limits), Some(Ok(()))), "{number:#x}");
            let changed: Vec<_> = numbers.iter().filter(|n| types.read(**n) != before.read(**n)).collect();
            assert_eq!(changed, [number]);
        }
    }
}
