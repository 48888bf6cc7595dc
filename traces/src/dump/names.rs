//! Names under which people write fields in lists: Linux's constants for the VMCS, KVM's and the manual's names for
//! the VMCB, capability MSRs.

use super::types::VmcbKey;

/// VMCS fields: encoding and the constant that Linux (`asm/vmx.h`), KVM's selftests and kvm-unit-tests use for it.
/// Encodings: SDM Vol. 3D "Field Encoding in VMCS".
pub(crate) const VMCS: &[(u32, &str)] = &[
    (0x0000, "VIRTUAL_PROCESSOR_ID"),
    (0x0002, "POSTED_INTR_NV"),
    (0x0004, "EPTP_INDEX"),
    (0x0006, "HLAT_PREFIX_SIZE"),
    (0x0008, "LAST_PID_POINTER_INDEX"),
    (0x0800, "GUEST_ES_SELECTOR"),
    (0x0802, "GUEST_CS_SELECTOR"),
    (0x0804, "GUEST_SS_SELECTOR"),
    (0x0806, "GUEST_DS_SELECTOR"),
    (0x0808, "GUEST_FS_SELECTOR"),
    (0x080a, "GUEST_GS_SELECTOR"),
    (0x080c, "GUEST_LDTR_SELECTOR"),
    (0x080e, "GUEST_TR_SELECTOR"),
    (0x0810, "GUEST_INTR_STATUS"),
    (0x0812, "GUEST_PML_INDEX"),
    (0x0814, "GUEST_UINV"),
    (0x0c00, "HOST_ES_SELECTOR"),
    (0x0c02, "HOST_CS_SELECTOR"),
    (0x0c04, "HOST_SS_SELECTOR"),
    (0x0c06, "HOST_DS_SELECTOR"),
    (0x0c08, "HOST_FS_SELECTOR"),
    (0x0c0a, "HOST_GS_SELECTOR"),
    (0x0c0c, "HOST_TR_SELECTOR"),
    (0x2000, "IO_BITMAP_A"),
    (0x2002, "IO_BITMAP_B"),
    (0x2004, "MSR_BITMAP"),
    (0x2006, "VM_EXIT_MSR_STORE_ADDR"),
    (0x2008, "VM_EXIT_MSR_LOAD_ADDR"),
    (0x200a, "VM_ENTRY_MSR_LOAD_ADDR"),
    (0x200c, "EXECUTIVE_VMCS_POINTER"),
    (0x200e, "PML_ADDRESS"),
    (0x2010, "TSC_OFFSET"),
    (0x2012, "VIRTUAL_APIC_PAGE_ADDR"),
    (0x2014, "APIC_ACCESS_ADDR"),
    (0x2016, "POSTED_INTR_DESC_ADDR"),
    (0x2018, "VM_FUNCTION_CONTROL"),
    (0x201a, "EPT_POINTER"),
    (0x201c, "EOI_EXIT_BITMAP0"),
    (0x201e, "EOI_EXIT_BITMAP1"),
    (0x2020, "EOI_EXIT_BITMAP2"),
    (0x2022, "EOI_EXIT_BITMAP3"),
    (0x2024, "EPTP_LIST_ADDRESS"),
    (0x2026, "VMREAD_BITMAP"),
    (0x2028, "VMWRITE_BITMAP"),
    (0x202a, "VE_INFORMATION_ADDRESS"),
    (0x202c, "XSS_EXIT_BITMAP"),
    (0x202e, "ENCLS_EXITING_BITMAP"),
    (0x2030, "SPP_TABLE_POINTER"),
    (0x2032, "TSC_MULTIPLIER"),
    (0x2034, "TERTIARY_VM_EXEC_CONTROL"),
    (0x2036, "ENCLV_EXITING_BITMAP"),
    (0x2038, "LOW_PASID_DIR_ADDR"),
    (0x203a, "HIGH_PASID_DIR_ADDR"),
    (0x203c, "SHARED_EPT_POINTER"),
    (0x203e, "PCONFIG_EXITING_BITMAP"),
    (0x2040, "HLAT_POINTER"),
    (0x2042, "PID_POINTER_TABLE"),
    (0x2044, "SECONDARY_VM_EXIT_CONTROLS"),
    (0x204a, "SPEC_CTRL_MASK"),
    (0x204c, "SPEC_CTRL_SHADOW"),
    (0x2400, "GUEST_PHYSICAL_ADDRESS"),
    (0x2800, "VMCS_LINK_POINTER"),
    (0x2802, "GUEST_IA32_DEBUGCTL"),
    (0x2804, "GUEST_IA32_PAT"),
    (0x2806, "GUEST_IA32_EFER"),
    (0x2808, "GUEST_IA32_PERF_GLOBAL_CTRL"),
    (0x280a, "GUEST_PDPTR0"),
    (0x280c, "GUEST_PDPTR1"),
    (0x280e, "GUEST_PDPTR2"),
    (0x2810, "GUEST_PDPTR3"),
    (0x2812, "GUEST_BNDCFGS"),
    (0x2814, "GUEST_IA32_RTIT_CTL"),
    (0x2816, "GUEST_IA32_LBR_CTL"),
    (0x2818, "GUEST_IA32_PKRS"),
    (0x2c00, "HOST_IA32_PAT"),
    (0x2c02, "HOST_IA32_EFER"),
    (0x2c04, "HOST_IA32_PERF_GLOBAL_CTRL"),
    (0x2c06, "HOST_IA32_PKRS"),
    (0x4000, "PIN_BASED_VM_EXEC_CONTROL"),
    (0x4002, "CPU_BASED_VM_EXEC_CONTROL"),
    (0x4004, "EXCEPTION_BITMAP"),
    (0x4006, "PAGE_FAULT_ERROR_CODE_MASK"),
    (0x4008, "PAGE_FAULT_ERROR_CODE_MATCH"),
    (0x400a, "CR3_TARGET_COUNT"),
    (0x400c, "VM_EXIT_CONTROLS"),
    (0x400e, "VM_EXIT_MSR_STORE_COUNT"),
    (0x4010, "VM_EXIT_MSR_LOAD_COUNT"),
    (0x4012, "VM_ENTRY_CONTROLS"),
    (0x4014, "VM_ENTRY_MSR_LOAD_COUNT"),
    (0x4016, "VM_ENTRY_INTR_INFO_FIELD"),
    (0x4018, "VM_ENTRY_EXCEPTION_ERROR_CODE"),
    (0x401a, "VM_ENTRY_INSTRUCTION_LEN"),
    (0x401c, "TPR_THRESHOLD"),
    (0x401e, "SECONDARY_VM_EXEC_CONTROL"),
    (0x4020, "PLE_GAP"),
    (0x4022, "PLE_WINDOW"),
    (0x4024, "NOTIFY_WINDOW"),
    (0x4400, "VM_INSTRUCTION_ERROR"),
    (0x4402, "VM_EXIT_REASON"),
    (0x4404, "VM_EXIT_INTR_INFO"),
    (0x4406, "VM_EXIT_INTR_ERROR_CODE"),
    (0x4408, "IDT_VECTORING_INFO_FIELD"),
    (0x440a, "IDT_VECTORING_ERROR_CODE"),
    (0x440c, "VM_EXIT_INSTRUCTION_LEN"),
    (0x440e, "VMX_INSTRUCTION_INFO"),
    (0x4800, "GUEST_ES_LIMIT"),
    (0x4802, "GUEST_CS_LIMIT"),
    (0x4804, "GUEST_SS_LIMIT"),
    (0x4806, "GUEST_DS_LIMIT"),
    (0x4808, "GUEST_FS_LIMIT"),
    (0x480a, "GUEST_GS_LIMIT"),
    (0x480c, "GUEST_LDTR_LIMIT"),
    (0x480e, "GUEST_TR_LIMIT"),
    (0x4810, "GUEST_GDTR_LIMIT"),
    (0x4812, "GUEST_IDTR_LIMIT"),
    (0x4814, "GUEST_ES_AR_BYTES"),
    (0x4816, "GUEST_CS_AR_BYTES"),
    (0x4818, "GUEST_SS_AR_BYTES"),
    (0x481a, "GUEST_DS_AR_BYTES"),
    (0x481c, "GUEST_FS_AR_BYTES"),
    (0x481e, "GUEST_GS_AR_BYTES"),
    (0x4820, "GUEST_LDTR_AR_BYTES"),
    (0x4822, "GUEST_TR_AR_BYTES"),
    (0x4824, "GUEST_INTERRUPTIBILITY_INFO"),
    (0x4826, "GUEST_ACTIVITY_STATE"),
    (0x4828, "GUEST_SMBASE"),
    (0x482a, "GUEST_SYSENTER_CS"),
    (0x482e, "VMX_PREEMPTION_TIMER_VALUE"),
    (0x4c00, "HOST_IA32_SYSENTER_CS"),
    (0x6000, "CR0_GUEST_HOST_MASK"),
    (0x6002, "CR4_GUEST_HOST_MASK"),
    (0x6004, "CR0_READ_SHADOW"),
    (0x6006, "CR4_READ_SHADOW"),
    (0x6008, "CR3_TARGET_VALUE0"),
    (0x600a, "CR3_TARGET_VALUE1"),
    (0x600c, "CR3_TARGET_VALUE2"),
    (0x600e, "CR3_TARGET_VALUE3"),
    (0x6400, "EXIT_QUALIFICATION"),
    (0x6402, "EXIT_IO_RCX"),
    (0x6404, "EXIT_IO_RSI"),
    (0x6406, "EXIT_IO_RDI"),
    (0x6408, "EXIT_IO_RIP"),
    (0x640a, "GUEST_LINEAR_ADDRESS"),
    (0x6800, "GUEST_CR0"),
    (0x6802, "GUEST_CR3"),
    (0x6804, "GUEST_CR4"),
    (0x6806, "GUEST_ES_BASE"),
    (0x6808, "GUEST_CS_BASE"),
    (0x680a, "GUEST_SS_BASE"),
    (0x680c, "GUEST_DS_BASE"),
    (0x680e, "GUEST_FS_BASE"),
    (0x6810, "GUEST_GS_BASE"),
    (0x6812, "GUEST_LDTR_BASE"),
    (0x6814, "GUEST_TR_BASE"),
    (0x6816, "GUEST_GDTR_BASE"),
    (0x6818, "GUEST_IDTR_BASE"),
    (0x681a, "GUEST_DR7"),
    (0x681c, "GUEST_RSP"),
    (0x681e, "GUEST_RIP"),
    (0x6820, "GUEST_RFLAGS"),
    (0x6822, "GUEST_PENDING_DBG_EXCEPTIONS"),
    (0x6824, "GUEST_SYSENTER_ESP"),
    (0x6826, "GUEST_SYSENTER_EIP"),
    (0x6828, "GUEST_S_CET"),
    (0x682a, "GUEST_SSP"),
    (0x682c, "GUEST_INTR_SSP_TABLE"),
    (0x6c00, "HOST_CR0"),
    (0x6c02, "HOST_CR3"),
    (0x6c04, "HOST_CR4"),
    (0x6c06, "HOST_FS_BASE"),
    (0x6c08, "HOST_GS_BASE"),
    (0x6c0a, "HOST_TR_BASE"),
    (0x6c0c, "HOST_GDTR_BASE"),
    (0x6c0e, "HOST_IDTR_BASE"),
    (0x6c10, "HOST_IA32_SYSENTER_ESP"),
    (0x6c12, "HOST_IA32_SYSENTER_EIP"),
    (0x6c14, "HOST_RSP"),
    (0x6c16, "HOST_RIP"),
    (0x6c18, "HOST_S_CET"),
    (0x6c1a, "HOST_SSP"),
    (0x6c1c, "HOST_INTR_SSP_TABLE"),
];

