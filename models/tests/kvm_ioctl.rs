//! The interface as bytes: what a client without any types sees, and whether the tables of the interface tell the truth.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use rootmode_arch::Vendor;
use rootmode_models::kvm::Errno;
use rootmode_models::kvm::abi::{
    self, CAPABILITIES, EXITS, MsrEntry, Object, Plain, REQUESTS, State, VCPU_MMAP_SIZE, absent, request as r,
};
use rootmode_models::kvm::ioctl::{Answer, Instance, system};
use rootmode_models::kvm::vm::{ClientMemory, HostFault, Vm, VmConfig, host_model};

const VENDORS: [Vendor; 2] = [Vendor::Intel, Vendor::Amd];
/// Where the client's memory begins, and where in it things lie.
const BASE: u64 = 0x7f00_0000_0000;
const ARGUMENT: u64 = BASE;
const PAGES: u64 = BASE + 0x1_0000;
const RAM: u64 = BASE + 0x6_0000;
const SIZE: usize = 0x8_0000;

/// A client's memory, which the test shares.
#[derive(Clone)]
struct Client(Arc<Mutex<Vec<u8>>>);

impl Client {
    fn new() -> Self {
        Self(Arc::new(Mutex::new(vec![0; SIZE])))
    }

    fn put(&mut self, address: u64, value: &impl Plain) {
        self.write(address, &value.to_bytes()).unwrap();
    }

    fn get<T: Plain>(&mut self, address: u64) -> T {
        let mut bytes = vec![0; T::SIZE];
        self.read(address, &mut bytes).unwrap();
        T::from_bytes(&bytes)
    }
}

fn range(address: u64, length: usize) -> Result<std::ops::Range<usize>, HostFault> {
    let start = address.checked_sub(BASE).ok_or(HostFault { address })? as usize;
    if start + length > SIZE { Err(HostFault { address }) } else { Ok(start..start + length) }
}

impl ClientMemory for Client {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), HostFault> {
        bytes.copy_from_slice(&self.0.lock().unwrap()[range(address, bytes.len())?]);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), HostFault> {
        self.0.lock().unwrap()[range(address, bytes.len())?].copy_from_slice(bytes);
        Ok(())
    }
}

fn instance(vendor: Vendor, client: &Client) -> Instance {
    let config = VmConfig { client: Some(Box::new(client.clone())), ..VmConfig::plain(vendor) };
    Instance::new(Vm::new(config).unwrap())
}

/// A VM with 64 KiB of the client's memory at address 0, and one vCPU about to run `code` in real mode at 0x1000.
fn guest(vendor: Vendor, client: &mut Client, code: &[u8], flags: u32) -> Instance {
    let mut vm = instance(vendor, client);
    let region = abi::UserspaceMemoryRegion {
        slot: 0,
        flags,
        guest_phys_addr: 0,
        memory_size: 0x1_0000,
        userspace_addr: RAM,
    };
    client.put(ARGUMENT, &region);
    vm.vm_ioctl(r::SET_USER_MEMORY_REGION, ARGUMENT, client).unwrap();
    client.write(RAM + 0x1000, code).unwrap();
    assert_eq!(vm.vm_ioctl(r::CREATE_VCPU, 0, client), Ok(Answer::NewVcpu(0)));
    vm.vcpu_ioctl(0, r::GET_SREGS, ARGUMENT, client).unwrap();
    let mut sregs: abi::Sregs = client.get(ARGUMENT);
    (sregs.cs.base, sregs.cs.selector) = (0, 0);
    client.put(ARGUMENT, &sregs);
    vm.vcpu_ioctl(0, r::SET_SREGS, ARGUMENT, client).unwrap();
    client.put(ARGUMENT, &abi::Regs { rip: 0x1000, rflags: 2, rax: 0x41, ..Default::default() });
    vm.vcpu_ioctl(0, r::SET_REGS, ARGUMENT, client).unwrap();
    vm
}

/// `KVM_RUN`: the exit's reason.
fn run(vm: &mut Instance, client: &mut Client) -> Result<u32, Errno> {
    vm.take_page(0, PAGES, client).map_err(|failure| failure.errno())?;
    let result = vm.vm.run(0).map(drop);
    vm.show_page(0, PAGES, client).map_err(|failure| failure.errno())?;
    result.map_err(|failure| failure.errno())?;
    Ok(client.get::<abi::Run>(PAGES).exit_reason)
}

#[test]
fn the_system_answers() {
    let mut client = Client::new();
    let host = host_model(Vendor::Intel);
    let mut ask = |number, argument| system(&host, number, argument, &mut client);
    assert_eq!(ask(r::GET_API_VERSION, 0), Ok(Answer::Value(12)));
    assert_eq!(ask(r::GET_API_VERSION, 1), Err(Errno::Einval));
    assert_eq!(ask(r::GET_VCPU_MMAP_SIZE, 0), Ok(Answer::Value(VCPU_MMAP_SIZE as i32)));
    assert_eq!(ask(r::CREATE_VM, 0), Ok(Answer::NewVm));
    assert_eq!(ask(r::CREATE_VM, 5), Err(Errno::Einval));
    assert_eq!(ask(r::CHECK_EXTENSION, abi::cap::USER_MEMORY.into()), Ok(Answer::Value(1)));
    assert_eq!(ask(r::CHECK_EXTENSION, 696_969), Ok(Answer::Value(0)));
    let smm = ask(r::CHECK_EXTENSION, 117);
    assert_eq!(smm, Ok(Answer::Value(0)), "system-management mode is not advertised");
    assert_eq!(ask(0xdead, 0), Err(Errno::Einval));
}

