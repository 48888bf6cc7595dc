//! How the VM is made: what the bare machine would start with, moved into a VM.

use std::sync::Arc;

use rootmode_arch::choices::{Choices, Tame};
use rootmode_arch::{Feature, Hardware, HostPhysical, Vendor};
use rootmode_cpu::vectors::X87;
use rootmode_cpu::{Effects, Model};
use rootmode_mmu::{Decode, MemoryMap, PhysicalMemory};
use rootmode_models::devices::pc::{Chips, Configuration, Pc};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::abi::{
    CpuidEntry2, IoapicState, Irqchip, LapicState, MEM_READONLY, PAGE, PIT_SPEAKER_DUMMY, PicState,
    PitConfig, PitState2, Plain, UserspaceMemoryRegion,
};
use rootmode_models::kvm::vm::{Failure, HostKernel, Vm, VmConfig, guest_model, host_of, supported};

use super::{Hosted, HostedError};
use crate::machine::{Machine, Parts};
use crate::transparency::put_registers;

impl Hosted {
    /// A VM about to start the image of `parts`, whose processor is the host's. The choices are L0's and the host
    /// processors'.
    ///
    /// # Errors
    /// [`HostedError`] if parts do not fit, or need what a VM does not have.
    pub fn new(parts: &Parts, choices: Box<dyn Choices + Send>) -> Result<Self, HostedError> {
        if parts.firmware.is_some() {
            return Err(HostedError::Absent("firmware"));
        }
        if parts.hardware == Hardware::Hostile {
            return Err(HostedError::Absent("hostile hardware"));
        }
        let bare = Parts { watch: None, ..parts.clone() };
        let staged = Machine::new(&bare, Box::new(Tame))?;
        let mut pc = Pc::of(staged.board.bus()).cloned().ok_or(HostedError::Absent("chipset"))?;
        let chips = pc.give_chips();
        let image = parts.cpu.model();
        let host = Arc::new(host_of(&with_needed(image)));
        let regressions = Regressions::NONE;
        let mut vm = Vm::new(VmConfig {
            host: host.clone(),
            client: None,
            choices,
            kernel: HostKernel::default(),
            regressions,
        })
        .map_err(Failure::from)?;
        vm.create_irqchip()?;
        vm.create_pit2(&PitConfig { flags: PIT_SPEAKER_DUMMY, ..PitConfig::default() })?;
        give_memory(&mut vm, &staged.board.memory, &parts.configuration, &pc.memory_map())?;
        let cpuid = cpuid(&guest_model(&host_of(image)));
        let vcpus = usize::from(parts.configuration.processors);
        for id in 0..parts.configuration.processors {
            let vcpu = vm.create_vcpu(id.into())?;
            vm.set_cpuid2(vcpu, &cpuid)?;
            // Firmware has executed FNINIT.
            let mut fpu = vm.fpu(vcpu)?;
            (fpu.fcw, fpu.fsw, fpu.ftwx) = (X87::INITIAL.control, X87::INITIAL.status, X87::INITIAL.used);
            vm.set_fpu(vcpu, &fpu)?;
        }
        let first = &staged.board.processors()[0].cpu;
        put_registers(&mut vm, 0, first)?;
        vm.set_lapic(0, &LapicState::from(&first.apic.registers(first.clock())))?;
        give_chips(&mut vm, &chips)?;
        let mut hosted =
            Self { vm, pc, deadlines: std::collections::BTreeMap::new(), asked: 0, told: 0, trouble: None };
        let mut effects = Effects::default();
        hosted.pc.start(0, &mut effects);
        // Memory is as the chipset shows it.
        effects.memory_map = None;
        hosted.apply(effects)?;
        for vcpu in 0..vcpus {
            hosted.vm.start(vcpu)?;
        }
        Ok(hosted)
    }
}

/// What the model of KVM needs of a processor: hosts have it, and the image only what its own processor has.
const NEEDED: [(Vendor, &[Feature]); 2] = [
    (Vendor::Intel, &[Feature::Vmx]),
    (Vendor::Amd, &[Feature::Svm, Feature::NestedPaging, Feature::NripSave, Feature::DecodeAssists]),
];

fn with_needed(model: &Model) -> Model {
    let of = NEEDED.into_iter().filter(|(vendor, _)| *vendor == model.vendor());
    let features = of.fold(*model.features(), |all, (_, needed)| all.with_all(needed));
    Model::part(model.vendor(), model.signature(), model.physical_width(), features)
}

