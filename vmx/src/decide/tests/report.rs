//! What exits report beyond reason and qualification: events, error codes, addresses, NMI unblocking.

use super::*;
use rootmode_arch::event::{Exception, ExceptionSource, PortAccess};

fn exception(vector: u8, error_code: Option<u32>, detail: u64, source: ExceptionSource) -> Event {
    Event::Exception(Exception { vector, error_code, detail, source, instruction_length: 0 })
}

fn all_exceptions() -> Controls {
    Controls { exception_bitmap: !0, ..Controls::default() }
}

fn exit(controls: &Controls, processor: &Processor, event: &Event) -> Exit {
    ask(controls, processor, true, event).expect("the event exits")
}

#[test]
fn exceptions_report_type_vector_and_error_code() {
    use ExceptionSource::{Hardware, Privileged, Software};
    let cases = [
        (exception(13, Some(0x18), 0, Hardware), 0x8000_0b0d, Some(0x18), 0),
        (
            exception(14, Some(6), 0xffff_8000_0000_1234, Hardware),
            0x8000_0b0e,
            Some(6),
            0xffff_8000_0000_1234,
        ),
        (exception(6, None, 0, Hardware), 0x8000_0306, None, 0),
        (exception(3, None, 0, Software), 0x8000_0603, None, 0),
        (exception(4, None, 0, Software), 0x8000_0604, None, 0),
        (exception(1, None, 0, Privileged), 0x8000_0501, None, 0),
        (exception(1, None, 0xffff_4ff1, Hardware), 0x8000_0301, None, 0x1_4801),
    ];
    for (event, information, error_code, qualification) in cases {
        let exit = exit(&all_exceptions(), &long_mode(), &event);
        assert_eq!(
            (exit.interruption_information, exit.error_code, exit.qualification),
            (information, error_code, qualification)
        );
        assert_eq!(
            (exit.guest_linear, exit.guest_physical, exit.instruction_information),
            (None, None, None)
        );
    }
}

#[test]
fn real_address_mode_reports_no_error_code() {
    let event = exception(13, Some(0), 0, ExceptionSource::Hardware);
    let exit = exit(&all_exceptions(), &Processor::default(), &event);
    assert_eq!((exit.interruption_information, exit.error_code), (0x8000_030d, None));
}

#[test]
fn nmi_unblocking_is_reported_only_where_it_is_defined() {
    for bits in 0..16u32 {
        let on = |bit: u32| bits >> bit & 1 == 1;
        let mut controls = all_exceptions();
        turn(&mut controls, Word::Pin, 3, on(0));
        turn(&mut controls, Word::Pin, 5, on(1));
        turn(&mut controls, Word::Secondary, 1, true);
        turn(&mut controls, Word::Secondary, 17, true);
        let processor = Processor { iret_unblocks_nmi: on(2), in_delivery: on(3), ..long_mode() };
        let undefined = on(0) && !on(1) || on(3);
        let expected = u64::from(on(2) && !undefined);
        let fault = exit(&controls, &processor, &exception(13, Some(0), 0, ExceptionSource::Hardware));
        assert_eq!(u64::from(fault.interruption_information >> 12 & 1), expected);
        let double = exit(&controls, &processor, &exception(8, Some(0), 0, ExceptionSource::Hardware));
        assert_eq!(double.interruption_information >> 12 & 1, 0, "undefined for #DF");
        let violation = exit(&controls, &processor, &Event::SecondStage(read_of(0x1000)));
        assert_eq!(violation.qualification >> 12 & 1, expected);
        let full = exit(&controls, &processor, &Event::PageModificationLogFull);
        assert_eq!(full.qualification, expected << 12);
    }
}

#[test]
fn an_external_interrupt_reports_its_vector_only_if_acknowledged() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Pin, 0, true);
    let event = Event::ExternalInterrupt { vector: 0xec };
    assert_eq!(exit(&controls, &long_mode(), &event).interruption_information, 0);
    turn(&mut controls, Word::Exit, 15, true);
    assert_eq!(exit(&controls, &long_mode(), &event).interruption_information, 0x8000_00ec);
    turn(&mut controls, Word::Pin, 3, true);
    assert_eq!(exit(&controls, &long_mode(), &Event::Nmi).interruption_information, 0x8000_0202);
}

