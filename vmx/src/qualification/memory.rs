//! Qualifications of EPT violations, APIC accesses and page-modification log-full events.

/// What the linear address of an EPT violation is to the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LinearAccess {
    /// Bit 7 = 0: no linear address (PDPTE loads by MOV CR, asynchronous accesses).
    None,
    /// Bits 8:7 = 01: a guest paging-structure entry was accessed while translating it.
    TableWalk,
    /// Bits 8:7 = 11: the access is to the translation of the linear address. The rest is the advanced information for
    /// EPT violations (bits 11:9); on processors without it, all three are false.
    Final {
        /// Bit 9: a user-mode linear address.
        user: bool,
        /// Bit 10: the guest's paging structures make the page writable.
        writable: bool,
        /// Bit 11: the guest's paging structures make the page execute-disable.
        execute_disable: bool,
    },
}

/// SDM Vol. 3C "Exit Qualification for EPT Violations".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EptViolation {
    /// Bit 0: data read.
    pub read: bool,
    /// Bit 1: data write.
    pub write: bool,
    /// Bit 2: instruction fetch.
    pub fetch: bool,
    /// Bits 6:3: the AND over all EPT entries used of R, W, X and (bit 3 here) X for user-mode linear addresses.
    /// The last is undefined unless mode-based execute control is on: pass 0 then.
    pub permissions: u8,
    /// Bits 11:7.
    pub linear: LinearAccess,
    /// Bit 12: NMIs were unblocked by the IRET that made the access.
    pub nmi_unblocking: bool,
    /// Bit 13: a shadow-stack access.
    pub shadow_stack: bool,
    /// Bit 14: supervisor shadow-stack control is on and bit 60 of the EPT entry is set.
    pub supervisor_shadow_stack: bool,
    /// Bit 15: caused by guest-paging verification.
    pub paging_verification: bool,
    /// Bit 16: asynchronous to instruction execution.
    pub asynchronous: bool,
}

impl EptViolation {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        let linear = match self.linear {
            LinearAccess::None => 0,
            LinearAccess::TableWalk => 1 << 7,
            LinearAccess::Final { user, writable, execute_disable } => {
                3 << 7 | (user as u64) << 9 | (writable as u64) << 10 | (execute_disable as u64) << 11
            }
        };
        self.read as u64
            | (self.write as u64) << 1
            | (self.fetch as u64) << 2
            | (self.permissions as u64 & 15) << 3
            | linear
            | (self.nmi_unblocking as u64) << 12
            | (self.shadow_stack as u64) << 13
            | (self.supervisor_shadow_stack as u64) << 14
            | (self.paging_verification as u64) << 15
            | (self.asynchronous as u64) << 16
    }
    /// From the field's value; bits that bits 8:7 leave undefined are ignored.
    pub const fn decode(value: u64) -> Self {
        let linear = match value >> 7 & 3 {
            1 => LinearAccess::TableWalk,
            3 => LinearAccess::Final {
                user: value >> 9 & 1 != 0,
                writable: value >> 10 & 1 != 0,
                execute_disable: value >> 11 & 1 != 0,
            },
            _ => LinearAccess::None,
        };
        Self {
            read: value & 1 != 0,
            write: value >> 1 & 1 != 0,
            fetch: value >> 2 & 1 != 0,
            permissions: (value >> 3 & 15) as u8,
            linear,
            nmi_unblocking: value >> 12 & 1 != 0,
            shadow_stack: value >> 13 & 1 != 0,
            supervisor_shadow_stack: value >> 14 & 1 != 0,
            paging_verification: value >> 15 & 1 != 0,
            asynchronous: value >> 16 & 1 != 0,
        }
    }
}

/// Access type of an APIC-access VM exit: bits 15:12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ApicAccessKind {
    /// Linear access for a data read during instruction execution.
    LinearRead = 0,
    /// Linear access for a data write during instruction execution.
    LinearWrite = 1,
    /// Linear access for an instruction fetch.
    LinearFetch = 2,
    /// Linear access (read or write) during event delivery.
    LinearDelivery = 3,
    /// Guest-physical access during event delivery.
    PhysicalDelivery = 10,
    /// Guest-physical access for an instruction fetch or during instruction execution.
    PhysicalExecution = 15,
}

impl ApicAccessKind {
    /// All six, ascending.
    pub const ALL: [Self; 6] = [
        Self::LinearRead,
        Self::LinearWrite,
        Self::LinearFetch,
        Self::LinearDelivery,
        Self::PhysicalDelivery,
        Self::PhysicalExecution,
    ];
}

