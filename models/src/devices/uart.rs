//! The 16550A serial port.
//!
//! A byte that is written leaves at once, so that guests that poll do not wait; a byte that comes in waits in a queue of the
//! outside world until the receiver has room, and is never lost. Source: National PC16550D data sheet (June 1995)
//! "Registers", "FIFO Interrupt Mode Operation", "Loop" of the modem control register.

use super::clock;
use rootmode_mmu::Digest;
use std::collections::VecDeque;

/// First port of COM1.
pub const COM1: u16 = 0x3f8;
/// Interrupt line of COM1.
pub const COM1_IRQ: u8 = 4;

const FIFO: usize = 16;

// Interrupt enable register.
const RECEIVED: u8 = 1;
const TRANSMITTER_EMPTY: u8 = 2;
const LINE_STATUS: u8 = 4;
const MODEM_STATUS: u8 = 8;

// Line status register.
const DATA_READY: u8 = 0x01;
const OVERRUN: u8 = 0x02;
const TRANSMITTER_IDLE: u8 = 0x60;

// Modem control register.
const OUT2: u8 = 0x08;
const LOOP: u8 = 0x10;

/// CTS, DSR and DCD: a terminal is connected.
const CONNECTED: u8 = 0xb0;

/// Divisor latch access bit of the line control register.
const DLAB: u8 = 0x80;

/// A 16550A.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uart {
    enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    /// Sticky bits of the line status register.
    errors: u8,
    modem_status: u8,
    scratch: u8,
    divisor: u16,
    received: VecDeque<u8>,
    /// What the outside world has sent and the receiver has not yet taken.
    incoming: VecDeque<u8>,
    /// The transmitter became empty and nobody has looked.
    empty_pending: bool,
    /// When the receiver was last filled or read.
    receiver_moved: u64,
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}

impl Uart {
    /// As after reset, at 9600 baud, with a terminal connected.
    pub fn new() -> Self {
        Self {
            enable: 0,
            fifo_control: 0,
            line_control: 0,
            modem_control: 0,
            errors: 0,
            modem_status: CONNECTED,
            scratch: 0,
            divisor: 12,
            received: VecDeque::new(),
            incoming: VecDeque::new(),
            empty_pending: false,
            receiver_moved: 0,
        }
    }

    /// Bytes from outside.
    pub fn receive(&mut self, bytes: &[u8], tick: u64) {
        self.incoming.extend(bytes);
        self.take_incoming(tick);
    }

    fn capacity(&self) -> usize {
        if self.fifo_control & 1 != 0 { FIFO } else { 1 }
    }

    fn take_incoming(&mut self, tick: u64) {
        while self.modem_control & LOOP == 0 && self.received.len() < self.capacity() {
            let Some(byte) = self.incoming.pop_front() else { return };
            self.received.push_back(byte);
            self.receiver_moved = tick;
        }
    }

    fn trigger_level(&self) -> usize {
        if self.fifo_control & 1 == 0 { 1 } else { [1, 4, 8, 14][usize::from(self.fifo_control >> 6)] }
    }

    /// When bytes below the trigger level have waited for four characters.
    fn timeout(&self) -> u64 {
        let word = u64::from(self.line_control & 3) + 5;
        let parity = u64::from(self.line_control >> 3 & 1);
        let stop = 1 + u64::from(self.line_control >> 2 & 1);
        let bits = 4 * (1 + word + parity + stop) * u64::from(self.divisor.max(1));
        self.receiver_moved.saturating_add(clock::UART.tick_of(bits))
    }

    /// The identification of the interrupt with the highest priority, without the FIFO bits; 1 if there is none.
    fn identification(&self, tick: u64) -> u8 {
        let pending = self.received.len();
        if self.enable & LINE_STATUS != 0 && self.errors != 0 {
            6
        } else if self.enable & RECEIVED != 0 && pending >= self.trigger_level() {
            4
        } else if self.enable & RECEIVED != 0 && pending > 0 && tick >= self.timeout() {
            0xc
        } else if self.enable & TRANSMITTER_EMPTY != 0 && self.empty_pending {
            2
        } else if self.enable & MODEM_STATUS != 0 && self.modem_status & 0x0f != 0 {
            0
        } else {
            1
        }
    }

    /// The level of the interrupt line: on a PC, OUT2 gates it; in loop mode it is inactive as all outputs are.
    pub fn interrupt(&self, tick: u64) -> bool {
        self.modem_control & (OUT2 | LOOP) == OUT2 && self.identification(tick) != 1
    }

    /// When the interrupt line may rise by itself.
    pub fn next_event(&self, tick: u64) -> Option<u64> {
        let waits = self.enable & RECEIVED != 0
            && !self.received.is_empty()
            && self.received.len() < self.trigger_level();
        waits.then(|| self.timeout()).filter(|timeout| *timeout > tick)
    }

