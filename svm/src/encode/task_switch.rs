//! EXITINFO1 and EXITINFO2 of a task switch (APM Vol. 2 (24593 rev. 3.43) "Task Switch Intercept").

use rootmode_arch::Selector;
use rootmode_arch::event::TaskSwitchSource;

/// The intercepted task switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TaskSwitchInfo {
    /// Selector of the incoming TSS: EXITINFO1 bits 15:0.
    pub selector: Selector,
    /// Error code for the new task: EXITINFO2 bits 31:0, with bit 44.
    pub error_code: Option<u32>,
    /// Caused by IRET: bit 36.
    pub iret: bool,
    /// Caused by a far jump: bit 38.
    pub jump: bool,
    /// The RF that the outgoing TSS would get: bit 48.
    pub resume_flag: bool,
}

impl TaskSwitchInfo {
    /// What is reported of a switch that `source` started.
    pub const fn new(
        selector: Selector,
        source: TaskSwitchSource,
        error_code: Option<u32>,
        resume_flag: bool,
    ) -> Self {
        let iret = matches!(source, TaskSwitchSource::Iret);
        let jump = matches!(source, TaskSwitchSource::Jmp);
        Self { selector, error_code, iret, jump, resume_flag }
    }
    /// EXITINFO1 and EXITINFO2.
    pub const fn encode(self) -> (u64, u64) {
        let code = match self.error_code {
            Some(code) => 1 << 44 | code as u64,
            None => 0,
        };
        let flags = (self.iret as u64) << 36 | (self.jump as u64) << 38 | (self.resume_flag as u64) << 48;
        (self.selector.0 as u64, code | flags)
    }
    /// From EXITINFO1 and EXITINFO2.
    pub const fn decode(info1: u64, info2: u64) -> Self {
        Self {
            selector: Selector(info1 as u16),
            error_code: if info2 >> 44 & 1 != 0 { Some(info2 as u32) } else { None },
            iret: info2 >> 36 & 1 != 0,
            jump: info2 >> 38 & 1 != 0,
            resume_flag: info2 >> 48 & 1 != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_comes_back() {
        for source in
            [TaskSwitchSource::Call, TaskSwitchSource::Iret, TaskSwitchSource::Jmp, TaskSwitchSource::IdtGate]
        {
            for error_code in [None, Some(0), Some(0xffff_fffa)] {
                for resume_flag in [false, true] {
                    let info = TaskSwitchInfo::new(Selector(0x28), source, error_code, resume_flag);
                    let (info1, info2) = info.encode();
                    assert_eq!(TaskSwitchInfo::decode(info1, info2), info);
                }
            }
        }
        let jump = TaskSwitchInfo::new(Selector(0x28), TaskSwitchSource::Jmp, None, true);
        assert_eq!(jump.encode(), (0x28, 0x0001_0040_0000_0000));
        let gate = TaskSwitchInfo::new(Selector(0x30), TaskSwitchSource::IdtGate, Some(0x18), false);
        assert_eq!(gate.encode(), (0x30, 0x0000_1000_0000_0018));
    }
}
