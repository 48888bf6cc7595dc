//! The host processor as an oracle: one instruction at a time, from a chosen state, with faults caught.
//!
//! [`Host::run`] executes an instruction in a page of machine code that loads [`State`], runs it and saves the state again.
//! A signal handler turns a fault into [`State::signal`] and takes the registers from the signal frame. Only this folder has
//! `unsafe` code.
#![allow(unsafe_code, reason = "machine code and signal frames")]
#![allow(dead_code, unreachable_pub, missing_docs, reason = "every test file uses a part of it")]

use iced_x86::code_asm::*;
use std::mem::offset_of;

/// Bytes of memory that an instruction may use.
pub const MEMORY: usize = 1024;

/// What an instruction starts from and ends with.
#[repr(C, align(64))]
#[derive(Clone, Copy)]
pub struct State {
    /// An FXSAVE image.
    pub fx: [u8; 512],
    /// The memory at RSI and RDI.
    pub memory: [u8; MEMORY],
    /// RAX, RCX, RDX, RBX.
    pub gpr: [u64; 4],
    pub flags: u64,
    /// What was raised: 0 or a signal's number.
    pub signal: u64,
    /// Offset of RSI and RDI within `memory`.
    pub offset: u64,
    mxcsr: u64,
}

impl State {
    pub fn new() -> Self {
        let mut fx = [0; 512];
        fx[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        fx[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Self { fx, memory: [0; MEMORY], gpr: [0; 4], flags: 2, signal: 0, offset: 0, mxcsr: 0x1f80 }
    }
    pub fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.fx[at], self.fx[at + 1]])
    }
    pub fn set_u16(&mut self, at: usize, value: u16) {
        self.fx[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }
    pub fn mxcsr(&self) -> u32 {
        u32::from_le_bytes(self.fx[24..28].try_into().expect("four bytes"))
    }
    pub fn set_mxcsr(&mut self, value: u32) {
        self.fx[24..28].copy_from_slice(&value.to_le_bytes());
    }
    pub fn xmm(&self, n: usize) -> u128 {
        u128::from_le_bytes(self.fx[160 + 16 * n..176 + 16 * n].try_into().expect("16 bytes"))
    }
    pub fn set_xmm(&mut self, n: usize, value: u128) {
        self.fx[160 + 16 * n..176 + 16 * n].copy_from_slice(&value.to_le_bytes());
    }
    /// ST(n), by its distance from TOP.
    pub fn st(&self, n: usize) -> u128 {
        let bytes: [u8; 16] = self.fx[32 + 16 * n..48 + 16 * n].try_into().expect("16 bytes");
        u128::from_le_bytes(bytes) & (1 << 80) - 1
    }
    pub fn set_st(&mut self, n: usize, value: u128) {
        self.fx[32 + 16 * n..42 + 16 * n].copy_from_slice(&value.to_le_bytes()[..10]);
    }
}

/// A page of machine code around a slot for one instruction.
pub struct Host {
    page: *mut u8,
    slot: usize,
    end: usize,
}

/// Where the code after the instruction starts that leaves without saving.
static mut LEAVE: usize = 0;
static mut PAGE: usize = 0;

extern "C" fn caught(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext; R15 holds the state while the page's code runs.
    unsafe {
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        let rip = registers[libc::REG_RIP as usize] as usize;
        if rip < PAGE || rip >= PAGE + 4096 {
            libc::signal(signal, libc::SIG_DFL);
            return;
        }
        let state = &mut *(registers[libc::REG_R15 as usize] as *mut State);
        state.signal = signal as u64;
        let fpregs = context.uc_mcontext.fpregs.cast::<u8>();
        std::ptr::copy_nonoverlapping(fpregs, state.fx.as_mut_ptr(), 512);
        let order = [libc::REG_RAX, libc::REG_RCX, libc::REG_RDX, libc::REG_RBX];
        for (n, register) in order.iter().enumerate() {
            state.gpr[n] = registers[*register as usize] as u64;
        }
        state.flags = registers[libc::REG_EFL as usize] as u64;
        registers[libc::REG_RIP as usize] = LEAVE as i64;
    }
}

impl Host {
    /// Only one at a time: the signal handler knows one page.
    pub fn new() -> Self {
        let mut a = CodeAssembler::new(64).expect("64-bit code");
        let (mut slot, mut leave) = (a.create_label(), a.create_label());
        let at = |field: usize| qword_ptr(r15 + field);
        let mut build = || -> Result<(), IcedError> {
            for register in [rbx, rbp, r12, r13, r14, r15] {
                a.push(register)?;
            }
            a.mov(r15, rdi)?;
            a.fxrstor64(ptr(r15))?;
            a.push(at(offset_of!(State, flags)))?;
            a.popfq()?;
            a.mov(rsi, at(offset_of!(State, offset)))?;
            a.lea(rsi, ptr(r15 + rsi + offset_of!(State, memory)))?;
            a.mov(rdi, rsi)?;
            for (n, register) in [rax, rcx, rdx, rbx].into_iter().enumerate() {
                a.mov(register, at(offset_of!(State, gpr) + 8 * n))?;
            }
            a.set_label(&mut slot)?;
            for _ in 0..16 {
                a.nop()?;
            }
            for (n, register) in [rax, rcx, rdx, rbx].into_iter().enumerate() {
                a.mov(at(offset_of!(State, gpr) + 8 * n), register)?;
            }
            a.pushfq()?;
            a.pop(at(offset_of!(State, flags)))?;
            a.fxsave64(ptr(r15))?;
            a.set_label(&mut leave)?;
            a.fninit()?;
            a.ldmxcsr(dword_ptr(r15 + offset_of!(State, mxcsr)))?;
            a.push(0x202)?;
            a.popfq()?;
            for register in [r15, r14, r13, r12, rbp, rbx] {
                a.pop(register)?;
            }
            a.ret()
        };
        build().expect("the stub is well-formed");
        // SAFETY: a fresh anonymous mapping that nobody else knows.
        let page = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0)
        };
        assert_ne!(page, libc::MAP_FAILED, "executable memory is available");
        let options = iced_x86::BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let result = a.assemble_options(page as u64, options).expect("the stub is well-formed");
        let slot = result.label_ip(&slot).expect("the label is set") as usize - page as usize;
        let leave = result.label_ip(&leave).expect("the label is set") as usize;
        let code = &result.inner.code_buffer;
        // SAFETY: the mapping is larger than the stub; the handler is installed before any fault.
        unsafe {
            std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len());
            LEAVE = leave;
            PAGE = page as usize;
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = caught as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO;
            for signal in [libc::SIGFPE, libc::SIGSEGV, libc::SIGILL, libc::SIGBUS] {
                libc::sigaction(signal, &action, std::ptr::null_mut());
            }
        }
        Self { page: page.cast(), slot, end: slot + 16 }
    }

    /// Puts `instruction` into the slot.
    pub fn load(&mut self, instruction: &[u8]) {
        assert!(instruction.len() <= 15, "an instruction has at most 15 bytes");
        // SAFETY: the slot has 16 bytes within the page.
        unsafe {
            let slot = self.page.add(self.slot);
            std::ptr::write_bytes(slot, 0x90, self.end - self.slot);
            std::ptr::copy_nonoverlapping(instruction.as_ptr(), slot, instruction.len());
        }
    }

    /// Runs what was loaded.
    pub fn run(&self, state: &mut State) {
        state.signal = 0;
        // SAFETY: the stub keeps the calling convention; the loaded instruction touches only registers and `state`.
        unsafe {
            let entry: extern "C" fn(*mut State) = std::mem::transmute(self.page);
            entry(state);
        }
    }
}
