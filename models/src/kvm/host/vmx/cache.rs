//! Guest registers as L0 last saw them in the current VMCS, and those that it will write before the next entry.
//!
//! RIP and RSP are written late: a changed one is dirty until the entry. Segment registers are read lazily, field by field;
//! a field is valid while its bit in the mask is set. Both belong to the VMCS that is current: when another one becomes so,
//! everything is forgotten.

use rootmode_arch::SegmentName;

/// RIP or RSP.
#[derive(Clone, Copy, Debug, Default)]
struct Register {
    value: Option<u64>,
    dirty: bool,
}

/// The cache.
#[derive(Clone, Debug, Default)]
pub(super) struct Cache {
    registers: [Register; 2],
    /// A bit for each field of each segment register.
    mask: u32,
    segments: [u64; 32],
    /// Exit qualification and interruption information of the last exit, once somebody asked.
    information: [Option<u64>; 2],
}

/// What is read of an exit only when somebody asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Qualification,
    Interruption,
}

/// Which of the two late registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Late {
    Rip,
    Rsp,
}

impl Cache {
    /// The value, if it is known.
    pub(super) const fn register(&self, late: Late) -> Option<u64> {
        self.registers[late as usize].value
    }

    /// What the VMCS has.
    pub(super) const fn fill(&mut self, late: Late, value: u64) {
        self.registers[late as usize] = Register { value: Some(value), dirty: false };
    }

    /// What the VMCS is to have at the next entry.
    pub(super) const fn change(&mut self, late: Late, value: u64) {
        self.registers[late as usize] = Register { value: Some(value), dirty: true };
    }

    /// The changed registers; they are no longer dirty.
    pub(super) fn take_dirty(&mut self) -> Vec<(Late, u64)> {
        let mut dirty = Vec::new();
        for (late, register) in [Late::Rip, Late::Rsp].into_iter().zip(&mut self.registers) {
            if let Register { value: Some(value), dirty: true } = *register {
                dirty.push((late, value));
                register.dirty = false;
            }
        }
        dirty
    }

    /// A field of a segment register, 0 selector, 1 limit, 2 access rights, 3 base, if it is known.
    pub(super) fn segment(&self, name: SegmentName, field: usize) -> Option<u64> {
        let at = name as usize * 4 + field;
        (self.mask >> at & 1 != 0).then(|| self.segments[at])
    }

    /// What the VMCS has.
    pub(super) fn fill_segment(&mut self, name: SegmentName, field: usize, value: u64) {
        let at = name as usize * 4 + field;
        self.mask |= 1 << at;
        self.segments[at] = value;
    }

    /// Segment registers of the VMCS have changed.
    pub(super) const fn forget_segments(&mut self) {
        self.mask = 0;
    }

    /// What is known of the exit.
    pub(super) const fn information(&self, asked: Asked) -> Option<u64> {
        self.information[asked as usize]
    }

    /// What the VMCS has, or gets.
    pub(super) const fn fill_information(&mut self, asked: Asked, value: u64) {
        self.information[asked as usize] = Some(value);
    }

    /// Another VMCS is current.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The guest runs. `keeps`: what is known of the last exit stays.
    pub(super) fn forget_after_entry(&mut self, keeps: bool) {
        let information = if keeps { self.information } else { [None; 2] };
        *self = Self { information, ..Self::default() };
    }
}
