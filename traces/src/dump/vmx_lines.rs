//! The lines of KVM's `dump_vmcs` and of Xen's ancestor of it, as one table for reading and for telling what is missing.
//!
//! Labels and keys are in the spelling of [`super::line::canonical`]: `CR3 = 0x...` is `CR3=0x...`.

use super::template::{Form, Part, Section, Target, Template};

const fn part(key: &'static str, encoding: u32, digits: u8) -> Part {
    Part { key, target: Target::Vmcs(encoding), form: Form::Hex(digits), optional: false }
}

const fn newer(key: &'static str, encoding: u32, digits: u8) -> Part {
    Part { key, target: Target::Vmcs(encoding), form: Form::Hex(digits), optional: true }
}

const fn strong(label: &'static str, section: Section, parts: &'static [Part]) -> Template {
    Template { label, strong: true, section, parts }
}

const fn weak(label: &'static str, section: Section, parts: &'static [Part]) -> Template {
    Template { label, strong: false, section, parts }
}

macro_rules! segment {
    ($label:literal, $selector:expr, $rights:expr, $limit:expr, $base:expr) => {
        strong(
            $label,
            Section::Guest,
            &[
                part("", $selector, 4),
                part("attr=", $rights, 5),
                part("limit=", $limit, 8),
                part("base=", $base, 16),
            ],
        )
    };
}

/// Xen prints a segment as a row of a table.
macro_rules! row {
    ($label:literal, $selector:expr, $rights:expr, $limit:expr, $base:expr) => {
        weak(
            $label,
            Section::Guest,
            &[part("", $selector, 4), part("", $rights, 5), part("", $limit, 8), part("", $base, 16)],
        )
    };
}

const NOTHING: Part = Part { key: "", target: Target::Nothing, form: Form::Hex(2), optional: false };

use Section::{Control, Guest, Host};

