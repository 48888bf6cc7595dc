//! KVM's paravirtual interfaces, as a guest finds them, on both vendors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real_mode;

use real_mode::{VENDORS, vm};
use rootmode_arch::Vendor;
use rootmode_models::kvm::abi::{MpState, Msi, MsrEntry, UserspaceMemoryRegion};
use rootmode_models::kvm::vm::{ClientExit, Passed, Vm, VmConfig, supported};

/// mov ecx, `index`; mov eax, `value`; xor edx, edx; wrmsr
fn wrmsr(index: u32, value: u32) -> Vec<u8> {
    let (index, value) = (index.to_le_bytes(), value.to_le_bytes());
    [&[0x66, 0xb9][..], &index, &[0x66, 0xb8], &value, &[0x66, 0x31, 0xd2, 0x0f, 0x30]].concat()
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn tsc(vm: &mut Vm) -> u64 {
    let mut entry = [MsrEntry { index: 0x10, ..MsrEntry::default() }];
    assert_eq!(vm.get_msrs(0, &mut entry).unwrap(), 1);
    entry[0].data
}

#[test]
fn the_system_time_follows_from_the_counter() {
    for vendor in VENDORS {
        for index in [0x12, 0x4b56_4d01] {
            let mut vm = vm(vendor, &[wrmsr(index, 0x3001), vec![0xf4]].concat());
            assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt, "{vendor:?}");
            let mut page = [0; 32];
            assert!(vm.read_memory(0x3000, &mut page));
            assert_eq!(page[..8], [2, 0, 0, 0, 0, 0, 0, 0], "an even version: it is complete");
            let (stamp, time) = (word(&page, 8), word(&page, 16));
            let multiplier = u128::from(u32::from_le_bytes(page[24..28].try_into().unwrap()));
            let shift = page[28] as i8;
            assert_eq!((page[29], shift), (1, -1), "stable");
            // msr.rst, "MSR_KVM_SYSTEM_TIME_NEW".
            let now = tsc(&mut vm);
            let since = u128::from(now - stamp) >> -shift;
            assert_eq!(time + (since * multiplier >> 32) as u64, vm.ticks_of(0), "nanoseconds are ticks");
            // A counter that is moved moves the stamp along, and the version goes on.
            let moved = MsrEntry { index: 0x10, data: 1 << 40, ..MsrEntry::default() };
            assert_eq!(vm.set_msrs(0, &[moved]).unwrap(), 1);
            assert!(vm.read_memory(0x3000, &mut page));
            assert_eq!((page[0], word(&page, 8)), (4, 1 << 40));
            assert_eq!(word(&page, 16), vm.ticks_of(0));
        }
    }
}

#[test]
fn the_wall_clock_says_when_time_began_and_a_clock_that_is_off_is_not_written() {
    for vendor in VENDORS {
        for (wall, system) in [(0x11, 0x12), (0x4b56_4d00, 0x4b56_4d01)] {
            let code = [wrmsr(wall, 0x3000), wrmsr(system, 0x3100), vec![0xf4]].concat();
            let mut vm = vm(vendor, &code);
            assert!(vm.write_memory(0x3000, &[5, 0, 0, 0]));
            assert_eq!(*vm.run(0).unwrap(), ClientExit::Hlt, "{vendor:?}");
            let mut page = [0; 0x120];
            assert!(vm.read_memory(0x3000, &mut page));
            let (version, seconds) = (page[0], u32::from_le_bytes(page[4..8].try_into().unwrap()));
            assert_eq!(version, 8, "what was odd is junk");
            assert!((1 << 29..1 << 31).contains(&seconds), "{seconds}");
            assert!(page[0x100..].iter().all(|byte| *byte == 0), "bit 0 enables");
            let mut saved = [wall, system].map(|index| MsrEntry { index, ..MsrEntry::default() });
            assert_eq!(vm.get_msrs(0, &mut saved).unwrap(), 2);
            assert_eq!(saved.map(|entry| entry.data), [0x3000, 0x3100]);
        }
    }
}

/// The same with `vcpus` vCPUs and every controller in the kernel; vCPU 0 is about to run `code`.
fn vm_with_chips(vendor: Vendor, vcpus: u32, code: &[u8]) -> Vm {
    let mut vm = Vm::new(VmConfig::plain(vendor)).unwrap();
    vm.create_irqchip().unwrap();
    vm.set_memory_region(&UserspaceMemoryRegion { memory_size: 0x1_0000, ..Default::default() }).unwrap();
    for id in 0..vcpus {
        vm.create_vcpu(id).unwrap();
        let mut lapic = vm.lapic(id as usize).unwrap();
        lapic.regs[0xf1] |= 1;
        vm.set_lapic(id as usize, &lapic).unwrap();
    }
    begin_at(&mut vm, 0, 0x1000, code);
    vm
}

