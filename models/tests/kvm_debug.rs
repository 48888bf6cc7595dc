//! A client's debugger around a guest, on both vendors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real_mode;

use real_mode::{CODE, VENDORS, vm};
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::abi::{GuestDebug, Regs, UserspaceMemoryRegion};
use rootmode_models::kvm::vm::{ClientExit, Failure, Vm, VmConfig};

/// `KVM_GUESTDBG_*`.
const ENABLE: u32 = 1;
const STEP: u32 = 2;
const SOFTWARE: u32 = 1 << 16;
const HARDWARE: u32 = 1 << 17;
const INJECT_DB: u32 = 1 << 18;
const INJECT_BP: u32 = 1 << 19;
const BLOCK_IRQ: u32 = 1 << 20;

fn debug(vm: &mut Vm, control: u32, debugreg: [u64; 8]) {
    vm.set_guest_debug(0, &GuestDebug { control, pad: 0, debugreg }).unwrap();
}

/// Runs to the next stop of the debugger: its exception, place and causes.
#[track_caller]
fn stop(vm: &mut Vm) -> (u8, u64, u64) {
    match vm.run(0).unwrap() {
        ClientExit::Debug { exception, pc, dr6, .. } => (*exception, *pc, *dr6 & 0xf00f),
        exit => panic!("{exit:?}"),
    }
}

/// DR6.BS.
const BS: u64 = 0x4000;

#[test]
fn a_debugger_steps_and_breaks() {
    for vendor in VENDORS {
        // mov al, 1; out 0x10, al; cpuid; pushf; pop bx; sti; nop; hlt
        let code = [0xb0, 1, 0xe6, 0x10, 0x0f, 0xa2, 0x9c, 0x5b, 0xfb, 0x90, 0xf4];
        let mut first = vm(vendor, &code);
        debug(&mut first, ENABLE | STEP, [0; 8]);
        assert_eq!(stop(&mut first), (1, CODE + 2, BS), "{vendor:?}");
        assert_eq!(first.regs(0).unwrap().rflags & 0x100, 0, "TF is not the guest's");
        assert_eq!(first.run(0).unwrap().reason(), 2);
        assert_eq!(stop(&mut first), (1, CODE + 4, BS), "OUT is complete");
        assert_eq!(stop(&mut first), (1, CODE + 6, BS), "so is what L0 emulates");
        for next in [7, 8, 9, 10] {
            assert_eq!(stop(&mut first), (1, CODE + next, BS), "{vendor:?}");
        }
        assert_eq!(*first.run(0).unwrap(), ClientExit::Hlt);
        assert_eq!(first.debug_regs(0).unwrap().dr6 & 0xf00f, 0, "DR6 is not the guest's either");
        debug(&mut first, 0, [0; 8]);
        let regs = first.regs(0).unwrap();
        first.set_regs(0, &Regs { rip: CODE + 8, ..regs }).unwrap();
        assert_eq!(*first.run(0).unwrap(), ClientExit::Hlt, "{vendor:?}: nobody steps any more");

        // int3; hlt, and a handler of vector 3: mov bl, 7; iret
        let mut second = vm(vendor, &[0xcc, 0xf4]);
        assert!(second.write_memory(0x3000, &[0xb3, 7, 0xcf]));
        assert!(second.write_memory(4 * 3, &[0x00, 0x30, 0, 0]));
        debug(&mut second, ENABLE | SOFTWARE, [0; 8]);
        assert_eq!(stop(&mut second), (3, CODE, 0), "{vendor:?}");
        debug(&mut second, ENABLE | SOFTWARE | INJECT_BP, [0; 8]);
        let again = second.set_guest_debug(0, &GuestDebug { control: INJECT_DB, ..Default::default() });
        assert_eq!(again, Err(Failure::Errno(Errno::Ebusy)));
        assert_eq!(*second.run(0).unwrap(), ClientExit::Hlt);
        let regs = second.regs(0).unwrap();
        assert_eq!((regs.rbx & 0xff, regs.rip), (7, CODE + 2), "{vendor:?}: the guest had its own");
    }
}

