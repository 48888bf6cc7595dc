//! [`Store`]: decoded blocks by their place in RAM. Which blocks are stored is not observable.
//!
//! A block never crosses a page. The lines that it was decoded from are marked as code; a store to one of them raises the
//! page's code version, and a block of another version is never entered: the store's look-ups compare versions, and links
//! between blocks (within one page only, so that no translation lies between them) are cut whenever any code was written.

use super::{Call, LEAVE, Op, RETURNS, select};
use crate::Cpu;
use crate::decode::{CodeMode, Decoded, decode, resolve};
use rootmode_arch::{AccessRights, HostPhysical, Linear, SegmentName};
use rootmode_mmu::{PhysicalMemory, Watch};
use std::cell::Cell;

const SLOTS: usize = 1 << 13;
const JUMPS: usize = 1 << 11;
/// Instructions a block holds at most.
const LONGEST: usize = 64;
/// Operations that are kept; beyond them everything is forgotten.
const CAPACITY: usize = 1 << 18;

/// How a block's bytes were understood, in one byte: the code's bits, and whether data segments are flat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mode(u8);

impl Mode {
    pub(super) const NONE: Self = Self(0);
    const FLAT: u8 = 1;

    /// The mode that `cpu` runs code in.
    #[inline]
    pub(crate) fn of(cpu: &Cpu) -> Self {
        let bits = cpu.code_bits();
        let flat = bits != 64
            && [SegmentName::Es, SegmentName::Cs, SegmentName::Ss, SegmentName::Ds].iter().all(|name| {
                let segment = cpu.segment(*name);
                let code = *name == SegmentName::Cs;
                let kind = if code { 0xa } else { AccessRights::WRITABLE.0 };
                let expands = !code && segment.rights.0 & 0xc != 0;
                segment.base == 0
                    && segment.limit == u32::MAX
                    && segment.rights.is_usable()
                    && segment.rights.0 & kind == kind
                    && !expands
            })
            && cpu.segment(SegmentName::Ss).rights.contains(AccessRights::DB)
            && cpu.is_protected();
        Self(bits | u8::from(flat))
    }

    /// 64-bit mode.
    #[inline(always)]
    pub(crate) const fn is_64_bit(self) -> bool {
        self.0 == 64
    }

    /// Data accesses need no segmentation: 64-bit mode, or flat segments and a 32-bit stack.
    pub(super) const fn is_flat(self) -> bool {
        self.is_64_bit() || self.0 & Self::FLAT != 0
    }

    /// 16, 32 or 64.
    pub(super) const fn bits(self) -> u8 {
        self.0 & !Self::FLAT
    }
}

/// A block that a jump to a linear address led to.
#[derive(Clone, Copy)]
pub(super) struct Jump {
    linear: u64,
    place: usize,
    first: u32,
    mode: Mode,
}

const NO_JUMP: Jump = Jump { linear: 0, place: usize::MAX, first: LEAVE, mode: Mode::NONE };

/// The block for code at `linear`, which lies at `place`.
#[inline(always)]
pub(super) fn find_jump(jumps: &[Jump], linear: Linear, place: usize, mode: Mode) -> Option<u32> {
    let jump = jumps.get(jump_slot(linear))?;
    (jump.linear == linear.0 && jump.place == place && jump.mode == mode).then_some(jump.first)
}

#[inline(always)]
const fn jump_slot(linear: Linear) -> usize {
    (linear.0 ^ linear.0 >> 12) as usize & (JUMPS - 1)
}

const fn crossing_slot(at: HostPhysical) -> usize {
    (at.0 >> 12) as usize % CROSSINGS
}

#[derive(Clone, Copy)]
struct Slot {
    place: usize,
    version: u32,
    first: u32,
    mode: Mode,
}

const NO_SLOT: Slot = Slot { place: usize::MAX, version: 0, first: LEAVE, mode: Mode::NONE };

const CROSSINGS: usize = 16;

/// An instruction that begins in one page and ends in another.
#[derive(Clone, Copy)]
struct Crossing {
    /// Where in RAM its two parts lie.
    places: [Option<usize>; 2],
    versions: [u32; 2],
    bits: u8,
    decoded: Decoded,
}

