//! What generated guests of both extensions consist of: a mode, page tables, registers, and a few random instructions.
//!
//! What differs from part to part is intercepted: CPUID, time stamps, HLT. Every guest ends: its code falls into a call of its
//! hypervisor, and so does every handler.

use iced_x86::IcedError;
use iced_x86::code_asm::*;

use super::layout::*;
use crate::judges::batch::Case;
use crate::judges::random::Random;

/// In which mode a guest runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// 64-bit code at CPL 0.
    Kernel,
    /// 64-bit code at CPL 3.
    User,
    /// 32-bit code, PAE paging.
    Pae,
    /// 32-bit code without paging.
    Unpaged,
}

impl Mode {
    /// One of them, the first most often.
    pub(super) fn draw(r: &Random) -> Self {
        r.pick(&[Self::Kernel, Self::Kernel, Self::Kernel, Self::User, Self::Pae, Self::Unpaged])
    }

    /// What the file of differences calls it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::User => "user",
            Self::Pae => "pae",
            Self::Unpaged => "unpaged",
        }
    }

    /// Whether its code is 64-bit code.
    pub(super) const fn is_wide(self) -> bool {
        matches!(self, Self::Kernel | Self::User)
    }

    /// Selector of its code segment.
    pub(super) const fn code_selector(self) -> u16 {
        match self {
            Self::Kernel => CODE64,
            Self::User => USER_CODE,
            Self::Pae | Self::Unpaged => CODE32,
        }
    }

    /// Selector of its data segments.
    pub(super) const fn data_selector(self) -> u16 {
        if matches!(self, Self::User) { USER_DATA } else { DATA }
    }
}

/// A guest, and what may be said of it in the file of disagreements.
pub struct Guest {
    /// As the ROM gets it.
    pub case: Case,
    /// Mode, paging, events, and the mnemonics of its code, in order.
    pub facts: Vec<&'static str>,
    /// It leaves a judging machine in a state that no architecture has; the next guest gets a fresh one.
    pub is_last: bool,
}

impl Guest {
    pub(super) fn new(pokes: Vec<(u64, u64)>, facts: Vec<&'static str>) -> Self {
        let pokes = pokes.into_iter().map(|(address, value)| (address as u32, value)).collect();
        Self { case: Case { pokes, ..Case::default() }, facts, is_last: false }
    }
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

/// A form of an instruction: its name, whether it exists in 32-bit code, and in 64-bit code, and what makes it.
pub(super) type Form = (&'static str, bool, bool, Build);

type Build = fn(&mut CodeAssembler, &Random) -> Result<(), IcedError>;

/// What both vendors have.
const INSTRUCTIONS: &[Form] = &[
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
    ("wbinvd", true, true, |a, _| a.wbinvd()),
    ("pause", true, true, |a, _| a.pause()),
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

/// The tables, anew for each guest: walks set flags in them. A large page of the second stage has `second_stage`.
fn paging(second_stage: u64) -> Vec<(u64, u64)> {
    let mut pokes = Vec::new();
    for (root, nested) in [(PML4, false), (NESTED, true)] {
        pokes.push((root, (root + 0x1000) | 7));
        pokes.push((root + 0x1000, (root + 0x2000) | 7));
        for n in 0..16 {
            let at = n << 21;
            let flags = match (at, nested) {
                (SUPERVISOR, false) => 0x83,
                (READ_ONLY, false) => 0x85,
                (NESTED_READ_ONLY, true) => second_stage & !2,
                (ABSENT, false) | (NESTED_ABSENT, true) => 0,
                (_, false) => 0x87,
                (_, true) => second_stage,
            };
            pokes.push((root + 0x2000 + 8 * n, at | flags));
        }
    }
    pokes.push((PAE_TABLE, (PML4 + 0x2000) | 1));
    pokes
}

/// The pokes that every guest starts from: tables, code, registers, and memory as it was. `own` are the extension's
/// instructions, of which `call` ends the guest; `second_stage` are the flags of a large page there.
pub(super) fn start(
    mode: Mode,
    own: &[Form],
    call: [u8; 3],
    second_stage: u64,
    r: &Random,
    facts: &mut Vec<&'static str>,
) -> Result<Vec<(u64, u64)>, IcedError> {
    let mut pokes = paging(second_stage);
    for (n, bytes) in code(mode, own, call, r, facts)?.chunks(8).enumerate() {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        pokes.push((CODE + 8 * n as u64, u64::from_le_bytes(word)));
    }
    let [a, b, c] = call;
    pokes.push((HANDLER, u64::from_le_bytes([a, b, c, 0x90, 0x90, 0x90, 0x90, 0x90])));
    // What an earlier guest has left outside the data page, of which 32-bit code reaches some at 0.
    for place in PLACES.iter().map(|place| place & 0xffff_fff8) {
        pokes.extend([(place, 0), (place + 8, 0)]);
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
    Ok(pokes)
}

fn code(
    mode: Mode,
    own: &[Form],
    call: [u8; 3],
    r: &Random,
    facts: &mut Vec<&'static str>,
) -> Result<Vec<u8>, IcedError> {
    let wide = mode.is_wide();
    let mut code = Vec::new();
    for _ in 0..=r.below(5) {
        let n = r.below((INSTRUCTIONS.len() + own.len()) as u64) as usize;
        let (name, legacy, long, build) =
            INSTRUCTIONS.iter().chain(own).nth(n).copied().unwrap_or(INSTRUCTIONS[0]);
        if !(if wide { long } else { legacy }) {
            continue;
        }
        let mut a = CodeAssembler::new(if wide { 64 } else { 32 })?;
        build(&mut a, r)?;
        code.extend(a.assemble(CODE + code.len() as u64)?);
        facts.push(name);
    }
    while code.len() < CODE_SIZE {
        code.extend(call);
    }
    code.truncate(CODE_SIZE);
    Ok(code)
}
