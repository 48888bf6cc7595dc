//! Random controls, states and events of every class.

use super::*;

fn number(choices: &mut dyn Choices, n: u64) -> u64 {
    choices.choose(Site::State, n)
}
fn flip(choices: &mut dyn Choices) -> bool {
    choices.flip(Site::State)
}

pub(super) fn controls(choices: &mut dyn Choices) -> Controls {
    let dense = flip(choices);
    let mut word = || {
        let (a, b) = (number(choices, 1 << 32) as u32, number(choices, 1 << 32) as u32);
        if dense { a | b } else { a & b }
    };
    let intercepts = Intercepts([word(), word(), word(), word(), word(), word()]);
    let mut traits = Traits::of(&MAX_AMD);
    traits.sev = flip(choices);
    traits.decode_assists = flip(choices);
    traits.nrip_save = flip(choices);
    traits.host_64_bit = flip(choices);
    traits.smm_locked = flip(choices);
    traits.pause_filter = flip(choices);
    Controls {
        intercepts,
        int_ctl: IntCtl(number(choices, 1 << 32) as u32),
        nested: NestedControl(number(choices, 256)),
        virt_ext: VirtExt(number(choices, 16)),
        pause_filter_count: number(choices, 3) as u16,
        pause_filter_threshold: number(choices, 3) as u16,
        sev_features: number(choices, 1 << 17),
        traits,
    }
}

pub(super) fn state(choices: &mut dyn Choices) -> State {
    State {
        cr0: Cr0(number(choices, 1 << 32)),
        rflags: RFlags(number(choices, 1 << 22)),
        next_rip: number(choices, u64::MAX),
        address_size: [2, 4, 8][number(choices, 3) as usize],
        pause: PauseFilter {
            left: number(choices, 2) as u16,
            last: flip(choices).then(|| number(choices, 4)),
        },
        bus_lock_counter: number(choices, 2) as u16,
        virtual_interrupt_pending: flip(choices),
        invlpgb_illegal: flip(choices),
        ipi: IpiOutcome {
            icr: number(choices, u64::MAX),
            failure: IpiFailure::ALL.into_iter().nth(number(choices, 8) as usize),
            index: number(choices, 512) as u16,
        },
    }
}

fn access(choices: &mut dyn Choices) -> GuestPhysicalAccess {
    GuestPhysicalAccess {
        address: GuestPhysical(number(choices, 1 << 40)),
        read: flip(choices),
        write: flip(choices),
        fetch: flip(choices),
        table_walk: flip(choices),
        permissions: number(choices, 8) as u8,
        entry: number(choices, 4),
        misconfigured: flip(choices),
        ..GuestPhysicalAccess::default()
    }
}

pub(super) fn descriptor(linear: u64) -> MemoryOperand {
    MemoryOperand {
        segment: SegmentName::Ds,
        base: None,
        index: None,
        scale: 0,
        address_size: 8,
        displacement: linear,
        linear: Linear(linear),
    }
}