#[test]
fn lists_say_how_long_they_are() {
    let mut client = Client::new();
    for vendor in VENDORS {
        let host = host_model(vendor);
        client.put(ARGUMENT, &abi::Cpuid2Head { nent: 3, padding: 0 });
        assert_eq!(system(&host, r::GET_SUPPORTED_CPUID, ARGUMENT, &mut client), Err(Errno::E2big));
        for number in [r::GET_SUPPORTED_CPUID, r::GET_EMULATED_CPUID] {
            client.put(ARGUMENT, &abi::Cpuid2Head { nent: 256, padding: 0 });
            assert_eq!(system(&host, number, ARGUMENT, &mut client), Ok(Answer::Value(0)));
            let count = client.get::<abi::Cpuid2Head>(ARGUMENT).nent;
            assert!((1..256).contains(&count));
        }
        for number in [r::GET_MSR_INDEX_LIST, r::GET_MSR_FEATURE_INDEX_LIST] {
            client.put(ARGUMENT, &abi::MsrListHead { nmsrs: 1 });
            assert_eq!(system(&host, number, ARGUMENT, &mut client), Err(Errno::E2big));
            let count = client.get::<abi::MsrListHead>(ARGUMENT).nmsrs;
            assert_eq!(
                system(&host, number, ARGUMENT, &mut client),
                Ok(Answer::Value(0)),
                "with room for {count}"
            );
        }
        assert_eq!(system(&host, r::GET_MSR_INDEX_LIST, BASE - 8, &mut client), Err(Errno::Efault));
    }
}

#[test]
fn a_client_in_bytes_runs_a_guest() {
    for vendor in VENDORS {
        let mut client = Client::new();
        // out 0x10, al; in al, 0x11; mov [0x2000], al; out 0x2c, al; hlt
        let code = [0xe6, 0x10, 0xe4, 0x11, 0xa2, 0x00, 0x20, 0xe6, 0x2c, 0xf4];
        let mut vm = guest(vendor, &mut client, &code, 1);
        client.put(ARGUMENT, &abi::CoalescedMmioZone { addr: 0x2c, size: 1, pio: 1 });
        vm.vm_ioctl(r::REGISTER_COALESCED_MMIO, ARGUMENT, &mut client).unwrap();
        assert_eq!(run(&mut vm, &mut client), Ok(2));
        let io = abi::Io::from_bytes(&client.get::<abi::Run>(PAGES).exit);
        assert_eq!((io.direction, io.size, io.port, io.count, io.data_offset), (1, 1, 0x10, 1, 4096));
        assert_eq!(client.get::<u8>(PAGES + io.data_offset), 0x41);
        assert_eq!(run(&mut vm, &mut client), Ok(2));
        client.put(PAGES + 4096, &0x7a_u8);
        assert_eq!(run(&mut vm, &mut client), Ok(5), "{vendor:?}");
        assert_eq!(client.get::<u8>(RAM + 0x2000), 0x7a, "the guest's store is in the client's memory");
        let ring: abi::CoalescedMmioRing = client.get(PAGES + 2 * 4096);
        assert_eq!((ring.first, ring.last), (0, 1));
        let entry: abi::CoalescedMmio = client.get(PAGES + 2 * 4096 + 8);
        assert_eq!((entry.phys_addr, entry.len, entry.pio, entry.data[0]), (0x2c, 1, 1, 0x7a));
        vm.vm_ioctl(r::UNREGISTER_COALESCED_MMIO, ARGUMENT, &mut client).unwrap();
        client.put(ARGUMENT, &abi::DirtyLog { slot: 0, padding1: 0, dirty_bitmap: ARGUMENT + 64 });
        vm.vm_ioctl(r::GET_DIRTY_LOG, ARGUMENT, &mut client).unwrap();
        let pages: u64 = client.get(ARGUMENT + 64);
        assert_eq!(
            pages,
            1 << 2 | 1 << 1,
            "what was written, and what was mapped writable for the first time"
        );
        vm.vcpu_ioctl(0, r::GET_REGS, ARGUMENT, &mut client).unwrap();
        assert_eq!(client.get::<abi::Regs>(ARGUMENT).rip, 0x100a);
        assert_eq!(vm.vcpu_ioctl(0, r::GET_REGS, BASE - 1, &mut client), Err(Errno::Efault));
    }
}

