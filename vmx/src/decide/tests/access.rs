//! Virtualized accesses to the APIC-access page against the manual's list of byte ranges, and convertible EPT violations.

use super::*;
use crate::decide::{apic_access_is_virtualized, converts_to_virtualization_exception};

/// "Virtualizing Reads from the APIC-Access Page" with APIC-register virtualization: first bytes of the ranges.
fn readable() -> Vec<u16> {
    let mut list = vec![0x20, 0x30, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x380, 0x3e0];
    for block in [0x100, 0x180, 0x200] {
        list.extend((0..8).map(|i| block + 0x10 * i));
    }
    list.extend([0x320, 0x330, 0x340, 0x350, 0x360, 0x370]);
    list
}

/// "Determining Whether a Write Access is Virtualized" with APIC-register virtualization.
fn writable() -> Vec<u16> {
    let mut list = vec![0x20, 0x80, 0xb0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x380, 0x3e0];
    list.extend([0x320, 0x330, 0x340, 0x350, 0x360, 0x370]);
    list
}

fn within(list: &[u16], offset: u16, size: u8) -> bool {
    list.iter().any(|first| *first <= offset && offset + u16::from(size) <= first + 4)
}

#[test]
fn every_offset_and_size_is_virtualized_exactly_where_the_manual_says() {
    for bits in 0..16u32 {
        let (tpr, registers, interrupts, ipis) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0, bits & 8 != 0);
        let mut controls = Controls::default();
        turn(&mut controls, Word::Secondary, 0, true);
        turn(&mut controls, Word::Primary, 21, tpr);
        turn(&mut controls, Word::Secondary, 8, registers);
        turn(&mut controls, Word::Secondary, 9, interrupts);
        turn(&mut controls, Word::Tertiary, 4, ipis);
        let writes: Vec<u16> = [(true, 0x80), (interrupts, 0xb0), (interrupts || ipis, 0x300)]
            .into_iter()
            .filter_map(|(on, offset)| on.then_some(offset))
            .collect();
        for offset in 0..0x1000u16 {
            for size in [1u8, 2, 4, 8, 10] {
                let in_slot = offset % 16 + u16::from(size) <= 4;
                let read = read_of(0xfee0_0000 + u64::from(offset));
                let write = GuestPhysicalAccess { read: false, write: true, ..read };
                let expected = tpr
                    && in_slot
                    && if registers { within(&readable(), offset, size) } else { offset == 0x80 };
                let got = apic_access_is_virtualized(&controls, &long_mode(), &read, size);
                assert_eq!(got, expected, "read {offset:#x} {size}");
                let may =
                    if registers { within(&writable(), offset, size) } else { writes.contains(&offset) };
                let got = apic_access_is_virtualized(&controls, &long_mode(), &write, size);
                assert_eq!(got, tpr && in_slot && may, "write {offset:#x} {size}");
                let event = Event::ApicAccess { access: write, size, in_delivery: false };
                assert_eq!(ask(&controls, &long_mode(), false, &event).is_none(), got);
            }
        }
    }
}

#[test]
fn fetches_guest_physical_accesses_and_other_second_writes_are_never_virtualized() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Secondary, 0, true);
    turn(&mut controls, Word::Primary, 21, true);
    turn(&mut controls, Word::Secondary, 8, true);
    let read = read_of(0xfee0_0080);
    let write = GuestPhysicalAccess { read: false, write: true, ..read };
    let virtualized =
        |processor: &Processor, access| apic_access_is_virtualized(&controls, processor, &access, 4);
    let fresh = long_mode();
    assert!(virtualized(&fresh, read) && virtualized(&fresh, write));
    assert!(!virtualized(&fresh, GuestPhysicalAccess { fetch: true, read: false, ..read }));
    assert!(!virtualized(&fresh, GuestPhysicalAccess { linear: None, ..read }));
    assert!(!virtualized(&fresh, GuestPhysicalAccess { table_walk: true, ..read }));
    let after = |write| Processor { apic_write_virtualized: Some(write), ..long_mode() };
    assert!(virtualized(&after((0x80, 4)), write), "the same write again");
    assert!(!virtualized(&after((0x80, 4)), read));
    assert!(!virtualized(&after((0x80, 2)), write) && !virtualized(&after((0xb0, 4)), write));
}

#[test]
fn an_ept_violation_becomes_a_virtualization_exception_only_if_all_conditions_hold() {
    for bits in 0..256u32 {
        let on = |bit: u32| bits >> bit & 1 == 1;
        let mut controls = Controls::default();
        turn(&mut controls, Word::Secondary, 1, true);
        turn(&mut controls, Word::Secondary, 18, on(0));
        let mut processor = long_mode();
        processor.cr0 = processor.cr0.set(Cr0::PE, on(1));
        processor.in_delivery = on(2);
        processor.virtualization_exception_busy = on(3);
        processor.asynchronous = on(4);
        let access = GuestPhysicalAccess {
            entry: if on(5) { 1 << 63 } else { !(1 << 63) },
            misconfigured: on(6),
            ..read_of(0x1000)
        };
        if on(7) {
            controls.primary = controls.primary.without(PrimaryControls(1 << 31));
        }
        let expected = bits & 0b1111_1111 == 0b11;
        assert_eq!(
            converts_to_virtualization_exception(&controls, &processor, &access),
            expected,
            "{bits:b}"
        );
        let exit = ask(&controls, &processor, false, &Event::SecondStage(access));
        assert_eq!(exit.map(|e| e.reason.0), (!on(7) && !expected).then_some(if on(6) { 49 } else { 48 }));
    }
}
