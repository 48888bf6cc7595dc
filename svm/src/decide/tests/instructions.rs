//! Truth tables of instruction intercepts.

use super::*;

#[test]
fn the_selective_cr0_intercept_sees_every_change_but_ts_and_mp() {
    let state = State { cr0: Cr0(0x8000_0033), ..State::default() };
    let selective = controls(&[Intercept::CR0_SEL_WRITE]);
    let both = controls(&[Intercept::CR0_SEL_WRITE, Intercept::CR0_WRITE]);
    for bit in 0..64 {
        let write = Event::CrWrite { cr: 0, gpr: Gpr::Rdx, value: state.cr0.0 ^ 1 << bit };
        // MP is bit 1, TS bit 3.
        let expected = (bit != 1 && bit != 3).then_some(0x65);
        assert_eq!(exit(&selective, &state, write).map(|exit| exit.code.0), expected, "bit {bit}");
        assert_eq!(
            exit(&both, &state, write).map(|exit| exit.code.0),
            Some(0x10),
            "the plain one has priority"
        );
    }
    let same = Event::CrWrite { cr: 0, gpr: Gpr::Rdx, value: state.cr0.0 };
    assert_eq!(exit(&selective, &state, same), None);
    assert_eq!(exit(&both, &state, same).map(|exit| exit.code.0), Some(0x10));
    assert_eq!(exit(&selective, &state, Event::CrWrite { cr: 4, gpr: Gpr::Rdx, value: !0 }), None);
}

#[test]
fn lmsw_clts_and_smsw_are_accesses_of_cr0_and_lmsw_does_not_care_what_it_writes() {
    // Rows: which intercepts; columns: LMSW that changes nothing, CLTS, SMSW.
    for (bits, lmsw, clts, smsw) in [
        (&[][..], None, None, None),
        (&[Intercept::CR0_WRITE], Some(0x10), Some(0x10), None),
        (&[Intercept::CR0_SEL_WRITE], Some(0x65), None, None),
        (&[Intercept::CR0_WRITE, Intercept::CR0_SEL_WRITE], Some(0x10), Some(0x10), None),
        (&[Intercept::CR0_READ], None, None, Some(0x00)),
    ] {
        assert_eq!(code(bits, Event::Lmsw { source: 0, memory: None }), lmsw, "{bits:?}");
        assert_eq!(code(bits, Event::Clts), clts, "{bits:?}");
        assert_eq!(code(bits, Event::Smsw { register: None }), smsw, "{bits:?}");
    }
    let lmsw =
        exit(&controls(&[Intercept::CR0_WRITE]), &State::default(), Event::Lmsw { source: 1, memory: None });
    assert_eq!(lmsw.unwrap().info1, 0, "bit 63 is MOV's");
}

#[test]
fn register_moves_exit_by_their_own_number_and_name_the_other_register() {
    for n in 0..16 {
        let read = Event::CrRead { cr: n, gpr: Gpr::R10 };
        let write = Event::CrWrite { cr: n, gpr: Gpr::Rbx, value: 0 };
        for other in 0..16 {
            let hit = n == other;
            let from = exit(&controls(&[Intercept::cr_read(other)]), &State::default(), read);
            assert_eq!(
                from.map(|e| (e.code.0, e.info1)),
                hit.then_some((n.into(), 1 << 63 | 10)),
                "{n} {other}"
            );
            let to = exit(&controls(&[Intercept::cr_write(other)]), &State::default(), write);
            assert_eq!(to.map(|e| (e.code.0, e.info1)), hit.then_some((0x10 + u64::from(n), 1 << 63 | 3)));
        }
    }
    for n in 0..8 {
        let read = exit(
            &controls(&[Intercept::dr_read(n)]),
            &State::default(),
            Event::DrRead { dr: n, gpr: Gpr::R15 },
        );
        assert_eq!(read.map(|e| (e.code.0, e.info1)), Some((0x20 + u64::from(n), 15)));
        let write = Event::DrWrite { dr: n, gpr: Gpr::Rcx, value: 0 };
        let write = exit(&controls(&[Intercept::dr_write(n)]), &State::default(), write);
        assert_eq!(write.map(|e| (e.code.0, e.info1)), Some((0x30 + u64::from(n), 1)));
    }
    let mut plain = controls(&[Intercept::CR3_WRITE]);
    plain.traits.decode_assists = false;
    let write = exit(&plain, &State::default(), Event::CrWrite { cr: 3, gpr: Gpr::Rbx, value: 0 });
    assert_eq!(write.unwrap().info1, 0, "without decode assists");
}

