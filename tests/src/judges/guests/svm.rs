//! Generated SVM guests: a VMCB with random intercepts, events and registers.
//!
//! Physical interrupts are closed (V_INTR_MASKING, the host's IF clear).

use iced_x86::IcedError;

use super::code::{Form, Guest, Mode, start};
use super::layout::*;
use crate::judges::layout::CONTROL_REGION;
use crate::judges::random::Random;
use crate::judges::vmcb::*;

/// SVM's own instructions.
const INSTRUCTIONS: &[Form] = &[
    ("invlpga", true, true, |a, _| a.invlpga()),
    ("stgi", true, true, |a, _| a.stgi()),
    ("clgi", true, true, |a, _| a.clgi()),
    ("vmrun", true, true, |a, _| a.vmrun()),
    ("vmload", true, true, |a, _| a.vmload()),
    ("vmsave", true, true, |a, _| a.vmsave()),
];

/// Makes guest `number` of the run with `seed`.
pub(super) fn generate(seed: u64, number: u64) -> Result<Guest, IcedError> {
    let r = Random::of_case(seed, number);
    let mode = Mode::draw(&r);
    let mut facts = vec![mode.name()];
    let mut pokes = start(mode, INSTRUCTIONS, [0x0f, 0x01, 0xd9], 0x87, &r, &mut facts)?;
    let vmcb = vmcb(mode, &r, &mut facts);
    pokes.extend(vmcb.words().into_iter().map(|(offset, value)| (CONTROL_REGION + offset, value)));
    pokes.extend(hidden(&r).into_iter().map(|(offset, value)| (CONTROL_REGION + offset, value)));
    Ok(Guest::new(pokes, facts))
}

/// What VMLOAD loads: FS, GS, TR, and MSRs.
fn hidden(r: &Random) -> Vec<(u64, u64)> {
    let low = || r.word() & 0x7fff_ffff;
    let mut all = vec![
        (0x440, u64::from(DATA) | 0xc93 << 16 | 0xffff_ffff << 32),
        (0x450, u64::from(DATA) | 0xc93 << 16 | 0xffff_ffff << 32),
        // An absent LDT, the TSS.
        (0x470, 0x82 << 16),
        (0x490, u64::from(TASK) | 0x8b << 16 | 0x67 << 32),
        (0x498, TSS),
    ];
    for offset in [0x448, 0x458, 0x600, 0x608, 0x610, 0x618, 0x620, 0x628, 0x630, 0x638] {
        all.push((offset, low()));
    }
    all
}

