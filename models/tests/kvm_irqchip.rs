//! The interrupt controllers in the kernel, as a guest and its client see them, on both vendors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rootmode_arch::Vendor;
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::abi::{
    Ioeventfd, IrqLevel, IrqRoutingEntry, Irqchip, Irqfd, MpState, Msi, PicState, PitConfig, Plain,
    UserspaceMemoryRegion,
};
use rootmode_models::kvm::vm::{
    ClientExit, EventCounter, Failure, Progress, Vm, VmConfig, guest_model, host_model, supported,
};

const VENDORS: [Vendor; 2] = [Vendor::Intel, Vendor::Amd];
/// Where code, and the handlers of vectors 0x20 to 0x5f, are put.
const CODE: u64 = 0x1000;
const HANDLERS: u64 = 0x3000;
/// The port that code tells its client by.
const TELL: u8 = 0x80;
/// The local APIC, to which DS leads; the I/O APIC, to which ES does.
const APIC: u64 = 0xfee0_0000;
const IOAPIC: u64 = 0xfec0_0000;

/// OUT of a byte.
fn out(port: u8, value: u8) -> Vec<u8> {
    vec![0xb0, value, 0xe6, port]
}

/// A store to a register of the local APIC.
fn apic(register: u16, value: u32) -> Vec<u8> {
    [&[0x66, 0xc7, 0x06][..], &register.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// A store to a register of the I/O APIC.
fn ioapic(register: u8, value: u32) -> Vec<u8> {
    let select = [&[0x26, 0x66, 0xc7, 0x06, 0, 0][..], &u32::from(register).to_le_bytes()].concat();
    [select, [&[0x26, 0x66, 0xc7, 0x06, 0x10, 0][..], &value.to_le_bytes()].concat()].concat()
}

/// The 8259s with vectors from 0x20 and 0x28 on, all masked but those of `open`.
fn initialize_pics(open: u16) -> Vec<u8> {
    let [low, high] = (!open).to_le_bytes();
    [
        out(0x20, 0x11),
        out(0x21, 0x20),
        out(0x21, 4),
        out(0x21, 1),
        out(0x21, low),
        out(0xa0, 0x11),
        out(0xa1, 0x28),
        out(0xa1, 2),
        out(0xa1, 1),
        out(0xa1, high),
    ]
    .concat()
}

/// STI; HLT, again and again.
const SLEEP: [u8; 4] = [0xfb, 0xf4, 0xeb, 0xfc];

/// A VM whose vCPUs have CS and DS as code here expects them, with `code`. Interrupts tell their vector; what
/// follows is `handler`, then IRET.
fn vm(vendor: Vendor, prepare: impl FnOnce(&mut Vm), vcpus: u32, code: &[Vec<u8>], handler: &[u8]) -> Vm {
    let mut vm = Vm::new(VmConfig::plain(vendor)).unwrap();
    let region = UserspaceMemoryRegion { memory_size: 0x1_0000, ..Default::default() };
    vm.set_memory_region(&region).unwrap();
    prepare(&mut vm);
    assert!(vm.write_memory(CODE, &code.concat()));
    for vector in 0x20..0x60_u64 {
        let at = HANDLERS + 0x40 * (vector - 0x20);
        assert!(vm.write_memory(at, &[&out(TELL, vector as u8), handler, &[0xcf]].concat()));
        assert!(vm.write_memory(4 * vector, &(at as u32).to_le_bytes()));
    }
    for id in 0..vcpus {
        vm.create_vcpu(id).unwrap();
        let mut sregs = vm.sregs(id as usize).unwrap();
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        (sregs.ds.base, sregs.es.base) = (APIC, IOAPIC);
        vm.set_sregs(id as usize, &sregs).unwrap();
        let mut regs = vm.regs(id as usize).unwrap();
        (regs.rip, regs.rsp, regs.rflags) = (CODE, 0x8000, 2);
        vm.set_regs(id as usize, &regs).unwrap();
    }
    vm
}

fn chips(vm: &mut Vm) {
    vm.create_irqchip().unwrap();
}

/// Lets vCPU `vcpu` run until it asks its client or sleeps: what it told.
#[track_caller]
fn told(vm: &mut Vm, vcpu: usize) -> Option<u8> {
    if !vm.is_running(vcpu) {
        vm.start(vcpu).unwrap();
    }
    for _ in 0..100 {
        match vm.advance(vcpu, 1 << 20).unwrap() {
            Progress::Exit => {
                let exit = vm.exit(vcpu).unwrap();
                let ClientExit::Io { port, data, .. } = exit.clone() else { panic!("{exit:?}") };
                assert_eq!(port, u16::from(TELL), "{exit:?}");
                return Some(data[0]);
            }
            Progress::Idle => return None,
            Progress::Budget => {}
            Progress::Failed(failure) => panic!("{failure}"),
        }
    }
    panic!("the guest neither tells anything nor sleeps: {:?}", vm.kick(vcpu))
}

/// Ends the `KVM_RUN` of a vCPU that sleeps.
fn come_home(vm: &mut Vm) {
    vm.kick(0).unwrap();
    assert_eq!(vm.advance(0, 1000).unwrap(), Progress::Failed(Failure::Errno(Errno::Eintr)));
}

fn line(vm: &mut Vm, irq: u32, level: u32) -> i32 {
    vm.irq_line(&IrqLevel { irq, level }).unwrap()
}

#[test]
fn interrupts_of_the_chips_in_the_kernel_reach_the_guest() {
    for vendor in VENDORS {
        // By the 8259s, which have an edge that is over.
        let code = [initialize_pics(0x0014), SLEEP.to_vec()];
        let mut first = vm(vendor, chips, 1, &code, &out(0x20, 0x20));
        assert_eq!(told(&mut first, 0), None, "{vendor:?}: HLT is the kernel's");
        assert_eq!(first.mp_state(0), Err(Failure::Errno(Errno::Ebusy)));
        line(&mut first, 4, 1);
        line(&mut first, 4, 0);
        assert_eq!(told(&mut first, 0), Some(0x24));
        assert_eq!(told(&mut first, 0), None, "it came once");
        line(&mut first, 5, 1);
        assert_eq!(told(&mut first, 0), None, "masked");

        // By the I/O APIC: a level comes again while it stays, each time after its end.
        let code = [initialize_pics(0), apic(0xf0, 0x1ff), ioapic(0x10 + 2 * 9, 0x8051), SLEEP.to_vec()];
        let mut second = vm(vendor, chips, 1, &code, &apic(0xb0, 0));
        assert_eq!(told(&mut second, 0), None);
        line(&mut second, 9, 1);
        assert_eq!([told(&mut second, 0), told(&mut second, 0)], [Some(0x51); 2], "{vendor:?}");
        line(&mut second, 9, 0);
        assert_eq!(told(&mut second, 0), None);
    }
}

#[test]
fn the_task_priority_holds_interrupts_back() {
    for vendor in VENDORS {
        let code = [
            apic(0xf0, 0x1ff),
            apic(0x80, 0x50),
            vec![0xfb, 0x90, 0x90],
            out(TELL, 1),
            apic(0x80, 0),
            SLEEP.to_vec(),
        ];
        let mut vm = vm(vendor, chips, 1, &code, &apic(0xb0, 0));
        let msi = Msi { address_lo: 0xfee0_0000, data: 0x41, ..Default::default() };
        assert_eq!(vm.signal_msi(&msi), Ok(0), "the local APIC is not enabled yet: it gets nothing");
        // The client enables it as the guest would.
        let mut state = vm.lapic(0).unwrap();
        state.regs[0xf1] = 1;
        vm.set_lapic(0, &state).unwrap();
        assert_eq!(vm.signal_msi(&msi), Ok(1));
        assert_eq!(vm.signal_msi(&msi), Ok(0), "it has it already");
        assert_eq!(told(&mut vm, 0), Some(1), "{vendor:?}");
        assert_eq!(vm.sregs(0).unwrap().cr8, 5, "CR8 is the task priority");
        assert_eq!(told(&mut vm, 0), Some(0x41));
        assert_eq!(told(&mut vm, 0), None);
    }
}

#[test]
fn the_timer_in_the_kernel_interrupts() {
    for vendor in VENDORS {
        // Counter 0, mode 2, 1193 cycles: a millisecond.
        let code = [initialize_pics(1), out(0x43, 0x34), out(0x40, 0xa9), out(0x40, 4), SLEEP.to_vec()];
        let create = |vm: &mut Vm| {
            assert_eq!(vm.create_pit2(&PitConfig::default()), Err(Failure::Errno(Errno::Enoent)));
            vm.create_irqchip().unwrap();
            assert_eq!(vm.pit2().err(), Some(Failure::Errno(Errno::Enxio)));
            vm.create_pit2(&PitConfig::default()).unwrap();
            assert_eq!(vm.create_pit2(&PitConfig::default()), Err(Failure::Errno(Errno::Eexist)));
        };
        let mut vm = vm(vendor, create, 1, &code, &out(0x20, 0x20));
        let mut times = Vec::new();
        for _ in 0..4 {
            assert_eq!(told(&mut vm, 0), Some(0x20), "{vendor:?}");
            times.push(vm.ticks());
        }
        for pair in times.windows(2) {
            assert!((990_000..1_010_000).contains(&(pair[1] - pair[0])), "{vendor:?}: {times:?}");
        }
    }
}

#[test]
fn the_local_apics_timers_wake_a_halted_vcpu() {
    for vendor in VENDORS {
        // One shot of 100,000 counts, undivided.
        let code =
            [apic(0xf0, 0x1ff), apic(0x3e0, 0xb), apic(0x320, 0x45), apic(0x380, 100_000), SLEEP.to_vec()];
        let mut vm = vm(vendor, chips, 1, &code, &apic(0xb0, 0));
        assert_eq!(told(&mut vm, 0), Some(0x45), "{vendor:?}");
        assert!((100_000..103_000).contains(&vm.ticks()), "{}", vm.ticks());
        assert_eq!(told(&mut vm, 0), None, "once");
    }
    // LVT timer: TSC deadline; RDTSC; add eax, 400,000; WRMSR.
    let code = [
        apic(0xf0, 0x1ff),
        apic(0x320, 0x4_0046),
        vec![0x0f, 0x31, 0x66, 0x05],
        400_000_u32.to_le_bytes().to_vec(),
        vec![0x66, 0xb9, 0xe0, 0x06, 0, 0, 0x0f, 0x30],
        SLEEP.to_vec(),
    ];
    for vendor in VENDORS {
        let mut vm = vm(vendor, chips, 1, &code, &apic(0xb0, 0));
        let mut cpuid = supported(&guest_model(&host_model(vendor)));
        for entry in cpuid.iter_mut().filter(|entry| entry.function == 1) {
            entry.ecx |= 1 << 24;
        }
        vm.set_cpuid2(0, &cpuid).unwrap();
        assert_eq!(told(&mut vm, 0), Some(0x46), "{vendor:?}");
        assert!((100_000..103_000).contains(&vm.ticks()), "4 counts a tick: {}", vm.ticks());
    }
}

#[test]
fn vcpus_start_by_interprocessor_interrupts() {
    for vendor in VENDORS {
        // INIT and start-up at 0x2000 to everybody else, then sleep; the other one sends vector 0x48 back and tells.
        let code = [apic(0xf0, 0x1ff), apic(0x300, 0xc_4500), apic(0x300, 0xc_4602), SLEEP.to_vec()];
        let mut vm = vm(vendor, chips, 2, &code, &apic(0xb0, 0));
        // mov eax, 0xfee00300 by unreal mode is not there after INIT: the client's DS is gone. x2APIC mode needs no memory.
        let other = [
            // mov ecx, 0x1b; rdmsr; or ah, 0x0c; wrmsr
            0x66, 0xb9, 0x1b, 0, 0, 0, 0x0f, 0x32, 0x80, 0xcc, 0x0c, 0x0f, 0x30,
            // mov ecx, 0x830; mov eax, 0x4048; xor edx, edx; wrmsr: vector 0x48 to APIC 0
            0x66, 0xb9, 0x30, 0x08, 0, 0, 0x66, 0xb8, 0x48, 0x40, 0, 0, 0x66, 0x31, 0xd2, 0x0f, 0x30,
            // mov al, 0x99; out TELL, al
            0xb0, 0x99, 0xe6, TELL,
        ];
        assert!(vm.write_memory(0x2000, &other));
        assert_eq!(vm.mp_state(0).unwrap(), MpState { mp_state: 0 });
        assert_eq!(vm.mp_state(1).unwrap(), MpState { mp_state: 1 });
        vm.start(1).unwrap();
        assert_eq!(vm.advance(1, 1 << 20).unwrap(), Progress::Idle, "it waits for INIT");
        assert_eq!(told(&mut vm, 0), None, "{vendor:?}: it sleeps");
        assert_eq!(vm.advance(1, 1 << 20).unwrap(), Progress::Failed(Failure::Errno(Errno::Eagain)));
        assert_eq!(told(&mut vm, 1), Some(0x99), "{vendor:?}");
        assert_eq!(told(&mut vm, 0), Some(0x48));
        assert_eq!(vm.sregs(1).unwrap().cs.base, 0x2000);
        assert_eq!(vm.sregs(1).unwrap().apic_base, 0xfee0_0c00);
        assert_eq!(vm.lapic(1).unwrap().regs[0x20..0x24], [0, 0, 0, 1], "the ID, where xAPIC mode has it");
    }
}

#[test]
fn nmis_come_by_messages_too() {
    for vendor in VENDORS {
        let code = [vec![0xf4, 0xf4]];
        let mut vm = vm(vendor, chips, 1, &code, &[]);
        assert!(vm.write_memory(4 * 2, &(HANDLERS as u32 + 0x800).to_le_bytes()));
        assert!(vm.write_memory(HANDLERS + 0x800, &[0xb0, 0x77, 0xe6, TELL, 0xcf]));
        assert_eq!(told(&mut vm, 0), None);
        let msi = Msi { address_lo: 0xfee0_0000, data: 0x400, ..Default::default() };
        assert_eq!(vm.signal_msi(&msi), Ok(1));
        assert_eq!(told(&mut vm, 0), Some(0x77), "{vendor:?}: with IF = 0");
    }
}

#[test]
fn an_nmi_waits_for_the_end_of_the_one_before() {
    for vendor in VENDORS {
        // The handler tells, spends some time, and tells its stack pointer; a second NMI comes meanwhile.
        let mut vm = vm(vendor, |_| {}, 1, &[vec![0x90, 0xeb, 0xfd]], &[]);
        let handler = [&[0xb0, 0x77, 0xe6, TELL][..], &[0x90, 0x90, 0x89, 0xe0, 0xe6, TELL, 0xcf]].concat();
        assert!(vm.write_memory(4 * 2, &(HANDLERS as u32 + 0x800).to_le_bytes()));
        assert!(vm.write_memory(HANDLERS + 0x800, &handler));
        vm.nmi(0).unwrap();
        assert_eq!(told(&mut vm, 0), Some(0x77), "{vendor:?}");
        vm.nmi(0).unwrap();
        let first = told(&mut vm, 0);
        assert_eq!(told(&mut vm, 0), Some(0x77), "{vendor:?}: the second one");
        assert_eq!(
            told(&mut vm, 0),
            first,
            "{vendor:?}: not inside the first one, nor before its IRET is complete"
        );
        assert_eq!(first, Some(0xfa), "the low byte of SP");
        assert_eq!(vm.vcpu_events(0).unwrap().nmi.masked, 1);
        assert_eq!(vm.regs(0).unwrap().rflags & 0x100, 0, "the step over IRET is nobody's");
    }
}

#[test]
fn messages_and_routes_reach_local_apics() {
    let route = |gsi, type_, u: [u32; 3]| {
        let [a, b, c] = u;
        IrqRoutingEntry { gsi, type_, u: [a, b, c, 0, 0, 0, 0, 0], ..Default::default() }
    };
    for vendor in VENDORS {
        let code = [apic(0xf0, 0x1ff), SLEEP.to_vec()];
        let before = |vm: &mut Vm| {
            assert_eq!(vm.set_gsi_routing(&[]), Err(Failure::Errno(Errno::Einval)), "no local APICs yet");
            assert_eq!(vm.signal_msi(&Msi::default()), Err(Failure::Errno(Errno::Einval)));
            assert_eq!(vm.irq_line(&IrqLevel::default()), Err(Failure::Errno(Errno::Enxio)));
            vm.create_irqchip().unwrap();
            assert_eq!(vm.create_irqchip(), Err(Failure::Errno(Errno::Eexist)));
        };
        let mut vm = vm(vendor, before, 1, &code, &apic(0xb0, 0));
        assert_eq!(told(&mut vm, 0), None);
        let msi = |address_lo, data| Msi { address_lo, data, ..Default::default() };
        assert_eq!(vm.signal_msi(&msi(0xfee0_0000, 0x33)), Ok(1));
        assert_eq!(told(&mut vm, 0), Some(0x33), "{vendor:?}");
        assert_eq!(vm.signal_msi(&msi(0xfee0_5000, 0x33)), Ok(0), "nobody");
        assert_eq!(vm.signal_msi(&Msi { flags: 1, ..msi(0xfee0_5000, 0x33) }), Ok(0), "KVM_MSI_VALID_DEVID");
        let flagged = Msi { flags: 2, ..msi(0xfee0_0000, 0x33) };
        assert_eq!(vm.signal_msi(&flagged), Err(Failure::Errno(Errno::Einval)));
        vm.set_gsi_routing(&[route(100, 2, [0xfee0_0000, 0, 0x3a])]).unwrap();
        assert_eq!(line(&mut vm, 4, 1), -1, "it leads nowhere any more");
        assert_eq!(line(&mut vm, 100, 1), 1);
        assert_eq!(told(&mut vm, 0), Some(0x3a));
        assert_eq!(vm.set_gsi_routing(&[route(1, 1, [0, 8, 0])]), Err(Failure::Errno(Errno::Einval)));
        assert_eq!(line(&mut vm, 100, 1), 1, "a table that is refused changes nothing");
    }
}

/// The numbers are Linux 6.18's for the same calls.
#[test]
fn lines_say_what_became_of_them() {
    let mut vm = vm(Vendor::Intel, chips, 1, &[], &[]);
    let first = line(&mut vm, 4, 1);
    assert_eq!(first, 1, "the 8259 took it, the I/O APIC has it masked");
    assert_eq!(line(&mut vm, 4, 1), 1);
    assert_eq!(line(&mut vm, 4, 0), 2);
    assert_eq!(line(&mut vm, 100, 1), -1);
}

#[test]
fn chips_are_saved_and_restored() {
    let ask = |vm: &mut Vm, chip_id| vm.irqchip(&Irqchip { chip_id, ..Default::default() });
    let mut without = vm(Vendor::Intel, |_| {}, 1, &[], &[]);
    assert_eq!(ask(&mut without, 0).err(), Some(Failure::Errno(Errno::Enxio)));
    assert_eq!(without.lapic(0).err(), Some(Failure::Errno(Errno::Einval)));
    for vendor in VENDORS {
        let create = |vm: &mut Vm| {
            vm.create_irqchip().unwrap();
            vm.create_pit2(&PitConfig::default()).unwrap();
        };
        let mut vm = vm(vendor, create, 1, &[initialize_pics(0x10), SLEEP.to_vec()], &[]);
        // As Linux has them when they are made.
        let pic = PicState::from_bytes(&ask(&mut vm, 0).unwrap().chip);
        assert_eq!(pic, PicState { elcr_mask: 0xf8, ..Default::default() });
        assert_eq!(PicState::from_bytes(&ask(&mut vm, 1).unwrap().chip).elcr_mask, 0xde);
        let channels = vm.pit2().unwrap().channels;
        assert_eq!(
            channels.map(|c| (c.count, c.mode, c.gate)),
            [(65536, 0xff, 1), (65536, 0xff, 1), (65536, 0xff, 0)]
        );
        let lapic = vm.lapic(0).unwrap();
        let register = |offset: usize| u32::from_le_bytes(lapic.regs[offset..offset + 4].try_into().unwrap());
        assert_eq!(
            [0x30, 0xe0, 0xf0, 0x320, 0x350].map(register),
            [0x5_0014, u32::MAX, 0xff, 0x1_0000, 0x700]
        );
        assert_eq!(ask(&mut vm, 3).err(), Some(Failure::Errno(Errno::Einval)));

        assert_eq!(told(&mut vm, 0), None);
        come_home(&mut vm);
        line(&mut vm, 5, 1);
        for chip in 0..3 {
            let saved = ask(&mut vm, chip).unwrap();
            vm.set_irqchip(&saved).unwrap();
            assert_eq!(ask(&mut vm, chip).unwrap(), saved, "{vendor:?}, chip {chip}");
            let cleared = Irqchip { chip_id: chip, ..Default::default() };
            vm.set_irqchip(&cleared).unwrap();
            assert_ne!(ask(&mut vm, chip).unwrap(), saved);
            vm.set_irqchip(&saved).unwrap();
            assert_eq!(ask(&mut vm, chip).unwrap(), saved, "{vendor:?}, chip {chip}");
        }
        let pic = PicState::from_bytes(&ask(&mut vm, 0).unwrap().chip);
        assert_eq!((pic.irq_base, pic.imr, pic.irr), (0x20, 0xef, 0x20));
        let mut pit = vm.pit2().unwrap();
        (pit.channels[2].mode, pit.channels[2].rw_mode, pit.channels[2].count) = (3, 3, 1000);
        (pit.channels[2].read_state, pit.channels[2].write_state) = (3, 3);
        vm.set_pit2(&pit).unwrap();
        let again = vm.pit2().unwrap();
        assert_eq!((again.channels[2].mode, again.channels[2].count), (3, 1000));
        let mut lapic = vm.lapic(0).unwrap();
        lapic.regs[0x300] = 2;
        vm.set_lapic(0, &lapic).unwrap();
        assert_eq!(vm.lapic(0).unwrap(), lapic);
        assert_eq!(vm.mp_state(0).unwrap(), MpState { mp_state: 3 }, "{vendor:?}: it is still halted");
        for (state, answer) in [(3, Ok(())), (1, Ok(())), (2, Ok(())), (10, Err(Errno::Einval)), (0, Ok(()))]
        {
            assert_eq!(vm.set_mp_state(0, &MpState { mp_state: state }), answer.map_err(Failure::Errno));
        }
    }
    assert_eq!(without.set_mp_state(0, &MpState { mp_state: 3 }), Err(Failure::Errno(Errno::Einval)));
}

/// An event counter, as `eventfd` makes one.
#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Counter {
    fn open(&self) -> Box<dyn EventCounter> {
        Box::new(self.clone())
    }
    fn count(&self) -> u64 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

impl EventCounter for Counter {
    fn id(&self) -> u64 {
        Arc::as_ptr(&self.0).expose_provenance() as u64
    }
    fn signal(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn take(&self) -> bool {
        self.count() > 0
    }
}

#[test]
fn counters_of_events_pass_both_ways() {
    for vendor in VENDORS {
        // Port 0x50 twice (one value matches), memory at 0xfec01000 once; then the level of IRQ 9.
        let code = [
            initialize_pics(0),
            out(0x50, 7),
            out(0x50, 8),
            vec![0x26, 0xc7, 0x06, 0, 0x10, 1, 0],
            apic(0xf0, 0x1ff),
            ioapic(0x10 + 2 * 9, 0x8051),
            ioapic(0x10 + 2 * 10, 0x0052),
            SLEEP.to_vec(),
        ];
        let mut vm = vm(vendor, chips, 1, &code, &apic(0xb0, 0));
        let [port, memory, level, ended, edge] = std::array::from_fn(|_| Counter::default());
        let on =
            |addr, len, datamatch, flags| Ioeventfd { addr, len, datamatch, flags, ..Default::default() };
        vm.ioeventfd(&on(0x50, 1, 7, 3), port.open()).unwrap();
        vm.ioeventfd(&on(0xfec0_1000, 0, 0, 0), memory.open()).unwrap();
        let refused = |answer: Result<(), Failure>| match answer {
            Err(Failure::Errno(errno)) => errno,
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(vm.ioeventfd(&on(0x50, 1, 7, 3), memory.open())), Errno::Eexist);
        assert_eq!(refused(vm.ioeventfd(&on(0x50, 3, 0, 2), port.open())), Errno::Einval);
        assert_eq!(refused(vm.ioeventfd(&on(0x50, 0, 7, 3), port.open())), Errno::Einval);
        assert_eq!(refused(vm.ioeventfd(&on(0x50, 1, 0, 16), port.open())), Errno::Einval);
        assert_eq!(refused(vm.ioeventfd(&on(u64::MAX, 1, 0, 0), port.open())), Errno::Einval);
        assert_eq!(refused(vm.ioeventfd(&on(0x51, 1, 7, 7), port.open())), Errno::Enoent);

        let counters = [level.clone(), ended.clone(), edge.clone()];
        let open = |n: i32| counters.get(n as usize).map(Counter::open).ok_or(Errno::Ebadf);
        let irq = |fd, gsi, flags, resamplefd| Irqfd { fd, gsi, flags, resamplefd, ..Default::default() };
        vm.irqfd(&irq(0, 9, 2, 1), open).unwrap();
        vm.irqfd(&irq(2, 10, 0, 0), open).unwrap();
        assert_eq!(refused(vm.irqfd(&irq(2, 11, 0, 0), open)), Errno::Ebusy);
        assert_eq!(refused(vm.irqfd(&irq(3, 11, 0, 0), open)), Errno::Ebadf);
        assert_eq!(refused(vm.irqfd(&irq(2, 11, 4, 0), open)), Errno::Einval);
        assert_eq!(vm.run(0).unwrap().reason(), 2, "the value that does not match is the client's");
        assert_eq!((port.count(), memory.count()), (1, 0));
        assert_eq!(told(&mut vm, 0), None, "{vendor:?}");
        assert_eq!((port.count(), memory.count()), (0, 1));
        level.signal();
        assert_eq!(told(&mut vm, 0), Some(0x51), "{vendor:?}");
        assert_eq!(told(&mut vm, 0), None, "the line is low");
        assert_eq!(ended.count(), 1, "for the end was told");
        edge.signal();
        assert_eq!(told(&mut vm, 0), Some(0x52));
        vm.irqfd(&irq(2, 10, 1, 0), open).unwrap();
        edge.signal();
        assert_eq!(told(&mut vm, 0), None);
        vm.ioeventfd(&on(0x50, 1, 7, 7), port.open()).unwrap();
    }
}

#[test]
fn the_clients_io_apic_hears_of_ends_of_interrupts() {
    for vendor in VENDORS {
        let split = |vm: &mut Vm| {
            assert_eq!(vm.split_irqchip(5000), Err(Failure::Errno(Errno::Einval)));
            vm.split_irqchip(24).unwrap();
            assert_eq!(vm.split_irqchip(24), Err(Failure::Errno(Errno::Eexist)));
            assert_eq!(vm.create_irqchip(), Err(Failure::Errno(Errno::Eexist)));
        };
        let mut vm = vm(vendor, split, 1, &[apic(0xf0, 0x1ff), SLEEP.to_vec()], &apic(0xb0, 0));
        let entry = |gsi, data| IrqRoutingEntry {
            gsi,
            type_: 2,
            u: [0xfee0_0000, 0, data, 0, 0, 0, 0, 0],
            ..Default::default()
        };
        vm.set_gsi_routing(&[entry(9, 0x8051), entry(10, 0x0052)]).unwrap();
        assert_eq!(told(&mut vm, 0), None);
        assert_eq!(line(&mut vm, 9, 1), 1);
        assert_eq!(told(&mut vm, 0), Some(0x51));
        assert_eq!(*vm.run(0).unwrap(), ClientExit::IoapicEoi { vector: 0x51 }, "{vendor:?}");
        assert_eq!(told(&mut vm, 0), None);
        assert_eq!(line(&mut vm, 10, 1), 1);
        assert_eq!([told(&mut vm, 0), told(&mut vm, 0)], [Some(0x52), None], "an edge has no end to hear of");
        // The client's 8259: through LINT0, as after reset, one vector at a time.
        come_home(&mut vm);
        vm.interrupt(0, 0x3b).unwrap();
        assert_eq!(vm.interrupt(0, 0x3c), Err(Failure::Errno(Errno::Eexist)));
        assert_eq!(told(&mut vm, 0), Some(0x3b), "{vendor:?}");
    }
    let mut full = vm(Vendor::Intel, chips, 1, &[], &[]);
    assert_eq!(full.interrupt(0, 0x30), Err(Failure::Errno(Errno::Enxio)));
    assert_eq!(full.split_irqchip(24), Err(Failure::Errno(Errno::Eexist)));
    let mut late = vm(Vendor::Intel, |_| {}, 1, &[], &[]);
    assert_eq!(late.create_irqchip(), Err(Failure::Errno(Errno::Einval)));
    assert_eq!(late.split_irqchip(24), Err(Failure::Errno(Errno::Eexist)));
}
