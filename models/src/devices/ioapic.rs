//! The I/O APIC: 24 inputs, each with a redirection entry that says what message it becomes.
//!
//! Sources: Intel 82093AA data sheet (290566-001) "Register Descriptions", "I/O Redirection Table Registers"; the EOI register
//! and version 0x20 as in the Intel ICH family ("EOIR - EOI Register"). Lines are electrical levels: the polarity bit of an
//! entry says which one means asserted.

use rootmode_cpu::{DeliveryMode, InterruptMessage};
use rootmode_mmu::Digest;

/// Number of inputs.
pub const PINS: u8 = 24;
/// Where a PC has its first I/O APIC.
pub const BASE: u64 = 0xfec0_0000;
/// Bytes of its window.
pub const SIZE: u64 = 0x1000;

const VERSION: u32 = 0x20 | (PINS as u32 - 1) << 16;
const KVM_VERSION: u32 = 0x11 | (PINS as u32 - 1) << 16;

const VECTOR: u64 = 0xff;
const LOGICAL: u64 = 1 << 11;
const DELIVERY_STATUS: u64 = 1 << 12;
const LOW_ACTIVE: u64 = 1 << 13;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const READ_ONLY: u64 = DELIVERY_STATUS | REMOTE_IRR;
const EXISTING: u64 = 0xff00_0000_0001_ffff;

/// Which I/O APIC it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The south bridge's: version 0x20, with an EOI register.
    Ich,
    /// KVM's in-kernel one: version 0x11, no EOI register, and lines that are asserted or not, whatever polarity says.
    Kvm,
}

/// An I/O APIC as its client saves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The identification register.
    pub id: u32,
    /// The register that the data window shows.
    pub select: u8,
    /// The redirection entries.
    pub entries: [u64; PINS as usize],
    /// Levels of the inputs.
    pub lines: u32,
}

/// An 82093AA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IoApic {
    kind: Kind,
    /// Bits 24 to 27 of the identification register.
    id: u32,
    select: u8,
    entries: [u64; PINS as usize],
    /// Levels of the inputs.
    lines: u32,
}

impl Default for IoApic {
    fn default() -> Self {
        Self::new()
    }
}

impl IoApic {
    /// The south bridge's as after reset: ID 0, every entry masked and zero.
    pub const fn new() -> Self {
        Self::of(Kind::Ich)
    }

    /// One of this kind, as after reset.
    pub const fn of(kind: Kind) -> Self {
        Self { kind, id: 0, select: 0, entries: [MASKED; PINS as usize], lines: 0 }
    }

    /// Its state.
    pub const fn save(&self) -> Saved {
        Saved { id: self.id, select: self.select, entries: self.entries, lines: self.lines }
    }

    /// Takes a state. Inputs that are high count as risen now.
    pub fn restore(&mut self, saved: &Saved, send: &mut Vec<InterruptMessage>) {
        (self.id, self.select, self.entries, self.lines) = (saved.id, saved.select, saved.entries, 0);
        for pin in (0..PINS).filter(|pin| saved.lines & 1 << pin != 0) {
            self.set_line(pin, true, send);
        }
    }

    /// The redirection entry of input `pin`.
    pub const fn entry(&self, pin: u8) -> u64 {
        self.entries[pin as usize]
    }

    /// Sets the level of input `pin` (0 to 23); messages that follow go to `send`.
    pub fn set_line(&mut self, pin: u8, high: bool, send: &mut Vec<InterruptMessage>) {
        let bit = 1 << pin;
        if (self.lines & bit != 0) == high {
            return;
        }
        self.lines ^= bit;
        let entry = self.entries[usize::from(pin)];
        if !self.asserted(pin) || entry & MASKED != 0 {
            // An edge at a masked input is lost; a level is looked at again when the entry is written.
            return;
        }
        self.deliver(pin, send);
    }

    /// Whether input `pin` is unmasked.
    pub const fn accepts(&self, pin: u8) -> bool {
        self.entries[pin as usize] & MASKED == 0
    }

    fn asserted(&self, pin: u8) -> bool {
        let low_active = self.kind == Kind::Ich && self.entries[usize::from(pin)] & LOW_ACTIVE != 0;
        (self.lines & 1 << pin != 0) != low_active
    }

