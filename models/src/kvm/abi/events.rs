//! Structures about events, run states, debugging, time.

use super::plain::structures;

structures! {
    EventException = "kvm_vcpu_events.exception" {
        injected: u8, nr: u8, has_error_code: u8, pending: u8, error_code: u32,
    }
    EventInterrupt = "kvm_vcpu_events.interrupt" { injected: u8, nr: u8, soft: u8, shadow: u8, }
    EventNmi = "kvm_vcpu_events.nmi" { injected: u8, pending: u8, masked: u8, pad: u8, }
    EventSmi = "kvm_vcpu_events.smi" { smm: u8, pending: u8, smm_inside_nmi: u8, latched_init: u8, }
    VcpuEvents = "kvm_vcpu_events" {
        exception: EventException, interrupt: EventInterrupt, nmi: EventNmi,
        sipi_vector: u32, flags: u32,
        smi: EventSmi, triple_fault_pending: u8, reserved: [u8; 26],
        exception_has_payload: u8, exception_payload: u64,
    }
    MpState = "kvm_mp_state" { mp_state: u32, }
    Interrupt = "kvm_interrupt" { irq: u32, }
    GuestDebug = "kvm_guest_debug" { control: u32, pad: u32, debugreg: [u64; 8], }
    X86Mce = "kvm_x86_mce" {
        status: u64, addr: u64, misc: u64, mcg_status: u64, bank: u8, pad1: [u8; 7], pad2: [u64; 3],
    }
    ClockData = "kvm_clock_data" {
        clock: u64, flags: u32, pad0: u32, realtime: u64, host_tsc: u64, pad: [u32; 4],
    }
    TprAccessCtl = "kvm_tpr_access_ctl" { enabled: u32, flags: u32, reserved: [u32; 8], }
    VapicAddr = "kvm_vapic_addr" { vapic_addr: u64, }
    EnableCap = "kvm_enable_cap" { cap: u32, flags: u32, args: [u64; 4], pad: [u8; 64], }
    CreateDevice = "kvm_create_device" { type_: u32, fd: u32, flags: u32, }
    DeviceAttr = "kvm_device_attr" { flags: u32, group: u32, attr: u64, addr: u64, }
    StatsHeader = "kvm_stats_header" {
        flags: u32, name_size: u32, num_desc: u32, id_offset: u32, desc_offset: u32, data_offset: u32,
    }
    /// The head; the name follows.
    StatsDesc = "kvm_stats_desc" { flags: u32, exponent: i16, size: u16, offset: u32, bucket_size: u32, }
    EncRegion = "kvm_enc_region" { addr: u64, size: u64, }
}
