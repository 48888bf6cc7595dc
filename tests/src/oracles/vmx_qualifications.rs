//! Exit qualifications of VM exits, from SDM Vol. 3C (325384-083, Mar 2024) "Basic VM-Exit Information", as plain shifts.

use super::Masked;
use super::vmx_conditions::{On, Seen, is_guest_physical, on};
use rootmode_arch::Event;
use rootmode_arch::event::{Operand, TaskSwitchSource};

/// "Exit Qualification for Debug Exceptions": B0 to B3, BLD, BD, BS, RTM. Page faults: the linear address.
pub(super) fn exception_qualification(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::Exception(e) = event else { return Masked::OPEN };
    Masked::exact(match e.vector {
        1 => e.detail & (0b1111 | 1 << 11 | 1 << 13 | 1 << 14 | 1 << 16),
        14 => e.detail,
        _ => 0,
    })
}

pub(super) fn vector(_: &Seen<'_>, event: &Event) -> Masked {
    match event {
        Event::Sipi { vector } | Event::VirtualizedEoi { vector } => Masked::exact((*vector).into()),
        _ => Masked::OPEN,
    }
}

/// "Exit Qualification for Task Switches".
pub(super) fn task_switch(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::TaskSwitch { selector, source, .. } = event else { return Masked::OPEN };
    let source = match source {
        TaskSwitchSource::Call => 0,
        TaskSwitchSource::Iret => 1,
        TaskSwitchSource::Jmp => 2,
        TaskSwitchSource::IdtGate => 3,
    };
    Masked::exact(u64::from(selector.0) | source << 30)
}

/// Bit 12: undefined with NMI exiting but not virtual NMIs, and while an event is in delivery.
pub(super) fn unblocking(view: &Seen<'_>) -> Masked {
    let undefined = on(view, On::Pin(3)) && !on(view, On::Pin(5)) || view.processor.in_delivery;
    Masked::within(
        u64::from(view.processor.iret_unblocks_nmi) << 12,
        if undefined { !(1 << 12) } else { u64::MAX },
    )
}

/// "Exit Qualification for EPT Violations".
pub(super) fn ept_violation(view: &Seen<'_>, event: &Event) -> Masked {
    let Event::SecondStage(a) = event else { return Masked::OPEN };
    let Masked { mut value, mut mask } = unblocking(view);
    let bit = |on: bool, at: u32| u64::from(on) << at;
    value |= bit(a.read, 0) | bit(a.write, 1) | bit(a.fetch, 2);
    value |= u64::from(a.permissions & 7) << 3;
    if on(view, On::Secondary(22)) {
        value |= u64::from(a.permissions >> 3 & 1) << 6;
    } else {
        mask &= !(1 << 6);
    }
    if a.linear.is_some() {
        value |= 1 << 7 | bit(!a.table_walk, 8);
    } else {
        mask &= !(1 << 8);
    }
    if a.linear.is_some() && !a.table_walk && view.controls.traits.advanced_ept_information {
        // Without paging, every linear address is a user-mode one, writable and executable.
        let paging = view.processor.cr0.0 >> 31 & 1 != 0;
        value |= bit(a.user || !paging, 9)
            | bit(a.linear_writable || !paging, 10)
            | bit(a.linear_execute_disable && paging, 11);
    } else {
        mask &= !(0b111 << 9);
    }
    value |= bit(view.processor.asynchronous, 16);
    Masked { value, mask }
}

pub(super) fn log_full(view: &Seen<'_>, _: &Event) -> Masked {
    let bit = unblocking(view);
    Masked::within(bit.value, bit.mask & 1 << 12)
}

pub(super) fn apic_write(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::ApicWrite { offset } = event else { return Masked::OPEN };
    Masked::exact(u64::from(offset & 0xfff))
}

/// "Exit Qualification for APIC-Access VM Exits from Linear Accesses and Guest-Physical Accesses".
pub(super) fn apic_access(view: &Seen<'_>, event: &Event) -> Masked {
    let Event::ApicAccess { access, in_delivery, .. } = event else { return Masked::OPEN };
    let asynchronous = u64::from(view.processor.asynchronous) << 16;
    if is_guest_physical(access) {
        let kind = if *in_delivery { 10 } else { 15 };
        return Masked::within(kind << 12 | asynchronous, !0xfff);
    }
    let kind = match (in_delivery, access.fetch, access.write) {
        (true, ..) => 3,
        (false, true, _) => 2,
        (false, false, true) => 1,
        (false, false, false) => 0,
    };
    Masked::exact(access.address.0 % 4096 | kind << 12 | asynchronous)
}

pub(super) fn lmsw(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::Lmsw { source, memory } = event else { return Masked::OPEN };
    Masked::exact(3 << 4 | u64::from(memory.is_some()) << 6 | u64::from(*source) << 16)
}

pub(super) fn mov_cr(_: &Seen<'_>, event: &Event) -> Masked {
    match event {
        Event::CrWrite { cr, gpr, .. } => Masked::exact(u64::from(*cr) | (*gpr as u64) << 8),
        Event::CrRead { cr, gpr } => Masked::exact(u64::from(*cr) | 1 << 4 | (*gpr as u64) << 8),
        _ => Masked::OPEN,
    }
}

pub(super) fn mov_dr(_: &Seen<'_>, event: &Event) -> Masked {
    match event {
        Event::DrWrite { dr, gpr, .. } => Masked::exact(u64::from(*dr) | (*gpr as u64) << 8),
        Event::DrRead { dr, gpr } => Masked::exact(u64::from(*dr) | 1 << 4 | (*gpr as u64) << 8),
        _ => Masked::OPEN,
    }
}

/// "Exit Qualification for I/O Instructions".
pub(super) fn port(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::PortIo(a) = event else { return Masked::OPEN };
    let flags = u64::from(a.input) << 3
        | u64::from(a.string) << 4
        | u64::from(a.rep) << 5
        | u64::from(a.immediate) << 6;
    Masked::exact(u64::from(a.size - 1) | flags | u64::from(a.port) << 16)
}

pub(super) fn invlpg(_: &Seen<'_>, event: &Event) -> Masked {
    let Event::Invlpg { linear } = event else { return Masked::OPEN };
    Masked::exact(linear.0)
}

/// Bit 0: the monitor is armed.
pub(super) fn mwait(_: &Seen<'_>, event: &Event) -> Masked {
    Masked::exact(u64::from(*event == Event::Mwait { armed: true }))
}

/// The displacement of a memory operand; bits beyond the address size are undefined. 0 for a register.
pub(super) fn displacement(_: &Seen<'_>, event: &Event) -> Masked {
    let operand = match event {
        Event::Invpcid { operand, .. } | Event::Xsaves { operand, .. } | Event::Xrstors { operand, .. } => {
            *operand
        }
        Event::DescriptorTable { operand: Operand::Memory(operand), .. }
        | Event::Vmx { operand: Some(Operand::Memory(operand)), .. } => *operand,
        _ => return Masked::exact(0),
    };
    let mask = match operand.address_size {
        2 => 0xffff,
        4 => 0xffff_ffff,
        _ => u64::MAX,
    };
    Masked::within(operand.displacement, mask)
}
