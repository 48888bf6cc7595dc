//! A VM of the model, driven as a client drives KVM, on both vendors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real_mode;

use real_mode::{CODE, VENDORS, vm};
use rootmode_arch::Vendor;
use rootmode_models::kvm::abi::{CoalescedMmioZone, DirtyGfn, MsrEntry, UserspaceMemoryRegion};
use rootmode_models::kvm::vm::{ClientExit, Failure, Progress, Vm, VmConfig, saved_msrs, supported};
use rootmode_models::kvm::{Errno, Filter};

fn region(slot: u32, flags: u32, guest_phys_addr: u64, memory_size: u64) -> UserspaceMemoryRegion {
    UserspaceMemoryRegion { slot, flags, guest_phys_addr, memory_size, userspace_addr: 0 }
}

fn io(input: bool, port: u16, size: u8, data: &[u8]) -> ClientExit {
    ClientExit::Io { input, port, size, data: data.to_vec() }
}

#[test]
fn a_guest_prints_and_halts() {
    for vendor in VENDORS {
        // mov al, 'h'; out 0x10, al; in al, 0x11; add al, 2; out 0x10, al; hlt; hlt
        let mut vm = vm(vendor, &[0xb0, b'h', 0xe6, 0x10, 0xe4, 0x11, 0x04, 2, 0xe6, 0x10, 0xf4, 0xf4]);
        assert_eq!(*vm.run(0).unwrap(), io(false, 0x10, 1, b"h"));
        assert_eq!(vm.regs(0).unwrap().rip, CODE + 2, "the instruction is completed by the next call");
        let exit = vm.run(0).unwrap();
        assert_eq!(*exit, io(true, 0x11, 1, &[0]));
        *exit = io(true, 0x11, 1, b"g");
        assert_eq!(*vm.run(0).unwrap(), io(false, 0x10, 1, b"i"));
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        assert_eq!(vm.regs(0).unwrap().rip, CODE + 11, "HLT is complete");
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
    }
}

#[test]
fn memory_without_a_slot_is_the_clients_to_answer() {
    for vendor in VENDORS {
        // mov ax, [0x1234] (ds: 0x2000 << 4); inc ax; mov [0x1238], ax; mov [0x2000], ax; hlt
        let code = [
            0xb8, 0x00, 0x20, 0x8e, 0xd8, // mov ax, 0x2000; mov ds, ax
            0xa1, 0x34, 0x12, 0x40, 0xa3, 0x38, 0x12, // mov ax, [0x1234]; inc ax; mov [0x1238], ax
            0xff, 0x06, 0x40, 0x12, 0xf4, // inc word [0x1240]; hlt
        ];
        let mut vm = vm(vendor, &code);
        let read = |address| ClientExit::Mmio { address, data: [0; 8], len: 2, write: false };
        let written = |address, value: u8, high| ClientExit::Mmio {
            address,
            data: [value, high, 0, 0, 0, 0, 0, 0],
            len: 2,
            write: true,
        };
        let answer = |exit: &mut ClientExit, low, high| {
            let ClientExit::Mmio { data, .. } = exit else { panic!("{exit:?}") };
            (data[0], data[1]) = (low, high);
        };
        let exit = vm.run(0).unwrap();
        assert_eq!(*exit, read(0x2_1234), "{vendor:?}");
        answer(exit, 0xff, 0x40);
        assert_eq!(*vm.run(0).unwrap(), written(0x2_1238, 0x00, 0x41));
        let exit = vm.run(0).unwrap();
        assert_eq!(*exit, read(0x2_1240), "a read-modify-write reads first");
        answer(exit, 0xff, 0xff);
        assert_eq!(*vm.run(0).unwrap(), written(0x2_1240, 0, 0));
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        let regs = vm.regs(0).unwrap();
        assert_eq!(regs.rax & 0xffff, 0x4100);
        assert_eq!(regs.rflags & 0x40, 0x40, "flags are the processor's own");
    }
}

