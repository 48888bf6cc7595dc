//! What a processor may still use of the past, and what not: translations after edits of the page tables, and code that
//! another processor has written (SDM Vol. 3A "Caching Translation Information", "Handling Self- and Cross-Modifying Code").
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

mod support;

use iced_x86::code_asm::*;
use rootmode_arch::choices::{Choices, Seeded};
use rootmode_arch::{Cr0, Cr4, HostPhysical, Site};
use rootmode_cpu::board::Board;
use rootmode_cpu::{Activity, Cpu, Model, RunEnd};
use std::sync::Arc;
use support::*;

/// Linear addresses that a table of 4-KiB pages maps, and that table.
const WINDOW: u64 = 0x20_0000;
const TABLE: u64 = 0x8000;
/// Frames that its pages are mapped to; each begins with its number plus 1.
const FRAMES: u64 = 0x10_0000;
const LOG: u64 = 0x18_0000;
const PAGES: u64 = 6;

const PRESENT: u64 = 1;
const WRITABLE: u64 = 2;
const GLOBAL: u64 = 0x100;

/// One step of a random program, and of its oracle.
#[derive(Clone, Copy, Debug)]
enum Step {
    Edit(usize, u64),
    Read(usize),
    Write(usize),
    /// INVLPG.
    Page(usize),
    /// INVPCID of one address: not of global translations.
    Address(usize),
    /// MOV to CR3, or INVPCID of all contexts but global translations.
    Context {
        by_instruction: bool,
    },
    /// A change of CR4.PGE, or INVPCID of everything.
    All {
        by_instruction: bool,
    },
}

fn draw(choices: &mut Seeded) -> Step {
    let mut pick = |n| choices.choose(Site::Program, n);
    let page = pick(PAGES) as usize;
    match pick(16) {
        0..=4 => {
            let flags = [0, PRESENT, PRESENT | WRITABLE, PRESENT | GLOBAL, PRESENT | WRITABLE | GLOBAL];
            Step::Edit(page, FRAMES + pick(8) * 0x1000 | flags[pick(5) as usize])
        }
        5..=9 => Step::Read(page),
        10..=12 => Step::Write(page),
        13 => Step::Page(page),
        14 => Step::Address(page),
        _ if pick(2) == 0 => Step::Context { by_instruction: pick(2) == 0 },
        _ => Step::All { by_instruction: pick(2) == 0 },
    }
}

/// Assembles a step. Accesses append what they read, 1 for a write, 0 for a fault to the log at R15.
fn emit(a: &mut CodeAssembler, step: Step) -> Result<(), IcedError> {
    let address = |page: usize| WINDOW + page as u64 * 0x1000;
    match step {
        Step::Edit(page, entry) => {
            a.mov(rdx, entry)?;
            a.mov(qword_ptr(TABLE + page as u64 * 8), rdx)?;
        }
        Step::Read(page) | Step::Write(page) => {
            let mut after = a.create_label();
            a.xor(eax, eax)?;
            a.lea(r14, ptr(after))?;
            a.mov(rsi, address(page))?;
            if matches!(step, Step::Read(_)) {
                a.mov(rax, qword_ptr(rsi))?;
            } else {
                a.mov(qword_ptr(rsi + 16), rcx)?;
                a.mov(eax, 1)?;
            }
            a.set_label(&mut after)?;
            a.mov(qword_ptr(r15), rax)?;
            a.add(r15, 8)?;
        }
        Step::Page(page) => {
            a.mov(rsi, address(page))?;
            a.invlpg(ptr(rsi))?;
        }
        Step::Address(page) => {
            a.mov(rsi, address(page))?;
            a.mov(qword_ptr(DATA + 8), rsi)?;
            a.xor(edx, edx)?;
            a.invpcid(rdx, xmmword_ptr(DATA))?;
        }
        Step::Context { by_instruction: false } => {
            a.mov(rax, cr3)?;
            a.mov(cr3, rax)?;
        }
        Step::All { by_instruction: false } => {
            a.mov(rax, cr4)?;
            for _ in 0..2 {
                a.xor(rax, Cr4::PGE.0 as i32)?;
                a.mov(cr4, rax)?;
            }
        }
        Step::Context { .. } | Step::All { .. } => {
            a.mov(edx, if matches!(step, Step::All { .. }) { 2 } else { 3 })?;
            a.invpcid(rdx, xmmword_ptr(DATA))?;
        }
    }
    Ok(())
}

