//! Generated SVM guests: a VMCB with random intercepts, events and registers, and a few random instructions.
//!
//! Physical interrupts are closed (V_INTR_MASKING, the host's IF clear), and what differs from part to part is intercepted:
//! CPUID, time stamps, HLT. Every guest ends: its code falls into VMMCALL, and so does every handler.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::layout::*;
use crate::judges::batch::Case;
use crate::judges::layout::CONTROL_REGION;
use crate::judges::random::Random;
use crate::judges::vmcb::*;

/// In which mode a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Kernel,
    User,
    Pae,
    Unpaged,
}

/// A guest, and what may be said of it in the file of disagreements.
pub struct Guest {
    /// As the ROM gets it.
    pub case: Case,
    /// Mode, paging, events, and the mnemonics of its code, in order.
    pub facts: Vec<&'static str>,
}

/// Addresses that memory operands draw from.
const PLACES: &[u64] = &[
    DATA_PAGE,
    DATA_PAGE + 0x7f8,
    SUPERVISOR + 8,
    READ_ONLY + 0x10,
    ABSENT + 0x18,
    NESTED_READ_ONLY + 0x20,
    NESTED_ABSENT + 0x28,
    DATA_PAGE + 0xffc,
    1 << 47,
];

/// MSRs that RDMSR and WRMSR draw from.
const MSRS: &[u64] = &[
    0xc000_0080,
    0xc000_0081,
    0xc000_0082,
    0xc000_0084,
    0xc000_0102,
    0xc000_0100,
    0x174,
    0x175,
    0x277,
    0x1234_5678,
];

type Build = fn(&mut CodeAssembler, &Random) -> Result<(), IcedError>;