#[test]
fn string_port_instructions_pass_what_fits() {
    for vendor in VENDORS {
        // mov di, 0x2000; mov cx, 3; mov dx, 0x80; rep insw; mov si, 0x2000; mov cx, 2; rep outsb; hlt
        let code = [
            0xbf, 0x00, 0x20, 0xb9, 3, 0, 0xba, 0x80, 0, 0xf3, 0x6d, 0xbe, 0x00, 0x20, 0xb9, 2, 0, 0xf3,
            0x6e, 0xf4,
        ];
        let mut vm = vm(vendor, &code);
        let exit = vm.run(0).unwrap();
        assert_eq!(*exit, io(true, 0x80, 2, &[0; 6]), "{vendor:?}");
        *exit = io(true, 0x80, 2, b"abcdef");
        assert_eq!(*vm.run(0).unwrap(), io(false, 0x80, 1, b"a"));
        assert_eq!(*vm.run(0).unwrap(), io(false, 0x80, 1, b"b"));
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        let mut bytes = [0; 7];
        assert!(vm.read_memory(0x2000, &mut bytes));
        assert_eq!(bytes, *b"abcdef\0");
        let regs = vm.regs(0).unwrap();
        assert_eq!((regs.rcx, regs.rdi, regs.rsi), (0, 0x2006, 0x2002));
    }
}

#[test]
fn interrupts_wait_for_their_window() {
    for vendor in VENDORS {
        // cli; nop; sti; nop; hlt; the handler at 0x3000: mov bl, 7; iret
        let mut vm = vm(vendor, &[0xfa, 0x90, 0xfb, 0x90, 0xf4, 0xf4]);
        assert!(vm.write_memory(0x3000, &[0xb3, 7, 0xcf]));
        assert!(vm.write_memory(4 * 0x20, &[0x00, 0x30, 0, 0]));
        assert!(!vm.run_state(0).unwrap().0, "IF is 0");
        vm.request(0, true, false).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::IrqWindowOpen, "{vendor:?}");
        assert_eq!(vm.regs(0).unwrap().rip, CODE + 4, "the shadow of STI is over");
        assert!(vm.run_state(0).unwrap().0);
        vm.request(0, false, false).unwrap();
        vm.interrupt(0, 0x20).unwrap();
        // A second one takes the first one's place.
        vm.interrupt(0, 0x21).unwrap();
        vm.interrupt(0, 0x20).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        assert_eq!(vm.regs(0).unwrap().rbx & 0xff, 7);
        assert_eq!(vm.regs(0).unwrap().rip, CODE + 5);
    }
}

#[test]
fn an_interrupt_that_is_given_early_is_taken_when_it_can_be() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xfa, 0x90, 0xfb, 0x90, 0xf4, 0xf4]);
        assert!(vm.write_memory(0x3000, &[0xb3, 7, 0xcf]));
        assert!(vm.write_memory(4 * 0x20, &[0x00, 0x30, 0, 0]));
        vm.interrupt(0, 0x20).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        assert_eq!(vm.regs(0).unwrap().rbx & 0xff, 7, "{vendor:?}");
    }
}

#[test]
fn a_triple_fault_shuts_down_and_immediate_exit_runs_nothing() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0x0f, 0x0b]);
        vm.request(0, false, true).unwrap();
        assert_eq!(vm.run(0).err(), Some(Failure::Errno(Errno::Eintr)));
        assert_eq!(vm.regs(0).unwrap().rip, CODE);
        vm.request(0, false, false).unwrap();
        let mut sregs = vm.sregs(0).unwrap();
        sregs.idt.limit = 0;
        vm.set_sregs(0, &sregs).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Shutdown, "{vendor:?}");
    }
}

