//! What a program sees that was written for kvm-ioctls.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use kvm_bindings::{kvm_enable_cap, kvm_irqchip, kvm_msr_entry, kvm_userspace_memory_region};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use kvm_ioctls::{Cap, IoEventAddress, Kvm, MsrExitReason, NoDatamatch, VcpuExit, VcpuFd, VmFd};
use rootmode_kvm_process::{Reply, call};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Memory that stays where it is.
#[repr(align(4096))]
struct Pages([u8; 0x4000]);

/// A VM with 16 KiB at 0x1000 that hold `code`, about to run it in real mode.
fn guest(memory: &mut Pages, code: &[u8]) -> (VmFd, VcpuFd) {
    memory.0[..code.len()].copy_from_slice(code);
    let vm = Kvm::new().unwrap().create_vm().unwrap();
    let region = kvm_userspace_memory_region {
        slot: 0,
        flags: 1,
        guest_phys_addr: 0x1000,
        memory_size: 0x4000,
        userspace_addr: memory.0.as_mut_ptr().expose_provenance() as u64,
    };
    #[allow(unsafe_code, reason = "kvm-ioctls says so")]
    // SAFETY: the memory outlives the VM.
    unsafe {
        vm.set_user_memory_region(region).unwrap();
    }
    let vcpu = vm.create_vcpu(0).unwrap();
    let mut sregs = vcpu.get_sregs().unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vcpu.set_sregs(&sregs).unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    (regs.rip, regs.rflags) = (0x1000, 2);
    vcpu.set_regs(&regs).unwrap();
    (vm, vcpu)
}

#[test]
fn ports_memory_and_the_dirty_log_work_through_the_crates_types() {
    let mut memory = Box::new(Pages([0; 0x4000]));
    // in al, 0x11; out 0x12, al; mov [0x2000], al; mov al, [0x8000]; mov [0x8001], al; hlt
    let code = [0xe4, 0x11, 0xe6, 0x12, 0xa2, 0x00, 0x20, 0xa0, 0x00, 0x80, 0xa2, 0x01, 0x80, 0xf4];
    let (vm, mut vcpu) = guest(&mut memory, &code);
    match vcpu.run().unwrap() {
        VcpuExit::IoIn(0x11, data) => data[0] = 0x5a,
        other => panic!("{other:?}"),
    }
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::IoOut(0x12, [0x5a])));
    match vcpu.run().unwrap() {
        VcpuExit::MmioRead(0x8000, data) => data.copy_from_slice(&[7]),
        other => panic!("{other:?}"),
    }
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::MmioWrite(0x8001, [7])));
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::Hlt));
    assert_eq!(memory.0[0x1000], 0x5a, "the guest wrote into this process");
    assert_eq!(vm.get_dirty_log(0, 0x4000).unwrap(), [3], "the code's page was mapped writable");
}

#[test]
fn msr_exits_are_answered_in_place() {
    let mut memory = Box::new(Pages([0; 0x4000]));
    let (vm, mut vcpu) = guest(&mut memory, &[0x0f, 0x32, 0x0f, 0x30, 0xf4]);
    let mut cap = kvm_enable_cap { cap: Cap::X86UserSpaceMsr as u32, ..Default::default() };
    cap.args[0] = MsrExitReason::Unknown.bits().into();
    vm.enable_cap(&cap).unwrap();
    let mut regs = vcpu.get_regs().unwrap();
    regs.rcx = 0x474f_4f00;
    vcpu.set_regs(&regs).unwrap();
    match vcpu.run().unwrap() {
        VcpuExit::X86Rdmsr(exit) => {
            assert_eq!((exit.reason, exit.index), (MsrExitReason::Unknown, 0x474f_4f00));
            *exit.data = 0x1234_5678_9abc_def0;
        }
        other => panic!("{other:?}"),
    }
    match vcpu.run().unwrap() {
        VcpuExit::X86Wrmsr(exit) => assert_eq!(exit.data, 0x1234_5678_9abc_def0),
        other => panic!("{other:?}"),
    }
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::Hlt));
}

#[test]
fn lists_and_capabilities_come_in_the_crates_wrappers() {
    let kvm = Kvm::new().unwrap();
    assert_eq!(kvm.get_api_version(), 12);
    assert!(kvm.check_extension(Cap::UserMemory) && !kvm.check_extension(Cap::X86Smm));
    let cpuid = kvm.get_supported_cpuid(256).unwrap();
    assert!(cpuid.as_slice().iter().any(|entry| entry.function == 0x4000_0000));
    assert_eq!(kvm.get_supported_cpuid(2).unwrap_err().errno(), 7);
    let mut memory = Box::new(Pages([0; 0x4000]));
    let (vm, vcpu) = guest(&mut memory, &[0xf4]);
    vcpu.set_cpuid2(&cpuid).unwrap();
    assert_eq!(vcpu.get_cpuid2(256).unwrap().as_slice(), cpuid.as_slice());
    let entry = kvm_msr_entry { index: 0x174, data: 9, ..Default::default() };
    let msrs = kvm_bindings::Msrs::from_entries(&[entry]).unwrap();
    assert_eq!(vcpu.set_msrs(&msrs).unwrap(), 1);
    vm.register_coalesced_mmio(IoEventAddress::Pio(4), 1).unwrap();
    assert!(vm.create_irq_chip().is_err(), "there is a vCPU");
}

