//! The checks: each makes a guest exit in one way and says what came of it.

use std::sync::Arc;

use kvm_bindings::*;

use crate::kvm::{Exit, Kvm, Mapping};
use crate::machine::{Checked, Machine, kernel};
use crate::programs::{Program, REPORT, code};

/// A check and its name.
pub(crate) struct Check {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Kvm) -> Checked,
}

macro_rules! checks {
    ($($name:ident)*) => {
        /// All of them.
        pub(crate) const CHECKS: &[Check] = &[$(Check { name: stringify!($name), run: $name },)*];
    };
}

checks! {
    io string_io mmio cpuid msr msr_denied hlt window nmi page_fault tables exceptions single_step shutdown floating dirty_log
    read_only real_mode apic apic_timer apic_message x2apic second_processor
}

const fn out(port: u16, size: u8, value: u32) -> Exit {
    Exit::Out { port, size, count: 1, value }
}

fn started(kvm: &Kvm, irqchip: bool, program: Program) -> Result<Machine, String> {
    let machine = Machine::new(kvm, irqchip)?;
    machine.start(program, 0)?;
    Ok(machine)
}

fn io(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::io)?;
    machine.expect(out(0x501, 1, 0x5a))?;
    machine.serve(Exit::In { port: 0x501, size: 1, count: 1 }, 0xa5)?;
    machine.reports(&[0xa5])?;
    machine.expect(out(0x80, 2, 0x1234))?;
    machine.serve(Exit::In { port: 0x84, size: 4, count: 1 }, 0xdead_beef)?;
    machine.reports(&[0xdead_beef])?;
    machine.expect(Exit::Halt)
}

fn string_io(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::string_io)?;
    // KVM may hand over one or several at a time.
    let mut bytes: Vec<u8> = Vec::new();
    while bytes.len() < 4 {
        match machine.exit()? {
            Exit::Out { port: 0x502, size: 1, count, value } => {
                bytes.extend(&value.to_le_bytes()[..count.min(4) as usize]);
            }
            other => return Err(format!("{other:x?} instead of OUTSB")),
        }
    }
    if bytes != b"abcd" {
        return Err(format!("{bytes:x?} came out"));
    }
    let mut left = 4;
    while left > 0 {
        match machine.exit()? {
            Exit::In { port: 0x502, size: 1, count } => {
                machine.vcpu.answer(0x4433_2211 >> (8 * (4 - left)));
                left -= count.min(left);
            }
            other => return Err(format!("{other:x?} instead of INSB")),
        }
    }
    machine.reports(&[0x4433_2211, 0])?;
    machine.expect(Exit::Halt)
}

fn mmio(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::mmio)?;
    let at = |offset: u64| 0xd000_0000 + offset;
    // The second time the translation is known to have no memory.
    for _ in 0..2 {
        machine.start(Program::mmio, 0)?;
        machine.expect(Exit::Write { address: at(0), size: 4, value: 0x1122_3344 })?;
        machine.expect(Exit::Write { address: at(5), size: 1, value: 0x55 })?;
        machine.expect(Exit::Write { address: at(8), size: 8, value: 0x8877_6655_4433_2211 })?;
        machine.serve(Exit::Read { address: at(0x10), size: 4 }, 0xcafe_f00d)?;
        machine.reports(&[0xcafe_f00d])?;
        machine.serve(Exit::Read { address: at(0x20), size: 2 }, 0xbeef)?;
        machine.reports(&[0xbeef])?;
        machine.serve(Exit::Read { address: at(0x30), size: 4 }, 0x10)?;
        machine.expect(Exit::Write { address: at(0x30), size: 4, value: 0x11 })?;
        machine.expect(Exit::Halt)?;
    }
    Ok(())
}

fn cpuid(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::cpuid)?;
    let mut cpuid = kvm.supported_cpuid().map_err(kernel("KVM_GET_SUPPORTED_CPUID"))?;
    cpuid.push(kvm_cpuid_entry2 {
        function: 0x4000_0100,
        eax: 0x600d_1dea,
        ebx: 0x4b56_4d21,
        ..Default::default()
    });
    for entry in cpuid.entries().iter_mut().filter(|entry| entry.function == 1) {
        entry.ebx = entry.ebx & 0x00ff_ffff | 0x5a << 24;
    }
    machine.vcpu.set_cpuid(&mut cpuid).map_err(kernel("KVM_SET_CPUID2"))?;
    machine.reports(&[0x600d_1dea, 0x4b56_4d21, 0x5a])?;
    machine.expect(Exit::Halt)
}