/// The errors are Linux 6.18's for the same calls.
#[test]
fn clients_clear_the_dirty_log_by_themselves() {
    for vendor in VENDORS {
        let mut client = Client::new();
        let mut vm = guest(vendor, &mut client, &[0xa2, 0x00, 0x20, 0xf4, 0xeb, 0xfa], 0);
        let enable = |vm: &mut Instance, client: &mut Client, flags| {
            let cap = abi::cap::MANUAL_DIRTY_LOG_PROTECT2;
            client.put(ARGUMENT, &abi::EnableCap { cap, args: [flags, 0, 0, 0], ..Default::default() });
            vm.vm_ioctl(r::ENABLE_CAP, ARGUMENT, client)
        };
        assert_eq!(enable(&mut vm, &mut client, 4), Err(Errno::Einval));
        assert_eq!(enable(&mut vm, &mut client, 2), Err(Errno::Einval));
        assert_eq!(enable(&mut vm, &mut client, 3), Ok(Answer::Value(0)));
        let region = abi::UserspaceMemoryRegion {
            flags: 1,
            memory_size: 0x1_0000,
            userspace_addr: RAM,
            ..Default::default()
        };
        client.put(ARGUMENT, &region);
        vm.vm_ioctl(r::SET_USER_MEMORY_REGION, ARGUMENT, &mut client).unwrap();
        let log = |vm: &mut Instance, client: &mut Client| {
            client.put(ARGUMENT, &abi::DirtyLog { slot: 0, padding1: 0, dirty_bitmap: ARGUMENT + 64 });
            vm.vm_ioctl(r::GET_DIRTY_LOG, ARGUMENT, client).unwrap();
            client.get::<u64>(ARGUMENT + 64)
        };
        assert_eq!(log(&mut vm, &mut client), 0xffff, "it begins full");
        let clear = |vm: &mut Instance, client: &mut Client, (slot, first_page, num_pages), bits: u64| {
            client.put(ARGUMENT + 64, &bits);
            let dirty_bitmap = ARGUMENT + 64;
            client.put(ARGUMENT, &abi::ClearDirtyLog { slot, num_pages, first_page, dirty_bitmap });
            vm.vm_ioctl(r::CLEAR_DIRTY_LOG, ARGUMENT, client)
        };
        for (place, answer) in [
            ((0, 0, 8), Err(Errno::Einval)),
            ((0, 0, 64), Err(Errno::Einval)),
            ((0, 1, 16), Err(Errno::Einval)),
            ((0, 0, 0), Ok(Answer::Value(0))),
            ((5, 0, 16), Err(Errno::Enoent)),
            ((0, 0, 16), Ok(Answer::Value(0))),
        ] {
            assert_eq!(clear(&mut vm, &mut client, place, 0xfffb), answer, "{place:?}");
        }
        assert_eq!(log(&mut vm, &mut client), 4, "the client left one");
        assert_eq!(log(&mut vm, &mut client), 4, "and asking changes nothing");
        clear(&mut vm, &mut client, (0, 0, 16), 4).unwrap();
        run(&mut vm, &mut client).unwrap();
        assert_eq!(log(&mut vm, &mut client) & 4, 4, "{vendor:?}: written again");
    }
}

/// A statistic by its name, as a client finds it.
fn statistic(file: &[u8], name: &str) -> u64 {
    let header = abi::StatsHeader::from_bytes(file);
    let size = abi::StatsDesc::SIZE + header.name_size as usize;
    let descriptors = file[header.desc_offset as usize..].chunks_exact(size).take(header.num_desc as usize);
    let found = descriptors
        .clone()
        .find(|bytes| bytes[abi::StatsDesc::SIZE..].starts_with(format!("{name}\0").as_bytes()));
    let at = header.data_offset as usize + abi::StatsDesc::from_bytes(found.unwrap()).offset as usize;
    u64::from_bytes(&file[at..at + 8])
}

#[test]
fn statistics_say_what_happened() {
    for vendor in VENDORS {
        let mut client = Client::new();
        // out 0x10, al; mov al, [0x2000]; cpuid; mov es:[0], al (memory that no slot has); hlt
        let code = [0xe6, 0x10, 0xa0, 0x00, 0x20, 0x0f, 0xa2, 0x26, 0xa2, 0, 0, 0xf4];
        let mut vm = guest(vendor, &mut client, &code, 0);
        vm.vcpu_ioctl(0, r::GET_SREGS, ARGUMENT, &mut client).unwrap();
        let mut sregs: abi::Sregs = client.get(ARGUMENT);
        sregs.es.base = 0x10_0000;
        client.put(ARGUMENT, &sregs);
        vm.vcpu_ioctl(0, r::SET_SREGS, ARGUMENT, &mut client).unwrap();
        assert_eq!(vm.vcpu_ioctl(0, r::GET_STATS_FD, 0, &mut client), Ok(Answer::NewStatistics));
        assert_eq!(vm.vm_ioctl(r::GET_STATS_FD, 0, &mut client), Ok(Answer::NewStatistics));
        for reason in [2, 6, 5] {
            assert_eq!(run(&mut vm, &mut client), Ok(reason), "{vendor:?}");
        }
        let file = vm.vm.statistics(Some(0), 7).unwrap();
        let header = abi::StatsHeader::from_bytes(&file);
        assert_eq!(
            (header.name_size, header.id_offset, header.desc_offset),
            (48, 24, 72),
            "as Linux has them"
        );
        assert!(file[24..].starts_with(b"kvm-7/vcpu-0\0"));
        let count = |name| statistic(&file, name);
        assert_eq!([count("io_exits"), count("mmio_exits"), count("halt_exits")], [1; 3], "{vendor:?}");
        assert_eq!(count("insn_emulation"), 1);
        assert!(count("exits") >= 5 && count("pf_fixed") >= 2 && count("pf_taken") > count("pf_fixed"));
        assert_eq!([count("irq_injections"), count("blocking"), count("signal_exits")], [0; 3]);
        let file = vm.vm.statistics(None, 7).unwrap();
        assert!(file[24..].starts_with(b"kvm-7\0") && statistic(&file, "remote_tlb_flush") > 0);
        assert!(vm.vm.statistics(Some(1), 7).is_err());
    }
}

