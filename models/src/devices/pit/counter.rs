//! One counter of the 8254, in closed form over cycles of its input clock.

mod saved;

pub use saved::Saved;

use rootmode_mmu::Digest;

/// The six modes; encodings 6 and 7 are 2 and 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    InterruptOnTerminalCount,
    OneShot,
    RateGenerator,
    SquareWave,
    SoftwareStrobe,
    HardwareStrobe,
}

/// Which bytes of a count are transferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bytes {
    Low,
    High,
    Both,
}

/// What the counting element does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Element {
    /// Not loaded: no count was written, or no trigger came since.
    Waiting,
    /// Loaded in this cycle with `count`.
    Running { origin: u64, count: u32 },
    /// Stopped by its gate, or by the first half of a new count, after this many cycles.
    Held { elapsed: u64, count: u32 },
}

/// One counter. Cycles are numbered from tick 0; what is written in cycle c is loaded in cycle c + 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counter {
    control: u8,
    mode: Mode,
    bytes: Bytes,
    bcd: bool,
    gate: bool,
    /// The last whole count written, 1 to 65 536 (10 000 in BCD).
    count: Option<u32>,
    element: Element,
    /// In mode 3: OUT is low at the origin. In modes 1, 4 and 5: it is low until the origin, from what ran before.
    low_first: bool,
    /// In mode 4: the gate fell in this cycle, that of the strobe; it is over although the element stays at zero.
    struck: Option<u64>,
    /// A count that waits for a trigger, in modes 1 and 5.
    wants_trigger: bool,
    /// A count for the end of the current period, in modes 2 and 3.
    reload: Option<u32>,
    /// The low byte of a count whose high byte is still to come.
    half_written: Option<u8>,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
    /// The high byte is read next.
    high_next: bool,
}

impl Counter {
    pub(super) fn new(gate: bool) -> Self {
        Self {
            control: 0,
            mode: Mode::InterruptOnTerminalCount,
            bytes: Bytes::Both,
            bcd: false,
            gate,
            count: None,
            element: Element::Waiting,
            low_first: false,
            struck: None,
            wants_trigger: false,
            reload: None,
            half_written: None,
            latched_count: None,
            latched_status: None,
            high_next: false,
        }
    }

    pub(super) const fn gate(&self) -> bool {
        self.gate
    }

    /// A control word other than a latch command.
    pub(super) fn control(&mut self, value: u8) {
        self.control = value & 0x3f;
        self.bytes = match value >> 4 & 3 {
            1 => Bytes::Low,
            2 => Bytes::High,
            _ => Bytes::Both,
        };
        self.mode = match value >> 1 & 7 {
            0 => Mode::InterruptOnTerminalCount,
            1 => Mode::OneShot,
            2 | 6 => Mode::RateGenerator,
            3 | 7 => Mode::SquareWave,
            4 => Mode::SoftwareStrobe,
            _ => Mode::HardwareStrobe,
        };
        self.bcd = value & 1 != 0;
        self.count = None;
        self.element = Element::Waiting;
        self.low_first = false;
        self.struck = None;
        self.wants_trigger = false;
        self.reload = None;
        self.half_written = None;
        self.latched_count = None;
        self.latched_status = None;
        self.high_next = false;
    }

