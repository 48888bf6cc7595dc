//! KVM's tracepoints about entries and exits, as typed records, and the text that three ages of kernels make of them.

use rootmode_vmx::ExitReason;

/// Whose text: up to 5.9, 5.10 to 5.15, and as read in 6.1 and 6.12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TraceFormat {
    /// Up to 5.9.
    V5_9,
    /// 5.10 to 5.15.
    V5_10,
    /// 6.x.
    V6,
}

impl TraceFormat {
    /// All, oldest first.
    pub const ALL: [Self; 3] = [Self::V5_9, Self::V5_10, Self::V6];
}

/// What the three events about exits tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ExitTrace {
    /// vCPU.
    pub vcpu: u32,
    /// The whole exit reason.
    pub reason: u32,
    /// RIP of the guest.
    pub rip: u64,
    /// Exit qualification.
    pub info1: u64,
    /// IDT-vectoring information.
    pub info2: u64,
    /// Interruption information.
    pub intr_info: u32,
    /// Its error code, or 0.
    pub error_code: u32,
}

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tracepoint {
    /// `kvm_entry`.
    Entry {
        /// vCPU.
        vcpu: u32,
        /// Where the guest goes on.
        rip: u64,
    },
    /// `kvm_exit`.
    Exit(ExitTrace),
    /// `kvm_nested_vmexit`: the same exit, of L2.
    NestedVmexit(ExitTrace),
    /// `kvm_nested_vmexit_inject`: what L1 gets.
    NestedVmexitInject(ExitTrace),
}

/// KVM's names, where they are not those of the manual.
const SYMBOLS: [(ExitReason, &str); 9] = [
    (ExitReason::EXCEPTION_OR_NMI, "EXCEPTION_NMI"),
    (ExitReason::RDMSR, "MSR_READ"),
    (ExitReason::WRMSR, "MSR_WRITE"),
    (ExitReason::MOV_DR, "DR_ACCESS"),
    (ExitReason::INVALID_GUEST_STATE, "INVALID_STATE"),
    (ExitReason::MSR_LOADING, "MSR_LOAD_FAIL"),
    (ExitReason::EPT_MISCONFIGURATION, "EPT_MISCONFIG"),
    (ExitReason::MWAIT, "MWAIT_INSTRUCTION"),
    (ExitReason::PAUSE, "PAUSE_INSTRUCTION"),
];

const FAILED: u32 = ExitReason::ENTRY_FAILURE;

/// An exit reason as the events print it.
fn reason(reason: u32) -> String {
    let basic = ExitReason(reason as u16);
    let own = SYMBOLS.iter().find(|row| row.0 == basic).map(|row| row.1);
    let symbol = own.or_else(|| ExitReason::TABLE.iter().find(|row| row.0 == basic).map(|row| row.1));
    let flags = if reason & FAILED != 0 { " FAILED_VMENTRY" } else { "" };
    match symbol {
        Some(symbol) => format!("{symbol}{flags}"),
        None => format!("{:#x}{flags}", basic.0),
    }
}

/// The reason that `reason` prints so, and the rest of the words.
fn parse_reason<'a>(words: &mut impl Iterator<Item = &'a str>, next: &str) -> Option<u32> {
    let symbol = words.next()?;
    let own = SYMBOLS.iter().find(|row| row.1 == symbol).map(|row| row.0);
    let known = own.or_else(|| ExitReason::TABLE.iter().find(|row| row.1 == symbol).map(|row| row.0));
    let basic = match known {
        Some(reason) => reason.0,
        None => u16::from_str_radix(symbol.strip_prefix("0x")?, 16).ok()?,
    };
    let word = words.next()?;
    if word == next {
        return Some(basic.into());
    }
    (word == "FAILED_VMENTRY" && words.next()? == next).then_some(FAILED | u32::from(basic))
}

fn hexadecimal<'a>(words: &mut impl Iterator<Item = &'a str>) -> Option<u64> {
    let word = words.next()?;
    u64::from_str_radix(word.strip_prefix("0x").unwrap_or(word), 16).ok()
}

impl ExitTrace {
    /// What `kvm_exit` and, from 5.10 on, `kvm_nested_vmexit` print.
    fn text(&self) -> String {
        let Self { vcpu, rip, info1, info2, intr_info, error_code, .. } = self;
        format!(
            "vcpu {vcpu} reason {} rip {rip:#x} info1 {info1:#018x} info2 {info2:#018x} intr_info {intr_info:#010x} error_code {error_code:#010x}",
            reason(self.reason)
        )
    }

    fn extended(&self) -> String {
        let Self { info1, info2, intr_info, error_code, .. } = self;
        format!(
            "reason: {} ext_inf1: {info1:#018x} ext_inf2: {info2:#018x} ext_int: {intr_info:#010x} ext_int_err: {error_code:#010x}",
            reason(self.reason)
        )
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut trace = Self::default();
        (words.next()? == "vcpu").then_some(())?;
        trace.vcpu = words.next()?.parse().ok()?;
        (words.next()? == "reason").then_some(())?;
        trace.reason = parse_reason(&mut words, "rip")?;
        trace.rip = hexadecimal(&mut words)?;
        for name in ["info1", "info2", "intr_info", "error_code"] {
            (words.next()? == name).then_some(())?;
            let value = hexadecimal(&mut words)?;
            match name {
                "info1" => trace.info1 = value,
                "info2" => trace.info2 = value,
                "intr_info" => trace.intr_info = value as u32,
                _ => trace.error_code = value as u32,
            }
        }
        Some(trace)
    }

