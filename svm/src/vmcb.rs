//! The virtual machine control block: its fields, their bits, and a 4 KiB image of it that knows what it knows.

mod bits;
mod intercept;
mod layout;

pub use bits::{
    CLEAN_ROWS, Clean, CleanRow, EventInfo, EventKind, IntCtl, NestedControl, TlbControl, VirtExt,
};
pub use intercept::{INTERCEPTS, Intercept, InterceptRow, Intercepts};
pub use layout::{Area, Field, Row, TABLE};

use rootmode_arch::segment::{AccessRights, Segment, SegmentName, Selector};

/// Bytes of a VMCB, and of a VMSA.
pub const SIZE: usize = 4096;

/// Which fields of an image hold a value that somebody stated: a dump in a log, for example, lacks some.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Known([u64; 4]);

impl Known {
    /// No field.
    pub const NOTHING: Self = Self([0; 4]);
    /// Every field.
    pub const EVERYTHING: Self = Self([!0; 4]);

    /// Whether `field` is known.
    #[inline(always)]
    pub const fn has(&self, field: Field) -> bool {
        self.0[field as usize / 64] >> (field as usize % 64) & 1 != 0
    }
    /// Marks `field` as known or not.
    pub const fn mark(&mut self, field: Field, known: bool) {
        let word = &mut self.0[field as usize / 64];
        let bit = 1 << (field as usize % 64);
        *word = if known { *word | bit } else { *word & !bit };
    }
}

/// An image of a VMCB, in the byte order of the manual on every host, with a mark on each field whether it is known.
///
/// ```
/// use rootmode_svm::vmcb::{Field, Vmcb};
/// let mut vmcb = Vmcb::unknown();
/// assert_eq!(vmcb.get(Field::Cr0), None);
/// vmcb.set(Field::Cr0, 0x8000_0031);
/// assert_eq!(vmcb.get(Field::Cr0), Some(0x8000_0031));
/// assert_eq!(vmcb.as_bytes()[0x558..0x55c], [0x31, 0, 0, 0x80]);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Vmcb {
    bytes: [u8; SIZE],
    known: Known,
}

impl Vmcb {
    /// A page of zeros, every field known.
    pub const fn zeroed() -> Self {
        Self { bytes: [0; SIZE], known: Known::EVERYTHING }
    }

    /// No field known. Unknown fields read as absent; their bytes are zero.
    pub const fn unknown() -> Self {
        Self { bytes: [0; SIZE], known: Known::NOTHING }
    }

    /// The VMCB that the page holds, every field known.
    pub const fn from_bytes(bytes: [u8; SIZE]) -> Self {
        Self { bytes, known: Known::EVERYTHING }
    }

    /// The page as the processor sees it.
    pub const fn as_bytes(&self) -> &[u8; SIZE] {
        &self.bytes
    }

    /// Which fields are known.
    pub const fn known(&self) -> &Known {
        &self.known
    }

    /// The value of a field of at most eight bytes; `None` if it is not known, longer, or only in the VMSA.
    #[inline(always)]
    pub fn get(&self, field: Field) -> Option<u64> {
        if self.known.has(field) { self.read(field) } else { None }
    }

    /// The value of a field whether known or not (then zero); `None` if it is longer than eight bytes or not here.
    #[inline(always)]
    fn read(&self, field: Field) -> Option<u64> {
        let at = field.vmcb_offset()?;
        let bytes = &self.bytes;
        Some(match field.size() {
            1 => bytes[at].into(),
            2 => u16::from_le_bytes([bytes[at], bytes[at + 1]]).into(),
            4 => u32::from_le_bytes(*bytes[at..].first_chunk()?).into(),
            8 => u64::from_le_bytes(*bytes[at..].first_chunk()?),
            _ => return None,
        })
    }

