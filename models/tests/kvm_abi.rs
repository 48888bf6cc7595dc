//! The interface's structures against those that `bindgen` made of the kernel's headers.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use std::mem::{offset_of, size_of};

use kvm_bindings as c;
use rootmode_models::kvm::abi::{self, Plain};

/// Compares sizes and the offsets of the fields that have the same name in both.
macro_rules! same {
    ($($own:ident = $theirs:ident { $($field:ident),* $(,)? })*) => {$({
        assert_eq!(size_of::<abi::$own>(), size_of::<c::$theirs>(), stringify!($theirs));
        assert_eq!(<abi::$own as Plain>::SIZE, size_of::<abi::$own>(), stringify!($own));
        $(assert_eq!(
            offset_of!(abi::$own, $field),
            offset_of!(c::$theirs, $field),
            concat!(stringify!($theirs), ".", stringify!($field)),
        );)*
    })*};
}

#[test]
fn registers_lie_where_the_kernel_has_them() {
    same! {
        Regs = kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r15, rip, rflags }
        Segment = kvm_segment {
            base, limit, selector, type_, present, dpl, db, s, l, g, avl, unusable, padding,
        }
        Dtable = kvm_dtable { base, limit, padding }
        Sregs = kvm_sregs {
            cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, cr0, cr2, cr3, cr4, cr8, efer, apic_base,
            interrupt_bitmap,
        }
        Sregs2 = kvm_sregs2 { cs, ldt, gdt, idt, cr0, cr2, cr3, cr4, cr8, efer, apic_base, flags, pdptrs }
        Fpu = kvm_fpu { fpr, fcw, fsw, ftwx, pad1, last_opcode, last_ip, last_dp, xmm, mxcsr, pad2 }
        Xsave = kvm_xsave { region }
        Xcr = kvm_xcr { xcr, reserved, value }
        Xcrs = kvm_xcrs { nr_xcrs, flags, xcrs, padding }
        DebugRegs = kvm_debugregs { db, dr6, dr7, flags, reserved }
        Translation = kvm_translation { linear_address, physical_address, valid, writeable, usermode, pad }
        MsrEntry = kvm_msr_entry { index, reserved, data }
        MsrsHead = kvm_msrs { nmsrs, pad }
        MsrListHead = kvm_msr_list { nmsrs }
        CpuidEntry2 = kvm_cpuid_entry2 { function, index, flags, eax, ebx, ecx, edx, padding }
        Cpuid2Head = kvm_cpuid2 { nent, padding }
        OneReg = kvm_one_reg { id, addr }
        NestedStateHead = kvm_nested_state { flags, format, size, hdr }
        VmxNestedStateHdr = kvm_vmx_nested_state_hdr {
            vmxon_pa, vmcs12_pa, pad, flags, preemption_timer_deadline,
        }
        SvmNestedStateHdr = kvm_svm_nested_state_hdr { vmcb_pa }
    }
    assert_eq!(
        offset_of!(abi::VmxNestedStateHdr, smm_flags),
        offset_of!(c::kvm_vmx_nested_state_hdr, smm.flags)
    );
}