/// Further spellings in use, already folded by [`fold`]: the manual's phrases and other hypervisors' constants.
const VMCS_ALIASES: &[(&str, u32)] = &[
    ("VPID", 0x0000),
    ("POSTED_INTERRUPT_NOTIFICATION_VECTOR", 0x0002),
    ("GUEST_INTERRUPT_STATUS", 0x0810),
    ("PML_INDEX", 0x0812),
    ("ADDRESS_OF_I_O_BITMAP_A", 0x2000),
    ("ADDRESS_OF_I_O_BITMAP_B", 0x2002),
    ("ADDRESS_OF_IO_BITMAP_A", 0x2000),
    ("ADDRESS_OF_IO_BITMAP_B", 0x2002),
    ("ADDRESS_OF_MSR_BITMAPS", 0x2004),
    ("MSR_BITMAPS", 0x2004),
    ("VM_EXIT_MSR_STORE_ADDRESS", 0x2006),
    ("VM_EXIT_MSR_LOAD_ADDRESS", 0x2008),
    ("VM_ENTRY_MSR_LOAD_ADDRESS", 0x200a),
    ("VIRTUAL_APIC_ADDRESS", 0x2012),
    ("APIC_ACCESS_ADDRESS", 0x2014),
    ("POSTED_INTERRUPT_DESCRIPTOR_ADDRESS", 0x2016),
    ("VM_FUNCTION_CONTROLS", 0x2018),
    ("EPTP", 0x201a),
    ("EPTP_LIST_ADDR", 0x2024),
    ("TERTIARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS", 0x2034),
    ("LINK_POINTER", 0x2800),
    ("GUEST_DEBUGCTL", 0x2802),
    ("GUEST_PAT", 0x2804),
    ("GUEST_EFER", 0x2806),
    ("GUEST_PERF_GLOBAL_CTRL", 0x2808),
    ("GUEST_PDPTE0", 0x280a),
    ("GUEST_PDPTE1", 0x280c),
    ("GUEST_PDPTE2", 0x280e),
    ("GUEST_PDPTE3", 0x2810),
    ("GUEST_IA32_BNDCFGS", 0x2812),
    ("HOST_PAT", 0x2c00),
    ("HOST_EFER", 0x2c02),
    ("HOST_PERF_GLOBAL_CTRL", 0x2c04),
    ("PIN_BASED_VM_EXECUTION_CONTROLS", 0x4000),
    ("PIN_BASED_CONTROLS", 0x4000),
    ("PIN_CONTROLS", 0x4000),
    ("PINBASED", 0x4000),
    ("PRIMARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS", 0x4002),
    ("PROCESSOR_BASED_CONTROLS", 0x4002),
    ("PROC_BASED_CONTROLS", 0x4002),
    ("CPUBASED", 0x4002),
    ("EXIT_CONTROLS", 0x400c),
    ("EXITCONTROLS", 0x400c),
    ("ENTRY_CONTROLS", 0x4012),
    ("ENTRYCONTROLS", 0x4012),
    ("VM_ENTRY_INTERRUPTION_INFORMATION_FIELD", 0x4016),
    ("VM_ENTRY_INTERRUPTION_INFORMATION", 0x4016),
    ("VM_ENTRY_INTR_INFO", 0x4016),
    ("VM_ENTRY_INSTRUCTION_LENGTH", 0x401a),
    ("SECONDARY_PROCESSOR_BASED_VM_EXECUTION_CONTROLS", 0x401e),
    ("SECONDARYEXEC", 0x401e),
    ("VM_INSTRUCTION_ERROR_FIELD", 0x4400),
    ("EXIT_REASON", 0x4402),
    ("GUEST_INTERRUPTIBILITY_STATE", 0x4824),
    ("GUEST_IA32_SYSENTER_CS", 0x482a),
    ("GUEST_PENDING_DEBUG_EXCEPTIONS", 0x6822),
    ("GUEST_IA32_SYSENTER_ESP", 0x6824),
    ("GUEST_IA32_SYSENTER_EIP", 0x6826),
    ("GUEST_IA32_S_CET", 0x6828),
    ("HOST_SYSENTER_CS", 0x4c00),
    ("HOST_SYSENTER_ESP", 0x6c10),
    ("HOST_SYSENTER_EIP", 0x6c12),
    ("HOST_IA32_S_CET", 0x6c18),
];