    fn parse_extended(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut trace = Self::default();
        (words.next()? == "reason:").then_some(())?;
        trace.reason = parse_reason(&mut words, "ext_inf1:")?;
        trace.info1 = hexadecimal(&mut words)?;
        for name in ["ext_inf2:", "ext_int:", "ext_int_err:"] {
            (words.next()? == name).then_some(())?;
            let value = hexadecimal(&mut words)?;
            match name {
                "ext_inf2:" => trace.info2 = value,
                "ext_int:" => trace.intr_info = value as u32,
                _ => trace.error_code = value as u32,
            }
        }
        Some(trace)
    }
}

impl Tracepoint {
    /// The event's name.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Entry { .. } => "kvm_entry",
            Self::Exit(_) => "kvm_exit",
            Self::NestedVmexit(_) => "kvm_nested_vmexit",
            Self::NestedVmexitInject(_) => "kvm_nested_vmexit_inject",
        }
    }

    /// What follows the event's name and a colon.
    pub fn text(&self, format: TraceFormat) -> String {
        match (self, format) {
            (Self::Entry { vcpu, .. }, TraceFormat::V5_9) => format!("vcpu {vcpu}"),
            (Self::Entry { vcpu, rip }, _) => format!("vcpu {vcpu}, rip {rip:#x}"),
            // 5.9 shows what it calls info without saying which, and no interruption information.
            (Self::Exit(exit), TraceFormat::V5_9) => {
                let ExitTrace { vcpu, rip, info1, intr_info, .. } = exit;
                format!(
                    "vcpu {vcpu} reason {} rip {rip:#x} info {info1:x} {intr_info:x}",
                    reason(exit.reason)
                )
            }
            (Self::NestedVmexit(exit), TraceFormat::V5_9) => {
                format!("rip: {:#018x} {}", exit.rip, exit.extended())
            }
            (Self::Exit(exit) | Self::NestedVmexit(exit), _) => exit.text(),
            (Self::NestedVmexitInject(exit), _) => exit.extended(),
        }
    }

    /// The record behind a line of this format, as far as the format says. The reverse of [`Tracepoint::text`].
    pub fn parse(name: &str, text: &str, format: TraceFormat) -> Option<Self> {
        match (name, format) {
            ("kvm_entry", TraceFormat::V5_9) => {
                Some(Self::Entry { vcpu: text.strip_prefix("vcpu ")?.parse().ok()?, rip: 0 })
            }
            ("kvm_entry", _) => {
                let (vcpu, rip) = text.strip_prefix("vcpu ")?.split_once(", rip 0x")?;
                Some(Self::Entry { vcpu: vcpu.parse().ok()?, rip: u64::from_str_radix(rip, 16).ok()? })
            }
            ("kvm_exit", TraceFormat::V5_9) => {
                let (head, info) = text.split_once(" info ")?;
                let mut exit = ExitTrace::parse(&format!("{head} info1 0 info2 0 intr_info 0 error_code 0"))?;
                let (info1, info2) = info.split_once(' ')?;
                exit.info1 = u64::from_str_radix(info1, 16).ok()?;
                exit.intr_info = u32::from_str_radix(info2, 16).ok()?;
                Some(Self::Exit(exit))
            }
            ("kvm_nested_vmexit", TraceFormat::V5_9) => {
                let (rip, rest) = text.strip_prefix("rip: 0x")?.split_once(' ')?;
                let rip = u64::from_str_radix(rip, 16).ok()?;
                ExitTrace::parse_extended(rest).map(|exit| Self::NestedVmexit(ExitTrace { rip, ..exit }))
            }
            ("kvm_exit", _) => ExitTrace::parse(text).map(Self::Exit),
            ("kvm_nested_vmexit", _) => ExitTrace::parse(text).map(Self::NestedVmexit),
            ("kvm_nested_vmexit_inject", _) => ExitTrace::parse_extended(text).map(Self::NestedVmexitInject),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_kernels() {
        let exit = ExitTrace { vcpu: 1, reason: 28, rip: 0xffff_ffff_8100_007a, ..ExitTrace::default() };
        assert_eq!(
            Tracepoint::Exit(exit).text(TraceFormat::V6),
            "vcpu 1 reason CR_ACCESS rip 0xffffffff8100007a info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000"
        );
        let nested =
            ExitTrace { reason: 48, rip: 1, info1: 0x181, info2: 0x8000_0301, ..ExitTrace::default() };
        assert_eq!(
            Tracepoint::NestedVmexit(nested).text(TraceFormat::V5_10),
            "vcpu 0 reason EPT_VIOLATION rip 0x1 info1 0x0000000000000181 info2 0x0000000080000301 intr_info 0x00000000 error_code 0x00000000"
        );
        let failed = ExitTrace { reason: FAILED | 33, rip: 0x401000, ..ExitTrace::default() };
        assert!(
            Tracepoint::Exit(failed).text(TraceFormat::V6).contains(" INVALID_STATE FAILED_VMENTRY rip ")
        );
        assert_eq!(Tracepoint::Entry { vcpu: 0, rip: 5 }.text(TraceFormat::V5_9), "vcpu 0");
        assert_eq!(
            Tracepoint::Entry { vcpu: 0, rip: 0x100_051d }.text(TraceFormat::V6),
            "vcpu 0, rip 0x100051d"
        );
    }
}