#[test]
fn msr_accesses_look_at_their_own_bit_and_uncovered_msrs_always_exit() {
    let on = controls(&[Intercept::MSR_PROT]);
    let state = State { next_rip: 0x2002, ..State::default() };
    let iopm = Iopm::filled(true);
    for (index, access) in
        [(0x1b, crate::Access::Read), (0xc000_0080, crate::Access::Write), (0xc001_1fff, crate::Access::Read)]
    {
        let mut map = Msrpm::filled(false);
        map.set(index, access);
        let view = View { controls: &on, state: &state, maps: &(&map, &iopm) };
        let read = decide(&view, &Event::Rdmsr { index }).map(|e| (e.code.0, e.info1, e.next_rip));
        let write = decide(&view, &Event::Wrmsr { index, value: 0 }).map(|e| (e.code.0, e.info1, e.next_rip));
        let (reads, writes) = (access == crate::Access::Read, access == crate::Access::Write);
        assert_eq!(read, reads.then_some((0x7c, 0, 0x2002)), "{index:#x}");
        assert_eq!(write, writes.then_some((0x7c, 1, 0x2002)), "{index:#x}");
        assert_eq!(decide(&view, &Event::Rdmsr { index: index ^ 1 }), None);
        assert!(decide(&view, &Event::Rdmsr { index: 0x4000_0000 }).is_some());
        let off = View { controls: &controls(&[]), ..view };
        assert_eq!(decide(&off, &Event::Rdmsr { index: 0x4000_0000 }), None, "MSR_PROT is clear");
    }
    let mut encrypted = on;
    encrypted.traits.sev = true;
    let view = View { controls: &encrypted, state: &state, maps: &Uniform(true) };
    assert_eq!(decide(&view, &Event::Rdmsr { index: 0xc001_0131 }), None, "SEV_STATUS cannot be intercepted");
    assert!(decide(&view, &Event::Rdmsr { index: 0xc001_0130 }).is_some());
}

#[test]
fn port_accesses_exit_if_any_of_their_bits_is_set() {
    let on = controls(&[Intercept::IOIO_PROT]);
    let state = State { next_rip: 0x3001, address_size: 4, ..State::default() };
    let msrpm = Msrpm::filled(true);
    let mut iopm = Iopm::filled(false);
    iopm.set(0x63);
    let view = View { controls: &on, state: &state, maps: &(&msrpm, &iopm) };
    let access = |port, size| {
        Event::PortIo(PortAccess {
            port,
            size,
            input: true,
            string: false,
            rep: false,
            immediate: true,
            address_size: 0,
            segment: SegmentName::Ds,
            linear: Linear(0),
        })
    };
    for (port, size, hit) in
        [(0x63, 1, true), (0x62, 2, true), (0x60, 4, true), (0x60, 2, false), (0x64, 4, false)]
    {
        assert_eq!(decide(&view, &access(port, size)).is_some(), hit, "{port:#x} {size}");
    }
    let got = decide(&view, &access(0x60, 4)).unwrap();
    assert_eq!((got.code.0, got.info1, got.info2), (0x7b, 0x0060_0141, 0x3001), "IN, SZ32, A32");
    let off = controls(&[]);
    assert_eq!(decide(&View { controls: &off, ..view }, &access(0x63, 1)), None);
    let mut snp = controls(&[]);
    snp.traits.sev = true;
    snp.nested = NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE;
    snp.sev_features = 1;
    assert!(decide(&View { controls: &snp, ..view }, &access(0x80, 1)).is_some(), "SNP-active: always");
    assert_eq!(exit(&snp, &state, Event::Cpuid { leaf: 0, subleaf: 0 }).map(|e| e.code.0), Some(0x72));
}

