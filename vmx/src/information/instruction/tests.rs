//! Round trips over every operand of every format, and the manual's bit positions written out.

use super::*;
use rootmode_arch::Linear;
use rootmode_arch::event::{PortAccess, VmxInstruction};

fn registers() -> impl Iterator<Item = Option<Gpr>> + Clone {
    Gpr::ALL.into_iter().map(Some).chain([None])
}

/// Every address that an instruction can have: 6 segments, 17 bases, 1 + 16 * 4 indices, 3 sizes.
fn addresses() -> impl Iterator<Item = Address> {
    let indices =
        || (0..4u8).flat_map(|scale| Gpr::ALL.into_iter().map(move |r| Some((r, scale)))).chain([None]);
    SegmentName::ALL.into_iter().take(6).flat_map(move |segment| {
        registers().flat_map(move |base| {
            indices().flat_map(move |index| {
                [2, 4, 8].into_iter().map(move |size| Address { segment, base, index, size })
            })
        })
    })
}

fn round_trip(format: Format, information: InstructionInformation) {
    let value = information.encode(format);
    assert_eq!(InstructionInformation::decode(format, value), Some(information), "{format:?} {value:#x}");
}

#[test]
fn every_memory_operand_survives_the_round_trip_in_every_format_that_has_one() {
    use TableInstruction::{Lgdt, Lidt, Lldt, Ltr, Sgdt, Sidt, Sldt, Str};
    for address in addresses() {
        let operand = InstructionOperand::Memory(address);
        let blank = InstructionInformation { operand, register: None, operand_size: None, identity: None };
        round_trip(Format::Memory, blank);
        for register in Gpr::ALL {
            let with = InstructionInformation { register: Some(register), ..blank };
            round_trip(Format::Invalidate, with);
            round_trip(Format::VmcsField, with);
        }
        for (gdtr, ldtr) in [(Sgdt, Sldt), (Sidt, Str), (Lgdt, Lldt), (Lidt, Ltr)] {
            round_trip(Format::LdtrTr, InstructionInformation { identity: Some(ldtr), ..blank });
            for size in [2, 4] {
                let with = InstructionInformation { identity: Some(gdtr), operand_size: Some(size), ..blank };
                round_trip(Format::GdtrIdtr, with);
            }
        }
        if address.base.is_none() && address.index.is_none() {
            round_trip(Format::InsOuts, blank);
        }
    }
}

#[test]
fn every_register_operand_survives_the_round_trip_in_every_format_that_has_one() {
    for register in Gpr::ALL {
        let operand = InstructionOperand::Register(register);
        let blank = InstructionInformation { operand, register: None, operand_size: None, identity: None };
        for size in [2, 4, 8] {
            round_trip(Format::Register, InstructionInformation { operand_size: Some(size), ..blank });
        }
        for second in Gpr::ALL {
            let with = InstructionInformation { register: Some(second), ..blank };
            round_trip(Format::VmcsField, with);
            round_trip(Format::Loadiwkey, with);
        }
        for instruction in
            [TableInstruction::Sldt, TableInstruction::Str, TableInstruction::Lldt, TableInstruction::Ltr]
        {
            round_trip(Format::LdtrTr, InstructionInformation { identity: Some(instruction), ..blank });
        }
    }
}

#[test]
fn values_that_the_manual_does_not_use_are_refused() {
    for segment in [6u32, 7] {
        assert_eq!(InstructionInformation::decode(Format::Memory, segment << 15 | 1 << 27 | 1 << 22), None);
    }
    for size in 3..8u32 {
        assert_eq!(InstructionInformation::decode(Format::InsOuts, size << 7), None);
    }
    assert_eq!(InstructionInformation::decode(Format::Register, 3 << 11), None);
}

const OPERAND: MemoryOperand = MemoryOperand {
    segment: SegmentName::Fs,
    base: Some(Gpr::R9),
    index: Some(Gpr::Rsi),
    scale: 3,
    address_size: 8,
    displacement: 0x40,
    linear: Linear(0x1234),
};

/// The parts of `OPERAND` where every table of the manual puts them.
const BITS: u32 = 3 | 2 << 7 | 4 << 15 | 6 << 18 | 9 << 23;