#[test]
fn msr_accesses_go_to_the_client_that_asked_for_them() {
    for vendor in VENDORS {
        // mov ecx, 0x174; rdmsr; mov ecx, 0x12345678; wrmsr; hlt
        let code =
            [0x66, 0xb9, 0x74, 1, 0, 0, 0x0f, 0x32, 0x66, 0xb9, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x30, 0xf4];
        let mut vm = vm(vendor, &code);
        vm.set_msr_exits(7).unwrap();
        vm.set_msr_filter(Filter { default_allow: false, ranges: Vec::new() }).unwrap();
        let exit = vm.run(0).unwrap();
        assert_eq!(*exit, ClientExit::Rdmsr { error: 0, reason: 4, index: 0x174, data: 0 }, "{vendor:?}");
        *exit = ClientExit::Rdmsr { error: 0, reason: 4, index: 0x174, data: 0x55_0000_0066 };
        vm.set_msr_filter(Filter::off()).ok();
        let exit = vm.run(0).unwrap();
        let data = 0x55_0000_0066;
        assert_eq!(*exit, ClientExit::Wrmsr { error: 0, reason: 2, index: 0x1234_5678, data });
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
    }
}

#[test]
fn msrs_are_counted_up_to_the_first_that_is_not_there() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xf4]);
        let entry = |index, data| MsrEntry { index, reserved: 0, data };
        let written = [entry(0x174, 0x10), entry(0x175, 0x2000), entry(0x1234_5678, 0), entry(0x176, 3)];
        assert_eq!(vm.set_msrs(0, &written), Ok(2));
        let mut read = [entry(0x175, 0), entry(0xc000_0080, 0), entry(0x1234_5678, 9)];
        assert_eq!(vm.get_msrs(0, &mut read), Ok(2));
        assert_eq!((read[0].data, read[1].data, read[2].data), (0x2000, 0, 9), "{vendor:?}");
        for index in saved_msrs(vendor).into_iter().filter(|index| vendor == Vendor::Intel || *index != 0x1a0)
        {
            assert_eq!(vm.get_msrs(0, &mut [entry(index, 0)]), Ok(1), "{index:#x}");
        }
    }
}

#[test]
fn slots_are_created_moved_logged_and_deleted() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xa2, 0x00, 0x60, 0xf4, 0xa2, 0x00, 0x60, 0xf4]); // mov [0x6000], al; hlt
        let refused = |vm: &mut Vm, region: UserspaceMemoryRegion| match vm.set_memory_region(&region) {
            Err(Failure::Errno(errno)) => errno,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&mut vm, region(1, 0, 0x8000, 0x1000)), Errno::Eexist);
        assert_eq!(refused(&mut vm, region(1, 0, 0x10_0800, 0x1000)), Errno::Einval);
        assert_eq!(refused(&mut vm, region(1, 8, 0x10_0000, 0x1000)), Errno::Einval);
        assert_eq!(refused(&mut vm, region(9, 0, 0, 0)), Errno::Einval, "nothing to delete");
        assert_eq!(refused(&mut vm, region(0, 0, 0, 0x2_0000)), Errno::Einval, "sizes do not change");
        assert_eq!(vm.dirty_log(0), Err(Failure::Errno(Errno::Enoent)), "not logged");
        vm.set_memory_region(&region(0, 1, 0, 0x1_0000)).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        assert_eq!(
            vm.dirty_log(0),
            Ok(vec![1 << 6 | 1 << 1]),
            "{vendor:?}: the code's page was mapped writable"
        );
        assert_eq!(vm.dirty_log(0), Ok(vec![0]));
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        assert_eq!(vm.dirty_log(0), Ok(vec![1 << 6]), "pages are watched anew");
        vm.set_memory_region(&region(0, 0, 0x10_0000, 0x1_0000)).unwrap();
        let mut byte = [0];
        assert!(!vm.read_memory(CODE, &mut byte), "moved away");
        assert!(vm.read_memory(0x10_0000 + CODE, &mut byte));
        assert_eq!(byte, [0xa2], "with its contents");
        vm.set_memory_region(&region(0, 0, 0, 0)).unwrap();
        assert!(!vm.read_memory(0x10_0000 + CODE, &mut byte));
    }
}

