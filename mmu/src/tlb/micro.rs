//! [`Micro`]: the processor's shortcut into the TLB: direct-mapped tables from a linear page straight to its place in RAM.
//!
//! Not state: a slot exists only while the TLB holds a translation that allows the access, so a hit answers what
//! [`super::Tlb::lookup`] would. Whatever removes a translation removes its slots.

use rootmode_arch::Linear;

/// Slots for data of each kind of access: as many as the TLB has places. A power of two, like the next.
const DATA_SLOTS: usize = 4096;
const CODE_SLOTS: usize = 256;
const PAGE: u64 = !0xfff;
/// Generations are multiples of this, so that a bank fits below them.
const STEP: u64 = 4;
/// The last generation that fits below a page's base.
const LAST: u64 = 0xffc;

/// Who accesses: each has its own slots, because the same translation allows them different things.
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
    /// The linear page's base, and below it the generation in which the slot was filled, and the bank.
    tag: u64,
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
const NONE: Slot = Slot { tag: 0, offset: 0 };
const NO_TABLES: Tables =
    Tables { read: [NONE; DATA_SLOTS], write: [NONE; DATA_SLOTS], code: [NONE; CODE_SLOTS] };

/// The slot for the page numbered `page` among `slots`. One page has different slots in different banks.
#[inline(always)]
const fn number(slots: usize, bank: Bank, page: u64) -> usize {
    (page as usize ^ (bank as usize) << 5) & (slots - 1)
}

/// The shortcut tables.
#[derive(Debug)]
pub(super) struct Micro {
    tables: Box<Tables>,
    /// Slots of other generations are empty: so all are cleared at once.
    generation: u64,
    /// A code slot was removed since [`super::Tlb::code_kept`].
    pub(super) code_lost: bool,
}

impl Default for Micro {
    fn default() -> Self {
        Self { tables: Box::new(NO_TABLES), generation: STEP, code_lost: true }
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
            *self.tables = NO_TABLES;
            self.generation = 0;
        }
        self.generation += STEP;
        self.code_lost = true;
    }

    /// Removes the slots of the page numbered `page`.
    pub(super) fn drop_page(&mut self, page: u64) {
        let Tables { read, write, code } = &mut *self.tables;
        for bank in [Bank::Supervisor, Bank::User, Bank::SupervisorOverride] {
            let tag = page << 12 | self.generation | bank as u64;
            let data = number(DATA_SLOTS, bank, page);
            for slot in [&mut read[data], &mut write[data]] {
                if slot.tag == tag {
                    *slot = NONE;
                }
            }
            let slot = &mut code[number(CODE_SLOTS, bank, page)];
            if slot.tag == tag {
                *slot = NONE;
                self.code_lost = true;
            }
        }
    }

    /// Where `bytes` bytes at `linear` are, if `slot`, the one for the page of `linear`, leads there.
    #[inline(always)]
    fn follow(&self, slot: &Slot, bank: Bank, linear: Linear, bytes: usize) -> Option<usize> {
        // The last byte's page: of bytes that cross into the next page it is one that this slot never holds.
        let last = linear.0.wrapping_add(bytes as u64 - 1);
        let tag = last & PAGE | self.generation | bank as u64;
        (slot.tag == tag).then_some(slot.offset + (linear.0 & !PAGE) as usize)
    }
}

impl super::Tlb {
    /// Where in RAM `bytes` bytes at `linear` may be read by `bank`. `None`: ask [`Self::lookup`].
    #[inline(always)]
    pub fn quick_read(&self, bank: Bank, linear: Linear, bytes: usize) -> Option<usize> {
        let slot = &self.micro.tables.read[number(DATA_SLOTS, bank, linear.page_number())];
        self.micro.follow(slot, bank, linear, bytes)
    }

    /// Where in RAM `bytes` bytes at `linear` may be written by `bank`.
    #[inline(always)]
    pub fn quick_write(&self, bank: Bank, linear: Linear, bytes: usize) -> Option<usize> {
        let slot = &self.micro.tables.write[number(DATA_SLOTS, bank, linear.page_number())];
        self.micro.follow(slot, bank, linear, bytes)
    }

    /// Where in RAM the instruction at `linear` begins.
    #[inline(always)]
    pub fn quick_code(&self, bank: Bank, linear: Linear) -> Option<usize> {
        let slot = &self.micro.tables.code[number(CODE_SLOTS, bank, linear.page_number())];
        self.micro.follow(slot, bank, linear, 1)
    }

    /// Keeps a shortcut for the page of `linear`, whose translation [`Self::lookup`] or [`Self::fill`] just answered;
    /// the page begins at `offset` in RAM.
    pub fn keep(&mut self, bank: Bank, kind: crate::AccessKind, linear: Linear, offset: usize) {
        let page = linear.page_number();
        let kept = Slot { tag: linear.0 & PAGE | self.micro.generation | bank as u64, offset };
        let tables = &mut *self.micro.tables;
        match kind {
            crate::AccessKind::Read => tables.read[number(DATA_SLOTS, bank, page)] = kept,
            crate::AccessKind::Write => {
                tables.write[number(DATA_SLOTS, bank, page)] = kept;
                // What may be written may be read by the same, in every table format and under every key.
                tables.read[number(DATA_SLOTS, bank, page)] = kept;
            }
            crate::AccessKind::Execute => tables.code[number(CODE_SLOTS, bank, page)] = kept,
            // Shadow-stack accesses are rare enough for the TLB itself.
            crate::AccessKind::ShadowStackRead | crate::AccessKind::ShadowStackWrite => {}
        }
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