/// A vCPU is about to run `code` in real mode.
fn begin_at(vm: &mut Vm, vcpu: usize, at: u64, code: &[u8]) {
    assert!(vm.write_memory(at, code));
    vm.set_mp_state(vcpu, &MpState { mp_state: 0 }).unwrap();
    let mut sregs = vm.sregs(vcpu).unwrap();
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    vm.set_sregs(vcpu, &sregs).unwrap();
    let mut regs = vm.regs(vcpu).unwrap();
    (regs.rip, regs.rsp, regs.rflags) = (at, 0x8000, 2);
    vm.set_regs(vcpu, &regs).unwrap();
}

/// What the guest's next OUT says.
fn told(vm: &mut Vm) -> Vec<u8> {
    match vm.run(0).unwrap() {
        ClientExit::Io { input: false, data, .. } => data.clone(),
        other => panic!("{other:?}"),
    }
}

/// A vendor's hypercall.
fn hypercall(vendor: Vendor) -> Vec<u8> {
    vec![0x0f, 0x01, if vendor == Vendor::Intel { 0xc1 } else { 0xd9 }]
}

#[test]
fn interrupts_are_sent_to_a_list_of_processors() {
    for vendor in VENDORS {
        // RAX = 10; RBX, RCX: the list; RDX: its first ID; RSI: the command. Then CPU 0 takes its own, and tells RAX.
        let call = |list: u8, least: u32, command: u32| {
            let mov = |opcode: u8, value: u32| [&[0x66, opcode][..], &value.to_le_bytes()].concat();
            let moves =
                [mov(0xb8, 10), mov(0xbb, list.into()), mov(0xb9, 0), mov(0xba, least), mov(0xbe, command)];
            [moves.concat(), hypercall(vendor), vec![0xe6, 0x80]].concat()
        };
        let code = [
            // Both at once; from one past the last; with a logical destination.
            call(3, 0, 0x30),
            call(1, u32::MAX, 0x31),
            call(1, 0, 0x831),
            vec![0xf4],
        ]
        .concat();
        let mut vm = vm_with_chips(vendor, 2, &code);
        let mut told = Vec::new();
        vm.start(0).unwrap();
        while let Passed::Out(0, Ok(())) = vm.pass(1 << 20).unwrap() {
            let ClientExit::Io { data, .. } = vm.exit(0).unwrap() else { panic!("{:?}", vm.exit(0)) };
            told.push(data[0]);
            vm.start(0).unwrap();
        }
        assert_eq!(told, [2, 0, (-22_i8) as u8], "{vendor:?}");
        vm.kick(0).unwrap();
        assert!(matches!(vm.pass(2 << 20).unwrap(), Passed::Out(0, Err(_))));
        for vcpu in 0..2 {
            // Vectors 0x20 to 0x3f of the interrupt request register.
            assert_eq!(vm.lapic(vcpu).unwrap().regs[0x210..0x214], [0, 0, 1, 0], "{vendor:?} {vcpu}");
        }
    }
}

#[test]
fn reserved_bits_are_refused() {
    // msr.rst: each register with values that are valid, and others.
    let table: [(u32, &[u64], &[u64]); 6] = [
        (0x4b56_4d02, &[0, 0x3009, 0x300d, 0x2], &[0x3019, 0x3029, 1 << 40 | 9]),
        (0x4b56_4d06, &[0, 0xff], &[0x100, 1 << 40]),
        (0x4b56_4d07, &[1, 0], &[]),
        (0x4b56_4d03, &[0, 0x3001, 0x3041], &[0x3003, 0x3021]),
        (0x4b56_4d04, &[0, 0x3001, 0x3005], &[0x3003, 0x3002, 1 << 40 | 1]),
        (0x4b56_4d05, &[1, 0], &[2, 3, 1 << 40]),
    ];
    for vendor in VENDORS {
        let mut vm = vm_with_chips(vendor, 1, &[0xf4]);
        let mut polling = [MsrEntry { index: 0x4b56_4d05, ..MsrEntry::default() }];
        assert_eq!(
            (vm.get_msrs(0, &mut polling).unwrap(), polling[0].data),
            (1, 1),
            "the host polls at first"
        );
        for (index, valid, invalid) in table {
            let mut last = 0;
            for (value, expected) in
                valid.iter().map(|value| (*value, 1)).chain(invalid.iter().map(|value| (*value, 0)))
            {
                let entry = MsrEntry { index, data: value, ..MsrEntry::default() };
                assert_eq!(vm.set_msrs(0, &[entry]).unwrap(), expected, "{vendor:?} {index:x} {value:x}");
                let mut read = [MsrEntry { index, ..MsrEntry::default() }];
                assert_eq!(vm.get_msrs(0, &mut read).unwrap(), 1);
                if expected == 1 && index != 0x4b56_4d07 {
                    last = value;
                }
                // `kvm_pv_enable_async_pf` keeps an address where there is no memory, though it refuses it.
                if (index, value) != (0x4b56_4d02, 1 << 40 | 9) {
                    assert_eq!(read[0].data, last, "{vendor:?} {index:x} {value:x}");
                }
            }
        }
    }
}

