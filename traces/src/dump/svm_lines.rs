//! The lines of KVM's `dump_vmcb`, as one table for reading and for telling what is missing.

use super::template::{Form, Part, Section, Target, Template};

const fn hex(key: &'static str, offset: u16, size: u8) -> Part {
    Part { key, target: Target::Vmcb(offset, size), form: Form::Hex(size * 2), optional: false }
}

const fn dec(key: &'static str, offset: u16, size: u8) -> Part {
    Part { key, target: Target::Vmcb(offset, size), form: Form::Dec, optional: false }
}

const fn template(label: &'static str, strong: bool, section: Section, parts: &'static [Part]) -> Template {
    Template { label, strong, section, parts }
}

macro_rules! control {
    ($label:literal, $strong:literal, $offset:literal, $size:literal) => {
        template($label, $strong, Section::VmcbControl, &[hex("", $offset, $size)])
    };
    ($label:literal, $strong:literal, $offset:literal, $size:literal, dec) => {
        template($label, $strong, Section::VmcbControl, &[dec("", $offset, $size)])
    };
}

macro_rules! segment {
    ($label:literal, $offset:literal) => {
        template(
            $label,
            true,
            Section::VmcbSave,
            &[
                hex("", $offset, 2),
                hex("a:", $offset + 2, 2),
                hex("l:", $offset + 4, 4),
                hex("b:", $offset + 8, 8),
            ],
        )
    };
}

macro_rules! save {
    ($label:literal, $offset:literal) => {
        template($label, false, Section::VmcbSave, &[hex("", $offset, 8)])
    };
    ($label:literal, $offset:literal, $key:literal, $second:literal) => {
        template($label, false, Section::VmcbSave, &[hex("", $offset, 8), hex($key, $second, 8)])
    };
}

/// Every line with numbers that KVM's `dump_vmcb` printed from kernel 3.1 (where it appeared) to 6.18, except the
/// general registers of SEV-ES guests. Offsets: APM Vol. 2 "Layout of VMCB"; fields that only a VMSA has lie behind the control area like its others.
pub(crate) const LINES: &[Template] = &[
    control!("cr_read:", true, 0x000, 2),
    control!("cr_write:", true, 0x002, 2),
    control!("dr_read:", true, 0x004, 2),
    control!("dr_write:", true, 0x006, 2),
    control!("exceptions:", false, 0x008, 4),
    template(
        "intercepts:",
        true,
        Section::VmcbControl,
        &[
            Part { key: "", target: Target::Intercepts, form: Form::Hex(8), optional: false },
            Part { key: "", target: Target::Vmcb(0x010, 4), form: Form::Hex(8), optional: true },
        ],
    ),
    control!("pause filter count:", true, 0x03e, 2, dec),
    control!("pause filter threshold:", true, 0x03c, 2, dec),
    control!("iopm_base_pa:", true, 0x040, 8),
    control!("msrpm_base_pa:", true, 0x048, 8),
    control!("tsc_offset:", true, 0x050, 8),
    control!("asid:", false, 0x058, 4, dec),
    control!("tlb_ctl:", true, 0x05c, 1, dec),
    control!("int_ctl:", true, 0x060, 4),
    control!("int_vector:", true, 0x064, 4),
    control!("int_state:", true, 0x068, 4),
    control!("exit_code:", true, 0x070, 4),
    control!("exit_info1:", true, 0x078, 8),
    control!("exit_info2:", true, 0x080, 8),
    control!("exit_int_info:", true, 0x088, 4),
    control!("exit_int_info_err:", true, 0x08c, 4),
    control!("nested_ctl:", true, 0x090, 8, dec),
    control!("nested_cr3:", true, 0x0b0, 8),
    control!("avic_vapic_bar:", true, 0x098, 8),
    control!("ghcb:", false, 0x0a0, 8),
    control!("event_inj:", true, 0x0a8, 4),
    control!("event_inj_err:", true, 0x0ac, 4),
    control!("virt_ext:", true, 0x0b8, 8, dec),
    control!("next_rip:", true, 0x0c8, 8),
    control!("avic_backing_page:", true, 0x0e0, 8),
    control!("avic_logical_id:", true, 0x0f0, 8),
    control!("avic_physical_id:", true, 0x0f8, 8),
    control!("vmsa_pa:", true, 0x108, 8),
    control!("allowed_sev_features:", true, 0x138, 8),
    control!("guest_sev_features:", true, 0x140, 8),
    segment!("es: s:", 0x400),
    segment!("cs: s:", 0x410),
    segment!("ss: s:", 0x420),
    segment!("ds: s:", 0x430),
    segment!("fs: s:", 0x440),
    segment!("gs: s:", 0x450),
    segment!("gdtr: s:", 0x460),
    segment!("ldtr: s:", 0x470),
    segment!("idtr: s:", 0x480),
    segment!("tr: s:", 0x490),
    template(
        "vmpl:",
        false,
        Section::VmcbSave,
        &[dec("", 0x4ca, 1), dec("cpl:", 0x4cb, 1), hex("efer:", 0x4d0, 8)],
    ),
    template("cpl:", false, Section::VmcbSave, &[dec("", 0x4cb, 1), hex("efer:", 0x4d0, 8)]),
    save!("cr0:", 0x558, "cr2:", 0x640),
    save!("cr3:", 0x550, "cr4:", 0x548),
    save!("dr6:", 0x568, "dr7:", 0x560),
    save!("rip:", 0x578, "rflags:", 0x570),
    save!("rsp:", 0x5d8, "rax:", 0x5f8),
    save!("s_cet:", 0x5e0, "ssp:", 0x5e8),
    save!("isst:", 0x5f0),
    save!("star:", 0x600, "lstar:", 0x608),
    save!("cstar:", 0x610, "sfmask:", 0x618),
    save!("kernel_gs_base:", 0x620, "sysenter_cs:", 0x628),
    save!("sysenter_esp:", 0x630, "sysenter_eip:", 0x638),
    save!("gpat:", 0x668, "dbgctl:", 0x670),
    save!("br_from:", 0x678, "br_to:", 0x680),
    save!("excp_from:", 0x688, "excp_to:", 0x690),
    // Of a decrypted VMSA, which has no colon here.
    save!("sev_features", 0x7b0),
];

/// The headings of a dump's areas.
pub(crate) const HEADINGS: &[(&str, Section)] =
    &[("VMCB Control Area:", Section::VmcbControl), ("VMCB State Save Area:", Section::VmcbSave)];
