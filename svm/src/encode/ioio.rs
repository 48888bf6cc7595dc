//! EXITINFO1 of an IOIO intercept (APM Vol. 2 (24593 rev. 3.43) "IN and OUT Behavior").

use rootmode_arch::SegmentName;
use rootmode_arch::event::PortAccess;

/// The intercepted port access. EXITINFO2 is the address of the next instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IoioInfo {
    /// Port number: bits 31:16.
    pub port: u16,
    /// Effective segment of a string instruction: bits 12:10, numbered ES, CS, SS, DS, FS, GS.
    pub segment: u8,
    /// Address size in bytes (2, 4, 8): bits 7, 8, 9; 0 when none of them is set.
    pub address_size: u8,
    /// Operand size in bytes (1, 2, 4): bits 4, 5, 6.
    pub size: u8,
    /// REP prefix: bit 3.
    pub rep: bool,
    /// INS or OUTS: bit 2.
    pub string: bool,
    /// IN or INS: bit 0.
    pub input: bool,
}

impl IoioInfo {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        self.input as u64
            | (self.string as u64) << 2
            | (self.rep as u64) << 3
            | ((self.size & 7) as u64) << 4
            | ((self.address_size as u64) >> 1 & 7) << 7
            | ((self.segment & 7) as u64) << 10
            | (self.port as u64) << 16
    }
    /// From the field's value.
    pub const fn decode(info: u64) -> Self {
        Self {
            port: (info >> 16) as u16,
            segment: (info >> 10 & 7) as u8,
            address_size: (info >> 7 & 7) as u8 * 2,
            size: (info >> 4 & 7) as u8,
            rep: info >> 3 & 1 != 0,
            string: info >> 2 & 1 != 0,
            input: info & 1 != 0,
        }
    }
}

impl IoioInfo {
    /// What is reported of `access` by code whose address size is `code_address_size` bytes: IN and OUT have no memory
    /// operand, and report the code's address size and no segment.
    pub const fn new(access: &PortAccess, code_address_size: u8) -> Self {
        let segment = match access.segment {
            SegmentName::Es => 0,
            SegmentName::Cs => 1,
            SegmentName::Ss => 2,
            SegmentName::Ds => 3,
            SegmentName::Fs => 4,
            SegmentName::Gs => 5,
            SegmentName::Ldtr | SegmentName::Tr => 0,
        };
        Self {
            port: access.port,
            segment: if access.string { segment } else { 0 },
            address_size: if access.string { access.address_size } else { code_address_size },
            size: access.size,
            rep: access.rep,
            string: access.string,
            input: access.input,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_comes_back_and_no_two_share_a_value() {
        let mut seen = std::collections::BTreeSet::new();
        for port in [0, 1, 0x60, 0xcf8, 0xffff] {
            for bits in 0..8u8 {
                for (size, address_size) in [1, 2, 4].into_iter().flat_map(|s| [2, 4, 8].map(|a| (s, a))) {
                    for segment in 0..6 {
                        let (rep, string, input) = (bits & 4 != 0, bits & 2 != 0, bits & 1 != 0);
                        let info = IoioInfo { port, segment, address_size, size, rep, string, input };
                        assert_eq!(IoioInfo::decode(info.encode()), info);
                        assert!(seen.insert(info.encode()));
                    }
                }
            }
        }
    }

    #[test]
    fn known_values_of_the_figure() {
        // `in al, dx` at port 0x3f8 with 64-bit addresses: TYPE, SZ8, A64.
        let access = IoioInfo {
            port: 0x3f8,
            segment: 0,
            address_size: 8,
            size: 1,
            rep: false,
            string: false,
            input: true,
        };
        assert_eq!(access.encode(), 0x03f8_0211);
        // `rep outsd` from FS at port 0x1f0 with 32-bit addresses: STR, REP, SZ32, A32.
        let access = IoioInfo {
            port: 0x1f0,
            segment: 4,
            address_size: 4,
            size: 4,
            rep: true,
            string: true,
            input: false,
        };
        assert_eq!(access.encode(), 0x01f0_114c);
    }
}