fn vmcb(mode: Mode, r: &Random, facts: &mut Vec<&'static str>) -> Vmcb {
    let mut vmcb = Vmcb::zeroed();
    let v = &mut vmcb;
    v.set(INTERCEPT_CR, r.some_of(0xffff_ffff));
    v.set(INTERCEPT_DR, r.some_of(0xffff_ffff));
    v.set(INTERCEPT_EXCEPTIONS, r.some_of(0x000f_7dfb));
    // RDTSC, CPUID, RSM, HLT, task switch and shutdown always; no FERR_FREEZE.
    v.set(
        INTERCEPT_1,
        r.some_of(0xbfff_ffff) & !(1 << 30) | 1 << 14 | 1 << 18 | 1 << 19 | 1 << 24 | 1 << 29 | 1 << 31,
    );
    // VMRUN, VMMCALL, VMLOAD, VMSAVE, SKINIT, RDTSCP, MONITOR, MWAIT always.
    v.set(INTERCEPT_2, r.some_of(0x3fff) | 0b1_1100_1100_1111);
    let maps = if r.chance(50) { OPEN_MAPS } else { CLOSED_MAPS };
    v.set(IOPM, maps);
    v.set(MSRPM, maps + MSR_MAP);
    v.set(ASID, 1);
    v.set(TLB_CONTROL, 1);
    let mut interrupts = 1 << 24 | r.below(16);
    if r.chance(30) {
        facts.push("v-irq");
        interrupts |= 1 << 8 | r.below(16) << 16 | r.below(2) << 20 | (0x20 + r.below(0xe0)) << 32;
    }
    v.set(VIRTUAL_INTERRUPT, interrupts);
    if r.chance(15) {
        facts.push("shadow");
        v.set(INTERRUPT_SHADOW, 1);
    }
    if r.chance(40) {
        facts.push("nested-paging");
        v.set(NESTED_CONTROL, 1);
        v.set(NESTED_CR3, NESTED);
    }
    v.set(PAT, 0x0007_0406_0007_0406);
    if r.chance(25) {
        let (name, event) = r.pick(&[
            ("inject-interrupt", 0x30),
            ("inject-nmi", 2 << 8 | 2),
            ("inject-ud", 3 << 8 | 6),
            ("inject-gp", 3 << 8 | 1 << 11 | 13),
            ("inject-pf", 3 << 8 | 1 << 11 | 14),
            ("inject-de", 3 << 8),
        ]);
        facts.push(name);
        v.set(EVENT, 1 << 31 | event | if event & 1 << 11 != 0 { 2 << 32 } else { 0 });
    }
    let (control0, control3, control4, extended) = match mode {
        Mode::Kernel | Mode::User => (0x8000_0011, PML4, 0x20, 0x500),
        Mode::Pae => (0x8000_0011, PAE_TABLE, 0x20, 0),
        Mode::Unpaged => (0x11, 0, 0, 0),
    };
    v.set(CR0, control0 | 0x20 | r.pick(&[0, 0x1_0000, 8, 0x1_0008]));
    v.set(CR3, control3);
    v.set(CR4, control4 | 0x600);
    v.set(CR2, r.below(0x1_0000));
    v.set(EFER, extended | 0x1000 | 1);
    v.set(DR6, 0xffff_0ff0);
    v.set(DR7, 0x400);
    let user = mode == Mode::User;
    let attributes = match mode {
        Mode::Kernel => 0xa9b,
        Mode::User => 0xafb,
        Mode::Pae | Mode::Unpaged => 0xc9b,
    };
    for n in 0..4 {
        let step = 0x10 * n;
        let (selector, attributes) = match (n, user) {
            (1, _) => (mode.code_selector(), attributes),
            (_, true) => (mode.data_selector(), 0xcf3),
            (_, false) => (mode.data_selector(), 0xc93),
        };
        v.set(Field { offset: ES.offset + step, bits: 16 }, selector.into());
        v.set(Field { offset: ES_ATTRIBUTES.offset + step, bits: 16 }, attributes);
        v.set(Field { offset: ES_LIMIT.offset + step, bits: 32 }, 0xffff_ffff);
    }
    v.set(CPL, if user { 3 } else { 0 });
    let wide = mode.is_wide();
    v.set(GDTR_LIMIT, 0x3f);
    v.set(GDTR_BASE, GDT);
    v.set(IDTR_LIMIT, if wide { 0xfff } else { 0x7ff });
    v.set(IDTR_BASE, if wide { IDT64 } else { IDT32 });
    v.set(RIP, CODE);
    v.set(RSP, STACK - 0x100);
    let mut flags = 2 | r.below(2) << 9;
    if r.chance(10) {
        facts.push("trap-flag");
        flags |= 1 << 8;
    }
    v.set(RFLAGS, flags);
    v.set(RAX, r.word());
    vmcb
}

/// The names of what is printed, in order.
pub(super) fn names() -> Vec<&'static str> {
    VMCB_FIELDS.iter().map(|(_, name)| *name).chain(RESULT_NAMES.iter().copied()).collect()
}

/// The bits of each value that the architecture defines after an exit with `report`.
pub(super) fn defined(report: &[u64]) -> Vec<u64> {
    let code = report[0] & 0xffff_ffff;
    let all = u64::MAX;
    // Exit information without decode assists: error codes, addresses, ports, MSRs.
    let (info1, info2) = match code {
        0x4a..=0x4d | 0x51 => (all, 0),
        0x4e => (all, all),
        0x400 => (0x3_0000_001f, all),
        0x7b => (0xffff_1ffd, all),
        0x7c => (all, 0),
        _ => (0, 0),
    };
    // After a failed VMRUN nothing of the guest is written; after a shutdown its state is undefined.
    let state = if matches!(code, 0xffff_ffff | 0x7f) { 0 } else { all };
    let interrupted = report[3];
    let event = match (interrupted >> 31 & 1, interrupted >> 11 & 1) {
        (0, _) => 1 << 31,
        (_, 0) => 0x8000_0fff,
        _ => 0xffff_ffff_8000_0fff,
    };
    names()
        .into_iter()
        .map(|name| match name {
            "EXITCODE" => 0xffff_ffff,
            "EXITINFO1" => info1,
            "EXITINFO2" => info2,
            "EXITINTINFO" => event & state,
            // V_TPR and V_IRQ.
            "VINTR" => 0x10f & state,
            "SHADOW" => 1 & state,
            "EVENTINJ" => 1 << 31 & state,
            "CS" | "SS" => 0xffff & state,
            // The limit is in the upper half.
            "GDTR.LIMIT" | "IDTR.LIMIT" => 0xffff << 32 & state,
            // CPL is byte 3 of these eight.
            "CPL" => 0x0300_0000 & state,
            "CR0" => !0x10 & state,
            _ => state,
        })
        .collect()
}