/// Instructions with their names; whether they exist in 32-bit code, and in 64-bit code.
const INSTRUCTIONS: &[(&str, bool, bool, Build)] = &[
    ("add", true, true, |a, _| a.add(ebx, ecx)),
    ("xor", true, true, |a, _| a.xor(edx, ebx)),
    ("cmp", true, true, |a, _| a.cmp(ebx, edx)),
    ("inc", true, true, |a, _| a.inc(ecx)),
    ("load", false, true, |a, _| a.mov(r8, qword_ptr(rdi))),
    ("store", false, true, |a, _| a.mov(qword_ptr(rdi), rbx)),
    ("load", true, false, |a, _| a.mov(edx, dword_ptr(edi))),
    ("store", true, false, |a, _| a.mov(dword_ptr(edi), ebx)),
    ("exchange", false, true, |a, _| a.xchg(qword_ptr(rdi), rbx)),
    ("push", false, true, |a, _| a.push(rbx)),
    ("pop", false, true, |a, _| a.pop(rdx)),
    ("pushf", false, true, |a, _| a.pushfq()),
    ("popf", false, true, |a, _| a.push(0x202).and_then(|()| a.popfq())),
    ("cpuid", true, true, |a, _| a.cpuid()),
    ("rdtsc", true, true, |a, _| a.rdtsc()),
    ("rdpmc", true, true, |a, _| a.mov(ecx, 0x77).and_then(|()| a.rdpmc())),
    ("rdmsr", true, true, |a, r| a.mov(ecx, r.pick(MSRS) as u32).and_then(|()| a.rdmsr())),
    ("wrmsr", true, true, |a, r| {
        a.mov(ecx, r.pick(&MSRS[1..6]) as u32)?;
        a.mov(eax, r.word() as u32 & 0x7fff_ffff)?;
        a.xor(edx, edx)?;
        a.wrmsr()
    }),
    ("in", true, true, |a, r| match r.below(2) {
        0 => a.in_(al, 0x80),
        _ => a.mov(dx, 0x80).and_then(|()| a.in_(al, dx)),
    }),
    ("out", true, true, |a, r| match r.below(2) {
        0 => a.out(0x80, al),
        _ => a.mov(dx, 0xed).and_then(|()| a.out(dx, eax)),
    }),
    ("outs", false, true, |a, _| {
        a.mov(rsi, DATA_PAGE)?;
        a.mov(dx, 0x80)?;
        a.mov(ecx, 2)?;
        a.rep().outsb()
    }),
    ("ins", false, true, |a, _| a.mov(dx, 0x80).and_then(|()| a.insb())),
    ("read-cr0", false, true, |a, _| a.mov(rbx, cr0)),
    ("read-cr2", false, true, |a, _| a.mov(rcx, cr2)),
    ("read-cr3", false, true, |a, _| a.mov(rsi, cr3)),
    ("read-cr4", false, true, |a, _| a.mov(r9, cr4)),
    ("read-cr8", false, true, |a, _| a.mov(r10, cr8)),
    ("write-cr0", false, true, |a, r| {
        a.mov(rbx, cr0)?;
        a.xor(ebx, r.pick(&[8, 2, 0x1_0000, 0x2000_0000, 0x10]))?;
        a.mov(cr0, rbx)
    }),
    ("write-cr2", false, true, |a, _| a.mov(cr2, rdi)),
    ("write-cr3", false, true, |a, _| a.mov(ebp, PML4 as u32).and_then(|()| a.mov(cr3, rbp))),
    ("write-cr4", false, true, |a, r| {
        a.mov(rbx, cr4)?;
        a.xor(ebx, r.pick(&[0x80, 0x200, 4, 0x2000]))?;
        a.mov(cr4, rbx)
    }),
    ("write-cr8", false, true, |a, r| a.mov(ebx, r.below(18) as u32).and_then(|()| a.mov(cr8, rbx))),
    ("clts", true, true, |a, _| a.clts()),
    ("lmsw", true, true, |a, r| a.mov(bx, r.pick(&[1, 3, 9, 0xb])).and_then(|()| a.lmsw(bx))),
    ("smsw", true, true, |a, _| a.smsw(ebx)),
    ("read-dr", false, true, |a, r| match r.below(3) {
        0 => a.mov(rbx, dr0),
        1 => a.mov(rbx, dr6),
        _ => a.mov(rbx, dr7),
    }),
    ("write-dr", false, true, |a, r| match r.below(3) {
        0 => a.mov(dr1, rdi),
        1 => a.mov(ebx, 0xffff_0ff3_u32).and_then(|()| a.mov(dr6, rbx)),
        _ => a.mov(ebx, 0x400).and_then(|()| a.mov(dr7, rbx)),
    }),
    ("sgdt", false, true, |a, _| a.sgdt(ptr(rdi))),
    ("sidt", false, true, |a, _| a.sidt(ptr(rdi))),
    ("lgdt", false, true, |a, _| a.sgdt(ptr(rsp - 64)).and_then(|()| a.lgdt(ptr(rsp - 64)))),
    ("lidt", false, true, |a, _| a.sidt(ptr(rsp - 64)).and_then(|()| a.lidt(ptr(rsp - 64)))),
    ("sldt", true, true, |a, _| a.sldt(ebx)),
    ("str", true, true, |a, _| a.str(edx)),
    ("lldt", true, true, |a, _| a.xor(ebx, ebx).and_then(|()| a.lldt(bx))),
    ("int-n", true, true, |a, r| a.int(r.pick(&[0x20, 0x80, 0xd]))),
    ("int3", true, true, |a, _| a.int3()),
    ("icebp", true, true, |a, _| a.int1()),
    ("into", true, false, |a, _| a.into()),
    ("ud2", true, true, |a, _| a.ud2()),
    ("hlt", true, true, |a, _| a.hlt()),
    ("invlpg", false, true, |a, _| a.invlpg(byte_ptr(rdi))),
    ("invlpga", true, true, |a, _| a.invlpga()),
    ("wbinvd", true, true, |a, _| a.wbinvd()),
    ("pause", true, true, |a, _| a.pause()),
    ("stgi", true, true, |a, _| a.stgi()),
    ("clgi", true, true, |a, _| a.clgi()),
    ("vmrun", true, true, |a, _| a.vmrun()),
    ("vmload", true, true, |a, _| a.vmload()),
    ("vmsave", true, true, |a, _| a.vmsave()),
    ("rsm", true, true, |a, _| a.rsm()),
    ("iret", false, true, |a, _| a.iretq()),
    ("sti", true, true, |a, _| a.sti()),
    ("cli", true, true, |a, _| a.cli()),
    ("div", true, true, |a, _| a.xor(ebx, ebx).and_then(|()| a.div(ebx))),
    ("fninit", true, true, |a, _| a.fninit()),
    ("mov-ss", true, true, |a, _| a.mov(ebx, ss).and_then(|()| a.mov(ss, ebx))),
    ("load-ds", true, true, |a, r| {
        a.mov(ebx, r.pick(&[0x10, 0x28, 0x50, 0x1b])).and_then(|()| a.mov(ds, ebx))
    }),
    ("locked-ud", true, true, |a, _| a.db(&[0xf0, 0x90])),
];