    /// Stores the low bytes of `value` and marks the field as known. False, and nothing happens, if the field is longer
    /// than eight bytes or only in the VMSA.
    pub fn set(&mut self, field: Field, value: u64) -> bool {
        let Some(at) = field.vmcb_offset() else { return false };
        let size = field.size();
        if size > 8 {
            return false;
        }
        self.bytes[at..at + size].copy_from_slice(&value.to_le_bytes()[..size]);
        self.known.mark(field, true);
        true
    }

    /// The bytes of a field of any size; `None` if it is not known or only in the VMSA.
    pub fn bytes_of(&self, field: Field) -> Option<&[u8]> {
        let at = field.vmcb_offset()?;
        self.known.has(field).then(|| &self.bytes[at..at + field.size()])
    }

    /// Stores a field of any size and marks it as known. False, and nothing happens, if the length differs or the field
    /// is only in the VMSA.
    pub fn set_bytes(&mut self, field: Field, value: &[u8]) -> bool {
        let Some(at) = field.vmcb_offset() else { return false };
        if value.len() != field.size() {
            return false;
        }
        self.bytes[at..at + value.len()].copy_from_slice(value);
        self.known.mark(field, true);
        true
    }

    /// Makes a field unknown; its bytes become zero.
    pub fn forget(&mut self, field: Field) {
        if let Some(at) = field.vmcb_offset() {
            self.bytes[at..at + field.size()].fill(0);
        }
        self.known.mark(field, false);
    }

    /// All six intercept vectors, if known.
    #[inline]
    pub fn intercepts(&self) -> Option<Intercepts> {
        let mut words = [0; 6];
        for (word, field) in words.iter_mut().zip(Intercepts::FIELDS) {
            *word = self.get(field)? as u32;
        }
        Some(Intercepts(words))
    }

    /// Stores all six intercept vectors.
    pub fn set_intercepts(&mut self, intercepts: Intercepts) {
        for (word, field) in intercepts.0.into_iter().zip(Intercepts::FIELDS) {
            self.set(field, word.into());
        }
    }

    /// A segment register, if all four of its fields are known.
    pub fn segment(&self, name: SegmentName) -> Option<Segment> {
        let [selector, attrib, limit, base] = segment_fields(name);
        Some(Segment {
            selector: Selector(self.get(selector)? as u16),
            rights: AccessRights::from_vmcb(self.get(attrib)? as u16),
            limit: self.get(limit)? as u32,
            base: self.get(base)?,
        })
    }

    /// Stores a segment register.
    pub fn set_segment(&mut self, name: SegmentName, segment: &Segment) {
        let [selector, attrib, limit, base] = segment_fields(name);
        self.set(selector, segment.selector.0.into());
        self.set(attrib, segment.rights.to_vmcb().into());
        self.set(limit, segment.limit.into());
        self.set(base, segment.base);
    }
}

/// Selector, attributes, limit and base of a segment register.
pub const fn segment_fields(name: SegmentName) -> [Field; 4] {
    match name {
        SegmentName::Es => [Field::EsSelector, Field::EsAttrib, Field::EsLimit, Field::EsBase],
        SegmentName::Cs => [Field::CsSelector, Field::CsAttrib, Field::CsLimit, Field::CsBase],
        SegmentName::Ss => [Field::SsSelector, Field::SsAttrib, Field::SsLimit, Field::SsBase],
        SegmentName::Ds => [Field::DsSelector, Field::DsAttrib, Field::DsLimit, Field::DsBase],
        SegmentName::Fs => [Field::FsSelector, Field::FsAttrib, Field::FsLimit, Field::FsBase],
        SegmentName::Gs => [Field::GsSelector, Field::GsAttrib, Field::GsLimit, Field::GsBase],
        SegmentName::Ldtr => [Field::LdtrSelector, Field::LdtrAttrib, Field::LdtrLimit, Field::LdtrBase],
        SegmentName::Tr => [Field::TrSelector, Field::TrAttrib, Field::TrLimit, Field::TrBase],
    }
}

impl core::fmt::Debug for Vmcb {
    /// The known fields that are not zero, by name.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut list = f.debug_struct("Vmcb");
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

#[cfg(test)]
mod tests;