/// For each page its entry and the older ones that may still be cached.
struct Oracle {
    entries: [u64; PAGES as usize],
    older: [Vec<u64>; PAGES as usize],
    /// Accesses that used an older entry where the present one would have answered something else.
    stale: usize,
}

impl Oracle {
    fn new() -> Self {
        Self { entries: [0; PAGES as usize], older: Default::default(), stale: 0 }
    }

    /// # Errors
    /// What an access answered and may not have.
    fn step(&mut self, step: Step, answers: &mut impl Iterator<Item = u64>) -> Result<(), String> {
        let keep_global = |entry: &u64| entry & GLOBAL != 0;
        match step {
            Step::Edit(page, entry) => {
                let old = std::mem::replace(&mut self.entries[page], entry);
                // Entries that are not present are never cached.
                if old & PRESENT != 0 {
                    self.older[page].push(old);
                }
            }
            Step::Read(page) | Step::Write(page) => {
                let answer = answers.next().ok_or("the log ends early")?;
                let write = matches!(step, Step::Write(_));
                let expected = |entry: u64| match (entry & PRESENT != 0, write) {
                    (false, _) => 0,
                    (true, false) => (entry >> 12 & 0xff) + 1,
                    (true, true) => u64::from(entry & WRITABLE != 0),
                };
                let now = expected(self.entries[page]);
                if answer != now {
                    self.stale += 1;
                    if !self.older[page].iter().any(|entry| expected(*entry) == answer) {
                        return Err(format!(
                            "{step:?} answered {answer}, not {now}: {:x?}",
                            self.older[page]
                        ));
                    }
                }
            }
            Step::Page(page) => self.older[page].clear(),
            Step::Address(page) => self.older[page].retain(keep_global),
            Step::Context { .. } => self.older.iter_mut().for_each(|older| older.retain(keep_global)),
            Step::All { .. } => self.older.iter_mut().for_each(Vec::clear),
        }
        Ok(())
    }
}

#[test]
fn a_stale_translation_is_used_only_until_an_invalidation_that_covers_it() {
    let mut stale = 0;
    for seed in 0..60 {
        let mut choices = Seeded::new(seed);
        let steps: Vec<Step> = (0..300).map(|_| draw(&mut choices)).collect();
        let mut rig = Rig::new();
        rig.memory.write_u64(HostPhysical(0x3008), TABLE | 7);
        for frame in 0..8 {
            rig.memory.write_u64(HostPhysical(FRAMES + frame * 0x1000), frame + 1);
        }
        rig.code(|a| {
            for step in &steps {
                emit(a, *step).unwrap();
            }
            a.hlt().unwrap();
        });
        // #PF: drop the error code and go on at R14.
        const HANDLER: u64 = 0x4_0000;
        rig.code_at(HANDLER, |a| {
            a.add(rsp, 8).unwrap();
            a.mov(qword_ptr(rsp), r14).unwrap();
            a.iretq().unwrap();
        });
        rig.gate(14, HANDLER, 0xe, 0, 0);
        let cpu = rig.cpu();
        cpu.cr0 = cpu.cr0 | Cr0::WP;
        cpu.cr4 = cpu.cr4 | Cr4::PGE;
        cpu.gpr[15] = LOG;
        cpu.refresh();
        assert_eq!(rig.run(100_000), RunEnd::Asleep);
        let mut answers =
            (LOG..rig.cpu().gpr[15]).step_by(8).map(|at| rig.read(at)).collect::<Vec<_>>().into_iter();
        let mut oracle = Oracle::new();
        for (number, step) in steps.iter().enumerate() {
            if let Err(error) = oracle.step(*step, &mut answers) {
                panic!("seed {seed}, step {number}: {error}");
            }
        }
        assert_eq!(answers.next(), None);
        stale += oracle.stale;
    }
    assert!(stale > 100, "guests see stale translations: {stale}");
}