/// VMCB fields: offset, size in bytes, KVM's name (as its dump and its structures have it), the manual's name.
/// Offsets: APM Vol. 2 "Layout of VMCB"; fields of the control area first, then of the state save area at 0x400.
/// Segment registers are spelled out by [`lookup_vmcb_field`].
pub(crate) const VMCB: &[(u16, u8, &str, &str)] = &[
    (0x000, 4, "intercept_cr", ""),
    (0x000, 2, "cr_read", ""),
    (0x002, 2, "cr_write", ""),
    (0x004, 4, "intercept_dr", ""),
    (0x004, 2, "dr_read", ""),
    (0x006, 2, "dr_write", ""),
    (0x008, 4, "exceptions", "intercept_exceptions"),
    (0x00c, 4, "intercept_word3", ""),
    (0x010, 4, "intercept_word4", ""),
    (0x014, 4, "intercept_word5", ""),
    (0x03c, 2, "pause_filter_threshold", "pause_filter_thresh"),
    (0x03e, 2, "pause_filter_count", ""),
    (0x040, 8, "iopm_base_pa", ""),
    (0x048, 8, "msrpm_base_pa", ""),
    (0x050, 8, "tsc_offset", ""),
    (0x058, 4, "asid", "guest_asid"),
    (0x05c, 1, "tlb_ctl", "tlb_control"),
    (0x060, 4, "int_ctl", ""),
    (0x064, 4, "int_vector", ""),
    (0x068, 4, "int_state", "interrupt_shadow"),
    (0x070, 4, "exit_code", "exitcode"),
    (0x074, 4, "exit_code_hi", ""),
    (0x078, 8, "exit_info1", "exitinfo1"),
    (0x080, 8, "exit_info2", "exitinfo2"),
    (0x088, 4, "exit_int_info", "exitintinfo"),
    (0x08c, 4, "exit_int_info_err", ""),
    (0x090, 8, "nested_ctl", "np_enable"),
    (0x098, 8, "avic_vapic_bar", "avic_apic_bar"),
    (0x0a0, 8, "ghcb", "ghcb_gpa"),
    (0x0a8, 4, "event_inj", "eventinj"),
    (0x0ac, 4, "event_inj_err", ""),
    (0x0b0, 8, "nested_cr3", "n_cr3"),
    (0x0b8, 8, "virt_ext", "lbr_virtualization_enable"),
    (0x0c0, 4, "clean", "vmcb_clean_bits"),
    (0x0c8, 8, "next_rip", "nrip"),
    (0x0d0, 1, "insn_len", "number_of_bytes_fetched"),
    (0x0e0, 8, "avic_backing_page", "avic_apic_backing_page_pointer"),
    (0x0f0, 8, "avic_logical_id", "avic_logical_table_pointer"),
    (0x0f8, 8, "avic_physical_id", "avic_physical_table_pointer"),
    (0x108, 8, "vmsa_pa", "vmsa_pointer"),
    (0x138, 8, "allowed_sev_features", ""),
    (0x140, 8, "guest_sev_features", ""),
    (0x4ca, 1, "vmpl", ""),
    (0x4cb, 1, "cpl", ""),
    (0x4d0, 8, "efer", ""),
    (0x548, 8, "cr4", ""),
    (0x550, 8, "cr3", ""),
    (0x558, 8, "cr0", ""),
    (0x560, 8, "dr7", ""),
    (0x568, 8, "dr6", ""),
    (0x570, 8, "rflags", ""),
    (0x578, 8, "rip", ""),
    (0x5d8, 8, "rsp", ""),
    (0x5e0, 8, "s_cet", ""),
    (0x5e8, 8, "ssp", ""),
    (0x5f0, 8, "isst_addr", "isst"),
    (0x5f8, 8, "rax", ""),
    (0x600, 8, "star", ""),
    (0x608, 8, "lstar", ""),
    (0x610, 8, "cstar", ""),
    (0x618, 8, "sfmask", ""),
    (0x620, 8, "kernel_gs_base", "kernelgsbase"),
    (0x628, 8, "sysenter_cs", ""),
    (0x630, 8, "sysenter_esp", ""),
    (0x638, 8, "sysenter_eip", ""),
    (0x640, 8, "cr2", ""),
    (0x668, 8, "g_pat", "gpat"),
    (0x670, 8, "dbgctl", ""),
    (0x678, 8, "br_from", ""),
    (0x680, 8, "br_to", ""),
    (0x688, 8, "last_excp_from", "excp_from"),
    (0x690, 8, "last_excp_to", "excp_to"),
];

