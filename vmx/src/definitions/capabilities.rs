//! The VMX capability MSRs 0x480 to 0x493 as typed values, each known or not
//! (SDM Vol. 3D (325384-083, Mar 2024) "VMX Capability Reporting Facility").

use super::controls::{Control, Word};
use rootmode_arch::{bits, msr};

bits! {
    /// IA32_VMX_BASIC: single bits. Revision identifier, size and memory type are methods.
    pub struct Basic(u64) {
        PHYSICAL_32 = 48, "addresses of VMX structures are limited to 32 bits";
        DUAL_MONITOR = 49, "dual-monitor treatment of SMIs and SMM";
        INS_OUTS_INFORMATION = 54, "instruction information is reported for INS and OUTS";
        TRUE_CONTROLS = 55, "default1 controls may be cleared, the TRUE capability MSRs exist";
        ERROR_CODE_OPTIONAL = 56, "a hardware exception may be injected with or without an error code, whatever its vector";
        NESTED_EXCEPTION = 58, "nested exceptions are reported and injected";
    }
}

impl Basic {
    /// VMCS revision identifier: bits 30:0.
    pub const fn revision(self) -> u32 {
        self.0 as u32 & 0x7fff_ffff
    }
    /// Bytes of a VMXON or VMCS region, at most 4096: bits 44:32.
    pub const fn region_size(self) -> u32 {
        (self.0 >> 32 & 0x1fff) as u32
    }
    /// Memory type of VMX structures: bits 53:50; 0 uncacheable, 6 write-back.
    pub const fn memory_type(self) -> u8 {
        (self.0 >> 50 & 15) as u8
    }
}

bits! {
    /// IA32_VMX_MISC: single bits. Multi-bit fields are methods.
    pub struct Misc(u64) {
        STORE_LMA = 5, "VM exits store EFER.LMA into \"IA-32e mode guest\"";
        ACTIVITY_HLT = 6, "activity state HLT";
        ACTIVITY_SHUTDOWN = 7, "activity state shutdown";
        ACTIVITY_SIPI = 8, "activity state wait-for-SIPI";
        PT_IN_VMX = 14, "Intel PT can be used in VMX operation";
        SMBASE_READABLE = 15, "RDMSR can read IA32_SMBASE in SMM";
        VMXOFF_UNBLOCKS_SMI = 28, "IA32_SMM_MONITOR_CTL bit 2 may be set";
        WRITE_ANY = 29, "VMWRITE can write read-only fields";
        ZERO_LENGTH_INJECTION = 30, "software events may be injected with instruction length 0";
    }
}

impl Misc {
    /// The preemption timer ticks when this TSC bit changes: bits 4:0.
    pub const fn timer_shift(self) -> u8 {
        (self.0 & 31) as u8
    }
    /// Number of CR3-target values: bits 24:16.
    pub const fn cr3_targets(self) -> u32 {
        (self.0 >> 16 & 0x1ff) as u32
    }
    /// Recommended maximum length of an MSR list: 512 times (bits 27:25 plus 1).
    pub const fn msr_list_limit(self) -> u32 {
        512 * ((self.0 >> 25 & 7) as u32 + 1)
    }
    /// MSEG revision identifier: bits 63:32.
    pub const fn mseg_revision(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

bits! {
    /// IA32_VMX_EPT_VPID_CAP.
    pub struct EptVpid(u64) {
        EXECUTE_ONLY = 0, "execute-only EPT translations";
        WALK_4 = 6, "EPT page-walk length 4";
        WALK_5 = 7, "EPT page-walk length 5";
        MEMORY_UC = 8, "EPT paging structures may be uncacheable";
        MEMORY_WB = 14, "EPT paging structures may be write-back";
        PAGE_2M = 16, "2-MByte EPT pages";
        PAGE_1G = 17, "1-GByte EPT pages";
        INVEPT = 20, "INVEPT";
        ACCESSED_DIRTY = 21, "accessed and dirty flags for EPT";
        ADVANCED_EXIT = 22, "advanced VM-exit information for EPT violations";
        SUPERVISOR_SHADOW_STACK = 23, "supervisor shadow-stack control";
        INVEPT_SINGLE = 25, "single-context INVEPT";
        INVEPT_ALL = 26, "all-context INVEPT";
        INVVPID = 32, "INVVPID";
        INVVPID_ADDRESS = 40, "individual-address INVVPID";
        INVVPID_SINGLE = 41, "single-context INVVPID";
        INVVPID_ALL = 42, "all-context INVVPID";
        INVVPID_SINGLE_GLOBALS = 43, "single-context-retaining-globals INVVPID";
    }
}

impl EptVpid {
    /// Maximum HLAT prefix size: bits 53:48.
    pub const fn hlat_prefix(self) -> u8 {
        (self.0 >> 48 & 0x3f) as u8
    }
}

/// The settings that a processor allows for a word of controls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Bits that must be 1 (allowed-0 settings that are 1).
    pub required: u64,
    /// Bits that may be 1 (allowed-1 settings).
    pub permitted: u64,
}

impl Allowed {
    /// The value nearest to `value` that the processor allows.
    pub const fn nearest(self, value: u64) -> u64 {
        value & self.permitted | self.required
    }
}

/// The first capability MSR.
pub const FIRST: u32 = msr::IA32_VMX_BASIC;
/// Number of capability MSRs.
pub const COUNT: usize = (msr::IA32_VMX_EXIT_CTLS2 - FIRST + 1) as usize;

/// Values of the capability MSRs. Unknown ones are told apart from those that read as 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Capabilities {
    values: [u64; COUNT],
    known: u32,
}