#[test]
fn events_lie_where_the_kernel_has_them() {
    same! {
        VcpuEvents = kvm_vcpu_events {
            exception, interrupt, nmi, sipi_vector, flags, smi, reserved, exception_has_payload,
            exception_payload,
        }
        MpState = kvm_mp_state { mp_state }
        Interrupt = kvm_interrupt { irq }
        GuestDebug = kvm_guest_debug { control, pad }
        X86Mce = kvm_x86_mce { status, addr, misc, mcg_status, bank, pad1, pad2 }
        ClockData = kvm_clock_data { clock, flags, pad0, realtime, host_tsc, pad }
        TprAccessCtl = kvm_tpr_access_ctl { enabled, flags, reserved }
        VapicAddr = kvm_vapic_addr { vapic_addr }
        EnableCap = kvm_enable_cap { cap, flags, args, pad }
        CreateDevice = kvm_create_device { type_, fd, flags }
        DeviceAttr = kvm_device_attr { flags, group, attr, addr }
        StatsHeader = kvm_stats_header { flags, name_size, num_desc, id_offset, desc_offset, data_offset }
        StatsDesc = kvm_stats_desc { flags, exponent, size, offset, bucket_size }
        EncRegion = kvm_enc_region { addr, size }
    }
    assert_eq!(offset_of!(abi::GuestDebug, debugreg), offset_of!(c::kvm_guest_debug, arch.debugreg));
    let (own, theirs) = (offset_of!(abi::VcpuEvents, exception), offset_of!(c::kvm_vcpu_events, exception));
    assert_eq!(own, theirs);
    assert_eq!(
        offset_of!(abi::VcpuEvents, exception.error_code),
        offset_of!(c::kvm_vcpu_events, exception.error_code)
    );
    assert_eq!(
        offset_of!(abi::VcpuEvents, interrupt.shadow),
        offset_of!(c::kvm_vcpu_events, interrupt.shadow)
    );
    assert_eq!(offset_of!(abi::VcpuEvents, nmi.masked), offset_of!(c::kvm_vcpu_events, nmi.masked));
    assert_eq!(
        offset_of!(abi::VcpuEvents, smi.latched_init),
        offset_of!(c::kvm_vcpu_events, smi.latched_init)
    );
    assert_eq!(
        offset_of!(abi::VcpuEvents, triple_fault_pending),
        offset_of!(c::kvm_vcpu_events, triple_fault.pending)
    );
}

#[test]
fn memory_and_filters_lie_where_the_kernel_has_them() {
    same! {
        UserspaceMemoryRegion = kvm_userspace_memory_region {
            slot, flags, guest_phys_addr, memory_size, userspace_addr,
        }
        UserspaceMemoryRegion2 = kvm_userspace_memory_region2 {
            slot, flags, guest_phys_addr, memory_size, userspace_addr, guest_memfd_offset, guest_memfd, pad1,
            pad2,
        }
        DirtyLog = kvm_dirty_log { slot, padding1 }
        ClearDirtyLog = kvm_clear_dirty_log { slot, num_pages, first_page }
        DirtyGfn = kvm_dirty_gfn { flags, slot, offset }
        MemoryAttributes = kvm_memory_attributes { address, size, attributes, flags }
        CreateGuestMemfd = kvm_create_guest_memfd { size, flags, reserved }
        PreFaultMemory = kvm_pre_fault_memory { gpa, size, flags, padding }
        CoalescedMmioZone = kvm_coalesced_mmio_zone { addr, size }
        CoalescedMmio = kvm_coalesced_mmio { phys_addr, len, data }
        CoalescedMmioRing = kvm_coalesced_mmio_ring { first, last }
        MsrFilterRange = kvm_msr_filter_range { flags, nmsrs, base, bitmap }
        MsrFilter = kvm_msr_filter { flags, ranges }
        SignalMask = kvm_signal_mask { len }
    }
    assert_eq!(offset_of!(abi::DirtyLog, dirty_bitmap), offset_of!(c::kvm_dirty_log, __bindgen_anon_1));
    assert_eq!(
        offset_of!(abi::ClearDirtyLog, dirty_bitmap),
        offset_of!(c::kvm_clear_dirty_log, __bindgen_anon_1)
    );
}

#[test]
fn interrupt_controllers_lie_where_the_kernel_has_them() {
    same! {
        LapicState = kvm_lapic_state { regs }
        PicState = kvm_pic_state {
            last_irr, irr, imr, isr, priority_add, irq_base, read_reg_select, poll, special_mask, init_state,
            auto_eoi, rotate_on_auto_eoi, special_fully_nested_mode, init4, elcr, elcr_mask,
        }
        IoapicState = kvm_ioapic_state { base_address, ioregsel, id, irr, pad, redirtbl }
        Irqchip = kvm_irqchip { chip_id, pad, chip }
        PitChannelState = kvm_pit_channel_state {
            count, latched_count, count_latched, status_latched, status, read_state, write_state, write_latch,
            rw_mode, mode, bcd, gate, count_load_time,
        }
        PitState = kvm_pit_state { channels }
        PitState2 = kvm_pit_state2 { channels, flags, reserved }
        PitConfig = kvm_pit_config { flags, pad }
        ReinjectControl = kvm_reinject_control { pit_reinject, reserved }
        IrqLevel = kvm_irq_level { level }
        Msi = kvm_msi { address_lo, address_hi, data, flags, devid, pad }
        IrqRoutingHead = kvm_irq_routing { nr, flags }
        IrqRoutingEntry = kvm_irq_routing_entry { gsi, type_, flags, pad, u }
        Irqfd = kvm_irqfd { fd, gsi, flags, resamplefd, pad }
        Ioeventfd = kvm_ioeventfd { datamatch, addr, len, fd, flags, pad }
    }
}

