//! The ioctl's argument: two layouts, and every error they can lead to.

use super::{Filter, FilterRange};
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
        let mut bitmap = vec![0; bytes as usize];
        memory.read(number(argument, first + range * distance + pointer, pointer_size), &mut bitmap)?;
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
