//! SEV-ES: what VMRUN and #VMEXIT do besides while the guest's state lies in its VMSA, and how the guest talks to its
//! hypervisor (APM Vol. 2 (24593 rev. 3.43) "Encrypted State (SEV-ES)").
//!
//! Encryption is the identity, and nothing measures a guest: there is no security processor, and every ASID that CPUID allows
//! counts as activated. What is left is what software sees. An exit that is not automatic becomes #VC in the guest; an
//! automatic one stores the guest's whole state in the VMSA and gives the host back what the table of swap types says:
//!
//! | type | at VMRUN the host's state | at #VMEXIT |
//! | --- | --- | --- |
//! | A: what every guest switches | is saved in the host save area | is loaded from there |
//! | B: general registers, FS, GS, LDTR, TR, what VMSAVE saves, XCR0, IA32_XSS, PKRU, shadow stacks | is not saved | is loaded from there: software must have stored it |
//! | C: x87 and SSE | is not saved | is as after a reset |
//!
//! Debug registers 0 to 3 stay the guest's: swapping them is a feature of SEV_FEATURES that is not offered.

use super::page::{Fields, Page, WHOLE};
use super::{Running, Svm, state};
use crate::decide::Exit;
use crate::encode::ExitCode;
use crate::vmcb::{Field, Intercept};
use crate::{Vmcb, Vmsa};
use rootmode_arch::event::ExceptionSource;
use rootmode_arch::{Event, Feature, Gpr, HostPhysical, RFlags, Reaction, vector};
use rootmode_cpu::vectors::Vectors;
use rootmode_cpu::{Context, Cpu, F80};

/// An SEV-ES guest that runs.
#[derive(Clone, Debug)]
pub(super) struct Encrypted {
    pub(super) vmsa: HostPhysical,
    /// The GHCB MSR.
    pub(super) ghcb: u64,
    /// The write trap that is due behind the instruction in progress.
    pub(super) trap: Option<Exit>,
}

/// SEV_STATUS: SEV is active.
const SEV_ACTIVE: u64 = 1 << 0;
/// SEV_STATUS: SEV-ES is active.
const SEV_ES_ACTIVE: u64 = 1 << 1;
/// INTERRUPT_SHADOW quadword: the guest's RFLAGS.IF, for a hypervisor that cannot see RFLAGS.
const GUEST_INTERRUPT_MASK: u64 = 1 << 1;

/// General registers of the VMSA; RSP and RAX are among the fields that it shares with a VMCB.
const GENERAL: [(Gpr, Field); 14] = [
    (Gpr::Rcx, Field::Rcx),
    (Gpr::Rdx, Field::Rdx),
    (Gpr::Rbx, Field::Rbx),
    (Gpr::Rbp, Field::Rbp),
    (Gpr::Rsi, Field::Rsi),
    (Gpr::Rdi, Field::Rdi),
    (Gpr::R8, Field::R8),
    (Gpr::R9, Field::R9),
    (Gpr::R10, Field::R10),
    (Gpr::R11, Field::R11),
    (Gpr::R12, Field::R12),
    (Gpr::R13, Field::R13),
    (Gpr::R14, Field::R14),
    (Gpr::R15, Field::R15),
];
const SHADOW_STACKS: [Field; 4] = [Field::Pl0Ssp, Field::Pl1Ssp, Field::Pl2Ssp, Field::Pl3Ssp];

/// Instructions behind which an automatic exit leaves RIP ("Types of Exits").
const fn advances(code: ExitCode) -> bool {
    const COMPLETE: [Intercept; 3] = [Intercept::PAUSE, Intercept::HLT, Intercept::IDLE_HLT];
    let mut n = 0;
    while n < COMPLETE.len() {
        if code.0 == ExitCode::of(COMPLETE[n]).0 {
            return true;
        }
        n += 1;
    }
    code.0 == ExitCode::VMGEXIT.0
}

/// The VMCB as if it held the state that the VMSA holds.
pub(super) fn overlay(vmcb: &mut Vmcb, vmsa: &Vmsa) {
    let (from, to) = (super::STATE, super::LOOKED_AT);
    vmcb.bytes_mut()[from..to].copy_from_slice(&vmsa.as_bytes()[..to - from]);
}

