//! The 8042 keyboard controller of a PS/2, without keyboard and mouse: its tests, the A20 gate, the reset line.
//!
//! Source: IBM PC AT Technical Reference "Keyboard Controller", IBM PS/2 Hardware Interface Technical Reference "Keyboard and
//! Auxiliary Device Controller"; the commands are those of QEMU's and real AT controllers.

use rootmode_mmu::Digest;

/// Data port.
pub const DATA: u16 = 0x60;
/// Status (read) and command (write) port.
pub const COMMAND: u16 = 0x64;
/// Interrupt lines of the first port, the keyboard's, and of the second, the mouse's.
pub const IRQ: [u8; 2] = [1, 12];

const OUTPUT_FULL: u8 = 0x01;
const SYSTEM: u8 = 0x04;
const LAST_WAS_COMMAND: u8 = 0x08;
const UNLOCKED: u8 = 0x10;
/// The byte in the output buffer comes from the second port.
const SECOND: u8 = 0x20;

/// Output port: bit 0 is the inverted reset line, bit 1 the A20 gate.
const A20: u8 = 0x02;
const NO_RESET: u8 = 0x01;

/// A port for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    First,
    Second,
}

/// The controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyboard {
    /// What the output buffer holds, and the port it comes from.
    output: Option<(Port, u8)>,
    /// The command byte: interrupt enables, clock disables, translation.
    configuration: u8,
    output_port: u8,
    /// A command that waits for its data byte.
    pending: Option<u8>,
    last_was_command: bool,
}

impl Default for Keyboard {
    fn default() -> Self {
        Self::new()
    }
}

impl Keyboard {
    /// As after reset, with the A20 gate open.
    pub const fn new() -> Self {
        Self {
            output: None,
            configuration: SYSTEM,
            output_port: 0xcc | A20 | NO_RESET,
            pending: None,
            last_was_command: false,
        }
    }

    /// Whether address line 20 passes.
    pub const fn a20(&self) -> bool {
        self.output_port & A20 != 0
    }

    /// Opens or closes the A20 gate from elsewhere (port 0x92).
    pub const fn set_a20(&mut self, open: bool) {
        self.output_port = self.output_port & !A20 | if open { A20 } else { 0 };
    }

    /// The levels of the two interrupt lines: bits 0 and 1 of the command byte let a full buffer raise them.
    pub const fn interrupts(&self) -> [bool; 2] {
        match self.output {
            Some((Port::First, _)) => [self.configuration & 1 != 0, false],
            Some((Port::Second, _)) => [false, self.configuration & 2 != 0],
            None => [false; 2],
        }
    }

    /// Reads one of the two ports.
    pub fn read(&mut self, port: u16) -> u8 {
        if port == DATA {
            return self.output.take().map_or(0, |(_, value)| value);
        }
        let full = match self.output {
            Some((Port::First, _)) => OUTPUT_FULL,
            Some((Port::Second, _)) => OUTPUT_FULL | SECOND,
            None => 0,
        };
        let command = if self.last_was_command { LAST_WAS_COMMAND } else { 0 };
        full | self.configuration & SYSTEM | command | UNLOCKED
    }

    /// Writes one of the two ports; true when the reset line was pulled.
    pub fn write(&mut self, port: u16, value: u8) -> bool {
        self.last_was_command = port == COMMAND;
        if port == DATA { self.data(value) } else { self.command(value) }
    }

    fn command(&mut self, value: u8) -> bool {
        self.pending = None;
        match value {
            0x20 => self.answer(self.configuration),
            0x60 | 0xd1..=0xd4 => self.pending = Some(value),
            0xa7 => self.configuration |= 0x20,
            0xa8 => self.configuration &= !0x20,
            0xaa => {
                self.configuration |= SYSTEM;
                self.answer(0x55);
            }
            // Tests of the second and the first port: no error.
            0xa9 | 0xab => self.answer(0),
            0xad => self.configuration |= 0x10,
            0xae => self.configuration &= !0x10,
            0xd0 => self.answer(self.output_port),
            0xdd => self.set_a20(false),
            0xdf => self.set_a20(true),
            // A pulse of the output-port bits that are 0; only the reset line is wired.
            0xf0..=0xff => return value & NO_RESET == 0,
            _ => {}
        }
        false
    }

