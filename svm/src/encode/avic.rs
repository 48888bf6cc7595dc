//! EXITINFO1 and EXITINFO2 of AVIC's exits (APM Vol. 2 (24593 rev. 3.43) "AVIC Exit Codes").

/// Why an IPI could not be delivered to all its targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum IpiFailure {
    /// Level-triggered, or a delivery mode that AVIC does not handle.
    InvalidType = 0,
    /// A target is not scheduled on a physical core.
    TargetNotRunning = 1,
    /// A target is not covered by the physical or logical table.
    InvalidTarget = 2,
    /// A target's backing page pointer is not a legal address.
    InvalidBackingPage = 3,
    /// The vector is below 16.
    InvalidVector = 4,
    /// Secure AVIC: the destination shorthand is not "self".
    Unaccelerated = 5,
}

impl IpiFailure {
    /// All causes.
    pub const ALL: [Self; 6] = [
        Self::InvalidType,
        Self::TargetNotRunning,
        Self::InvalidTarget,
        Self::InvalidBackingPage,
        Self::InvalidVector,
        Self::Unaccelerated,
    ];
}

/// AVIC_INCOMPLETE_IPI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IncompleteIpi {
    /// What was written to the interrupt command register: EXITINFO1, ICRH in bits 63:32.
    pub icr: u64,
    /// The cause: EXITINFO2 bits 63:32.
    pub cause: IpiFailure,
    /// Index of the table entry that stands in the way: EXITINFO2 bits 11:0; 0 for causes without one.
    pub index: u16,
}

impl IncompleteIpi {
    /// EXITINFO1 and EXITINFO2.
    pub const fn encode(self) -> (u64, u64) {
        (self.icr, (self.cause as u64) << 32 | (self.index & 0xfff) as u64)
    }
    /// From EXITINFO1 and EXITINFO2; `None` if the cause is reserved.
    pub fn decode(info1: u64, info2: u64) -> Option<Self> {
        let cause = IpiFailure::ALL.into_iter().find(|cause| *cause as u64 == info2 >> 32)?;
        Some(Self { icr: info1, cause, index: (info2 & 0xfff) as u16 })
    }
}

/// AVIC_NOACCEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NoAcceleration {
    /// Offset of the register in the backing page: EXITINFO1 bits 11:4; bits 3:0 are 0.
    pub offset: u16,
    /// A write: EXITINFO1 bit 32.
    pub write: bool,
    /// For writes of EOI the highest vector in service, else 0: EXITINFO2 bits 7:0.
    pub vector: u8,
}

impl NoAcceleration {
    /// EXITINFO1 and EXITINFO2.
    pub const fn encode(self) -> (u64, u64) {
        ((self.offset & 0xff0) as u64 | (self.write as u64) << 32, self.vector as u64)
    }
    /// From EXITINFO1 and EXITINFO2.
    pub const fn decode(info1: u64, info2: u64) -> Self {
        Self { offset: (info1 & 0xff0) as u16, write: info1 >> 32 & 1 != 0, vector: info2 as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn avic_exits_come_back() {
        for cause in IpiFailure::ALL {
            let ipi = IncompleteIpi { icr: 0x0300_0000_0004_40f2, cause, index: 0x1ff };
            let (info1, info2) = ipi.encode();
            assert_eq!(IncompleteIpi::decode(info1, info2), Some(ipi));
        }
        assert_eq!(IncompleteIpi::decode(0, 6 << 32), None);
        for offset in (0..0x1000).step_by(16) {
            let access = NoAcceleration { offset, write: offset & 0x10 != 0, vector: 0x31 };
            let (info1, info2) = access.encode();
            assert_eq!(NoAcceleration::decode(info1, info2), access);
        }
        assert_eq!(
            NoAcceleration { offset: 0xb0, write: true, vector: 0x41 }.encode(),
            (0x1_0000_00b0, 0x41)
        );
    }
}