/// The errors are Linux 6.18's for the same calls.
#[test]
fn pages_are_harvested_from_dirty_rings() {
    const RING: u64 = PAGES + 64 * 4096;
    for vendor in VENDORS {
        let mut client = Client::new();
        let mut vm = instance(vendor, &client);
        let enable = |vm: &mut Instance, client: &mut Client, bytes| {
            let cap = abi::cap::DIRTY_LOG_RING;
            client.put(ARGUMENT, &abi::EnableCap { cap, args: [bytes, 0, 0, 0], ..Default::default() });
            vm.vm_ioctl(r::ENABLE_CAP, ARGUMENT, client)
        };
        assert_eq!(vm.vm_ioctl(r::RESET_DIRTY_RINGS, 0, &mut client), Err(Errno::Einval));
        for (bytes, answer) in [
            (4097, Err(Errno::Einval)),
            (1024, Err(Errno::Einval)),
            (2 << 20, Err(Errno::E2big)),
            (4096, Ok(Answer::Value(0))),
            (4096, Err(Errno::Einval)),
        ] {
            assert_eq!(enable(&mut vm, &mut client, bytes), answer, "{bytes}");
        }
        assert_eq!(vm.mapping_size(), 65 * 4096);
        let region = abi::UserspaceMemoryRegion {
            slot: 5,
            flags: 1,
            memory_size: 0x1_0000,
            userspace_addr: RAM,
            ..Default::default()
        };
        client.put(ARGUMENT, &region);
        vm.vm_ioctl(r::SET_USER_MEMORY_REGION, ARGUMENT, &mut client).unwrap();
        // mov [0x2000], al; mov [0x3000], al; hlt; jmp back
        client.write(RAM + 0x1000, &[0xa2, 0, 0x20, 0xa2, 0, 0x30, 0xf4, 0xeb, 0xf7]).unwrap();
        vm.vm_ioctl(r::CREATE_VCPU, 0, &mut client).unwrap();
        vm.vcpu_ioctl(0, r::GET_SREGS, ARGUMENT, &mut client).unwrap();
        let mut sregs: abi::Sregs = client.get(ARGUMENT);
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        client.put(ARGUMENT, &sregs);
        vm.vcpu_ioctl(0, r::SET_SREGS, ARGUMENT, &mut client).unwrap();
        client.put(ARGUMENT, &abi::Regs { rip: 0x1000, rflags: 2, ..Default::default() });
        vm.vcpu_ioctl(0, r::SET_REGS, ARGUMENT, &mut client).unwrap();
        client.put(ARGUMENT, &abi::DirtyLog { slot: 5, padding1: 0, dirty_bitmap: ARGUMENT + 64 });
        assert_eq!(vm.vm_ioctl(r::GET_DIRTY_LOG, ARGUMENT, &mut client), Err(Errno::Enxio));
        let mut place = 0;
        let mut harvest = |client: &mut Client| {
            let mut pages = Vec::new();
            loop {
                let at = RING + 16 * (place % 256);
                let entry: abi::DirtyGfn = client.get(at);
                if entry.flags != 1 {
                    return pages;
                }
                client.put(at, &abi::DirtyGfn { flags: 2, ..entry });
                pages.push((entry.slot, entry.offset));
                place += 1;
            }
        };
        assert_eq!(run(&mut vm, &mut client), Ok(5));
        assert_eq!(run(&mut vm, &mut client), Ok(5));
        assert_eq!(
            harvest(&mut client),
            [(5, 1), (5, 2), (5, 3)],
            "{vendor:?}: each once, the code's page first"
        );
        assert_eq!(vm.vm_ioctl(r::RESET_DIRTY_RINGS, 0, &mut client), Ok(Answer::ResetRings));
        assert_eq!(vm.reset_ring(0, PAGES, &mut client), Ok(3));
        assert_eq!(vm.reset_ring(0, PAGES, &mut client), Ok(0));
        // Two pages a round.
        let mut rounds = 0;
        while run(&mut vm, &mut client) == Ok(5) {
            for entry in harvest(&mut client) {
                assert!([(5, 2), (5, 3)].contains(&entry), "{entry:?}");
            }
            rounds += 1;
            assert_eq!(vm.reset_ring(0, PAGES, &mut client), Ok(2));
            if rounds == 200 {
                break;
            }
        }
        assert_eq!(rounds, 200, "{vendor:?}: a ring that is harvested never fills, however long it goes on");
    }
}

