//! Interprocessor interrupts (SDM Vol. 3A "Interrupt Command Register (ICR)", "ICR Operation in x2APIC Mode").

use super::*;
use crate::apic::{Ipi, Outgoing, Shorthand};
use crate::{DeliveryMode, InterruptMessage};

fn sent(apic: &mut LocalApic) -> Vec<Outgoing> {
    apic.take_outgoing()
}

fn ipi(
    shorthand: Shorthand,
    wide: bool,
    destination: u32,
    logical: bool,
    mode: DeliveryMode,
    vector: u8,
) -> Vec<Outgoing> {
    let message =
        InterruptMessage { destination, logical, mode, vector, level_triggered: false, asserted: true };
    vec![Outgoing::Ipi(Ipi { shorthand, wide, message })]
}

#[test]
fn a_write_of_the_low_half_sends_what_both_halves_say() {
    use DeliveryMode::*;
    let rows = [
        (0x0000_4031, ipi(Shorthand::None, false, 0x12, false, Fixed, 0x31)),
        (0x0000_0031, ipi(Shorthand::None, false, 0x12, false, Fixed, 0x31)),
        (0x0000_c031, ipi(Shorthand::None, false, 0x12, false, Fixed, 0x31)),
        (0x0000_4831, ipi(Shorthand::None, false, 0x12, true, Fixed, 0x31)),
        (0x0000_4931, ipi(Shorthand::None, false, 0x12, true, LowestPriority, 0x31)),
        (0x0000_4200, ipi(Shorthand::None, false, 0x12, false, Smi, 0)),
        (0x0000_0400, ipi(Shorthand::None, false, 0x12, false, Nmi, 0)),
        (0x000c_4500, ipi(Shorthand::Others, false, 0x12, false, Init, 0)),
        (0x000c_c500, ipi(Shorthand::Others, false, 0x12, false, Init, 0)),
        (0x000c_0601, ipi(Shorthand::Others, false, 0x12, false, StartUp, 1)),
        (0x0008_4033, ipi(Shorthand::All, false, 0x12, false, Fixed, 0x33)),
        // INIT level de-assert, remote read, ExtINT.
        (0x0000_8500, vec![]),
        (0x0000_4330, vec![]),
        (0x0000_4730, vec![]),
    ];
    for (command, expected) in rows {
        let mut apic = xapic();
        write(&mut apic, ICR_HIGH, 0x1234_5678);
        assert!(sent(&mut apic).is_empty());
        write(&mut apic, ICR, command);
        assert_eq!(sent(&mut apic), expected, "{command:#x}");
    }
}

#[test]
fn in_x2apic_mode_one_write_carries_a_32_bit_destination() {
    let mut apic = x2apic(INTEL);
    apic.write_msr(0x830, 0x0001_0002_0000_0840, NOW).unwrap();
    assert_eq!(sent(&mut apic), ipi(Shorthand::None, true, 0x0001_0002, true, DeliveryMode::Fixed, 0x40));
    assert_eq!(apic.read_msr(0x830, NOW).unwrap(), 0x0001_0002_0000_0840);
}

#[test]
fn self_ipis_arrive_at_once_and_stay_inside() {
    let mut apic = xapic();
    write(&mut apic, ICR, 0x4_4055);
    let mut x2 = x2apic(INTEL);
    x2.write_msr(0x83f, 0x55, NOW).unwrap();
    for mut apic in [apic, x2] {
        assert_eq!((apic.deliverable(), sent(&mut apic)), (Some(0x55), vec![]));
    }
}

#[test]
fn an_illegal_vector_is_an_error_and_is_not_sent() {
    for vector in 0..=255 {
        for mode in [0, 1] {
            let mut apic = xapic();
            write(&mut apic, ICR, mode << 8 | vector);
            assert_eq!(sent(&mut apic).is_empty(), vector < 16);
            write(&mut apic, ESR, 0);
            assert_eq!(read(&mut apic, ESR), if vector < 16 { 1 << 5 } else { 0 });
        }
        let mut apic = x2apic(INTEL);
        apic.write_msr(0x83f, vector.into(), NOW).unwrap();
        apic.write_msr(0x828, 0, NOW).unwrap();
        assert_eq!(apic.read_msr(0x828, NOW).unwrap(), if vector < 16 { 1 << 5 } else { 0 });
    }
}

#[test]
fn ipis_can_be_sent_while_software_has_the_apic_disabled() {
    let mut apic = fresh(INTEL, 0);
    write(&mut apic, ICR, 0x4500);
    assert_eq!(sent(&mut apic).len(), 1);
}