/// Every line with numbers that KVM's `dump_vmcs` printed from kernel 4.4 (where it appeared) to 6.18, except the
/// entries of MSR lists; and what Xen prints, whose dump KVM's was taken from.
pub(crate) const LINES: &[Template] = &[
    strong(
        "CR0: actual=",
        Guest,
        &[part("", 0x6800, 16), part("shadow=", 0x6004, 16), part("gh_mask=", 0x6000, 16)],
    ),
    strong(
        "CR4: actual=",
        Guest,
        &[part("", 0x6804, 16), part("shadow=", 0x6006, 16), part("gh_mask=", 0x6002, 16)],
    ),
    weak("CR3=", Guest, &[part("", 0x6802, 16)]),
    strong("PDPTR0=", Guest, &[part("", 0x280a, 16), part("PDPTR1=", 0x280c, 16)]),
    strong("PDPTR2=", Guest, &[part("", 0x280e, 16), part("PDPTR3=", 0x2810, 16)]),
    weak("RSP=", Guest, &[part("", 0x681c, 16), part("RIP=", 0x681e, 16)]),
    strong("RFLAGS=", Guest, &[part("", 0x6820, 8), part("DR7=", 0x681a, 16)]),
    weak("Sysenter RSP=", Guest, &[part("", 0x6824, 16), part("CS:RIP=", 0x482a, 4), part(":", 0x6826, 16)]),
    segment!("CS: sel=", 0x0802, 0x4816, 0x4802, 0x6808),
    segment!("DS: sel=", 0x0806, 0x481a, 0x4806, 0x680c),
    segment!("SS: sel=", 0x0804, 0x4818, 0x4804, 0x680a),
    segment!("ES: sel=", 0x0800, 0x4814, 0x4800, 0x6806),
    segment!("FS: sel=", 0x0808, 0x481c, 0x4808, 0x680e),
    segment!("GS: sel=", 0x080a, 0x481e, 0x480a, 0x6810),
    strong("GDTR: limit=", Guest, &[part("", 0x4810, 8), part("base=", 0x6816, 16)]),
    segment!("LDTR: sel=", 0x080c, 0x4820, 0x480c, 0x6812),
    strong("IDTR: limit=", Guest, &[part("", 0x4812, 8), part("base=", 0x6818, 16)]),
    segment!("TR: sel=", 0x080e, 0x4822, 0x480e, 0x6814),
    weak(
        "EFER=",
        Guest,
        &[
            Part { key: "", target: Target::GuestEfer, form: Form::Hex(16), optional: false },
            newer("PAT=", 0x2804, 16),
        ],
    ),
    weak("PAT=", Guest, &[part("", 0x2804, 16)]),
    strong("DebugCtl=", Guest, &[part("", 0x2802, 16), part("DebugExceptions=", 0x6822, 16)]),
    weak("PerfGlobCtl=", Guest, &[part("", 0x2808, 16)]),
    strong("BndCfgS=", Guest, &[part("", 0x2812, 16)]),
    strong("Interruptibility=", Guest, &[part("", 0x4824, 8), part("ActivityState=", 0x4826, 8)]),
    strong("InterruptStatus=", Guest, &[part("", 0x0810, 4)]),
    weak(
        "S_CET=",
        Guest,
        &[part("", 0x6828, 16), newer("SSP=", 0x682a, 16), newer("SSP TABLE=", 0x682c, 16)],
    ),
    weak("RIP=", Host, &[part("", 0x6c16, 16), part("RSP=", 0x6c14, 16)]),
    weak(
        "CS=",
        Host,
        &[
            part("", 0x0c02, 4),
            part("SS=", 0x0c04, 4),
            part("DS=", 0x0c06, 4),
            part("ES=", 0x0c00, 4),
            part("FS=", 0x0c08, 4),
            part("GS=", 0x0c0a, 4),
            part("TR=", 0x0c0c, 4),
        ],
    ),
    strong(
        "FSBase=",
        Host,
        &[part("", 0x6c06, 16), part("GSBase=", 0x6c08, 16), part("TRBase=", 0x6c0a, 16)],
    ),
    strong("GDTBase=", Host, &[part("", 0x6c0c, 16), part("IDTBase=", 0x6c0e, 16)]),
    weak("CR0=", Host, &[part("", 0x6c00, 16), part("CR3=", 0x6c02, 16), part("CR4=", 0x6c04, 16)]),
    weak("Sysenter RSP=", Host, &[part("", 0x6c10, 16), part("CS:RIP=", 0x4c00, 4), part(":", 0x6c12, 16)]),
    weak("EFER=", Host, &[part("", 0x2c02, 16), newer("PAT=", 0x2c00, 16)]),
    weak("PAT=", Host, &[part("", 0x2c00, 16)]),
    weak("PerfGlobCtl=", Host, &[part("", 0x2c04, 16)]),
    weak("S_CET=", Host, &[part("", 0x6c18, 16), newer("SSP=", 0x6c1a, 16), newer("SSP TABLE=", 0x6c1c, 16)]),
    strong(
        "PinBased=",
        Control,
        &[
            part("", 0x4000, 8),
            newer("CPUBased=", 0x4002, 8),
            newer("SecondaryExec=", 0x401e, 8),
            newer("EntryControls=", 0x4012, 8),
            newer("ExitControls=", 0x400c, 8),
        ],
    ),
    strong(
        "CPUBased=",
        Control,
        &[part("", 0x4002, 8), part("SecondaryExec=", 0x401e, 8), newer("TertiaryExec=", 0x2034, 16)],
    ),
    strong("EntryControls=", Control, &[part("", 0x4012, 8), part("ExitControls=", 0x400c, 8)]),
    strong("ExitControls=", Control, &[part("", 0x400c, 8), newer("SecondaryExitControls=", 0x2044, 16)]),
    strong(
        "ExceptionBitmap=",
        Control,
        &[part("", 0x4004, 8), part("PFECmask=", 0x4006, 8), part("PFECmatch=", 0x4008, 8)],
    ),
    strong(
        "VMEntry: intr_info=",
        Control,
        &[part("", 0x4016, 8), part("errcode=", 0x4018, 8), part("ilen=", 0x401a, 8)],
    ),
    strong(
        "VMExit: intr_info=",
        Control,
        &[part("", 0x4404, 8), part("errcode=", 0x4406, 8), part("ilen=", 0x440c, 8)],
    ),
    weak("reason=", Control, &[part("", 0x4402, 8), part("qualification=", 0x6400, 16)]),
    strong("IDTVectoring: info=", Control, &[part("", 0x4408, 8), part("errcode=", 0x440a, 8)]),
    strong("TSC Offset=", Control, &[part("", 0x2010, 16)]),
    strong("TSC Multiplier=", Control, &[part("", 0x2032, 16)]),
    // The same value as InterruptStatus, in two halves.
    strong("SVI|RVI=", Control, &[NOTHING, Part { key: "|", ..NOTHING }]),
    strong("TPR Threshold=", Control, &[part("", 0x401c, 2)]),
    strong("APIC-access addr=", Control, &[part("", 0x2014, 16)]),
    strong("virt-APIC addr=", Control, &[part("", 0x2012, 16)]),
    strong("PostedIntrVec=", Control, &[part("", 0x0002, 2)]),
    strong("EPT pointer=", Control, &[part("", 0x201a, 16)]),
    strong("CR3 target0=", Control, &[part("", 0x6008, 16), newer("target1=", 0x600a, 16)]),
    strong("CR3 target2=", Control, &[part("", 0x600c, 16), newer("target3=", 0x600e, 16)]),
    strong("PLE Gap=", Control, &[part("", 0x4020, 8), part("Window=", 0x4022, 8)]),
    strong("Virtual processor ID=", Control, &[part("", 0x0000, 4)]),
    strong("VE info address=", Control, &[part("", 0x202a, 16)]),
    weak("SSP=", Guest, &[part("", 0x682a, 16)]),
    weak("SSP=", Host, &[part("", 0x6c1a, 16)]),
    weak("SSP TABLE=", Guest, &[part("", 0x682c, 16)]),
    weak("SSP TABLE=", Host, &[part("", 0x6c1c, 16)]),
    // Xen's vmcs_dump_vcpu, where it differs.
    strong("PDPTE0=", Guest, &[part("", 0x280a, 16), part("PDPTE1=", 0x280c, 16)]),
    strong("PDPTE2=", Guest, &[part("", 0x280e, 16), part("PDPTE3=", 0x2810, 16)]),
    row!("CS: ", 0x0802, 0x4816, 0x4802, 0x6808),
    row!("DS: ", 0x0806, 0x481a, 0x4806, 0x680c),
    row!("SS: ", 0x0804, 0x4818, 0x4804, 0x680a),
    row!("ES: ", 0x0800, 0x4814, 0x4800, 0x6806),
    row!("FS: ", 0x0808, 0x481c, 0x4808, 0x680e),
    row!("GS: ", 0x080a, 0x481e, 0x480a, 0x6810),
    weak("GDTR: ", Guest, &[part("", 0x4810, 8), part("", 0x6816, 16)]),
    row!("LDTR: ", 0x080c, 0x4820, 0x480c, 0x6812),
    weak("IDTR: ", Guest, &[part("", 0x4812, 8), part("", 0x6818, 16)]),
    row!("TR: ", 0x080e, 0x4822, 0x480e, 0x6814),
    strong("EFER(VMCS)=", Guest, &[part("", 0x2806, 16), newer("PAT=", 0x2804, 16)]),
    strong("PreemptionTimer=", Guest, &[part("", 0x482e, 8), part("SM Base=", 0x4828, 8)]),
    strong("EPTP index=", Control, &[part("", 0x0004, 4)]),
    strong("VMfunc controls=", Control, &[part("", 0x2018, 16)]),
];

/// The headings of a dump's parts.
pub(crate) const HEADINGS: &[(&str, Section)] =
    &[("*** Guest State ***", Guest), ("*** Host State ***", Host), ("*** Control State ***", Control)];
