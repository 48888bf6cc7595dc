//! Which registers exist, what of them can be written, and what a write does.

use super::*;
use crate::apic::{Local, Signal};

/// SDM Vol. 3A "Local APIC Register Address Map": everything that is not reserved, for a processor without CMCI.
fn exists_in_xapic(offset: u16) -> bool {
    let single = [
        0x20, 0x30, 0x80, 0x90, 0xa0, 0xb0, 0xc0, 0xd0, 0xe0, 0xf0, 0x280, 0x300, 0x310, 0x320, 0x330, 0x340,
        0x350, 0x360, 0x370, 0x380, 0x390, 0x3e0,
    ];
    single.contains(&offset) || (0x100..0x280).contains(&offset)
}

/// SDM Vol. 3A "Local APIC Register Address Map Supported by x2APIC": read, write, and the bits that may be written as 1
/// (read-only ones too).
fn x2apic_table(msr: u32) -> Option<(bool, bool, u64)> {
    Some(match msr {
        0x802 | 0x803 | 0x80a | 0x80d | 0x810..=0x827 | 0x839 => (true, false, 0),
        0x808 => (true, true, 0xff),
        0x80b => (false, true, 0),
        0x80f => (true, true, 0x11ff),
        0x828 => (true, true, 0),
        // Vector, delivery mode, destination mode, level, trigger, shorthand, destination.
        0x830 => (true, true, 0xffff_ffff_000c_cfff),
        0x832 => (true, true, 0x7_10ff),
        0x833 | 0x834 => (true, true, 0x1_17ff),
        0x835 | 0x836 => (true, true, 0x1_f7ff),
        0x837 => (true, true, 0x1_10ff),
        0x838 => (true, true, 0xffff_ffff),
        0x83e => (true, true, 0xb),
        0x83f => (false, true, 0xff),
        _ => return None,
    })
}

#[test]
fn power_up_leaves_the_documented_values() {
    for (abilities, version) in [(INTEL, 0x0105_0014), (AMD, 0x0105_0010)] {
        let mut apic = fresh(abilities, 5);
        for offset in (0..0x400).step_by(16).filter(|offset| exists_in_xapic(*offset)) {
            let expected = match offset {
                0x20 => 5 << 24,
                0x30 => version,
                0xe0 => u32::MAX,
                0xf0 => 0xff,
                0x320..=0x370 => 0x1_0000,
                _ => 0,
            };
            assert_eq!(read(&mut apic, offset), expected, "{offset:#x}");
        }
    }
}

#[test]
fn in_xapic_mode_exactly_the_reserved_registers_are_errors() {
    for offset in (0..0x1000).step_by(16) {
        for is_write in [false, true] {
            let mut apic = xapic();
            if is_write {
                write(&mut apic, offset, 0);
            } else {
                read(&mut apic, offset);
            }
            write(&mut apic, ESR, 0);
            let illegal = read(&mut apic, ESR) >> 7 & 1 != 0;
            // The write may have disabled the APIC; errors are collected all the same.
            assert_eq!(illegal, !exists_in_xapic(offset), "{offset:#x}");
        }
    }
}

#[test]
fn in_xapic_mode_reserved_and_read_only_bits_keep_their_values() {
    let rows = [
        (ID, 0xff00_0000),
        (VERSION, 0x0105_0014),
        (TPR, 0xff),
        (PPR, 0xff),
        (LDR, 0xff00_0000),
        (DFR, 0xffff_ffff),
        (SVR, 0x11ff),
        (ISR, 0),
        (IRR, 0),
        (ICR_HIGH, 0xff00_0000),
        (LVT_TIMER, 0x7_00ff),
        (LVT_THERMAL, 0x1_07ff),
        (LVT_PERFORMANCE, 0x1_07ff),
        (LVT_LINT0, 0x1_a7ff),
        (LVT_LINT1, 0x1_a7ff),
        (LVT_ERROR, 0x1_00ff),
        (TIMER_DIVIDE, 0xb),
    ];
    let mut apic = xapic();
    for (offset, _) in rows {
        write(&mut apic, offset, u32::MAX);
    }
    for (offset, expected) in rows {
        assert_eq!(read(&mut apic, offset), expected, "{offset:#x}");
    }
    // An interrupt command with a reserved delivery mode sends nothing; delivery status reads as idle.
    write(&mut apic, ICR, !0x400);
    assert_eq!(read(&mut apic, ICR), 0x000c_cbff);
    assert!(!apic.has_outgoing());
}

