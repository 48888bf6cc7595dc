//! The ioctl's argument: two layouts, and every error they can lead to.

use super::{Filter, FilterRange, MsrBits};
use crate::kvm::Errno;
use crate::kvm::interception::Accesses;

/// Ranges in the argument, always.
pub const RANGES: usize = 16;
/// Bytes of a range's bitmap, at most: 12288 MSRs.
pub const MAX_BITMAP_BYTES: u32 = 0x600;

const DEFAULT_DENY: u32 = 1 << 0;
const RANGE_READ: u32 = 1 << 0;
const RANGE_WRITE: u32 = 1 << 1;

/// Which of the two layouts the argument has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// 64-bit userspace: 392 bytes, ioctl 0x4188aec6.
    Bits64,
    /// 32-bit userspace on a 64-bit kernel: 260 bytes, ioctl 0x4104aec6.
    Compat,
}

impl Layout {
    /// Bytes of the argument.
    pub const fn size(self) -> usize {
        match self {
            Self::Bits64 => 392,
            Self::Compat => 260,
        }
    }

    /// The ioctl's number.
    pub const fn ioctl(self) -> u32 {
        match self {
            Self::Bits64 => 0x4188_aec6,
            Self::Compat => 0x4104_aec6,
        }
    }

    /// The layout that belongs to an ioctl's number.
    pub const fn of_ioctl(number: u32) -> Option<Self> {
        match number {
            0x4188_aec6 => Some(Self::Bits64),
            0x4104_aec6 => Some(Self::Compat),
            _ => None,
        }
    }

    /// Offset of the first range, distance between ranges, offset of the pointer in a range, its size.
    const fn places(self) -> (usize, usize, usize, usize) {
        match self {
            Self::Bits64 => (8, 24, 16, 8),
            Self::Compat => (4, 16, 12, 4),
        }
    }
}

/// User memory could not be accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("user memory at {address:#x} cannot be read")]
pub struct UserFault {
    /// The address.
    pub address: u64,
}

/// The caller's memory, and the kernel's own, which may be short.
pub trait UserMemory {
    /// Copies from user memory.
    ///
    /// # Errors
    /// [`UserFault`] if not all of it can be read.
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), UserFault>;

    /// Whether the kernel can allocate this many bytes now.
    fn can_allocate(&mut self, _bytes: usize) -> bool {
        true
    }
}

/// Why a filter was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// The argument or a bitmap cannot be read.
    #[error(transparent)]
    Fault(#[from] UserFault),
    /// A bit beside DEFAULT_DENY is set in the filter's flags.
    #[error("flags {0:#x}: only bit 0 (default deny) is defined")]
    Flags(u32),
    /// All ranges are empty, and the default is to deny.
    #[error("default deny without any range would deny everything")]
    DeniesEverything,
    /// A bit beside READ and WRITE is set in a range's flags.
    #[error("range {range}: flags {flags:#x}: only bits 0 (read) and 1 (write) are defined")]
    RangeFlags {
        /// Index of the range.
        range: usize,
        /// Its flags.
        flags: u32,
    },
    /// A range with MSRs has neither READ nor WRITE.
    #[error("range {range}: neither read nor write")]
    NoAccess {
        /// Index of the range.
        range: usize,
    },
    /// A range's bitmap would have no byte or too many.
    #[error("range {range}: {nmsrs} MSRs; a bitmap holds 1 to 12288")]
    Size {
        /// Index of the range.
        range: usize,
        /// Its number of MSRs.
        nmsrs: u32,
    },
    /// The kernel has no memory.
    #[error("no memory for the filter")]
    NoMemory,
}

impl FilterError {
    /// What the ioctl returns.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Fault(_) => Errno::Efault,
            Self::NoMemory => Errno::Enomem,
            Self::Flags(_)
            | Self::DeniesEverything
            | Self::RangeFlags { .. }
            | Self::NoAccess { .. }
            | Self::Size { .. } => Errno::Einval,
        }
    }
}

