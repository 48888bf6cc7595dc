//! Memory encryption in numbers: what models with SME, SEV and SEV-ES report in CPUID 0x8000001f
//! (APM Vol. 3 (24594) "CPUID Fn8000_001F: Encrypted Memory Capabilities").

use crate::{Feature, FeatureSet};

/// EBX bits 5:0: the bit of physical addresses and page-table entries that marks encrypted pages. It lies above every
/// address that the models reach, so that EBX bits 11:6, by how many bits encryption narrows addresses, are 0.
pub const C_BIT: u8 = 51;
/// ECX: ASIDs 1 to this number can be used by encrypted guests.
pub const ENCRYPTED_GUESTS: u32 = 1006;
/// EDX: the least ASID of a guest with SEV but without SEV-ES.
pub const MIN_ASID_WITHOUT_ES: u32 = 100;
/// EAX bit 11: encrypted guests can be run only by a host in 64-bit mode.
const HOST_64_BIT_ONLY: u32 = 1 << 11;

/// EAX, EBX, ECX and EDX, without EAX's bits of features that the table of features has.
pub const fn leaf(features: &FeatureSet) -> [u32; 4] {
    if features.has(Feature::Sev) {
        [HOST_64_BIT_ONLY, C_BIT as u32, ENCRYPTED_GUESTS, MIN_ASID_WITHOUT_ES]
    } else {
        [0, C_BIT as u32, 0, 0]
    }
}
