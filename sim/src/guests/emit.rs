//! What the two L1 hypervisors share: checksum, printing, stopping, saving L2's registers.

use iced_x86::code_asm::*;
use iced_x86::{BlockEncoderOptions, IcedError};
use rootmode_arch::Gpr;

use super::layout::{
    COUNTED, COUNTS, L1_DATA, L1_LOG, L2_BASE, PRINT_PORT, SECOND_STAGE_LEAVES, SHUTDOWN_PORT, data,
};

/// The assembler of an L1 and its shared subroutines.
pub(super) struct L1 {
    /// The instructions so far.
    pub(super) a: CodeAssembler,
    /// Whether it keeps a log, and does not look at the time.
    pub(super) logged: bool,
    mix: CodeLabel,
    /// Jumped to: prints the checksum, then stops the machine with 0.
    pub(super) finish: CodeLabel,
    /// Jumped to with a code in EAX: stops the machine with it.
    pub(super) stop: CodeLabel,
}

/// The 64-bit registers by number; RSP is 4.
pub(super) const REGISTERS: [AsmRegister64; 16] =
    [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];

impl L1 {
    /// An empty program.
    pub(super) fn new(logged: bool) -> Result<Self, IcedError> {
        let mut a = CodeAssembler::new(64)?;
        let (mix, finish, stop) = (a.create_label(), a.create_label(), a.create_label());
        Ok(Self { a, logged, mix, finish, stop })
    }

    /// Mixes RAX into the checksum. Changes R10 and R11.
    pub(super) fn mix(&mut self) -> Result<(), IcedError> {
        self.a.call(self.mix)
    }

    /// Mixes EDX:EAX into the checksum. Changes RAX, RDX, R10, R11.
    pub(super) fn mix_edx_eax(&mut self) -> Result<(), IcedError> {
        self.a.shl(rdx, 32u32)?;
        self.a.or(rax, rdx)?;
        self.mix()
    }

    /// What L1 does before anything else: identifies the processor and reads the time-stamp counter, so that both
    /// are in the checksum.
    pub(super) fn look_around(&mut self) -> Result<(), IcedError> {
        for leaf in [0u32, 1, 0x8000_0001] {
            self.a.mov(eax, leaf)?;
            self.a.xor(ecx, ecx)?;
            self.a.cpuid()?;
            for register in [rbx, rcx, rdx] {
                self.a.mov(rbp, register)?;
                self.mix()?;
                self.a.mov(rax, rbp)?;
            }
            self.mix()?;
        }
        if self.logged {
            return Ok(());
        }
        self.a.rdtsc()?;
        self.mix_edx_eax()
    }

    /// Pushes all registers, R15 first, and lets RBP point at them: RAX at 0, RCX at 8, and so on by number.
    pub(super) fn save_guest(&mut self) -> Result<(), IcedError> {
        for register in REGISTERS.iter().rev() {
            self.a.push(*register)?;
        }
        self.a.mov(rbp, rsp)
    }

    /// Pops what [`L1::save_guest`] pushed.
    pub(super) fn restore_guest(&mut self) -> Result<(), IcedError> {
        for register in REGISTERS {
            if register == rsp { self.a.add(rsp, 8)? } else { self.a.pop(register)? }
        }
        Ok(())
    }

    /// The saved register of L2, while RBP is as [`L1::save_guest`] left it.
    pub(super) fn guest(gpr: Gpr) -> AsmMemoryOperand {
        qword_ptr(rbp + i32::from(gpr.number()) * 8)
    }

    /// Counts an exit with the reason or code in R12 and mixes R12 in. Changes RAX, RCX, R10, R11.
    pub(super) fn count_exit(&mut self) -> Result<(), IcedError> {
        let mut large = self.a.create_label();
        self.a.mov(rcx, L1_DATA)?;
        self.a.inc(qword_ptr(rcx + data::EXITS))?;
        self.a.cmp(r12, COUNTED as i32)?;
        self.a.jae(large)?;
        self.a.mov(rcx, COUNTS)?;
        self.a.inc(qword_ptr(rcx + r12 * 8))?;
        self.a.set_label(&mut large)?;
        self.a.mov(rax, r12)?;
        self.mix()
    }

    /// What L1 answers to CPUID: the processor's own leaf, with one bit of EBX turned over so that the answer is
    /// visibly L1's. Changes RAX, RBX, RCX, RDX.
    pub(super) fn answer_cpuid(&mut self) -> Result<(), IcedError> {
        self.a.mov(rax, Self::guest(Gpr::Rax))?;
        self.a.mov(rcx, Self::guest(Gpr::Rcx))?;
        self.a.cpuid()?;
        self.a.xor(ebx, 0x0100_0000)?;
        self.a.mov(Self::guest(Gpr::Rax), rax)?;
        self.a.mov(Self::guest(Gpr::Rbx), rbx)?;
        self.a.mov(Self::guest(Gpr::Rcx), rcx)?;
        self.a.mov(Self::guest(Gpr::Rdx), rdx)
    }

    /// What L1 answers to RDMSR: a value made from the index.
    pub(super) fn answer_rdmsr(&mut self) -> Result<(), IcedError> {
        self.a.mov(rax, Self::guest(Gpr::Rcx))?;
        self.a.xor(eax, 0x5a5a_0000u32 as i32)?;
        self.a.mov(Self::guest(Gpr::Rax), rax)?;
        self.a.mov(qword_ptr(rbp + 8 * 2), 0x77)
    }

