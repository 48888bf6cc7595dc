//! Hypervisors in VMs of the model of KVM: what their guests do reaches the client, and goes on in another VM.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use rootmode::guests::layout::{L2_BASE, SECOND_STAGE, SECOND_STAGE_LEAVES, WINDOW};
use rootmode::guests::{GuestImage, Operation, Workload, assemble};
use rootmode::transparency::{Client, LIMIT, Run, compare, empty_vm, run_bare, vm_of};
use rootmode_arch::choices::{Seeded, Tame};
use rootmode_arch::record::{Payload, Record, Stop};
use rootmode_arch::{Vendor, msr};
use rootmode_models::kvm::abi::{
    MsrEntry, NestedStateHead, Plain, SvmNestedStateHdr, VmxNestedStateHdr, request as r,
};
use rootmode_models::kvm::ioctl::{Answer, Instance};
use rootmode_models::kvm::vm::{ClientMemory, HostFault, Vm, saved_msrs};
use rootmode_models::kvm::{Errno, Regressions};
use rootmode_svm::vmcb::Field as VmcbField;
use rootmode_vmx::Field;

const VENDORS: [Vendor; 2] = [Vendor::Intel, Vendor::Amd];

fn image(vendor: Vendor, seed: u64) -> GuestImage {
    assemble(&Workload::draw(vendor, 40, &mut Seeded::new(seed))).unwrap()
}

fn plain(image: &GuestImage) -> Vm {
    vm_of(image, Box::new(Tame), Regressions::NONE).unwrap()
}

/// A page of L2's that L1 maps to an address where it has no memory.
const DEVICE: u64 = 0xf000_0000;

#[test]
fn memory_that_l1_does_not_have_is_the_clients_for_l2_too() {
    for vendor in VENDORS {
        let mut workload = Workload::draw(vendor, 0, &mut Tame);
        for page in [3, 5] {
            workload.operations.push(Operation::Touch { page, write: false });
            workload.operations.push(Operation::Touch { page, write: true });
        }
        let mut image = assemble(&workload).unwrap();
        let tables = image.segments.iter_mut().find(|(address, _)| *address == SECOND_STAGE).unwrap();
        let mut pages = Vec::new();
        for page in [3, 5] {
            let at = (SECOND_STAGE_LEAVES - SECOND_STAGE + 8 * (page + (WINDOW >> 12))) as usize;
            let leaf = &mut tables.1[at..at + 8];
            let to = DEVICE + 0x1000 * page;
            let rights: u64 = if vendor == Vendor::Intel { 0x37 } else { 7 };
            leaf.copy_from_slice(&(to | rights).to_le_bytes());
            pages.push(to);
        }
        let bare = run_bare(&image, Box::new(Tame), LIMIT);
        let mut vm = plain(&image);
        let mut client = Client::default();
        client.attach(&mut vm);
        let stop = client.run(&mut vm, LIMIT).unwrap();
        let run = client.finish(&mut vm, &image, stop).unwrap();
        let touched: Vec<_> =
            client.mmio.iter().map(|(address, _, write)| (*address & !0xfff, *write)).collect();
        let expected: Vec<_> = pages.iter().flat_map(|page| [(*page, false), (*page, true)]).collect();
        assert_eq!(touched, expected, "{vendor:?}: L1's addresses, in L2's order");
        assert_eq!(compare(bare, run, vendor).differences, [], "{vendor:?}");
    }
}

/// `MSR_KVM_ASYNC_PF_INT`.
const ASYNC_PF_INT: u32 = 0x4b56_4d06;

/// A client's memory that is nothing but bytes.
struct Bytes(Vec<u8>);

impl ClientMemory for Bytes {
    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), HostFault> {
        let from = address as usize;
        bytes.copy_from_slice(self.0.get(from..from + bytes.len()).ok_or(HostFault { address })?);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), HostFault> {
        let from = address as usize;
        self.0.get_mut(from..from + bytes.len()).ok_or(HostFault { address })?.copy_from_slice(bytes);
        Ok(())
    }
}