    /// Reads register 0 to 7.
    pub fn read(&mut self, register: u16, tick: u64) -> u8 {
        match register & 7 {
            0 if self.line_control & DLAB != 0 => self.divisor as u8,
            0 => {
                let byte = self.received.pop_front().unwrap_or(0);
                self.receiver_moved = tick;
                self.take_incoming(tick);
                byte
            }
            1 if self.line_control & DLAB != 0 => (self.divisor >> 8) as u8,
            1 => self.enable,
            2 => {
                let identification = self.identification(tick);
                if identification == 2 {
                    self.empty_pending = false;
                }
                identification | if self.fifo_control & 1 != 0 { 0xc0 } else { 0 }
            }
            3 => self.line_control,
            4 => self.modem_control,
            5 => {
                let ready = if self.received.is_empty() { 0 } else { DATA_READY };
                std::mem::take(&mut self.errors) | ready | TRANSMITTER_IDLE
            }
            6 => {
                let status = self.modem_status;
                self.modem_status &= 0xf0;
                status
            }
            _ => self.scratch,
        }
    }

    /// Writes register 0 to 7; the byte that leaves the port, if one does.
    pub fn write(&mut self, register: u16, value: u8, tick: u64) -> Option<u8> {
        match register & 7 {
            0 if self.line_control & DLAB != 0 => self.divisor = self.divisor & 0xff00 | u16::from(value),
            0 => {
                self.empty_pending = true;
                if self.modem_control & LOOP == 0 {
                    return Some(value);
                }
                self.loop_back(value, tick);
            }
            1 if self.line_control & DLAB != 0 => {
                self.divisor = self.divisor & 0x00ff | u16::from(value) << 8;
            }
            1 => {
                // Enabling the interrupt of a transmitter that is empty raises it.
                if value & !self.enable & TRANSMITTER_EMPTY != 0 {
                    self.empty_pending = true;
                }
                self.enable = value & 0x0f;
            }
            2 => {
                if value & 2 != 0 || (value ^ self.fifo_control) & 1 != 0 {
                    self.received.clear();
                }
                // Without bit 0 the others are not programmed.
                self.fifo_control = if value & 1 != 0 { value & 0xc9 } else { 0 };
                self.take_incoming(tick);
            }
            3 => self.line_control = value,
            4 => {
                self.modem_control = value & 0x1f;
                self.update_modem_status();
                self.take_incoming(tick);
            }
            7 => self.scratch = value,
            // Line and modem status are read-only here; writing them is for factory tests.
            _ => {}
        }
        None
    }

    fn loop_back(&mut self, value: u8, tick: u64) {
        if self.received.len() >= self.capacity() {
            self.errors |= OVERRUN;
            if self.fifo_control & 1 == 0 {
                // The unread character is destroyed; with FIFOs, the new one is.
                self.received[0] = value;
            }
        } else {
            self.received.push_back(value);
        }
        self.receiver_moved = tick;
    }