/// Decoded blocks.
#[derive(Default)]
pub(crate) struct Store {
    ops: Vec<Op>,
    decoded: Vec<Decoded>,
    /// Where in RAM the page of an operation begins.
    pages: Vec<usize>,
    /// Direct-mapped; empty until the first block.
    slots: Vec<Slot>,
    /// Direct-mapped; empty until the first block.
    jumps: Vec<Jump>,
    /// Which of them are filled.
    jumped: Vec<u16>,
    linked: Vec<u32>,
    /// Room for a chain's open calls.
    returns: [Cell<Call>; RETURNS],
    crossings: [Option<Crossing>; CROSSINGS],
    code_writes: u64,
    /// How often the store was emptied: numbers of operations mean something until then.
    emptied: u64,
}

impl Store {
    /// How often the store was emptied.
    pub(crate) const fn emptied(&self) -> u64 {
        self.emptied
    }

    /// The state of a chain that runs in this store.
    #[inline]
    pub(crate) fn running(&self, cpu: &Cpu, left: u64, mode: Mode) -> super::Running<'_> {
        super::Running {
            ops: &self.ops,
            decoded: &self.decoded,
            jumps: &self.jumps,
            left: left as i64,
            until: cpu.tick + left,
            crossed: cpu.tick,
            stop: None,
            unlinked: None,
            links: Vec::new(),
            returns: super::Returns { ring: &self.returns, depth: 0 },
            pages: &self.pages,
            code_writes: self.code_writes,
            bank: cpu.bank(),
            key: cpu.tlb.key(cpu.bank()),
            code_bank: cpu.code_bank(),
            mode,
        }
    }

    /// Cuts what leads past the look-ups' version check, if code was written since the last call.
    #[inline]
    pub(crate) fn notice_code_writes(&mut self, memory: &PhysicalMemory) {
        if memory.code_writes() != self.code_writes {
            self.code_writes = memory.code_writes();
            for at in self.linked.drain(..) {
                let op = &self.ops[at as usize];
                op.taken.set(LEAVE);
                op.next.set(LEAVE);
            }
            for slot in self.jumped.drain(..) {
                self.jumps[usize::from(slot)] = NO_JUMP;
            }
        }
    }

    /// The block at `linear`, which was jumped to before and lies at `place` in RAM.
    #[inline]
    pub(crate) fn jumped(&self, linear: Linear, place: usize, mode: Mode) -> Option<u32> {
        find_jump(&self.jumps, linear, place, mode)
    }

    /// Remembers that `linear`, at `place` in RAM, is the block `first`.
    #[inline]
    pub(crate) fn remember(&mut self, linear: Linear, place: usize, mode: Mode, first: u32) {
        let slot = jump_slot(linear);
        if self.jumps[slot].first == LEAVE {
            self.jumped.push(slot as u16);
        }
        self.jumps[slot] = Jump { linear: linear.0, place, first, mode };
    }

    /// The block at `host`, which lies at `place` in RAM, decoded now if it is not stored or stale. `None`: its first
    /// instruction crosses into the next page.
    pub(crate) fn block(
        &mut self,
        memory: &mut PhysicalMemory,
        host: HostPhysical,
        place: usize,
        mode: Mode,
        cpu: &Cpu,
    ) -> Option<u32> {
        if self.slots.is_empty() {
            self.slots = vec![NO_SLOT; SLOTS];
            self.jumps = vec![NO_JUMP; JUMPS];
        }
        let version = memory.code_version(host);
        let number = (place ^ place >> 14 ^ usize::from(mode.0) << 7) & (SLOTS - 1);
        let slot = self.slots[number];
        if slot.place == place && slot.version == version && slot.mode == mode {
            return Some(slot.first);
        }
        if self.ops.len() > CAPACITY {
            let emptied = self.emptied + 1;
            *self = Self { code_writes: self.code_writes, emptied, ..Self::default() };
            return self.block(memory, host, place, mode, cpu);
        }
        let first = self.build(memory, host, place, mode, cpu)?;
        self.slots[number] = Slot { place, version, first, mode };
        Some(first)
    }

    /// Takes note of branches that a chain has linked, so that they can be cut.
    #[inline]
    pub(crate) fn note_links(&mut self, mut links: Vec<u32>) {
        if !links.is_empty() {
            self.linked.append(&mut links);
        }
    }

    /// Links the branch at `from`, met when the store had been emptied `emptied` times, with the block `to`, if both are
    /// still there and lie in one page.
    pub(crate) fn link(&mut self, from: u32, taken: bool, emptied: u64, to: u32) {
        if emptied == self.emptied && super::link(&self.ops, &self.pages, from, taken, to) {
            self.linked.push(from);
        }
    }

    /// The instruction that begins at the first address and goes on at the second, in code of `bits`, if it was kept and
    /// nobody has written to it.
    pub(crate) fn crossing(
        &self,
        memory: &PhysicalMemory,
        at: [HostPhysical; 2],
        bits: u8,
    ) -> Option<Decoded> {
        let kept = self.crossings[crossing_slot(at[0])].as_ref()?;
        let there = kept.places == at.map(|a| memory.offset(a));
        let fresh = there && kept.bits == bits && kept.versions == at.map(|a| memory.code_version(a));
        fresh.then_some(kept.decoded)
    }

    /// Keeps such an instruction.
    pub(crate) fn keep_crossing(
        &mut self,
        memory: &mut PhysicalMemory,
        at: [HostPhysical; 2],
        bits: u8,
        decoded: Decoded,
    ) {
        let below = 4096 - at[0].page_offset();
        memory.watch(at[0], below, Watch::CODE);
        memory.watch(at[1], u64::from(decoded.current.length).saturating_sub(below), Watch::CODE);
        let versions = at.map(|a| memory.code_version(a));
        let places = at.map(|a| memory.offset(a));
        self.crossings[crossing_slot(at[0])] = Some(Crossing { places, versions, bits, decoded });
    }

    /// The instructions of the block at `first`.
    pub(crate) fn instructions(&self, first: u32) -> &[Decoded] {
        let first = first as usize;
        &self.decoded[first..first + usize::from(self.ops[first].rest)]
    }

    /// Instructions of the block at `first`.
    #[inline]
    pub(crate) fn length(&self, first: u32) -> u64 {
        u64::from(self.ops[first as usize].rest)
    }

    #[cold]
    fn build(
        &mut self,
        memory: &mut PhysicalMemory,
        start: HostPhysical,
        place: usize,
        mode: Mode,
        cpu: &Cpu,
    ) -> Option<u32> {
        let mut page = [0; 4096];
        let bytes = &mut page[start.page_offset() as usize..];
        memory.read(start, bytes);
        let code = CodeMode { bits: mode.bits(), ..cpu.code_mode() };
        let first = self.decoded.len();
        let mut at = 0;
        while self.decoded.len() - first < LONGEST {
            let Some(instruction) = decode(&bytes[at..], code) else { break };
            let decoded = resolve(&instruction, &bytes[at..], code, cpu.model.features());
            at += usize::from(decoded.current.length);
            self.decoded.push(decoded);
            if decoded.ends_block || at >= bytes.len() {
                break;
            }
        }
        if self.decoded.len() == first {
            return None;
        }
        memory.watch(start, at as u64, Watch::CODE);
        self.ops.extend(select::operations(&self.decoded[first..], mode));
        // The end of a block that falls through is an operation without an instruction.
        if self.ops.len() > self.decoded.len() {
            self.decoded.push(self.decoded[self.decoded.len() - 1]);
        }
        self.pages.resize(self.ops.len(), place & !0xfff);
        Some(first as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Model;
    use std::sync::Arc;

    #[test]
    fn a_branch_of_a_store_that_was_emptied_is_not_linked_in_the_new_one() {
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0), 0x1000).unwrap();
        // JE to itself.
        memory.write(HostPhysical(0), &[0x74, 0xfe]);
        let cpu = Cpu::new(0, Arc::new(Model::max_intel()));
        let mut store = Store::default();
        let mode = Mode::of(&cpu);
        let first = store.block(&mut memory, HostPhysical(0), 0, mode, &cpu).unwrap();
        let taken = |store: &Store| store.ops[first as usize].taken.get();
        let before = taken(&store);
        store.emptied += 1;
        store.link(first, true, 0, first + 7);
        assert_eq!(taken(&store), before, "the number is of the store that was emptied");
        store.link(first, true, 1, first);
        assert_eq!(taken(&store), first);
    }
}