/// Segment registers of the VMCB's state save area: name and offset of the 16-byte descriptor (selector 2,
/// attributes 2, limit 4, base 8).
pub(crate) const VMCB_SEGMENTS: &[(&str, u16)] = &[
    ("es", 0x400),
    ("cs", 0x410),
    ("ss", 0x420),
    ("ds", 0x430),
    ("fs", 0x440),
    ("gs", 0x450),
    ("gdtr", 0x460),
    ("ldtr", 0x470),
    ("idtr", 0x480),
    ("tr", 0x490),
];

/// VMX capability MSRs 0x480 to 0x493 and the other MSRs that entry rules ask for.
const MSRS: &[(u32, &str)] = &[
    (0x03a, "IA32_FEATURE_CONTROL"),
    (0x480, "IA32_VMX_BASIC"),
    (0x481, "IA32_VMX_PINBASED_CTLS"),
    (0x482, "IA32_VMX_PROCBASED_CTLS"),
    (0x483, "IA32_VMX_EXIT_CTLS"),
    (0x484, "IA32_VMX_ENTRY_CTLS"),
    (0x485, "IA32_VMX_MISC"),
    (0x486, "IA32_VMX_CR0_FIXED0"),
    (0x487, "IA32_VMX_CR0_FIXED1"),
    (0x488, "IA32_VMX_CR4_FIXED0"),
    (0x489, "IA32_VMX_CR4_FIXED1"),
    (0x48a, "IA32_VMX_VMCS_ENUM"),
    (0x48b, "IA32_VMX_PROCBASED_CTLS2"),
    (0x48c, "IA32_VMX_EPT_VPID_CAP"),
    (0x48d, "IA32_VMX_TRUE_PINBASED_CTLS"),
    (0x48e, "IA32_VMX_TRUE_PROCBASED_CTLS"),
    (0x48f, "IA32_VMX_TRUE_EXIT_CTLS"),
    (0x490, "IA32_VMX_TRUE_ENTRY_CTLS"),
    (0x491, "IA32_VMX_VMFUNC"),
    (0x492, "IA32_VMX_PROCBASED_CTLS3"),
    (0x493, "IA32_VMX_EXIT_CTLS2"),
];

