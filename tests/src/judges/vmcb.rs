//! The VMCB as the judges know it: offsets and widths of what they write.
//!
//! Typed in from APM Vol. 2 (24593 rev. 3.42, Mar 2024) appendix "Layout of VMCB", on purpose not taken from
//! `rootmode-svm`, whose layout and rules are what is being judged.

/// A field: byte offset and width in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Byte offset in the VMCB.
    pub offset: usize,
    /// Width in bits: 8, 16, 32 or 64.
    pub bits: u32,
}

macro_rules! fields {
    ($($name:ident = $offset:literal : $bits:literal),* $(,)?) => {
        $(#[doc = concat!("VMCB field at ", stringify!($offset), ", ", stringify!($bits), " bits.")]
          pub const $name: Field = Field { offset: $offset, bits: $bits };)*
        /// Every field that the judges write, with its name.
        pub const FIELDS: &[(Field, &str)] = &[$(($name, stringify!($name))),*];
    };
}

fields! {
    INTERCEPT_CR = 0x000:32, INTERCEPT_DR = 0x004:32, INTERCEPT_EXCEPTIONS = 0x008:32, INTERCEPT_1 = 0x00C:32,
    INTERCEPT_2 = 0x010:32, INTERCEPT_3 = 0x014:32, PAUSE_THRESHOLD = 0x03C:16, PAUSE_COUNT = 0x03E:16,
    IOPM = 0x040:64, MSRPM = 0x048:64, TSC_OFFSET = 0x050:64, ASID = 0x058:32, TLB_CONTROL = 0x05C:32,
    VIRTUAL_INTERRUPT = 0x060:64, INTERRUPT_SHADOW = 0x068:64, NESTED_CONTROL = 0x090:64, APIC_BAR = 0x098:64,
    EVENT = 0x0A8:64, NESTED_CR3 = 0x0B0:64, LBR_CONTROL = 0x0B8:64, CLEAN = 0x0C0:32, AVIC_BACKING = 0x0E0:64,
    AVIC_LOGICAL = 0x0F0:64, AVIC_PHYSICAL = 0x0F8:64,
    ES = 0x400:16, ES_ATTRIBUTES = 0x402:16, ES_LIMIT = 0x404:32, ES_BASE = 0x408:64,
    CS = 0x410:16, CS_ATTRIBUTES = 0x412:16, CS_LIMIT = 0x414:32, CS_BASE = 0x418:64,
    SS = 0x420:16, SS_ATTRIBUTES = 0x422:16, SS_LIMIT = 0x424:32, SS_BASE = 0x428:64,
    DS = 0x430:16, DS_ATTRIBUTES = 0x432:16, DS_LIMIT = 0x434:32, DS_BASE = 0x438:64,
    GDTR_LIMIT = 0x464:32, GDTR_BASE = 0x468:64, IDTR_LIMIT = 0x484:32, IDTR_BASE = 0x488:64,
    CPL = 0x4CB:8, EFER = 0x4D0:64, CR4 = 0x548:64, CR3 = 0x550:64, CR0 = 0x558:64, DR7 = 0x560:64, DR6 = 0x568:64,
    RFLAGS = 0x570:64, RIP = 0x578:64, RSP = 0x5D8:64, RAX = 0x5F8:64, CR2 = 0x640:64, PAT = 0x668:64,
}

/// Bytes that any field above can reach.
pub const USED: usize = 0x700;

/// A VMCB's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vmcb {
    bytes: Vec<u8>,
}

impl Vmcb {
    /// All zero.
    #[must_use]
    pub fn zeroed() -> Vmcb {
        Vmcb { bytes: vec![0; 4096] }
    }

    /// The 4 KiB.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value of a field.
    #[must_use]
    pub fn get(&self, field: Field) -> u64 {
        let bytes = &self.bytes[field.offset..field.offset + field.bits as usize / 8];
        bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
    }

    /// Sets a field; bits beyond its width are dropped.
    pub fn set(&mut self, field: Field, value: u64) {
        let length = field.bits as usize / 8;
        self.bytes[field.offset..field.offset + length].copy_from_slice(&value.to_le_bytes()[..length]);
    }

    /// Offset and value of every 64-bit word that is not zero.
    #[must_use]
    pub fn words(&self) -> Vec<(u64, u64)> {
        (0..USED)
            .step_by(8)
            .map(|offset| (offset as u64, self.get(Field { offset, bits: 64 })))
            .filter(|&(_, value)| value != 0)
            .collect()
    }
}
