//! AVIC's register-level permissions filter
//! (APM Vol. 2 (24593 rev. 3.43) "Virtual APIC Register Accesses").

/// What happens when the guest accesses a register of its APIC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ApicBehaviour {
    /// The access goes to the backing page.
    Allow,
    /// It goes to the backing page, and AVIC does what the register does; some values exit after it.
    Accelerate,
    /// Exit before the access.
    Fault,
    /// Exit after the access.
    Trap,
}

use ApicBehaviour::{Accelerate, Allow, Fault, Trap};

/// Registers that behave alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApicRow {
    /// Offset of the first register.
    pub first: u16,
    /// Offset of the last.
    pub last: u16,
    /// What they are.
    pub name: &'static str,
    /// On reads.
    pub read: ApicBehaviour,
    /// On writes.
    pub write: ApicBehaviour,
}

const fn row(
    first: u16,
    last: u16,
    name: &'static str,
    read: ApicBehaviour,
    write: ApicBehaviour,
) -> ApicRow {
    ApicRow { first, last, name, read, write }
}

/// Offsets of the first and the last extended local vector.
const EXTENDED_LVT: (u16, u16) = (0x500, 0x530);

/// The registers that the manual lists, ascending; everything else is allowed.
pub const APIC_REGISTERS: &[ApicRow] = &[
    row(0x020, 0x020, "APIC ID", Allow, Trap),
    row(0x030, 0x030, "version", Allow, Fault),
    row(0x080, 0x080, "task priority", Allow, Accelerate),
    row(0x090, 0x090, "arbitration priority", Fault, Fault),
    row(0x0a0, 0x0a0, "processor priority", Allow, Fault),
    row(0x0b0, 0x0b0, "end of interrupt", Allow, Accelerate),
    row(0x0c0, 0x0c0, "remote read", Allow, Trap),
    row(0x0d0, 0x0d0, "logical destination", Allow, Trap),
    row(0x0e0, 0x0e0, "destination format", Allow, Trap),
    row(0x0f0, 0x0f0, "spurious interrupt vector", Allow, Trap),
    row(0x100, 0x170, "in service", Allow, Fault),
    row(0x180, 0x1f0, "trigger mode", Allow, Fault),
    row(0x200, 0x270, "interrupt request", Allow, Fault),
    row(0x280, 0x280, "error status", Allow, Trap),
    row(0x300, 0x300, "interrupt command, low", Allow, Accelerate),
    row(0x310, 0x310, "interrupt command, high", Allow, Allow),
    row(0x320, 0x370, "local vector table", Allow, Trap),
    row(0x380, 0x380, "timer initial count", Allow, Trap),
    row(0x390, 0x390, "timer current count", Fault, Fault),
    row(0x3e0, 0x3e0, "timer divide configuration", Allow, Trap),
    row(0x400, 0x420, "extended features, control, specific EOI", Fault, Fault),
    row(0x480, 0x4f0, "interrupt enable", Fault, Fault),
    row(EXTENDED_LVT.0, EXTENDED_LVT.1, "extended local vector table", Fault, Fault),
    row(0x540, 0xff0, "reserved", Fault, Fault),
];

/// What an access to the register at page offset `offset` does. `extended_lvt` is CPUID 0x8000000a EDX bit 27.
pub fn apic_behaviour(offset: u16, write: bool, extended_lvt: bool) -> ApicBehaviour {
    let register = offset & 0xff0;
    if extended_lvt && (EXTENDED_LVT.0..=EXTENDED_LVT.1).contains(&register) {
        return if write { Trap } else { Allow };
    }
    match APIC_REGISTERS.iter().find(|row| (row.first..=row.last).contains(&register)) {
        Some(row) => {
            if write {
                row.write
            } else {
                row.read
            }
        }
        None => Allow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four registers, as Linux's `APIC_EILVT_NR_MAX` has it.
    #[test]
    fn extended_local_vectors_are_four() {
        for register in (0x4f0..0x600).step_by(16) {
            let expected = match register {
                0x500 | 0x510 | 0x520 | 0x530 => (Allow, Trap),
                _ => (Fault, Fault),
            };
            let found = (apic_behaviour(register, false, true), apic_behaviour(register, true, true));
            assert_eq!(found, expected, "{register:#x}");
            assert_eq!(apic_behaviour(register, true, false), Fault, "{register:#x}");
        }
    }
}