#[test]
fn a_full_dirty_ring_stops_its_vcpu() {
    for vendor in VENDORS {
        let mut vm = Vm::new(VmConfig::plain(vendor)).unwrap();
        vm.set_dirty_rings(4096).unwrap();
        vm.set_memory_region(&region(3, 1, 0, 0x10_0000)).unwrap();
        // mov es, bx; mov es:[0], al; add bh, 1; jmp: a byte in every page
        assert!(vm.write_memory(CODE, &[0x8e, 0xc3, 0x26, 0xa2, 0, 0, 0x80, 0xc7, 1, 0xeb, 0xf5]));
        vm.create_vcpu(0).unwrap();
        let mut sregs = vm.sregs(0).unwrap();
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vm.set_sregs(0, &sregs).unwrap();
        let mut regs = vm.regs(0).unwrap();
        (regs.rip, regs.rbx) = (CODE, 0x200);
        vm.set_regs(0, &regs).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::DirtyRingFull, "{vendor:?}");
        assert_eq!(*vm.run(0).unwrap(), ClientExit::DirtyRingFull, "nothing has changed");
        let taken = vm.take_dirty(0);
        assert_eq!(taken.len(), 256 - 64, "{vendor:?}");
        assert_eq!((taken[0].0, taken[0].1.slot, taken[0].1.offset), (0, 3, 1));
        assert_eq!((taken[191].0, taken[191].1.offset), (191, 192));
        let harvested = |place: u32| Ok(DirtyGfn { flags: 2, ..taken[place as usize].1 });
        assert_eq!(vm.reset_dirty_ring(0, harvested), Ok(192));
        vm.set_regs(0, &regs).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::DirtyRingFull, "the same pages again");
        let more = vm.take_dirty(0);
        assert_eq!((more[0].0, more[64].0), (192, 0), "places begin anew at the end of the ring");
    }
}

#[test]
fn writes_to_read_only_slots_are_the_clients() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xb0, 9, 0xa2, 0x00, 0x20, 0xf4]); // mov al, 9; mov [0x2000], al; hlt
        let mut sregs = vm.sregs(0).unwrap();
        sregs.ds.base = 0x10_0000;
        vm.set_sregs(0, &sregs).unwrap();
        vm.set_memory_region(&region(1, 2, 0x10_0000, 0x4000)).unwrap();
        let exit = vm.run(0).unwrap();
        let data = [9, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(*exit, ClientExit::Mmio { address: 0x10_2000, data, len: 1, write: true }, "{vendor:?}");
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        let mut byte = [1];
        assert!(vm.read_memory(0x10_2000, &mut byte));
        assert_eq!(byte, [0]);
    }
}

#[test]
fn coalesced_writes_do_not_exit() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xb0, 9, 0xe6, 0x2c, 0xf4, 0xe6, 0x2c, 0xf4]);
        let zone = CoalescedMmioZone { addr: 0x2c, size: 1, pio: 1 };
        vm.register_coalesced(&zone).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt, "{vendor:?}");
        let taken = vm.take_coalesced();
        assert_eq!(taken.len(), 1);
        assert_eq!((taken[0].phys_addr, taken[0].len, taken[0].data[0]), (0x2c, 1, 9));
        vm.unregister_coalesced(&zone).unwrap();
        assert_eq!(*vm.run(0).unwrap(), io(false, 0x2c, 1, &[9]));
    }
}

#[test]
fn the_guest_sees_the_processor_that_the_client_described() {
    for vendor in VENDORS {
        // mov eax, 1; cpuid; hlt
        let mut vm = vm(vendor, &[0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0xf4]);
        let model = rootmode_models::kvm::vm::guest_model(vm.host());
        let mut entries = supported(&model);
        let leaf = entries.iter_mut().find(|entry| entry.function == 1).unwrap();
        leaf.ecx ^= 1 << 20;
        let ecx = leaf.ecx;
        vm.set_cpuid2(0, &entries).unwrap();
        assert_eq!(vm.cpuid2(0).unwrap(), entries);
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
        assert_eq!(vm.regs(0).unwrap().rcx as u32, ecx, "{vendor:?}");
    }
}

