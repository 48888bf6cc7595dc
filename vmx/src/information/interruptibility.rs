//! [`Interruptibility`]: which events the guest's earlier instructions block.

/// The guest interruptibility-state field (SDM Vol. 3C "Guest Non-Register State").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Interruptibility(pub u32);

impl Interruptibility {
    /// Bit 0: blocking by STI.
    pub const STI: Self = Self(1 << 0);
    /// Bit 1: blocking by MOV SS or POP SS.
    pub const MOV_SS: Self = Self(1 << 1);
    /// Bit 2: blocking by SMI.
    pub const SMI: Self = Self(1 << 2);
    /// Bit 3: blocking by NMI; of virtual NMIs if "virtual NMIs" is 1.
    pub const NMI: Self = Self(1 << 3);
    /// Bit 4: the VM exit was incident to enclave mode.
    pub const ENCLAVE: Self = Self(1 << 4);

    /// The defined bits with their meanings, ascending.
    pub const TABLE: [(Self, &'static str); 5] = [
        (Self::STI, "blocking by STI"),
        (Self::MOV_SS, "blocking by MOV SS"),
        (Self::SMI, "blocking by SMI"),
        (Self::NMI, "blocking by NMI"),
        (Self::ENCLAVE, "enclave interruption"),
    ];
    /// Bits that must be 0.
    pub const RESERVED: u32 = !0x1f;

    /// The field's value.
    pub const fn encode(self) -> u32 {
        self.0
    }
    /// From the field's value; `None` if a reserved bit is set.
    pub const fn decode(value: u32) -> Option<Self> {
        if value & Self::RESERVED != 0 { None } else { Some(Self(value)) }
    }
    /// Whether every bit of `other` is set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// Whether any bit of `other` is set.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    /// The union.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// This state without the bits of `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl core::fmt::Debug for Interruptibility {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Interruptibility({:#x}", self.0)?;
        for (bit, text) in Self::TABLE {
            if self.contains(bit) {
                write!(f, ", {text}")?;
            }
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defined_state_survives_the_round_trip_and_every_reserved_bit_is_refused() {
        for value in 0..32 {
            let state = Interruptibility::decode(value).expect("only defined bits");
            assert_eq!(state.encode(), value);
            let named = Interruptibility::TABLE.iter().filter(|(bit, _)| state.contains(*bit)).count();
            assert_eq!(named as u32, value.count_ones());
        }
        for bit in 5..32 {
            assert_eq!(Interruptibility::decode(1 << bit), None);
        }
        let both = Interruptibility::STI.with(Interruptibility::NMI);
        assert!(both.intersects(Interruptibility::NMI) && !both.contains(Interruptibility::MOV_SS));
        assert_eq!(both.without(Interruptibility::STI), Interruptibility(8));
    }
}
