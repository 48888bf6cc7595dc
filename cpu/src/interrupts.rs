//! What waits at a processor's interrupt inputs.
//!
//! A set of requested vectors and pending flags, highest vector first. There is no in-service state or priority yet: the
//! local APIC, a register-level state machine, takes this place with the same questions (`highest`, `acknowledge`).

use crate::context::Message;
use rootmode_mmu::Digest;

/// Requested interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Interrupts {
    requested: [u64; 4],
    /// An NMI is pending.
    pub nmi: bool,
    /// An SMI is pending.
    pub smi: bool,
    /// INIT is pending.
    pub init: bool,
    /// A start-up IPI with this vector is pending.
    pub sipi: Option<u8>,
}

impl Interrupts {
    /// Latches a message.
    pub const fn post(&mut self, message: Message) {
        match message {
            Message::Interrupt(vector) => self.requested[vector as usize >> 6] |= 1 << (vector & 63),
            Message::Nmi => self.nmi = true,
            Message::Smi => self.smi = true,
            Message::Init => self.init = true,
            Message::Sipi(vector) => self.sipi = Some(vector),
        }
    }

    /// The highest requested vector.
    pub const fn highest(&self) -> Option<u8> {
        let mut word = 4;
        while word > 0 {
            word -= 1;
            if self.requested[word] != 0 {
                return Some((word * 64) as u8 + (63 - self.requested[word].leading_zeros() as u8));
            }
        }
        None
    }

    /// Takes `vector` out of the requested ones, as an acknowledge cycle does.
    pub const fn acknowledge(&mut self, vector: u8) {
        self.requested[vector as usize >> 6] &= !(1 << (vector & 63));
    }

    /// Whether anything waits.
    pub const fn any(&self) -> bool {
        self.highest().is_some() || self.nmi || self.smi || self.init || self.sipi.is_some()
    }

    /// Adds the state to `digest`.
    pub fn digest(&self, digest: &mut Digest) {
        digest.all(&self.requested);
        let sipi = self.sipi.map_or(0, |vector| 0x100 | u64::from(vector));
        digest.u64(u64::from(self.nmi) | u64::from(self.smi) << 1 | u64::from(self.init) << 2 | sipi << 8);
    }
}
