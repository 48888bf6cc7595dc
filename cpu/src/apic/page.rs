//! The 4-KiB register page, and where each register lies in it.

use rootmode_arch::HostPhysical;
use rootmode_mmu::PhysicalMemory;

/// Offsets of the registers (SDM Vol. 3A "The Local APIC Block Diagram", table of the local APIC register address map).
pub mod register {
    /// Local APIC ID.
    pub const ID: u16 = 0x020;
    /// Version.
    pub const VERSION: u16 = 0x030;
    /// Task priority (TPR).
    pub const TPR: u16 = 0x080;
    /// Arbitration priority (APR).
    pub const APR: u16 = 0x090;
    /// Processor priority (PPR).
    pub const PPR: u16 = 0x0a0;
    /// End of interrupt.
    pub const EOI: u16 = 0x0b0;
    /// Remote read.
    pub const RRR: u16 = 0x0c0;
    /// Logical destination (LDR).
    pub const LDR: u16 = 0x0d0;
    /// Destination format (DFR).
    pub const DFR: u16 = 0x0e0;
    /// Spurious-interrupt vector (SVR).
    pub const SVR: u16 = 0x0f0;
    /// In service, vectors 0 to 31; seven more follow.
    pub const ISR: u16 = 0x100;
    /// Trigger mode, likewise.
    pub const TMR: u16 = 0x180;
    /// Requested, likewise.
    pub const IRR: u16 = 0x200;
    /// Error status.
    pub const ESR: u16 = 0x280;
    /// Local vector of corrected machine checks.
    pub const LVT_CMCI: u16 = 0x2f0;
    /// Interrupt command, bits 31:0.
    pub const ICR: u16 = 0x300;
    /// Interrupt command, bits 63:32.
    pub const ICR_HIGH: u16 = 0x310;
    /// Local vector of the timer.
    pub const LVT_TIMER: u16 = 0x320;
    /// Local vector of the thermal monitor.
    pub const LVT_THERMAL: u16 = 0x330;
    /// Local vector of performance counters.
    pub const LVT_PERFORMANCE: u16 = 0x340;
    /// Local vector of the LINT0 pin.
    pub const LVT_LINT0: u16 = 0x350;
    /// Local vector of the LINT1 pin.
    pub const LVT_LINT1: u16 = 0x360;
    /// Local vector of APIC errors.
    pub const LVT_ERROR: u16 = 0x370;
    /// The timer's initial count.
    pub const TIMER_INITIAL: u16 = 0x380;
    /// The timer's current count.
    pub const TIMER_CURRENT: u16 = 0x390;
    /// The timer's divide configuration.
    pub const TIMER_DIVIDE: u16 = 0x3e0;
    /// Self IPI (x2APIC mode only).
    pub const SELF_IPI: u16 = 0x3f0;
}

/// A register page. The APIC's rules are written against this view, so that they serve the processor's own APIC as well as a
/// page of simulated memory (a virtual-APIC page).
pub trait ApicPage {
    /// The 32 bits at `offset`, a multiple of 16 below 0x400.
    fn get(&self, offset: u16) -> u32;
    /// Replaces them.
    fn set(&mut self, offset: u16, value: u32);

    /// The highest vector in the 256-bit register that starts at `base` (ISR, TMR, IRR).
    fn highest(&self, base: u16) -> Option<u8> {
        (0..8_u16).rev().find_map(|word| {
            let bits = self.get(base + word * 16);
            (bits != 0).then(|| (word * 32) as u8 + (31 - bits.leading_zeros() as u8))
        })
    }

    /// Whether `vector` is set in the 256-bit register at `base`.
    fn contains(&self, base: u16, vector: u8) -> bool {
        let (offset, bit) = place(base, vector);
        self.get(offset) & bit != 0
    }

    /// Sets or clears `vector` in the 256-bit register at `base`.
    fn put(&mut self, base: u16, vector: u8, on: bool) {
        let (offset, bit) = place(base, vector);
        let rest = self.get(offset) & !bit;
        self.set(offset, if on { rest | bit } else { rest });
    }

    /// PPR: the task priority, or the class in service if that is higher.
    fn processor_priority(&self) -> u8 {
        let task = self.get(register::TPR) as u8;
        let service = self.highest(register::ISR).unwrap_or(0) & 0xf0;
        if task & 0xf0 >= service { task } else { service }
    }
}

/// A page in memory: a virtual-APIC page, or AVIC's backing page.
#[derive(Debug)]
pub struct MemoryPage<'a> {
    memory: &'a mut PhysicalMemory,
    at: HostPhysical,
}

impl<'a> MemoryPage<'a> {
    /// The page at `at`.
    pub const fn new(memory: &'a mut PhysicalMemory, at: HostPhysical) -> Self {
        Self { memory, at }
    }
}

impl ApicPage for MemoryPage<'_> {
    fn get(&self, offset: u16) -> u32 {
        self.memory.read_u32(self.at.offset(offset.into()))
    }
    fn set(&mut self, offset: u16, value: u32) {
        self.memory.write_u32(self.at.offset(offset.into()), value);
    }
}

/// A page of its own: one 32-bit register in every 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnPage([u32; 64]);

impl Default for OwnPage {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl ApicPage for OwnPage {
    fn get(&self, offset: u16) -> u32 {
        self.0[usize::from(offset >> 4) & 63]
    }
    fn set(&mut self, offset: u16, value: u32) {
        self.0[usize::from(offset >> 4) & 63] = value;
    }
}

const fn place(base: u16, vector: u8) -> (u16, u32) {
    (base + (vector as u16 >> 5) * 16, 1 << (vector & 31))
}