#[test]
fn a_guest_on_its_processor_is_not_preempted_and_one_off_it_is() {
    for vendor in VENDORS {
        // mov al, [0x3010]; out 0x80, al
        let code = [
            wrmsr(0x4b56_4d03, 0x3001),
            vec![0xa0, 0x10, 0x30, 0xe6, 0x80, 0xa0, 0x10, 0x30],
            vec![0xe6, 0x80, 0xf4],
        ]
        .concat();
        let mut vm = vm(vendor, &code);
        // What is stolen already, a version that is junk, flags.
        assert!(vm.write_memory(0x3000, &[7, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 9]));
        for version in [8, 10] {
            assert_eq!(told(&mut vm), [0], "{vendor:?}: it is on its processor");
            let mut record = [0; 17];
            assert!(vm.read_memory(0x3000, &mut record));
            assert_eq!((word(&record, 0), word(&record, 8), record[16]), (7, version, 1), "{vendor:?}");
        }
    }
}

/// Each way of ending an interrupt: what the handler does, how it comes, what the guest is told, and whether it has ended.
#[test]
fn an_interrupt_ends_when_the_guest_clears_the_bit_that_it_was_offered() {
    const EDGE: u32 = 0x30;
    const LEVEL: u32 = 0xc030;
    // mov byte [0x3000], 0
    let clear = vec![0xc6, 0x06, 0x00, 0x30, 0x00];
    for vendor in VENDORS {
        for (enabled, ends, data, offered, serviced) in [
            (true, true, EDGE, 1, false),
            (true, false, EDGE, 1, true),
            (true, true, LEVEL, 0, true),
            (false, true, EDGE, 0, true),
        ] {
            // sti; nop; out 0x81, al; hlt
            let code = [wrmsr(0x4b56_4d04, 0x3000 | u32::from(enabled)), vec![0xfb, 0x90, 0xe6, 0x81, 0xf4]];
            let mut vm = vm_with_chips(vendor, 1, &code.concat());
            // mov al, [0x3000]; (clear); mov [0x3800], al; iret
            let clears = if ends { clear.clone() } else { Vec::new() };
            let handler = [vec![0xa0, 0x00, 0x30], clears, vec![0xa2, 0x00, 0x38, 0xcf]].concat();
            assert!(vm.write_memory(0x2000, &handler));
            assert!(vm.write_memory(4 * 0x30, &[0x00, 0x20, 0, 0]));
            let msi = Msi { address_lo: 0xfee0_0000, data, ..Msi::default() };
            assert_eq!(vm.signal_msi(&msi).unwrap(), 1);
            let what = format!("{vendor:?} {enabled} {ends} {data:x}");
            told(&mut vm);
            let mut byte = [0];
            assert!(vm.read_memory(0x3800, &mut byte));
            assert_eq!(byte, [offered], "{what}");
            assert!(vm.read_memory(0x3000, &mut byte));
            assert_eq!(byte, [0], "{what}: an exit takes the offer back");
            // Vectors 0x20 to 0x3f of the in-service register.
            assert_eq!(vm.lapic(0).unwrap().regs[0x112], u8::from(serviced), "{what}");
        }
    }
}

