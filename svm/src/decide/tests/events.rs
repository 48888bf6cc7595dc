//! Exceptions, interrupts, traps after an instruction, second stage, AVIC.

use super::*;

fn exception(vector: u8, error_code: Option<u32>, source: ExceptionSource) -> Event {
    Event::Exception(Exception { vector, error_code, detail: 0xcafe_f000, source, instruction_length: 1 })
}

#[test]
fn exceptions_exit_by_vector_and_int1_by_its_own_intercept() {
    let state = State { next_rip: 0x1002, ..State::default() };
    for vector in 0..32 {
        let event = exception(vector, Some(7), ExceptionSource::Hardware);
        let all_others = (0..32).filter(|n| *n != vector).map(Intercept::exception).collect::<Vec<_>>();
        assert_eq!(exit(&controls(&all_others), &state, event), None, "{vector}");
        let got = exit(&controls(&[Intercept::exception(vector)]), &state, event).unwrap();
        assert_eq!((got.code.0, got.info1), (0x40 + u64::from(vector), 7));
        assert_eq!(got.info2, if vector == 14 { 0xcafe_f000 } else { 0 }, "only #PF reports an address");
        assert_eq!(got.next_rip, if vector == 4 || vector == 5 { 0x1002 } else { 0 }, "INTO and BOUND");
    }
    let int3 = exception(3, None, ExceptionSource::Software);
    assert_eq!(exit(&controls(&[Intercept::EXCP_BP]), &state, int3).map(|e| e.next_rip), Some(0x1002));
    let int1 = exception(1, None, ExceptionSource::Privileged);
    assert_eq!(exit(&controls(&[Intercept::EXCP_DB]), &state, int1), None);
    assert_eq!(exit(&controls(&[Intercept::ICEBP]), &state, int1).map(|e| e.code.0), Some(0x88));
    assert_eq!(code(&[Intercept::ICEBP], exception(1, None, ExceptionSource::Hardware)), None);
    let int_n = Event::SoftwareInterrupt { vector: 14, instruction_length: 2 };
    assert_eq!(code(&[Intercept::EXCP_PF], int_n), None, "INT n never checks exception intercepts");
    assert_eq!(
        exit(&controls(&[Intercept::SWINT]), &state, int_n).map(|e| (e.code.0, e.info1)),
        Some((0x75, 14))
    );
}

#[test]
fn forced_exits_need_no_intercept_bit() {
    let mut forced = controls(&[]);
    forced.traits.sev = true;
    forced.nested = NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE;
    let state = State::default();
    let machine_check = exception(18, None, ExceptionSource::Hardware);
    let events = [
        (Event::ExternalInterrupt { vector: 0x30 }, 0x60),
        (Event::Nmi, 0x61),
        (Event::Init, 0x63),
        (machine_check, 0x52),
    ];
    for features in [1 << 3, 1 << 4, 1 << 16] {
        forced.sev_features = features;
        for (event, code) in events {
            assert_eq!(exit(&forced, &state, event).map(|e| e.code.0), Some(code), "{event:?}");
        }
    }
    forced.sev_features = 1;
    for (event, _) in events {
        assert_eq!(exit(&forced, &state, event), None, "{event:?}");
    }
    assert_eq!(
        exit(&forced, &state, Event::Smi).map(|e| (e.code.0, e.info1)),
        Some((0x62, 1)),
        "SEV-ES: always"
    );
    let mut locked = controls(&[Intercept::SMI]);
    assert!(exit(&locked, &state, Event::Smi).is_some());
    locked.traits.smm_locked = true;
    assert_eq!(exit(&locked, &state, Event::Smi), None, "HWCR.SmmLock");
    assert_eq!(exit(&forced, &state, Event::Vmgexit).map(|e| e.code.0), Some(0x403));
    assert_eq!(code(&[Intercept::VMMCALL], Event::Vmgexit), Some(0x81), "VMGEXIT is VMMCALL elsewhere");
    assert_eq!(code(&[], Event::Vmgexit), None);
}

#[test]
fn write_traps_exist_for_sev_es_guests_only_and_report_the_new_value() {
    let bits = [Intercept::EFER_WRITE_TRAP, Intercept::CR4_WRITE_TRAP];
    let (efer, cr4) = (Event::EferWritten { value: 0xd01 }, Event::CrWritten { cr: 4, value: 0x6f0 });
    assert_eq!((code(&bits, efer), code(&bits, cr4)), (None, None));
    let mut encrypted = controls(&bits);
    encrypted.traits.sev = true;
    encrypted.nested = NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE;
    let state = State::default();
    assert_eq!(exit(&encrypted, &state, efer).map(|e| (e.code.0, e.info1)), Some((0x8f, 0xd01)));
    assert_eq!(exit(&encrypted, &state, cr4).map(|e| (e.code.0, e.info1)), Some((0x94, 0x6f0)));
    assert_eq!(exit(&encrypted, &state, Event::CrWritten { cr: 3, value: 0 }), None);
    assert!(exit(&encrypted, &state, cr4).is_some_and(|e| e.is_automatic()));
}

