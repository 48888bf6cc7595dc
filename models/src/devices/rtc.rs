//! The MC146818 real-time clock and its battery-backed RAM ("CMOS").
//!
//! The time is computed from the tick and the configured date; the three interrupt flags are computed from what the clock
//! passed since it was last looked at. Source: Motorola MC146818A data sheet (1984) "Update Cycle", "Alarm Bytes",
//! "Register A" to "Register D"; RAM bytes as PC firmware leaves them.

mod calendar;

pub use calendar::Date;

use super::clock;
use rootmode_mmu::Digest;

/// Interrupt line.
pub const IRQ: u8 = 8;

const SECONDS: u8 = 0;
const SECONDS_ALARM: u8 = 1;
const MINUTES: u8 = 2;
const MINUTES_ALARM: u8 = 3;
const HOURS: u8 = 4;
const HOURS_ALARM: u8 = 5;
const WEEKDAY: u8 = 6;
const DAY: u8 = 7;
const MONTH: u8 = 8;
const YEAR: u8 = 9;
const A: u8 = 10;
const B: u8 = 11;
const C: u8 = 12;
const D: u8 = 13;
const CENTURY: u8 = 0x32;

const TIME: [u8; 8] = [SECONDS, MINUTES, HOURS, WEEKDAY, DAY, MONTH, YEAR, CENTURY];

const UPDATE_IN_PROGRESS: u8 = 0x80;

const SET: u8 = 0x80;
const PERIODIC: u8 = 0x40;
const ALARM: u8 = 0x20;
const UPDATE_ENDED: u8 = 0x10;
const BINARY: u8 = 0x04;
const HOURS_24: u8 = 0x02;

/// Crystal cycles a second.
const SECOND: u64 = 32_768;
/// UIP rises 244 us before an update cycle of 1984 us.
const UPDATE_CYCLES: u64 = 73;

/// The clock with 128 bytes of registers and RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rtc {
    ram: [u8; 128],
    index: u8,
    /// Calendar seconds when the divider started.
    base: i64,
    /// The crystal cycle in which the divider started; `None` while it is held in reset.
    origin: Option<u64>,
    /// Flags of register C.
    flags: u8,
    /// The crystal cycle up to which the flags are known.
    seen: u64,
}

impl Rtc {
    /// A clock that shows `date` at tick 0, set to BCD and 24 hours with the 1024 Hz rate, as firmware leaves it.
    pub fn new(date: Date) -> Self {
        let mut ram = [0; 128];
        ram[usize::from(A)] = 0x26;
        ram[usize::from(B)] = HOURS_24;
        Self { ram, index: 0, base: date.seconds(), origin: Some(0), flags: 0, seen: 0 }
    }

    /// Notes the memory's size, in bytes below and above 4 GiB, and the number of processors, where firmware notes them.
    pub fn describe(&mut self, below_4g: u64, above_4g: u64, processors: u8) {
        let extended = (below_4g.saturating_sub(1 << 20) >> 10).min(0xffff) as u16;
        let above_16m = (below_4g.saturating_sub(16 << 20) >> 16).min(0xffff) as u16;
        let high = above_4g >> 16;
        for (at, value) in [
            (0x14, 0x06),
            (0x15, 640_u16.to_le_bytes()[0]),
            (0x16, 640_u16.to_le_bytes()[1]),
            (0x17, extended.to_le_bytes()[0]),
            (0x18, extended.to_le_bytes()[1]),
            (0x30, extended.to_le_bytes()[0]),
            (0x31, extended.to_le_bytes()[1]),
            (0x34, above_16m.to_le_bytes()[0]),
            (0x35, above_16m.to_le_bytes()[1]),
            (0x5b, high as u8),
            (0x5c, (high >> 8) as u8),
            (0x5d, (high >> 16) as u8),
            (0x5f, processors.saturating_sub(1)),
        ] {
            self.ram[at] = value;
        }
    }

    fn b(&self) -> u8 {
        self.ram[usize::from(B)]
    }

