//! The PIIX4's power-management block: PM1a event and control registers, the power-management timer, the SMI command port.
//!
//! Sources: Intel 82371AB (PIIX4) data sheet "Power Management I/O Space Registers"; ACPI 6.4 "PM1 Event Grouping",
//! "Power Management Timer", "PM1 Control Grouping".

use crate::devices::clock;
use rootmode_mmu::Digest;

/// First port of the block.
pub const BASE: u16 = 0x600;
/// Bytes of the block.
pub const SIZE: u16 = 0x40;
/// The timer's port.
pub const TIMER: u16 = BASE + 8;
/// Interrupt line of the SCI.
pub const SCI_IRQ: u8 = 9;
/// The APM control port: writing [`ACPI_ENABLE`] switches to ACPI mode.
pub const SMI_COMMAND: u16 = 0xb2;
/// See [`SMI_COMMAND`].
pub const ACPI_ENABLE: u8 = 0xf1;
/// The way back.
pub const ACPI_DISABLE: u8 = 0xf0;

const TIMER_STATUS: u16 = 1;
const POWER_BUTTON: u16 = 1 << 8;
const STATUS_BITS: u16 = 0x8d31;
const ENABLE_BITS: u16 = 0x0521;
const SCI_ENABLE: u16 = 1;
const SLEEP_ENABLE: u16 = 1 << 13;
const CONTROL_BITS: u16 = 0x1c03;

/// The timer has 24 bits; its status bit is set when the highest one changes.
const TIMER_BITS: u32 = 24;
const HALF: u64 = 1 << (TIMER_BITS - 1);

/// What a write asks the machine to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    /// Soft off.
    S5,
}

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Power {
    status: u16,
    enable: u16,
    control: u16,
    /// Half-periods of the timer up to which the status is known.
    halves: u64,
    /// The last byte written to the APM control and status ports.
    apm: [u8; 2],
}

impl Power {
    /// As after reset: legacy mode, nothing enabled.
    pub fn new() -> Self {
        Self::default()
    }

    fn settle(&mut self, tick: u64) {
        let halves = clock::ACPI_TIMER.cycles(tick) / HALF;
        if halves > self.halves {
            self.halves = halves;
            self.status |= TIMER_STATUS;
        }
    }

    /// Presses and releases the power button.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// The level of the SCI.
    pub fn interrupt(&mut self, tick: u64) -> bool {
        self.settle(tick);
        self.control & SCI_ENABLE != 0 && self.status & self.enable != 0
    }

    /// When the SCI may rise by itself.
    pub fn next_event(&self, tick: u64) -> Option<u64> {
        let waits = self.control & SCI_ENABLE != 0
            && self.enable & TIMER_STATUS != 0
            && self.status & TIMER_STATUS == 0;
        let next = (clock::ACPI_TIMER.cycles(tick) / HALF + 1) * HALF;
        waits.then(|| clock::ACPI_TIMER.tick_of(next))
    }

    /// Reads `size` bytes at `offset` in the block.
    pub fn read(&mut self, offset: u16, size: u8, tick: u64) -> u32 {
        self.settle(tick);
        let low = |value: u16, high: u16| u32::from(value) | u32::from(high) << 16;
        let word = match offset & !3 {
            0 => low(self.status, self.enable),
            4 => low(self.control, 0),
            8 => (clock::ACPI_TIMER.cycles(tick) & ((1 << TIMER_BITS) - 1)) as u32,
            _ => 0,
        };
        word >> (8 * (offset & 3)) & (u32::MAX >> (32 - 8 * u32::from(size)))
    }

    /// Writes `size` bytes at `offset`.
    pub fn write(&mut self, offset: u16, size: u8, value: u32, tick: u64) -> Option<Sleep> {
        self.settle(tick);
        let shift = 8 * u32::from(offset & 3);
        let mask = (u32::MAX >> (32 - 8 * u32::from(size))) << shift;
        let value = value << shift;
        match offset & !3 {
            0 => {
                self.status &= !((value & mask) as u16 & STATUS_BITS);
                let written = (mask >> 16) as u16 & ENABLE_BITS;
                self.enable = self.enable & !written | (value >> 16) as u16 & written;
                None
            }
            4 => {
                let written = mask as u16;
                let value = value as u16 & written;
                self.control = self.control & !(written & CONTROL_BITS) | value & CONTROL_BITS;
                // The sleep type of S5 is 0.
                (value & SLEEP_ENABLE != 0 && self.control & 0x1c00 == 0).then_some(Sleep::S5)
            }
            _ => None,
        }
    }

    /// Reads the APM control (0xb2) or status (0xb3) port.
    pub fn read_apm(&self, port: u16) -> u8 {
        self.apm[usize::from(port & 1)]
    }

    /// Writes it.
    pub fn write_apm(&mut self, port: u16, value: u8) {
        self.apm[usize::from(port & 1)] = value;
        if port == SMI_COMMAND {
            match value {
                ACPI_ENABLE => self.control |= SCI_ENABLE,
                ACPI_DISABLE => self.control &= !SCI_ENABLE,
                _ => {}
            }
        }
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.all(&[u64::from(self.status), u64::from(self.enable), u64::from(self.control), self.halves]);
        digest.bytes(&self.apm);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = clock::TICK_HZ;

    #[test]
    fn the_timer_counts_3_579_545_a_second_in_24_bits() {
        let mut power = Power::new();
        assert_eq!(power.read(8, 4, S), 3_579_545);
        assert_eq!(power.read(8, 4, 5 * S), 17_897_727 - (1 << 24));
        assert_eq!(power.read(9, 1, S), 3_579_545 >> 8 & 0xff);
        power.write(8, 4, 0, S);
        assert_eq!(power.read(8, 4, S), 3_579_545);
    }

    #[test]
    fn a_change_of_the_timers_highest_bit_raises_the_sci_when_enabled() {
        let mut power = Power::new();
        let half = (8_388_608 * 11 * S as u128).div_ceil(39_375_000) as u64;
        assert_eq!(power.next_event(0), None);
        power.write(2, 2, 1, 0);
        assert_eq!(power.next_event(0), None, "not in ACPI mode");
        power.write_apm(SMI_COMMAND, ACPI_ENABLE);
        assert_eq!(power.read(4, 2, 0) & 1, 1);
        assert_eq!(power.next_event(0), Some(half));
        assert!(!power.interrupt(half - 1) && power.interrupt(half));
        assert_eq!(power.read(0, 2, half), 1);
        power.write(0, 2, 0, half);
        assert!(power.interrupt(half), "status bits are cleared by writing ones");
        power.write(0, 2, 1, half);
        assert!(!power.interrupt(half));
    }

    #[test]
    fn sleep_enable_with_the_type_of_s5_asks_for_power_off() {
        let mut power = Power::new();
        assert_eq!(power.write(4, 2, 0x0001, 0), None);
        assert_eq!(power.write(4, 2, 0x2401, 0), None, "type 1 is not S5");
        assert_eq!(power.write(4, 2, 0x2001, 0), Some(Sleep::S5));
        assert_eq!(power.read(4, 2, 0), 1, "sleep enable reads as zero");
        assert_eq!(power.write(5, 1, 0x20, 0), Some(Sleep::S5), "also by the byte");
    }

    #[test]
    fn the_power_button_sets_its_status() {
        let mut power = Power::new();
        power.write_apm(SMI_COMMAND, ACPI_ENABLE);
        power.write(0, 4, 1 << 24, 0);
        power.press_power_button();
        assert!(power.interrupt(0));
        power.write(0, 4, 1 << 24 | 1 << 8, 0);
        assert!(!power.interrupt(0));
    }
}
