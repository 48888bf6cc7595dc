//! [`Interruption`]: the common layout of VM-exit interruption information, IDT-vectoring information and VM-entry
//! interruption information.

/// Bits 10:8: what kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum InterruptionType {
    /// External interrupt.
    External = 0,
    /// Not used.
    Reserved = 1,
    /// Non-maskable interrupt.
    Nmi = 2,
    /// Hardware exception.
    HardwareException = 3,
    /// Software interrupt (INT n): IDT-vectoring and VM-entry only.
    SoftwareInterrupt = 4,
    /// Privileged software exception (INT1).
    PrivilegedSoftwareException = 5,
    /// Software exception (INT3, INTO).
    SoftwareException = 6,
    /// VM entry: other event (pending MTF with vector 0); with FRED also SYSCALL and SYSENTER.
    Other = 7,
}

impl InterruptionType {
    /// All eight, by number.
    pub const ALL: [Self; 8] = [
        Self::External,
        Self::Reserved,
        Self::Nmi,
        Self::HardwareException,
        Self::SoftwareInterrupt,
        Self::PrivilegedSoftwareException,
        Self::SoftwareException,
        Self::Other,
    ];
    /// The type that bits 10:8 encode as `number` (0 to 7; higher bits are ignored).
    pub const fn from_number(number: u8) -> Self {
        Self::ALL[(number & 7) as usize]
    }
}

/// A valid event in an interruption-information field: bits 7:0 vector, 10:8 type, 11 error code, 12 NMI unblocking
/// due to IRET (VM-exit interruption information only; undefined in IDT-vectoring information, reserved on VM entry),
/// 13 nested event (FRED), 31 valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Interruption {
    /// Vector.
    pub vector: u8,
    /// Kind of event.
    pub kind: InterruptionType,
    /// Exit: the error-code field is valid. Entry: deliver the error code.
    pub error_code: bool,
    /// NMI unblocking due to IRET.
    pub nmi_unblocking: bool,
    /// A nested exception, with FRED event delivery.
    pub nested: bool,
}

impl Interruption {
    /// Bit 31.
    pub const VALID: u32 = 1 << 31;
    /// Bits 30:14.
    pub const RESERVED: u32 = 0x7fff_c000;

    /// An event without error code, NMI unblocking or nesting.
    pub const fn new(kind: InterruptionType, vector: u8) -> Self {
        Self { vector, kind, error_code: false, nmi_unblocking: false, nested: false }
    }
    /// The field's value, with bit 31 set.
    pub const fn encode(self) -> u32 {
        self.vector as u32
            | (self.kind as u32) << 8
            | (self.error_code as u32) << 11
            | (self.nmi_unblocking as u32) << 12
            | (self.nested as u32) << 13
            | Self::VALID
    }
    /// From the field's value; `None` if bit 31 is clear, whatever the other bits are. Reserved bits are ignored.
    pub const fn decode(value: u32) -> Option<Self> {
        if value & Self::VALID == 0 {
            return None;
        }
        Some(Self {
            vector: value as u8,
            kind: InterruptionType::from_number((value >> 8) as u8),
            error_code: value >> 11 & 1 != 0,
            nmi_unblocking: value >> 12 & 1 != 0,
            nested: value >> 13 & 1 != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_2_14_events_survive_the_round_trip_and_an_invalid_field_is_no_event() {
        for low in 0..1u32 << 14 {
            let event = Interruption::decode(low | 1 << 31).expect("bit 31 is set");
            assert_eq!(event.encode(), low | 1 << 31);
            assert_eq!(u32::from(event.vector), low % 256);
            assert_eq!(event.kind as u32, low / 256 % 8);
            assert_eq!(Interruption::decode(low), None);
            assert_eq!(Interruption::decode(low | 1 << 31 | Interruption::RESERVED), Some(event));
        }
    }

    #[test]
    fn a_page_fault_and_an_nmi_look_as_in_the_manuals_table() {
        let page_fault =
            Interruption { error_code: true, ..Interruption::new(InterruptionType::HardwareException, 14) };
        assert_eq!(page_fault.encode(), 0x8000_0b0e);
        assert_eq!(Interruption::new(InterruptionType::Nmi, 2).encode(), 0x8000_0202);
        assert_eq!(Interruption::new(InterruptionType::PrivilegedSoftwareException, 1).encode(), 0x8000_0501);
    }
}