    /// What L1 does with an intercepted WRMSR: mixes index and value in.
    pub(super) fn swallow_wrmsr(&mut self) -> Result<(), IcedError> {
        self.a.mov(rax, Self::guest(Gpr::Rcx))?;
        self.mix()?;
        self.a.mov(rdx, Self::guest(Gpr::Rdx))?;
        self.a.mov(eax, dword_ptr(rbp))?;
        self.mix_edx_eax()
    }

    /// What L1 answers to an intercepted port access: an IN reads a pattern, an OUT is mixed in. R13's bit `input`
    /// tells them apart. Changes RAX, R10, R11.
    pub(super) fn answer_port(&mut self, input: u32) -> Result<(), IcedError> {
        let (mut out, mut done) = (self.a.create_label(), self.a.create_label());
        self.a.bt(r13, input)?;
        self.a.jae(out)?;
        self.a.mov(rax, Self::guest(Gpr::Rax))?;
        self.a.xor(rax, 0x3c)?;
        self.a.mov(Self::guest(Gpr::Rax), rax)?;
        self.a.jmp(done)?;
        self.a.set_label(&mut out)?;
        self.a.mov(rax, Self::guest(Gpr::Rax))?;
        self.mix()?;
        self.a.set_label(&mut done)?;
        self.a.nop()
    }

    /// What L1 answers to a hypercall: ends if L2 asks for it, otherwise RAX becomes 3·RAX + 1.
    pub(super) fn answer_hypercall(&mut self) -> Result<(), IcedError> {
        let mut more = self.a.create_label();
        self.a.mov(rax, Self::guest(Gpr::Rax))?;
        self.a.cmp(rax, super::l2::END as i32)?;
        self.a.jne(more)?;
        self.a.mov(rax, Self::guest(Gpr::Rbx))?;
        self.mix()?;
        self.a.jmp(self.finish)?;
        self.a.set_label(&mut more)?;
        self.a.lea(rax, qword_ptr(rax + rax * 2 + 1))?;
        self.a.mov(Self::guest(Gpr::Rax), rax)
    }

    /// Maps the page of the guest-physical address in R14 with all permissions: the leaf gets `bits`.
    /// An address outside L2's memory stops the machine with code 0x47. Changes RAX, RCX.
    pub(super) fn map_page(&mut self, bits: i32) -> Result<(), IcedError> {
        let mut inside = self.a.create_label();
        self.a.mov(rcx, r14)?;
        self.a.shr(rcx, 12u32)?;
        self.a.cmp(rcx, 512)?;
        self.a.jb(inside)?;
        self.a.mov(eax, 0x47)?;
        self.a.jmp(self.stop)?;
        self.a.set_label(&mut inside)?;
        self.a.mov(rax, rcx)?;
        self.a.shl(rax, 12u32)?;
        self.a.add(rax, L2_BASE as i32)?;
        self.a.or(rax, bits)?;
        self.a.lea(rcx, qword_ptr(rcx * 8 + SECOND_STAGE_LEAVES as i32))?;
        self.a.mov(qword_ptr(rcx), rax)
    }

    /// Adds the subroutines; the bytes of everything for address `base`, and the address of `label`.
    pub(super) fn assemble(mut self, base: u64, label: CodeLabel) -> Result<(Vec<u8>, u64), IcedError> {
        let a = &mut self.a;
        a.set_label(&mut self.mix)?;
        a.mov(r11, L1_DATA)?;
        a.mov(r10, qword_ptr(r11 + data::CHECKSUM))?;
        a.rol(r10, 7u32)?;
        a.xor(r10, rax)?;
        a.mov(r11, 0x0000_0100_0000_01b3u64)?;
        a.imul_2(r10, r11)?;
        a.mov(r11, L1_DATA)?;
        a.mov(qword_ptr(r11 + data::CHECKSUM), r10)?;
        if self.logged {
            a.mov(r10, qword_ptr(r11 + data::LOGGED))?;
            a.mov(qword_ptr(r10 * 8 + L1_LOG as i32), rax)?;
            a.inc(qword_ptr(r11 + data::LOGGED))?;
        }
        a.ret()?;

        // Prints the checksum as sixteen hexadecimal digits and a line feed, then stops with 0.
        let (mut digit, mut decimal) = (a.create_label(), a.create_label());
        a.set_label(&mut self.finish)?;
        a.mov(r11, L1_DATA)?;
        a.mov(rbx, qword_ptr(r11 + data::CHECKSUM))?;
        a.mov(ecx, 16)?;
        a.mov(edx, PRINT_PORT)?;
        a.set_label(&mut digit)?;
        a.rol(rbx, 4u32)?;
        a.mov(rax, rbx)?;
        a.and(eax, 0xf)?;
        a.add(eax, 0x30)?;
        a.cmp(eax, 0x39)?;
        a.jbe(decimal)?;
        a.add(eax, 0x27)?;
        a.set_label(&mut decimal)?;
        a.out(dx, al)?;
        a.dec(ecx)?;
        a.jnz(digit)?;
        a.mov(eax, 0x0a)?;
        a.out(dx, al)?;
        a.xor(eax, eax)?;

        let mut halted = a.create_label();
        a.set_label(&mut self.stop)?;
        a.mov(edx, SHUTDOWN_PORT)?;
        a.out(dx, eax)?;
        a.set_label(&mut halted)?;
        a.hlt()?;
        a.jmp(halted)?;
        let result = a.assemble_options(base, BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS)?;
        let address = result.label_ip(&label)?;
        Ok((result.inner.code_buffer, address))
    }
}
