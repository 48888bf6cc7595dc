//! [`Plain`]: structures of the interface as bytes, the same on every host.

/// A value that the interface passes as bytes: little-endian, one field behind the other.
pub trait Plain: Copy {
    /// Bytes.
    const SIZE: usize;
    /// All bytes zero.
    const ZERO: Self;

    /// Appends the value's bytes.
    fn put(&self, bytes: &mut Vec<u8>);

    /// Takes a value off the front of `bytes`; what is missing there counts as zero.
    fn take(bytes: &mut &[u8]) -> Self;

    /// The value's bytes.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(Self::SIZE);
        self.put(&mut bytes);
        bytes
    }

    /// The value that `bytes` begin with; what is missing counts as zero.
    fn from_bytes(mut bytes: &[u8]) -> Self {
        Self::take(&mut bytes)
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Plain for $number {
            const SIZE: usize = size_of::<Self>();
            const ZERO: Self = 0;

            fn put(&self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn take(bytes: &mut &[u8]) -> Self {
                let mut own = [0; size_of::<Self>()];
                let (head, tail) = bytes.split_at(own.len().min(bytes.len()));
                own[..head.len()].copy_from_slice(head);
                *bytes = tail;
                Self::from_le_bytes(own)
            }
        }
    )*};
}

numbers! { u8 u16 u32 u64 i16 i32 i64 }

impl<T: Plain, const N: usize> Plain for [T; N] {
    const SIZE: usize = T::SIZE * N;
    const ZERO: Self = [T::ZERO; N];

    fn put(&self, bytes: &mut Vec<u8>) {
        for element in self {
            element.put(bytes);
        }
    }

    fn take(bytes: &mut &[u8]) -> Self {
        core::array::from_fn(|_| T::take(bytes))
    }
}

/// Declares structures of the interface: `repr(C)`, without padding that has no name, plain.
macro_rules! structures {
    ($($(#[$meta:meta])* $name:ident = $c:literal { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$meta])*
        #[doc = concat!("`struct ", $c, "`.")]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(C)]
        #[allow(missing_docs, reason = "the fields have the names that Linux's documentation explains")]
        pub struct $name { $(pub $field: $type,)* }

        impl $crate::kvm::abi::Plain for $name {
            const SIZE: usize = 0 $(+ <$type as $crate::kvm::abi::Plain>::SIZE)*;
            const ZERO: Self = Self { $($field: <$type as $crate::kvm::abi::Plain>::ZERO,)* };

            fn put(&self, bytes: &mut Vec<u8>) {
                $(self.$field.put(bytes);)*
            }

            fn take(bytes: &mut &[u8]) -> Self {
                Self { $($field: $crate::kvm::abi::Plain::take(bytes),)* }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                <Self as $crate::kvm::abi::Plain>::ZERO
            }
        }

        const _: () = assert!(
            size_of::<$name>() == <$name as $crate::kvm::abi::Plain>::SIZE,
            "a structure has padding without a name"
        );
    )*};
}

pub(super) use structures;