    /// A byte of a count.
    pub(super) fn write(&mut self, value: u8, cycle: u64) {
        self.settle(cycle);
        let raw = match (self.bytes, self.half_written.take()) {
            (Bytes::Low, _) => u16::from(value),
            (Bytes::High, _) => u16::from(value) << 8,
            (Bytes::Both, Some(low)) => u16::from_le_bytes([low, value]),
            (Bytes::Both, None) => {
                self.half_written = Some(value);
                if self.mode == Mode::InterruptOnTerminalCount {
                    // "Writing the first byte disables counting. OUT is set low immediately."
                    self.element = Element::Waiting;
                }
                return;
            }
        };
        let mut count = self.decode(raw);
        if matches!(self.mode, Mode::RateGenerator | Mode::SquareWave) {
            // "COUNT of 1 is illegal"; the shortest legal period takes its place.
            count = count.max(2);
        }
        self.count = Some(count);
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::SoftwareStrobe => {
                self.low_first = self.mode == Mode::SoftwareStrobe && !self.out(cycle);
                self.struck = None;
                self.element = if self.gate {
                    Element::Running { origin: cycle + 1, count }
                } else {
                    Element::Held { elapsed: 0, count }
                };
            }
            Mode::RateGenerator | Mode::SquareWave => {
                if self.start_part_at_origin(cycle) {
                    self.reload = Some(count);
                } else if self.gate {
                    self.element = Element::Running { origin: cycle + 1, count };
                    self.low_first = false;
                }
            }
            Mode::OneShot | Mode::HardwareStrobe => self.wants_trigger = true,
        }
    }

    pub(super) fn set_gate(&mut self, gate: bool, cycle: u64) {
        self.settle(cycle);
        let rises = gate && !self.gate;
        let falls = !gate && self.gate;
        self.gate = gate;
        match self.mode {
            Mode::InterruptOnTerminalCount | Mode::SoftwareStrobe => {
                if let (true, Element::Running { origin, count }) = (falls, self.element) {
                    let elapsed = cycle.saturating_sub(origin);
                    if elapsed == u64::from(count) {
                        self.struck = Some(cycle);
                    }
                    self.element = Element::Held { elapsed, count };
                } else if let (true, Element::Held { elapsed, count }) = (rises, self.element) {
                    // The count was loaded in spite of the gate: no cycle is lost for that.
                    self.element = Element::Running { origin: cycle.saturating_sub(elapsed), count };
                }
            }
            Mode::RateGenerator | Mode::SquareWave if falls => {
                self.element = Element::Waiting;
                self.reload = None;
            }
            _ if rises => {
                if let Some(count) = self.count {
                    self.low_first =
                        matches!(self.mode, Mode::OneShot | Mode::HardwareStrobe) && !self.out(cycle);
                    self.element = Element::Running { origin: cycle + 1, count };
                    self.wants_trigger = false;
                    self.reload = None;
                }
            }
            _ => {}
        }
    }

    /// Applies a reload whose time has come.
    fn settle(&mut self, cycle: u64) {
        let (Some(new), Element::Running { origin, count }) = (self.reload, self.element) else { return };
        let Some(end) = self.end_of_part(origin, count) else { return };
        if cycle >= end {
            self.low_first = self.mode == Mode::SquareWave && !self.low_first;
            self.element = Element::Running { origin: end, count: new };
            self.reload = None;
        }
    }

    /// In modes 2 and 3, moves the origin to the start of the part that is running; false if none is.
    fn start_part_at_origin(&mut self, cycle: u64) -> bool {
        let Element::Running { origin, count } = self.element else { return false };
        if cycle < origin {
            return false;
        }
        let elapsed = cycle - origin;
        let within = if self.mode == Mode::SquareWave {
            let (high, within) = self.wave(elapsed, count);
            self.low_first = !high;
            within
        } else {
            elapsed % u64::from(count)
        };
        self.element = Element::Running { origin: cycle - within, count };
        true
    }

    /// The end of the part (a period, or half a wave) that starts at `origin`.
    fn end_of_part(&self, origin: u64, count: u32) -> Option<u64> {
        let count = u64::from(count);
        match self.mode {
            Mode::RateGenerator => Some(origin + count),
            Mode::SquareWave if self.low_first => Some(origin + count / 2),
            Mode::SquareWave => Some(origin + count.div_ceil(2)),
            _ => None,
        }
    }

    pub(super) fn read(&mut self, cycle: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let value = self.latched_count.unwrap_or_else(|| self.current(cycle));
        let [low, high] = value.to_le_bytes();
        match self.bytes {
            Bytes::Low => {
                self.latched_count = None;
                low
            }
            Bytes::High => {
                self.latched_count = None;
                high
            }
            Bytes::Both => {
                self.high_next = !self.high_next;
                if self.high_next {
                    return low;
                }
                self.latched_count = None;
                high
            }
        }
    }

    /// A second latch before the first was read is ignored.
    pub(super) fn latch_count(&mut self, cycle: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.current(cycle));
        }
    }

    pub(super) fn latch_status(&mut self, cycle: u64) {
        if self.latched_status.is_none() {
            self.latched_status =
                Some(u8::from(self.out(cycle)) << 7 | u8::from(self.null_count(cycle)) << 6 | self.control);
        }
    }

    /// Whether the last count written has not reached the counting element.
    fn null_count(&self, cycle: u64) -> bool {
        let settled = self.settled(cycle);
        match settled.element {
            Element::Waiting => true,
            Element::Running { origin, .. } => {
                cycle < origin || settled.reload.is_some() || settled.wants_trigger
            }
            Element::Held { .. } => false,
        }
    }

    fn settled(&self, cycle: u64) -> Self {
        let mut settled = self.clone();
        settled.settle(cycle);
        settled
    }

    /// The counting element as software reads it.
    fn current(&self, cycle: u64) -> u16 {
        let settled = self.settled(cycle);
        let (elapsed, count) = match settled.element {
            Element::Waiting => return self.encode(self.count.unwrap_or(0)),
            Element::Running { origin, count } => (cycle.saturating_sub(origin), count),
            Element::Held { elapsed, count } => (elapsed, count),
        };
        let period = u64::from(count);
        let value = match self.mode {
            Mode::RateGenerator => period - elapsed % period,
            Mode::SquareWave => {
                let (_, within) = settled.wave(elapsed, count);
                // An odd count is loaded less one; the element then loses two a cycle.
                (period & !1).saturating_sub(2 * within)
            }
            _ => {
                let modulus = self.modulus();
                (period + modulus - elapsed % modulus) % modulus
            }
        };
        self.encode(value as u32)
    }

    /// In mode 3: whether OUT is high `elapsed` cycles after the origin, and how long it has been so.
    fn wave(&self, elapsed: u64, count: u32) -> (bool, u64) {
        let high = u64::from(count).div_ceil(2);
        let period = u64::from(count);
        let phase = (elapsed + if self.low_first { high } else { 0 }) % period;
        if phase < high { (true, phase) } else { (false, phase - high) }
    }

    /// The OUT pin.
    pub(super) fn out(&self, cycle: u64) -> bool {
        let settled = self.settled(cycle);
        let (elapsed, count) = match settled.element {
            Element::Waiting => return self.mode != Mode::InterruptOnTerminalCount,
            Element::Running { origin, .. } if cycle < origin => {
                return match self.mode {
                    Mode::InterruptOnTerminalCount => false,
                    _ => !settled.low_first,
                };
            }
            Element::Running { origin, count } => (cycle - origin, count),
            Element::Held { elapsed, count } => (elapsed, count),
        };
        let period = u64::from(count);
        match self.mode {
            Mode::InterruptOnTerminalCount => elapsed >= period,
            Mode::OneShot => elapsed >= period,
            Mode::RateGenerator => elapsed % period != period - 1,
            Mode::SquareWave => settled.wave(elapsed, count).0,
            Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                elapsed != period || self.struck.is_some_and(|struck| struck != cycle)
            }
        }
    }

    /// The next cycle after `cycle` in which OUT differs from what it is in `cycle`.
    pub(super) fn next_change(&self, cycle: u64) -> Option<u64> {
        let settled = self.settled(cycle);
        let Element::Running { origin, count } = settled.element else { return None };
        if let Some(new) = settled.reload {
            // At most until the reload, then on from there.
            let end = settled.end_of_part(origin, count)?;
            return match settled.change_without_reload(cycle, origin, count) {
                Some(change) if change <= end => Some(change),
                _ => {
                    let mut after = settled.clone();
                    after.low_first = after.mode == Mode::SquareWave && !after.low_first;
                    after.reload = None;
                    after.change_without_reload(end, end, new)
                }
            };
        }
        settled.change_without_reload(cycle, origin, count)
    }

    fn change_without_reload(&self, cycle: u64, origin: u64, count: u32) -> Option<u64> {
        let period = u64::from(count);
        let elapsed = cycle.saturating_sub(origin);
        match self.mode {
            _ if self.struck.is_some() => None,
            Mode::InterruptOnTerminalCount => Some(origin + period).filter(|end| *end > cycle),
            Mode::OneShot if cycle < origin && !self.low_first => Some(origin),
            Mode::OneShot => Some(origin + period).filter(|end| *end > cycle),
            Mode::SoftwareStrobe | Mode::HardwareStrobe if cycle < origin && self.low_first => Some(origin),
            Mode::SoftwareStrobe | Mode::HardwareStrobe => {
                [origin + period, origin + period + 1].into_iter().find(|change| *change > cycle)
            }
            Mode::RateGenerator => {
                let base = origin + elapsed / period * period;
                [base + period - 1, base + period, base + 2 * period - 1]
                    .into_iter()
                    .find(|change| *change > cycle && *change > origin)
            }
            Mode::SquareWave => {
                let (high, within) = self.wave(elapsed, count);
                let length = if high { period.div_ceil(2) } else { period / 2 };
                Some(origin + elapsed - within + length)
            }
        }
    }

    const fn modulus(&self) -> u64 {
        if self.bcd { 10_000 } else { 0x1_0000 }
    }

    /// A count as written; 0 is the largest.
    fn decode(&self, raw: u16) -> u32 {
        let value = if self.bcd {
            (0..4).rev().fold(0, |value, digit| value * 10 + u32::from(raw >> (4 * digit) & 15))
        } else {
            u32::from(raw)
        };
        if value == 0 { self.modulus() as u32 } else { value }
    }

    fn encode(&self, value: u32) -> u16 {
        let value = value % self.modulus() as u32;
        if !self.bcd {
            return value as u16;
        }
        let digit = |power: u32| (value / 10_u32.pow(power) % 10) as u16;
        digit(3) << 12 | digit(2) << 8 | digit(1) << 4 | digit(0)
    }

    pub(super) fn digest(&self, digest: &mut Digest) {
        let element = match self.element {
            Element::Waiting => [0; 3],
            Element::Running { origin, count } => [1, origin, u64::from(count)],
            Element::Held { elapsed, count } => [2, elapsed, u64::from(count)],
        };
        let option = |value: Option<u64>| value.map_or(u64::MAX, |v| v);
        digest.all(&element);
        digest.all(&[
            u64::from(self.control),
            u64::from(self.gate)
                | u64::from(self.low_first) << 1
                | u64::from(self.high_next) << 2
                | u64::from(self.wants_trigger) << 3,
            option(self.struck),
            option(self.count.map(u64::from)),
            option(self.reload.map(u64::from)),
            option(self.half_written.map(u64::from)),
            option(self.latched_count.map(u64::from)),
            option(self.latched_status.map(u64::from)),
        ]);
    }
}