/// State of type B that VMLOAD does not load.
fn load_rest(cpu: &mut Cpu, area: &impl Fields) {
    for (gpr, field) in GENERAL {
        cpu.gpr[gpr as usize] = area.value(field);
    }
    cpu.load_components(area.value(Field::Xcr0), area.value(Field::Xss));
    cpu.pkru = area.value(Field::Pkru) as u32;
    if cpu.model.has(Feature::Shstk) {
        cpu.control_flow.user = area.value(Field::UCet);
        cpu.control_flow.levels = SHADOW_STACKS.map(|field| area.value(field));
    }
}

fn save_rest(cpu: &Cpu, area: &mut Page<'_, WHOLE>) {
    for (gpr, field) in GENERAL {
        area.set(field, cpu.register(gpr));
    }
    area.set(Field::Xcr0, cpu.xcr0);
    area.set(Field::Xss, cpu.xss);
    area.set(Field::Pkru, cpu.pkru.into());
    if cpu.model.has(Feature::Shstk) {
        area.set(Field::UCet, cpu.control_flow.user);
        for (field, value) in SHADOW_STACKS.into_iter().zip(cpu.control_flow.levels) {
            area.set(field, value);
        }
    }
}

/// x87, SSE and AVX. The x87 registers lie in the order of the stack, ten bytes each.
fn load_vectors(cpu: &mut Cpu, area: &Page<'_, WHOLE>) {
    let mut vectors = Vectors::RESET;
    let x87 = &mut vectors.x87;
    let word = |field| area.value(field) as u16;
    x87.control = word(Field::X87Fcw);
    x87.status = word(Field::X87Fsw);
    x87.summarize();
    x87.used = (0..8).filter(|n| word(Field::X87Ftw) >> (2 * n) & 3 != 3).fold(0, |used, n| used | 1 << n);
    x87.opcode = word(Field::X87Fop) & 0x7ff;
    x87.instruction = area.value(Field::X87Rip);
    x87.instruction_selector = word(Field::X87Cs);
    x87.operand = area.value(Field::X87Dp);
    x87.operand_selector = word(Field::X87Ds);
    let registers: [u8; 80] = area.bytes_of(Field::FpregX87);
    for (n, bytes) in registers.chunks_exact(10).enumerate() {
        let number = bytes.iter().rev().fold(0, |number: u128, byte| number << 8 | u128::from(*byte));
        let number = F80 { significand: number as u64, exponent: (number >> 64) as u16 };
        x87.registers[(usize::from(x87.top()) + n) & 7] = number;
    }
    vectors.mxcsr = area.value(Field::Mxcsr) as u32 & rootmode_cpu::vectors::MXCSR_MASK;
    let halves = [Field::FpregXmm, Field::FpregYmm].map(|field| area.bytes_of::<256>(field));
    for n in 0..16_u8 {
        let bytes = 16 * usize::from(n)..16 * usize::from(n) + 16;
        let value = |half: &[u8; 256]| {
            half[bytes.clone()].iter().rev().fold(0, |value: u128, byte| value << 8 | u128::from(*byte))
        };
        let upper = if cpu.model.has(Feature::Avx) { value(&halves[1]) } else { 0 };
        vectors.set_halves(n, [value(&halves[0]), upper]);
    }
    cpu.vectors = vectors;
}

fn save_vectors(cpu: &Cpu, area: &mut Page<'_, WHOLE>) {
    let (vectors, x87) = (&cpu.vectors, &cpu.vectors.x87);
    for (field, value) in [
        (Field::X87Fcw, x87.control.into()),
        (Field::X87Fsw, x87.status.into()),
        (Field::X87Ftw, x87.tag_word().into()),
        (Field::X87Fop, x87.opcode.into()),
        (Field::X87Rip, x87.instruction),
        (Field::X87Cs, x87.instruction_selector.into()),
        (Field::X87Dp, x87.operand),
        (Field::X87Ds, x87.operand_selector.into()),
        (Field::Mxcsr, vectors.mxcsr.into()),
    ] {
        area.set(field, value);
    }
    let mut registers = [0; 80];
    for (n, bytes) in registers.chunks_exact_mut(10).enumerate() {
        let number = x87.registers[(usize::from(x87.top()) + n) & 7];
        bytes[..8].copy_from_slice(&number.significand.to_le_bytes());
        bytes[8..].copy_from_slice(&number.exponent.to_le_bytes());
    }
    area.set_bytes(Field::FpregX87, registers);
    for (half, field) in [Field::FpregXmm, Field::FpregYmm].into_iter().enumerate() {
        let mut registers = [0; 256];
        for (n, bytes) in (0..).zip(registers.chunks_exact_mut(16)) {
            bytes.copy_from_slice(&vectors.halves(n)[half].to_le_bytes());
        }
        area.set_bytes(field, registers);
    }
}

