//! [`Page`]: a VMCB, the host save area or a VMSA, where it lies in simulated memory.

use crate::vmcb::{Area, Field, segment_fields};
use crate::{Vmcb, Vmsa};
use rootmode_arch::{AccessRights, HostPhysical, Segment, SegmentName, Selector};
use rootmode_mmu::PhysicalMemory;

/// What state is loaded from.
pub(super) trait Fields {
    /// The value of a field of at most 8 bytes.
    fn value(&self, field: Field) -> u64;
    /// A segment register of the state-save area.
    fn segment(&self, name: SegmentName) -> Segment;
}

impl Fields for Vmcb {
    #[inline(always)]
    fn value(&self, field: Field) -> u64 {
        self.get(field).unwrap_or(0)
    }
    fn segment(&self, name: SegmentName) -> Segment {
        self.segment(name).unwrap_or_default()
    }
}

impl Fields for Vmsa {
    #[inline(always)]
    fn value(&self, field: Field) -> u64 {
        self.get(field).unwrap_or(0)
    }
    fn segment(&self, name: SegmentName) -> Segment {
        let [selector, rights, limit, base] = segment_fields(name).map(|field| self.value(field));
        Segment {
            selector: Selector(selector as u16),
            rights: AccessRights::from_vmcb(rights as u16),
            limit: limit as u32,
            base,
        }
    }
}

/// Where saved state begins in a VMCB and in the host save area, whose format is that of a VMSA from there on
/// (APM Vol. 2 (24593 rev. 3.43) "VMRUN", on SEV-ES).
const AREA: usize = 0x400;
/// Where it begins in a VMSA.
pub(super) const WHOLE: usize = 0;

