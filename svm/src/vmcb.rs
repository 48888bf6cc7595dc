//! The virtual machine control block: its fields, their bits, and a 4 KiB image of it that knows what it knows.

mod bits;
mod image;
mod intercept;
mod layout;
mod typed;

pub use bits::{
    CLEAN_ROWS, Clean, CleanRow, EventInfo, EventKind, IntCtl, NestedControl, TlbControl, VirtExt,
};
pub use image::{Vmcb, Vmsa};
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

impl Vmcb {
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

#[cfg(test)]
mod tests;
