//! Draws events of every class, with operands at the edges of their ranges.

use rootmode_arch::event::{
    Exception, ExceptionSource, GuestPhysicalAccess, MemoryOperand, Operand, PortAccess, TableInstruction,
    TaskSwitchSource, VmxInstruction,
};
use rootmode_arch::{
    Choices, Event, EventClass, Gpr, GuestPhysical, Linear, SegmentName, Selector, Site, vector,
};

use crate::campaign::properties::interception::draw::any_msr;

/// One of `list`.
fn one<T: Copy>(c: &mut dyn Choices, list: &[T]) -> T {
    list[c.choose(Site::Sequence, list.len() as u64) as usize]
}

/// A 64-bit value: small ones, single bits, all ones, neighbours of those, or any.
fn value(c: &mut dyn Choices) -> u64 {
    let bit = 1u64 << c.choose(Site::Sequence, 64);
    match c.choose(Site::Sequence, 6) {
        0 => c.choose(Site::Sequence, 16),
        1 => bit,
        2 => bit - 1,
        3 => !bit,
        4 => !0,
        _ => c.choose(Site::Sequence, 1 << 32) << 32 | c.choose(Site::Sequence, 1 << 32),
    }
}

fn gpr(c: &mut dyn Choices) -> Gpr {
    one(c, &Gpr::ALL)
}

fn linear(c: &mut dyn Choices) -> Linear {
    Linear(value(c))
}

fn data_segment(c: &mut dyn Choices) -> SegmentName {
    one(c, &SegmentName::ALL[..6])
}

fn memory(c: &mut dyn Choices) -> MemoryOperand {
    MemoryOperand {
        segment: data_segment(c),
        base: c.flip(Site::Sequence).then(|| gpr(c)),
        index: c.flip(Site::Sequence).then(|| gpr(c)).filter(|index| *index != Gpr::Rsp),
        scale: c.choose(Site::Sequence, 4) as u8,
        address_size: one(c, &[8, 4, 2]),
        displacement: value(c),
        linear: linear(c),
    }
}

fn operand(c: &mut dyn Choices) -> Operand {
    if c.flip(Site::Sequence) { Operand::Memory(memory(c)) } else { Operand::Register(gpr(c)) }
}

fn exception(c: &mut dyn Choices) -> Exception {
    let row = one(c, vector::TABLE);
    let source = match row.number {
        vector::BP | vector::OF => ExceptionSource::Software,
        vector::DB if c.flip(Site::Sequence) => ExceptionSource::Privileged,
        _ => ExceptionSource::Hardware,
    };
    Exception {
        vector: row.number,
        error_code: row.error_code.then(|| c.choose(Site::Sequence, 1 << 16) as u32),
        detail: if matches!(row.number, vector::PF | vector::DB) { value(c) } else { 0 },
        source,
        instruction_length: if source == ExceptionSource::Hardware { 0 } else { 1 },
    }
}

fn port(c: &mut dyn Choices) -> PortAccess {
    let string = c.flip(Site::Sequence);
    let input = c.flip(Site::Sequence);
    let near_edge = one(c, &[0u16, 0x7fff, 0x8000, 0xffff]).wrapping_add(c.choose(Site::Sequence, 5) as u16);
    PortAccess {
        port: if c.flip(Site::Sequence) { near_edge } else { c.choose(Site::Sequence, 1 << 16) as u16 },
        size: one(c, &[1, 2, 4]),
        input,
        string,
        rep: string && c.flip(Site::Sequence),
        immediate: !string && c.flip(Site::Sequence),
        address_size: if string { one(c, &[8, 4, 2]) } else { 0 },
        segment: if string && !input { data_segment(c) } else { SegmentName::Es },
        linear: if string { linear(c) } else { Linear(0) },
    }
}

fn access(c: &mut dyn Choices) -> GuestPhysicalAccess {
    let write = c.flip(Site::Sequence);
    let fetch = !write && c.flip(Site::Sequence);
    GuestPhysicalAccess {
        address: GuestPhysical(value(c) & 0xf_ffff_ffff_ffff),
        linear: c.flip(Site::Sequence).then(|| linear(c)),
        read: !fetch,
        write,
        fetch,
        table_walk: c.flip(Site::Sequence),
        user: c.flip(Site::Sequence),
        permissions: c.choose(Site::Sequence, 16) as u8,
        entry: value(c),
        misconfigured: c.flip(Site::Sequence),
        ..GuestPhysicalAccess::default()
    }
}

