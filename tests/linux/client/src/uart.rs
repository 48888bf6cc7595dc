//! A 16550A whose transmitter is always empty, as far as Linux's driver looks.

/// What a write made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    None,
    /// A byte was sent.
    Sent(u8),
}

/// The chip's registers.
#[derive(Debug, Default)]
pub(crate) struct Uart {
    enabled: u8,
    fifo: bool,
    line: u8,
    modem: u8,
    scratch: u8,
    divisor: [u8; 2],
    /// The transmitter has become empty, and nobody has read that.
    empty: bool,
}

/// LCR's bit that shows the divisor.
const DLAB: u8 = 0x80;
/// IER's bit for an empty transmitter.
const TRANSMITTER: u8 = 2;

impl Uart {
    /// An interrupt is requested.
    pub(crate) const fn requests(&self) -> bool {
        self.empty && self.enabled & TRANSMITTER != 0
    }

    /// Register `offset` is written.
    pub(crate) fn write(&mut self, offset: u16, value: u8) -> Effect {
        match (offset, self.line & DLAB != 0) {
            (0 | 1, true) => self.divisor[usize::from(offset)] = value,
            (0, false) => {
                self.empty = true;
                return Effect::Sent(value);
            }
            (1, false) => {
                self.empty |= value & !self.enabled & TRANSMITTER != 0;
                self.enabled = value & 0xf;
            }
            (2, _) => self.fifo = value & 1 != 0,
            (3, _) => self.line = value,
            (4, _) => self.modem = value & 0x1f,
            (7, _) => self.scratch = value,
            _ => {}
        }
        Effect::None
    }

    /// Register `offset` is read.
    pub(crate) fn read(&mut self, offset: u16) -> u8 {
        match (offset, self.line & DLAB != 0) {
            (0 | 1, true) => self.divisor[usize::from(offset)],
            (1, false) => self.enabled,
            (2, _) => {
                let cause = if self.requests() { 2 } else { 1 };
                self.empty &= cause != 2;
                cause | if self.fifo { 0xc0 } else { 0 }
            }
            (3, _) => self.line,
            (4, _) => self.modem,
            // Transmitter and holding register are empty.
            (5, _) => 0x60,
            // In the loop, the outputs: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD.
            (6, _) if self.modem & 0x10 != 0 => {
                let of = |from: u8, to: u8| if self.modem & from != 0 { to } else { 0 };
                of(2, 0x10) | of(1, 0x20) | of(4, 0x40) | of(8, 0x80)
            }
            (6, _) => 0xb0,
            (7, _) => self.scratch,
            _ => 0,
        }
    }
}