#[test]
fn mwait_and_hlt_check_their_two_intercepts_in_the_manuals_order() {
    let (conditional, plain) = (Intercept::MWAIT_CONDITIONAL, Intercept::MWAIT);
    for (bits, armed, not_armed) in [
        (&[][..], None, None),
        (&[conditional], Some(0x8c), None),
        (&[plain], Some(0x8b), Some(0x8b)),
        (&[conditional, plain], Some(0x8c), Some(0x8b)),
    ] {
        assert_eq!(code(bits, Event::Mwait { armed: true }), armed, "{bits:?}");
        assert_eq!(code(bits, Event::Mwait { armed: false }), not_armed, "{bits:?}");
    }
    let pending = State { virtual_interrupt_pending: true, ..State::default() };
    for (bits, idle, busy) in [
        (&[][..], None, None),
        (&[Intercept::HLT], Some(0x78), Some(0x78)),
        (&[Intercept::IDLE_HLT], Some(0xa6), None),
        (&[Intercept::HLT, Intercept::IDLE_HLT], Some(0x78), Some(0x78)),
    ] {
        assert_eq!(code(bits, Event::Hlt), idle, "{bits:?}");
        assert_eq!(code(bits, Event::IdleHlt), idle, "{bits:?}");
        assert_eq!(exit(&controls(bits), &pending, Event::Hlt).map(|e| e.code.0), busy, "{bits:?}");
    }
}

/// Runs PAUSEs at the given times until one exits; how many passed.
fn pauses(controls: &Controls, times: &[u64]) -> usize {
    let mut state = State { pause: PauseFilter::at_entry(controls), ..State::default() };
    for (index, tsc) in times.iter().enumerate() {
        if exit(controls, &state, Event::Pause { cpl: 0, tsc: *tsc }).is_some() {
            return index;
        }
        state.pause = state.pause.after(controls, *tsc);
    }
    times.len()
}

#[test]
fn the_pause_filter_lets_its_count_pass_and_starts_anew_after_a_long_gap() {
    let mut on = controls(&[Intercept::PAUSE]);
    let close: Vec<u64> = (0..100).map(|n| n * 10).collect();
    assert_eq!(pauses(&on, &close), 0, "count 0: every PAUSE");
    on.pause_filter_count = 5;
    assert_eq!(pauses(&on, &close), 5);
    on.pause_filter_threshold = 10;
    assert_eq!(pauses(&on, &close), 6, "the first one only starts the count");
    on.pause_filter_threshold = 9;
    assert_eq!(pauses(&on, &close), 100, "each comes too late");
    on.pause_filter_threshold = 50;
    assert_eq!(pauses(&on, &[0, 10, 20, 30, 100, 110, 120, 130, 140, 150, 160, 170]), 10, "a gap before 100");
    on.traits.pause_filter_threshold = false;
    assert_eq!(pauses(&on, &[0, 10, 20, 30, 100, 110, 120]), 5, "count only");
    on.traits.pause_filter = false;
    assert_eq!(pauses(&on, &close), 0, "no filter");
    assert_eq!(pauses(&controls(&[]), &close), 100, "not intercepted");
}

#[test]
fn vmload_exits_by_its_intercept_or_when_virtualization_is_asked_for_but_not_possible() {
    let (load, save) = (Event::Vmload { vmcb: 0x1000 }, Event::Vmsave { vmcb: 0x1000 });
    assert_eq!(
        (code(&[Intercept::VMLOAD], load), code(&[Intercept::VMSAVE], save)),
        (Some(0x82), Some(0x83))
    );
    assert_eq!((code(&[Intercept::VMSAVE], load), code(&[], save)), (None, None));
    let mut asked = controls(&[]);
    asked.virt_ext = VirtExt::VMLOAD_VMSAVE_ENABLE;
    let state = State::default();
    assert_eq!(exit(&asked, &state, load).map(|e| e.code.0), Some(0x82), "no nested paging");
    asked.nested = NestedControl::NP_ENABLE;
    assert_eq!(exit(&asked, &state, load), None, "virtualized");
    asked.traits.host_64_bit = false;
    assert_eq!(exit(&asked, &state, save).map(|e| e.code.0), Some(0x83), "a 32-bit hypervisor");
    asked.traits.virtual_vmload = false;
    assert_eq!(exit(&asked, &state, save), None, "the processor does not know the bit");
}

