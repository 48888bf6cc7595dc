//! Runs cases on the host's processor: a child process whose signal handler loads each case's registers and stores what became
//! of them.
//!
//! Every case starts with TF set, so that the child is back in its handler after one instruction: by SIGTRAP if it completed, by
//! another signal if it faulted. The kernel's signal frame is how all registers are read and written, code and stack segments
//! included, so no assembly has to save or load them.
//!
//! # Why `unsafe` is sound here
//!
//! - The mapping that both processes share is plain old data (`Shared`), page-aligned, as large as its type and never unmapped
//!   before its owner is dropped. One side touches it at a time: a byte in a pipe hands it over, which also orders the accesses.
//! - The child is made by `fork` and runs nothing but this file: no allocation, no lock, no panic, no thread-local storage, so
//!   that it does not matter which threads existed and what FS points to.
//! - Whatever a case does, it does to the child alone: its instruction is one of those in `scope`, which leaves out everything
//!   that enters the kernel, and the child can write to the shared mapping and to its own memory only. A child that is lost is
//!   noticed by the end of its pipe, and its outcome is reported, not trusted.

use super::state::*;
use rootmode_arch::Feature;
use rootmode_arch::cpuid::Output;
use std::ffi::c_void;
use std::mem::size_of;

/// Cases a hand-over.
pub const BATCH: usize = 64;
/// No case runs.
const IDLE: u64 = u64::MAX;
/// EFLAGS.TF.
const TF: u64 = 0x100;
/// Linux's AT_HWCAP2 bit: RDFSBASE and its like work in user mode.
const HWCAP2_FSGSBASE: u64 = 2;

/// What both processes see.
#[repr(C, align(4096))]
struct Shared {
    arena: [u8; (ARENA_PAGES * PAGE) as usize],
    cases: [Case; BATCH],
    outcomes: [Outcome; BATCH],
    count: u64,
    index: u64,
    taken: u64,
    /// The child's own FS and GS bases, and its registers while cases run.
    own_bases: [u64; 2],
    /// The kernel's signal frame has the upper halves of YMM registers.
    has_avx: bool,
    own_registers: [i64; 23],
}

/// A host process that runs cases.
#[derive(Debug)]
pub struct Host {
    shared: *mut Shared,
    pid: libc::pid_t,
    to_child: libc::c_int,
    from_child: libc::c_int,
}

// SAFETY: the pointer is to a mapping that this value owns; no other thread has it.
unsafe impl Send for Host {}

/// The mapping of this process, for the handler.
static mut SHARED: *mut Shared = std::ptr::null_mut();

fn failed(what: &str) -> String {
    format!("{what}: {}", std::io::Error::last_os_error())
}

/// Whether user mode may set the bases of FS and GS.
fn has_fs_gs() -> bool {
    // SAFETY: getauxval has no preconditions.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 }
}

/// Whether the host's processor is AMD's.
pub fn is_amd() -> bool {
    std::arch::x86_64::__cpuid(0).ebx == u32::from_le_bytes(*b"Auth")
}

/// PKRU, if the host's kernel lets user mode have protection keys (SDM Vol. 2A "CPUID—CPU Identification", OSPKE).
pub fn protection_keys() -> Option<u32> {
    let enabled =
        std::arch::x86_64::__cpuid(0).eax >= 7 && std::arch::x86_64::__cpuid_count(7, 0).ecx >> 4 & 1 != 0;
    enabled.then(|| {
        let rights: u32;
        // SAFETY: reads a register that user mode has; it wants ECX to be 0 and clears EDX.
        unsafe {
            std::arch::asm!("rdpkru", in("ecx") 0, out("eax") rights, out("edx") _, options(nomem, nostack));
        }
        rights
    })
}

/// Whether the host's processor has `feature`.
pub fn has(feature: Feature) -> bool {
    let row = feature.row();
    let highest = std::arch::x86_64::__cpuid(row.leaf & 0x8000_0000).eax;
    let leaf = std::arch::x86_64::__cpuid_count(row.leaf, row.subleaf);
    let register = match row.output {
        Output::Eax => leaf.eax,
        Output::Ebx => leaf.ebx,
        Output::Ecx => leaf.ecx,
        Output::Edx => leaf.edx,
    };
    row.leaf <= highest && register >> row.bit & 1 != 0
}

