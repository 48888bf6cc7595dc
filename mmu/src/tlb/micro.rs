//! [`Micro`]: the processor's shortcut into the TLB: direct-mapped tables from a linear page straight to its place in RAM.
//!
//! Not state: a slot exists only while the TLB holds a translation that allows the access, so a hit answers what
//! [`super::Tlb::lookup`] would. Whatever removes a translation removes its slots.

use rootmode_arch::Linear;

const DATA_SLOTS: usize = 1024;
const CODE_SLOTS: usize = 64;
const PAGE: u64 = !0xfff;
/// The last generation that fits below a page's base.
const LAST: u64 = 0xfff;

/// Who accesses: each has its own tables, because the same translation allows them different things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Bank {
    /// Supervisor accesses to which SMAP applies.
    Supervisor = 0,
    /// User-mode accesses.
    User = 1,
    /// Supervisor accesses with RFLAGS.AC = 1 while CR4.SMAP = 1.
    SupervisorOverride = 2,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The linear page's base, and below it the generation in which the slot was filled.
    page: u64,
    /// Where the page begins in RAM.
    offset: usize,
}

#[derive(Clone, Debug)]
struct Tables {
    read: [Slot; DATA_SLOTS],
    write: [Slot; DATA_SLOTS],
    code: [Slot; CODE_SLOTS],
}

/// An empty slot: of generation 0, which never is the present one.
const NONE: Slot = Slot { page: 0, offset: 0 };
const NO_TABLES: Tables =
    Tables { read: [NONE; DATA_SLOTS], write: [NONE; DATA_SLOTS], code: [NONE; CODE_SLOTS] };

/// The shortcut tables of all banks.
#[derive(Debug)]
pub(super) struct Micro {
    banks: Box<[Tables; 3]>,
    /// Slots of other generations are empty: so all are cleared at once.
    generation: u64,
    /// A code slot was removed since [`super::Tlb::code_kept`].
    pub(super) code_lost: bool,
}

impl Default for Micro {
    fn default() -> Self {
        Self { banks: Box::new([NO_TABLES; 3]), generation: 1, code_lost: true }
    }
}

impl Clone for Micro {
    /// A copy starts empty: the shortcut is rebuilt.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Micro {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Micro {}

impl Micro {
    pub(super) fn clear(&mut self) {
        if self.generation == LAST {
            *self.banks = [NO_TABLES; 3];
            self.generation = 0;
        }
        self.generation += 1;
        self.code_lost = true;
    }

    /// Removes the slots of the page numbered `page`.
    pub(super) fn drop_page(&mut self, page: u64) {
        let base = page << 12 | self.generation;
        let (data, code) = (page as usize % DATA_SLOTS, page as usize % CODE_SLOTS);
        for tables in self.banks.iter_mut() {
            for slot in [&mut tables.read[data], &mut tables.write[data]] {
                if slot.page == base {
                    *slot = NONE;
                }
            }
            if tables.code[code].page == base {
                tables.code[code] = NONE;
                self.code_lost = true;
            }
        }
    }

    #[inline(always)]
    fn find(&self, slots: &[Slot], linear: Linear, bytes: usize) -> Option<usize> {
        let slot = &slots[(linear.0 >> 12) as usize % slots.len()];
        let inside = linear.0 & !PAGE;
        (slot.page == linear.0 & PAGE | self.generation && inside as usize + bytes <= 4096)
            .then_some(slot.offset + inside as usize)
    }
}

impl super::Tlb {
    /// Where in RAM `bytes` bytes at `linear` may be read by `bank`. `None`: ask [`Self::lookup`].
    #[inline(always)]
    pub fn quick_read(&self, bank: Bank, linear: Linear, bytes: usize) -> Option<usize> {
        self.micro.find(&self.micro.banks[bank as usize].read, linear, bytes)
    }

    /// Where in RAM `bytes` bytes at `linear` may be written by `bank`.
    #[inline(always)]
    pub fn quick_write(&self, bank: Bank, linear: Linear, bytes: usize) -> Option<usize> {
        self.micro.find(&self.micro.banks[bank as usize].write, linear, bytes)
    }

    /// Where in RAM the instruction at `linear` begins.
    #[inline(always)]
    pub fn quick_code(&self, bank: Bank, linear: Linear) -> Option<usize> {
        self.micro.find(&self.micro.banks[bank as usize].code, linear, 1)
    }

    /// Keeps a shortcut for the page of `linear`, whose translation [`Self::lookup`] or [`Self::fill`] just answered;
    /// the page begins at `offset` in RAM.
    pub fn keep(&mut self, bank: Bank, kind: crate::AccessKind, linear: Linear, offset: usize) {
        let tables = &mut self.micro.banks[bank as usize];
        let page = (linear.0 >> 12) as usize;
        let slot = match kind {
            crate::AccessKind::Read => &mut tables.read[page % DATA_SLOTS],
            crate::AccessKind::Write => &mut tables.write[page % DATA_SLOTS],
            crate::AccessKind::Execute => &mut tables.code[page % CODE_SLOTS],
            // Shadow-stack accesses are rare enough for the TLB itself.
            crate::AccessKind::ShadowStackRead | crate::AccessKind::ShadowStackWrite => return,
        };
        *slot = Slot { page: linear.0 & PAGE | self.micro.generation, offset };
    }

    /// Forgets every shortcut: what governs translation changed, though the TLB did not.
    pub fn forget_shortcuts(&mut self) {
        self.micro.clear();
    }

    /// Whether a code page's translation went since [`Self::code_kept`]: the next fetch must translate again.
    #[inline(always)]
    pub const fn code_lost(&self) -> bool {
        self.micro.code_lost
    }

    /// The running code's translation was just looked up.
    pub const fn code_kept(&mut self) {
        self.micro.code_lost = false;
    }
}