/// How the writer changes the four bytes at RDI to EAX.
#[derive(Clone, Copy, Debug)]
enum Store {
    Word,
    Bytes,
    Exchange,
    Locked,
    Copied,
}

const FUNCTION: u64 = 0x5_0000;
const FLAG: u64 = 0x2_0000;
const ACKNOWLEDGED: u64 = 0x2_0100;
const SCRATCH: u64 = 0x2_0200;
const RESULTS: u64 = 0x2_1000;
const WRITER: u64 = 0x1_0000;
const READER: u64 = 0x1_8000;
const GENERATIONS: u64 = 30;
/// Calls of each generation: enough for every way in which the reader's engine runs code.
const CALLS: u64 = 40;
const FACTOR: u64 = 0x0102_0305;

fn write_code(a: &mut CodeAssembler, patch: u64, store: Store) -> Result<(), IcedError> {
    let (mut again, mut wait) = (a.create_label(), a.create_label());
    a.xor(r8d, r8d)?;
    a.set_label(&mut again)?;
    a.inc(r8)?;
    a.imul_3(eax, r8d, FACTOR as i32)?;
    a.mov(rdi, patch)?;
    match store {
        Store::Word => a.mov(dword_ptr(rdi), eax)?,
        Store::Bytes => {
            for n in 0..4 {
                a.mov(byte_ptr(rdi + n), al)?;
                a.shr(eax, 8)?;
            }
        }
        Store::Exchange => a.xchg(dword_ptr(rdi), eax)?,
        Store::Locked => {
            a.sub(eax, dword_ptr(rdi))?;
            a.lock().add(dword_ptr(rdi), eax)?;
        }
        Store::Copied => {
            a.mov(rsi, SCRATCH)?;
            a.mov(dword_ptr(rsi), eax)?;
            a.mov(ecx, 4)?;
            a.rep().movsb()?;
        }
    }
    a.mov(rdi, FLAG)?;
    a.mov(qword_ptr(rdi), r8)?;
    a.mov(rdi, ACKNOWLEDGED)?;
    a.set_label(&mut wait)?;
    a.pause()?;
    a.cmp(qword_ptr(rdi), r8)?;
    a.jne(wait)?;
    a.cmp(r8, GENERATIONS as i32)?;
    a.jne(again)?;
    a.hlt()
}

fn run_code(a: &mut CodeAssembler, function: u64) -> Result<(), IcedError> {
    let (mut wait, mut call) = (a.create_label(), a.create_label());
    a.xor(r9d, r9d)?;
    a.mov(rdi, FLAG)?;
    a.mov(rsi, RESULTS)?;
    a.set_label(&mut wait)?;
    a.pause()?;
    a.cmp(qword_ptr(rdi), r9)?;
    a.je(wait)?;
    a.mov(r9, qword_ptr(rdi))?;
    // The architecture asks for a serializing instruction before code that another processor wrote.
    a.cpuid()?;
    a.mov(r11d, CALLS as u32)?;
    a.xor(r10d, r10d)?;
    a.mov(r12, function)?;
    a.set_label(&mut call)?;
    a.call(r12)?;
    a.add(r10, rax)?;
    a.dec(r11)?;
    a.jne(call)?;
    a.mov(qword_ptr(rsi + r9 * 8), r10)?;
    a.mov(qword_ptr(rdi + (ACKNOWLEDGED - FLAG) as i32), r9)?;
    a.cmp(r9, GENERATIONS as i32)?;
    a.jne(wait)?;
    a.hlt()
}

