//! Intel PT's MSRs of a guest: which values it may write, and which of them it reaches without an exit.
//!
//! With `pt_mode=1` ("host/guest") the guest owns its own trace MSRs. KVM checks its writes while it does not trace, gives
//! the MSRs away while it does, and switches them at every entry. No packets are produced here.

use rootmode_arch::Linear;
use rootmode_arch::msr::{
    IA32_RTIT_ADDR0_A, IA32_RTIT_CR3_MATCH, IA32_RTIT_CTL, IA32_RTIT_OUTPUT_BASE, IA32_RTIT_OUTPUT_MASK_PTRS,
    IA32_RTIT_STATUS,
};

use super::{Regression, Regressions};

/// Bits of IA32_RTIT_CTL.
pub mod ctl {
    /// Packets are generated.
    pub const TRACE_EN: u64 = 1;
    /// Output goes to the trace-transport subsystem.
    pub const FABRIC_EN: u64 = 1 << 6;
    /// CR3 filtering.
    pub const CR3_EN: u64 = 1 << 7;
    /// Table of physical addresses.
    pub const TOPA: u64 = 1 << 8;
    /// MTC packets.
    pub const MTC_EN: u64 = 1 << 9;
    /// Change-of-flow packets.
    pub const BRANCH_EN: u64 = 1 << 13;
    /// MTC frequency.
    pub const MTC_FREQ: u64 = 0xf << 14;
    /// Cycle threshold.
    pub const CYC_THRESH: u64 = 0xf << 19;
    /// PSB frequency.
    pub const PSB_FREQ: u64 = 0xf << 24;
    /// OS, User, TSCEn, DisRETC and TraceEn: there whenever PT is.
    pub const BASE: u64 = 1 | 1 << 2 | 1 << 3 | 1 << 10 | 1 << 11;
}

/// Bits of IA32_RTIT_STATUS that software may write: FilterEn, ContextEn, TriggerEn, Error, Stopped, PacketByteCnt.
pub const STATUS_BITS: u64 = 0b11_0111 | 0x1_ffff << 32;

/// Module parameter `pt_mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum TraceMode {
    /// System-wide: the host traces, guests have no PT.
    #[default]
    System,
    /// Host and guests trace, each for itself.
    HostGuest,
}

/// What the guest's CPUID says of PT and of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct TraceCpuid {
    /// CPUID.14H.0 as EAX, EBX, ECX, EDX.
    pub leaf0: [u32; 4],
    /// CPUID.14H.1.
    pub leaf1: [u32; 4],
    /// CPUID.80000008H:EAX\[7:0\], if 80000000H says that there is such a leaf.
    pub physical_width: Option<u8>,
}

impl TraceCpuid {
    const fn has_ebx(&self, bit: u32) -> bool {
        self.leaf0[1] >> bit & 1 != 0
    }

    const fn has_ecx(&self, bit: u32) -> bool {
        self.leaf0[2] >> bit & 1 != 0
    }

    const fn ranges(&self) -> u32 {
        self.leaf1[0] & 7
    }

    /// Whether a field's value is in the bitmap that CPUID has for it.
    const fn enumerates(bitmap: u32, value: u64) -> bool {
        bitmap >> value & 1 != 0
    }
}

/// The processor's own trace MSRs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TraceRegisters {
    /// IA32_RTIT_CTL.
    pub ctl: u64,
    /// IA32_RTIT_STATUS.
    pub status: u64,
    /// IA32_RTIT_OUTPUT_BASE.
    pub output_base: u64,
    /// IA32_RTIT_OUTPUT_MASK_PTRS.
    pub output_mask: u64,
    /// IA32_RTIT_CR3_MATCH.
    pub cr3_match: u64,
    /// IA32_RTIT_ADDRn_A at 2n, IA32_RTIT_ADDRn_B at 2n + 1.
    pub addresses: [u64; 8],
}

impl TraceRegisters {
    fn register(&mut self, index: u32) -> Option<&mut u64> {
        Some(match index {
            IA32_RTIT_CTL => &mut self.ctl,
            IA32_RTIT_STATUS => &mut self.status,
            IA32_RTIT_OUTPUT_BASE => &mut self.output_base,
            IA32_RTIT_OUTPUT_MASK_PTRS => &mut self.output_mask,
            IA32_RTIT_CR3_MATCH => &mut self.cr3_match,
            _ => self.addresses.get_mut(index.checked_sub(IA32_RTIT_ADDR0_A)? as usize)?,
        })
    }
}