/// Compares a structure of the exit union, whose end may be padded by the compiler there.
macro_rules! exits {
    ($($own:ident = $theirs:ident { $($field:ident),* $(,)? })*) => {$({
        assert_eq!(size_of::<abi::$own>(), size_of::<c::$theirs>(), stringify!($own));
        $(assert_eq!(
            offset_of!(abi::$own, $field),
            offset_of!(c::$theirs, $field),
            concat!(stringify!($own), ".", stringify!($field)),
        );)*
    })*};
}

#[test]
fn the_run_page_lies_where_the_kernel_has_it() {
    same! {
        Run = kvm_run {
            request_interrupt_window, immediate_exit, padding1, exit_reason, ready_for_interrupt_injection,
            if_flag, flags, cr8, apic_base, kvm_valid_regs, kvm_dirty_regs, s,
        }
        SyncRegs = kvm_sync_regs { regs, sregs, events }
        Debug = kvm_debug_exit_arch { exception, pad, pc, dr6, dr7 }
    }
    assert_eq!(offset_of!(abi::Run, exit), offset_of!(c::kvm_run, __bindgen_anon_1));
    exits! {
        FailEntry = kvm_run__bindgen_ty_1__bindgen_ty_2 { hardware_entry_failure_reason, cpu }
        Io = kvm_run__bindgen_ty_1__bindgen_ty_4 { direction, size, port, count, data_offset }
        Mmio = kvm_run__bindgen_ty_1__bindgen_ty_6 { phys_addr, data, len, is_write }
        Hypercall = kvm_run__bindgen_ty_1__bindgen_ty_8 { nr, args, ret }
        Internal = kvm_run__bindgen_ty_1__bindgen_ty_13 { suberror, ndata, data }
        EmulationFailure = kvm_run__bindgen_ty_1__bindgen_ty_14 { suberror, ndata, flags }
        SystemEvent = kvm_run__bindgen_ty_1__bindgen_ty_19 { type_, ndata }
        Eoi = kvm_run__bindgen_ty_1__bindgen_ty_21 { vector }
        Msr = kvm_run__bindgen_ty_1__bindgen_ty_23 { error, pad, reason, index, data }
        Notify = kvm_run__bindgen_ty_1__bindgen_ty_26 { flags }
        MemoryFault = kvm_run__bindgen_ty_1__bindgen_ty_27 { flags, gpa, size }
    }
    assert_eq!(abi::PIO_PAGE_OFFSET, u64::from(c::KVM_PIO_PAGE_OFFSET));
    assert_eq!(abi::COALESCED_MMIO_PAGE_OFFSET, u64::from(c::KVM_COALESCED_MMIO_PAGE_OFFSET));
}

#[test]
fn bytes_and_structures_tell_the_same() {
    let bytes: Vec<u8> = (0..=255).cycle().take(abi::Sregs::SIZE).collect();
    let sregs = abi::Sregs::from_bytes(&bytes);
    assert_eq!(sregs.to_bytes(), bytes);
    assert_eq!(sregs.cs.limit, 0x0b0a_0908, "fields are little-endian, one behind the other");
    assert_eq!(
        abi::Regs::from_bytes(&[7]),
        abi::Regs { rax: 7, ..Default::default() },
        "missing bytes are zero"
    );
}
