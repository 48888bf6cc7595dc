//! Deadlines of the chipset's devices, at most a few outstanding each.

use rootmode_cpu::Effects;
use rootmode_mmu::Digest;

/// Who waits. The number is the low byte of a deadline's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Timer {
    Pit,
    Rtc,
    Uart,
    Power,
    Transfer,
    Hpet,
}

const COUNT: usize = 6;
const GENERATIONS: u32 = 0xff_ffff;

impl Timer {
    const fn from_source(source: u32) -> Option<Self> {
        Some(match source & 0xff {
            0 => Self::Pit,
            1 => Self::Rtc,
            2 => Self::Uart,
            3 => Self::Power,
            4 => Self::Transfer,
            5 => Self::Hpet,
            _ => return None,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    /// The earliest deadline that was asked for and has not come.
    outstanding: Option<u64>,
    generation: u32,
}

/// The deadlines that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Timers([Slot; COUNT]);

impl Timers {
    /// Asks to be called at `at`. A deadline that comes too early is harmless: the device then asks again. So only an earlier
    /// one is new, and a guest that reprograms a timer in a loop cannot fill the queue.
    pub(super) fn arm(&mut self, timer: Timer, at: Option<u64>, effects: &mut Effects) {
        let slot = &mut self.0[timer as usize];
        let Some(at) = at else { return };
        if slot.outstanding.is_some_and(|outstanding| outstanding <= at) {
            return;
        }
        slot.outstanding = Some(at);
        slot.generation = slot.generation.wrapping_add(1) & GENERATIONS;
        effects.deadlines.push((at, slot.generation << 8 | timer as u32));
    }

    /// The timer whose deadline has come; `None` for one that an earlier one has replaced.
    pub(super) fn take(&mut self, source: u32) -> Option<Timer> {
        let timer = Timer::from_source(source)?;
        let slot = &mut self.0[timer as usize];
        if slot.outstanding.is_none() || slot.generation != source >> 8 {
            return None;
        }
        slot.outstanding = None;
        Some(timer)
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        for slot in &self.0 {
            digest.all(&[slot.outstanding.unwrap_or(u64::MAX), u64::from(slot.generation)]);
        }
    }
}