impl Host {
    /// Starts a child; the read-only page holds `read_only`.
    ///
    /// # Errors
    /// What the system refused.
    pub fn start(read_only: &[u8; PAGE as usize]) -> Result<Self, String> {
        if !has_fs_gs() {
            return Err(
                "the kernel does not let user mode set the bases of FS and GS (Linux before 5.9)".to_owned()
            );
        }
        // SAFETY: plain system calls; every result is checked, and the mapping lasts as long as the value.
        unsafe {
            let file = libc::memfd_create(c"rootmode-native".as_ptr(), libc::MFD_CLOEXEC);
            if file < 0 || libc::ftruncate(file, size_of::<Shared>() as i64) < 0 {
                return Err(failed("cannot make shared memory"));
            }
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let at =
                libc::mmap(std::ptr::null_mut(), size_of::<Shared>(), protection, libc::MAP_SHARED, file, 0);
            if at == libc::MAP_FAILED {
                return Err(failed("cannot map shared memory"));
            }
            let shared = at.cast::<Shared>();
            (&mut (*shared).arena)[(READ_ONLY - ARENA) as usize..].copy_from_slice(read_only);
            let (mut to_child, mut from_child) = ([0; 2], [0; 2]);
            if libc::pipe2(to_child.as_mut_ptr(), libc::O_CLOEXEC) < 0
                || libc::pipe2(from_child.as_mut_ptr(), libc::O_CLOEXEC) < 0
            {
                return Err(failed("cannot make a pipe"));
            }
            let pid = libc::fork();
            if pid < 0 {
                return Err(failed("cannot fork"));
            }
            if pid == 0 {
                libc::close(to_child[1]);
                libc::close(from_child[0]);
                child(shared, file, to_child[0], from_child[1]);
            }
            for unused in [file, to_child[0], from_child[1]] {
                libc::close(unused);
            }
            Ok(Self { shared, pid, to_child: to_child[1], from_child: from_child[0] })
        }
    }

    /// Runs at most [`BATCH`] cases, and hands each with its outcome to `each`.
    ///
    /// # Errors
    /// The child died or did not answer; the number of the case is named.
    pub fn run(&mut self, cases: &[&Case], mut each: impl FnMut(usize, &Outcome)) -> Result<(), String> {
        assert!(cases.len() <= BATCH, "a batch has {BATCH} cases");
        // SAFETY: the child waits for a byte, so that the mapping is ours until it is written and again when one came back.
        unsafe {
            let shared = &mut *self.shared;
            for (place, case) in shared.cases.iter_mut().zip(cases) {
                *place = **case;
            }
            (shared.count, shared.index) = (cases.len() as u64, IDLE);
            let mut byte = 1_u8;
            let mut wait = libc::pollfd { fd: self.from_child, events: libc::POLLIN, revents: 0 };
            let alive = libc::write(self.to_child, (&raw const byte).cast(), 1) == 1
                && libc::poll(&raw mut wait, 1, 20_000) == 1
                && libc::read(self.from_child, (&raw mut byte).cast(), 1) == 1;
            if !alive {
                return Err(format!("the host's child was lost at case {} of a batch", shared.index));
            }
            for (n, outcome) in shared.outcomes[..cases.len()].iter().enumerate() {
                each(n, outcome);
            }
        }
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // SAFETY: the child, the descriptors and the mapping are this value's own.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
            libc::close(self.to_child);
            libc::close(self.from_child);
            libc::munmap(self.shared.cast(), size_of::<Shared>());
        }
    }
}