#[test]
fn cpuid_follows_the_registers() {
    for vendor in VENDORS {
        // mov eax, 0xd; xor ecx, ecx; cpuid
        let area = [0x66, 0xb8, 0xd, 0, 0, 0, 0x66, 0x31, 0xc9, 0x0f, 0xa2];
        let code = [
            // mov eax, 0x40000; mov cr4, eax
            &[0x66, 0xb8, 0, 0, 4, 0, 0x0f, 0x22, 0xe0][..],
            &area,
            // mov edi, ebx; mov eax, 7; xor ecx, ecx; xor edx, edx; xsetbv
            &[0x66, 0x89, 0xdf, 0x66, 0xb8, 7, 0, 0, 0, 0x66, 0x31, 0xc9, 0x66, 0x31, 0xd2, 0x0f, 0x01, 0xd1],
            &area,
            // mov esi, ebx; mov ecx, 0x1b; mov eax, 0xfee00100; xor edx, edx; wrmsr: the local APIC is off
            &[0x66, 0x89, 0xde, 0x66, 0xb9, 0x1b, 0, 0, 0, 0x66, 0xb8, 0, 1, 0xe0, 0xfe, 0x66, 0x31, 0xd2],
            &[0x0f, 0x30],
            // mov eax, 1; cpuid; hlt
            &[0x66, 0xb8, 1, 0, 0, 0, 0x0f, 0xa2, 0xf4],
        ]
        .concat();
        let mut vm = vm(vendor, &code);
        let entries = supported(&rootmode_models::kvm::vm::guest_model(vm.host()));
        vm.set_cpuid2(0, &entries).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt, "{vendor:?}");
        let regs = vm.regs(0).unwrap();
        assert_eq!(
            (regs.rdi, regs.rsi),
            (576, 832),
            "{vendor:?}: the legacy region and the header, then AVX's"
        );
        assert_eq!(regs.rdx >> 9 & 1, 0, "{vendor:?}: a local APIC");
        let leaf = entries.iter().find(|entry| entry.function == 1).unwrap();
        assert_eq!(leaf.edx >> 9 & 1, 1, "{vendor:?}: what is supported has one");
    }
}

#[test]
fn a_guest_without_ibrs_is_not_promised_that_it_stays_on() {
    // mov ecx, 0x10a; rdmsr; hlt
    let mut vm = vm(Vendor::Intel, &[0x66, 0xb9, 0x0a, 1, 0, 0, 0x0f, 0x32, 0xf4]);
    assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
    let (low, supported) =
        (vm.regs(0).unwrap().rax, supported(&rootmode_models::kvm::vm::guest_model(vm.host())));
    let leaf = supported.iter().find(|entry| entry.function == 7).unwrap();
    assert_eq!((leaf.edx >> 26 & 1, low >> 1 & 1), (0, 0), "CPUID's IBRS, IBRS_ALL");
    assert_eq!(low & 1, 1, "RDCL_NO");
}

#[test]
fn a_guest_has_xsaves_if_its_processor_has() {
    for (vendor, hides) in [(Vendor::Intel, false), (Vendor::Intel, true), (Vendor::Amd, false)] {
        // mov eax, 0x40000; mov cr4, eax; mov eax, 3; xor edx, edx; xsaves [0x4000]; hlt
        let code = [
            &[0x66, 0xb8, 0, 0, 4, 0, 0x0f, 0x22, 0xe0, 0x66, 0xb8, 3, 0, 0, 0, 0x66, 0x31, 0xd2][..],
            &[0x0f, 0xc7, 0x2e, 0, 0x40, 0xf4],
        ]
        .concat();
        let mut vm = vm(vendor, &code);
        // Of #UD: hlt
        assert!(vm.write_memory(4 * 6, &[0, 0x20, 0, 0]) && vm.write_memory(0x2000, &[0xf4]));
        let mut entries = supported(&rootmode_models::kvm::vm::guest_model(vm.host()));
        let leaf = entries.iter_mut().find(|entry| (entry.function, entry.index) == (0xd, 1)).unwrap();
        assert_eq!(leaf.eax >> 3 & 1, 1, "{vendor:?}");
        leaf.eax &= !(u32::from(hides) << 3);
        vm.set_cpuid2(0, &entries).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt, "{vendor:?}");
        let end = if hides { 0x2001 } else { CODE + code.len() as u64 };
        assert_eq!(vm.regs(0).unwrap().rip, end, "{vendor:?}");
    }
}