    /// Sends the message of an asserted, unmasked input, unless it is a level whose last message has not ended.
    fn deliver(&mut self, pin: u8, send: &mut Vec<InterruptMessage>) {
        let entry = &mut self.entries[usize::from(pin)];
        let Some(mode) = DeliveryMode::from_bits((*entry >> 8) as u8) else { return };
        if mode == DeliveryMode::StartUp {
            return;
        }
        // Other modes are "treated as an edge", even when programmed as levels.
        let level = *entry & LEVEL != 0 && matches!(mode, DeliveryMode::Fixed | DeliveryMode::LowestPriority);
        if level {
            if *entry & REMOTE_IRR != 0 {
                return;
            }
            *entry |= REMOTE_IRR;
        }
        send.push(InterruptMessage {
            destination: (*entry >> 56) as u32,
            logical: *entry & LOGICAL != 0,
            mode,
            vector: (*entry & VECTOR) as u8,
            level_triggered: level,
            asserted: true,
        });
    }

    /// An EOI of `vector`, from a local APIC's broadcast or the EOI register.
    pub fn end_of_interrupt(&mut self, vector: u8, send: &mut Vec<InterruptMessage>) {
        for pin in 0..PINS {
            let entry = &mut self.entries[usize::from(pin)];
            if *entry & VECTOR == u64::from(vector) && *entry & (LEVEL | REMOTE_IRR) == LEVEL | REMOTE_IRR {
                *entry &= !REMOTE_IRR;
                self.look_again(pin, send);
            }
        }
    }

    /// Delivers a level that is asserted and unmasked.
    fn look_again(&mut self, pin: u8, send: &mut Vec<InterruptMessage>) {
        let entry = self.entries[usize::from(pin)];
        if entry & (LEVEL | MASKED) == LEVEL && self.asserted(pin) {
            self.deliver(pin, send);
        }
    }

    /// The register behind the data window.
    fn register(&self, select: u8) -> u32 {
        match select {
            0x00 | 0x02 => self.id,
            0x01 if self.kind == Kind::Kvm => KVM_VERSION,
            0x01 => VERSION,
            0x10..0x40 => (self.entries[usize::from(select - 0x10) / 2] >> (32 * (select & 1))) as u32,
            _ => 0,
        }
    }

    /// Reads `size` bytes (1 to 8) at `offset` in the window.
    pub fn read(&self, offset: u64, size: u8) -> u64 {
        let (register, byte) = (offset & 0xff & !3, offset & 3);
        let value = match register {
            0x00 => u32::from(self.select),
            0x10 => self.register(self.select),
            _ => 0,
        };
        u64::from(value >> (8 * byte)) & (u64::MAX >> (64 - 8 * u32::from(size.clamp(1, 8))))
    }

    /// Writes `size` bytes at `offset`. The data window takes 4 aligned bytes only, the other registers any size.
    pub fn write(&mut self, offset: u64, size: u8, value: u64, send: &mut Vec<InterruptMessage>) {
        match offset & 0xff {
            0x00 => self.select = value as u8,
            0x10 if size == 4 => self.write_register(value as u32, send),
            0x40 if self.kind == Kind::Ich => self.end_of_interrupt(value as u8, send),
            _ => {}
        }
    }