#[test]
fn older_calls_reach_the_timer_too() {
    let mut client = Client::new();
    let mut vm = instance(Vendor::Intel, &client);
    assert_eq!(vm.vm_ioctl(r::CREATE_PIT, 0, &mut client), Err(Errno::Enoent), "without the other chips");
    assert_eq!(vm.vm_ioctl(r::GET_PIT, ARGUMENT, &mut client), Err(Errno::Enxio));
    vm.vm_ioctl(r::CREATE_IRQCHIP, 0, &mut client).unwrap();
    vm.vm_ioctl(r::CREATE_PIT, 0, &mut client).unwrap();
    vm.vm_ioctl(r::GET_PIT, ARGUMENT, &mut client).unwrap();
    let mut state: abi::PitState = client.get(ARGUMENT);
    assert_eq!(state.channels.map(|channel| channel.count), [0x1_0000; 3]);
    let channel = &mut state.channels[0];
    (channel.mode, channel.rw_mode, channel.read_state, channel.write_state, channel.count) =
        (2, 3, 3, 3, 1193);
    client.put(ARGUMENT, &state);
    vm.vm_ioctl(r::SET_PIT, ARGUMENT, &mut client).unwrap();
    vm.vm_ioctl(r::GET_PIT2, ARGUMENT, &mut client).unwrap();
    let channel = client.get::<abi::PitState2>(ARGUMENT).channels[0];
    assert_eq!((channel.mode, channel.count), (2, 1193), "it is one timer");
}

#[test]
fn settings_of_a_vm_are_kept() {
    for vendor in VENDORS {
        let mut client = Client::new();
        let mut vm = instance(vendor, &client);
        assert_eq!(vm.vm_ioctl(r::SET_TSS_ADDR, 0xfffb_d000, &mut client), Ok(Answer::Value(0)));
        assert_eq!(vm.vm_ioctl(r::SET_TSS_ADDR, 0xffff_f000, &mut client), Err(Errno::Einval));
        client.put(ARGUMENT, &0xfffb_c000_u64);
        assert_eq!(vm.vm_ioctl(r::SET_IDENTITY_MAP_ADDR, ARGUMENT, &mut client), Ok(Answer::Value(0)));
        assert_eq!(vm.vm_ioctl(r::SET_BOOT_CPU_ID, 0, &mut client), Ok(Answer::Value(0)));
        assert_eq!(vm.vm_ioctl(r::SET_NR_MMU_PAGES, 63, &mut client), Err(Errno::Einval));
        assert_eq!(vm.vm_ioctl(r::SET_NR_MMU_PAGES, 64, &mut client), Ok(Answer::Value(0)));
        assert_eq!(vm.vm_ioctl(r::GET_NR_MMU_PAGES, 0, &mut client), Ok(Answer::Value(64)));
        client.put(ARGUMENT, &abi::ClockData { clock: 1_000_000, ..Default::default() });
        assert_eq!(vm.vm_ioctl(r::SET_CLOCK, ARGUMENT, &mut client), Ok(Answer::Value(0)));
        client.put(ARGUMENT, &abi::ClockData::default());
        assert_eq!(vm.vm_ioctl(r::GET_CLOCK, ARGUMENT, &mut client), Ok(Answer::Value(0)));
        let clock: abi::ClockData = client.get(ARGUMENT);
        assert_eq!((clock.clock, clock.flags), (1_000_000, 2), "no time has passed");
        let mut enable = |vm: &mut Instance, cap, argument| {
            client.put(ARGUMENT, &abi::EnableCap { cap, args: [argument, 0, 0, 0], ..Default::default() });
            vm.vm_ioctl(r::ENABLE_CAP, ARGUMENT, &mut client)
        };
        assert_eq!(enable(&mut vm, abi::cap::X86_USER_SPACE_MSR, 7), Ok(Answer::Value(0)));
        assert_eq!(enable(&mut vm, abi::cap::X86_USER_SPACE_MSR, 8), Err(Errno::Einval));
        assert_eq!(enable(&mut vm, abi::cap::EXIT_HYPERCALL, 1), Err(Errno::Einval));
        assert_eq!(enable(&mut vm, 0, 0), Err(Errno::Einval));
        client.put(ARGUMENT, &abi::MsrFilter { flags: 1, ..Default::default() });
        let filter = vm.vm_ioctl(r::X86_SET_MSR_FILTER, ARGUMENT, &mut client);
        assert_eq!(filter, Err(Errno::Einval), "a filter that denies everything");
        client.put(ARGUMENT, &abi::MsrFilter::default());
        assert_eq!(vm.vm_ioctl(r::X86_SET_MSR_FILTER, ARGUMENT, &mut client), Ok(Answer::Value(0)));
        let region =
            abi::UserspaceMemoryRegion2 { memory_size: 0x1000, userspace_addr: RAM, ..Default::default() };
        client.put(ARGUMENT, &region);
        assert_eq!(vm.vm_ioctl(r::SET_USER_MEMORY_REGION2, ARGUMENT, &mut client), Ok(Answer::Value(0)));
        vm.vm_ioctl(r::CREATE_VCPU, 3, &mut client).unwrap();
        assert_eq!(vm.vm_ioctl(r::SET_IDENTITY_MAP_ADDR, ARGUMENT, &mut client), Err(Errno::Einval));
        assert_eq!(vm.vm_ioctl(r::SET_BOOT_CPU_ID, 0, &mut client), Err(Errno::Ebusy));
        assert_eq!(vm.vm_ioctl(r::CHECK_EXTENSION, 1, &mut client), Ok(Answer::Value(1)));
    }
}