/// A vCPU's trace MSRs, as KVM keeps them.
#[derive(Clone, Copy, Debug)]
pub struct GuestTrace {
    mode: TraceMode,
    cpuid: TraceCpuid,
    /// MAXPHYADDR, cached when CPUID is set.
    physical_width: u32,
    saved: TraceRegisters,
    /// The guest executed VMXON.
    vmxon: bool,
    /// All but IA32_RTIT_CTL are passed through.
    passed: bool,
    host: TraceRegisters,
    bugs: Regressions,
}

impl GuestTrace {
    /// A vCPU without CPUID.
    pub const fn new(mode: TraceMode, bugs: Regressions) -> Self {
        const NONE: TraceRegisters = TraceRegisters {
            ctl: 0,
            status: 0,
            output_base: 0,
            output_mask: 0,
            cr3_match: 0,
            addresses: [0; 8],
        };
        Self {
            mode,
            cpuid: TraceCpuid { leaf0: [0; 4], leaf1: [0; 4], physical_width: None },
            physical_width: 0,
            saved: NONE,
            vmxon: false,
            passed: false,
            host: NONE,
            bugs,
        }
    }

    /// KVM_SET_CPUID2.
    pub fn set_cpuid(&mut self, cpuid: TraceCpuid) {
        self.cpuid = cpuid;
        let stale = self.physical_width != 0 && self.bugs.has(Regression::TraceWidthStale);
        if !stale {
            let missing = if self.bugs.has(Regression::AbsentWidthIsZero) { 0 } else { 36 };
            self.physical_width = cpuid.physical_width.map_or(missing, u32::from);
        }
    }

    /// The guest executed VMXON: it stops tracing.
    pub fn vmxon(&mut self) {
        self.vmxon = true;
        self.saved.ctl = 0;
        self.recalculate();
    }

    /// The guest executed VMXOFF.
    pub fn vmxoff(&mut self) {
        self.vmxon = false;
    }

    /// The guest's IA32_RTIT_CTL as the VMCS has it.
    pub const fn ctl(&self) -> u64 {
        self.saved.ctl
    }

    const fn tracing(&self) -> bool {
        self.saved.ctl & ctl::TRACE_EN != 0
    }

    /// Which of the MSRs other than IA32_RTIT_CTL the guest has, by its CPUID.
    const fn exists(&self, index: u32) -> bool {
        match index {
            IA32_RTIT_CTL | IA32_RTIT_STATUS => true,
            IA32_RTIT_OUTPUT_BASE | IA32_RTIT_OUTPUT_MASK_PTRS => {
                self.cpuid.has_ecx(0) || self.cpuid.has_ecx(2)
            }
            IA32_RTIT_CR3_MATCH => self.cpuid.has_ebx(0),
            _ => index >= IA32_RTIT_ADDR0_A && index - IA32_RTIT_ADDR0_A < 2 * self.cpuid.ranges(),
        }
    }

    /// Whether the guest's accesses to the MSR do not exit.
    pub const fn passes(&self, index: u32) -> bool {
        self.passed && self.exists(index) && index != IA32_RTIT_CTL
    }

    /// Interception follows TraceEn.
    const fn recalculate(&mut self) {
        self.passed = match (self.passed, self.tracing()) {
            (true, false) => self.bugs.has(Regression::TraceStaysPassed),
            (false, true) => !self.bugs.has(Regression::TraceStaysIntercepted),
            (passed, _) => passed,
        };
    }

    /// RDMSR that exited, or by the client. `None`: #GP.
    pub fn read(&mut self, index: u32) -> Option<u64> {
        let there = self.mode == TraceMode::HostGuest && self.exists(index);
        self.saved.register(index).copied().filter(|_| there)
    }

    /// WRMSR that exited, or by the client. `None`: #GP.
    pub fn write(&mut self, index: u32, value: u64) -> Option<()> {
        if self.mode == TraceMode::System || !self.exists(index) {
            return None;
        }
        if index == IA32_RTIT_CTL {
            return self.write_ctl(value);
        }
        if self.tracing() && !self.bugs.has(Regression::WrittenWhileTracing) {
            return None;
        }
        let legal = match index {
            IA32_RTIT_STATUS => value & !STATUS_BITS == 0,
            IA32_RTIT_OUTPUT_BASE => self.output_base_is_legal(value),
            IA32_RTIT_OUTPUT_MASK_PTRS | IA32_RTIT_CR3_MATCH => true,
            _ => Linear(value).is_canonical(48),
        };
        let register = self.saved.register(index)?;
        legal.then(|| *register = value)
    }

