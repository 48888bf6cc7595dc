//! [`WalkMemo`]: walks that were done before, and the entries that they read: while these entries hold the same, the same
//! walk ends in the same way.
//!
//! Not state, and nothing that software can observe: entries are read again each time. Only walks that changed nothing are
//! kept, so a walk with flags to set is always done in full.

use super::{Access, EntryMemory, Paging, SecondStage, Translation, WalkFault, translate};
use crate::PhysicalMemory;
use rootmode_arch::{HostPhysical, Linear};

/// Walks that are kept; a power of two.
const WALKS: usize = 128;
/// Entries that a kept walk may read: those of four levels through four levels.
const LONGEST: usize = 24;

/// What a walk depends on beside the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Question {
    page: u64,
    access: Access,
    /// A number for paging registers and second stage.
    context: u64,
    /// Where physical addresses lie in RAM.
    layout: u64,
}

/// A walk that was met.
#[derive(Debug)]
struct Kept {
    question: Question,
    /// Where in RAM entries were read, with bit 0 set if they have 8 bytes, and what they held. Empty: the walk is worth
    /// keeping when it is met again.
    way: Vec<(usize, u64)>,
    answer: Translation,
}

impl Kept {
    /// Whether every entry holds what it held.
    #[inline]
    fn still_holds(&self, memory: &PhysicalMemory) -> bool {
        self.way.iter().all(|&(at, entry)| {
            if at & 1 != 0 {
                memory.load_at(at & !1) == Some(entry.to_le_bytes())
            } else {
                memory.load_at(at) == Some((entry as u32).to_le_bytes())
            }
        })
    }

    /// Walks, and keeps the way if it can be relied on.
    fn learn(
        &mut self,
        memory: &mut PhysicalMemory,
        paging: &Paging,
        second: &SecondStage,
        linear: Linear,
    ) -> Result<Translation, WalkFault> {
        self.way.clear();
        let mut recorder = Recorder { memory, way: &mut self.way, unreliable: false };
        let answer = translate(&mut recorder, paging, second, linear, self.question.access);
        match answer {
            Ok(answer) if !recorder.unreliable && self.way.len() <= LONGEST => self.answer = answer,
            _ => self.way.clear(),
        }
        answer
    }
}

/// Walks that may be met again.
#[derive(Debug, Default)]
pub struct WalkMemo {
    /// Direct-mapped; empty until the first walk.
    kept: Vec<Option<Kept>>,
}

impl Clone for WalkMemo {
    /// A copy starts empty.
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Memory that remembers which entries were read.
struct Recorder<'a> {
    memory: &'a mut PhysicalMemory,
    way: &'a mut Vec<(usize, u64)>,
    /// An entry was changed, or does not lie in RAM.
    unreliable: bool,
}

impl Recorder<'_> {
    fn note(&mut self, at: HostPhysical, mark: usize, entry: u64) {
        match self.memory.offset(at) {
            Some(place) => self.way.push((place | mark, entry)),
            None => self.unreliable = true,
        }
    }
}

impl EntryMemory for Recorder<'_> {
    fn entry_u32(&mut self, at: HostPhysical) -> u32 {
        let entry = self.memory.read_u32(at);
        self.note(at, 0, entry.into());
        entry
    }
    fn entry_u64(&mut self, at: HostPhysical) -> u64 {
        let entry = self.memory.read_u64(at);
        self.note(at, 1, entry);
        entry
    }
    fn set_entry_u32(&mut self, at: HostPhysical, entry: u32) {
        self.unreliable = true;
        self.memory.write_u32(at, entry);
    }
    fn set_entry_u64(&mut self, at: HostPhysical, entry: u64) {
        self.unreliable = true;
        self.memory.write_u64(at, entry);
    }
}