#[test]
fn registers_of_every_kind_pass() {
    for vendor in VENDORS {
        let mut client = Client::new();
        let mut vm = guest(vendor, &mut client, &[0xf4], 0);
        let pairs = [
            (r::GET_REGS, r::SET_REGS, abi::Regs::SIZE),
            (r::GET_SREGS, r::SET_SREGS, abi::Sregs::SIZE),
            (r::GET_SREGS2, r::SET_SREGS2, abi::Sregs2::SIZE),
            (r::GET_FPU, r::SET_FPU, abi::Fpu::SIZE),
            (r::GET_XSAVE, r::SET_XSAVE, 4096),
            (r::GET_XSAVE2, r::SET_XSAVE, 4096),
            (r::GET_XCRS, r::SET_XCRS, abi::Xcrs::SIZE),
            (r::GET_DEBUGREGS, r::SET_DEBUGREGS, abi::DebugRegs::SIZE),
            (r::GET_VCPU_EVENTS, r::SET_VCPU_EVENTS, abi::VcpuEvents::SIZE),
            (r::GET_MP_STATE, r::SET_MP_STATE, abi::MpState::SIZE),
        ];
        for (get, set, size) in pairs {
            vm.vcpu_ioctl(0, get, ARGUMENT, &mut client).unwrap();
            let mut before = vec![0; size];
            client.read(ARGUMENT, &mut before).unwrap();
            assert_eq!(vm.vcpu_ioctl(0, set, ARGUMENT, &mut client), Ok(Answer::Value(0)), "{set:#x}");
            client.write(ARGUMENT, &vec![0xa5; size]).unwrap();
            vm.vcpu_ioctl(0, get, ARGUMENT, &mut client).unwrap();
            let mut after = vec![0; size];
            client.read(ARGUMENT, &mut after).unwrap();
            assert!(before == after, "{vendor:?}: what {set:#x} sets, {get:#x} gets");
        }
        client.put(ARGUMENT, &abi::MsrsHead { nmsrs: 1, pad: 0 });
        client.put(ARGUMENT + 8, &MsrEntry { index: 0x174, reserved: 0, data: 0x33 });
        assert_eq!(vm.vcpu_ioctl(0, r::SET_MSRS, ARGUMENT, &mut client), Ok(Answer::Value(1)));
        client.put(ARGUMENT + 8, &MsrEntry { index: 0x174, reserved: 0, data: 0 });
        assert_eq!(vm.vcpu_ioctl(0, r::GET_MSRS, ARGUMENT, &mut client), Ok(Answer::Value(1)));
        assert_eq!(client.get::<MsrEntry>(ARGUMENT + 8).data, 0x33);
        let mut translate = |vm: &mut Instance, linear_address| {
            client.put(ARGUMENT, &abi::Translation { linear_address, ..Default::default() });
            vm.vcpu_ioctl(0, r::TRANSLATE, ARGUMENT, &mut client).unwrap();
            let answer: abi::Translation = client.get(ARGUMENT);
            (answer.valid, answer.physical_address)
        };
        assert_eq!(translate(&mut vm, 0x1_0000), (1, 0x1_0000));
        assert_eq!(translate(&mut vm, u64::MAX).0, 0);
        client.put(ARGUMENT, &abi::Interrupt { irq: 256 });
        assert_eq!(vm.vcpu_ioctl(0, r::INTERRUPT, ARGUMENT, &mut client), Err(Errno::Einval));
        assert_eq!(vm.vcpu_ioctl(0, r::NMI, 0, &mut client), Ok(Answer::Value(0)));
        let khz = vm.vcpu_ioctl(0, r::GET_TSC_KHZ, 0, &mut client);
        assert_eq!(khz, Ok(Answer::Value(4_000_000)));
        assert_eq!(vm.vcpu_ioctl(0, r::SET_TSC_KHZ, 4_000_000, &mut client), Ok(Answer::Value(0)));
        assert_eq!(vm.vcpu_ioctl(0, r::SET_TSC_KHZ, 1, &mut client), Err(Errno::Einval));
        client.put(ARGUMENT, &abi::Cpuid2Head { nent: 0, padding: 0 });
        assert_eq!(vm.vcpu_ioctl(0, r::SET_CPUID2, ARGUMENT, &mut client), Ok(Answer::Value(0)));
        assert_eq!(vm.vcpu_ioctl(0, r::GET_CPUID2, ARGUMENT, &mut client), Ok(Answer::Value(0)));
    }
}