    const fn answer(&mut self, value: u8) {
        self.output = Some((Port::First, value));
    }

    fn data(&mut self, value: u8) -> bool {
        match self.pending.take() {
            Some(0x60) => self.configuration = value & 0x7f,
            Some(0xd1) => {
                self.output_port = value | NO_RESET;
                return value & NO_RESET == 0;
            }
            // As if a device had sent it.
            Some(0xd2) => self.output = Some((Port::First, value)),
            Some(0xd3) => self.output = Some((Port::Second, value)),
            // Bytes for a keyboard or a mouse that is not there.
            _ => {}
        }
        false
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        let option = |value: Option<u8>| value.map_or(u64::MAX, u64::from);
        digest.all(&[option(self.output.map(|(_, value)| value)), option(self.pending)]);
        let second = matches!(self.output, Some((Port::Second, _)));
        digest.bytes(&[
            u8::from(second),
            self.configuration,
            self.output_port,
            u8::from(self.last_was_command),
        ]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_self_test_answers_55_and_reading_it_empties_the_buffer() {
        let mut keyboard = Keyboard::new();
        assert_eq!(keyboard.read(COMMAND) & OUTPUT_FULL, 0);
        assert!(!keyboard.write(COMMAND, 0xaa));
        assert_eq!(keyboard.read(COMMAND), 0x1d);
        assert_eq!(keyboard.read(DATA), 0x55);
        assert_eq!(keyboard.read(COMMAND) & OUTPUT_FULL, 0);
    }

    #[test]
    fn the_gate_of_a20_is_bit_1_of_the_output_port() {
        let mut keyboard = Keyboard::new();
        assert!(keyboard.a20());
        keyboard.write(COMMAND, 0xd1);
        assert!(!keyboard.write(DATA, 0xdd));
        assert!(!keyboard.a20());
        keyboard.write(COMMAND, 0xd0);
        assert_eq!(keyboard.read(DATA) & 3, 1);
        keyboard.write(COMMAND, 0xdf);
        assert!(keyboard.a20());
    }

    #[test]
    fn pulsing_bit_0_or_writing_it_low_resets() {
        let mut keyboard = Keyboard::new();
        assert!(keyboard.write(COMMAND, 0xfe));
        assert!(!keyboard.write(COMMAND, 0xff));
        keyboard.write(COMMAND, 0xd1);
        assert!(keyboard.write(DATA, 0x02));
        assert!(!keyboard.write(DATA, 0x02), "the byte is for the keyboard now");
    }

    #[test]
    fn the_command_byte_reads_back_and_enables_the_interrupt() {
        let mut keyboard = Keyboard::new();
        keyboard.write(COMMAND, 0x60);
        keyboard.write(DATA, 0x41);
        keyboard.write(COMMAND, 0xad);
        keyboard.write(COMMAND, 0x20);
        assert_eq!(keyboard.interrupts(), [true, false]);
        assert_eq!(keyboard.read(DATA), 0x51);
        assert_eq!(keyboard.interrupts(), [false, false]);
    }

    #[test]
    fn a_byte_looped_through_the_second_port_is_marked_and_raises_its_line() {
        let mut keyboard = Keyboard::new();
        keyboard.write(COMMAND, 0x60);
        keyboard.write(DATA, 0x47);
        keyboard.write(COMMAND, 0xd3);
        keyboard.write(DATA, 0x5a);
        assert_eq!(keyboard.read(COMMAND) & (OUTPUT_FULL | SECOND), OUTPUT_FULL | SECOND);
        assert_eq!(keyboard.interrupts(), [false, true]);
        assert_eq!(keyboard.read(DATA), 0x5a);
        assert_eq!(keyboard.read(COMMAND) & (OUTPUT_FULL | SECOND), 0);
    }
}
