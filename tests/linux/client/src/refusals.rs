//! Entries that are broken on purpose: state that KVM takes from its client and that the processor refuses
//! (Linux 6.12, `__set_sregs` and `kvm_vcpu_ioctl_x86_set_vcpu_events` in arch/x86/kvm/x86.c look at little of it).

use kvm_bindings::*;

use crate::kvm::{Exit, Kvm};
use crate::machine::{Checked, Machine, kernel};
use crate::programs::Program;

/// A way to break an entry into a guest in 64-bit mode.
pub(crate) struct Refusal {
    pub(crate) name: &'static str,
    spoil: fn(&Kvm, &Machine) -> Checked,
}

macro_rules! refusals {
    ($($name:ident)*) => {
        /// All of them.
        pub(crate) const REFUSALS: &[Refusal] =
            &[$(Refusal { name: stringify!($name), spoil: $name },)*];
    };
}

refusals! { tr_type cs_long_and_default ss_read_only gdtr_base sti_without_if interrupt_without_if bound_in_long_mode cr3_width }

impl Refusal {
    /// What the processor refused the entry with, as KVM hands it over.
    pub(crate) fn reason(&self, kvm: &Kvm) -> Result<u64, String> {
        let machine = Machine::new(kvm, false)?;
        machine.start(Program::hlt, 0)?;
        (self.spoil)(kvm, &machine)?;
        match machine.exit()? {
            Exit::Other(KVM_EXIT_FAIL_ENTRY, reason, _) => Ok(reason),
            other => Err(format!("{other:x?} instead of a refused entry")),
        }
    }
}

fn with_system(machine: &Machine, change: impl Fn(&mut kvm_sregs)) -> Checked {
    let mut system = machine.vcpu.system().map_err(kernel("KVM_GET_SREGS"))?;
    change(&mut system);
    machine.vcpu.set_system(system).map_err(kernel("KVM_SET_SREGS"))
}

fn with_events(machine: &Machine, events: kvm_vcpu_events) -> Checked {
    machine.vcpu.set_events(events).map_err(kernel("KVM_SET_VCPU_EVENTS"))
}

/// A busy 16-bit TSS.
fn tr_type(_: &Kvm, machine: &Machine) -> Checked {
    with_system(machine, |system| system.tr.type_ = 3)
}

fn cs_long_and_default(_: &Kvm, machine: &Machine) -> Checked {
    with_system(machine, |system| system.cs.db = 1)
}

fn ss_read_only(_: &Kvm, machine: &Machine) -> Checked {
    with_system(machine, |system| system.ss.type_ = 1)
}

fn gdtr_base(_: &Kvm, machine: &Machine) -> Checked {
    with_system(machine, |system| system.gdt.base = 1 << 62)
}

fn sti_without_if(_: &Kvm, machine: &Machine) -> Checked {
    let mut events = kvm_vcpu_events { flags: KVM_VCPUEVENT_VALID_SHADOW, ..Default::default() };
    events.interrupt.shadow = KVM_X86_SHADOW_INT_STI as u8;
    with_events(machine, events)
}

fn interrupt_without_if(_: &Kvm, machine: &Machine) -> Checked {
    let mut events = kvm_vcpu_events::default();
    (events.interrupt.injected, events.interrupt.nr) = (1, 0x40);
    with_events(machine, events)
}

/// #BR, of an instruction that 64-bit mode does not have.
fn bound_in_long_mode(_: &Kvm, machine: &Machine) -> Checked {
    let mut events = kvm_vcpu_events::default();
    (events.exception.injected, events.exception.nr) = (1, 5);
    with_events(machine, events)
}

/// The guest's CPUID has more physical-address bits than the processor, and CR3 uses one of these.
fn cr3_width(kvm: &Kvm, machine: &Machine) -> Checked {
    let mut cpuid = kvm.supported_cpuid().map_err(kernel("KVM_GET_SUPPORTED_CPUID"))?;
    for entry in cpuid.entries().iter_mut().filter(|entry| entry.function == 0x8000_0008) {
        entry.eax = entry.eax & !0xff | 52;
    }
    machine.vcpu.set_cpuid(&mut cpuid).map_err(kernel("KVM_SET_CPUID2"))?;
    with_system(machine, |system| system.cr3 |= 1 << 50)
}