#[test]
fn registers_pass_through_the_mapping() {
    for vendor in VENDORS {
        let mut client = Client::new();
        // inc ax; hlt
        let mut vm = guest(vendor, &mut client, &[0x40, 0xf4], 0);
        vm.vcpu_ioctl(0, r::GET_SREGS, ARGUMENT, &mut client).unwrap();
        let mut registers = abi::SyncRegs { sregs: client.get(ARGUMENT), ..Default::default() };
        registers.regs = abi::Regs { rip: 0x1000, rflags: 2, rax: 0x8000, ..Default::default() };
        registers.sregs.cr2 = 0x1234;
        let mut s = [0; abi::SYNC_BYTES];
        s[..abi::SyncRegs::SIZE].copy_from_slice(&registers.to_bytes());
        client.put(PAGES, &abi::Run { kvm_valid_regs: 7, kvm_dirty_regs: 7, s, ..Default::default() });
        assert_eq!(run(&mut vm, &mut client), Ok(5), "{vendor:?}");
        let shown: abi::Run = client.get(PAGES);
        assert_eq!(shown.kvm_dirty_regs, 0, "they were taken over");
        let shown = abi::SyncRegs::from_bytes(&shown.s);
        assert_eq!((shown.regs.rax, shown.regs.rip, shown.sregs.cr2), (0x8001, 0x1002, 0x1234));
        client.put(PAGES, &abi::Run { kvm_valid_regs: 8, ..Default::default() });
        assert_eq!(run(&mut vm, &mut client), Err(Errno::Einval));
        registers.sregs.cr0 = 0x8000_0000;
        s[..abi::SyncRegs::SIZE].copy_from_slice(&registers.to_bytes());
        client.put(PAGES, &abi::Run { kvm_dirty_regs: 2, s, ..Default::default() });
        assert_eq!(run(&mut vm, &mut client), Err(Errno::Einval), "paging without protection");
    }
}

#[test]
fn a_vcpu_that_does_not_nest_says_so() {
    for vendor in VENDORS {
        let mut client = Client::new();
        let mut vm = guest(vendor, &mut client, &[0xf4], 0);
        client.put(ARGUMENT, &abi::NestedStateHead { size: 100, ..Default::default() });
        assert_eq!(vm.vcpu_ioctl(0, r::GET_NESTED_STATE, ARGUMENT, &mut client), Err(Errno::E2big));
        assert_eq!(client.get::<abi::NestedStateHead>(ARGUMENT).size, 128, "so long it is");
        client.put(ARGUMENT, &abi::NestedStateHead { size: 4096, ..Default::default() });
        vm.vcpu_ioctl(0, r::GET_NESTED_STATE, ARGUMENT, &mut client).unwrap();
        let state: abi::NestedStateHead = client.get(ARGUMENT);
        assert_eq!((state.size, state.format), (128, u16::from(vendor == Vendor::Amd)));
        assert_eq!(vm.vcpu_ioctl(0, r::SET_NESTED_STATE, ARGUMENT, &mut client), Ok(Answer::Value(0)));
        client.put(ARGUMENT, &abi::NestedStateHead { flags: 1, ..state });
        assert_eq!(vm.vcpu_ioctl(0, r::SET_NESTED_STATE, ARGUMENT, &mut client), Err(Errno::Einval));
    }
}

