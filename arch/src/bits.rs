//! `bits!`: a register as a newtype whose named bits are constants *and* a table that docs and errors read.

/// One named bit of a register: a row of the register's `TABLE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bit {
    /// Bit number, 0 is the least significant.
    pub bit: u8,
    /// The manual's mnemonic.
    pub name: &'static str,
    /// What the bit means, in a few words.
    pub text: &'static str,
}

/// Declares a register type with named single bits. Multi-bit fields are methods written beside it.
#[macro_export]
macro_rules! bits {
    ($(#[$meta:meta])* pub struct $name:ident($int:ty) { $($flag:ident = $bit:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
        #[repr(transparent)]
        pub struct $name(pub $int);

        #[allow(clippy::unnecessary_cast, reason = "the macro serves several integer widths")]
        impl $name {
            $(#[doc = $text] pub const $flag: Self = Self((1 as $int) << $bit);)*

            /// Every named bit, ascending.
            pub const TABLE: &'static [$crate::Bit] =
                &[$($crate::Bit { bit: $bit, name: stringify!($flag), text: $text }),*];

            /// The union of all named bits.
            pub const NAMED: Self = Self(0 $(| ((1 as $int) << $bit))*);

            /// No bit set.
            pub const fn empty() -> Self {
                Self(0)
            }
            /// The raw value.
            pub const fn bits(self) -> $int {
                self.0
            }
            /// Whether every bit of `other` is set.
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }
            /// Whether any bit of `other` is set.
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }
            /// This value with the bits of `other` set.
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
            /// This value with the bits of `other` cleared.
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }
            /// This value with the bits of `other` set or cleared.
            pub const fn set(self, other: Self, on: bool) -> Self {
                if on { self.with(other) } else { self.without(other) }
            }
        }

        impl core::ops::BitOr for $name {
            type Output = Self;
            fn bitor(self, other: Self) -> Self {
                self.with(other)
            }
        }
        impl core::ops::BitAnd for $name {
            type Output = Self;
            fn bitand(self, other: Self) -> Self {
                Self(self.0 & other.0)
            }
        }
        impl core::ops::Not for $name {
            type Output = Self;
            fn not(self) -> Self {
                Self(!self.0)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({:#x}", stringify!($name), self.0)?;
                for row in Self::TABLE {
                    if self.0 & ((1 as $int) << row.bit) != 0 {
                        write!(f, " {}", row.name)?;
                    }
                }
                f.write_str(")")
            }
        }
    };
}