impl Bytes {
    fn of(state: &[u8]) -> Self {
        let mut bytes = state.to_vec();
        bytes.resize(0x3000, 0);
        Self(bytes)
    }
}

fn get_nested(vm: &mut Instance) -> Vec<u8> {
    let room = NestedStateHead { size: 0x3000, ..Default::default() };
    let mut client = Bytes::of(&room.to_bytes());
    assert_eq!(vm.vcpu_ioctl(0, r::GET_NESTED_STATE, 0, &mut client), Ok(Answer::Value(0)));
    let size = NestedStateHead::from_bytes(&client.0[..NestedStateHead::SIZE]).size;
    client.0[..size as usize].to_vec()
}

fn set_nested(vm: &mut Instance, state: &[u8]) -> Result<Answer, Errno> {
    vm.vcpu_ioctl(0, r::SET_NESTED_STATE, 0, &mut Bytes::of(state))
}

/// Moves a vCPU and its memory into another VM, in the order in which KVM's own tests do.
fn moved(mut from: Instance, image: &GuestImage) -> Instance {
    let vm = &mut from.vm;
    let vendor = image.vendor;
    let mut other = empty_vm(vendor, Box::new(Tame), Regressions::NONE, image.memory).unwrap();
    let mut memory = vec![0; image.memory as usize];
    assert!(vm.read_memory(0, &mut memory) && other.write_memory(0, &memory));
    for index in saved_msrs(vendor) {
        let mut entry = [MsrEntry { index, ..Default::default() }];
        if vm.get_msrs(0, &mut entry).unwrap() == 1 {
            // Linux 6.12, `kvm_pv_enable_async_pf_int`: 0 too needs a local APIC in the kernel.
            let taken = usize::from(index != ASYNC_PF_INT);
            assert_eq!(other.set_msrs(0, &entry).unwrap(), taken, "{index:#x}");
        }
    }
    other.set_xcrs(0, &vm.xcrs(0).unwrap()).unwrap();
    other.set_sregs(0, &vm.sregs(0).unwrap()).unwrap();
    other.set_vcpu_events(0, &vm.vcpu_events(0).unwrap()).unwrap();
    other.set_debug_regs(0, &vm.debug_regs(0).unwrap()).unwrap();
    other.set_xsave(0, &vm.xsave(0).unwrap()).unwrap();
    other.set_regs(0, &vm.regs(0).unwrap()).unwrap();
    let nested = get_nested(&mut from);
    let mut other = Instance::new(other);
    assert_eq!(set_nested(&mut other, &nested), Ok(Answer::Value(0)));
    assert_eq!(get_nested(&mut other), nested, "what was set is read back");
    other
}

#[test]
fn a_nested_guest_goes_on_in_another_vm() {
    for vendor in VENDORS {
        for seed in 0..2 {
            let image = image(vendor, seed);
            let bare = run_bare(&image, Box::new(Tame), LIMIT);
            let nested = in_l2(&bare);
            let in_l1 = (1..5).map(|part| bare.ticks * part / 5);
            let places = nested.iter().copied().step_by(nested.len() / 8 + 1).chain(in_l1);
            let mut seen = 0;
            for tick in places {
                let mut vm = plain(&image);
                let mut client = Client::default();
                stop_at(&mut vm, &mut client, tick);
                let mut from = Instance::new(vm);
                seen += u32::from(get_nested(&mut from)[0] & 1);
                let mut to = moved(from, &image);
                let stop = client.run(&mut to.vm, LIMIT).unwrap();
                let run = client.finish(&mut to.vm, &image, stop).unwrap();
                let what = format!("{vendor:?} seed {seed} at {tick}");
                assert_eq!((run.stop, run.ticks), (bare.stop, bare.ticks), "{what}");
                assert_eq!(run.registers, bare.registers, "{what}");
                let differs = run.memory.differing(&bare.memory).find(|page| *page >= L2_BASE / 0x1000);
                assert_eq!(differs, None, "{what}: memory");
            }
            assert!(seen > 3, "{vendor:?}: {seen} of the places are in L2");
        }
    }
}

