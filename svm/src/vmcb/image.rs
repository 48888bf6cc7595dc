//! 4 KiB images of a VMCB and of an SEV-ES guest's VMSA, in the manual's byte order on every host, with a mark on each
//! field whether it is known.

use super::{Field, Known, SIZE};

macro_rules! image {
    ($(#[$meta:meta])* $name:ident, $offset:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq)]
        #[repr(C, align(64))]
        pub struct $name {
            bytes: [u8; SIZE],
            known: Known,
        }

        impl $name {
            /// A page of zeros, every field known.
            pub const fn zeroed() -> Self {
                Self { bytes: [0; SIZE], known: Known::EVERYTHING }
            }

            /// No field known. Unknown fields read as absent; their bytes are zero.
            pub const fn unknown() -> Self {
                Self { bytes: [0; SIZE], known: Known::NOTHING }
            }

            /// What the page holds, every field known.
            pub const fn from_bytes(bytes: [u8; SIZE]) -> Self {
                Self { bytes, known: Known::EVERYTHING }
            }

            /// The page as the processor sees it.
            pub const fn as_bytes(&self) -> &[u8; SIZE] {
                &self.bytes
            }

            /// The page, to be replaced: every field becomes known.
            pub const fn bytes_mut(&mut self) -> &mut [u8; SIZE] {
                self.known = Known::EVERYTHING;
                &mut self.bytes
            }

            /// Which fields are known.
            pub const fn known(&self) -> &Known {
                &self.known
            }

            /// The value of a field of at most eight bytes; `None` if it is not known, longer, or in another structure.
            #[inline(always)]
            pub fn get(&self, field: Field) -> Option<u64> {
                if self.known.has(field) { self.read(field) } else { None }
            }

            #[inline(always)]
            fn read(&self, field: Field) -> Option<u64> {
                let at = field.$offset()?;
                let bytes = &self.bytes;
                Some(match field.size() {
                    1 => bytes[at].into(),
                    2 => u16::from_le_bytes([bytes[at], bytes[at + 1]]).into(),
                    4 => u32::from_le_bytes(*bytes[at..].first_chunk()?).into(),
                    8 => u64::from_le_bytes(*bytes[at..].first_chunk()?),
                    _ => return None,
                })
            }

            /// Stores the low bytes of `value` and marks the field as known. False, and nothing happens, if the field is
            /// longer than eight bytes or in another structure.
            pub fn set(&mut self, field: Field, value: u64) -> bool {
                let size = field.size();
                size <= 8 && self.set_bytes(field, &value.to_le_bytes()[..size])
            }

            /// The bytes of a field of any size; `None` if it is not known or in another structure.
            pub fn bytes_of(&self, field: Field) -> Option<&[u8]> {
                let at = field.$offset()?;
                self.known.has(field).then(|| &self.bytes[at..at + field.size()])
            }

            /// Stores a field of any size and marks it as known. False, and nothing happens, if the length differs or the
            /// field is in another structure.
            pub fn set_bytes(&mut self, field: Field, value: &[u8]) -> bool {
                let Some(at) = field.$offset() else { return false };
                if value.len() != field.size() {
                    return false;
                }
                self.bytes[at..at + value.len()].copy_from_slice(value);
                self.known.mark(field, true);
                true
            }

            /// Makes a field unknown; its bytes become zero.
            pub fn forget(&mut self, field: Field) {
                if let Some(at) = field.$offset() {
                    self.bytes[at..at + field.size()].fill(0);
                }
                self.known.mark(field, false);
            }
        }

        impl core::fmt::Debug for $name {
            /// The known fields that are not zero, by name.
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                let mut list = f.debug_struct(stringify!($name));
                for field in Field::all() {
                    match self.get(field) {
                        Some(0) | None => {}
                        Some(value) => {
                            list.field(field.name(), &format_args!("{value:#x}"));
                        }
                    }
                }
                list.finish_non_exhaustive()
            }
        }
    };
}

image! {
    /// An image of a VMCB.
    ///
    /// ```
    /// use rootmode_svm::vmcb::{Field, Vmcb};
    /// let mut vmcb = Vmcb::unknown();
    /// assert_eq!(vmcb.get(Field::Cr0), None);
    /// vmcb.set(Field::Cr0, 0x8000_0031);
    /// assert_eq!(vmcb.get(Field::Cr0), Some(0x8000_0031));
    /// assert_eq!(vmcb.as_bytes()[0x558..0x55c], [0x31, 0, 0, 0x80]);
    /// ```
    Vmcb, vmcb_offset
}

image! {
    /// An image of the VM save area of an SEV-ES guest: decrypted, as the processor sees it.
    Vmsa, vmsa_offset
}