#[test]
fn paging_is_walked_for_translations() {
    for vendor in VENDORS {
        let mut client = Client::new();
        let mut vm = guest(vendor, &mut client, &[0xf4], 0);
        for (at, entry) in [(0x3000, 0x4003_u64), (0x4000, 0x5003), (0x5008, 0x83)] {
            client.put(RAM + at, &entry);
        }
        vm.vcpu_ioctl(0, r::GET_SREGS, ARGUMENT, &mut client).unwrap();
        let mut sregs: abi::Sregs = client.get(ARGUMENT);
        (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = (0x8000_0011, 0x3000, 0x20, 0x500);
        client.put(ARGUMENT, &sregs);
        vm.vcpu_ioctl(0, r::SET_SREGS, ARGUMENT, &mut client).unwrap();
        for (linear_address, expected) in [(0x20_1234, Some(0x1234)), (0x1234, None)] {
            client.put(ARGUMENT, &abi::Translation { linear_address, ..Default::default() });
            vm.vcpu_ioctl(0, r::TRANSLATE, ARGUMENT, &mut client).unwrap();
            let answer: abi::Translation = client.get(ARGUMENT);
            assert_eq!((answer.valid != 0).then_some(answer.physical_address), expected, "{vendor:?}");
        }
    }
}

#[test]
fn a_clients_memory_is_seen_as_it_is_at_every_entry() {
    for vendor in VENDORS {
        let mut client = Client::new();
        // mov al, [0x2000]; out 0x10, al; jmp back
        let mut vm = guest(vendor, &mut client, &[0xa0, 0x00, 0x20, 0xe6, 0x10, 0xeb, 0xf9], 0);
        for value in [3_u8, 9, 200] {
            client.put(RAM + 0x2000, &value);
            assert_eq!(run(&mut vm, &mut client), Ok(2));
            assert_eq!(client.get::<u8>(PAGES + 4096), value, "{vendor:?}");
        }
        let region = abi::UserspaceMemoryRegion {
            slot: 1,
            guest_phys_addr: 0x10_0000,
            memory_size: 0x1000,
            ..Default::default()
        };
        client.put(ARGUMENT, &region);
        vm.vm_ioctl(r::SET_USER_MEMORY_REGION, ARGUMENT, &mut client).unwrap();
        vm.vcpu_ioctl(0, r::GET_SREGS, ARGUMENT, &mut client).unwrap();
        let mut sregs: abi::Sregs = client.get(ARGUMENT);
        sregs.ds.base = 0x10_0000 - 0x2000;
        client.put(ARGUMENT, &sregs);
        vm.vcpu_ioctl(0, r::SET_SREGS, ARGUMENT, &mut client).unwrap();
        assert_eq!(run(&mut vm, &mut client), Err(Errno::Efault), "the client's memory is not there");
    }
}

#[test]
fn what_is_absent_answers_as_the_table_says_and_nothing_panics() {
    for vendor in VENDORS {
        let mut client = Client::new();
        let mut vm = guest(vendor, &mut client, &[0xf4], 0);
        for row in REQUESTS.iter().filter(|row| matches!(row.state, State::Absent(_))) {
            let answer = match row.object {
                Object::System => system(&host_model(vendor), row.number, 0, &mut client),
                Object::Vm => vm.vm_ioctl(row.number, 0, &mut client),
                Object::Vcpu => vm.vcpu_ioctl(0, row.number, 0, &mut client),
                Object::Device => continue,
            };
            assert_eq!(answer, Err(absent(row.object, row.number)), "{}", row.name);
        }
        // Whatever lies in the client's memory, every call answers.
        for seed in 0..40_u8 {
            for row in REQUESTS {
                let noise: Vec<u8> = (0..0x1000_u32).map(|n| (n as u8).wrapping_mul(seed) ^ seed).collect();
                client.write(ARGUMENT, &noise).unwrap();
                let _ = match row.object {
                    Object::System => {
                        system(&host_model(vendor), row.number, ARGUMENT, &mut client).map(drop)
                    }
                    Object::Vm if row.number == r::CREATE_VCPU => Ok(()),
                    Object::Vm => vm.vm_ioctl(row.number, ARGUMENT, &mut client).map(drop),
                    _ => vm.vcpu_ioctl(0, row.number, ARGUMENT, &mut client).map(drop),
                };
            }
        }
    }
}

#[test]
fn a_dead_vm_answers_eio_on_every_descriptor() {
    for vendor in VENDORS {
        let mut client = Client::new();
        let mut instance = guest(vendor, &mut client, &[0xeb, 0xfe], 0);
        let mut device = |instance: &mut Instance, type_, flags| {
            client.put(ARGUMENT, &abi::CreateDevice { type_, fd: 0, flags });
            instance.vm_ioctl(r::CREATE_DEVICE, ARGUMENT, &mut client)
        };
        assert_eq!(device(&mut instance, 1, 0), Err(Errno::Enodev));
        assert_eq!(device(&mut instance, 4, 1), Ok(Answer::Value(0)), "only whether it could be made");
        assert_eq!(device(&mut instance, 4, 0), Ok(Answer::NewDevice { structure: ARGUMENT }));
        assert_eq!(device(&mut instance, 4, 0), Err(Errno::Ebusy));
        Instance::show_device(7, ARGUMENT, &mut client).unwrap();
        assert_eq!(client.get::<abi::CreateDevice>(ARGUMENT).fd, 7);
        let attr = |attr| abi::DeviceAttr { group: 1, attr, addr: ARGUMENT + 64, ..Default::default() };
        client.put(ARGUMENT, &attr(1));
        assert_eq!(instance.device_ioctl(r::HAS_DEVICE_ATTR, ARGUMENT, &mut client), Ok(Answer::Value(0)));
        assert_eq!(instance.device_ioctl(r::SET_DEVICE_ATTR, ARGUMENT, &mut client), Err(Errno::Ebadf));
        assert_eq!(instance.device_ioctl(r::GET_DEVICE_ATTR, ARGUMENT, &mut client), Err(Errno::Eperm));
        client.put(ARGUMENT, &attr(3));
        assert_eq!(instance.device_ioctl(r::HAS_DEVICE_ATTR, ARGUMENT, &mut client), Err(Errno::Enxio));

        instance.vm.retire();
        for row in REQUESTS {
            let (number, eio) = (row.number, Err(Errno::Eio));
            match row.object {
                Object::System => {}
                Object::Vm => {
                    assert_eq!(instance.vm_ioctl(number, 0, &mut client), eio, "{}", row.name);
                    assert_eq!(instance.vm_compat_ioctl(number, 0, &mut client), eio, "{}", row.name);
                }
                Object::Vcpu => {
                    assert_eq!(instance.vcpu_ioctl(0, number, 0, &mut client), eio, "{}", row.name);
                    assert_eq!(instance.vcpu_compat_ioctl(0, number, 0, &mut client), eio, "{}", row.name);
                }
                Object::Device => {
                    assert_eq!(instance.device_ioctl(number, 0, &mut client), eio, "{}", row.name);
                }
            }
        }
        assert_eq!(run(&mut instance, &mut client), Err(Errno::Eio));
        assert!(!instance.vm.is_bugged(), "nothing is wrong with it");
        assert_eq!(instance.vm.close().unwrap().frames, 0);
    }
}

#[test]
fn every_row_of_the_tables_names_a_test() {
    let sources = [
        include_str!("kvm_debug.rs"),
        include_str!("kvm_ioctl.rs"),
        include_str!("kvm_irqchip.rs"),
        include_str!("kvm_vm.rs"),
        include_str!("../../sim/tests/nested_vm.rs"),
    ];
    let exists = |test: &str| sources.iter().any(|source| source.contains(&format!("fn {test}(")));
    for row in REQUESTS {
        if let State::Works(test) = row.state {
            assert!(exists(test), "{}: {test}", row.name);
        }
    }
    for row in EXITS {
        if let State::Works(test) = row.state {
            assert!(exists(test), "{}: {test}", row.name);
        }
    }
    for row in CAPABILITIES {
        assert!(exists(row.test), "{}: {}", row.name, row.test);
    }
}