#[test]
fn code_that_another_processor_wrote_runs_as_written_behind_a_serializing_instruction() {
    let assemble = |at: u64, build: &dyn Fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let mut a = CodeAssembler::new(64).unwrap();
        build(&mut a).unwrap();
        a.assemble(at).unwrap()
    };
    // Inside a line, across two lines, across two pages.
    for offset in [0x10, 0x7d, 0xffd] {
        for store in [Store::Word, Store::Bytes, Store::Exchange, Store::Locked, Store::Copied] {
            // Written and run through one linear address, written through another, run through another.
            for (written, run) in [(0, 0), (WINDOW, 0), (0, WINDOW)] {
                let mut board = Board::new();
                board.memory.add_ram(HostPhysical(0), 0x20_0000).unwrap();
                // The first 2 MiB, twice.
                for (at, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83), (0x3008, 0x83)] {
                    board.memory.write_u64(HostPhysical(at), entry);
                }
                let function = FUNCTION + offset;
                // MOV EAX, imm32; RET.
                board.memory.write(HostPhysical(function), &[0xb8, 0, 0, 0, 0, 0xc3]);
                let writer = assemble(WRITER, &|a| write_code(a, written + function + 1, store));
                let reader = assemble(READER, &|a| run_code(a, run + function));
                for (index, (at, code)) in [(WRITER, writer), (READER, reader)].into_iter().enumerate() {
                    board.memory.write(HostPhysical(at), &code);
                    let mut cpu = Cpu::new(index as u8, Arc::new(Model::max_intel()));
                    cpu.enter_long_mode(0x1000, at, 0x9000 + index as u64 * 0x1000);
                    board.add_processor(cpu, None);
                }
                board.run(10_000_000);
                let results = (1..=GENERATIONS).map(|n| board.memory.read_u64(HostPhysical(RESULTS + n * 8)));
                let expected = (1..=GENERATIONS).map(|n| CALLS * u64::from((n * FACTOR) as u32));
                assert!(results.eq(expected), "offset {offset:#x}, {store:?}, {written:#x}, {run:#x}");
            }
        }
    }
}

#[test]
fn code_that_runs_into_the_next_page_follows_its_translation_even_if_both_were_one_page() {
    const FIRST: u64 = 0x20_0000;
    let mut rig = Rig::new();
    // Two pages of linear addresses lead to one page of RAM.
    rig.memory.write_u64(HostPhysical(0x3008), 0x4000 | 7);
    for n in 0..2 {
        rig.memory.write_u64(HostPhysical(0x4000 + 8 * n), CODE | 7);
    }
    // At its end, inc ecx; at its start, dec edx; jz to the HLT; jmp rdi.
    rig.memory.write(HostPhysical(CODE + 0xffe), &[0xff, 0xc1]);
    rig.memory.write(HostPhysical(CODE), &[0xff, 0xca, 0x74, 0x02, 0xff, 0xe7, 0xf4]);
    rig.memory.write(HostPhysical(CODE + 0x1000), &[0xb0, 0x07, 0xf4]);
    let cpu = rig.cpu();
    (cpu.gpr[0], cpu.gpr[1], cpu.gpr[2], cpu.gpr[7]) = (0, 0, 5, FIRST + 0xffe);
    cpu.rip = FIRST + 0xffe;
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!((rig.cpu().gpr[1], rig.cpu().gpr[2]), (5, 0));
    rig.memory.write_u64(HostPhysical(0x4008), (CODE + 0x1000) | 7);
    let cpu = rig.cpu();
    cpu.tlb.flush_all();
    cpu.activity = Activity::Active;
    cpu.rip = FIRST + 0xffe;
    cpu.refresh();
    assert_eq!(rig.run(100), RunEnd::Asleep);
    assert_eq!(rig.cpu().gpr[0], 7, "the second page is another one now");
}
