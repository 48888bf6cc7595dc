//! [`MachineCheck`]: the machine-check architecture's registers (SDM Vol. 3B "Machine-Check MSRs", "Error-Reporting Register
//! Banks"; APM Vol. 2 "Machine Check MSRs"). Nothing ever goes wrong, so they only hold what software writes.

use crate::fault::{Fault, Result};
use rootmode_mmu::Digest;

/// Error-reporting banks.
const BANKS: usize = 10;
const MCG_CAP: u32 = 0x179;
const MCG_STATUS: u32 = 0x17a;
const MCG_CTL: u32 = 0x17b;
const FIRST_BANK: u32 = 0x400;
/// MCG_CAP: the number of banks, and MCG_CTL_P, IA32_MCG_CTL exists.
const CAPABILITIES: u64 = BANKS as u64 | 1 << 8;
/// MCG_STATUS: RIPV, EIPV, MCIP.
const STATUS_BITS: u64 = 7;

/// The four registers of a bank, in the order of their numbers.
const CTL: usize = 0;
const STATUS: usize = 1;

/// IA32_MCG_STATUS, IA32_MCG_CTL and the banks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MachineCheck {
    status: u64,
    control: u64,
    banks: [[u64; 4]; BANKS],
}

impl Default for MachineCheck {
    /// After power-up: everything enabled, as firmware leaves it.
    fn default() -> Self {
        Self { status: 0, control: u64::MAX, banks: [[u64::MAX, 0, 0, 0]; BANKS] }
    }
}

/// The bank and register that an MSR number means.
const fn place(index: u32) -> Option<(usize, usize)> {
    let number = index.wrapping_sub(FIRST_BANK) as usize;
    if number < BANKS * 4 { Some((number / 4, number % 4)) } else { None }
}

impl MachineCheck {
    /// RDMSR. `None`: not one of these registers.
    pub fn read(&self, index: u32) -> Option<u64> {
        match index {
            MCG_CAP => Some(CAPABILITIES),
            MCG_STATUS => Some(self.status),
            MCG_CTL => Some(self.control),
            _ => place(index).map(|(bank, register)| self.banks[bank][register]),
        }
    }

    /// WRMSR. `None`: not one of these registers.
    ///
    /// # Errors
    /// #GP(0) for MCG_CAP, for reserved bits of MCG_STATUS, for a control that is neither all ones nor all zeros, and for a
    /// bank's status other than 0.
    pub fn write(&mut self, index: u32, value: u64) -> Option<Result> {
        let whole = value == 0 || value == u64::MAX;
        let register = match index {
            MCG_CAP => return Some(Err(Fault::GP0)),
            MCG_STATUS if value & !STATUS_BITS != 0 => return Some(Err(Fault::GP0)),
            MCG_STATUS => &mut self.status,
            MCG_CTL if !whole => return Some(Err(Fault::GP0)),
            MCG_CTL => &mut self.control,
            _ => {
                let (bank, register) = place(index)?;
                if register == CTL && !whole || register == STATUS && value != 0 {
                    return Some(Err(Fault::GP0));
                }
                &mut self.banks[bank][register]
            }
        };
        *register = value;
        Some(Ok(()))
    }

    /// Adds the registers to `digest`, if software changed any.
    pub fn digest(&self, digest: &mut Digest) {
        if *self != Self::default() {
            digest.all(&[self.status, self.control]);
            self.banks.iter().for_each(|bank| digest.all(bank));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banks_take_whole_controls_clear_statuses_and_any_address() {
        let mut registers = MachineCheck::default();
        let refused = Some(Err(Fault::GP0));
        assert_eq!(registers.read(0x179).map(|cap| cap & 0xff), Some(10));
        for bank in 0..10 {
            let first = 0x400 + 4 * bank;
            assert_eq!(registers.write(first, 1), refused);
            assert_eq!(registers.write(first, 0), Some(Ok(())));
            assert_eq!(registers.write(first + 1, 1), refused);
            assert_eq!(registers.write(first + 2, 0xaaaa << 48), Some(Ok(())));
            assert_eq!(registers.read(first + 2), Some(0xaaaa << 48));
        }
        assert_eq!(registers.read(0x400 + 40), None);
        assert_eq!(registers.write(0x400 + 40, 0), None);
        assert_eq!(registers.write(0x179, 0), refused);
        assert_eq!(registers.write(0x17a, 8), refused);
    }
}
