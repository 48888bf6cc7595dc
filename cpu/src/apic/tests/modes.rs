//! IA32_APIC_BASE (SDM Vol. 3A "Local APIC Status and Location", "x2APIC State Transitions").

use super::*;
use crate::{Cpu, Fault, Model, msr};
use rootmode_arch::HostPhysical;
use rootmode_arch::msr::IA32_APIC_BASE;

const BASE: u64 = 0xfee0_0000;
const OFF: u64 = 0;
const INVALID: u64 = 0x400;
const XAPIC: u64 = 0x800;
const X2APIC: u64 = 0xc00;

fn cpu_with(abilities: Abilities) -> Cpu {
    let mut cpu = Cpu::new(0, Model::max_intel().into());
    cpu.apic = fresh(abilities, 0);
    cpu
}

/// A processor whose APIC is in the mode that `bits` say.
fn cpu_in(bits: u64) -> Cpu {
    let mut cpu = cpu_with(INTEL);
    let way: &[u64] = match bits {
        OFF => &[OFF],
        XAPIC => &[],
        _ => &[X2APIC],
    };
    for step in way {
        msr::write(&mut cpu, IA32_APIC_BASE, BASE | step, 0).unwrap();
    }
    cpu
}

#[test]
fn every_transition_is_as_the_state_diagram_says() {
    let table = [
        (OFF, OFF, true),
        (OFF, INVALID, false),
        (OFF, XAPIC, true),
        (OFF, X2APIC, false),
        (XAPIC, OFF, true),
        (XAPIC, INVALID, false),
        (XAPIC, XAPIC, true),
        (XAPIC, X2APIC, true),
        (X2APIC, OFF, true),
        (X2APIC, INVALID, false),
        (X2APIC, XAPIC, false),
        (X2APIC, X2APIC, true),
    ];
    for (from, to, legal) in table {
        let mut cpu = cpu_in(from);
        let answer = msr::write(&mut cpu, IA32_APIC_BASE, BASE | to, 0);
        assert_eq!(answer, if legal { Ok(()) } else { Err(Fault::GP0) }, "{from:#x} to {to:#x}");
        let now = if legal { to } else { from };
        assert_eq!(msr::read(&cpu, IA32_APIC_BASE).unwrap() & 0xc00, now);
        let expected = match now {
            OFF => Mode::Disabled,
            XAPIC => Mode::XApic,
            _ => Mode::X2Apic,
        };
        assert_eq!(cpu.apic.mode(), expected);
        assert_eq!(cpu.apic_page(), (now == XAPIC).then_some(HostPhysical(BASE)));
    }
}

#[test]
fn reserved_bits_fault_and_the_base_moves() {
    let mut cpu = cpu_in(XAPIC);
    let width = cpu.model.physical_width();
    for bit in (0..8).chain([9]).chain(u32::from(width)..64) {
        let answer = msr::write(&mut cpu, IA32_APIC_BASE, BASE | XAPIC | 1 << bit, 0);
        assert_eq!(answer, Err(Fault::GP0), "bit {bit}");
    }
    msr::write(&mut cpu, IA32_APIC_BASE, 0xfed4_0000 | XAPIC, 0).unwrap();
    assert_eq!(cpu.apic_page(), Some(HostPhysical(0xfed4_0000)));
    let mut old = cpu_with(Abilities { x2apic: false, ..INTEL });
    assert_eq!(msr::write(&mut old, IA32_APIC_BASE, BASE | X2APIC, 0), Err(Fault::GP0));
}

#[test]
fn entering_x2apic_mode_loses_a_written_id_the_logical_id_and_the_upper_command() {
    let mut apic = fresh(INTEL, 0x25);
    write(&mut apic, SVR, 0x1ff);
    write(&mut apic, ID, 0x7700_0000);
    write(&mut apic, LDR, 0x8800_0000);
    write(&mut apic, ICR_HIGH, 0x9900_0000);
    write(&mut apic, TPR, 0x33);
    write(&mut apic, LVT_TIMER, 0x44);
    apic.receive(0x66, false);
    apic.set_mode(Mode::X2Apic);
    let read = |apic: &LocalApic, msr| apic.read_msr(msr, NOW).unwrap();
    assert_eq!(read(&apic, 0x802), 0x25);
    assert_eq!(read(&apic, 0x80d), 0x0002_0020, "cluster 2, place 5");
    assert_eq!(read(&apic, 0x830), 0);
    assert_eq!([0x808, 0x80f, 0x832].map(|msr| read(&apic, msr)), [0x33, 0x1ff, 0x44]);
    assert_eq!(vectors(&apic, IRR), [0x66]);
}

#[test]
fn a_disabled_apic_comes_back_as_after_power_up_but_for_cr8() {
    for bits in [XAPIC, X2APIC] {
        let mut cpu = cpu_in(bits);
        cpu.apic.virtual_wire();
        cpu.post(crate::Message::Interrupt(0x55));
        cpu.set_cr8(7);
        msr::write(&mut cpu, IA32_APIC_BASE, BASE, 0).unwrap();
        assert_eq!(cpu.cr8(), 7);
        cpu.set_cr8(9);
        assert_eq!((cpu.cr8(), cpu.pending_interrupt()), (9, None));
        cpu.post(crate::Message::Interrupt(0x55));
        msr::write(&mut cpu, IA32_APIC_BASE, BASE | XAPIC, 0).unwrap();
        assert_eq!(cpu.read_apic_page(HostPhysical(BASE + 0x80), 4), 0x90);
        cpu.set_cr8(0);
        assert_eq!(cpu.apic, fresh(INTEL, 0));
    }
}

#[test]
fn the_bootstrap_flag_and_the_ids_follow_the_place() {
    let mut cpu = Cpu::new(0, Model::max_intel().into());
    assert!(cpu.is_bootstrap());
    cpu.place(6);
    assert!(!cpu.is_bootstrap());
    assert_eq!((cpu.apic.id(), cpu.apic.initial_id()), (6, 6));
}
