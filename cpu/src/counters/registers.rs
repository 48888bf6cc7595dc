//! The counters as MSRs and through RDPMC.

use super::{Counters, FIXED, GENERAL, MASK, Shape, WIDTH};
use crate::fault::{Fault, Result};
use rootmode_arch::Vendor;
use rootmode_arch::msr::*;

/// Bits of an event-select register. Intel: all but AnyThread, and nothing above bit 31. AMD: event, unit mask, USR, OS, edge,
/// INT, EN, INV, CntMask, event bits 11:8, host or guest only.
const INTEL_CONTROL: u64 = 0xffdf_ffff;
const AMD_CONTROL: u64 = 0x0000_030f_ffd7_ffff;
/// Each fixed-function counter's part of IA32_FIXED_CTR_CTRL: OS, USR, PMI.
const FIXED_CONTROL: u64 = 0b1011;
/// IA32_PERF_GLOBAL_OVF_CTRL: OvfUncore, OvfBuffer, CondChgd, which nothing sets.
const OTHER_STATUS: u64 = 7 << 61;
/// IA32_PERF_CAPABILITIES.FW_WRITE.
const FULL_WRITES: u64 = 1 << 13;

/// A register of the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Register {
    /// The event select of a general-purpose counter.
    Control(usize),
    /// A general-purpose counter; Intel's alias sign-extends the 32 bits that are written.
    Value(usize),
    /// A general-purpose counter, to be written in full.
    Full(usize),
    /// A fixed-function counter.
    Fixed(usize),
    /// IA32_FIXED_CTR_CTRL.
    FixedControl,
    /// Global control.
    Enabled,
    /// Global status.
    Status,
    /// What clears bits of it.
    Clear,
    /// What sets them (AMD).
    Set,
    /// IA32_PERF_CAPABILITIES.
    Capabilities,
}

impl Shape {
    fn register(&self, index: u32) -> Option<Register> {
        let place = |first: u32, count: usize| {
            let n = index.checked_sub(first)? as usize;
            (n < count).then_some(n)
        };
        match self.vendor {
            Vendor::Intel => {
                if let Some(n) = place(IA32_PMC0, self.general) {
                    return Some(Register::Value(n));
                }
                if let Some(n) = place(IA32_PERFEVTSEL0, self.general) {
                    return Some(Register::Control(n));
                }
                if let Some(n) = place(IA32_FIXED_CTR0, self.fixed) {
                    return Some(Register::Fixed(n));
                }
                if self.extended
                    && let Some(n) = place(IA32_A_PMC0, self.general)
                {
                    return Some(Register::Full(n));
                }
            }
            Vendor::Amd => {
                if let Some(n) = place(PERF_LEGACY_CTL0, 4) {
                    return Some(Register::Control(n));
                }
                if let Some(n) = place(PERF_LEGACY_CTR0, 4) {
                    return Some(Register::Value(n));
                }
                if self.extended
                    && let Some(n) = place(PERF_CTL0, 2 * self.general)
                {
                    return Some(if n % 2 == 0 { Register::Control(n / 2) } else { Register::Value(n / 2) });
                }
            }
        }
        let intel = self.vendor == Vendor::Intel;
        Some(match index {
            IA32_PERF_CAPABILITIES if intel && self.extended => Register::Capabilities,
            IA32_FIXED_CTR_CTRL if intel && self.global => Register::FixedControl,
            IA32_PERF_GLOBAL_CTRL if intel && self.global => Register::Enabled,
            IA32_PERF_GLOBAL_STATUS if intel && self.global => Register::Status,
            IA32_PERF_GLOBAL_OVF_CTRL if intel && self.global => Register::Clear,
            PERF_CNTR_GLOBAL_CTL if !intel && self.global => Register::Enabled,
            PERF_CNTR_GLOBAL_STATUS if !intel && self.global => Register::Status,
            PERF_CNTR_GLOBAL_STATUS_CLR if !intel && self.global => Register::Clear,
            PERF_CNTR_GLOBAL_STATUS_SET if !intel && self.global => Register::Set,
            _ => return None,
        })
    }
}