#[test]
fn second_stage_task_switch_and_bus_lock_report_what_they_are_about() {
    let fault = GuestPhysicalAccess {
        address: GuestPhysical(0x1_2345),
        table_walk: true,
        entry: 5,
        permissions: 5,
        ..Default::default()
    };
    let got = exit(&controls(&[]), &State::default(), Event::SecondStage(fault)).unwrap();
    assert_eq!((got.code, got.info1, got.info2), (ExitCode::NPF, 0x2_0000_0007, 0x1_2345));
    let reserved = GuestPhysicalAccess { misconfigured: true, ..fault };
    let reserved = exit(&controls(&[]), &State::default(), Event::SecondStage(reserved)).unwrap();
    assert!(got.is_automatic() && !reserved.is_automatic() && reserved.info1 & NpfInfo::RESERVED.0 != 0);

    let state = State { rflags: RFlags::RF, ..State::default() };
    let switch = Event::TaskSwitch {
        selector: Selector(0x48),
        source: TaskSwitchSource::Iret,
        error_code: Some(0x10),
    };
    let got = exit(&controls(&[Intercept::TASK_SWITCH]), &state, switch).unwrap();
    assert_eq!((got.code.0, got.info1, got.info2), (0x7d, 0x48, 1 << 36 | 1 << 44 | 1 << 48 | 0x10));
    assert_eq!(got.next_rip, 0, "no instruction intercept");

    let lock = controls(&[Intercept::BUSLOCK]);
    assert_eq!(exit(&lock, &State::default(), Event::BusLock).map(|e| e.code.0), Some(0xa5));
    assert_eq!(exit(&lock, &State { bus_lock_counter: 1, ..State::default() }, Event::BusLock), None);
}

#[test]
fn avic_exits_by_register_and_direction() {
    let mut avic = controls(&[]);
    avic.int_ctl = IntCtl::AVIC_ENABLE;
    let state = State::default();
    let access = |offset: u64, write: bool| {
        let access = GuestPhysicalAccess {
            address: GuestPhysical(0xfee0_0000 + offset),
            read: !write,
            write,
            ..Default::default()
        };
        Event::ApicAccess { access, size: 4, in_delivery: false }
    };
    for (offset, read_faults, write_faults, write_traps) in [
        (0x020, false, false, true),
        (0x030, false, true, false),
        (0x080, false, false, false),
        (0x090, true, true, false),
        (0x0a0, false, true, false),
        (0x0f0, false, false, true),
        (0x170, false, true, false),
        (0x280, false, false, true),
        (0x290, false, false, false),
        (0x300, false, false, false),
        (0x310, false, false, false),
        (0x320, false, false, true),
        (0x390, true, true, false),
        (0x3e0, false, false, true),
        (0x430, false, false, false),
        (0x500, true, true, false),
        (0xff0, true, true, false),
    ] {
        assert_eq!(exit(&avic, &state, access(offset, false)).is_some(), read_faults, "{offset:#x} read");
        assert_eq!(exit(&avic, &state, access(offset, true)).is_some(), write_faults, "{offset:#x} write");
        let trap = exit(&avic, &state, Event::ApicWrite { offset: offset as u16 });
        assert_eq!(
            trap.map(|e| (e.code.0, e.info1)),
            write_traps.then_some((0x402, 1 << 32 | offset)),
            "{offset:#x}"
        );
        assert_eq!(exit(&controls(&[]), &state, access(offset, true)), None, "AVIC is off");
    }
    let ipi =
        IpiOutcome { icr: 0x0200_0000_0000_00f1, failure: Some(IpiFailure::TargetNotRunning), index: 2 };
    let failed = State { ipi, ..State::default() };
    let got = exit(&avic, &failed, Event::ApicWrite { offset: 0x300 }).unwrap();
    assert_eq!((got.code.0, got.info1, got.info2), (0x401, 0x0200_0000_0000_00f1, 1 << 32 | 2));
    let eoi = exit(&avic, &state, Event::VirtualizedEoi { vector: 0x61 }).unwrap();
    assert_eq!((eoi.code.0, eoi.info1, eoi.info2), (0x402, 1 << 32 | 0xb0, 0x61));
}