/// The child: maps the shared addresses, takes every signal that an instruction can cause, and runs batches for ever.
///
/// # Safety
/// In a child of `fork` only; `shared` is the mapping of `file`.
unsafe fn child(shared: *mut Shared, file: libc::c_int, input: libc::c_int, output: libc::c_int) -> ! {
    // SAFETY: system calls on this process's own memory; the handler's stack is as large as it says.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        SHARED = shared;
        for (page, rights) in PAGES {
            let protection = match rights {
                Rights::Code => libc::PROT_READ | libc::PROT_EXEC,
                Rights::Data => libc::PROT_READ | libc::PROT_WRITE,
                Rights::ReadOnly => libc::PROT_READ,
            };
            let at = (ARENA + page * PAGE) as *mut c_void;
            // Populated: the first access to a page must not look like one to a page that does not exist.
            let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE;
            if libc::mmap(at, PAGE as usize, protection, flags, file, (page * PAGE) as i64) != at {
                libc::_exit(1);
            }
        }
        let size = 1 << 16;
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let stack = libc::mmap(std::ptr::null_mut(), size, protection, anonymous, -1, 0);
        let alternate = libc::stack_t { ss_sp: stack, ss_flags: 0, ss_size: size };
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        if libc::sigaltstack(&raw const alternate, std::ptr::null_mut()) < 0 {
            libc::_exit(1);
        }
        for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE] {
            libc::sigaction(signal, &raw const action, std::ptr::null_mut());
        }
        (*shared).own_bases = bases();
        (*shared).has_avx = has(Feature::Avx);
        let mut byte = 0_u8;
        loop {
            if libc::read(input, (&raw mut byte).cast(), 1) != 1 {
                libc::_exit(0);
            }
            // The handler comes back behind this instruction when the batch is done.
            std::arch::asm!("int3", clobber_abi("C"));
            if libc::write(output, (&raw const byte).cast(), 1) != 1 {
                libc::_exit(0);
            }
        }
    }
}

/// The bases of FS and GS.
unsafe fn bases() -> [u64; 2] {
    let (fs, gs);
    // SAFETY: the kernel allows these instructions (see `has_fs_gs`).
    unsafe {
        std::arch::asm!("rdfsbase {}", "rdgsbase {}", out(reg) fs, out(reg) gs, options(nomem, nostack));
    };
    [fs, gs]
}

/// Sets the bases of FS and GS.
unsafe fn set_bases([fs, gs]: [u64; 2]) {
    // SAFETY: as `bases`; nothing here uses thread-local storage.
    unsafe { std::arch::asm!("wrfsbase {}", "wrgsbase {}", in(reg) fs, in(reg) gs, options(nomem, nostack)) };
}

/// ES, DS, FS, GS.
fn selectors() -> [u64; 4] {
    let mut found = [0_u64; 4];
    // SAFETY: reads registers only.
    unsafe {
        std::arch::asm!(
            "mov {0:e}, es", "mov {1:e}, ds", "mov {2:e}, fs", "mov {3:e}, gs",
            out(reg) found[0], out(reg) found[1], out(reg) found[2], out(reg) found[3],
            options(nomem, nostack)
        );
    }
    found
}

/// Loads [`SELECTORS`]: data segments for 32-bit code, which 64-bit processes do not have, and null ones. It clears the bases of
/// FS and GS.
///
/// # Safety
/// Nothing may use thread-local storage until the bases are back.
unsafe fn set_selectors() {
    // SAFETY: every Linux process may load these selectors.
    unsafe {
        std::arch::asm!(
            "mov es, {0:e}", "mov ds, {0:e}", "mov fs, {1:e}", "mov gs, {1:e}",
            in(reg) DATA_SELECTOR, in(reg) 0_u64, options(nomem, nostack)
        );
    }
}

/// Where the kernel's signal frame keeps the general registers, by number.
const FRAME: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];
/// Where the upper halves of the YMM registers lie in a frame, and bit 2 of its XSTATE_BV (SDM Vol. 1 "XSAVE Area").
const UPPER: usize = 576;
const AVX: u64 = 4;
/// Where that is.
const XSTATE_BV: usize = 512;
/// Bytes of the FXSAVE image that are registers; behind them the kernel keeps notes of its own.
const FX: usize = 416;

