//! Every ioctl of KVM on x86, with its full number, and what became of it here.

use super::{events::*, interrupts::*, memory::*, plain::Plain, registers::*};
use crate::kvm::Errno;

/// On which descriptor an ioctl is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// `/dev/kvm`.
    System,
    /// A VM.
    Vm,
    /// A vCPU.
    Vcpu,
    /// A device made with `KVM_CREATE_DEVICE`.
    Device,
}

/// What became of a part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It works; the test that shows it.
    Works(&'static str),
    /// It is absent, and answers with this error.
    Absent(Errno),
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// The kernel's name.
    pub name: &'static str,
    /// The full number: direction, size of the argument, type 0xae, number.
    pub number: u32,
    /// On which descriptor.
    pub object: Object,
    /// What became of it.
    pub state: State,
}

/// `_IO`, `_IOW`, `_IOR`, `_IOWR` of the ioctl numbers of KVM.
const fn io(number: u32) -> u32 {
    0xae << 8 | number
}
const fn iow(number: u32, size: usize) -> u32 {
    1 << 30 | (size as u32) << 16 | io(number)
}
const fn ior(number: u32, size: usize) -> u32 {
    2 << 30 | (size as u32) << 16 | io(number)
}
const fn iowr(number: u32, size: usize) -> u32 {
    3 << 30 | (size as u32) << 16 | io(number)
}