#[test]
fn every_msr_of_the_x2apic_range_is_as_the_table_says() {
    for msr in 0x800..=0x8ff {
        let row = x2apic_table(msr);
        assert_eq!(x2apic(INTEL).read_msr(msr, NOW).is_ok(), row.is_some_and(|row| row.0), "read {msr:#x}");
        assert_eq!(
            x2apic(INTEL).write_msr(msr, 0, NOW).is_ok(),
            row.is_some_and(|row| row.1),
            "write {msr:#x}"
        );
        for bit in 0..64 {
            let legal = row.is_some_and(|row| row.1 && row.2 >> bit & 1 != 0);
            assert_eq!(x2apic(INTEL).write_msr(msr, 1 << bit, NOW).is_ok(), legal, "{msr:#x} bit {bit}");
        }
        for mut other in [fresh(INTEL, 0), fresh(AMD, 0)] {
            assert!(
                other.read_msr(msr, NOW).is_err() && other.write_msr(msr, 0, NOW).is_err(),
                "not in xAPIC mode"
            );
        }
    }
}

#[test]
fn amd_has_msrs_for_arbitration_priority_and_remote_read() {
    for msr in 0x800..=0x8ff {
        let extra = matches!(msr, 0x809 | 0x80c);
        let intel = x2apic(INTEL).read_msr(msr, NOW).is_ok();
        assert_eq!(x2apic(AMD).read_msr(msr, NOW).is_ok(), intel || extra, "{msr:#x}");
    }
}

#[test]
fn cmci_has_a_register_where_the_model_has_it() {
    let mut apic = fresh(Abilities { cmci: true, ..INTEL }, 0);
    assert_eq!((read(&mut apic, LVT_CMCI), read(&mut apic, VERSION) >> 16 & 0xff), (0x1_0000, 6));
    write(&mut apic, SVR, 0x1ff);
    write(&mut apic, LVT_CMCI, 0x44);
    apic.local_interrupt(Local::Cmci);
    assert_eq!(vectors(&apic, IRR), [0x44]);
}

#[test]
fn only_aligned_dwords_are_written_and_any_part_is_read() {
    let mut apic = xapic();
    write(&mut apic, LDR, 0x5a00_0000);
    for (offset, size) in [(LDR, 1), (LDR, 2), (LDR, 8), (LDR + 3, 1), (LDR + 4, 4), (LDR + 2, 4)] {
        apic.write(offset, size, u64::MAX, NOW);
    }
    assert_eq!(apic.read(LDR + 3, 1, NOW), 0x5a);
    assert_eq!(apic.read(LDR + 2, 2, NOW), 0x5a00);
    assert_eq!(apic.read(LDR, 8, NOW), 0x5a00_0000);
    assert_eq!(apic.read(LDR + 4, 4, NOW), 0);
}

#[test]
fn a_write_of_the_esr_shows_the_errors_since_the_last_one() {
    let mut apic = xapic();
    write(&mut apic, LVT_ERROR, 0x55);
    apic.receive(9, false);
    assert_eq!(vectors(&apic, IRR), [0x55]);
    assert_eq!(read(&mut apic, ESR), 0, "not before a write");
    assert_eq!(apic.acknowledge(), 0x55);
    write(&mut apic, 0x40, 0);
    assert_eq!(vectors(&apic, IRR), [], "the trigger is armed again by a write of the ESR");
    write(&mut apic, ESR, 0xdead_beef);
    assert_eq!(read(&mut apic, ESR), 1 << 6 | 1 << 7);
    write(&mut apic, 0x40, 0);
    assert_eq!(vectors(&apic, IRR), [0x55]);
    write(&mut apic, ESR, 0);
    write(&mut apic, ESR, 0);
    assert_eq!(read(&mut apic, ESR), 0);
}

#[test]
fn an_illegal_vector_in_the_error_vector_does_not_recurse() {
    let mut apic = xapic();
    write(&mut apic, LVT_ERROR, 0x0f);
    read(&mut apic, 0x40);
    write(&mut apic, ESR, 0);
    assert_eq!(read(&mut apic, ESR), 1 << 6 | 1 << 7);
    assert_eq!(vectors(&apic, IRR), []);
}