/// An instance that stands in the middle of L2, and the bytes of its nested state.
fn standing_in_l2(vendor: Vendor) -> (Instance, Vec<u8>) {
    let image = image(vendor, 0);
    let bare = run_bare(&image, Box::new(Tame), LIMIT);
    let mut vm = plain(&image);
    stop_at(&mut vm, &mut Client::default(), in_l2(&bare)[0]);
    let mut instance = Instance::new(vm);
    let state = get_nested(&mut instance);
    assert_eq!(state[0], 1, "in L2, whose entry is complete");
    (instance, state)
}

/// Ticks at which L2 is in the middle of something.
fn in_l2(bare: &Run) -> Vec<u64> {
    let switches: Vec<_> = bare
        .records
        .iter()
        .filter(|record| matches!(record.payload, Payload::Entry { .. } | Payload::Exit { .. }))
        .collect();
    let entered = |pair: &[&Record]| {
        matches!(pair[0].payload, Payload::Entry { .. }) && pair[1].tick > pair[0].tick + 2
    };
    switches.windows(2).filter(|pair| entered(pair)).map(|pair| pair[0].tick + 1).collect()
}

/// Runs until so many ticks have passed, and brings the vCPU back to its client.
fn stop_at(vm: &mut Vm, client: &mut Client, tick: u64) {
    assert_eq!(client.run(vm, tick).unwrap(), Stop::Limit);
    vm.kick(0).unwrap();
    while vm.is_running(0) {
        vm.advance(0, 1).unwrap();
    }
}