#[test]
fn ept_violations_report_addresses_permissions_and_advanced_information() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Secondary, 1, true);
    let access = GuestPhysicalAccess {
        user: true,
        linear_execute_disable: true,
        permissions: 0b1001,
        read: false,
        write: true,
        ..read_of(0x5_6000)
    };
    let event = Event::SecondStage(access);
    let plain = exit(&controls, &long_mode(), &event);
    assert_eq!(plain.qualification, 1 << 1 | 1 << 3 | 1 << 7 | 1 << 8);
    assert_eq!((plain.guest_physical, plain.guest_linear), (Some(GuestPhysical(0x5_6000)), access.linear));
    controls.traits.advanced_ept_information = true;
    turn(&mut controls, Word::Secondary, 22, true);
    assert_eq!(
        exit(&controls, &long_mode(), &event).qualification,
        plain.qualification | 1 << 6 | 1 << 9 | 1 << 11
    );
    // Without paging: user-mode, writable, executable.
    let unpaged = Processor { cr0: Cr0::PE, ..Processor::default() };
    assert_eq!(
        exit(&controls, &unpaged, &event).qualification,
        plain.qualification | 1 << 6 | 1 << 9 | 1 << 10
    );
    let walk = Event::SecondStage(GuestPhysicalAccess { table_walk: true, ..access });
    assert_eq!(exit(&controls, &long_mode(), &walk).qualification, 1 << 1 | 1 << 3 | 1 << 6 | 1 << 7);
    let pdpte = Event::SecondStage(GuestPhysicalAccess { linear: None, ..access });
    let exit_pdpte = exit(&controls, &long_mode(), &pdpte);
    assert_eq!((exit_pdpte.qualification, exit_pdpte.guest_linear), (1 << 1 | 1 << 3 | 1 << 6, None));
    let broken = Event::SecondStage(GuestPhysicalAccess { misconfigured: true, ..access });
    let exit_broken = exit(&controls, &long_mode(), &broken);
    assert_eq!((exit_broken.qualification, exit_broken.guest_linear), (0, None));
    assert_eq!(exit_broken.guest_physical, Some(GuestPhysical(0x5_6000)));
}

#[test]
fn apic_accesses_report_offset_and_access_type() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Secondary, 0, true);
    let read = read_of(0xfee0_0310);
    let write = GuestPhysicalAccess { read: false, write: true, ..read };
    let fetch = GuestPhysicalAccess { read: false, fetch: true, ..read };
    let physical = GuestPhysicalAccess { linear: None, ..read };
    let walk = GuestPhysicalAccess { table_walk: true, ..read };
    let cases = [
        (read, false, 0x0310),
        (write, false, 0x1310),
        (fetch, false, 0x2310),
        (read, true, 0x3310),
        (write, true, 0x3310),
        (physical, true, 0xa000),
        (physical, false, 0xf000),
        (walk, false, 0xf000),
    ];
    for (access, in_delivery, expected) in cases {
        let event = Event::ApicAccess { access, size: 4, in_delivery };
        assert_eq!(exit(&controls, &long_mode(), &event).qualification, expected, "{access:?}");
    }
}

#[test]
fn memory_operands_report_linear_addresses_where_the_manual_says() {
    let mut controls = Controls { cr0_mask: 8, ..Controls::default() };
    turn(&mut controls, Word::Primary, 24, true);
    let lmsw = |memory| exit(&controls, &long_mode(), &Event::Lmsw { source: 8, memory });
    assert_eq!(lmsw(Some(Linear(0x1234))).guest_linear, Some(Linear(0x1234)));
    assert_eq!(lmsw(None).guest_linear, None);
    let io = PortAccess {
        port: 1,
        size: 1,
        input: false,
        string: true,
        rep: false,
        immediate: false,
        address_size: 2,
        segment: SegmentName::Fs,
        linear: Linear(0x777),
    };
    let string = exit(&controls, &long_mode(), &Event::PortIo(io));
    assert_eq!((string.guest_linear, string.instruction_information), (Some(Linear(0x777)), None));
    let plain = exit(&controls, &long_mode(), &Event::PortIo(PortAccess { string: false, ..io }));
    assert_eq!(plain.guest_linear, None);
    controls.traits.ins_outs_information = true;
    let informed = exit(&controls, &long_mode(), &Event::PortIo(io));
    assert_eq!(informed.instruction_information, Some(4 << 15));
}

#[test]
fn displacements_are_sign_extended_in_64_bit_mode_and_cut_to_the_address_size_elsewhere() {
    let mut controls = Controls::default();
    turn(&mut controls, Word::Secondary, 12, true);
    turn(&mut controls, Word::Primary, 9, true);
    let protected = Processor { cr0: Cr0::PE, ..Processor::default() };
    let event =
        |address_size| Event::Invpcid { kind: Gpr::Rax, operand: MemoryOperand { address_size, ..MEMORY } };
    assert_eq!(exit(&controls, &long_mode(), &event(4)).qualification, MEMORY_DISPLACEMENT);
    assert_eq!(exit(&controls, &protected, &event(4)).qualification, 0xffff_fff0);
    assert_eq!(exit(&controls, &protected, &event(2)).qualification, 0xfff0);
}