/// Width in bits of a VMCS field, from bits 14:13 of its encoding; natural width counts as 64.
pub(crate) fn vmcs_bits(encoding: u32) -> u8 {
    match (encoding >> 13) & 3 {
        0 => 16,
        2 => 32,
        _ => 64,
    }
}

/// Linux's constant for a VMCS field by encoding, e.g. `GUEST_CR0` for 0x6800; none for an encoding it has not.
pub fn linux_field_name(encoding: u32) -> Option<&'static str> {
    VMCS.iter().find(|(e, _)| *e == encoding).map(|(_, n)| *n)
}

/// Upper case, every run of other characters than letters and digits one `_`, none at the ends.
pub(crate) fn fold(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_uppercase());
        } else if !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
    }
    while out.ends_with('_') {
        out.pop();
    }
    out
}

/// The encoding of a VMCS field written as Linux's constant in either case (`GUEST_CR0`, `guest_cr0`), the
/// manual's words (`Guest CS access rights`, `VM-entry controls`), with or without a leading `VMCS` and a trailing
/// `FULL`, or as a number (`0x6800`) if that is a known encoding.
pub fn lookup_vmcs_field(name: &str) -> Option<u32> {
    let name = name.trim();
    if let Some(hex) = name.strip_prefix("0x").or_else(|| name.strip_prefix("0X")) {
        let encoding = u32::from_str_radix(hex, 16).ok()?;
        return linux_field_name(encoding).map(|_| encoding);
    }
    let folded = fold(name);
    let mut folded = folded.strip_prefix("VMCS_").filter(|r| *r != "LINK_POINTER").unwrap_or(&folded);
    folded = folded.strip_suffix("_FULL").unwrap_or(folded);
    if let Some((e, _)) = VMCS.iter().find(|(_, n)| *n == folded) {
        return Some(*e);
    }
    if let Some((_, e)) = VMCS_ALIASES.iter().find(|(n, _)| *n == folded) {
        return Some(*e);
    }
    // Access rights and selectors have many spellings: "Guest CS access rights", GUEST_CS_AR, GUEST_CS_SEL.
    let respelled = [
        ("_ACCESS_RIGHTS", "_AR_BYTES"),
        ("_ACCESS_RIGHT", "_AR_BYTES"),
        ("_ATTR", "_AR_BYTES"),
        ("_AR", "_AR_BYTES"),
        ("_SEL", "_SELECTOR"),
        ("_ADDRESS", "_ADDR"),
    ]
    .iter()
    .find_map(|(from, to)| folded.strip_suffix(from).map(|stem| format!("{stem}{to}")))?;
    VMCS.iter().find(|(_, n)| *n == respelled).map(|(e, _)| *e)
}