    fn write_register(&mut self, value: u32, send: &mut Vec<InterruptMessage>) {
        match self.select {
            // The arbitration ID is loaded with it.
            0x00 => self.id = value & 0x0f00_0000,
            select @ 0x10..0x40 => {
                let pin = (select - 0x10) / 2;
                let shift = 32 * (select & 1);
                let entry = &mut self.entries[usize::from(pin)];
                let writable = (0xffff_ffff << shift) & EXISTING & !READ_ONLY;
                *entry = *entry & !writable | u64::from(value) << shift & writable;
                if *entry & LEVEL == 0 {
                    // Remote IRR is not defined for edges; software clears it by passing through that mode.
                    *entry &= !REMOTE_IRR;
                }
                self.look_again(pin, send);
            }
            _ => {}
        }
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.all(&[u64::from(self.id), u64::from(self.select), u64::from(self.lines)]);
        digest.all(&self.entries);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(apic: &mut IoApic, register: u8, value: u32) -> Vec<InterruptMessage> {
        let mut sent = Vec::new();
        apic.write(0, 4, u64::from(register), &mut sent);
        apic.write(0x10, 4, u64::from(value), &mut sent);
        sent
    }

    fn read(apic: &mut IoApic, register: u8) -> u32 {
        apic.write(0, 1, u64::from(register), &mut Vec::new());
        apic.read(0x10, 4) as u32
    }

    fn line(apic: &mut IoApic, pin: u8, high: bool) -> Vec<u8> {
        let mut sent = Vec::new();
        apic.set_line(pin, high, &mut sent);
        sent.iter().map(|message| message.vector).collect()
    }

    fn eoi(apic: &mut IoApic, vector: u8) -> usize {
        let mut sent = Vec::new();
        apic.end_of_interrupt(vector, &mut sent);
        sent.len()
    }

    #[test]
    fn identification_version_and_arbitration_have_their_writable_bits() {
        let mut apic = IoApic::new();
        assert_eq!(read(&mut apic, 1), 0x0017_0020);
        write(&mut apic, 1, !0);
        assert_eq!(read(&mut apic, 1), 0x0017_0020);
        write(&mut apic, 0, !0);
        assert_eq!(read(&mut apic, 0), 0x0f00_0000);
        assert_eq!(read(&mut apic, 2), 0x0f00_0000);
        write(&mut apic, 2, 0);
        assert_eq!(read(&mut apic, 2), 0x0f00_0000);
        assert_eq!(read(&mut apic, 0x3e), 0x0001_0000, "entries are masked at reset");
        write(&mut apic, 0x11, !0);
        write(&mut apic, 0x10, !0x8000);
        assert_eq!((read(&mut apic, 0x11), read(&mut apic, 0x10)), (0xff00_0000, 0x0001_2fff));
    }

    #[test]
    fn an_edge_is_sent_when_it_rises_and_is_lost_while_masked() {
        let mut apic = IoApic::new();
        write(&mut apic, 0x2c, 0x76);
        assert_eq!(line(&mut apic, 14, true), [0x76]);
        assert_eq!(line(&mut apic, 14, true), [0_u8; 0]);
        assert_eq!(line(&mut apic, 14, false), [0_u8; 0]);
        write(&mut apic, 0x2c, 0x1_0076);
        assert_eq!(line(&mut apic, 14, true), [0_u8; 0]);
        assert!(write(&mut apic, 0x2c, 0x76).is_empty());
        line(&mut apic, 14, false);
        assert_eq!(line(&mut apic, 14, true), [0x76]);
    }

    #[test]
    fn a_level_is_sent_once_until_its_eoi_and_again_while_it_stays() {
        let mut apic = IoApic::new();
        write(&mut apic, 0x2c, 0x8077);
        assert_eq!(line(&mut apic, 14, true), [0x77]);
        assert_eq!(read(&mut apic, 0x2c), 0xc077, "remote IRR is set");
        line(&mut apic, 14, false);
        assert_eq!(line(&mut apic, 14, true), [0_u8; 0], "coalesced");
        assert_eq!(eoi(&mut apic, 0x78), 0);
        assert_eq!(eoi(&mut apic, 0x77), 1);
        line(&mut apic, 14, false);
        assert_eq!(eoi(&mut apic, 0x77), 0);
        assert_eq!(read(&mut apic, 0x2c), 0x8077);
    }

    #[test]
    fn unmasking_delivers_a_level_and_the_eoi_register_ends_it() {
        let mut apic = IoApic::new();
        write(&mut apic, 0x2c, 0x1_8082);
        assert_eq!(line(&mut apic, 14, true), [0_u8; 0]);
        let sent = write(&mut apic, 0x2c, 0x8082);
        assert_eq!((sent.len(), sent[0].vector, sent[0].level_triggered), (1, 0x82, true));
        // Masked again, the end of the interrupt sends nothing.
        write(&mut apic, 0x2c, 0x1_8082);
        let mut sent = Vec::new();
        apic.write(0x40, 4, 0x82, &mut sent);
        assert!(sent.is_empty());
        assert_eq!(read(&mut apic, 0x2c), 0x1_8082);
    }

    #[test]
    fn remote_irr_survives_a_new_destination_and_ends_when_the_entry_becomes_an_edge() {
        let mut apic = IoApic::new();
        write(&mut apic, 0x2c, 0x8084);
        line(&mut apic, 14, true);
        line(&mut apic, 14, false);
        write(&mut apic, 0x2d, 0x0100_0000);
        assert_eq!(read(&mut apic, 0x2c), 0xc084);
        write(&mut apic, 0x2c, 0x0084);
        write(&mut apic, 0x2c, 0x8084);
        assert_eq!(read(&mut apic, 0x2c), 0x8084);
    }

    #[test]
    fn messages_carry_destination_mode_and_trigger() {
        let mut apic = IoApic::new();
        write(&mut apic, 0x15, 0x0d00_0000);
        write(&mut apic, 0x14, 0x8986);
        let mut sent = Vec::new();
        apic.set_line(2, true, &mut sent);
        let expected = InterruptMessage {
            destination: 0x0d,
            logical: true,
            mode: DeliveryMode::LowestPriority,
            vector: 0x86,
            level_triggered: true,
            asserted: true,
        };
        assert_eq!(sent, [expected]);
        // NMI is an edge whatever the trigger bit says; mode 3 is reserved.
        write(&mut apic, 0x16, 0x8400);
        sent.clear();
        apic.set_line(3, true, &mut sent);
        assert!(matches!(
            sent[..],
            [InterruptMessage { mode: DeliveryMode::Nmi, level_triggered: false, .. }]
        ));
        assert_eq!(read(&mut apic, 0x16), 0x8400);
        write(&mut apic, 0x18, 0x0340);
        assert_eq!(line(&mut apic, 4, true), [0_u8; 0]);
    }

    #[test]
    fn a_low_active_input_is_asserted_by_the_low_level() {
        let mut apic = IoApic::new();
        line(&mut apic, 9, true);
        assert!(write(&mut apic, 0x22, 0xa051).is_empty());
        assert_eq!(line(&mut apic, 9, false), [0x51]);
        line(&mut apic, 9, true);
        assert_eq!(eoi(&mut apic, 0x51), 0);
        write(&mut apic, 0x22, 0x2051);
        assert_eq!(line(&mut apic, 9, false), [0x51]);
    }

    #[test]
    fn kvms_has_another_version_and_knows_no_polarity() {
        let mut apic = IoApic::of(Kind::Kvm);
        assert_eq!(read(&mut apic, 1), 0x0017_0011);
        assert!(write(&mut apic, 0x22, 0xa051).is_empty(), "low is not asserted");
        assert_eq!(line(&mut apic, 9, true), [0x51]);
        let saved = apic.save();
        assert_eq!((saved.entries[9], saved.lines), (0xe051, 1 << 9));
        apic.write(0x40, 4, 0x51, &mut Vec::new());
        assert_eq!(read(&mut apic, 0x22), 0xe051, "there is no EOI register");
        let (mut other, mut sent) = (IoApic::of(Kind::Kvm), Vec::new());
        other.restore(&Saved { entries: [0x41; 24], ..saved }, &mut sent);
        assert_eq!(sent.len(), 1, "what is high is sent");
    }

    #[test]
    fn the_data_window_takes_four_bytes_and_registers_can_be_read_by_part() {
        let mut apic = IoApic::new();
        apic.write(0, 4, 1, &mut Vec::new());
        assert_eq!(apic.read(0x10, 1), 0x20);
        assert_eq!(apic.read(0x12, 1), 0x17);
        assert_eq!(apic.read(0x10, 8), 0x0017_0020);
        assert_eq!(apic.read(0x20, 4), 0);
        apic.write(0, 1, 0, &mut Vec::new());
        apic.write(0x10, 1, 0xff, &mut Vec::new());
        apic.write(0x10, 2, 0xffff, &mut Vec::new());
        assert_eq!(apic.read(0x10, 4), 0);
    }
}