    /// 128-byte aligned, and below the guest's MAXPHYADDR.
    const fn output_base_is_legal(&self, value: u64) -> bool {
        let unaligned = if self.bugs.has(Regression::TraceAlignment) { 0x3f } else { 0x7f };
        let beyond = if self.bugs.has(Regression::WidthShiftedInWord) {
            // A 32-bit host shifts by the lower five bits of the count.
            !(1_u32.wrapping_shl(self.physical_width).wrapping_sub(1)) as u64
        } else {
            match u64::MAX.checked_shl(self.physical_width) {
                Some(beyond) => beyond,
                None => 0,
            }
        };
        value & (unaligned | beyond) == 0
    }

    /// The bits that IA32_RTIT_CTL may have.
    const fn ctl_bits(&self) -> u64 {
        let cpuid = &self.cpuid;
        let branch_by_mtc = self.bugs.has(Regression::BranchNeedsMtc);
        let mut bits = ctl::BASE;
        if !branch_by_mtc || cpuid.has_ebx(3) {
            bits |= ctl::BRANCH_EN;
        }
        if cpuid.has_ebx(0) {
            bits |= ctl::CR3_EN;
        }
        if cpuid.has_ebx(1) {
            bits |= 1 << 1 | ctl::CYC_THRESH | ctl::PSB_FREQ;
        }
        if cpuid.has_ebx(3) {
            bits |= ctl::MTC_EN | ctl::MTC_FREQ;
        }
        if cpuid.has_ebx(4) {
            bits |= 1 << 5 | 1 << 12;
        }
        if cpuid.has_ebx(5) {
            bits |= 1 << 4;
        }
        if cpuid.has_ecx(0) {
            bits |= ctl::TOPA;
        }
        if cpuid.has_ecx(3) {
            bits |= ctl::FABRIC_EN;
        }
        let mut range = 0;
        while range < cpuid.ranges() {
            bits |= 0xf << (32 + 4 * range);
            range += 1;
        }
        bits
    }

    fn write_ctl(&mut self, value: u64) -> Option<()> {
        let cpuid = &self.cpuid;
        let changed = value ^ self.saved.ctl;
        let enables = value & ctl::TRACE_EN != 0;
        let single_range = value & (ctl::TOPA | ctl::FABRIC_EN) == 0;
        // Each with its bitmap, where CPUID has the field at all.
        let frequencies = [
            (3, cpuid.leaf1[0] >> 16, (value & ctl::MTC_FREQ) >> 14),
            (1, cpuid.leaf1[1] & 0xffff, (value & ctl::CYC_THRESH) >> 19),
            (1, cpuid.leaf1[1] >> 16, (value & ctl::PSB_FREQ) >> 24),
        ];
        let refused = self.vmxon
            || value & !self.ctl_bits() != 0
            || self.tracing() && changed & !ctl::TRACE_EN != 0
            || enables && !self.tracing() && single_range && !cpuid.has_ecx(2)
            || frequencies
                .iter()
                .any(|(bit, bitmap, value)| cpuid.has_ebx(*bit) && !TraceCpuid::enumerates(*bitmap, *value))
            || (0..4).any(|range| value >> (32 + 4 * range) & 0xf > 2);
        if refused {
            return None;
        }
        self.saved.ctl = value;
        self.recalculate();
        Some(())
    }

    /// VM entry: the processor's MSRs become the guest's, if the guest traces.
    pub fn enter(&mut self, processor: &mut TraceRegisters) {
        if self.mode == TraceMode::System {
            return;
        }
        self.host.ctl = processor.ctl;
        if self.tracing() {
            processor.ctl = 0;
            self.host = TraceRegisters { ctl: self.host.ctl, ..*processor };
            *processor = self.saved;
        }
        // Entry control "load IA32_RTIT_CTL".
        processor.ctl = self.saved.ctl;
    }

    /// The guest's own access while it runs, past interception. `None`: #GP of the processor, where only IA32_RTIT_CTL
    /// can be written while TraceEn is 1.
    pub fn native(&self, processor: &mut TraceRegisters, index: u32, write: Option<u64>) -> Option<u64> {
        let tracing = processor.ctl & ctl::TRACE_EN != 0;
        let register = processor.register(index)?;
        if let Some(value) = write {
            if tracing {
                return None;
            }
            *register = value;
        }
        Some(*register)
    }

    /// VM exit: the reverse.
    pub const fn exit(&mut self, processor: &mut TraceRegisters) {
        if matches!(self.mode, TraceMode::System) {
            return;
        }
        if self.tracing() {
            self.saved = TraceRegisters { ctl: self.saved.ctl, ..*processor };
            *processor = self.host;
        }
        processor.ctl = self.host.ctl;
    }
}
