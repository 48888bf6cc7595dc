//! The state in which firmware hands a PC over, for machines that boot without any: initialized interrupt controllers, a
//! running timer tick, and in low memory the interrupt vectors, the data area and handlers that acknowledge their interrupts.
//!
//! The facts are those of PC firmware in general (vectors 0x08 and 0x70, the 18.2 Hz tick, the BIOS data area); the handlers
//! are written here.

use super::Pc;
use rootmode_arch::HostPhysical;
use rootmode_cpu::{Bus, Effects};

/// Segment of the handlers.
const SEGMENT: u16 = 0xf000;
/// Offset of an IRET.
const DUMMY: u16 = 0xff53;
/// Offset of the handler of the master's interrupts.
const MASTER: u16 = 0xfea5;
/// Offset of the handler of the slave's interrupts.
const SLAVE: u16 = 0xfeb5;

/// push ax; mov al, 0x20; out 0x20, al; pop ax; iret
const MASTER_CODE: [u8; 7] = [0x50, 0xb0, 0x20, 0xe6, 0x20, 0x58, 0xcf];
/// The same with both controllers.
const SLAVE_CODE: [u8; 9] = [0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0x58, 0xcf];
const DUMMY_CODE: [u8; 1] = [0xcf];

impl Pc {
    /// Interrupt controllers, timer and serial port as firmware leaves them.
    pub(super) fn initialize_as_firmware(&mut self) {
        let mut effects = Effects::default();
        for (port, value) in [
            // Counter 0 at its longest period, before ICW1, which forgets the edge of its output.
            (0x43, 0x34),
            (0x40, 0x00),
            (0x40, 0x00),
            (0x20, 0x11),
            (0x21, 0x08),
            (0x21, 0x04),
            (0x21, 0x01),
            (0xa0, 0x11),
            (0xa1, 0x70),
            (0xa1, 0x02),
            (0xa1, 0x01),
            // Timer, keyboard, cascade and disk; clock, mouse, coprocessor and disk.
            (0x21, 0xb8),
            (0xa1, 0x8e),
            (0x3fb, 0x03),
        ] {
            self.write_port(port, 1, value, 0, &mut effects);
        }
        // What that armed is asked for again when the machine starts.
        self.timers = super::Timers::default();
    }

    /// Deadlines that the chipset needs from the start, and the RAM as it shows it: a machine calls this once, before its first run.
    pub fn start(&mut self, tick: u64, effects: &mut Effects) {
        self.settle_pit(tick, effects);
        self.settle_rtc(tick, effects);
        self.settle_power(tick, effects);
        effects.memory_map = Some(self.memory_map());
    }

    /// What firmware leaves in low memory: vectors, data area, handlers.
    pub fn firmware_remains() -> Vec<(HostPhysical, Vec<u8>)> {
        let vectors = (0..=0xff_u8).flat_map(|vector| {
            let offset = match vector {
                0x08..=0x0f => MASTER,
                0x70..=0x77 => SLAVE,
                _ => DUMMY,
            };
            [offset.to_le_bytes(), SEGMENT.to_le_bytes()].concat()
        });
        let mut data = vec![0; 0x100];
        // COM1, equipment (coprocessor, one serial port), KiB of memory.
        data[0x00..0x02].copy_from_slice(&super::uart::COM1.to_le_bytes());
        data[0x10..0x12].copy_from_slice(&0x0202_u16.to_le_bytes());
        data[0x13..0x15].copy_from_slice(&640_u16.to_le_bytes());
        let handler = |offset: u16, code: &[u8]| {
            (HostPhysical(u64::from(SEGMENT) * 16 + u64::from(offset)), code.to_vec())
        };
        vec![
            (HostPhysical(0), vectors.collect()),
            (HostPhysical(0x400), data),
            handler(MASTER, &MASTER_CODE),
            handler(SLAVE, &SLAVE_CODE),
            handler(DUMMY, &DUMMY_CODE),
        ]
    }
}