/// The VMCB field written as KVM's or the manual's name (`asid`, `GUEST_ASID`, `cs.selector`, `save.cr0`,
/// `control.int_ctl`), or as an offset (`0x558` for the 8-byte CR0) if a field starts there.
pub fn lookup_vmcb_field(name: &str) -> Option<VmcbKey> {
    let name = name.trim();
    if let Some(hex) = name.strip_prefix("0x").or_else(|| name.strip_prefix("0X")) {
        let offset = u16::from_str_radix(hex, 16).ok()?;
        let (offset, size, ..) = VMCB.iter().find(|(o, ..)| *o == offset)?;
        return Some(VmcbKey { offset: *offset, size: *size });
    }
    let folded = fold(name).to_ascii_lowercase();
    let mut rest = folded.as_str();
    for prefix in ["vmcb_", "vmcb12_", "vmcb02_", "control_", "ctrl_", "save_"] {
        rest = rest.strip_prefix(prefix).unwrap_or(rest);
    }
    if let Some((offset, size, ..)) = VMCB.iter().find(|(_, _, kvm, manual)| *kvm == rest || *manual == rest)
    {
        return Some(VmcbKey { offset: *offset, size: *size });
    }
    let (segment, part) = rest.split_once('_')?;
    let (_, offset) = VMCB_SEGMENTS.iter().find(|(n, _)| *n == segment)?;
    let (delta, size) = match part {
        "selector" | "sel" => (0, 2),
        "attrib" | "attributes" | "attr" => (2, 2),
        "limit" => (4, 4),
        "base" => (8, 8),
        _ => return None,
    };
    Some(VmcbKey { offset: offset + delta, size })
}

/// The index of a VMX capability MSR, or of IA32_FEATURE_CONTROL, by the manual's or Linux's name
/// (`IA32_VMX_BASIC`, `MSR_IA32_VMX_BASIC`).
pub fn lookup_capability_msr(name: &str) -> Option<u32> {
    let folded = fold(name);
    let folded = folded.strip_prefix("MSR_").unwrap_or(&folded);
    MSRS.iter().find(|(_, n)| *n == folded).map(|(i, _)| *i)
}

/// The manual's name of a VMX capability MSR, or of IA32_FEATURE_CONTROL.
pub fn capability_msr_name(index: u32) -> Option<&'static str> {
    MSRS.iter().find(|(i, _)| *i == index).map(|(_, n)| *n)
}