    /// Inputs of the modem, or the outputs in loop mode, and what changed since the last read.
    fn update_modem_status(&mut self) {
        let inputs = if self.modem_control & LOOP == 0 {
            CONNECTED
        } else {
            let control = self.modem_control;
            // RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
            (control & 2) << 3 | (control & 1) << 5 | (control & 4) << 4 | (control & 8) << 4
        };
        let changed = (inputs ^ self.modem_status) >> 4;
        // RI counts when it ends (trailing edge).
        let ring_ended = changed & 4 != 0 && inputs & 0x40 == 0;
        self.modem_status = inputs | self.modem_status & 0x0f | changed & 0x0b | u8::from(ring_ended) << 2;
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.bytes(&[
            self.enable,
            self.fifo_control,
            self.line_control,
            self.modem_control,
            self.errors,
            self.modem_status,
            self.scratch,
            u8::from(self.empty_pending),
        ]);
        digest.all(&[u64::from(self.divisor), self.receiver_moved]);
        for queue in [&self.received, &self.incoming] {
            digest.bytes(&queue.iter().copied().collect::<Vec<u8>>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIFOs on at trigger level 8, interrupts `enable`, OUT2 set, 8 bits at 115 200 baud.
    fn port(enable: u8) -> Uart {
        let mut uart = Uart::new();
        for (register, value) in [(3, 0x83), (0, 1), (1, 0), (3, 0x03), (2, 0x87), (4, 0x0b), (1, enable)] {
            assert_eq!(uart.write(register, value, 0), None);
        }
        uart
    }

    #[test]
    fn a_written_byte_leaves_at_once_and_the_transmitter_is_empty() {
        let mut uart = port(0);
        assert_eq!(uart.read(5, 0), 0x60);
        assert_eq!(uart.write(0, b'x', 0), Some(b'x'));
        assert_eq!(uart.read(5, 0), 0x60);
        assert!(!uart.interrupt(0));
    }

    #[test]
    fn the_empty_transmitter_interrupts_once_and_reading_its_identification_ends_that() {
        let mut uart = port(2);
        assert!(uart.interrupt(0), "enabling raises it");
        assert_eq!(uart.read(2, 0), 0xc2);
        assert_eq!(uart.read(2, 0), 0xc1);
        assert!(!uart.interrupt(0));
        uart.write(0, b'y', 1);
        assert!(uart.interrupt(1));
        uart.write(4, 0x03, 1);
        assert!(!uart.interrupt(1), "OUT2 gates the line");
    }

    #[test]
    fn received_bytes_interrupt_at_the_trigger_level_or_after_four_character_times() {
        let mut uart = port(1);
        uart.receive(b"abc", 1000);
        assert!(!uart.interrupt(1000));
        // 4 characters of 10 bits at 115 200 Hz.
        let timeout = 1000 + (40 * clock::TICK_HZ).div_ceil(115_200);
        assert_eq!(uart.next_event(1000), Some(timeout));
        assert!(!uart.interrupt(timeout - 1) && uart.interrupt(timeout));
        assert_eq!(uart.read(2, timeout), 0xcc);
        assert_eq!(uart.read(0, timeout), b'a');
        assert!(!uart.interrupt(timeout), "a read restarts the time-out");
        uart.receive(b"defghi", timeout);
        assert_eq!(uart.read(2, timeout), 0xc4);
        assert_eq!(uart.read(5, timeout) & 1, 1);
        let rest: Vec<u8> = (0..8).map(|_| uart.read(0, timeout)).collect();
        assert_eq!(rest, b"bcdefghi");
        assert_eq!(uart.read(5, timeout) & 1, 0);
    }

    #[test]
    fn the_outside_world_waits_for_room_in_the_receiver() {
        let mut uart = port(1);
        let text: Vec<u8> = (0..40).collect();
        uart.receive(&text, 0);
        let read: Vec<u8> = (0..40).map(|_| uart.read(0, 0)).collect();
        assert_eq!(read, text);
        assert_eq!(uart.read(5, 0), 0x60, "no overrun");
        // Without FIFOs one byte at a time.
        let mut uart = Uart::new();
        uart.receive(b"12", 0);
        assert_eq!((uart.read(0, 0), uart.read(0, 0), uart.read(5, 0)), (b'1', b'2', 0x60));
    }

    #[test]
    fn the_loop_connects_transmitter_to_receiver_and_outputs_to_inputs() {
        let mut uart = Uart::new();
        uart.read(6, 0);
        uart.write(4, 0x10, 0);
        uart.read(6, 0);
        for (control, status) in [(0x12, 0x11), (0x11, 0x23), (0x14, 0x42), (0x18, 0x8c), (0x10, 0x08)] {
            uart.write(4, control, 0);
            assert_eq!(uart.read(6, 0), status, "control {control:#x}");
        }
        uart.write(1, 0x05, 0);
        assert_eq!(uart.write(0, 0x5a, 0), None);
        uart.write(0, 0xa5, 0);
        assert_eq!(uart.read(2, 0), 6, "the line status comes first");
        assert_eq!(uart.read(5, 0), 0x63);
        assert_eq!(uart.read(5, 0), 0x61, "reading it clears the overrun");
        assert_eq!(uart.read(2, 0), 4);
        assert_eq!(uart.read(0, 0), 0xa5, "the unread character was destroyed");
        assert_eq!(uart.read(2, 0), 1);
    }

    #[test]
    fn priorities_are_line_receiver_transmitter_modem() {
        let mut uart = Uart::new();
        uart.write(4, 0x1f, 0);
        uart.write(1, 0x0f, 0);
        uart.write(4, 0x10, 0);
        uart.write(0, 1, 0);
        uart.write(0, 2, 0);
        let mut seen = Vec::new();
        for register in [5, 0, 8, 6] {
            seen.push(uart.read(2, 0));
            if register < 8 {
                uart.read(register, 0);
            }
        }
        seen.push(uart.read(2, 0));
        assert_eq!(seen, [6, 4, 2, 0, 1]);
    }

    #[test]
    fn divisor_scratch_and_fifo_bits_read_back() {
        let mut uart = Uart::new();
        assert_eq!(uart.read(2, 0), 1);
        uart.write(2, 0xc0, 0);
        assert_eq!(uart.read(2, 0), 1, "a trigger level without the enable bit does nothing");
        uart.write(3, 0x80, 0);
        assert_eq!((uart.read(0, 0), uart.read(1, 0)), (12, 0));
        uart.write(1, 0x03, 0);
        assert_eq!((uart.read(0, 0), uart.read(1, 0)), (12, 3));
        uart.write(3, 0x00, 0);
        uart.write(1, 0xff, 0);
        assert_eq!(uart.read(1, 0), 0x0f);
        uart.write(7, 0x5c, 0);
        assert_eq!(uart.read(7, 0), 0x5c);
    }
}