#[test]
fn vmxon_wants_cr0_as_vmx_operation_has_it() {
    const HANDLER: u64 = 0x1100;
    for (cr0, rip) in [(0x8000_0031_u64, CODE + 9), (0x8000_0011, HANDLER + 1), (0x31, HANDLER + 1)] {
        // vmxon [0x3000]; hlt
        let mut vm = vm(Vendor::Intel, &[0xf3, 0x0f, 0xc7, 0x35, 0, 0x30, 0, 0, 0xf4]);
        let feature = |index, data| MsrEntry { index, data, ..MsrEntry::default() };
        assert_eq!(vm.set_msrs(0, &[feature(0x3a, 5)]).unwrap(), 1);
        let mut basic = [feature(0x480, 0)];
        assert_eq!(vm.get_msrs(0, &mut basic).unwrap(), 1);
        for (at, bytes) in [
            (HANDLER, vec![0xf4]),
            (0x3000, (basic[0].data as u32 & 0x7fff_ffff).to_le_bytes().to_vec()),
            // A page of 4 MiB; the gate of #GP; a code and a data segment.
            (0x4000, vec![0x83, 0, 0, 0]),
            (0x5000 + 8 * 13, vec![HANDLER as u8, (HANDLER >> 8) as u8, 8, 0, 0, 0x8e, 0, 0]),
            (0x6008, vec![0xff, 0xff, 0, 0, 0, 0x9b, 0xcf, 0, 0xff, 0xff, 0, 0, 0, 0x93, 0xcf, 0]),
        ] {
            assert!(vm.write_memory(at, &bytes));
        }
        let mut sregs = vm.sregs(0).unwrap();
        (sregs.cr0, sregs.cr3, sregs.cr4) = (cr0, 0x4000, 0x2010);
        (sregs.gdt.base, sregs.gdt.limit, sregs.idt.base, sregs.idt.limit) = (0x6000, 23, 0x5000, 0xff);
        let flat = |segment: &mut rootmode_models::kvm::abi::Segment, selector, kind| {
            (segment.base, segment.limit, segment.selector) = (0, 0xffff_ffff, selector);
            (segment.type_, segment.s, segment.present, segment.db, segment.g) = (kind, 1, 1, 1, 1);
        };
        flat(&mut sregs.cs, 8, 11);
        for segment in [&mut sregs.ss, &mut sregs.ds] {
            flat(segment, 16, 3);
        }
        vm.set_sregs(0, &sregs).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt, "{cr0:#x}");
        assert_eq!(vm.regs(0).unwrap().rip, rip, "{cr0:#x}");
    }
}

#[test]
fn vector_registers_survive_their_formats() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xf4]);
        let mut fpu = vm.fpu(0).unwrap();
        (fpu.fcw, fpu.mxcsr) = (0x37f, 0x1f80);
        fpu.xmm[3] = [7; 16];
        fpu.fpr[1] = [1, 2, 3, 4, 5, 6, 7, 0x80, 0xff, 0x3f, 0, 0, 0, 0, 0, 0];
        vm.set_fpu(0, &fpu).unwrap();
        let image = vm.xsave(0).unwrap();
        assert_eq!(image[160 + 48..160 + 64], [7; 16]);
        vm.set_fpu(0, &Default::default()).unwrap();
        vm.set_xsave(0, &image).unwrap();
        assert_eq!(vm.fpu(0).unwrap(), fpu, "{vendor:?}");
        let mut bad = image;
        bad[512 + 7] = 0x40;
        assert_eq!(vm.set_xsave(0, &bad), Err(Failure::Errno(Errno::Einval)));
        let xcrs = vm.xcrs(0).unwrap();
        assert_eq!(xcrs.xcrs[0].value, 1);
        vm.set_xcrs(0, &xcrs).unwrap();
    }
}