#[test]
fn event_counters_of_this_process_pass_both_ways() {
    let mut memory = Box::new(Pages([0; 0x4000]));
    // out 0x50, al; mov al, 9; out 0x50, al; hlt: the controllers are the client's.
    let (vm, mut vcpu) = guest(&mut memory, &[0xb0, 7, 0xe6, 0x50, 0xb0, 9, 0xe6, 0x50, 0xf4]);
    let counter = EventFd::new(EFD_NONBLOCK).unwrap();
    vm.register_ioevent(&counter, &IoEventAddress::Pio(0x50), 7_u8).unwrap();
    let again = vm.register_ioevent(&counter, &IoEventAddress::Pio(0x50), NoDatamatch);
    assert_eq!(again.unwrap_err().errno(), 17);
    assert_eq!(vm.register_irqfd(&counter, 4).unwrap_err().errno(), 22, "there is nothing to interrupt");
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::IoOut(0x50, [9])));
    assert_eq!(counter.read().unwrap(), 1);
    vm.unregister_ioevent(&counter, &IoEventAddress::Pio(0x50), 7_u8).unwrap();

    // An edge that this process counts up wakes the guest from HLT in the kernel.
    let vm = Kvm::new().unwrap().create_vm().unwrap();
    vm.create_irq_chip().unwrap();
    vm.register_irqfd(&counter, 4).unwrap();
    assert_eq!(
        vm.register_irqfd(&counter.try_clone().unwrap(), 5).unwrap_err().errno(),
        16,
        "it is the same one"
    );
    let mut pic = kvm_irqchip { chip_id: 0, ..Default::default() };
    vm.get_irqchip(&mut pic).unwrap();
    assert_eq!(chip_byte(&pic, 1), 0);
    counter.write(1).unwrap();
    vm.get_irqchip(&mut pic).unwrap();
    assert_eq!(chip_byte(&pic, 1), 0x10, "IRQ 4 is requested");
    assert!(counter.read().is_err(), "the kernel took the count");
    vm.unregister_irqfd(&counter, 4).unwrap();
}

#[test]
fn statistics_are_read_as_a_file() {
    let mut memory = Box::new(Pages([0; 0x4000]));
    let (_vm, mut vcpu) = guest(&mut memory, &[0xe6, 0x10, 0xf4]);
    let Ok(Reply::Descriptor(fd)) = call(vcpu.as_raw_fd(), 0xaece, 0) else { panic!("a descriptor") };
    let file = std::fs::File::from(fd);
    let mut before = vec![0; 4096];
    let length = file.read_at(&mut before, 0).unwrap();
    assert!(length > 72 && before[24..].starts_with(b"kvm-"));
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::IoOut(0x10, _)));
    let mut after = vec![0; 4096];
    assert_eq!(file.read_at(&mut after, 0).unwrap(), length);
    assert_eq!(before[..length - 18 * 8], after[..length - 18 * 8], "descriptors stay");
    assert_ne!(before, after, "values do not");
    assert!(file.write_at(&[0], 0).is_err());
}

/// A byte of a chip's state.
fn chip_byte(chip: &kvm_irqchip, at: usize) -> u8 {
    #[allow(unsafe_code, reason = "the binding is a union")]
    // SAFETY: all of its members are plain bytes.
    unsafe {
        chip.chip.dummy[at] as u8
    }
}

#[test]
fn another_thread_may_run_a_vcpu_and_immediate_exit_stops_nothing_halfway() {
    let mut memory = Box::new(Pages([0; 0x4000]));
    let (_vm, mut vcpu) = guest(&mut memory, &[0xe6, 0x10, 0xf4]);
    let mut vcpu = std::thread::spawn(move || {
        assert!(matches!(vcpu.run().unwrap(), VcpuExit::IoOut(0x10, _)));
        vcpu.set_kvm_immediate_exit(1);
        assert_eq!(vcpu.run().unwrap_err().errno(), 4);
        vcpu
    })
    .join()
    .unwrap();
    assert_eq!(vcpu.get_regs().unwrap().rip, 0x1002, "what was open is completed first");
    vcpu.set_kvm_immediate_exit(0);
    assert!(matches!(vcpu.run().unwrap(), VcpuExit::Hlt));
}