/// Every signal of the child: stores the outcome of the case that ran, loads the next one.
extern "C" fn on_signal(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid frame; `SHARED` is the child's mapping, and nothing else runs.
    unsafe {
        // Flags of the case, AC and NT above all, must not act on this code.
        std::arch::asm!("push 0x202", "popfq");
        let shared = &mut *SHARED;
        let context = &mut *context.cast::<libc::ucontext_t>();
        let registers = &mut context.uc_mcontext.gregs;
        let fx = context.uc_mcontext.fpregs.cast::<u8>();
        let trap = registers[libc::REG_TRAPNO as usize] as u64;
        let (current, found) = (bases(), selectors());
        set_selectors();
        set_bases(shared.own_bases);
        if shared.index == IDLE {
            shared.own_registers = *registers;
            shared.index = 0;
            shared.taken = 0;
        } else {
            let case = &shared.cases[shared.index as usize % BATCH];
            let completed = signal == libc::SIGTRAP && trap == 1;
            shared.taken += 1;
            let again = registers[libc::REG_RIP as usize] as u64 == case.registers.rip;
            if completed && again && shared.taken < case.steps {
                // One more iteration of a REP instruction.
                registers[libc::REG_EFL as usize] |= TF as i64;
                set_bases(current);
                return;
            }
            let outcome = &mut shared.outcomes[shared.index as usize % BATCH];
            for (n, at) in FRAME.into_iter().enumerate() {
                outcome.registers.gpr[n] = registers[at as usize] as u64;
            }
            outcome.registers.rip = registers[libc::REG_RIP as usize] as u64;
            outcome.registers.rflags = registers[libc::REG_EFL as usize] as u64;
            outcome.registers.cs = registers[libc::REG_CSGSFS as usize] as u64 & 0xffff;
            outcome.registers.selectors = found;
            [outcome.registers.fs_base, outcome.registers.gs_base] = current;
            std::ptr::copy_nonoverlapping(fx, outcome.registers.fx.as_mut_ptr(), FX);
            outcome.registers.upper = [[0; 16]; 16];
            if shared.has_avx && *fx.add(XSTATE_BV).cast::<u64>() & AVX != 0 {
                let to = outcome.registers.upper.as_flattened_mut();
                std::ptr::copy_nonoverlapping(fx.add(UPPER), to.as_mut_ptr(), to.len());
            }
            outcome.vector = if completed { COMPLETED } else { trap };
            outcome.error = registers[libc::REG_ERR as usize] as u64;
            outcome.cr2 = registers[libc::REG_CR2 as usize] as u64;
            for (n, page) in DATA_PAGES.into_iter().enumerate() {
                let from = shared.arena.as_ptr().add((page * PAGE) as usize);
                std::ptr::copy_nonoverlapping(
                    from,
                    outcome.memory.as_mut_ptr().add(n * PAGE as usize),
                    PAGE as usize,
                );
            }
            shared.index += 1;
            shared.taken = 0;
        }
        if shared.index >= shared.count {
            shared.index = IDLE;
            *registers = shared.own_registers;
            let fx = fx as *mut [u8; FX];
            (*fx).copy_from_slice(&initial_fx()[..FX]);
            return;
        }
        let case = &shared.cases[shared.index as usize % BATCH];
        for (n, page) in DATA_PAGES.into_iter().enumerate() {
            let to = shared.arena.as_mut_ptr().add((page * PAGE) as usize);
            std::ptr::copy_nonoverlapping(case.memory.as_ptr().add(n * PAGE as usize), to, PAGE as usize);
        }
        let from = (case.registers.rip - ARENA) as usize;
        let length = ((CODE_END - case.registers.rip) as usize).min(case.code.len());
        std::ptr::copy_nonoverlapping(case.code.as_ptr(), shared.arena.as_mut_ptr().add(from), length);
        for (n, at) in FRAME.into_iter().enumerate() {
            registers[at as usize] = case.registers.gpr[n] as i64;
        }
        registers[libc::REG_RIP as usize] = case.registers.rip as i64;
        registers[libc::REG_EFL as usize] = (case.registers.rflags | TF) as i64;
        registers[libc::REG_CSGSFS as usize] = (case.registers.cs | DATA_SELECTOR << 48) as i64;
        std::ptr::copy_nonoverlapping(case.registers.fx.as_ptr(), fx, FX);
        // The image holds x87, SSE and AVX state, whatever was in use when the signal came.
        *fx.add(XSTATE_BV).cast::<u64>() |= 3;
        if shared.has_avx {
            *fx.add(XSTATE_BV).cast::<u64>() |= AVX;
            let from = case.registers.upper.as_flattened();
            std::ptr::copy_nonoverlapping(from.as_ptr(), fx.add(UPPER), from.len());
        }
        set_bases([case.registers.fs_base, case.registers.gs_base]);
    }
}
