//! [`Micro`]: the processor's shortcut into the TLB: direct-mapped tables from a linear page straight to its place in RAM.
//!
//! Not state: a slot exists only while the TLB holds a translation that allows the access, so a hit answers what
//! [`super::Tlb::lookup`] would. Whatever removes a translation removes its slots.
//!
//! There are two sets of tables, one of them in use: a hypervisor and its guest, whose registers and tags differ, find theirs again.

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
    /// What leads from a linear address of the page to the place in RAM, modulo the size of addresses.
    distance: usize,
}

#[derive(Clone, Debug)]
struct Tables {
    read: [Slot; DATA_SLOTS],
    write: [Slot; DATA_SLOTS],
    code: [Slot; CODE_SLOTS],
}

/// An empty slot: of generation 0, which never is the present one.
const NONE: Slot = Slot { tag: 0, distance: 0 };
const NO_TABLES: Tables =
    Tables { read: [NONE; DATA_SLOTS], write: [NONE; DATA_SLOTS], code: [NONE; CODE_SLOTS] };

/// The present slots of a bank. It lasts until something makes [`super::Tlb::code_lost`] true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// What tags have below the page's base.
    tag: u64,
    /// One page has different slots in different banks.
    salt: usize,
}

impl Key {
    /// Of no table.
    pub const NONE: Self = Self { tag: 0, salt: 0 };

    const fn new(generation: u64, bank: Bank) -> Self {
        Self { tag: generation | bank as u64, salt: (bank as usize) << 5 }
    }

    /// The slot for the page of `linear` among `slots`.
    #[inline(always)]
    const fn number(self, slots: usize, linear: Linear) -> usize {
        (linear.page_number() as usize ^ self.salt) & (slots - 1)
    }
}

/// One set of tables.
#[derive(Debug)]
struct Set {
    tables: Box<Tables>,
    /// Slots of other generations are empty: so all are cleared at once.
    generation: u64,
    /// Something was kept in this generation.
    filled: bool,
}

impl Default for Set {
    fn default() -> Self {
        Self { tables: Box::new(NO_TABLES), generation: STEP, filled: false }
    }
}

impl Set {
    fn clear(&mut self) {
        if !std::mem::take(&mut self.filled) {
            return;
        }
        if self.generation == LAST {
            *self.tables = NO_TABLES;
            self.generation = 0;
        }
        self.generation += STEP;
    }

    /// Removes the slots of the page numbered `page`. True: one of them was for code.
    fn drop_page(&mut self, page: u64) -> bool {
        let mut lost = false;
        if !self.filled {
            return lost;
        }
        let Tables { read, write, code } = &mut *self.tables;
        let linear = Linear(page << 12);
        for bank in [Bank::Supervisor, Bank::User, Bank::SupervisorOverride] {
            let key = Key::new(self.generation, bank);
            let tag = linear.0 | key.tag;
            let data = key.number(DATA_SLOTS, linear);
            for slot in [&mut read[data], &mut write[data]] {
                if slot.tag == tag {
                    *slot = NONE;
                }
            }
            let slot = &mut code[key.number(CODE_SLOTS, linear)];
            if slot.tag == tag {
                *slot = NONE;
                lost = true;
            }
        }
        lost
    }
}

/// The shortcut tables.
#[derive(Debug)]
pub(super) struct Micro {
    used: Set,
    other: Set,
    /// A code slot was removed since [`super::Tlb::code_kept`].
    pub(super) code_lost: bool,
}

impl Default for Micro {
    fn default() -> Self {
        Self { used: Set::default(), other: Set::default(), code_lost: true }
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
        self.used.clear();
        self.other.clear();
        self.code_lost = true;
    }

    /// Removes the slots of the page numbered `page`.
    pub(super) fn drop_page(&mut self, page: u64) {
        self.code_lost |= self.used.drop_page(page);
        self.other.drop_page(page);
    }
}

impl Slot {
    /// Where `bytes` bytes at `linear` are, if the slot, the one for the page of `linear`, leads there.
    #[inline(always)]
    const fn follow(self, key: Key, linear: Linear, bytes: usize) -> Option<usize> {
        // The last byte's page: of bytes that cross into the next page it is one that this slot never holds.
        let last = linear.0.wrapping_add(bytes as u64 - 1);
        if self.tag == last & PAGE | key.tag {
            Some((linear.0 as usize).wrapping_add(self.distance))
        } else {
            None
        }
    }
}

impl super::Tlb {
    /// The present slots of `bank`.
    #[inline(always)]
    pub const fn key(&self, bank: Bank) -> Key {
        Key::new(self.micro.used.generation, bank)
    }

    /// Where in RAM `bytes` bytes at `linear` may be read. `None`: ask [`Self::lookup`].
    #[inline(always)]
    pub fn quick_read(&self, key: Key, linear: Linear, bytes: usize) -> Option<usize> {
        self.micro.used.tables.read[key.number(DATA_SLOTS, linear)].follow(key, linear, bytes)
    }

    /// Where in RAM `bytes` bytes at `linear` may be written.
    #[inline(always)]
    pub fn quick_write(&self, key: Key, linear: Linear, bytes: usize) -> Option<usize> {
        self.micro.used.tables.write[key.number(DATA_SLOTS, linear)].follow(key, linear, bytes)
    }

    /// Where in RAM the instruction at `linear` begins.
    #[inline(always)]
    pub fn quick_code(&self, bank: Bank, linear: Linear) -> Option<usize> {
        let key = self.key(bank);
        self.micro.used.tables.code[key.number(CODE_SLOTS, linear)].follow(key, linear, 1)
    }

    /// Keeps a shortcut for the page of `linear`, whose translation [`Self::lookup`] or [`Self::fill`] just answered;
    /// the page begins at `offset` in RAM.
    pub fn keep(&mut self, bank: Bank, kind: crate::AccessKind, linear: Linear, offset: usize) {
        let key = self.key(bank);
        let base = linear.0 & PAGE;
        let kept = Slot { tag: base | key.tag, distance: offset.wrapping_sub(base as usize) };
        let (data, code) = (key.number(DATA_SLOTS, linear), key.number(CODE_SLOTS, linear));
        let tables = &mut *self.micro.used.tables;
        match kind {
            crate::AccessKind::Read => tables.read[data] = kept,
            crate::AccessKind::Write => {
                tables.write[data] = kept;
                // What may be written may be read by the same, in every table format and under every key.
                tables.read[data] = kept;
            }
            crate::AccessKind::Execute => tables.code[code] = kept,
            // Shadow-stack accesses are rare enough for the TLB itself.
            crate::AccessKind::ShadowStackRead | crate::AccessKind::ShadowStackWrite => {}
        }
        self.micro.used.filled = true;
    }

    /// Forgets every shortcut.
    pub fn forget_shortcuts(&mut self) {
        self.micro.clear();
    }

    /// What governs translation changed, though the TLB did not. `known`: to what it was when the other set of shortcuts was
    /// used last.
    pub fn switch_shortcuts(&mut self, known: bool) {
        let micro = &mut self.micro;
        std::mem::swap(&mut micro.used, &mut micro.other);
        if !known {
            micro.used.clear();
        }
        micro.code_lost = true;
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
