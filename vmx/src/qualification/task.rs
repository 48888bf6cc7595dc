//! Qualifications of task switches, I/O instructions and MWAIT.

use rootmode_arch::Selector;
use rootmode_arch::event::{PortAccess, TaskSwitchSource};

/// SDM Vol. 3C "Exit Qualification for Task Switches": bits 15:0 selector of the new TSS, 31:30 what started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskSwitch {
    /// Selector of the TSS to which the guest attempted to switch.
    pub selector: Selector,
    /// CALL, IRET, JMP or a task gate.
    pub source: TaskSwitchSource,
}

impl TaskSwitch {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        let source = match self.source {
            TaskSwitchSource::Call => 0,
            TaskSwitchSource::Iret => 1,
            TaskSwitchSource::Jmp => 2,
            TaskSwitchSource::IdtGate => 3,
        };
        self.selector.0 as u64 | source << 30
    }
    /// From the field's value. Every value means something.
    pub const fn decode(value: u64) -> Self {
        let source = match value >> 30 & 3 {
            0 => TaskSwitchSource::Call,
            1 => TaskSwitchSource::Iret,
            2 => TaskSwitchSource::Jmp,
            _ => TaskSwitchSource::IdtGate,
        };
        Self { selector: Selector(value as u16), source }
    }
}

/// SDM Vol. 3C "Exit Qualification for I/O Instructions": bits 2:0 size - 1, 3 direction (1 = IN), 4 string, 5 REP,
/// 6 immediate operand, 31:16 port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Io {
    /// Port number.
    pub port: u16,
    /// Bytes: 1, 2 or 4.
    pub size: u8,
    /// IN or INS.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// REP prefix.
    pub rep: bool,
    /// The port is an immediate operand, not DX.
    pub immediate: bool,
}

impl Io {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        self.size.wrapping_sub(1) as u64 & 7
            | (self.input as u64) << 3
            | (self.string as u64) << 4
            | (self.rep as u64) << 5
            | (self.immediate as u64) << 6
            | (self.port as u64) << 16
    }
    /// From the field's value; `None` if bits 2:0 are not 0, 1 or 3.
    pub const fn decode(value: u64) -> Option<Self> {
        let size = match value & 7 {
            0 => 1,
            1 => 2,
            3 => 4,
            _ => return None,
        };
        Some(Self {
            port: (value >> 16) as u16,
            size,
            input: value >> 3 & 1 != 0,
            string: value >> 4 & 1 != 0,
            rep: value >> 5 & 1 != 0,
            immediate: value >> 6 & 1 != 0,
        })
    }
}

impl From<&PortAccess> for Io {
    fn from(access: &PortAccess) -> Self {
        Self {
            port: access.port,
            size: access.size,
            input: access.input,
            string: access.string,
            rep: access.rep,
            immediate: access.immediate,
        }
    }
}

/// SDM Vol. 3C "Exit Qualification for MWAIT": bit 0 says whether address-range monitoring hardware is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mwait {
    /// The monitor is armed.
    pub armed: bool,
}

impl Mwait {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        self.armed as u64
    }
    /// From the field's value.
    pub const fn decode(value: u64) -> Self {
        Self { armed: value & 1 != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_switch_survives_the_round_trip() {
        use TaskSwitchSource::{Call, IdtGate, Iret, Jmp};
        for selector in 0..=0xffff {
            for (number, source) in [(0u64, Call), (1, Iret), (2, Jmp), (3, IdtGate)] {
                let switch = TaskSwitch { selector: Selector(selector), source };
                assert_eq!(switch.encode(), u64::from(selector) + (number << 30));
                assert_eq!(TaskSwitch::decode(switch.encode()), switch);
            }
        }
    }

    #[test]
    fn every_port_access_survives_the_round_trip_and_unused_sizes_are_refused() {
        for port in 0..=0xffff {
            for size in [1u8, 2, 4] {
                for flags in 0..16u64 {
                    let io = Io {
                        port,
                        size,
                        input: flags & 1 != 0,
                        string: flags & 2 != 0,
                        rep: flags & 4 != 0,
                        immediate: flags & 8 != 0,
                    };
                    assert_eq!(io.encode(), u64::from(port) * 0x10000 + flags * 8 + u64::from(size) - 1);
                    assert_eq!(Io::decode(io.encode()), Some(io));
                }
            }
        }
        for unused in [2, 4, 5, 6, 7] {
            assert_eq!(Io::decode(0x60_0000 | unused), None);
        }
    }

    #[test]
    fn mwait_reports_the_monitor_in_bit_0() {
        for armed in [false, true] {
            assert_eq!(Mwait { armed }.encode(), u64::from(armed));
            assert_eq!(Mwait::decode(u64::from(armed) | !1), Mwait { armed });
        }
    }
}