#[test]
fn upper_halves_of_ymm_registers_are_a_component_of_their_own() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xf4]);
        let mut image = vm.xsave(0).unwrap();
        assert_eq!(image[512], 3, "they are in their initial state");
        image[512] |= 4;
        image[576 + 16 * 5..][..16].fill(9);
        vm.set_xsave(0, &image).unwrap();
        assert_eq!(vm.xsave(0).unwrap(), image, "{vendor:?}");
        image[512] &= !4;
        vm.set_xsave(0, &image).unwrap();
        assert_eq!(vm.xsave(0).unwrap()[576..832], [0; 256], "{vendor:?}");
        let mut xcrs = vm.xcrs(0).unwrap();
        xcrs.xcrs[0].value = 5;
        assert_eq!(vm.set_xcrs(0, &xcrs), Err(Failure::Errno(Errno::Einval)), "AVX needs SSE");
        xcrs.xcrs[0].value = 7;
        vm.set_xcrs(0, &xcrs).unwrap();
        assert_eq!(vm.xcrs(0).unwrap().xcrs[0].value, 7);
    }
}

#[test]
fn a_kick_ends_an_endless_loop() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xeb, 0xfe]); // jmp $
        vm.start(0).unwrap();
        assert_eq!(vm.advance(0, 10_000), Ok(Progress::Budget));
        assert_eq!(vm.regs(0), Err(Failure::Errno(Errno::Ebusy)));
        assert_eq!(vm.advance(0, 10_000), Ok(Progress::Budget));
        vm.kick(0).unwrap();
        let eintr = Failure::Errno(Errno::Eintr);
        assert_eq!(vm.advance(0, 10_000), Ok(Progress::Failed(eintr)), "{vendor:?}");
        assert_eq!(*vm.exit(0).unwrap(), ClientExit::Intr);
        assert_eq!(vm.regs(0).unwrap().rip, CODE);
    }
}

#[test]
fn two_vcpus_share_memory() {
    for vendor in VENDORS {
        // The first waits for the second's byte: cmp byte [0x2000], 0; je $-5; hlt
        let mut vm = vm(vendor, &[0x80, 0x3e, 0x00, 0x20, 0, 0x74, 0xf9, 0xf4]);
        assert!(vm.write_memory(0x1800, &[0xfe, 0x06, 0x00, 0x20, 0xf4])); // inc byte [0x2000]; hlt
        assert_eq!(vm.create_vcpu(0).err(), Some(Failure::Errno(Errno::Eexist)));
        assert_eq!(vm.create_vcpu(7), Ok(1));
        let mut sregs = vm.sregs(0).unwrap();
        sregs.apic_base &= !0x100;
        vm.set_sregs(1, &sregs).unwrap();
        let mut regs = vm.regs(0).unwrap();
        regs.rip = 0x1800;
        vm.set_regs(1, &regs).unwrap();
        vm.start(0).unwrap();
        assert_eq!(vm.advance(0, 100_000), Ok(Progress::Budget));
        vm.start(1).unwrap();
        assert_eq!(vm.advance(1, 100_000), Ok(Progress::Exit), "{vendor:?}");
        assert_eq!(vm.advance(0, 100_000), Ok(Progress::Exit));
        assert_eq!(*vm.exit(0).unwrap(), ClientExit::Hlt);
        assert_eq!(*vm.exit(1).unwrap(), ClientExit::Hlt);
    }
}