#[test]
fn nested_states_that_cannot_be_are_refused() {
    type Change = fn(&mut Vec<u8>);
    let put = |state: &mut Vec<u8>, at: usize, value: u64, bytes: usize| {
        state[at..at + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
    };
    // Flags are at 0, the format at 2, the size at 4, the vendor's header from 8, data from 128 on.
    let common: &[(&str, Change)] = &[
        ("a size without a whole head", |s| s[4..8].copy_from_slice(&127_u32.to_le_bytes())),
        ("an undefined flag", |s| s[0] |= 0x10),
        ("a pending entry without a guest", |s| s[0] = s[0] & !1 | 2),
        ("the other vendor's format", |s| s[2] ^= 1),
        ("L2 without data", |s| s[4..8].copy_from_slice(&128_u32.to_le_bytes())),
    ];
    for vendor in VENDORS {
        let (mut instance, state) = standing_in_l2(vendor);
        assert_eq!(set_nested(&mut instance, &state), Ok(Answer::Value(0)), "{vendor:?}");
        for (what, change) in common {
            let mut changed = state.clone();
            change(&mut changed);
            assert_eq!(set_nested(&mut instance, &changed), Err(Errno::Einval), "{vendor:?}: {what}");
        }
        let small = NestedStateHead { size: 128, ..Default::default() };
        let mut client = Bytes::of(&small.to_bytes());
        assert_eq!(set_nested(&mut instance, &state), Ok(Answer::Value(0)));
        assert_eq!(instance.vcpu_ioctl(0, r::GET_NESTED_STATE, 0, &mut client), Err(Errno::E2big));
        let told = NestedStateHead::from_bytes(&client.0[..128]).size;
        assert_eq!((told, state.len()), (128 + 4096, 128 + 4096), "{vendor:?}: so long it is");
        let mut compat = Bytes::of(&NestedStateHead { size: 0x3000, ..Default::default() }.to_bytes());
        assert_eq!(
            instance.vcpu_compat_ioctl(0, r::GET_NESTED_STATE, 0, &mut compat),
            Ok(Answer::Value(0)),
            "32-bit clients have the same structure"
        );
        assert_eq!(compat.0[..state.len()], state);
        assert_eq!(
            instance.vcpu_ioctl(0, r::SET_NESTED_STATE, 0x2fc0, &mut Bytes::of(&state)),
            Err(Errno::Efault)
        );
    }

    let (mut instance, state) = standing_in_l2(Vendor::Intel);
    let header = VmxNestedStateHdr::from_bytes(&state[8..8 + VmxNestedStateHdr::SIZE]);
    let field = |field: Field| 128 + 0x40 + 8 * field.index();
    for (what, at, value, bytes) in [
        ("no VMXON region but a VMCS", 8, u64::MAX, 8),
        ("a VMXON region that is no page", 8, header.vmxon_pa + 8, 8),
        ("a VMXON region beyond the processor's addresses", 8, 1 << 60, 8),
        ("a VMCS that is no page", 16, header.vmcs12_pa + 8, 8),
        ("a VMCS in the VMXON region", 16, header.vmxon_pa, 8),
        ("no VMCS but data", 16, u64::MAX, 8),
        ("an undefined flag of SMM", 24, 4, 2),
        ("SMM without VMX operation before it", 24, 1, 2),
        ("an undefined flag of the header", 28, 2, 4),
        ("an enlightened VMCS", 0, 5, 2),
        ("another revision", 128, 1, 4),
        ("a control that is not allowed", field(Field::PinControls), 0, 8),
        ("a host state that cannot be loaded", field(Field::HostCr3), 1 << 60, 8),
        ("a guest state that cannot be entered", field(Field::GuestRflags), 0, 8),
    ] {
        let mut changed = state.clone();
        put(&mut changed, at, value, bytes);
        assert_eq!(set_nested(&mut instance, &changed), Err(Errno::Einval), "{what}");
    }
    // VMX operation without a current VMCS.
    let mut empty = state.clone();
    put(&mut empty, 0, 0, 2);
    put(&mut empty, 4, 128, 4);
    put(&mut empty, 16, u64::MAX, 8);
    assert_eq!(set_nested(&mut instance, &empty), Ok(Answer::Value(0)));
    assert_eq!(get_nested(&mut instance), empty[..128]);

    let (mut instance, state) = standing_in_l2(Vendor::Amd);
    let header = SvmNestedStateHdr::from_bytes(&state[8..16]);
    let field = |field: VmcbField| 128 + field.vmcb_offset().unwrap();
    for (what, at, value, bytes) in [
        ("a VMCB that is no page", 8, header.vmcb_pa + 8, 8),
        ("an ASID of 0", field(VmcbField::Asid), 0, 4),
        ("a VMRUN that is not intercepted", field(VmcbField::Intercept4), 0, 4),
        ("L1 without paging", field(VmcbField::Cr0), 1, 8),
        ("L1 in virtual-8086 mode", field(VmcbField::Rflags), 0x2_0002, 8),
        ("an EFER of L1's that cannot be", field(VmcbField::Efer), 1 << 9, 8),
    ] {
        let mut changed = state.clone();
        put(&mut changed, at, value, bytes);
        assert_eq!(set_nested(&mut instance, &changed), Err(Errno::Einval), "{what}");
    }
    // Without EFER.SVME, there is only the global interrupt flag, and it is 1.
    let mut plain = Instance::new(empty_vm(Vendor::Amd, Box::new(Tame), Regressions::NONE, 0x1000).unwrap());
    assert_eq!(set_nested(&mut plain, &state), Err(Errno::Einval));
    let idle = get_nested(&mut plain);
    assert_eq!(idle[..8], [0, 1, 1, 0, 128, 0, 0, 0], "GIF");
    let mut off = idle.clone();
    put(&mut off, 0, 0, 2);
    assert_eq!(set_nested(&mut plain, &off), Err(Errno::Einval));
    assert_eq!(set_nested(&mut plain, &idle), Ok(Answer::Value(0)));
}

#[test]
fn capability_msrs_are_those_of_the_guests_processor() {
    let mut vm = empty_vm(Vendor::Intel, Box::new(Tame), Regressions::NONE, 0x1000).unwrap();
    let mut basic = [MsrEntry { index: msr::IA32_VMX_BASIC, ..Default::default() }];
    assert_eq!(vm.get_msrs(0, &mut basic).unwrap(), 1);
    assert_eq!(basic[0].data >> 32 & 0x1fff, 0x1000, "bytes of a region");
    assert_eq!(vm.set_msrs(0, &basic).unwrap(), 1, "they can be restored");
    basic[0].data ^= 1 << 55;
    assert_eq!(vm.set_msrs(0, &basic).unwrap(), 0);
}