impl Capabilities {
    /// None known.
    pub const fn unknown() -> Self {
        Self { values: [0; COUNT], known: 0 }
    }
    /// What `rdmsr` answers for each of the MSRs.
    pub fn read(rdmsr: impl Fn(u32) -> Option<u64>) -> Self {
        let mut all = Self::unknown();
        for index in FIRST..FIRST + COUNT as u32 {
            if let Some(value) = rdmsr(index) {
                all.set(index, value);
            }
        }
        all
    }
    /// The value of capability MSR `index`, if it is one and known: what RDMSR reads.
    pub fn get(&self, index: u32) -> Option<u64> {
        let i = index.wrapping_sub(FIRST) as usize;
        (i < COUNT && self.known >> i & 1 != 0).then(|| self.values[i])
    }
    /// The value of capability MSR `index`, 0 if unknown or not one of them.
    #[inline]
    pub const fn value(&self, index: u32) -> u64 {
        let i = index.wrapping_sub(FIRST) as usize;
        if i < COUNT { self.values[i] } else { 0 }
    }
    /// Makes capability MSR `index` known; others are ignored.
    pub const fn set(&mut self, index: u32, value: u64) {
        let i = index.wrapping_sub(FIRST) as usize;
        if i < COUNT {
            self.values[i] = value;
            self.known |= 1 << i;
        }
    }
    /// The same with `index` set.
    #[must_use]
    pub const fn with(mut self, index: u32, value: u64) -> Self {
        self.set(index, value);
        self
    }
    /// Makes capability MSR `index` unknown.
    pub const fn forget(&mut self, index: u32) {
        let i = index.wrapping_sub(FIRST) as usize;
        if i < COUNT {
            self.values[i] = 0;
            self.known &= !(1 << i);
        }
    }
    /// Whether all are known.
    pub const fn is_complete(&self) -> bool {
        self.known == (1 << COUNT) - 1
    }

    /// IA32_VMX_BASIC.
    pub fn basic(&self) -> Option<Basic> {
        self.get(msr::IA32_VMX_BASIC).map(Basic)
    }
    /// IA32_VMX_MISC.
    pub fn misc(&self) -> Option<Misc> {
        self.get(msr::IA32_VMX_MISC).map(Misc)
    }
    /// IA32_VMX_EPT_VPID_CAP.
    pub fn ept_vpid(&self) -> Option<EptVpid> {
        self.get(msr::IA32_VMX_EPT_VPID_CAP).map(EptVpid)
    }
    /// The MSR that says what `word` allows: the TRUE variant if VMX_BASIC bit 55 is set. 0 for a word without one.
    #[inline]
    pub const fn reporting_msr(&self, word: Word) -> u32 {
        match word.capability() {
            Some((_, Some(exact))) if self.value(msr::IA32_VMX_BASIC) >> 55 & 1 != 0 => exact,
            Some((plain, _)) => plain,
            None => 0,
        }
    }
    /// What `word` allows, as if every MSR were known.
    #[inline]
    pub const fn allowed_value(&self, word: Word) -> Allowed {
        let value = self.value(self.reporting_msr(word));
        match word {
            Word::Tertiary | Word::SecondaryExit | Word::VmFunction => {
                Allowed { required: 0, permitted: value }
            }
            _ => Allowed { required: value & 0xffff_ffff, permitted: value >> 32 },
        }
    }
    /// What `word` allows, if the MSRs that say so are known.
    pub fn allowed(&self, word: Word) -> Option<Allowed> {
        if word.capability()?.1.is_some() {
            self.basic()?;
        }
        self.get(self.reporting_msr(word))?;
        Some(self.allowed_value(word))
    }
    /// Whether the processor supports the 1-setting of `control`, if known.
    pub fn supports(&self, control: Control) -> Option<bool> {
        match control.word.activated_by() {
            Some(by) if !self.supports(by)? => Some(false),
            _ => Some(self.allowed(control.word)?.permitted >> control.bit & 1 != 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_msr_is_read_when_basic_bit_55_is_set() {
        let caps = Capabilities::unknown()
            .with(msr::IA32_VMX_PINBASED_CTLS, 0x7f_0000_0016)
            .with(msr::IA32_VMX_TRUE_PINBASED_CTLS, 0xff_0000_0016);
        assert_eq!(caps.allowed(Word::Pin), None, "VMX_BASIC decides and is unknown");
        let plain = caps.with(msr::IA32_VMX_BASIC, 0).allowed(Word::Pin);
        assert_eq!(plain, Some(Allowed { required: 0x16, permitted: 0x7f }));
        let exact = caps.with(msr::IA32_VMX_BASIC, 1 << 55).allowed(Word::Pin);
        assert_eq!(exact, Some(Allowed { required: 0x16, permitted: 0xff }));
    }

    #[test]
    fn a_control_of_a_word_that_cannot_be_activated_is_not_supported() {
        let caps = Capabilities::unknown()
            .with(msr::IA32_VMX_BASIC, 0)
            .with(msr::IA32_VMX_PROCBASED_CTLS, 0x7fff_ffff_0401_e172)
            .with(msr::IA32_VMX_PROCBASED_CTLS2, !0);
        assert_eq!(caps.supports(Control { word: Word::Secondary, bit: 1 }), Some(false));
    }
}