    /// Cycles between two periodic flags; `None` if the rate is 0.
    fn period(&self) -> Option<u64> {
        match self.ram[usize::from(A)] & 15 {
            0 => None,
            // The two slowest encodings repeat 256 and 128 Hz.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// The origin, if time runs: the divider is on and SET is clear.
    fn running(&self) -> Option<u64> {
        self.origin.filter(|_| self.b() & SET == 0)
    }

    fn seconds(&self, cycle: u64) -> i64 {
        self.base + self.running().map_or(0, |origin| (cycle.saturating_sub(origin) / SECOND) as i64)
    }

    /// Brings the flags up to `cycle`.
    fn settle(&mut self, cycle: u64) {
        if let Some(origin) = self.origin {
            let passed = |period: u64| {
                (cycle.saturating_sub(origin) / period) > (self.seen.saturating_sub(origin) / period)
            };
            let mut flags = 0;
            if self.period().is_some_and(passed) {
                flags |= PERIODIC;
            }
            if self.running().is_some() && passed(SECOND) {
                flags |= UPDATE_ENDED;
                if self.next_alarm(self.seen).is_some_and(|alarm| alarm <= cycle) {
                    flags |= ALARM;
                }
            }
            self.flags |= flags;
        }
        self.seen = self.seen.max(cycle);
    }

    /// The cycle of the first alarm after `cycle`.
    fn next_alarm(&self, cycle: u64) -> Option<u64> {
        let origin = self.running()?;
        let wanted = |register: u8, hour: bool| {
            let raw = self.ram[usize::from(register)];
            // Two high bits: any value does.
            if raw & 0xc0 == 0xc0 {
                None
            } else {
                Some(if hour { self.decode_hour(raw) } else { self.decode(raw) })
            }
        };
        let hour = wanted(HOURS_ALARM, true);
        let minute = wanted(MINUTES_ALARM, false);
        let second = wanted(SECONDS_ALARM, false);
        let matches = |wanted: Option<u8>, value: i64| wanted.is_none_or(|w| i64::from(w) == value);
        let now = self.seconds(cycle);
        let mut at = now + 1;
        // Within a day every time of day comes once; skip whole hours and minutes that do not match.
        while at <= now + 86_400 {
            let of_day = at.rem_euclid(86_400);
            if !matches(hour, of_day / 3600) {
                at += 3600 - of_day % 3600;
            } else if !matches(minute, of_day / 60 % 60) {
                at += 60 - of_day % 60;
            } else if !matches(second, of_day % 60) {
                at += 1;
            } else {
                return Some(origin + (at - self.base) as u64 * SECOND);
            }
        }
        None
    }

    fn decode(&self, raw: u8) -> u8 {
        if self.b() & BINARY != 0 { raw } else { (raw >> 4).wrapping_mul(10).wrapping_add(raw & 15) }
    }

    fn encode(&self, value: u8) -> u8 {
        if self.b() & BINARY != 0 { value } else { value / 10 << 4 | value % 10 }
    }

    fn decode_hour(&self, raw: u8) -> u8 {
        if self.b() & HOURS_24 != 0 {
            return self.decode(raw);
        }
        let hour = self.decode(raw & 0x7f) % 12;
        if raw & 0x80 != 0 { hour + 12 } else { hour }
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.b() & HOURS_24 != 0 {
            return self.encode(hour);
        }
        let twelve = if hour.is_multiple_of(12) { 12 } else { hour % 12 };
        self.encode(twelve) | if hour >= 12 { 0x80 } else { 0 }
    }

    /// Writes the time into the registers that show it.
    fn show(&mut self, cycle: u64) {
        let date = Date::from_seconds(self.seconds(cycle));
        for (register, value) in TIME.into_iter().zip([
            self.encode(date.second),
            self.encode(date.minute),
            self.encode_hour(date.hour),
            self.encode(date.weekday()),
            self.encode(date.day),
            self.encode(date.month),
            self.encode((date.year % 100) as u8),
            self.encode((date.year / 100) as u8),
        ]) {
            self.ram[usize::from(register)] = value;
        }
    }

    /// Takes the time from the registers, which were just written.
    fn adopt(&mut self, cycle: u64) {
        let at = |register: u8| self.ram[usize::from(register)];
        let century = u16::from(self.decode(at(CENTURY))).min(99);
        let date = Date {
            year: century * 100 + u16::from(self.decode(at(YEAR))).min(99),
            month: self.decode(at(MONTH)),
            day: self.decode(at(DAY)),
            hour: self.decode_hour(at(HOURS)),
            minute: self.decode(at(MINUTES)),
            second: self.decode(at(SECONDS)),
        };
        // The divider is not touched: the next second begins when it would have.
        let elapsed = self.origin.map_or(0, |origin| cycle.saturating_sub(origin) / SECOND);
        self.base = date.seconds() - elapsed as i64;
    }

    /// The level of the interrupt line.
    pub fn interrupt(&mut self, tick: u64) -> bool {
        self.settle(clock::RTC.cycles(tick));
        self.flags & self.b() & (PERIODIC | ALARM | UPDATE_ENDED) != 0
    }

    /// When the interrupt line may rise by itself.
    pub fn next_event(&self, tick: u64) -> Option<u64> {
        let cycle = clock::RTC.cycles(tick);
        let origin = self.origin?;
        let after = |period: u64| origin + (cycle.saturating_sub(origin) / period + 1) * period;
        let waits = |flag: u8| self.b() & flag != 0 && self.flags & flag == 0;
        let periodic = self.period().filter(|_| waits(PERIODIC)).map(after);
        let update = self.running().filter(|_| waits(UPDATE_ENDED)).map(|_| after(SECOND));
        let alarm = waits(ALARM).then(|| self.next_alarm(cycle)).flatten();
        let first = [periodic, update, alarm].into_iter().flatten().min()?;
        Some(clock::RTC.tick_of(first))
    }

    /// Port 0x70: the index. Bit 7, which masks NMIs on a PC, is kept out.
    pub fn select(&mut self, value: u8) {
        self.index = value & 0x7f;
    }

    /// Port 0x71, read.
    pub fn read(&mut self, tick: u64) -> u8 {
        let cycle = clock::RTC.cycles(tick);
        self.settle(cycle);
        match self.index {
            A => {
                let updating = self
                    .running()
                    .is_some_and(|origin| cycle.saturating_sub(origin) % SECOND >= SECOND - UPDATE_CYCLES);
                self.ram[usize::from(A)] | if updating { UPDATE_IN_PROGRESS } else { 0 }
            }
            C => {
                let flags = std::mem::take(&mut self.flags);
                flags | if flags & self.b() & 0x70 != 0 { 0x80 } else { 0 }
            }
            // Valid RAM and time.
            D => 0x80,
            register => {
                if TIME.contains(&register) && self.running().is_some() {
                    self.show(cycle);
                }
                self.ram[usize::from(register)]
            }
        }
    }

    /// Port 0x71, written.
    pub fn write(&mut self, value: u8, tick: u64) {
        let cycle = clock::RTC.cycles(tick);
        self.settle(cycle);
        match self.index {
            A => {
                self.ram[usize::from(A)] = value & 0x7f;
                let reset = value & 0x60 == 0x60;
                if reset && self.origin.is_some() {
                    if self.running().is_some() {
                        self.show(cycle);
                    }
                    self.base = self.seconds(cycle);
                    self.origin = None;
                } else if !reset && self.origin.is_none() {
                    // "The first update cycle begins one-half second later."
                    self.origin = Some(cycle.saturating_sub(SECOND / 2));
                    self.seen = cycle;
                    self.adopt(cycle);
                }
            }
            B => {
                if self.running().is_some() {
                    self.show(cycle);
                }
                let set = value & !self.b() & SET != 0;
                let cleared = self.b() & !value & SET != 0;
                if set {
                    self.base = self.seconds(cycle);
                }
                // SET clears the enable of the update-ended interrupt.
                self.ram[usize::from(B)] = if value & SET != 0 { value & !UPDATE_ENDED } else { value };
                if cleared {
                    self.adopt(cycle);
                }
            }
            C | D => {}
            register => {
                let time = TIME.contains(&register);
                if time && self.running().is_some() {
                    self.show(cycle);
                }
                self.ram[usize::from(register)] = value;
                if time && self.running().is_some() {
                    self.adopt(cycle);
                }
            }
        }
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.bytes(&self.ram);
        digest.all(&[
            u64::from(self.index),
            self.base as u64,
            self.origin.map_or(u64::MAX, |origin| origin),
            u64::from(self.flags),
            self.seen,
        ]);
    }
}

#[cfg(test)]
mod tests;