/// What KVM supports, with what a client that has the local APIC in the kernel may add.
fn cpuid(model: &Model) -> Vec<CpuidEntry2> {
    let mut entries = supported(model);
    for entry in entries.iter_mut().filter(|entry| entry.function == 1) {
        entry.ecx |= 1 << Feature::Hypervisor.row().bit | 1 << Feature::TscDeadline.row().bit;
    }
    entries
}

/// The chips in the kernel go on where firmware left those of the bare machine.
fn give_chips(vm: &mut Vm, chips: &Chips) -> Result<(), Failure> {
    // The timer first: the 8259 has forgotten the edge of its output.
    let channels = chips.pit.save(0).map(|saved| (&saved).into());
    vm.set_pit2(&PitState2 { channels, ..PitState2::default() })?;
    let states = [
        PicState::from(&chips.pic.save(false)).to_bytes(),
        PicState::from(&chips.pic.save(true)).to_bytes(),
        IoapicState::from(&chips.ioapic.save()).to_bytes(),
    ];
    for (chip_id, bytes) in (0..).zip(states) {
        let mut state = Irqchip { chip_id, pad: 0, chip: [0; 512] };
        state.chip[..bytes.len()].copy_from_slice(&bytes);
        vm.set_irqchip(&state)?;
    }
    Ok(())
}

/// A slot for every range of RAM as the chipset shows it, with what is in it.
fn give_memory(
    vm: &mut Vm,
    from: &PhysicalMemory,
    configuration: &Configuration,
    map: &MemoryMap,
) -> Result<(), Failure> {
    for (slot, (base, bytes, flags)) in (0..).zip(layout(configuration, map)) {
        let (guest_phys_addr, memory_size) = (base, bytes);
        let region =
            UserspaceMemoryRegion { slot, flags, guest_phys_addr, memory_size, ..Default::default() };
        vm.set_memory_region(&region)?;
        let mut page = [0; PAGE as usize];
        for at in (base..base + bytes).step_by(page.len()) {
            from.read(HostPhysical(at), &mut page);
            if page.iter().any(|byte| *byte != 0) {
                vm.write_memory(at, &page);
            }
        }
    }
    Ok(())
}

/// Slots: base, bytes, flags.
fn layout(configuration: &Configuration, map: &MemoryMap) -> Vec<(u64, u64, u32)> {
    let mut shadows: Vec<_> = map.shadows.iter().collect();
    shadows.sort_by_key(|shadow| shadow.base);
    let mut slots: Vec<(u64, u64, u32)> = Vec::new();
    let mut add = |base: u64, end: u64, flags: u32| match slots.last_mut() {
        _ if base >= end => {}
        Some((start, bytes, same)) if *start + *bytes == base && *same == flags => *bytes += end - base,
        _ => slots.push((base, end - base, flags)),
    };
    for (base, bytes) in Pc::ram(configuration) {
        let (mut at, end) = (base.0, base.0 + bytes);
        for shadow in &shadows {
            let (start, behind) =
                (shadow.base.0.clamp(at, end), (shadow.base.0 + shadow.bytes).clamp(at, end));
            add(at, start, 0);
            match (shadow.loads, shadow.stores) {
                (Decode::Ram, Decode::Ram) => add(start, behind, 0),
                (Decode::Ram, _) => add(start, behind, MEM_READONLY),
                _ => {}
            }
            at = behind;
        }
        add(at, end, 0);
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootmode_mmu::Shadow;

    #[test]
    fn slots_are_what_the_chipset_shows() {
        let shadow = |base, bytes, loads, stores| Shadow { base: HostPhysical(base), bytes, loads, stores };
        let map = MemoryMap {
            line_20_low: false,
            shadows: vec![
                shadow(0xf_0000, 0x1_0000, Decode::Ram, Decode::Elsewhere),
                shadow(0xa_0000, 0x2_0000, Decode::Management, Decode::Management),
                shadow(0xc_0000, 0x4000, Decode::Ram, Decode::Ram),
            ],
        };
        let configuration = Configuration { memory: 5 << 30, ..Configuration::default() };
        assert_eq!(
            layout(&configuration, &map),
            [
                (0, 0xa_0000, 0),
                (0xc_0000, 0x3_0000, 0),
                (0xf_0000, 0x1_0000, MEM_READONLY),
                (0x10_0000, 0xc000_0000 - 0x10_0000, 0),
                (1 << 32, 2 << 30, 0),
            ]
        );
    }
}
