//! A counter as KVM's clients save it.

use super::{Bytes, Counter, Mode};

/// A counter's state, in the terms of `struct kvm_pit_channel_state`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are KVM's")]
pub struct Saved {
    pub count: u32,
    pub latched_count: u16,
    pub count_latched: u8,
    pub status_latched: bool,
    pub status: u8,
    pub read_state: u8,
    pub write_state: u8,
    pub write_latch: u8,
    pub rw_mode: u8,
    pub mode: u8,
    pub bcd: bool,
    pub gate: bool,
    /// The cycle in which the count was loaded.
    pub loaded: u64,
}

/// `mode` of a counter that was never programmed.
const NO_MODE: u8 = 0xff;
/// Both bytes of a count, of which the second is next.
const SECOND: u8 = 4;

impl Counter {
    const fn access(&self) -> u8 {
        match self.bytes {
            Bytes::Low => 1,
            Bytes::High => 2,
            Bytes::Both => 3,
        }
    }

    /// Its state.
    pub(in super::super) fn save(&self, cycle: u64) -> Saved {
        let settled = self.settled(cycle);
        if self.control == 0 {
            return Saved {
                count: self.modulus() as u32,
                mode: NO_MODE,
                gate: self.gate,
                ..Saved::default()
            };
        }
        let access = self.access();
        let latched = settled.latched_count.is_some();
        Saved {
            count: settled.count.unwrap_or(self.modulus() as u32),
            latched_count: settled.latched_count.unwrap_or(0),
            count_latched: match (latched, self.high_next) {
                (false, _) => 0,
                (true, false) => access,
                (true, true) => 2,
            },
            status_latched: settled.latched_status.is_some(),
            status: settled.latched_status.unwrap_or(0),
            read_state: if self.high_next && !latched { SECOND } else { access },
            write_state: if self.half_written.is_some() { SECOND } else { access },
            write_latch: self.half_written.unwrap_or(0),
            rw_mode: access,
            mode: match self.mode {
                Mode::InterruptOnTerminalCount => 0,
                Mode::OneShot => 1,
                Mode::RateGenerator => 2,
                Mode::SquareWave => 3,
                Mode::SoftwareStrobe => 4,
                Mode::HardwareStrobe => 5,
            },
            bcd: self.bcd,
            gate: self.gate,
            loaded: match settled.element {
                super::Element::Running { origin, .. } => origin.saturating_sub(1),
                _ => 0,
            },
        }
    }

    /// Takes a state; the count is loaded now.
    pub(in super::super) fn restore(&mut self, saved: &Saved, cycle: u64) {
        *self = Self::new(saved.gate);
        if saved.mode > 5 || !matches!(saved.rw_mode, 1..=3) {
            return;
        }
        self.control(saved.rw_mode << 4 | saved.mode << 1 | u8::from(saved.bcd));
        let [low, high] = self.encode(saved.count).to_le_bytes();
        for byte in match self.bytes {
            Bytes::Low => vec![low],
            Bytes::High => vec![high],
            Bytes::Both => vec![low, high],
        } {
            self.write(byte, cycle);
        }
        self.count = Some(saved.count.clamp(1, self.modulus() as u32));
        self.half_written = (saved.write_state == SECOND).then_some(saved.write_latch);
        self.latched_count = (saved.count_latched != 0).then_some(saved.latched_count);
        self.latched_status = saved.status_latched.then_some(saved.status);
        let second = saved.read_state == SECOND || saved.count_latched == 2;
        self.high_next = matches!(self.bytes, Bytes::Both) && second;
    }
}
