//! Names under which people write fields in lists: Linux's constants for the VMCS, KVM's and the manual's names for
//! the VMCB, capability MSRs.

use rootmode_vmx::Field;
use rootmode_vmx::definitions::field::{Access, TABLE};

use super::types::VmcbKey;

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
    // KVM's own words, where a line of its dump is quoted in part.
    ("INTERRUPTIBILITY", 0x4824),
    ("ACTIVITYSTATE", 0x4826),
    ("DEBUGEXCEPTIONS", 0x6822),
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

/// The VMCS field written as Linux's constant in either case (`GUEST_CR0`, `guest_cr0`), in the manual's words
/// (`Guest CS access rights`, `VM-entry controls`), with or without a leading `VMCS` and a trailing `FULL`, or as
/// its encoding (`0x6800`).
pub fn lookup_vmcs_field(name: &str) -> Option<Field> {
    let name = name.trim();
    let full = |(field, access): (Field, Access)| (access == Access::Full).then_some(field);
    if let Some(hex) = name.strip_prefix("0x").or_else(|| name.strip_prefix("0X")) {
        return Field::from_encoding(u32::from_str_radix(hex, 16).ok()?).and_then(full);
    }
    let folded = fold(name);
    let known = |n: &str| Field::from_linux(n).and_then(full);
    // The link pointer's own name begins with the prefix.
    if let Some(field) = known(&folded) {
        return Some(field);
    }
    let mut folded = folded.strip_prefix("VMCS_").unwrap_or(&folded);
    folded = folded.strip_suffix("_FULL").unwrap_or(folded);
    if let Some(field) = known(folded) {
        return Some(field);
    }
    if let Some((_, encoding)) = VMCS_ALIASES.iter().find(|(n, _)| *n == folded) {
        return Field::from_encoding(*encoding).and_then(full);
    }
    if let Some(row) = TABLE.iter().find(|row| is_folded(row.name, folded)) {
        return Some(row.field);
    }
    // Access rights and selectors have many spellings: "Guest CS access rights", GUEST_CS_AR, GUEST_CS_SEL.
    [
        ("_ACCESS_RIGHTS", "_AR_BYTES"),
        ("_ACCESS_RIGHT", "_AR_BYTES"),
        ("_ATTR", "_AR_BYTES"),
        ("_AR", "_AR_BYTES"),
        ("_SEL", "_SELECTOR"),
        ("_ADDRESS", "_ADDR"),
    ]
    .iter()
    .find_map(|(from, to)| known(&format!("{}{to}", folded.strip_suffix(from)?)))
}

/// Whether `name` folds to `folded`, without building the folded name.
fn is_folded(name: &str, folded: &str) -> bool {
    let mut words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    let same = folded.split('_').all(|f| words.next().is_some_and(|w| w.eq_ignore_ascii_case(f)));
    same && words.next().is_none()
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