fn number(bytes: &[u8], offset: usize, size: usize) -> u64 {
    bytes[offset..offset + size].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// A filter that was read, checked and is not yet visible to any vCPU.
pub type Prepared = Filter;

/// Reads the argument at `address` and every bitmap it points to.
///
/// # Errors
/// The first thing wrong, in the kernel's order.
pub fn prepare(layout: Layout, address: u64, memory: &mut dyn UserMemory) -> Result<Prepared, FilterError> {
    let mut argument = [0; 392];
    memory.read(address, &mut argument[..layout.size()])?;
    parse(layout, &argument[..layout.size()], memory)
}

/// Reads an argument that is at hand, and every bitmap it points to.
///
/// # Errors
/// The first thing wrong, in the kernel's order.
///
/// # Panics
/// If `argument` is shorter than the layout's size.
pub fn parse(layout: Layout, argument: &[u8], memory: &mut dyn UserMemory) -> Result<Prepared, FilterError> {
    let (first, distance, pointer, pointer_size) = layout.places();
    let field = |range: usize, offset| number(argument, first + range * distance + offset, 4) as u32;
    let (flags_at, nmsrs_at, base_at) = (0, 4, 8);

    let flags = number(argument, 0, 4) as u32;
    if flags & !DEFAULT_DENY != 0 {
        return Err(FilterError::Flags(flags));
    }
    let default_allow = flags & DEFAULT_DENY == 0;
    if !default_allow && (0..RANGES).all(|range| field(range, nmsrs_at) == 0) {
        return Err(FilterError::DeniesEverything);
    }
    if !memory.can_allocate(size_of::<Filter>()) {
        return Err(FilterError::NoMemory);
    }
    let mut filter = Filter { default_allow, ranges: Vec::new() };
    for range in 0..RANGES {
        let nmsrs = field(range, nmsrs_at);
        if nmsrs == 0 {
            continue;
        }
        let accesses = accesses(range, field(range, flags_at))?;
        // Whole 64-bit words, counted in 32 bits as the kernel does: numbers near 2^32 wrap to none.
        let bytes = nmsrs.wrapping_add(63) / 64 * 8;
        if bytes == 0 || bytes > MAX_BITMAP_BYTES {
            return Err(FilterError::Size { range, nmsrs });
        }
        if !memory.can_allocate(bytes as usize) {
            return Err(FilterError::NoMemory);
        }
        let mut bitmap = MsrBits::repeat(false, bytes as usize * 8);
        memory.read(
            number(argument, first + range * distance + pointer, pointer_size),
            bitmap.as_raw_mut_slice(),
        )?;
        filter.ranges.push(FilterRange { accesses, base: field(range, base_at), nmsrs, bitmap });
    }
    Ok(filter)
}

fn accesses(range: usize, flags: u32) -> Result<Accesses, FilterError> {
    match flags {
        RANGE_READ => Ok(Accesses::R),
        RANGE_WRITE => Ok(Accesses::W),
        0 => Err(FilterError::NoAccess { range }),
        flags if flags & !(RANGE_READ | RANGE_WRITE) != 0 => Err(FilterError::RangeFlags { range, flags }),
        _ => Ok(Accesses::RW),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kvm::Regressions;
    use crate::kvm::interception::Access;

    /// User memory: every byte is its address's low byte; nothing can be read from `end` on.
    struct Memory {
        end: u64,
        allocations: u32,
    }

    impl UserMemory for Memory {
        fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), UserFault> {
            if address + buffer.len() as u64 > self.end {
                return Err(UserFault { address });
            }
            buffer.iter_mut().zip(address..).for_each(|(byte, at)| *byte = at as u8);
            Ok(())
        }

        fn can_allocate(&mut self, _: usize) -> bool {
            self.allocations = self.allocations.saturating_sub(1);
            self.allocations > 0
        }
    }

    /// An argument with ranges (slot, flags, nmsrs, base, pointer).
    fn argument(layout: Layout, flags: u32, ranges: &[(usize, u32, u32, u32, u64)]) -> Vec<u8> {
        let mut bytes = vec![0xcc; layout.size()];
        let (first, distance) = if layout == Layout::Bits64 { (8, 24) } else { (4, 16) };
        bytes[..4].copy_from_slice(&flags.to_le_bytes());
        (0..16).for_each(|slot| bytes[first + slot * distance + 4..][..4].fill(0));
        for &(slot, flags, nmsrs, base, pointer) in ranges {
            let at = first + slot * distance;
            bytes[at..at + 4].copy_from_slice(&flags.to_le_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&nmsrs.to_le_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&base.to_le_bytes());
            if layout == Layout::Bits64 {
                bytes[at + 16..at + 24].copy_from_slice(&pointer.to_le_bytes());
            } else {
                bytes[at + 12..at + 16].copy_from_slice(&(pointer as u32).to_le_bytes());
            }
        }
        bytes
    }

    fn refused(flags: u32, ranges: &[(usize, u32, u32, u32, u64)], memory: Memory) -> FilterError {
        let both = [Layout::Bits64, Layout::Compat].map(|layout| {
            parse(layout, &argument(layout, flags, ranges), &mut Memory { ..memory }).unwrap_err()
        });
        assert_eq!(both[0], both[1], "both layouts agree");
        both[0]
    }

    const PLENTY: Memory = Memory { end: 0x1_0000, allocations: 100 };

    #[test]
    fn the_ioctl_numbers_encode_the_sizes_of_the_layouts() {
        for layout in [Layout::Bits64, Layout::Compat] {
            assert_eq!(layout.ioctl(), 1 << 30 | (layout.size() as u32) << 16 | 0xae << 8 | 0xc6);
            assert_eq!(Layout::of_ioctl(layout.ioctl()), Some(layout));
        }
        assert_eq!(Layout::of_ioctl(0x4004_aec6), None);
    }

    #[test]
    fn every_wrong_argument_has_its_error() {
        let range = |flags, nmsrs| [(3, flags, nmsrs, 0x48, 0x100)];
        assert_eq!(refused(2, &range(3, 1), PLENTY), FilterError::Flags(2));
        assert_eq!(refused(1, &[], PLENTY), FilterError::DeniesEverything);
        assert_eq!(refused(1, &range(3, 0), PLENTY), FilterError::DeniesEverything);
        assert_eq!(refused(0, &range(4, 1), PLENTY), FilterError::RangeFlags { range: 3, flags: 4 });
        assert_eq!(refused(0, &range(0, 1), PLENTY), FilterError::NoAccess { range: 3 });
        for nmsrs in [12289, 0x8000_0000, 0xffff_ffc0, 0xffff_ffc1, u32::MAX] {
            assert_eq!(refused(0, &range(3, nmsrs), PLENTY), FilterError::Size { range: 3, nmsrs });
        }
        let unreadable = Memory { end: 0x107, ..PLENTY };
        assert_eq!(refused(0, &range(3, 1), unreadable), FilterError::Fault(UserFault { address: 0x100 }));
        for allocations in [1, 2] {
            assert_eq!(refused(0, &range(3, 1), Memory { allocations, ..PLENTY }), FilterError::NoMemory);
        }
    }

    #[test]
    fn errors_have_linux_numbers() {
        assert_eq!(FilterError::Flags(2).errno().code(), -22);
        assert_eq!(FilterError::Size { range: 0, nmsrs: 0 }.errno().code(), -22);
        assert_eq!(FilterError::Fault(UserFault { address: 0 }).errno().code(), -14);
        assert_eq!(FilterError::NoMemory.errno().code(), -12);
    }

    #[test]
    fn an_argument_that_cannot_be_read_is_a_fault() {
        let mut memory = Memory { end: 0x1000 + 391, allocations: 100 };
        assert_eq!(
            prepare(Layout::Bits64, 0x1000, &mut memory),
            Err(FilterError::Fault(UserFault { address: 0x1000 }))
        );
        assert!(matches!(prepare(Layout::Compat, 0x1000, &mut memory), Err(FilterError::Flags(_))));
    }

    #[test]
    fn an_empty_range_is_skipped_whatever_its_flags() {
        let bytes = argument(Layout::Bits64, 0, &[(0, 0xffff_ffff, 0, 5, 0), (15, 2, 12288, 0x48, 0x100)]);
        let filter = parse(Layout::Bits64, &bytes, &mut Memory { ..PLENTY }).unwrap();
        assert_eq!(filter.ranges.len(), 1);
        assert_eq!(filter.ranges[0].bitmap.len(), 12288);
        assert!(filter.allows(0x48, Access::Read, Regressions::NONE), "a write range does not decide reads");
        // Byte 0x100 of user memory is 0, byte 0x101 is 1: MSR 0x48 + 8 is allowed.
        assert!(!filter.allows(0x48, Access::Write, Regressions::NONE));
        assert!(filter.allows(0x50, Access::Write, Regressions::NONE));
    }

    #[test]
    fn a_range_that_wraps_is_accepted_and_never_matches() {
        let bytes = argument(Layout::Bits64, 0, &[(0, 3, 64, 0xffff_ffc0, 0x200)]);
        let filter = parse(Layout::Bits64, &bytes, &mut Memory { ..PLENTY }).unwrap();
        assert!(filter.allows(0xffff_ffc0, Access::Read, Regressions::NONE), "bit 0 of the bitmap says deny");
    }
}
