//! Structures that carry a vCPU's registers.

use super::plain::structures;

structures! {
    Regs = "kvm_regs" {
        rax: u64, rbx: u64, rcx: u64, rdx: u64,
        rsi: u64, rdi: u64, rsp: u64, rbp: u64,
        r8: u64, r9: u64, r10: u64, r11: u64,
        r12: u64, r13: u64, r14: u64, r15: u64,
        rip: u64, rflags: u64,
    }
    Segment = "kvm_segment" {
        base: u64, limit: u32, selector: u16,
        type_: u8, present: u8, dpl: u8, db: u8, s: u8, l: u8, g: u8, avl: u8, unusable: u8, padding: u8,
    }
    Dtable = "kvm_dtable" { base: u64, limit: u16, padding: [u16; 3], }
    Sregs = "kvm_sregs" {
        cs: Segment, ds: Segment, es: Segment, fs: Segment, gs: Segment, ss: Segment, tr: Segment, ldt: Segment,
        gdt: Dtable, idt: Dtable,
        cr0: u64, cr2: u64, cr3: u64, cr4: u64, cr8: u64, efer: u64, apic_base: u64,
        interrupt_bitmap: [u64; 4],
    }
    Sregs2 = "kvm_sregs2" {
        cs: Segment, ds: Segment, es: Segment, fs: Segment, gs: Segment, ss: Segment, tr: Segment, ldt: Segment,
        gdt: Dtable, idt: Dtable,
        cr0: u64, cr2: u64, cr3: u64, cr4: u64, cr8: u64, efer: u64, apic_base: u64,
        flags: u64, pdptrs: [u64; 4],
    }
    Fpu = "kvm_fpu" {
        fpr: [[u8; 16]; 8],
        fcw: u16, fsw: u16, ftwx: u8, pad1: u8, last_opcode: u16, last_ip: u64, last_dp: u64,
        xmm: [[u8; 16]; 16],
        mxcsr: u32, pad2: u32,
    }
    Xsave = "kvm_xsave" { region: [u32; 1024], }
    Xcr = "kvm_xcr" { xcr: u32, reserved: u32, value: u64, }
    Xcrs = "kvm_xcrs" { nr_xcrs: u32, flags: u32, xcrs: [Xcr; 16], padding: [u64; 16], }
    DebugRegs = "kvm_debugregs" { db: [u64; 4], dr6: u64, dr7: u64, flags: u64, reserved: [u64; 9], }
    Translation = "kvm_translation" {
        linear_address: u64, physical_address: u64, valid: u8, writeable: u8, usermode: u8, pad: [u8; 5],
    }
    MsrEntry = "kvm_msr_entry" { index: u32, reserved: u32, data: u64, }
    /// The head; entries follow.
    MsrsHead = "kvm_msrs" { nmsrs: u32, pad: u32, }
    /// The head; indices of 4 bytes follow.
    MsrListHead = "kvm_msr_list" { nmsrs: u32, }
    CpuidEntry2 = "kvm_cpuid_entry2" {
        function: u32, index: u32, flags: u32, eax: u32, ebx: u32, ecx: u32, edx: u32, padding: [u32; 3],
    }
    /// The head; entries follow.
    Cpuid2Head = "kvm_cpuid2" { nent: u32, padding: u32, }
    OneReg = "kvm_one_reg" { id: u64, addr: u64, }
    /// The head; data of the format's own size follow.
    NestedStateHead = "kvm_nested_state" { flags: u16, format: u16, size: u32, hdr: [u8; 120], }
    VmxNestedStateHdr = "kvm_vmx_nested_state_hdr" {
        vmxon_pa: u64, vmcs12_pa: u64, smm_flags: u16, pad: u16, flags: u32, preemption_timer_deadline: u64,
    }
    SvmNestedStateHdr = "kvm_svm_nested_state_hdr" { vmcb_pa: u64, }
}
