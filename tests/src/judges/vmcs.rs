//! The VMCS as the judges know it: encodings, widths and a map of values.
//!
//! Typed in from SDM Vol. 3D (325384-083, Mar 2024) appendix "Field Encoding in VMCS", on purpose not taken from
//! `rootmode-vmx`, whose tables are what is being judged.

use std::collections::BTreeMap;

macro_rules! fields {
    ($($name:ident = $encoding:literal),* $(,)?) => {
        $(#[doc = concat!("VMCS field encoding ", stringify!($encoding), ".")] pub const $name: u32 = $encoding;)*
        /// Every field that the judges write, with its name.
        pub const FIELDS: &[(u32, &str)] = &[$(($encoding, stringify!($name))),*];
    };
}

fields! {
    VPID = 0x0000, POSTED_VECTOR = 0x0002, EPTP_INDEX = 0x0004,
    GUEST_ES = 0x0800, GUEST_CS = 0x0802, GUEST_SS = 0x0804, GUEST_DS = 0x0806, GUEST_FS = 0x0808, GUEST_GS = 0x080A,
    GUEST_LDTR = 0x080C, GUEST_TR = 0x080E, GUEST_INTERRUPT_STATUS = 0x0810, PML_INDEX = 0x0812,
    HOST_ES = 0x0C00, HOST_CS = 0x0C02, HOST_SS = 0x0C04, HOST_DS = 0x0C06, HOST_FS = 0x0C08, HOST_GS = 0x0C0A,
    HOST_TR = 0x0C0C,
    IO_BITMAP_A = 0x2000, IO_BITMAP_B = 0x2002, MSR_BITMAPS = 0x2004, EXIT_MSR_STORE_ADDRESS = 0x2006,
    EXIT_MSR_LOAD_ADDRESS = 0x2008, ENTRY_MSR_LOAD_ADDRESS = 0x200A, PML_ADDRESS = 0x200E, TSC_OFFSET = 0x2010,
    VIRTUAL_APIC_ADDRESS = 0x2012, APIC_ACCESS_ADDRESS = 0x2014, POSTED_DESCRIPTOR_ADDRESS = 0x2016,
    VMFUNC_CONTROLS = 0x2018, EPTP = 0x201A, EOI_EXIT_0 = 0x201C, EOI_EXIT_1 = 0x201E, EOI_EXIT_2 = 0x2020,
    EOI_EXIT_3 = 0x2022, EPTP_LIST = 0x2024, VMREAD_BITMAP = 0x2026, VMWRITE_BITMAP = 0x2028, VE_ADDRESS = 0x202A,
    XSS_EXITING = 0x202C, SPPTP = 0x2030, TSC_MULTIPLIER = 0x2032,
    LINK_POINTER = 0x2800, GUEST_DEBUGCTL = 0x2802, GUEST_PAT = 0x2804, GUEST_EFER = 0x2806,
    GUEST_PERF_GLOBAL = 0x2808, GUEST_PDPTE0 = 0x280A, GUEST_PDPTE1 = 0x280C, GUEST_PDPTE2 = 0x280E,
    GUEST_PDPTE3 = 0x2810, GUEST_BNDCFGS = 0x2812, GUEST_PKRS = 0x2818,
    HOST_PAT = 0x2C00, HOST_EFER = 0x2C02, HOST_PERF_GLOBAL = 0x2C04, HOST_PKRS = 0x2C06,
    PIN = 0x4000, PROCESSOR = 0x4002, EXCEPTIONS = 0x4004, PAGE_FAULT_MASK = 0x4006, PAGE_FAULT_MATCH = 0x4008,
    CR3_TARGETS = 0x400A, EXIT = 0x400C, EXIT_MSR_STORE_COUNT = 0x400E, EXIT_MSR_LOAD_COUNT = 0x4010, ENTRY = 0x4012,
    ENTRY_MSR_LOAD_COUNT = 0x4014, INTERRUPTION = 0x4016, INTERRUPTION_ERROR = 0x4018, INSTRUCTION_LENGTH = 0x401A,
    TPR_THRESHOLD = 0x401C, SECONDARY = 0x401E, PLE_GAP = 0x4020, PLE_WINDOW = 0x4022,
    ES_LIMIT = 0x4800, CS_LIMIT = 0x4802, SS_LIMIT = 0x4804, DS_LIMIT = 0x4806, FS_LIMIT = 0x4808, GS_LIMIT = 0x480A,
    LDTR_LIMIT = 0x480C, TR_LIMIT = 0x480E, GDTR_LIMIT = 0x4810, IDTR_LIMIT = 0x4812,
    ES_RIGHTS = 0x4814, CS_RIGHTS = 0x4816, SS_RIGHTS = 0x4818, DS_RIGHTS = 0x481A, FS_RIGHTS = 0x481C,
    GS_RIGHTS = 0x481E, LDTR_RIGHTS = 0x4820, TR_RIGHTS = 0x4822, INTERRUPTIBILITY = 0x4824, ACTIVITY = 0x4826,
    SMBASE = 0x4828, GUEST_SYSENTER_CS = 0x482A, PREEMPTION_TIMER = 0x482E,
    HOST_SYSENTER_CS = 0x4C00,
    CR0_MASK = 0x6000, CR4_MASK = 0x6002, CR0_SHADOW = 0x6004, CR4_SHADOW = 0x6006, CR3_TARGET_0 = 0x6008,
    CR3_TARGET_1 = 0x600A, CR3_TARGET_2 = 0x600C, CR3_TARGET_3 = 0x600E,
    GUEST_CR0 = 0x6800, GUEST_CR3 = 0x6802, GUEST_CR4 = 0x6804, ES_BASE = 0x6806, CS_BASE = 0x6808, SS_BASE = 0x680A,
    DS_BASE = 0x680C, FS_BASE = 0x680E, GS_BASE = 0x6810, LDTR_BASE = 0x6812, TR_BASE = 0x6814, GDTR_BASE = 0x6816,
    IDTR_BASE = 0x6818, GUEST_DR7 = 0x681A, GUEST_RSP = 0x681C, GUEST_RIP = 0x681E, GUEST_RFLAGS = 0x6820,
    PENDING_DEBUG = 0x6822, GUEST_SYSENTER_ESP = 0x6824, GUEST_SYSENTER_EIP = 0x6826, GUEST_S_CET = 0x6828,
    GUEST_SSP = 0x682A, GUEST_SSP_TABLE = 0x682C,
    HOST_CR0 = 0x6C00, HOST_CR3 = 0x6C02, HOST_CR4 = 0x6C04, HOST_FS_BASE = 0x6C06, HOST_GS_BASE = 0x6C08,
    HOST_TR_BASE = 0x6C0A, HOST_GDTR_BASE = 0x6C0C, HOST_IDTR_BASE = 0x6C0E, HOST_SYSENTER_ESP = 0x6C10,
    HOST_SYSENTER_EIP = 0x6C12, HOST_RSP = 0x6C14, HOST_RIP = 0x6C16, HOST_S_CET = 0x6C18, HOST_SSP = 0x6C1A,
    HOST_SSP_TABLE = 0x6C1C,
}

/// Selectors of ES, CS, SS, DS, FS, GS; the other parts of a segment lie at the same distances.
pub const SEGMENTS: [u32; 6] = [GUEST_ES, GUEST_CS, GUEST_SS, GUEST_DS, GUEST_FS, GUEST_GS];

/// Width in bits of the field with `encoding`; natural-width fields have 64.
#[must_use]
pub fn width(encoding: u32) -> u32 {
    match encoding >> 13 & 3 {
        0 => 16,
        2 => 32,
        _ => 64,
    }
}

/// The name of the field with `encoding`.
#[must_use]
pub fn name(encoding: u32) -> &'static str {
    FIELDS.iter().find(|(known, _)| *known == encoding).map_or("?", |(_, name)| name)
}

/// Values of fields; one that is not set is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vmcs {
    values: BTreeMap<u32, u64>,
}

impl Vmcs {
    /// Every field zero.
    #[must_use]
    pub fn zeroed() -> Vmcs {
        Vmcs { values: FIELDS.iter().map(|&(encoding, _)| (encoding, 0)).collect() }
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, encoding: u32) -> u64 {
        self.values.get(&encoding).copied().unwrap_or(0)
    }

    /// Sets a field; bits beyond its width are dropped.
    pub fn set(&mut self, encoding: u32, value: u64) {
        let mask = u64::MAX >> (64 - width(encoding));
        self.values.insert(encoding, value & mask);
    }

    /// Sets bits of a field.
    pub fn or(&mut self, encoding: u32, bits: u64) {
        self.set(encoding, self.get(encoding) | bits);
    }

    /// Encodings and values in ascending order.
    #[must_use]
    pub fn fields(&self) -> Vec<(u32, u64)> {
        self.values.iter().map(|(&encoding, &value)| (encoding, value)).collect()
    }
}