fn msr(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::msr)?;
    let reasons = KVM_MSR_EXIT_REASON_UNKNOWN;
    machine.vm.enable(KVM_CAP_X86_USER_SPACE_MSR, reasons.into()).map_err(kernel("KVM_ENABLE_CAP"))?;
    let base = machine.vcpu.msr(0x1b).map_err(kernel("KVM_GET_MSRS"))?;
    let pat = machine.vcpu.msr(0x277).map_err(kernel("KVM_GET_MSRS"))?;
    machine.reports(&[base as u32, 0x1234_5678, 0xffff_8000, pat as u32])?;
    machine.serve(Exit::ReadMsr { msr: 0x1_2345 }, 0x1357_2468)?;
    machine.reports(&[0x1357_2468])?;
    machine.expect(Exit::WriteMsr { msr: 0x1_2345, value: 0x77 })?;
    machine.expect(Exit::ReadMsr { msr: 0x1_2345 })?;
    machine.vcpu.refuse_msr();
    // Behind RDMSR, with what WRMSR had.
    machine.reports(&[0xd000_0000, 0x77])?;
    machine.expect(Exit::Halt)?;
    let kept = machine.vcpu.msr(0xc000_0102).map_err(kernel("KVM_GET_MSRS"))?;
    if kept != 0xffff_8000_1234_5678 {
        return Err(format!("KERNEL_GS_BASE is {kept:#x}"));
    }
    Ok(())
}

fn msr_denied(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::msr_denied)?;
    let reasons = KVM_MSR_EXIT_REASON_FILTER;
    machine.vm.enable(KVM_CAP_X86_USER_SPACE_MSR, reasons.into()).map_err(kernel("KVM_ENABLE_CAP"))?;
    machine.vm.deny_msr(0x174).map_err(kernel("KVM_X86_SET_MSR_FILTER"))?;
    machine.serve(Exit::ReadMsr { msr: 0x174 }, 0x8765_4321)?;
    machine.reports(&[0x8765_4321])?;
    machine.expect(Exit::WriteMsr { msr: 0x174, value: 0x88 })?;
    machine.reports(&[0x99])?;
    machine.expect(Exit::Halt)
}

fn hlt(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::hlt)?;
    machine.reports(&[1])?;
    machine.expect(Exit::Halt)?;
    machine.reports(&[2])?;
    machine.expect(Exit::Halt)
}

fn window(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::window)?;
    machine.reports(&[1])?;
    machine.vcpu.request_window(true);
    machine.expect(Exit::Window)?;
    machine.vcpu.request_window(false);
    machine.vcpu.interrupt(0x40).map_err(kernel("KVM_INTERRUPT"))?;
    machine.reports(&[0xe000_0040, 2])?;
    machine.expect(Exit::Halt)
}

fn nmi(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::nmi)?;
    machine.reports(&[1])?;
    // Of two, the second one waits for the end of the first one's handler.
    machine.vcpu.nmi().map_err(kernel("KVM_NMI"))?;
    machine.vcpu.nmi().map_err(kernel("KVM_NMI"))?;
    machine.reports(&[0xe000_0002, 0xe000_0002, 2])?;
    machine.expect(Exit::Halt)
}

fn page_fault(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::page_fault)?;
    // Its address and the error code: not present, read; then what is there.
    machine.reports(&[0x10_0008, 0, 0x1111, 0x7777])?;
    // Present, write.
    machine.reports(&[0x10_0008, 3, 0x8888])?;
    machine.reports(&[0x2222, 0x8888])?;
    machine.expect(Exit::Halt)
}

fn tables(kvm: &Kvm) -> Checked {
    let mut machine = started(kvm, false, Program::tables)?;
    let memory = Arc::new(Mapping::memory(64 << 12).map_err(kernel("mmap"))?);
    for page in 0..64_u32 {
        memory.write((page << 12) as usize, &(page + 1).to_le_bytes());
    }
    machine.vm.slot(1, 0x40_0000, &memory, 0).map_err(kernel("KVM_SET_USER_MEMORY_REGION"))?;
    machine.reports(&[64 * 65 / 2, 6])?;
    machine.expect(Exit::Halt)
}

