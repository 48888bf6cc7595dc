//! KVM's paravirtual interfaces, as a guest finds them, on both vendors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod real_mode;

use real_mode::{VENDORS, vm};
use rootmode_arch::Vendor;
use rootmode_models::kvm::abi::{MsrEntry, UserspaceMemoryRegion};
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
        let mut vm = Vm::new(VmConfig::plain(vendor)).unwrap();
        vm.create_irqchip().unwrap();
        vm.set_memory_region(&UserspaceMemoryRegion { memory_size: 0x1_0000, ..Default::default() }).unwrap();
        assert!(vm.write_memory(0x1000, &code));
        for id in 0..2 {
            vm.create_vcpu(id).unwrap();
            let mut lapic = vm.lapic(id as usize).unwrap();
            lapic.regs[0xf1] |= 1;
            vm.set_lapic(id as usize, &lapic).unwrap();
        }
        let mut sregs = vm.sregs(0).unwrap();
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        vm.set_sregs(0, &sregs).unwrap();
        let mut regs = vm.regs(0).unwrap();
        (regs.rip, regs.rsp, regs.rflags) = (0x1000, 0x8000, 2);
        vm.set_regs(0, &regs).unwrap();
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
fn cpuid_lists_what_is_there() {
    for vendor in VENDORS {
        let entries = supported(&rootmode_models::kvm::vm::host_model(vendor));
        let features = entries.iter().find(|entry| entry.function == 0x4000_0001).unwrap().eax;
        assert_eq!(features, 1 | 1 << 3 | 1 << 11 | 1 << 13 | 1 << 24);
    }
}