#[test]
fn software_disabling_masks_local_vectors_and_accepts_nothing_but_keeps_what_waits() {
    let mut apic = xapic();
    write(&mut apic, LVT_TIMER, 0x40);
    apic.receive(0x70, false);
    write(&mut apic, SVR, 0xff);
    for offset in [LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR] {
        write(&mut apic, offset, 0x40);
        assert_eq!(read(&mut apic, offset), 0x1_0040, "{offset:#x}");
    }
    apic.receive(0x80, false);
    assert_eq!(vectors(&apic, IRR), [0x70]);
    assert_eq!(apic.deliverable(), Some(0x70));
    write(&mut apic, SVR, 0x1ff);
    assert_eq!(read(&mut apic, LVT_TIMER), 0x1_0040, "enabling does not unmask");
    write(&mut apic, LVT_TIMER, 0x40);
    assert_eq!(read(&mut apic, LVT_TIMER), 0x40);
}

#[test]
fn local_vectors_deliver_in_their_mode_and_intels_performance_vector_masks_itself() {
    for (mode, signal) in
        [(2, Some(Signal::Smi)), (4, Some(Signal::Nmi)), (5, Some(Signal::Init)), (0, None), (7, None)]
    {
        let mut apic = xapic();
        write(&mut apic, LVT_THERMAL, mode << 8 | 0x66);
        assert_eq!(apic.local_interrupt(Local::Thermal), signal);
        assert_eq!(vectors(&apic, IRR), if mode == 0 { vec![0x66] } else { vec![] });
    }
    for abilities in [INTEL, AMD] {
        let mut apic = fresh(abilities, 0);
        write(&mut apic, SVR, 0x1ff);
        write(&mut apic, LVT_PERFORMANCE, 0x77);
        apic.local_interrupt(Local::Performance);
        assert_eq!(vectors(&apic, IRR), [0x77]);
        assert_eq!(read(&mut apic, LVT_PERFORMANCE) >> 16 & 1 != 0, abilities.intel);
    }
}

#[test]
fn a_fixed_edge_pin_interrupts_on_rising_and_a_level_one_again_after_its_end() {
    let mut apic = xapic();
    write(&mut apic, LVT_LINT1, 0x61);
    for level in [true, true, false] {
        apic.set_pin(1, level);
    }
    assert_eq!(apic.acknowledge(), 0x61);
    write(&mut apic, EOI, 0);
    assert_eq!(apic.deliverable(), None);

    write(&mut apic, LVT_LINT0, 0x8062);
    apic.set_pin(0, true);
    assert_eq!(read(&mut apic, LVT_LINT0), 0xc062, "remote IRR");
    assert_eq!(apic.acknowledge(), 0x62);
    assert_eq!(apic.deliverable(), None);
    write(&mut apic, EOI, 0);
    assert_eq!(apic.acknowledge(), 0x62, "the level is still high");
    apic.set_pin(0, false);
    write(&mut apic, EOI, 0);
    assert_eq!((apic.deliverable(), read(&mut apic, LVT_LINT0)), (None, 0x8062));
}

#[test]
fn ext_int_follows_the_pin_and_ignores_priorities() {
    let mut apic = xapic();
    write(&mut apic, LVT_LINT0, 0x700);
    write(&mut apic, TPR, 0xff);
    assert!(!apic.ext_int());
    apic.set_pin(0, true);
    assert!(apic.ext_int());
    write(&mut apic, LVT_LINT0, 0x1_0700);
    assert!(!apic.ext_int(), "masked");
    apic.set_mode(Mode::Disabled);
    assert!(apic.ext_int(), "without an APIC the pin is INTR");
    assert_eq!(apic.set_pin(1, true), Some(Signal::Nmi), "and LINT1 is NMI");
}

#[test]
fn init_keeps_mode_and_id_and_nothing_else() {
    let mut apic = xapic();
    write(&mut apic, ID, 0x4200_0000);
    write(&mut apic, TPR, 0x50);
    apic.receive(0x99, true);
    apic.init();
    let mut expected = fresh(INTEL, 3);
    write(&mut expected, ID, 0x4200_0000);
    assert_eq!(apic, expected);

    let mut apic = x2apic(INTEL);
    apic.write_msr(0x808, 0x50, NOW).unwrap();
    apic.init();
    let mut expected = fresh(INTEL, 3);
    expected.set_mode(Mode::X2Apic);
    assert_eq!(apic, expected);
}
