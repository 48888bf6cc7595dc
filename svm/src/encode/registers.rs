//! EXITINFO1 of register moves and of SMIs
//! (APM Vol. 2 (24593 rev. 3.43) "MOV CRx/DRx Intercepts", "SMI Intercept").

use rootmode_arch::{Gpr, bits};

/// EXITINFO1 of a CR intercept, with decode assists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MovCr {
    /// The general-purpose register of a MOV: bits 3:0 with bit 63; `None` for CLTS, LMSW and SMSW.
    pub gpr: Option<Gpr>,
}

impl MovCr {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        match self.gpr {
            Some(gpr) => 1 << 63 | gpr.number() as u64,
            None => 0,
        }
    }
    /// From the field's value.
    pub const fn decode(info: u64) -> Self {
        Self { gpr: if info >> 63 != 0 { Some(Gpr::from_number(info as u8)) } else { None } }
    }
}

/// EXITINFO1 of a DR intercept, with decode assists: the general-purpose register in bits 3:0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MovDr {
    /// The register.
    pub gpr: Gpr,
}

impl MovDr {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        self.gpr.number() as u64
    }
    /// From the field's value.
    pub const fn decode(info: u64) -> Self {
        Self { gpr: Gpr::from_number(info as u8) }
    }
}

bits! {
    /// EXITINFO1 of an SMI. The upper half describes an I/O instruction, if VAL is set.
    pub struct SmiInfo(u64) {
        EXTERNAL = 0, "asserted externally, not by I/O trapping";
        MCREDIR = 1, "a redirected machine check";
        TYPE = 32, "IN";
        VAL = 33, "during an I/O instruction";
        STR = 34, "string instruction";
        REP = 35, "REP prefix";
        SZ8 = 36, "8-bit operand";
        SZ16 = 37, "16-bit operand";
        SZ32 = 38, "32-bit operand";
        A16 = 39, "16-bit address";
        A32 = 40, "32-bit address";
        A64 = 41, "64-bit address";
        TF = 43, "EFLAGS.TF";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn register_numbers_come_back() {
        for gpr in Gpr::ALL {
            assert_eq!(MovCr::decode(MovCr { gpr: Some(gpr) }.encode()).gpr, Some(gpr));
            assert_eq!(MovDr::decode(MovDr { gpr }.encode()).gpr, gpr);
        }
        assert_eq!(MovCr { gpr: Some(Gpr::R9) }.encode(), 0x8000_0000_0000_0009);
        assert_eq!(MovDr { gpr: Gpr::R9 }.encode(), 9, "no flag for debug registers");
        assert_eq!(MovCr::decode(0), MovCr { gpr: None });
    }
}