#[test]
fn a_kick_ends_a_halt_that_nothing_else_can_end() {
    for vendor in VENDORS {
        // RAX = 5, RBX: flags, RCX: the APIC ID.
        let code = [
            &[0x66, 0xb8, 5, 0, 0, 0, 0x66, 0xbb, 0, 0, 0, 0, 0x66, 0xb9, 1, 0, 0, 0][..],
            &hypercall(vendor),
            &[0xe6, 0x80, 0xf4],
        ];
        let mut vm = vm_with_chips(vendor, 2, &code.concat());
        // hlt; mov al, 9; out 0x82, al; hlt; hlt; out 0x83, al
        begin_at(&mut vm, 1, 0x1800, &[0xf4, 0xb0, 9, 0xe6, 0x82, 0xf4, 0xf4, 0xe6, 0x83]);
        vm.start(1).unwrap();
        assert_eq!(vm.pass(1 << 20).unwrap(), Passed::Idle, "{vendor:?}");
        assert_eq!(told(&mut vm)[0], 0, "{vendor:?}: it is known");
        let Passed::Out(1, Ok(())) = vm.pass(1 << 20).unwrap() else { panic!("{vendor:?}: it sleeps on") };
        assert!(matches!(vm.exit(1).unwrap(), ClientExit::Io { port: 0x82, data, .. } if data == &[9]));
        vm.start(1).unwrap();
        assert_eq!(vm.pass(1 << 20).unwrap(), Passed::Idle, "{vendor:?}: one kick ends one halt");
        vm.kick(1).unwrap();
        assert!(matches!(vm.pass(1 << 20).unwrap(), Passed::Out(1, Err(_))));
        assert_eq!(vm.mp_state(1).unwrap().mp_state, 3, "{vendor:?}");
        begin_at(&mut vm, 0, 0x1000, &code.concat());
        assert_eq!(told(&mut vm)[0], 0);
        assert_eq!(vm.mp_state(1).unwrap().mp_state, 0, "{vendor:?}: it will not stay halted");
        vm.start(1).unwrap();
        assert_eq!(vm.pass(1 << 20).unwrap(), Passed::Idle, "{vendor:?}: nor is the next halt ended");
    }
}

#[test]
fn tasks_that_wait_for_pages_are_woken_when_the_guest_says_that_it_can_wait() {
    for vendor in VENDORS {
        let enable = [wrmsr(0x4b56_4d02, 0x3009), vec![0xfb, 0x90, 0xfa]].concat();
        let acknowledge = wrmsr(0x4b56_4d07, 1);
        // Enabled twice; acknowledged; told each time how often the handler ran.
        let code = [
            wrmsr(0x4b56_4d06, 0x30),
            enable.clone(),
            vec![0xe6, 0x80],
            enable,
            vec![0xe6, 0x80],
            acknowledge,
            vec![0xfb, 0x90, 0xfa, 0xe6, 0x80, 0xf4],
        ]
        .concat();
        let mut vm = vm_with_chips(vendor, 1, &code);
        // Counts, keeps the token and clears it: inc byte [0x3800]; mov eax, [0x3004]; mov [0x3804], eax;
        // mov dword [0x3004], 0; iret. The interrupt is ended by the offer: mov byte [0x3900], 0.
        let handler = [
            &[0xfe, 0x06, 0x00, 0x38, 0x66, 0xa1, 0x04, 0x30, 0x66, 0xa3, 0x04, 0x38][..],
            &[0x66, 0xc7, 0x06, 0x04, 0x30, 0, 0, 0, 0, 0xc6, 0x06, 0x00, 0x39, 0, 0xcf],
        ]
        .concat();
        assert!(vm.write_memory(0x2000, &handler));
        assert!(vm.write_memory(4 * 0x30, &[0x00, 0x20, 0, 0]));
        let eoi = MsrEntry { index: 0x4b56_4d04, data: 0x3901, ..MsrEntry::default() };
        assert_eq!(vm.set_msrs(0, &[eoi]).unwrap(), 1);
        for times in [1, 1, 2] {
            told(&mut vm);
            let mut kept = [0; 8];
            assert!(vm.read_memory(0x3800, &mut kept));
            assert_eq!((kept[0], &kept[4..]), (times, &[0xff; 4][..]), "{vendor:?}");
        }
    }
}

#[test]
fn cpuid_lists_what_is_there() {
    for vendor in VENDORS {
        let entries = supported(&rootmode_models::kvm::vm::host_model(vendor));
        let features = entries.iter().find(|entry| entry.function == 0x4000_0001).unwrap().eax;
        let named = [0, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 24];
        assert_eq!(features, named.iter().fold(0, |all, bit| all | 1 << bit));
    }
}