fn value(format: Format, event: &Event) -> Option<u32> {
    InstructionInformation::of(format, event).map(|information| information.encode(format))
}

#[test]
fn events_report_their_operands_in_the_manuals_bits() {
    let vmx = |instruction, operand| Event::Vmx {
        instruction,
        operand: Some(operand),
        register: Some(Gpr::Rdx),
        value: 0,
    };
    let memory = Operand::Memory(OPERAND);
    let table =
        |instruction, operand, operand_size| Event::DescriptorTable { instruction, operand, operand_size };
    let cases = [
        (Format::Memory, vmx(VmxInstruction::Vmclear, memory), BITS),
        (Format::Invalidate, vmx(VmxInstruction::Invept, memory), BITS | 2 << 28),
        (Format::VmcsField, vmx(VmxInstruction::Vmread, memory), BITS | 2 << 28),
        (
            Format::VmcsField,
            vmx(VmxInstruction::Vmwrite, Operand::Register(Gpr::R15)),
            15 << 3 | 1 << 10 | 2 << 28,
        ),
        (Format::Invalidate, Event::Invpcid { kind: Gpr::R8, operand: OPERAND }, BITS | 8 << 28),
        (Format::Memory, Event::Xsaves { mask: 0, enabled: 0, operand: OPERAND }, BITS),
        (Format::Memory, Event::Xrstors { mask: 0, enabled: 0, operand: OPERAND }, BITS),
        (Format::GdtrIdtr, table(TableInstruction::Sgdt, memory, 2), BITS),
        (Format::GdtrIdtr, table(TableInstruction::Sidt, memory, 4), BITS | 1 << 11 | 1 << 28),
        (Format::GdtrIdtr, table(TableInstruction::Lgdt, memory, 2), BITS | 2 << 28),
        (Format::GdtrIdtr, table(TableInstruction::Lidt, memory, 2), BITS | 3 << 28),
        (Format::LdtrTr, table(TableInstruction::Sldt, memory, 2), BITS),
        (
            Format::LdtrTr,
            table(TableInstruction::Str, Operand::Register(Gpr::Rbx), 2),
            3 << 3 | 1 << 10 | 1 << 28,
        ),
        (Format::LdtrTr, table(TableInstruction::Lldt, memory, 2), BITS | 2 << 28),
        (Format::LdtrTr, table(TableInstruction::Ltr, memory, 2), BITS | 3 << 28),
        (Format::Register, Event::Rdrand { gpr: Gpr::Rdi, size: 2 }, 7 << 3),
        (Format::Register, Event::Rdseed { gpr: Gpr::Rdi, size: 8 }, 7 << 3 | 2 << 11),
        (Format::Register, Event::Umwait { gpr: Gpr::Rcx }, 1 << 3 | 1 << 11),
        (Format::Register, Event::Tpause { gpr: Gpr::R10 }, 10 << 3 | 1 << 11),
        (Format::Loadiwkey, Event::Loadiwkey { eax: 0, first: 4, second: 13 }, 4 << 3 | 13 << 28),
    ];
    for (format, event, expected) in cases {
        assert_eq!(value(format, &event), Some(expected), "{event:?}");
    }
}

#[test]
fn string_io_reports_address_size_and_segment_and_other_io_nothing() {
    let access = PortAccess {
        port: 0x60,
        size: 1,
        input: false,
        string: true,
        rep: true,
        immediate: false,
        address_size: 4,
        segment: SegmentName::Gs,
        linear: Linear(0),
    };
    assert_eq!(value(Format::InsOuts, &Event::PortIo(access)), Some(1 << 7 | 5 << 15));
    assert_eq!(value(Format::InsOuts, &Event::PortIo(PortAccess { string: false, ..access })), None);
    assert_eq!(value(Format::Memory, &Event::Hlt), None);
}

#[test]
fn an_absent_index_or_base_is_reported_by_its_invalid_bit() {
    let bare = MemoryOperand { base: None, index: None, scale: 2, segment: SegmentName::Ds, ..OPERAND };
    let event = Event::Invpcid { kind: Gpr::Rax, operand: bare };
    assert_eq!(value(Format::Invalidate, &event), Some(2 << 7 | 3 << 15 | 1 << 22 | 1 << 27));
}
