//! `struct kvm_run`: the page that a vCPU shares with its client.

use super::events::VcpuEvents;
use super::plain::structures;
use super::registers::{Regs, Sregs};

/// Bytes of the part of `struct kvm_run` that depends on the exit.
pub const EXIT_BYTES: usize = 256;
/// Bytes of the part for synchronised registers.
pub const SYNC_BYTES: usize = 2048;
/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// `KVM_PIO_PAGE_OFFSET`: the page of the vCPU's mapping that holds the data of port accesses.
pub const PIO_PAGE_OFFSET: u64 = 1;
/// `KVM_COALESCED_MMIO_PAGE_OFFSET`: the page that holds the ring of coalesced accesses.
pub const COALESCED_MMIO_PAGE_OFFSET: u64 = 2;
/// `KVM_DIRTY_LOG_PAGE_OFFSET`: the page at which the dirty ring begins.
pub const DIRTY_LOG_PAGE_OFFSET: u64 = 64;
/// `KVM_GET_VCPU_MMAP_SIZE`: `struct kvm_run`, the port data, the ring.
pub const VCPU_MMAP_SIZE: u64 = 3 * PAGE;

structures! {
    Run = "kvm_run" {
        request_interrupt_window: u8, immediate_exit: u8, padding1: [u8; 6],
        exit_reason: u32, ready_for_interrupt_injection: u8, if_flag: u8, flags: u16,
        cr8: u64, apic_base: u64,
        exit: [u8; EXIT_BYTES],
        kvm_valid_regs: u64, kvm_dirty_regs: u64,
        s: [u8; SYNC_BYTES],
    }
    SyncRegs = "kvm_sync_regs" { regs: Regs, sregs: Sregs, events: VcpuEvents, }
    FailEntry = "kvm_run.fail_entry" { hardware_entry_failure_reason: u64, cpu: u32, pad: u32, }
    Io = "kvm_run.io" { direction: u8, size: u8, port: u16, count: u32, data_offset: u64, }
    Debug = "kvm_debug_exit_arch" { exception: u32, pad: u32, pc: u64, dr6: u64, dr7: u64, }
    Mmio = "kvm_run.mmio" { phys_addr: u64, data: [u8; 8], len: u32, is_write: u8, pad: [u8; 3], }
    Hypercall = "kvm_run.hypercall" { nr: u64, args: [u64; 6], ret: u64, flags: u64, }
    Internal = "kvm_run.internal" { suberror: u32, ndata: u32, data: [u64; 16], }
    EmulationFailure = "kvm_run.emulation_failure" {
        suberror: u32, ndata: u32, flags: u64, insn_size: u8, insn_bytes: [u8; 15],
    }
    SystemEvent = "kvm_run.system_event" { type_: u32, ndata: u32, data: [u64; 16], }
    Eoi = "kvm_run.eoi" { vector: u8, }
    Msr = "kvm_run.msr" { error: u8, pad: [u8; 7], reason: u32, index: u32, data: u64, }
    Notify = "kvm_run.notify" { flags: u32, }
    MemoryFault = "kvm_run.memory_fault" { flags: u64, gpa: u64, size: u64, }
}