#[test]
fn vmsave_of_an_snp_active_guest_exits_whatever_the_intercept() {
    let mut snp = controls(&[]);
    snp.traits.sev = true;
    snp.nested = NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE;
    snp.sev_features = 1;
    let (load, save) = (Event::Vmload { vmcb: 0x1000 }, Event::Vmsave { vmcb: 0x1000 });
    assert_eq!(exit(&snp, &State::default(), save).map(|e| e.code.0), Some(0x83));
    assert_eq!(exit(&snp, &State::default(), load), None, "only VMSAVE is forced");
    snp.sev_features = 0;
    assert_eq!(exit(&snp, &State::default(), save), None, "SEV-ES without SEV-SNP");
}

#[test]
fn descriptor_table_instructions_have_an_intercept_each() {
    for (instruction, number) in [
        (TableInstruction::Sidt, 0x66),
        (TableInstruction::Sgdt, 0x67),
        (TableInstruction::Sldt, 0x68),
        (TableInstruction::Str, 0x69),
        (TableInstruction::Lidt, 0x6a),
        (TableInstruction::Lgdt, 0x6b),
        (TableInstruction::Lldt, 0x6c),
        (TableInstruction::Ltr, 0x6d),
    ] {
        let event =
            Event::DescriptorTable { instruction, operand: Operand::Register(Gpr::Rax), operand_size: 8 };
        for other in 0x66..=0x6d {
            assert_eq!(
                code(&[Intercept(other)], event),
                (other == number).then_some(number.into()),
                "{instruction:?}"
            );
        }
    }
}

#[test]
fn plain_instructions_exit_by_their_own_bit_only() {
    let events = [
        (Event::Rdtsc, 0x6e),
        (Event::Rdpmc { counter: 0 }, 0x6f),
        (Event::Pushf, 0x70),
        (Event::Popf, 0x71),
        (Event::Cpuid { leaf: 1, subleaf: 0 }, 0x72),
        (Event::Rsm, 0x73),
        (Event::Iret, 0x74),
        (Event::Invd, 0x76),
        (Event::Invlpg { linear: Linear(0x7000) }, 0x79),
        (Event::Invlpga { linear: Linear(0x7000), asid: 1 }, 0x7a),
        (Event::FerrFreeze, 0x7e),
        (Event::TripleFault, 0x7f),
        (Event::Vmrun { vmcb: 0 }, 0x80),
        (Event::Vmmcall, 0x81),
        (Event::Stgi, 0x84),
        (Event::Clgi, 0x85),
        (Event::Skinit { block: 0 }, 0x86),
        (Event::Rdtscp, 0x87),
        (Event::Wbinvd { no_invalidate: true }, 0x89),
        (Event::Monitor, 0x8a),
        (Event::Xsetbv { index: 0, value: 1 }, 0x8d),
        (Event::Rdpru { register: 0 }, 0x8e),
        (Event::Invlpgb, 0xa0),
        (Event::Invpcid { kind: Gpr::Rax, operand: draw::descriptor(0x7000) }, 0xa2),
        (Event::Mcommit, 0xa3),
        (Event::Tlbsync, 0xa4),
        (Event::VirtualInterrupt { vector: 0x40 }, 0x64),
        (Event::Init, 0x63),
    ];
    for (event, number) in events {
        assert_eq!(code(&[Intercept(number)], event), Some(number.into()), "{event:?}");
        let others = Intercepts::NAMED.without(Intercept(number));
        let others = Controls { intercepts: others, ..controls(&[]) };
        assert_eq!(exit(&others, &State::default(), event), None, "{event:?}");
    }
    let invlpg =
        exit(&controls(&[Intercept::INVLPG]), &State::default(), Event::Invlpg { linear: Linear(0x7123) });
    assert_eq!(invlpg.unwrap().info1, 0x7123);
    let illegal = State { invlpgb_illegal: true, ..State::default() };
    assert_eq!(code(&[Intercept::INVLPGB_ILLEGAL], Event::Invlpgb), None);
    assert_eq!(
        exit(&controls(&[Intercept::INVLPGB_ILLEGAL]), &illegal, Event::Invlpgb).map(|e| e.code.0),
        Some(0xa1)
    );
    let both = [Intercept::INVLPGB_ILLEGAL, Intercept::INVLPGB];
    assert_eq!(exit(&controls(&both), &illegal, Event::Invlpgb).map(|e| e.code.0), Some(0xa0));
}