fn exceptions(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::exceptions)?;
    // #UD, #DE, #GP with the selector, #GP without.
    machine.reports(&[0xe000_0006, 0xe000_0000, 0xd000_1000, 0xd000_0000])?;
    machine.expect(Exit::Halt)
}

fn single_step(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::step)?;
    machine.vcpu.single_step(true).map_err(kernel("KVM_SET_GUEST_DEBUG"))?;
    // Behind two bytes of NOP and two of CPUID, and of five of MOV.
    for length in [1, 2, 4, 9] {
        machine.expect(Exit::Debug { address: Program::step.address() + length })?;
    }
    machine.vcpu.single_step(false).map_err(kernel("KVM_SET_GUEST_DEBUG"))?;
    machine.reports(&[7])?;
    machine.expect(Exit::Halt)
}

fn shutdown(kvm: &Kvm) -> Checked {
    started(kvm, false, Program::shutdown)?.expect(Exit::Shutdown)
}

fn floating(kvm: &Kvm) -> Checked {
    let machine = started(kvm, false, Program::floating)?;
    machine.report()?;
    // This side's registers are others meanwhile.
    let ours = std::hint::black_box(1.5_f64) * std::hint::black_box(2.5);
    machine.reports(&[0x4049, 0x3ff0_0000])?;
    machine.expect(Exit::Halt)?;
    if ours == 3.75 { Ok(()) } else { Err(format!("1.5 * 2.5 is {ours} here")) }
}

fn dirty_log(kvm: &Kvm) -> Checked {
    let mut machine = started(kvm, false, Program::dirty)?;
    let memory = Arc::new(Mapping::memory(64 << 12).map_err(kernel("mmap"))?);
    let failed = kernel("KVM_SET_USER_MEMORY_REGION");
    machine.vm.slot(1, 0x40_0000, &memory, KVM_MEM_LOG_DIRTY_PAGES).map_err(failed)?;
    machine.report()?;
    let log = |wanted: u64| match machine.vm.dirty_log(1) {
        Ok(log) if log == wanted => Ok(()),
        other => Err(format!("the log is {other:x?} instead of {wanted:#x}")),
    };
    log(1 << 1 | 1 << 3 | 1 << 63)?;
    log(0)?;
    machine.report()?;
    log(1 << 1)?;
    machine.expect(Exit::Halt)
}

fn read_only(kvm: &Kvm) -> Checked {
    let mut machine = started(kvm, false, Program::read_only)?;
    let memory = Arc::new(Mapping::memory(1 << 12).map_err(kernel("mmap"))?);
    memory.write(0, &0x3333_u32.to_le_bytes());
    let failed = kernel("KVM_SET_USER_MEMORY_REGION");
    machine.vm.slot(1, 0x80_0000, &memory, KVM_MEM_READONLY).map_err(failed)?;
    machine.reports(&[0x3333])?;
    machine.expect(Exit::Write { address: 0x80_0004, size: 4, value: 0x4444 })?;
    machine.reports(&[0])?;
    machine.expect(Exit::Halt)
}

fn real_mode(kvm: &Kvm) -> Checked {
    let machine = Machine::new(kvm, false)?;
    let part = |from: Program, to: Program| &code()[from.offset()..to.offset()];
    machine.memory.write(0x9000, part(Program::real, Program::other_processor));
    machine.memory.write(0x9100, part(Program::real_end, Program::on_divide));
    // As after reset, at 0x900:0.
    let vcpu = machine.vm.vcpu(1).map_err(kernel("KVM_CREATE_VCPU"))?;
    let mut cpuid = kvm.supported_cpuid().map_err(kernel("KVM_GET_SUPPORTED_CPUID"))?;
    cpuid.push(kvm_cpuid_entry2 { function: 0x4000_0100, eax: 0x600d_1dea, ..Default::default() });
    vcpu.set_cpuid(&mut cpuid).map_err(kernel("KVM_SET_CPUID2"))?;
    let mut system = vcpu.system().map_err(kernel("KVM_GET_SREGS"))?;
    (system.cs.base, system.cs.selector) = (0x9000, 0x900);
    vcpu.set_system(system).map_err(kernel("KVM_SET_SREGS"))?;
    vcpu.set_registers(kvm_regs { rip: 0, rflags: 2, ..Default::default() })
        .map_err(kernel("KVM_SET_REGS"))?;
    let machine = Machine { vcpu, ..machine };
    machine.reports(&[0x1616_1616, 3, 0x2121_2121, 0x600d_1dea, 0x3232_3232])?;
    machine.expect(Exit::Halt)
}

