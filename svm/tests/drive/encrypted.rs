//! SEV-ES guests ("Encrypted State (SEV-ES)"): a bench whose guest's state lies in a VMSA, and tests of exits, state and entry.

mod entry;
mod exits;
mod state;

use super::bench::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::{Efer, Feature, FeatureSet, Gpr, HostPhysical, SegmentName, msr, vector};
use rootmode_cpu::Instruction;
use rootmode_svm::vmcb::{NestedControl, VirtExt};
use rootmode_svm::{Field, Vmsa};

pub(crate) const VMSA: u64 = 0x7_6000;
pub(crate) const GHCB: u64 = 0x7_7000;
/// The guest's #VC handler: VMGEXIT. It has a stack of its own.
pub(crate) const HANDLER_OF_VC: u64 = 0x1_1800;
pub(crate) const STACK_OF_VC: u64 = 0x3_f000;
pub(crate) const VMGEXIT: [u8; 4] = [0xf3, 0x0f, 0x01, 0xd9];
pub(crate) const C_BIT: u64 = 1 << 51;
pub(crate) const SYSCFG_ENCRYPTION: u64 = 1 << 23;

pub(crate) fn encrypting() -> FeatureSet {
    features().with(Feature::Sme).with(Feature::Sev).with(Feature::SevEs)
}

/// A guest with SEV-ES, whose state moves into its VMSA when it is run.
pub(crate) fn bench() -> Bench {
    let mut bench = Bench::with_features(encrypting());
    for (index, value) in [(msr::HWCR, 1), (msr::SYSCFG, SYSCFG_ENCRYPTION)] {
        bench.execute(Instruction::Wrmsr { index, value }).unwrap();
    }
    bench.board.memory.write(HostPhysical(HANDLER_OF_VC), &VMGEXIT);
    for vector in 0..=255 {
        bench.handler(vector, 0x8e);
    }
    let legacy = HANDLER_OF_VC & 0xffff | u64::from(LEGACY_CS) << 16 | 0x8e << 40 | 1 << 48;
    bench.put(LEGACY_IDT + u64::from(vector::VC) * 8, legacy);
    bench.put(IDT + u64::from(vector::VC) * 16, gate(HANDLER_OF_VC, 1));
    // IST1.
    bench.put(TSS + 0x24, STACK_OF_VC);
    bench
}

/// A 64-bit interrupt gate with this stack of the IST.
pub(crate) fn gate(target: u64, stack: u64) -> u64 {
    target & 0xffff | u64::from(KERNEL_CS) << 16 | stack << 32 | 0x8e << 40 | (target >> 16) << 48
}

/// Sets the controls of SEV-ES and moves the guest's state into the VMSA; what is left in the VMCB is nonsense.
pub(crate) fn seal(bench: &mut Bench) {
    bench.nested_paging();
    bench.or(Field::NestedControl, (NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE).0);
    bench.or(Field::VirtExt, VirtExt::LBR_ENABLE.0);
    bench.set(Field::VmsaPointer, VMSA);
    bench.set(Field::GhcbAddress, GHCB);
    let tr = *bench.cpu().segment(SegmentName::Tr);
    let mut vmsa = Vmsa::zeroed();
    let state = bench.vmcb.as_bytes()[0x400..0x6e8].to_vec();
    vmsa.bytes_mut()[..state.len()].copy_from_slice(&state);
    for (field, value) in [
        (Field::TrSelector, tr.selector.0.into()),
        (Field::TrAttrib, tr.rights.to_vmcb().into()),
        (Field::TrLimit, tr.limit.into()),
        (Field::TrBase, tr.base),
    ] {
        vmsa.set(field, value);
    }
    let cpu = bench.cpu();
    for (gpr, field) in GENERAL {
        vmsa.set(field, cpu.gpr[gpr as usize]);
    }
    let x87 = &cpu.vectors.x87;
    for (field, value) in [
        (Field::Xcr0, cpu.xcr0),
        (Field::X87Fcw, x87.control.into()),
        (Field::X87Fsw, x87.status.into()),
        (Field::X87Ftw, x87.tag_word().into()),
        (Field::Mxcsr, cpu.vectors.mxcsr.into()),
    ] {
        vmsa.set(field, value);
    }
    put_vmsa(bench, &vmsa);
    bench.vmcb.bytes_mut()[0x400..].fill(0xa5);
}

pub(crate) const GENERAL: [(Gpr, Field); 14] = [
    (Gpr::Rbx, Field::Rbx),
    (Gpr::Rcx, Field::Rcx),
    (Gpr::Rdx, Field::Rdx),
    (Gpr::Rsi, Field::Rsi),
    (Gpr::Rdi, Field::Rdi),
    (Gpr::Rbp, Field::Rbp),
    (Gpr::R8, Field::R8),
    (Gpr::R9, Field::R9),
    (Gpr::R10, Field::R10),
    (Gpr::R11, Field::R11),
    (Gpr::R12, Field::R12),
    (Gpr::R13, Field::R13),
    (Gpr::R14, Field::R14),
    (Gpr::R15, Field::R15),
];

pub(crate) fn put_vmsa(bench: &mut Bench, vmsa: &Vmsa) {
    bench.board.memory.write(HostPhysical(VMSA), vmsa.as_bytes());
}

pub(crate) fn vmsa(bench: &Bench) -> Vmsa {
    let mut vmsa = Vmsa::zeroed();
    bench.board.memory.read(HostPhysical(VMSA), vmsa.bytes_mut());
    vmsa
}

pub(crate) fn saved(bench: &Bench, field: Field) -> u64 {
    vmsa(bench).get(field).unwrap()
}

/// Changes fields of the sealed guest's VMSA.
pub(crate) fn change(bench: &mut Bench, fields: &[(Field, u64)]) {
    let mut vmsa = vmsa(bench);
    for (field, value) in fields {
        assert!(vmsa.set(*field, *value));
    }
    put_vmsa(bench, &vmsa);
}

/// A sealed guest with this code.
pub(crate) fn guest(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Bench {
    let mut bench = bench();
    bench.assemble(build);
    seal(&mut bench);
    bench
}

pub(crate) fn vmgexit(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.db(&VMGEXIT)
}

/// An exit that tells nothing beyond these; what was RIP's place in the VMCB is as [`seal`] left it.
pub(crate) const fn nothing_but(code: u64, info1: u64) -> Exit {
    let rip = 0xa5a5_a5a5_a5a5_a5a5;
    Exit { code, info1, info2: 0, interrupted: 0, next_rip: 0, rip, bytes: Vec::new() }
}

/// The guest took #VC, whose handler executed VMGEXIT: the error code, and where the exception happened.
pub(crate) fn communicated(bench: &Bench, end: &End) -> Option<(u64, u64)> {
    let End::Exit(exit) = end else { return None };
    let stack = saved(bench, Field::Rsp);
    let handled = exit.code == 0x403 && saved(bench, Field::Rip) == HANDLER_OF_VC + 4;
    let wide = saved(bench, Field::Efer) & Efer::LMA.0 != 0;
    let word = |n: u64| if wide { bench.get(stack + 8 * n) } else { bench.get(stack + 4 * n) & 0xffff_ffff };
    handled.then(|| (word(0), word(1)))
}