pub(super) fn event(choices: &mut dyn Choices) -> Event {
    let gpr = Gpr::from_number(number(choices, 16) as u8);
    let value = number(choices, u64::MAX);
    let index = [0x1b, 0xc000_0080, 0xc001_0131, 0x4000_0000][number(choices, 4) as usize];
    let error_code = flip(choices).then_some(value as u32);
    let tables = [
        TableInstruction::Sgdt,
        TableInstruction::Sidt,
        TableInstruction::Lgdt,
        TableInstruction::Lidt,
        TableInstruction::Sldt,
        TableInstruction::Str,
        TableInstruction::Lldt,
        TableInstruction::Ltr,
    ];
    match number(choices, 62) {
        0 | 1 => Event::Exception(Exception {
            vector: number(choices, 32) as u8,
            error_code,
            detail: value,
            source: [ExceptionSource::Hardware, ExceptionSource::Software, ExceptionSource::Privileged]
                [number(choices, 3) as usize],
            instruction_length: 1,
        }),
        2 => Event::ExternalInterrupt { vector: value as u8 },
        3 => Event::Nmi,
        4 => Event::Smi,
        5 => Event::Init,
        6 => Event::Sipi { vector: value as u8 },
        7 => Event::TripleFault,
        8 => Event::TaskSwitch {
            selector: Selector(value as u16),
            source: [
                TaskSwitchSource::Call,
                TaskSwitchSource::Iret,
                TaskSwitchSource::Jmp,
                TaskSwitchSource::IdtGate,
            ][number(choices, 4) as usize],
            error_code,
        },
        9 => Event::Getsec,
        10 => Event::VirtualInterrupt { vector: value as u8 },
        11 => Event::MonitorTrap,
        12 => Event::FerrFreeze,
        13 => Event::BusLock,
        14 => Event::SecondStage(access(choices)),
        15 => Event::ApicAccess { access: access(choices), size: 4, in_delivery: flip(choices) },
        16 => {
            Event::ApicWrite { offset: if flip(choices) { 0x300 } else { number(choices, 256) as u16 * 16 } }
        }
        17 => Event::VirtualizedEoi { vector: value as u8 },
        18 => Event::Cpuid { leaf: value as u32, subleaf: 0 },
        19 => Event::Hlt,
        20 => Event::IdleHlt,
        21 => Event::Invd,
        22 => Event::Wbinvd { no_invalidate: flip(choices) },
        23 => Event::Invlpg { linear: Linear(value) },
        24 => Event::Invlpga { linear: Linear(value), asid: 1 },
        25 => Event::Invlpgb,
        26 => Event::Tlbsync,
        27 => Event::Invpcid { kind: gpr, operand: descriptor(value) },
        28 => Event::Rdpmc { counter: value as u32 },
        29 => Event::Rdtsc,
        30 => Event::Rdtscp,
        31 => Event::Rsm,
        32 => Event::CrRead { cr: number(choices, 16) as u8, gpr },
        33 => Event::CrWrite { cr: number(choices, 16) as u8, gpr, value: number(choices, 1 << 32) },
        34 => Event::Clts,
        35 => Event::Lmsw { source: value as u16, memory: None },
        36 => Event::Smsw { register: Some(gpr) },
        37 => Event::DrRead { dr: number(choices, 8) as u8, gpr },
        38 => Event::DrWrite { dr: number(choices, 8) as u8, gpr, value },
        39 => Event::PortIo(PortAccess {
            port: value as u16,
            size: [1, 2, 4][number(choices, 3) as usize],
            input: flip(choices),
            string: flip(choices),
            rep: flip(choices),
            immediate: false,
            address_size: 8,
            segment: SegmentName::Fs,
            linear: Linear(0),
        }),
        40 => Event::Rdmsr { index },
        41 => Event::Wrmsr { index, value },
        42 => Event::Mwait { armed: flip(choices) },
        43 => Event::Monitor,
        44 => Event::Pause { cpl: 0, tsc: number(choices, 8) },
        45 | 46 => Event::DescriptorTable {
            instruction: tables[number(choices, 8) as usize],
            operand: Operand::Register(gpr),
            operand_size: 8,
        },
        47 => Event::Xsetbv { index: 0, value },
        48 => Event::SoftwareInterrupt { vector: value as u8, instruction_length: 2 },
        49 => Event::Iret,
        50 => Event::Pushf,
        51 => Event::Popf,
        52 => Event::Vmrun { vmcb: value },
        53 => Event::Vmload { vmcb: value },
        54 => Event::Vmsave { vmcb: value },
        55 => Event::Vmmcall,
        56 => Event::Vmgexit,
        57 => {
            if flip(choices) {
                Event::Stgi
            } else {
                Event::Clgi
            }
        }
        58 => Event::Skinit { block: 0 },
        59 => {
            if flip(choices) {
                Event::Rdpru { register: 0 }
            } else {
                Event::Mcommit
            }
        }
        60 => Event::EferWritten { value },
        _ => Event::CrWritten { cr: number(choices, 16) as u8, value },
    }
}