impl WalkMemo {
    /// [`translate`]: the same answer, and the same flags set in memory. `context` is a number for `paging` and `second`
    /// together: never the same one for others.
    ///
    /// # Errors
    /// As [`translate`].
    pub fn translate(
        &mut self,
        memory: &mut PhysicalMemory,
        context: u64,
        (paging, second): (&Paging, &SecondStage),
        linear: Linear,
        access: Access,
    ) -> Result<Translation, WalkFault> {
        let page = linear.page_number();
        if self.kept.is_empty() {
            self.kept.resize_with(WALKS, || None);
        }
        let kind = access.kind as u64;
        let place = &mut self.kept[(page ^ page >> 7 ^ kind << 5 ^ context << 3) as usize % WALKS];
        let question = Question { page, access, context, layout: memory.layout() };
        match place {
            Some(kept) if kept.question == question => {
                if kept.way.is_empty() || !kept.still_holds(memory) {
                    return kept.learn(memory, paging, second, linear);
                }
                let Translation { host, guest, .. } = kept.answer;
                let offset = linear.page_offset();
                let (host, guest) = (host.page_base().offset(offset), guest.page_base().offset(offset));
                Ok(Translation { host, guest, ..kept.answer })
            }
            Some(kept) => {
                kept.question = question;
                kept.way.clear();
                translate(memory, paging, second, linear, access)
            }
            None => {
                let answer = translate(memory, paging, second, linear, access)?;
                *place = Some(Kept { question, way: Vec::new(), answer });
                Ok(answer)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccessKind, PagingMode};
    use rootmode_arch::Cr3;

    const READ: Access = Access::implicit(AccessKind::Read);

    /// Two levels of 4-byte entries that lead page 0 to 0x3000.
    fn tables() -> (PhysicalMemory, Paging) {
        let mut memory = PhysicalMemory::new();
        memory.add_ram(HostPhysical(0), 0x8000).unwrap();
        memory.write_u32(HostPhysical(0x1000), 0x2000 | 0x27);
        memory.write_u32(HostPhysical(0x2000), 0x3000 | 0x67);
        let mode = PagingMode::Bits32 { pse: false };
        (memory, Paging { cr3: Cr3(0x1000), mode, physical_width: 40, ..Paging::default() })
    }

    #[test]
    fn a_walk_is_kept_at_its_second_time_and_done_again_when_an_entry_changed() {
        let (mut memory, paging) = tables();
        let mut memo = WalkMemo::default();
        let mut ask = |memory: &mut PhysicalMemory| {
            memo.translate(memory, 1, (&paging, &SecondStage::None), Linear(0x123), READ).map(|t| t.host.0)
        };
        for _ in 0..3 {
            assert_eq!(ask(&mut memory), Ok(0x3123));
        }
        memory.write_u32(HostPhysical(0x2000), 0x4000 | 0x67);
        assert_eq!(ask(&mut memory), Ok(0x4123));
        memory.write_u32(HostPhysical(0x1000), 0);
        assert_eq!(ask(&mut memory), Err(WalkFault::Page(0)));
        memory.write_u32(HostPhysical(0x1000), 0x2000 | 0x27);
        assert_eq!(ask(&mut memory), Ok(0x4123));
    }

    #[test]
    fn a_walk_that_sets_flags_is_never_answered_without_setting_them() {
        let (mut memory, paging) = tables();
        let mut memo = WalkMemo::default();
        for _ in 0..4 {
            memory.write_u32(HostPhysical(0x2000), 0x3000 | 7);
            memo.translate(&mut memory, 1, (&paging, &SecondStage::None), Linear(0), READ).unwrap();
            assert_eq!(memory.read_u32(HostPhysical(0x2000)), 0x3000 | 0x27);
        }
    }

    #[test]
    fn a_walk_under_other_registers_is_another_one() {
        let (mut memory, paging) = tables();
        let mut memo = WalkMemo::default();
        let other = Paging { smap: true, ..paging };
        for _ in 0..3 {
            let mut ask = |context, paging| {
                memo.translate(&mut memory, context, (paging, &SecondStage::None), Linear(0), READ).is_ok()
            };
            assert!(ask(1, &paging));
            assert!(!ask(2, &other), "a user page under SMAP");
        }
    }
}