fn apic(kvm: &Kvm) -> Checked {
    let machine = started(kvm, true, Program::apic)?;
    // The version; held; let through; none pending; TPR as CR8 says; let through by CR8.
    machine.report()?;
    machine.reports(&[2, 0xe000_0041, 0, 0x50, 0xe000_0041, 0x1234])
}

fn apic_timer(kvm: &Kvm) -> Checked {
    let machine = started(kvm, true, Program::apic_timer)?;
    machine.reports(&[0xe000_0042, 0x43, 0xe000_0042, 0x44])
}

fn apic_message(kvm: &Kvm) -> Checked {
    let machine = started(kvm, true, Program::apic_message)?;
    let message = || machine.vm.signal_msi(0xfee0_0000, 0x41).map_err(kernel("KVM_SIGNAL_MSI"));
    machine.reports(&[1])?;
    message()?;
    machine.reports(&[0xe000_0041, 2])?;
    message()?;
    machine.reports(&[0xe000_0041, 3])
}

fn x2apic(kvm: &Kvm) -> Checked {
    let machine = started(kvm, true, Program::x2apic)?;
    machine.reports(&[0, 0xe000_0045, 0x46, 0xe000_0045, 0x47])
}

fn second_processor(kvm: &Kvm) -> Checked {
    let machine = started(kvm, true, Program::start_other)?;
    let part = &code()[Program::other_processor.offset()..Program::other_end.offset()];
    machine.memory.write(0x9000, part);
    let other = machine.vm.vcpu(1).map_err(kernel("KVM_CREATE_VCPU"))?;
    let mut cpuid = kvm.supported_cpuid().map_err(kernel("KVM_GET_SUPPORTED_CPUID"))?;
    other.set_cpuid(&mut cpuid).map_err(kernel("KVM_SET_CPUID2"))?;
    // It runs until the process ends: its HLT stays in the kernel.
    std::thread::spawn(move || {
        let exit = loop {
            match other.run() {
                // It has been started.
                Ok(Exit::Interrupted) => {}
                exit => break exit,
            }
        };
        println!("ROOTMODE failed second_processor: the second one left with {exit:x?}");
    });
    machine.reports(&[0x600d])
}

/// A way to exit, how often, and what serves it: nothing if KVM does.
pub(crate) struct Loop {
    pub(crate) name: &'static str,
    pub(crate) program: Program,
}

/// What is timed.
pub(crate) const LOOPS: &[Loop] = &[
    Loop { name: "cpuid", program: Program::loop_cpuid },
    Loop { name: "msr", program: Program::loop_msr },
    Loop { name: "io", program: Program::loop_io },
    Loop { name: "mmio", program: Program::loop_mmio },
    Loop { name: "hlt", program: Program::loop_hlt },
    Loop { name: "page-fault", program: Program::loop_fault },
];

/// How often each loop goes round.
const ROUNDS: u64 = 50;

/// Clocks of the time-stamp counter that one round costs.
pub(crate) fn time(kvm: &Kvm, timed: &Loop) -> Result<u64, String> {
    let mut machine = Machine::new(kvm, false)?;
    let memory = Arc::new(Mapping::memory((ROUNDS as usize) << 12).map_err(kernel("mmap"))?);
    machine.vm.slot(1, 0x100_0000, &memory, 0).map_err(kernel("KVM_SET_USER_MEMORY_REGION"))?;
    let mut before = 0;
    // Once to fill caches; pages that were touched stay so.
    let warm: &[u64] = if timed.program == Program::loop_fault { &[ROUNDS] } else { &[2, ROUNDS] };
    for &rounds in warm {
        machine.start(timed.program, rounds)?;
        before = clock();
        loop {
            match machine.exit()? {
                Exit::Out { port: REPORT, .. } => break,
                Exit::Out { .. } | Exit::Write { .. } | Exit::Halt => {}
                other => return Err(format!("{other:x?} in a loop")),
            }
        }
    }
    Ok((clock() - before) / ROUNDS)
}

#[allow(unsafe_code, reason = "an instruction without effects")]
fn clock() -> u64 {
    // SAFETY: RDTSC only reads a counter.
    unsafe { std::arch::x86_64::_rdtsc() }
}