/// SDM Vol. 3C "Exit Qualification for APIC-Access VM Exits from Linear Accesses and Guest-Physical Accesses":
/// bits 11:0 page offset (linear accesses), 15:12 access type, 16 asynchronous.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApicAccess {
    /// Offset in the APIC-access page, 0 to 0xfff; undefined for guest-physical accesses.
    pub offset: u16,
    /// Access type.
    pub kind: ApicAccessKind,
    /// Asynchronous to instruction execution and not part of event delivery.
    pub asynchronous: bool,
}

impl ApicAccess {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        self.offset as u64 & 0xfff | (self.kind as u64) << 12 | (self.asynchronous as u64) << 16
    }
    /// From the field's value; `None` if bits 15:12 are a value that is not used.
    pub const fn decode(value: u64) -> Option<Self> {
        let kind = match value >> 12 & 15 {
            0 => ApicAccessKind::LinearRead,
            1 => ApicAccessKind::LinearWrite,
            2 => ApicAccessKind::LinearFetch,
            3 => ApicAccessKind::LinearDelivery,
            10 => ApicAccessKind::PhysicalDelivery,
            15 => ApicAccessKind::PhysicalExecution,
            _ => return None,
        };
        Some(Self { offset: (value & 0xfff) as u16, kind, asynchronous: value >> 16 & 1 != 0 })
    }
}

/// The qualification of a page-modification log-full event: only bit 12 is defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogFull {
    /// Bit 12: NMIs were unblocked by the IRET that made the access.
    pub nmi_unblocking: bool,
}

impl LogFull {
    /// The field's value.
    pub const fn encode(self) -> u64 {
        (self.nmi_unblocking as u64) << 12
    }
    /// From the field's value.
    pub const fn decode(value: u64) -> Self {
        Self { nmi_unblocking: value >> 12 & 1 != 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_2_17_ept_violation_values_decode_and_encode_to_themselves_but_for_undefined_bits() {
        for value in 0..1u64 << 17 {
            let decoded = EptViolation::decode(value);
            let defined = match value >> 7 & 3 {
                3 => value,
                1 => value & !0xe00,
                _ => value & !0xf80,
            };
            assert_eq!(decoded.encode(), defined, "{value:#x}");
            assert_eq!(EptViolation::decode(decoded.encode()), decoded);
        }
    }

    #[test]
    fn each_fact_of_an_ept_violation_has_the_manuals_bit() {
        let none = EptViolation::decode(0);
        assert_eq!(none.encode(), 0);
        assert_eq!(EptViolation { read: true, ..none }.encode(), 1);
        assert_eq!(EptViolation { write: true, ..none }.encode(), 2);
        assert_eq!(EptViolation { fetch: true, ..none }.encode(), 4);
        assert_eq!(EptViolation { permissions: 0b1001, ..none }.encode(), 0x48);
        assert_eq!(EptViolation { linear: LinearAccess::TableWalk, ..none }.encode(), 0x80);
        let page = LinearAccess::Final { user: true, writable: false, execute_disable: true };
        assert_eq!(EptViolation { linear: page, ..none }.encode(), 0x180 + 0x200 + 0x800);
        assert_eq!(EptViolation { nmi_unblocking: true, ..none }.encode(), 0x1000);
        assert_eq!(EptViolation { shadow_stack: true, ..none }.encode(), 0x2000);
        assert_eq!(EptViolation { supervisor_shadow_stack: true, ..none }.encode(), 0x4000);
        assert_eq!(EptViolation { paging_verification: true, ..none }.encode(), 0x8000);
        assert_eq!(EptViolation { asynchronous: true, ..none }.encode(), 0x10000);
    }

    #[test]
    fn every_apic_access_survives_the_round_trip_and_unused_types_are_refused() {
        for offset in 0..0x1000 {
            for kind in ApicAccessKind::ALL {
                for asynchronous in [false, true] {
                    let access = ApicAccess { offset, kind, asynchronous };
                    assert_eq!(ApicAccess::decode(access.encode()), Some(access));
                }
            }
        }
        let types = (0..16).filter(|t| ApicAccess::decode(t << 12).is_some());
        assert!(types.eq([0, 1, 2, 3, 10, 15]));
    }

    #[test]
    fn a_full_log_reports_only_nmi_unblocking() {
        for nmi_unblocking in [false, true] {
            let q = LogFull { nmi_unblocking };
            assert_eq!(q.encode(), if nmi_unblocking { 0x1000 } else { 0 });
            assert_eq!(LogFull::decode(q.encode() | !0x1000), q);
        }
    }
}
