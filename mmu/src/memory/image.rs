//! [`MemoryImage`]: the written lines of a memory, for snapshots.

use super::{PhysicalMemory, Region, WRITTEN, watch::LINE};
use rootmode_arch::HostPhysical;

/// The contents of every line that was ever written, ascending by address. Its size is what was written.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct MemoryImage {
    lines: Vec<(HostPhysical, [u8; LINE])>,
}

impl MemoryImage {
    /// The stored lines: address and 128 bytes each, ascending.
    pub fn lines(&self) -> &[(HostPhysical, [u8; 128])] {
        &self.lines
    }
}

impl PhysicalMemory {
    /// Copies every written line. Changes nothing.
    pub fn image(&self) -> MemoryImage {
        let mut image = MemoryImage::default();
        for region in &self.regions {
            for at in (0..region.bytes as usize).step_by(LINE) {
                let offset = region.offset + at;
                if self.lines[offset / LINE] & WRITTEN != 0 {
                    let bytes = self.bytes[offset..offset + LINE].try_into();
                    let address = HostPhysical(region.base + at as u64);
                    image.lines.push((address, bytes.expect("a line has LINE bytes")));
                }
            }
        }
        image
    }

    /// Puts back what [`Self::image`] copied, in the same layout. Lines written since return to zero.
    /// Decoded code becomes stale; watches stay.
    pub fn restore(&mut self, image: &MemoryImage) {
        for Region { base, bytes, offset } in self.regions.clone() {
            for at in (0..bytes as usize).step_by(LINE) {
                let line = (offset + at) / LINE;
                if self.lines[line] & WRITTEN != 0 {
                    self.bytes[line * LINE..(line + 1) * LINE].fill(0);
                    self.touch(base + at as u64, line);
                    self.lines[line] &= !WRITTEN;
                }
            }
        }
        for (at, bytes) in &image.lines {
            self.write(*at, bytes);
        }
        self.epoch += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::super::{LayoutError, PageKind};
    use super::*;
    use crate::Digest;

    fn memory() -> PhysicalMemory {
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0x10_0000), 0x2000).unwrap();
        memory.add_ram(HostPhysical(0), 0x2000).unwrap();
        memory.add_mmio(HostPhysical(0xfee0_0000), 0x1000).unwrap();
        memory
    }

    fn digest(memory: &PhysicalMemory) -> u128 {
        let mut digest = Digest::new();
        memory.digest(&mut digest);
        digest.finish()
    }

    #[test]
    fn an_image_costs_what_was_written_and_restores_exactly() {
        let mut memory = memory();
        memory.write_u64(HostPhysical(0x10_0ffc), 0x1234_5678_9abc_def0);
        memory.write_u8(HostPhysical(5), 7);
        let image = memory.image();
        assert_eq!(image.lines().len(), 3, "a straddling store and a byte: three lines");
        let before = digest(&memory);
        memory.write_u64(HostPhysical(0x1000), 1);
        memory.write_u8(HostPhysical(5), 8);
        assert_ne!(digest(&memory), before);
        memory.restore(&image);
        assert_eq!(digest(&memory), before);
        assert_eq!(memory.image(), image);
        assert_eq!(memory.read_u64(HostPhysical(0x10_0ffc)), 0x1234_5678_9abc_def0);
    }

    #[test]
    fn absent_memory_reads_ones_and_drops_writes_also_across_an_edge() {
        let mut memory = memory();
        memory.write_u64(HostPhysical(0x1ffc), 0x1111_1111_2222_2222);
        assert_eq!(memory.read_u64(HostPhysical(0x1ffc)), 0xffff_ffff_2222_2222);
        assert_eq!(memory.read_u32(HostPhysical(0xfee0_0000)), 0xffff_ffff);
    }

    #[test]
    fn kinds_follow_the_layout_and_overlaps_are_refused() {
        let mut memory = memory();
        assert_eq!(memory.kind(HostPhysical(0x1fff)), PageKind::Ram);
        assert_eq!(memory.kind(HostPhysical(0x2000)), PageKind::Absent);
        assert_eq!(memory.kind(HostPhysical(0xfee0_0fff)), PageKind::Mmio);
        let overlap = memory.add_ram(HostPhysical(0x1000), 0x1000);
        assert!(matches!(overlap, Err(LayoutError::Overlap { other: HostPhysical(0), .. })));
        assert!(matches!(memory.add_mmio(HostPhysical(0x10), 0x1000), Err(LayoutError::Alignment { .. })));
        assert!(matches!(memory.add_ram(HostPhysical(1 << 52), 0x1000), Err(LayoutError::Width { .. })));
    }
}