/// Makes guest `number` of the run with `seed`.
///
/// # Errors
///
/// When iced-x86 cannot encode an instruction, which would be a fault of this module.
pub fn generate(seed: u64, number: u64) -> Result<Guest, IcedError> {
    let r = Random::of_case(seed, number);
    let mode = r.pick(&[Mode::Kernel, Mode::Kernel, Mode::Kernel, Mode::User, Mode::Pae, Mode::Unpaged]);
    let mut facts = vec![match mode {
        Mode::Kernel => "kernel",
        Mode::User => "user",
        Mode::Pae => "pae",
        Mode::Unpaged => "unpaged",
    }];
    let mut pokes = paging();
    let code = code(mode, &r, &mut facts)?;
    for (n, bytes) in code.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        pokes.push((CODE + 8 * n as u64, u64::from_le_bytes(word)));
    }
    pokes.push((HANDLER, 0x9090_9090_90d9_010f));
    // What an earlier guest has left outside the data page.
    for place in PLACES.iter().filter(|place| **place < 1 << 32) {
        pokes.extend([(place & !7, 0), ((place & !7) + 8, 0)]);
    }
    let place = r.pick(PLACES);
    for n in 0..14 {
        let value = match n {
            4 => place,
            _ if r.chance(50) => r.below(0x100),
            _ => r.word(),
        };
        pokes.push((REGISTERS + 8 * n, value));
    }
    let vmcb = vmcb(mode, &r, &mut facts);
    pokes.extend(vmcb.words().into_iter().map(|(offset, value)| (CONTROL_REGION + offset, value)));
    for (offset, value) in hidden(&r) {
        pokes.push((CONTROL_REGION + offset, value));
    }
    let pokes = pokes.into_iter().map(|(address, value)| (address as u32, value)).collect();
    Ok(Guest { case: Case { pokes, ..Case::default() }, facts })
}

/// The tables, anew for each guest: walks set flags in them.
fn paging() -> Vec<(u64, u64)> {
    let mut pokes = Vec::new();
    for (root, nested) in [(PML4, false), (NESTED, true)] {
        pokes.push((root, (root + 0x1000) | 7));
        pokes.push((root + 0x1000, (root + 0x2000) | 7));
        for n in 0..16 {
            let at = n << 21;
            let flags = match (at, nested) {
                (SUPERVISOR, false) => 0x83,
                (READ_ONLY, false) | (NESTED_READ_ONLY, true) => 0x85,
                (ABSENT, false) | (NESTED_ABSENT, true) => 0,
                _ => 0x87,
            };
            pokes.push((root + 0x2000 + 8 * n, at | flags));
        }
    }
    pokes.push((PAE_TABLE, (PML4 + 0x2000) | 1));
    pokes
}

fn code(mode: Mode, r: &Random, facts: &mut Vec<&'static str>) -> Result<Vec<u8>, IcedError> {
    let wide = matches!(mode, Mode::Kernel | Mode::User);
    let mut code = Vec::new();
    for _ in 0..=r.below(5) {
        let (name, legacy, long, build) = r.pick(INSTRUCTIONS);
        if !(if wide { long } else { legacy }) {
            continue;
        }
        let mut a = CodeAssembler::new(if wide { 64 } else { 32 })?;
        build(&mut a, r)?;
        code.extend(a.assemble(CODE + code.len() as u64)?);
        facts.push(name);
    }
    while code.len() < CODE_SIZE {
        code.extend([0x0f, 0x01, 0xd9]);
    }
    code.truncate(CODE_SIZE);
    Ok(code)
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
    // Few, many or all of each kind.
    let draw = |all: u64| match r.below(4) {
        0 => 0,
        1 => all,
        2 => all & r.word() & r.word(),
        _ => all & r.word(),
    };
    v.set(INTERCEPT_CR, draw(0xffff_ffff));
    v.set(INTERCEPT_DR, draw(0xffff_ffff));
    v.set(INTERCEPT_EXCEPTIONS, draw(0x000f_7dfb));
    // RDTSC, CPUID, RSM, HLT, task switch and shutdown always; no FERR_FREEZE.
    v.set(
        INTERCEPT_1,
        draw(0xbfff_ffff) & !(1 << 30) | 1 << 14 | 1 << 18 | 1 << 19 | 1 << 24 | 1 << 29 | 1 << 31,
    );
    // VMRUN, VMMCALL, VMLOAD, VMSAVE, SKINIT, RDTSCP, MONITOR, MWAIT always.
    v.set(INTERCEPT_2, draw(0x3fff) | 0b1_1100_1100_1111);
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
    let (code, attributes) = match mode {
        Mode::Kernel => (CODE64, 0xa9b),
        Mode::User => (USER_CODE, 0xafb),
        Mode::Pae | Mode::Unpaged => (CODE32, 0xc9b),
    };
    for n in 0..4 {
        let step = 0x10 * n;
        let (selector, attributes) = match (n, user) {
            (1, _) => (code, attributes),
            (_, true) => (USER_DATA, 0xcf3),
            (_, false) => (DATA, 0xc93),
        };
        v.set(Field { offset: ES.offset + step, bits: 16 }, selector.into());
        v.set(Field { offset: ES_ATTRIBUTES.offset + step, bits: 16 }, attributes);
        v.set(Field { offset: ES_LIMIT.offset + step, bits: 32 }, 0xffff_ffff);
    }
    v.set(CPL, if user { 3 } else { 0 });
    let wide = matches!(mode, Mode::Kernel | Mode::User);
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
