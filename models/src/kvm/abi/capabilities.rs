//! Capabilities: what `KVM_CHECK_EXTENSION` answers, and exits: what `KVM_RUN` may return with.

use rootmode_arch::Vendor;

use super::{NestedStateHead, PAGE, Plain, State};
use crate::kvm::Errno;

/// A row of the table of capabilities.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// The kernel's name.
    pub name: &'static str,
    /// `KVM_CAP_*`.
    pub number: u32,
    /// What `KVM_CHECK_EXTENSION` answers; the most where that depends on the processor.
    pub value: i32,
    /// What shows that it works.
    pub test: &'static str,
}

/// A row of the table of exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitReason {
    /// The kernel's name.
    pub name: &'static str,
    /// `kvm_run.exit_reason`.
    pub number: u32,
    /// What became of it; absent ones never come.
    pub state: State,
}

macro_rules! capabilities {
    ($($name:ident = $number:literal, $value:expr, $test:literal;)*) => {
        /// Numbers of capabilities, by the kernel's names without `KVM_CAP_`.
        pub mod cap {
            $(#[doc = concat!("`KVM_CAP_", stringify!($name), "`.")] pub const $name: u32 = $number;)*
        }

        /// Every capability that is there. All others answer 0: what is absent is not advertised.
        pub const CAPABILITIES: &[Capability] = &[$(Capability {
            name: concat!("KVM_CAP_", stringify!($name)),
            number: $number,
            value: $value,
            test: $test,
        }),*];
    };
}

capabilities! {
    IRQCHIP = 0, 1, "interrupts_of_the_chips_in_the_kernel_reach_the_guest";
    HLT = 1, 1, "a_guest_prints_and_halts";
    USER_MEMORY = 3, 1, "slots_are_created_moved_logged_and_deleted";
    SET_TSS_ADDR = 4, 1, "settings_of_a_vm_are_kept";
    EXT_CPUID = 7, 1, "the_guest_sees_the_processor_that_the_client_described";
    NR_VCPUS = 9, 4, "two_vcpus_share_memory";
    NR_MEMSLOTS = 10, 32764, "slots_are_created_moved_logged_and_deleted";
    PIT = 11, 1, "the_timer_in_the_kernel_interrupts";
    MP_STATE = 14, 1, "registers_of_every_kind_pass";
    COALESCED_MMIO = 15, 2, "coalesced_writes_do_not_exit";
    SYNC_MMU = 16, 1, "a_clients_memory_is_seen_as_it_is_at_every_entry";
    DESTROY_MEMORY_REGION_WORKS = 21, 1, "slots_are_created_moved_logged_and_deleted";
    USER_NMI = 22, 1, "registers_of_every_kind_pass";
    SET_GUEST_DEBUG = 23, 1, "a_debugger_steps_and_breaks";
    IRQ_ROUTING = 25, 4096, "messages_and_routes_reach_local_apics";
    IRQ_INJECT_STATUS = 26, 1, "lines_say_what_became_of_them";
    JOIN_MEMORY_REGIONS_WORKS = 30, 1, "slots_are_created_moved_logged_and_deleted";
    IRQFD = 32, 1, "counters_of_events_pass_both_ways";
    PIT2 = 33, 1, "the_timer_in_the_kernel_interrupts";
    SET_BOOT_CPU_ID = 34, 1, "settings_of_a_vm_are_kept";
    PIT_STATE2 = 35, 1, "chips_are_saved_and_restored";
    IOEVENTFD = 36, 1, "counters_of_events_pass_both_ways";
    SET_IDENTITY_MAP_ADDR = 37, 1, "settings_of_a_vm_are_kept";
    ADJUST_CLOCK = 39, 0, "settings_of_a_vm_are_kept";
    INTERNAL_ERROR_DATA = 40, 1, "what_cannot_be_emulated_is_an_internal_error";
    VCPU_EVENTS = 41, 1, "registers_of_every_kind_pass";
    INTR_SHADOW = 49, 1, "interrupts_wait_for_their_window";
    DEBUGREGS = 50, 1, "registers_of_every_kind_pass";
    ENABLE_CAP = 54, 1, "settings_of_a_vm_are_kept";
    XSAVE = 55, 1, "vector_registers_survive_their_formats";
    XCRS = 56, 1, "vector_registers_survive_their_formats";
    GET_TSC_KHZ = 61, 1, "registers_of_every_kind_pass";
    MAX_VCPUS = 66, 255, "two_vcpus_share_memory";
    TSC_DEADLINE_TIMER = 72, 1, "the_local_apics_timers_wake_a_halted_vcpu";
    SYNC_REGS = 74, 7, "registers_pass_through_the_mapping";
    SIGNAL_MSI = 77, 1, "messages_and_routes_reach_local_apics";
    READONLY_MEM = 81, 1, "writes_to_read_only_slots_are_the_clients";
    IRQFD_RESAMPLE = 82, 1, "counters_of_events_pass_both_ways";
    DEVICE_CTRL = 89, 1, "a_dead_vm_answers_eio_on_every_descriptor";
    IOAPIC_POLARITY_IGNORED = 97, 1, "interrupts_of_the_chips_in_the_kernel_reach_the_guest";
    ENABLE_CAP_VM = 98, 1, "settings_of_a_vm_are_kept";
    IOEVENTFD_NO_LENGTH = 100, 1, "counters_of_events_pass_both_ways";
    CHECK_EXTENSION_VM = 105, 1, "settings_of_a_vm_are_kept";
    SPLIT_IRQCHIP = 121, 1, "the_clients_io_apic_hears_of_ends_of_interrupts";
    IOEVENTFD_ANY_LENGTH = 122, 1, "counters_of_events_pass_both_ways";
    MAX_VCPU_ID = 128, 255, "two_vcpus_share_memory";
    IMMEDIATE_EXIT = 136, 1, "a_triple_fault_shuts_down_and_immediate_exit_runs_nothing";
    GET_MSR_FEATURES = 153, 1, "lists_say_how_long_they_are";
    COALESCED_PIO = 162, 1, "coalesced_writes_do_not_exit";
    MANUAL_DIRTY_LOG_PROTECT2 = 168, 3, "clients_clear_the_dirty_log_by_themselves";
    NESTED_STATE = 157, 8320, "a_nested_guest_goes_on_in_another_vm";
    X86_USER_SPACE_MSR = 188, 7, "msr_accesses_go_to_the_client_that_asked_for_them";
    X86_MSR_FILTER = 189, 1, "msr_accesses_go_to_the_client_that_asked_for_them";
    DIRTY_LOG_RING = 192, 1_048_576, "pages_are_harvested_from_dirty_rings";
    SREGS2 = 200, 1, "registers_of_every_kind_pass";
    EXIT_HYPERCALL = 201, 1 << 12, "hypercalls_go_to_the_client_that_asked_for_them";
    BINARY_STATS_FD = 203, 1, "statistics_say_what_happened";
    XSAVE2 = 208, 4096, "registers_of_every_kind_pass";
    DIRTY_LOG_RING_ACQ_REL = 223, 1_048_576, "pages_are_harvested_from_dirty_rings";
    USER_MEMORY2 = 231, 1, "settings_of_a_vm_are_kept";
    VM_TYPES = 235, 1, "the_system_answers";
}

/// What `KVM_CHECK_EXTENSION` answers on a host of `vendor`'s.
pub fn capability(number: u32, vendor: Vendor) -> i32 {
    let data = PAGE as i32;
    match number {
        // The bytes of a nested state: VMX has room for a second VMCS, which VMCS shadowing would need.
        cap::NESTED_STATE if vendor == Vendor::Amd => NestedStateHead::SIZE as i32 + data,
        _ => CAPABILITIES.iter().find(|row| row.number == number).map_or(0, |row| row.value),
    }
}

macro_rules! exits {
    ($($name:ident = $number:literal, $state:ident $argument:tt;)*) => {
        /// Every reason for which `KVM_RUN` returns on x86.
        pub const EXITS: &[ExitReason] = &[$(ExitReason {
            name: concat!("KVM_EXIT_", stringify!($name)),
            number: $number,
            state: exits!(@state $state $argument),
        }),*];
    };
    (@state Works $test:literal) => { State::Works($test) };
    (@state Absent $errno:ident) => { State::Absent(Errno::$errno) };
}

exits! {
    UNKNOWN = 0, Absent Einval;
    EXCEPTION = 1, Absent Einval;
    IO = 2, Works "a_guest_prints_and_halts";
    HYPERCALL = 3, Works "hypercalls_go_to_the_client_that_asked_for_them";
    DEBUG = 4, Works "a_debugger_steps_and_breaks";
    HLT = 5, Works "a_guest_prints_and_halts";
    MMIO = 6, Works "memory_without_a_slot_is_the_clients_to_answer";
    IRQ_WINDOW_OPEN = 7, Works "interrupts_wait_for_their_window";
    SHUTDOWN = 8, Works "a_triple_fault_shuts_down_and_immediate_exit_runs_nothing";
    FAIL_ENTRY = 9, Works "a_state_that_cannot_be_entered_fails_the_entry";
    INTR = 10, Works "a_kick_ends_an_endless_loop";
    SET_TPR = 11, Works "lowering_the_task_priority_is_told";
    TPR_ACCESS = 12, Absent Einval;
    NMI = 16, Absent Einval;
    INTERNAL_ERROR = 17, Works "what_cannot_be_emulated_is_an_internal_error";
    SYSTEM_EVENT = 24, Absent Einval;
    IOAPIC_EOI = 26, Works "the_clients_io_apic_hears_of_ends_of_interrupts";
    HYPERV = 27, Absent Einval;
    X86_RDMSR = 29, Works "msr_accesses_go_to_the_client_that_asked_for_them";
    X86_WRMSR = 30, Works "msr_accesses_go_to_the_client_that_asked_for_them";
    DIRTY_RING_FULL = 31, Works "a_full_dirty_ring_stops_its_vcpu";
    X86_BUS_LOCK = 33, Absent Einval;
    XEN = 34, Absent Einval;
    NOTIFY = 37, Absent Einval;
    MEMORY_FAULT = 39, Absent Einval;
}