impl Counters {
    /// What MSR `index` is, if it is one of the counters'.
    pub(crate) fn register(&self, index: u32) -> Option<Register> {
        self.shape.register(index)
    }

    /// Reads a register. The counters must be settled.
    pub(crate) const fn read(&self, register: Register) -> u64 {
        match register {
            Register::Control(n) => self.control[n],
            Register::Value(n) | Register::Full(n) => self.value[n],
            Register::Fixed(n) => self.fixed[n],
            Register::FixedControl => self.fixed_control,
            Register::Enabled => self.enabled,
            Register::Status => self.status,
            Register::Clear | Register::Set => 0,
            Register::Capabilities => FULL_WRITES,
        }
    }

    /// Writes a register. The counters must be settled.
    ///
    /// # Errors
    /// #GP(0) for what Intel reserves; AMD's reserved bits are ignored.
    pub(crate) fn write(&mut self, register: Register, value: u64) -> Result {
        let intel = self.shape.vendor == Vendor::Intel;
        let all = self.shape.all();
        let fixed_control = (0..self.shape.fixed).fold(0, |bits, n| bits | FIXED_CONTROL << (4 * n));
        let legal = match register {
            Register::Control(_) => INTEL_CONTROL,
            Register::Full(_) | Register::Fixed(_) => MASK,
            Register::FixedControl => fixed_control,
            Register::Enabled => all,
            Register::Clear => all | OTHER_STATUS,
            Register::Value(_) => u64::MAX,
            Register::Status | Register::Set | Register::Capabilities => 0,
        };
        let read_only = matches!(register, Register::Status | Register::Capabilities);
        if intel && (value & !legal != 0 || read_only) {
            return Err(Fault::GP0);
        }
        match register {
            Register::Control(n) => self.control[n] = if intel { value } else { value & AMD_CONTROL },
            Register::Value(n) if intel => self.value[n] = i64::from(value as i32) as u64 & MASK,
            Register::Value(n) | Register::Full(n) => self.value[n] = value & MASK,
            Register::Fixed(n) => self.fixed[n] = value,
            Register::FixedControl => self.fixed_control = value,
            Register::Enabled => self.enabled = value & all,
            Register::Clear => self.status &= !value,
            Register::Set => self.status |= value & all,
            Register::Status | Register::Capabilities => {}
        }
        self.derive();
        Ok(())
    }

    /// Bits that the global control register has; 0 without it.
    pub const fn global_mask(&self) -> u64 {
        if self.shape.global { self.shape.all() } else { 0 }
    }

    /// The global control register.
    pub const fn global_control(&self) -> u64 {
        self.enabled
    }

    /// RDPMC's counter `number`. The counters must be settled.
    ///
    /// # Errors
    /// #GP(0) if there is no such counter.
    pub(crate) fn numbered(&self, number: u32) -> Result<u64> {
        let (fixed, n) = (number >> 30 & 1 != 0, (number & !(1 << 30)) as usize);
        if fixed && n < self.shape.fixed.min(FIXED) {
            Ok(self.fixed[n])
        } else if !fixed && n < self.shape.general.min(GENERAL) {
            Ok(self.value[n])
        } else {
            Err(Fault::GP0)
        }
    }

    /// CPUID leaf 0xA of a processor with these counters: what does not happen here is not available
    /// (SDM Vol. 2A "CPUID—CPU Identification", Architectural Performance Monitoring Leaf).
    pub(crate) const fn leaf() -> [u32; 4] {
        let (general, fixed) = (GENERAL as u32, FIXED as u32);
        // Not available: references to the last-level cache, its misses, branch mispredictions.
        const ABSENT: u32 = 1 << 3 | 1 << 4 | 1 << 6;
        [2 | general << 8 | WIDTH << 16 | 7 << 24, ABSENT, 0, fixed | WIDTH << 5]
    }
}