macro_rules! requests {
    ($($name:ident = $number:expr, $object:ident, $state:ident $argument:tt;)*) => {
        /// Numbers of ioctls, by the kernel's names without `KVM_`.
        pub mod request {
            use super::*;
            $(#[doc = concat!("`KVM_", stringify!($name), "`.")] pub const $name: u32 = $number;)*
        }

        /// Every ioctl, by descriptor and number.
        pub const REQUESTS: &[Request] = &[$(Request {
            name: concat!("KVM_", stringify!($name)),
            number: $number,
            object: Object::$object,
            state: requests!(@state $state $argument),
        }),*];
    };
    (@state Works $test:literal) => { State::Works($test) };
    (@state Absent $errno:ident) => { State::Absent(Errno::$errno) };
}

requests! {
    GET_API_VERSION = io(0x00), System, Works "the_system_answers";
    CREATE_VM = io(0x01), System, Works "the_system_answers";
    GET_MSR_INDEX_LIST = iowr(0x02, MsrListHead::SIZE), System, Works "lists_say_how_long_they_are";
    CHECK_EXTENSION = io(0x03), System, Works "the_system_answers";
    GET_VCPU_MMAP_SIZE = io(0x04), System, Works "the_system_answers";
    GET_SUPPORTED_CPUID = iowr(0x05, Cpuid2Head::SIZE), System, Works "lists_say_how_long_they_are";
    GET_EMULATED_CPUID = iowr(0x09, Cpuid2Head::SIZE), System, Works "lists_say_how_long_they_are";
    GET_MSR_FEATURE_INDEX_LIST = iowr(0x0a, MsrListHead::SIZE), System, Works "lists_say_how_long_they_are";
    X86_GET_MCE_CAP_SUPPORTED = ior(0x9d, 8), System, Absent Einval;
    GET_SUPPORTED_HV_CPUID = iowr(0xc1, Cpuid2Head::SIZE), System, Absent Einval;

    CREATE_VCPU = io(0x41), Vm, Works "a_client_in_bytes_runs_a_guest";
    GET_DIRTY_LOG = iow(0x42, DirtyLog::SIZE), Vm, Works "a_client_in_bytes_runs_a_guest";
    SET_NR_MMU_PAGES = io(0x44), Vm, Works "settings_of_a_vm_are_kept";
    GET_NR_MMU_PAGES = io(0x45), Vm, Works "settings_of_a_vm_are_kept";
    SET_USER_MEMORY_REGION = iow(0x46, UserspaceMemoryRegion::SIZE), Vm, Works "a_client_in_bytes_runs_a_guest";
    SET_TSS_ADDR = io(0x47), Vm, Works "settings_of_a_vm_are_kept";
    SET_IDENTITY_MAP_ADDR = iow(0x48, 8), Vm, Works "settings_of_a_vm_are_kept";
    SET_USER_MEMORY_REGION2 = iow(0x49, UserspaceMemoryRegion2::SIZE), Vm, Works "settings_of_a_vm_are_kept";
    CREATE_IRQCHIP = io(0x60), Vm, Works "interrupts_of_the_chips_in_the_kernel_reach_the_guest";
    IRQ_LINE = iow(0x61, IrqLevel::SIZE), Vm, Works "lines_say_what_became_of_them";
    GET_IRQCHIP = iowr(0x62, Irqchip::SIZE), Vm, Works "chips_are_saved_and_restored";
    SET_IRQCHIP = ior(0x63, Irqchip::SIZE), Vm, Works "chips_are_saved_and_restored";
    CREATE_PIT = io(0x64), Vm, Works "older_calls_reach_the_timer_too";
    GET_PIT = iowr(0x65, PitState::SIZE), Vm, Works "older_calls_reach_the_timer_too";
    SET_PIT = ior(0x66, PitState::SIZE), Vm, Works "older_calls_reach_the_timer_too";
    REGISTER_COALESCED_MMIO = iow(0x67, CoalescedMmioZone::SIZE), Vm, Works "a_client_in_bytes_runs_a_guest";
    UNREGISTER_COALESCED_MMIO = iow(0x68, CoalescedMmioZone::SIZE), Vm, Works "a_client_in_bytes_runs_a_guest";
    IRQ_LINE_STATUS = iowr(0x67, IrqLevel::SIZE), Vm, Works "lines_say_what_became_of_them";
    SET_GSI_ROUTING = iow(0x6a, IrqRoutingHead::SIZE), Vm, Works "messages_and_routes_reach_local_apics";
    REINJECT_CONTROL = io(0x71), Vm, Absent Enxio;
    IRQFD = iow(0x76, Irqfd::SIZE), Vm, Works "counters_of_events_pass_both_ways";
    CREATE_PIT2 = iow(0x77, PitConfig::SIZE), Vm, Works "the_timer_in_the_kernel_interrupts";
    SET_BOOT_CPU_ID = io(0x78), Vm, Works "settings_of_a_vm_are_kept";
    IOEVENTFD = iow(0x79, Ioeventfd::SIZE), Vm, Works "counters_of_events_pass_both_ways";
    XEN_HVM_CONFIG = iow(0x7a, 56), Vm, Absent Enotty;
    SET_CLOCK = iow(0x7b, ClockData::SIZE), Vm, Works "settings_of_a_vm_are_kept";
    GET_CLOCK = ior(0x7c, ClockData::SIZE), Vm, Works "settings_of_a_vm_are_kept";
    GET_PIT2 = ior(0x9f, PitState2::SIZE), Vm, Works "chips_are_saved_and_restored";
    SET_PIT2 = iow(0xa0, PitState2::SIZE), Vm, Works "chips_are_saved_and_restored";
    SIGNAL_MSI = iow(0xa5, Msi::SIZE), Vm, Works "messages_and_routes_reach_local_apics";
    MEMORY_ENCRYPT_OP = iowr(0xba, 8), Vm, Absent Enotty;
    MEMORY_ENCRYPT_REG_REGION = ior(0xbb, EncRegion::SIZE), Vm, Absent Enotty;
    MEMORY_ENCRYPT_UNREG_REGION = ior(0xbc, EncRegion::SIZE), Vm, Absent Enotty;
    CLEAR_DIRTY_LOG = iowr(0xc0, ClearDirtyLog::SIZE), Vm, Works "clients_clear_the_dirty_log_by_themselves";
    SET_PMU_EVENT_FILTER = iow(0xb2, 32), Vm, Absent Enotty;
    X86_SET_MSR_FILTER = iow(0xc6, MsrFilter::SIZE), Vm, Works "settings_of_a_vm_are_kept";
    RESET_DIRTY_RINGS = io(0xc7), Vm, Works "pages_are_harvested_from_dirty_rings";
    GET_STATS_FD = io(0xce), Vm, Works "statistics_say_what_happened";
    SET_MEMORY_ATTRIBUTES = iow(0xd2, MemoryAttributes::SIZE), Vm, Absent Enotty;
    CREATE_GUEST_MEMFD = iowr(0xd4, CreateGuestMemfd::SIZE), Vm, Absent Enotty;
    CREATE_DEVICE = iowr(0xe0, CreateDevice::SIZE), Vm, Works "a_dead_vm_answers_eio_on_every_descriptor";

    RUN = io(0x80), Vcpu, Works "a_client_in_bytes_runs_a_guest";
    GET_REGS = ior(0x81, Regs::SIZE), Vcpu, Works "a_client_in_bytes_runs_a_guest";
    SET_REGS = iow(0x82, Regs::SIZE), Vcpu, Works "a_client_in_bytes_runs_a_guest";
    GET_SREGS = ior(0x83, Sregs::SIZE), Vcpu, Works "a_client_in_bytes_runs_a_guest";
    SET_SREGS = iow(0x84, Sregs::SIZE), Vcpu, Works "a_client_in_bytes_runs_a_guest";
    TRANSLATE = iowr(0x85, Translation::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    INTERRUPT = iow(0x86, Interrupt::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    GET_MSRS = iowr(0x88, MsrsHead::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_MSRS = iow(0x89, MsrsHead::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_SIGNAL_MASK = iow(0x8b, SignalMask::SIZE), Vcpu, Absent Einval;
    GET_FPU = ior(0x8c, Fpu::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_FPU = iow(0x8d, Fpu::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    GET_LAPIC = ior(0x8e, LapicState::SIZE), Vcpu, Works "chips_are_saved_and_restored";
    SET_LAPIC = iow(0x8f, LapicState::SIZE), Vcpu, Works "chips_are_saved_and_restored";
    SET_CPUID2 = iow(0x90, Cpuid2Head::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    GET_CPUID2 = iowr(0x91, Cpuid2Head::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    TPR_ACCESS_REPORTING = iowr(0x92, TprAccessCtl::SIZE), Vcpu, Absent Einval;
    SET_VAPIC_ADDR = iow(0x93, VapicAddr::SIZE), Vcpu, Absent Einval;
    GET_MP_STATE = ior(0x98, MpState::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_MP_STATE = iow(0x99, MpState::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    NMI = io(0x9a), Vcpu, Works "registers_of_every_kind_pass";
    SET_GUEST_DEBUG = iow(0x9b, GuestDebug::SIZE), Vcpu, Works "a_debugger_steps_and_breaks";
    X86_SETUP_MCE = iow(0x9c, 8), Vcpu, Absent Einval;
    X86_SET_MCE = iow(0x9e, X86Mce::SIZE), Vcpu, Absent Einval;
    GET_VCPU_EVENTS = ior(0x9f, VcpuEvents::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_VCPU_EVENTS = iow(0xa0, VcpuEvents::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    GET_DEBUGREGS = ior(0xa1, DebugRegs::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_DEBUGREGS = iow(0xa2, DebugRegs::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_TSC_KHZ = io(0xa2), Vcpu, Works "registers_of_every_kind_pass";
    GET_TSC_KHZ = io(0xa3), Vcpu, Works "registers_of_every_kind_pass";
    ENABLE_CAP = iow(0xa3, EnableCap::SIZE), Vcpu, Works "settings_of_a_vm_are_kept";
    GET_XSAVE = ior(0xa4, Xsave::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_XSAVE = iow(0xa5, Xsave::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    GET_XCRS = ior(0xa6, Xcrs::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_XCRS = iow(0xa7, Xcrs::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    GET_ONE_REG = iow(0xab, OneReg::SIZE), Vcpu, Absent Einval;
    SET_ONE_REG = iow(0xac, OneReg::SIZE), Vcpu, Absent Einval;
    KVMCLOCK_CTRL = io(0xad), Vcpu, Absent Einval;
    SMI = io(0xb7), Vcpu, Absent Enotty;
    GET_NESTED_STATE = iowr(0xbe, NestedStateHead::SIZE), Vcpu, Works "a_nested_guest_goes_on_in_another_vm";
    SET_NESTED_STATE = iow(0xbf, NestedStateHead::SIZE), Vcpu, Works "nested_states_that_cannot_be_are_refused";
    GET_SREGS2 = ior(0xcc, Sregs2::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    SET_SREGS2 = iow(0xcd, Sregs2::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    GET_XSAVE2 = ior(0xcf, Xsave::SIZE), Vcpu, Works "registers_of_every_kind_pass";
    PRE_FAULT_MEMORY = iowr(0xd5, PreFaultMemory::SIZE), Vcpu, Absent Einval;

    SET_DEVICE_ATTR = iow(0xe1, DeviceAttr::SIZE), Device, Works "a_dead_vm_answers_eio_on_every_descriptor";
    GET_DEVICE_ATTR = iow(0xe2, DeviceAttr::SIZE), Device, Works "a_dead_vm_answers_eio_on_every_descriptor";
    HAS_DEVICE_ATTR = iow(0xe3, DeviceAttr::SIZE), Device, Works "a_dead_vm_answers_eio_on_every_descriptor";
}

/// The error of an ioctl that does not work on `object`: its own if it is in the table, else what Linux says to a number
/// that it does not know there.
pub fn absent(object: Object, number: u32) -> Errno {
    let row = REQUESTS.iter().find(|row| row.object == object && row.number == number);
    match (row.map(|row| row.state), object) {
        (Some(State::Absent(errno)), _) => errno,
        (_, Object::Vm | Object::Device) => Errno::Enotty,
        (_, Object::System | Object::Vcpu) => Errno::Einval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_kernels_headers() {
        let number = |name| REQUESTS.iter().find(|row| row.name == name).map(|row| row.number);
        assert_eq!(number("KVM_GET_API_VERSION"), Some(0xae00));
        assert_eq!(number("KVM_SET_USER_MEMORY_REGION"), Some(0x4020_ae46));
        assert_eq!(number("KVM_GET_REGS"), Some(0x8090_ae81));
        assert_eq!(number("KVM_SET_SREGS"), Some(0x4138_ae84));
        assert_eq!(number("KVM_GET_SUPPORTED_CPUID"), Some(0xc008_ae05));
        assert_eq!(number("KVM_ENABLE_CAP"), Some(0x4068_aea3));
        assert_eq!(number("KVM_GET_TSC_KHZ"), Some(0xaea3), "the number alone does not identify an ioctl");
        assert_eq!(number("KVM_X86_SET_MSR_FILTER"), Some(0x4188_aec6));
    }

    #[test]
    fn no_number_stands_for_two_ioctls_of_one_descriptor() {
        for (n, row) in REQUESTS.iter().enumerate() {
            let same = |other: &Request| other.object == row.object && other.number == row.number;
            assert_eq!(REQUESTS.iter().position(same), Some(n), "{}", row.name);
        }
    }
}