impl Encrypted {
    /// Loads what other guests get from VMLOAD and from software. What VMRUN loads for every guest comes later.
    pub(super) fn enter(&self, cpu: &mut Cpu, ctx: &mut Context<'_>) {
        let area = Page::vmsa(ctx.memory, self.vmsa);
        state::vmload(cpu, &area);
        load_rest(cpu, &area);
        load_vectors(cpu, &area);
    }

    /// Stores the guest's state, after `exit` behind the instruction if that counts as complete; the answer is what the
    /// hypervisor may know of the guest's interruptibility.
    pub(super) fn store(&self, cpu: &mut Cpu, ctx: &mut Context<'_>, exit: &Exit) -> u64 {
        if advances(exit.code) {
            cpu.advance_rip(cpu.current.length.into());
            cpu.load_rflags(cpu.rflags().without(RFlags::RF));
            (cpu.sti_shadow, cpu.mov_ss_shadow) = (false, false);
        }
        let mut area = Page::vmsa(ctx.memory, self.vmsa);
        state::save_guest(cpu, &mut area);
        state::save_branches(cpu, &mut area);
        state::vmsave(cpu, &mut area);
        area.set(Field::GPat, cpu.msrs.pat);
        if cpu.model.has(Feature::VirtualSpecCtrl) {
            area.set(Field::SpecCtrl, cpu.msrs.spec_ctrl);
        }
        save_rest(cpu, &mut area);
        save_vectors(cpu, &mut area);
        let mask = if cpu.rflags().contains(RFlags::IF) { GUEST_INTERRUPT_MASK } else { 0 };
        mask | u64::from(cpu.sti_shadow || cpu.mov_ss_shadow)
    }
}

/// The host's state of types B and C after an exit of an SEV-ES guest.
pub(super) fn leave_to(cpu: &mut Cpu, area: &Page<'_>) {
    state::vmload(cpu, area);
    load_rest(cpu, area);
    cpu.vectors = Vectors::RESET;
}

impl Running {
    /// What becomes of `exit` in an SEV-ES guest instead, unless it is automatic: #VC, whose error code is the exit's code
    /// ("#VC Exception"). #VC itself, intercepted, would have no end: it is the guest's.
    pub(super) fn instead_of(&self, cpu: &mut Cpu, exit: &Exit, event: Option<&Event>) -> Option<Reaction> {
        if self.encrypted.is_none() || exit.is_automatic() {
            return None;
        }
        if let Some(Event::Exception(exception)) = event {
            match exception.vector {
                vector::VC => return Some(Reaction::Proceed),
                // The handler finds what happened where that of #DB would.
                vector::DB if exception.source == ExceptionSource::Hardware => {
                    cpu.dr6 = cpu.dr6 & !0xf | exception.detail;
                }
                _ => {}
            }
        }
        Some(Reaction::Exception(vector::VC, exit.code.0 as u32))
    }

    /// Keeps the exit of a control register's write until the instruction is complete.
    pub(super) fn note_trap(&mut self, cpu: &mut Cpu, exit: Exit) {
        if let Some(encrypted) = &mut self.encrypted {
            encrypted.trap = Some(exit);
            cpu.published.boundary = true;
            cpu.update_attention();
        }
    }

    /// Whether a write trap is due.
    pub(super) const fn traps(&self) -> bool {
        matches!(&self.encrypted, Some(Encrypted { trap: Some(_), .. }))
    }
}

impl Svm {
    /// The exit of a control register's write, behind the instruction.
    pub(super) fn take_trap(&mut self, cpu: &mut Cpu, ctx: &mut Context<'_>) -> Option<Reaction> {
        let exit = self.running.as_mut()?.encrypted.as_mut()?.trap.take()?;
        self.leave(cpu, ctx, &exit, None);
        Some(Reaction::Exit)
    }

    /// The SEV_STATUS MSR: what of memory encryption the software that reads it runs with ("SEV_STATUS MSR").
    pub(super) fn sev_status(&self) -> u64 {
        let Some(running) = &self.running else { return 0 };
        let bit = |on, bit| if on { bit } else { 0 };
        bit(running.controls.is_sev(), SEV_ACTIVE) | bit(running.encrypted.is_some(), SEV_ES_ACTIVE)
    }

    /// The GHCB MSR, which only SEV-ES guests have.
    pub(super) fn ghcb(&mut self) -> Option<&mut u64> {
        self.running.as_mut()?.encrypted.as_mut().map(|encrypted| &mut encrypted.ghcb)
    }
}
