//! Qualifications of control-register accesses, MOV DR and debug exceptions.

use rootmode_arch::Gpr;

/// What kind of access to a control register exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CrAccessKind {
    /// MOV to the register from this one.
    MovTo(Gpr),
    /// MOV from the register to this one.
    MovFrom(Gpr),
    /// CLTS.
    Clts,
    /// LMSW.
    Lmsw {
        /// Source value.
        source: u16,
        /// The operand is in memory.
        memory: bool,
    },
}

/// SDM Vol. 3C "Exit Qualification for Control-Register Accesses": bits 3:0 register, 5:4 kind, 6 LMSW from memory,
/// 11:8 general register, 31:16 LMSW source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CrAccess {
    /// The control register, 0 to 15 (0 for CLTS and LMSW).
    pub cr: u8,
    /// What is done with it.
    pub kind: CrAccessKind,
}

impl CrAccess {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        let rest = match self.kind {
            CrAccessKind::MovTo(gpr) => (gpr.number() as u64) << 8,
            CrAccessKind::MovFrom(gpr) => 1 << 4 | (gpr.number() as u64) << 8,
            CrAccessKind::Clts => 2 << 4,
            CrAccessKind::Lmsw { source, memory } => 3 << 4 | (memory as u64) << 6 | (source as u64) << 16,
        };
        self.cr as u64 & 15 | rest
    }
    /// From the field's value. Every value means something.
    pub const fn decode(value: u64) -> Self {
        let gpr = Gpr::from_number((value >> 8 & 15) as u8);
        let kind = match value >> 4 & 3 {
            0 => CrAccessKind::MovTo(gpr),
            1 => CrAccessKind::MovFrom(gpr),
            2 => CrAccessKind::Clts,
            _ => CrAccessKind::Lmsw { source: (value >> 16) as u16, memory: value >> 6 & 1 != 0 },
        };
        Self { cr: (value & 15) as u8, kind }
    }
}

/// SDM Vol. 3C "Exit Qualification for MOV DR": bits 2:0 register, 4 direction (1 = from), 11:8 general register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MovDr {
    /// The debug register, 0 to 7.
    pub dr: u8,
    /// MOV from the debug register.
    pub read: bool,
    /// The general register.
    pub gpr: Gpr,
}

impl MovDr {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        self.dr as u64 & 7 | (self.read as u64) << 4 | (self.gpr.number() as u64) << 8
    }
    /// From the field's value. Every value means something.
    pub const fn decode(value: u64) -> Self {
        Self {
            dr: (value & 7) as u8,
            read: value >> 4 & 1 != 0,
            gpr: Gpr::from_number((value >> 8 & 15) as u8),
        }
    }
}

/// SDM Vol. 3C "Exit Qualification for Debug Exceptions": as DR6, but active high and without what DR6 keeps set.
///
/// Bits 3:0 breakpoints, 11 bus lock, 13 debug-register access, 14 single step, 16 transactional region.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct DebugQualification(u64);

impl DebugQualification {
    /// The bits that the format defines.
    pub const DEFINED: u64 = 1 << 16 | 1 << 14 | 1 << 13 | 1 << 11 | 0xf;

    /// From the causes, active high; other bits are dropped.
    pub const fn new(causes: u64) -> Self {
        Self(causes & Self::DEFINED)
    }
    /// The field's value.
    pub const fn encode(self) -> u64 {
        self.0
    }
    /// From the field's value; undefined bits are dropped.
    pub const fn decode(value: u64) -> Self {
        Self::new(value)
    }
    /// Breakpoint conditions met, bit *n* for DR*n*.
    pub const fn breakpoints(self) -> u8 {
        (self.0 & 0xf) as u8
    }
    /// A bus lock was acquired with bus-lock trap on.
    pub const fn bus_lock(self) -> bool {
        self.0 >> 11 & 1 != 0
    }
    /// A debug register was accessed while DR7.GD was set.
    pub const fn register_access(self) -> bool {
        self.0 >> 13 & 1 != 0
    }
    /// Single step.
    pub const fn single_step(self) -> bool {
        self.0 >> 14 & 1 != 0
    }
    /// Inside a transactional region with advanced debugging on.
    pub const fn transactional(self) -> bool {
        self.0 >> 16 & 1 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_register_access_survives_the_round_trip_and_sits_in_the_manuals_bits() {
        for cr in 0..16 {
            for gpr in Gpr::ALL {
                let to = CrAccess { cr, kind: CrAccessKind::MovTo(gpr) };
                assert_eq!(to.encode(), u64::from(cr) + 256 * u64::from(gpr.number()));
                let from = CrAccess { cr, kind: CrAccessKind::MovFrom(gpr) };
                assert_eq!(from.encode(), u64::from(cr) + 16 + 256 * u64::from(gpr.number()));
                assert_eq!((CrAccess::decode(to.encode()), CrAccess::decode(from.encode())), (to, from));
            }
            let clts = CrAccess { cr, kind: CrAccessKind::Clts };
            assert_eq!(clts.encode(), u64::from(cr) + 0x20);
            assert_eq!(CrAccess::decode(clts.encode()), clts);
        }
        for source in 0..=0xffff {
            for memory in [false, true] {
                let lmsw = CrAccess { cr: 0, kind: CrAccessKind::Lmsw { source, memory } };
                assert_eq!(lmsw.encode(), 0x30 + 0x40 * u64::from(memory) + 0x10000 * u64::from(source));
                assert_eq!(CrAccess::decode(lmsw.encode()), lmsw);
            }
        }
    }

    #[test]
    fn every_debug_register_access_survives_the_round_trip() {
        for dr in 0..8 {
            for read in [false, true] {
                for gpr in Gpr::ALL {
                    let access = MovDr { dr, read, gpr };
                    assert_eq!(
                        access.encode(),
                        u64::from(dr) + 16 * u64::from(read) + 256 * u64::from(gpr.number())
                    );
                    assert_eq!(MovDr::decode(access.encode()), access);
                }
            }
        }
    }

    #[test]
    fn debug_causes_keep_exactly_the_defined_bits() {
        for bit in 0..64u32 {
            let q = DebugQualification::new(1 << bit);
            let defined = matches!(bit, 0..=3 | 11 | 13 | 14 | 16);
            assert_eq!(q.encode(), if defined { 1 << bit } else { 0 }, "bit {bit}");
            assert_eq!(DebugQualification::decode(q.encode()), q);
            assert_eq!(q.breakpoints(), if bit < 4 { 1 << bit } else { 0 });
            assert_eq!(
                (q.bus_lock(), q.register_access(), q.single_step(), q.transactional()),
                (bit == 11, bit == 13, bit == 14, bit == 16)
            );
        }
    }
}