/// A page in memory in which saved state begins at byte `START`. Fields are read and written one by one: what is not
/// written stays.
pub(super) enum Page<'a, const START: usize = AREA> {
    /// RAM that nobody watches.
    Open(&'a mut [u8; 4096]),
    /// Any other page.
    Watched(&'a mut PhysicalMemory, HostPhysical),
}

impl<'a> Page<'a> {
    /// The VMCB or host save area at `at`, which is a multiple of 4096.
    pub(super) fn new(memory: &'a mut PhysicalMemory, at: HostPhysical) -> Self {
        Self::at(memory, at)
    }
}

impl<'a> Page<'a, WHOLE> {
    /// The VMSA at `at`, which is a multiple of 4096.
    pub(super) fn vmsa(memory: &'a mut PhysicalMemory, at: HostPhysical) -> Self {
        Self::at(memory, at)
    }
}

/// Where `field` lies in such a page, if it does.
const fn place<const START: usize>(field: Field) -> Option<usize> {
    let row = field.row();
    let at = match row.area {
        Area::Control if START == WHOLE => return None,
        Area::Control => row.offset as usize,
        Area::Save => row.offset as usize - AREA + START,
        Area::Vmsa => row.offset as usize + START,
    };
    if at + row.size as usize <= 4096 { Some(at) } else { None }
}

impl<'a, const START: usize> Page<'a, START> {
    fn at(memory: &'a mut PhysicalMemory, at: HostPhysical) -> Self {
        match memory.open_page(at) {
            Ok(page) => Self::Open(page),
            Err(memory) => Self::Watched(memory, at),
        }
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        match self {
            Self::Open(page) => bytes.copy_from_slice(&page[offset..offset + N]),
            Self::Watched(memory, at) => memory.read(at.offset(offset as u64), &mut bytes),
        }
        bytes
    }

    #[inline(always)]
    fn store<const N: usize>(&mut self, offset: usize, bytes: [u8; N]) {
        match self {
            Self::Open(page) => page[offset..offset + N].copy_from_slice(&bytes),
            Self::Watched(memory, at) => memory.write(at.offset(offset as u64), &bytes),
        }
    }

    /// Stores the low bytes of `value`; nothing if the field is not in such a page.
    #[inline(always)]
    pub(super) fn set(&mut self, field: Field, value: u64) {
        let Some(at) = place::<START>(field) else { return };
        match field.size() {
            1 => self.store(at, (value as u8).to_le_bytes()),
            2 => self.store(at, (value as u16).to_le_bytes()),
            4 => self.store(at, (value as u32).to_le_bytes()),
            _ => self.store(at, value.to_le_bytes()),
        }
    }

    /// Stores a field of any size.
    pub(super) fn set_bytes<const N: usize>(&mut self, field: Field, bytes: [u8; N]) {
        debug_assert_eq!(field.size(), N);
        if let Some(at) = place::<START>(field) {
            self.store(at, bytes);
        }
    }

    /// The bytes of a field of any size; zeros if the field is not in such a page.
    pub(super) fn bytes_of<const N: usize>(&self, field: Field) -> [u8; N] {
        debug_assert_eq!(field.size(), N);
        place::<START>(field).map_or([0; N], |at| self.load(at))
    }

    /// Stores a segment register, whose four fields lie side by side.
    #[inline(always)]
    pub(super) fn set_segment(&mut self, name: SegmentName, segment: &Segment) {
        let low = u128::from(segment.selector.0) | u128::from(segment.rights.to_vmcb()) << 16;
        let all = low | u128::from(segment.limit) << 32 | u128::from(segment.base) << 64;
        if let Some(at) = place::<START>(segment_fields(name)[0]) {
            self.store(at, all.to_le_bytes());
        }
    }
}

impl<const START: usize> Fields for Page<'_, START> {
    #[inline(always)]
    fn value(&self, field: Field) -> u64 {
        let Some(at) = place::<START>(field) else { return 0 };
        match field.size() {
            1 => self.load::<1>(at)[0].into(),
            2 => u16::from_le_bytes(self.load(at)).into(),
            4 => u32::from_le_bytes(self.load(at)).into(),
            _ => u64::from_le_bytes(self.load(at)),
        }
    }

    #[inline(always)]
    fn segment(&self, name: SegmentName) -> Segment {
        let Some(at) = place::<START>(segment_fields(name)[0]) else { return Segment::default() };
        let all = u128::from_le_bytes(self.load(at));
        Segment {
            selector: Selector(all as u16),
            rights: AccessRights::from_vmcb((all >> 16) as u16),
            limit: (all >> 32) as u32,
            base: (all >> 64) as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_of_a_segment_lie_side_by_side_in_the_order_in_which_they_are_moved() {
        for name in SegmentName::ALL {
            let places = segment_fields(name).map(|field| (field.vmcb_offset().unwrap(), field.size()));
            let first = places[0].0;
            assert_eq!(places, [(first, 2), (first + 2, 2), (first + 4, 4), (first + 8, 8)], "{name:?}");
        }
    }

    #[test]
    fn a_page_answers_what_an_image_of_it_does_and_leaves_the_rest_alone() {
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0), 0x4000).unwrap();
        let bytes: Vec<u8> = (0..4096).map(|n| (n * 7 % 251) as u8).collect();
        memory.write(HostPhysical(0x2000), &bytes);
        let mut image = Vmcb::from_bytes(bytes.try_into().unwrap());
        let vmsa = Vmsa::from_bytes(*image.as_bytes());
        let page = Page::vmsa(&mut memory, HostPhysical(0x2000));
        for field in Field::all().filter(|f| f.vmsa_offset().is_some() && f.size() <= 8) {
            assert_eq!(page.value(field), Fields::value(&vmsa, field), "{field:?}");
        }
        let mut page = Page::new(&mut memory, HostPhysical(0x2000));
        for field in Field::all().filter(|f| f.vmcb_offset().is_some() && f.size() <= 8) {
            assert_eq!(page.value(field), Fields::value(&image, field), "{field:?}");
        }
        for name in SegmentName::ALL {
            assert_eq!(page.segment(name), Fields::segment(&image, name));
        }
        for field in [Field::Cpl, Field::Rip, Field::GdtrLimit, Field::Asid] {
            image.set(field, 0x1122_3344_5566_7788);
            page.set(field, 0x1122_3344_5566_7788);
        }
        let segment = Segment { selector: Selector(0x1234), base: 5, limit: 6, ..Segment::default() };
        image.set_segment(SegmentName::Ss, &segment);
        page.set_segment(SegmentName::Ss, &segment);
        let mut after = [0; 4096];
        memory.read(HostPhysical(0x2000), &mut after);
        assert_eq!(&after, image.as_bytes());
    }
}
