//! One type per address space: a linear address is not a guest-physical one, a guest-physical not a host-physical one.

macro_rules! address {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The number of the 4 KiB page or frame that holds the address.
            pub const fn page_number(self) -> u64 {
                self.0 >> 12
            }
            /// Offset within the 4 KiB page, 0 to 4095.
            pub const fn page_offset(self) -> u64 {
                self.0 & 0xfff
            }
            /// The first address of the 4 KiB page.
            pub const fn page_base(self) -> Self {
                Self(self.0 & !0xfff)
            }
            /// The address `bytes` further on, wrapping at 2^64.
            pub const fn offset(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
            /// Whether the address is a multiple of `alignment`, a power of two.
            pub const fn is_aligned(self, alignment: u64) -> bool {
                self.0 & (alignment - 1) == 0
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }
        impl core::fmt::LowerHex for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                core::fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address!(
    /// A linear address: after segmentation, before paging.
    Linear
);
address!(
    /// A guest-physical address: what a guest's paging structures yield. Without a second stage it is also host-physical.
    GuestPhysical
);
address!(
    /// A host-physical address: what reaches the simulated memory bus.
    HostPhysical
);

impl Linear {
    /// Whether bits 63 down to `width - 1` are all equal; `width` is 48 or 57
    /// (SDM Vol. 1 "Canonical Addressing").
    pub const fn is_canonical(self, width: u32) -> bool {
        let shift = 64 - width;
        ((self.0 << shift) as i64 >> shift) as u64 == self.0
    }
}

impl GuestPhysical {
    /// The host-physical address with the same number, for a machine without a second stage.
    pub const fn identity(self) -> HostPhysical {
        HostPhysical(self.0)
    }
}