#[test]
fn hypercalls_go_to_the_client_that_asked_for_them() {
    for vendor in VENDORS {
        let call = if vendor == Vendor::Intel { 0xc1 } else { 0xd9 };
        let mut vm = vm(vendor, &[0x0f, 0x01, call, 0x0f, 0x01, call, 0xf4]);
        let mut regs = vm.regs(0).unwrap();
        (regs.rax, regs.rbx, regs.rcx, regs.rdx) = (12, 0x123_4000, 1, 0);
        vm.set_regs(0, &regs).unwrap();
        assert_eq!(vm.set_hypercall_exits(1), Err(Failure::Errno(Errno::Einval)));
        vm.set_hypercall_exits(1 << 12).unwrap();
        let exit = vm.run(0).unwrap();
        let args = [0x123_4000, 1, 0, 0, 0, 0];
        assert_eq!(*exit, ClientExit::Hypercall { nr: 12, args, ret: 0, flags: 0 }, "{vendor:?}");
        *exit = ClientExit::Hypercall { nr: 12, args, ret: 77, flags: 0 };
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt, "number 77 does not exist");
        assert_eq!(vm.regs(0).unwrap().rax, u64::from(-1000_i32 as u32));
    }
}

#[test]
fn a_state_that_cannot_be_entered_fails_the_entry() {
    for vendor in VENDORS {
        let mut vm = vm(vendor, &[0xf4]);
        let mut regs = vm.regs(0).unwrap();
        let mut sregs = vm.sregs(0).unwrap();
        match vendor {
            // A code segment whose limit and granularity contradict each other.
            Vendor::Intel => {
                sregs.cr0 |= 1;
                (sregs.cs.limit, sregs.cs.g) = (0xfff0_0000, 1);
            }
            // Long mode with a code segment that is both 64-bit and 32-bit.
            Vendor::Amd => {
                (sregs.cr0, sregs.cr4, sregs.efer) = (0x8000_0011, 0x20, 0x500);
                (sregs.cs.l, sregs.cs.db) = (1, 1);
            }
        }
        vm.set_sregs(0, &sregs).unwrap();
        regs.rflags = 2;
        vm.set_regs(0, &regs).unwrap();
        assert!(matches!(vm.run(0).unwrap(), ClientExit::FailEntry { .. }), "{vendor:?}");
    }
}

#[test]
fn what_cannot_be_emulated_is_an_internal_error() {
    for vendor in VENDORS {
        // jmp 0x2000:0: there is no memory to fetch from.
        let mut vm = vm(vendor, &[0xea, 0, 0, 0, 0x20]);
        let exit = vm.run(0).unwrap();
        assert!(matches!(exit, ClientExit::InternalError { suberror: 1, .. }), "{vendor:?}: {exit:?}");
    }
}

#[test]
fn lowering_the_task_priority_is_told() {
    for vendor in VENDORS {
        // In 64-bit mode: mov eax, 9; mov cr8, rax; mov ecx, cr8 -> rcx; mov eax, 2; mov cr8, rax; hlt
        let code = [
            0xb8, 9, 0, 0, 0, 0x44, 0x0f, 0x22, 0xc0, 0x44, 0x0f, 0x20, 0xc1, 0xb8, 2, 0, 0, 0, 0x44, 0x0f,
            0x22, 0xc0, 0xf4,
        ];
        let mut vm = vm(vendor, &code);
        for (at, entry) in [(0x3000, 0x4003_u64), (0x4000, 0x5003), (0x5000, 0x83)] {
            assert!(vm.write_memory(at, &entry.to_le_bytes()));
        }
        let mut sregs = vm.sregs(0).unwrap();
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8000_0011, 0x3000, 0x20, 0x500);
        (sregs.cs.type_, sregs.cs.l, sregs.cs.g, sregs.cs.limit) = (11, 1, 1, u32::MAX);
        vm.set_sregs(0, &sregs).unwrap();
        assert_eq!(*vm.run(0).unwrap(), ClientExit::SetTpr, "{vendor:?}");
        assert_eq!(vm.run_state(0).unwrap().2, 2);
        assert_eq!(vm.regs(0).unwrap().rcx, 9);
        assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt);
    }
}