/// An event of `class`.
#[allow(clippy::too_many_lines, reason = "one arm for each class of event")]
pub(super) fn of_class(c: &mut dyn Choices, class: EventClass) -> Event {
    use EventClass as C;
    let vector = |c: &mut dyn Choices| c.choose(Site::Sequence, 256) as u8;
    let word = |c: &mut dyn Choices| value(c) as u32;
    match class {
        C::Exception => Event::Exception(exception(c)),
        C::ExternalInterrupt => Event::ExternalInterrupt { vector: vector(c) },
        C::Nmi => Event::Nmi,
        C::Smi => Event::Smi,
        C::Init => Event::Init,
        C::Sipi => Event::Sipi { vector: vector(c) },
        C::TripleFault => Event::TripleFault,
        C::TaskSwitch => Event::TaskSwitch {
            selector: Selector(c.choose(Site::Sequence, 1 << 16) as u16),
            source: one(
                c,
                &[
                    TaskSwitchSource::Call,
                    TaskSwitchSource::Iret,
                    TaskSwitchSource::Jmp,
                    TaskSwitchSource::IdtGate,
                ],
            ),
            error_code: c.flip(Site::Sequence).then(|| word(c)),
        },
        C::InterruptWindow => Event::InterruptWindow,
        C::NmiWindow => Event::NmiWindow,
        C::VirtualInterrupt => Event::VirtualInterrupt { vector: vector(c) },
        C::PreemptionTimer => Event::PreemptionTimer,
        C::MonitorTrap => Event::MonitorTrap,
        C::TprBelowThreshold => Event::TprBelowThreshold,
        C::FerrFreeze => Event::FerrFreeze,
        C::BusLock => Event::BusLock,
        C::SecondStage => Event::SecondStage(access(c)),
        C::ApicAccess => Event::ApicAccess {
            access: access(c),
            size: one(c, &[4, 1, 2, 8]),
            in_delivery: c.flip(Site::Sequence),
        },
        C::ApicWrite => Event::ApicWrite { offset: c.choose(Site::Sequence, 256) as u16 * 16 },
        C::VirtualizedEoi => Event::VirtualizedEoi { vector: vector(c) },
        C::PageModificationLogFull => Event::PageModificationLogFull,
        C::Cpuid => Event::Cpuid { leaf: word(c), subleaf: word(c) },
        C::Getsec => Event::Getsec,
        C::Hlt => Event::Hlt,
        C::IdleHlt => Event::IdleHlt,
        C::Invd => Event::Invd,
        C::Wbinvd => Event::Wbinvd { no_invalidate: c.flip(Site::Sequence) },
        C::Invlpg => Event::Invlpg { linear: linear(c) },
        C::Invlpga => Event::Invlpga { linear: linear(c), asid: word(c) },
        C::Invlpgb => Event::Invlpgb,
        C::Tlbsync => Event::Tlbsync,
        C::Invpcid => Event::Invpcid { kind: gpr(c), operand: memory(c) },
        C::Rdpmc => Event::Rdpmc { counter: word(c) },
        C::Rdtsc => Event::Rdtsc,
        C::Rdtscp => Event::Rdtscp,
        C::Rsm => Event::Rsm,
        C::Vmx => vmx(c),
        C::CrRead => Event::CrRead { cr: one(c, &[0, 2, 3, 4, 8]), gpr: gpr(c) },
        C::CrWrite => Event::CrWrite { cr: one(c, &[0, 2, 3, 4, 8]), gpr: gpr(c), value: value(c) },
        C::Clts => Event::Clts,
        C::Lmsw => Event::Lmsw {
            source: c.choose(Site::Sequence, 1 << 16) as u16,
            memory: c.flip(Site::Sequence).then(|| linear(c)),
        },
        C::Smsw => Event::Smsw { register: c.flip(Site::Sequence).then(|| gpr(c)) },
        C::DrRead => Event::DrRead { dr: c.choose(Site::Sequence, 8) as u8, gpr: gpr(c) },
        C::DrWrite => Event::DrWrite { dr: c.choose(Site::Sequence, 8) as u8, gpr: gpr(c), value: value(c) },
        C::PortIo => Event::PortIo(port(c)),
        C::Rdmsr => Event::Rdmsr { index: any_msr(c) },
        C::Wrmsr => Event::Wrmsr { index: any_msr(c), value: value(c) },
        C::Mwait => Event::Mwait { armed: c.flip(Site::Sequence) },
        C::Monitor => Event::Monitor,
        C::Pause => Event::Pause { cpl: c.choose(Site::Sequence, 4) as u8, tsc: value(c) },
        C::DescriptorTable => Event::DescriptorTable {
            instruction: one(
                c,
                &[
                    TableInstruction::Sgdt,
                    TableInstruction::Sidt,
                    TableInstruction::Lgdt,
                    TableInstruction::Lidt,
                    TableInstruction::Sldt,
                    TableInstruction::Str,
                    TableInstruction::Lldt,
                    TableInstruction::Ltr,
                ],
            ),
            operand: operand(c),
            operand_size: one(c, &[2, 4, 8]),
        },
        C::Rdrand => Event::Rdrand { gpr: gpr(c), size: one(c, &[2, 4, 8]) },
        C::Rdseed => Event::Rdseed { gpr: gpr(c), size: one(c, &[2, 4, 8]) },
        C::Xsetbv => Event::Xsetbv { index: word(c), value: value(c) },
        C::Xsaves => Event::Xsaves { mask: value(c), enabled: value(c), operand: memory(c) },
        C::Xrstors => Event::Xrstors { mask: value(c), enabled: value(c), operand: memory(c) },
        C::Umwait => Event::Umwait { gpr: gpr(c) },
        C::Tpause => Event::Tpause { gpr: gpr(c) },
        C::Encls => Event::Encls { leaf: word(c) },
        C::Enclv => Event::Enclv { leaf: word(c) },
        C::Pconfig => Event::Pconfig { leaf: word(c) },
        C::Enqcmd => Event::Enqcmd {
            supervisor: c.flip(Site::Sequence),
            pasid: c.choose(Site::Sequence, 1 << 20) as u32,
        },
        C::Loadiwkey => Event::Loadiwkey {
            eax: word(c),
            first: c.choose(Site::Sequence, 16) as u8,
            second: c.choose(Site::Sequence, 16) as u8,
        },
        C::Seam => Event::Seam { tdcall: c.flip(Site::Sequence) },
        C::SoftwareInterrupt => Event::SoftwareInterrupt { vector: vector(c), instruction_length: 2 },
        C::Iret => Event::Iret,
        C::Pushf => Event::Pushf,
        C::Popf => Event::Popf,
        C::Vmrun => Event::Vmrun { vmcb: value(c) },
        C::Vmload => Event::Vmload { vmcb: value(c) },
        C::Vmsave => Event::Vmsave { vmcb: value(c) },
        C::Vmmcall => Event::Vmmcall,
        C::Vmgexit => Event::Vmgexit,
        C::Stgi => Event::Stgi,
        C::Clgi => Event::Clgi,
        C::Skinit => Event::Skinit { block: word(c) },
        C::Rdpru => Event::Rdpru { register: word(c) },
        C::Mcommit => Event::Mcommit,
        C::EferWritten => Event::EferWritten { value: value(c) },
        C::CrWritten => Event::CrWritten { cr: c.choose(Site::Sequence, 16) as u8, value: value(c) },
    }
}

fn vmx(c: &mut dyn Choices) -> Event {
    use VmxInstruction as V;
    let instruction = one(
        c,
        &[
            V::Vmcall,
            V::Vmclear,
            V::Vmlaunch,
            V::Vmptrld,
            V::Vmptrst,
            V::Vmread,
            V::Vmresume,
            V::Vmwrite,
            V::Vmxoff,
            V::Vmxon,
            V::Invept,
            V::Invvpid,
            V::Vmfunc,
        ],
    );
    let operand = match instruction {
        V::Vmclear | V::Vmptrld | V::Vmptrst | V::Vmxon | V::Invept | V::Invvpid => {
            Some(Operand::Memory(memory(c)))
        }
        V::Vmread | V::Vmwrite => Some(operand(c)),
        V::Vmcall | V::Vmlaunch | V::Vmresume | V::Vmxoff | V::Vmfunc => None,
    };
    let register = matches!(instruction, V::Vmread | V::Vmwrite | V::Invept | V::Invvpid).then(|| gpr(c));
    Event::Vmx { instruction, operand, register, value: value(c) }
}