#[test]
fn hardware_breakpoints_are_the_debuggers_alone() {
    for vendor in VENDORS {
        // mov dr0, eax; mov ecx, dr0; mov ebx, dr7; mov [0x2000], al; nop; hlt
        let code = [0x0f, 0x23, 0xc0, 0x0f, 0x21, 0xc1, 0x0f, 0x21, 0xfb, 0xa2, 0x00, 0x20, 0x90, 0xf4];
        let mut vm = vm(vendor, &code);
        let mut regs = vm.regs(0).unwrap();
        regs.rax = 0x1234;
        vm.set_regs(0, &regs).unwrap();
        // Execution of the NOP; a byte written at 0x2000.
        debug(&mut vm, ENABLE | HARDWARE, [CODE + 12, 0x2000, 0, 0, 0, 0, 0, 0x10_0000 | 0x5]);
        assert_eq!(stop(&mut vm), (1, CODE + 12, 2), "{vendor:?}: behind the store");
        let regs = vm.regs(0).unwrap();
        assert_eq!((regs.rcx as u32, regs.rbx as u32), (0x1234, 0x400), "{vendor:?}: what the guest sees");
        let own = vm.debug_regs(0).unwrap();
        assert_eq!((own.db, own.dr7, own.dr6 & 0xf00f), ([0x1234, 0, 0, 0], 0x400, 0));
        assert_eq!(stop(&mut vm), (1, CODE + 12, 1), "{vendor:?}: before the NOP");
        debug(&mut vm, 0, [0; 8]);
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
    }
}

#[test]
fn interrupts_wait_while_a_debugger_steps_that_says_so() {
    for vendor in VENDORS {
        for blocks in [true, false] {
            // sti; nop; nop; hlt
            let mut vm = vm(vendor, &[0xfb, 0x90, 0x90, 0xf4]);
            assert!(vm.write_memory(0x3000, &[0xb3, 7, 0xcf]));
            assert!(vm.write_memory(4 * 0x20, &[0x00, 0x30, 0, 0]));
            vm.interrupt(0, 0x20).unwrap();
            debug(&mut vm, ENABLE | STEP | if blocks { BLOCK_IRQ } else { 0 }, [0; 8]);
            let places = [stop(&mut vm).1, stop(&mut vm).1, stop(&mut vm).1];
            assert_eq!(places == [CODE + 1, CODE + 2, CODE + 3], blocks, "{vendor:?}: {places:x?}");
            debug(&mut vm, 0, [0; 8]);
            assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
            assert_eq!(vm.regs(0).unwrap().rbx & 0xff, 7, "it came in the end");
        }
    }
}

#[test]
fn a_guest_that_steps_traps_behind_what_l0_completes() {
    for vendor in VENDORS {
        let mut vm = Vm::new(VmConfig::plain(vendor)).unwrap();
        vm.create_irqchip().unwrap();
        vm.set_memory_region(&UserspaceMemoryRegion { memory_size: 0x1_0000, ..Default::default() }).unwrap();
        // TF from behind POPF on: xor eax, eax; cpuid; in al, 0x80; hlt; nop; out 0x81, al
        let code = [
            &[0x9c, 0x58, 0x80, 0xcc, 1, 0x50, 0x9d][..],
            &[0x66, 0x31, 0xc0, 0x0f, 0xa2, 0xe4, 0x80, 0xf4, 0x90, 0xe6, 0x81],
        ]
        .concat();
        assert!(vm.write_memory(0x1000, &code));
        // Of #DB: inc si; mov edi, dr6; iret
        assert!(vm.write_memory(4, &[0, 0x20, 0, 0]));
        assert!(vm.write_memory(0x2000, &[0x46, 0x0f, 0x21, 0xf7, 0xcf]));
        vm.create_vcpu(0).unwrap();
        let mut sregs = vm.sregs(0).unwrap();
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vm.set_sregs(0, &sregs).unwrap();
        vm.set_regs(0, &Regs { rip: 0x1000, rsp: 0x8000, rflags: 2, ..Default::default() }).unwrap();
        for (port, traps) in [(0x80, 2), (0x81, 5)] {
            let exit = vm.run(0).unwrap();
            assert!(matches!(exit, ClientExit::Io { port: at, .. } if *at == port), "{vendor:?}: {exit:?}");
            let regs = vm.regs(0).unwrap();
            assert_eq!((regs.rsi, regs.rdi >> 14 & 1), (traps, 1), "{vendor:?}: so many, with DR6.BS");
        }
    }
}
