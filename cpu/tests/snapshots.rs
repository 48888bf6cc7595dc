//! Snapshots change nothing, and a board restored from one continues as if it had not been.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use iced_x86::code_asm::*;
use rootmode_arch::choices::{Choices, Seeded};
use rootmode_arch::{DescriptorTable, HostPhysical, Site};
use rootmode_cpu::board::{Board, Snapshot, SnapshotError};
use rootmode_cpu::{Bus, Cpu, Effects, Model, msr};
use rootmode_mmu::{Digest, PhysicalMemory};
use std::sync::Arc;

const CODE: u64 = 0x1_0000;
/// Page table of the linear addresses from 0x20_0000 on; identity, as everything else.
const TABLE: u64 = 0x4000;
const WINDOW: u64 = 0x20_0000;
const END: u64 = 20_000;
const STEP: u64 = 1000;

/// Two processors that run `program` in 64-bit mode; choices of `seed`.
fn board(program: &[u8], seed: u64) -> Board {
    let mut board = Board::new();
    board.memory.add_ram(HostPhysical(0), 0x40_0000).unwrap();
    for (at, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83), (0x3008, TABLE | 3)] {
        board.memory.write_u64(HostPhysical(at), entry);
    }
    for page in 0..512 {
        board.memory.write_u64(HostPhysical(TABLE + page * 8), WINDOW + page * 0x1000 | 3);
        board.memory.write_u64(HostPhysical(WINDOW + page * 0x1000), page + 1);
    }
    board.memory.write(HostPhysical(CODE), program);
    board.set_choices(Box::new(Seeded::new(seed)));
    for index in 0..2 {
        let mut cpu = Cpu::new(index, Arc::new(Model::max_intel()));
        cpu.enter_long_mode(0x1000, CODE, 0x9000 + u64::from(index) * 0x1000);
        board.add_processor(cpu, None);
    }
    board
}

/// Vector of counters' interrupts, and the handler, which a program has at its start behind a jump.
const VECTOR: u64 = 0x40;
const HANDLER: u64 = CODE + 2;
const GDT: u64 = 0x5000;
const IDT: u64 = 0x6000;

/// Gives processors a GDT, and an IDT whose one gate leads to [`HANDLER`].
fn with_interrupts(mut board: Board) -> Board {
    for (n, descriptor) in [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff].into_iter().enumerate() {
        board.memory.write_u64(HostPhysical(GDT + n as u64 * 8), descriptor);
    }
    let gate = HANDLER & 0xffff | 8 << 16 | 0x8e << 40 | (HANDLER >> 16) << 48;
    board.memory.write_u64(HostPhysical(IDT + VECTOR * 16), gate);
    for processor in board.processors_mut() {
        processor.cpu.gdtr = DescriptorTable { base: GDT, limit: 0x17 };
        processor.cpu.idtr = DescriptorTable { base: IDT, limit: 0xfff };
    }
    board
}

/// A loop with pointers that carry metadata, under counters of which one interrupts again and again, with protection keys
/// of supervisor pages that change; each way of a loop writes what the counters and clocks say to memory.
fn counted() -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    let (mut start, mut again, mut inner) = (a.create_label(), a.create_label(), a.create_label());
    let wrmsr = |a: &mut CodeAssembler, index: u32, value: u64| {
        a.mov(ecx, index).unwrap();
        a.mov(eax, value as u32).unwrap();
        a.mov(edx, (value >> 32) as u32).unwrap();
        a.wrmsr().unwrap();
    };
    a.jmp(start).unwrap();
    // The handler: counts in R15, arms the counter and its local vector again.
    a.push(rax).unwrap();
    a.push(rcx).unwrap();
    a.push(rdx).unwrap();
    a.inc(r15).unwrap();
    wrmsr(&mut a, 0x4c1, (1 << 48) - 777);
    wrmsr(&mut a, 0x390, 1);
    wrmsr(&mut a, 0x834, VECTOR);
    wrmsr(&mut a, 0x80b, 0);
    a.pop(rdx).unwrap();
    a.pop(rcx).unwrap();
    a.pop(rax).unwrap();
    a.iretq().unwrap();
    a.set_label(&mut start).unwrap();
    // x2APIC mode, enabled by software.
    a.mov(ecx, 0x1b).unwrap();
    a.rdmsr().unwrap();
    a.or(eax, 0xc00).unwrap();
    a.wrmsr().unwrap();
    wrmsr(&mut a, 0x80f, 0x1ff);
    wrmsr(&mut a, 0x834, VECTOR);
    a.mov(rax, cr3).unwrap();
    a.bts(rax, 61).unwrap();
    a.mov(cr3, rax).unwrap();
    wrmsr(&mut a, 0x187, 0xc4 | 3 << 16 | 1 << 22);
    wrmsr(&mut a, 0x38d, 0xb3);
    wrmsr(&mut a, 0x38f, 3 << 32 | 0xff);
    wrmsr(&mut a, 0x4c1, (1 << 48) - 333);
    wrmsr(&mut a, 0x186, 0xc0 | 3 << 16 | 1 << 20 | 1 << 22);
    a.sti().unwrap();
    a.mov(rsi, WINDOW | 0x15 << 57).unwrap();
    a.set_label(&mut again).unwrap();
    a.mov(ebx, 20).unwrap();
    a.set_label(&mut inner).unwrap();
    a.add(qword_ptr(rsi), rbx).unwrap();
    a.dec(ebx).unwrap();
    a.jne(inner).unwrap();
    for (n, index) in [0xc1, 0xc2, 0x309, 0x30a, 0x38e, 0xe7, 0xe8].into_iter().enumerate() {
        a.mov(ecx, index).unwrap();
        a.rdmsr().unwrap();
        a.add(dword_ptr(rsi + 64 + 8 * n), eax).unwrap();
    }
    a.inc(r14).unwrap();
    a.mov(ecx, 0x6e1).unwrap();
    a.mov(eax, r14d).unwrap();
    a.and(eax, 0xc).unwrap();
    a.xor(edx, edx).unwrap();
    a.wrmsr().unwrap();
    a.jmp(again).unwrap();
    a.assemble(CODE).unwrap()
}

/// A loop that reads a page, maps it elsewhere without an invalidation, and counts what it reads through the old translation.
fn stale() -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    let (mut again, mut next) = (a.create_label(), a.create_label());
    a.mov(rbx, TABLE).unwrap();
    a.mov(rsi, WINDOW).unwrap();
    a.set_label(&mut again).unwrap();
    a.add(rcx, qword_ptr(rsi)).unwrap();
    a.add(qword_ptr(rbx), 0x1000).unwrap();
    a.mov(edx, 30).unwrap();
    a.set_label(&mut next).unwrap();
    a.add(rcx, qword_ptr(rsi)).unwrap();
    a.mov(qword_ptr(rsi + 8), rcx).unwrap();
    a.dec(edx).unwrap();
    a.jne(next).unwrap();
    // Once in a while the entry is read again.
    a.test(rcx, 0x70).unwrap();
    a.jne(again).unwrap();
    a.invlpg(ptr(rsi)).unwrap();
    a.jmp(again).unwrap();
    a.assemble(CODE).unwrap()
}

/// A loop over random loads, stores, edits of the page table, and invalidations of every kind; some code is overwritten.
fn random(seed: u64) -> Vec<u8> {
    let mut draw = Seeded::new(seed);
    let mut a = CodeAssembler::new(64).unwrap();
    let mut again = a.create_label();
    a.mov(rbx, TABLE).unwrap();
    a.set_label(&mut again).unwrap();
    for _ in 0..60 {
        let page = draw.choose(Site::Program, 12);
        let other = draw.choose(Site::Program, 12);
        a.mov(rsi, WINDOW + page * 0x1000).unwrap();
        match draw.choose(Site::Program, 9) {
            0 | 1 => a.add(rcx, qword_ptr(rsi)).unwrap(),
            2 | 3 => a.mov(qword_ptr(rsi + 16), rcx).unwrap(),
            4 | 5 => {
                a.mov(rdx, WINDOW + other * 0x1000 | 3).unwrap();
                a.mov(qword_ptr(rbx + page * 8), rdx).unwrap();
            }
            6 => a.invlpg(ptr(rsi)).unwrap(),
            7 => {
                a.mov(rax, cr3).unwrap();
                a.mov(cr3, rax).unwrap();
            }
            // The displacement of a load further on, wherever it is: a byte of code changes to itself or to a copy.
            _ => {
                a.mov(rdi, CODE + 0x800).unwrap();
                a.mov(byte_ptr(rdi), cl).unwrap();
            }
        }
    }
    a.jmp(again).unwrap();
    a.assemble(CODE).unwrap()
}

/// Runs to the end in steps; `f` sees the board after each.
fn run(board: &mut Board, mut f: impl FnMut(&mut Board)) -> u128 {
    while board.now() < END {
        let until = (board.now() / STEP + 1) * STEP;
        board.run(until);
        f(board);
    }
    board.digest()
}

fn holds(program: &[u8], seed: u64) {
    let board = |program, seed| with_interrupts(board(program, seed));
    let expected = {
        let mut plain = board(program, seed);
        plain.run(END);
        plain.digest()
    };
    let mut snapshots: Vec<Snapshot> = Vec::new();
    let taken = run(&mut board(program, seed), |board| {
        let before = board.digest();
        snapshots.push(board.snapshot().unwrap());
        assert_eq!(board.digest(), before);
    });
    assert_eq!(taken, expected, "with snapshots");
    let mut same = board(program, seed);
    for (index, snapshot) in snapshots.iter().enumerate().rev() {
        let mut other = board(program, seed + 1);
        other.restore(snapshot).unwrap();
        other.run(END);
        assert_eq!(other.digest(), expected, "another board from snapshot {index}");
        same.restore(snapshot).unwrap();
        same.run(END);
        assert_eq!(same.digest(), expected, "the same board from snapshot {index}");
    }
}

#[test]
fn a_guest_that_relies_on_a_stale_translation_gives_one_digest_with_snapshots_without_and_from_each() {
    let program = stale();
    let mut stale = board(&program, 0);
    stale.run(END);
    let read = stale.processors()[0].cpu.gpr[1];
    let mut flushed = board(&program, 0);
    run(&mut flushed, |board| board.processors_mut().iter_mut().for_each(|p| p.cpu.tlb.flush_all()));
    assert_ne!(flushed.processors()[0].cpu.gpr[1], read, "the guest does see what is stale");
    holds(&program, 0);
}

#[test]
fn random_programs_give_one_digest_with_snapshots_without_and_from_each() {
    for seed in 0..12 {
        holds(&random(seed), seed);
    }
}

#[test]
fn counters_clocks_and_masked_pointers_give_one_digest_with_snapshots_without_and_from_each() {
    let program = counted();
    let mut one = with_interrupts(board(&program, 0));
    one.run(END);
    let cpu = &one.processors()[0].cpu;
    assert!(cpu.gpr[15] > 10 && cpu.gpr[14] > 100, "{} interrupts, {} loops", cpu.gpr[15], cpu.gpr[14]);
    holds(&program, 0);
}

#[test]
fn every_register_of_a_feature_is_in_the_digest() {
    let digest = |cpu: &Cpu| {
        let mut digest = Digest::new();
        cpu.digest(&mut digest);
        digest.finish()
    };
    let all = [
        // IA32_PKRS, CET's, IA32_SPEC_CTRL, MPERF and APERF.
        (0x6e1, 4),
        (0x6a0, 1),
        (0x6a2, 4),
        (0x6a4, 8),
        (0x6a7, 8),
        (0x6a8, 8),
        (0x48, 1),
        (0xe7, 5),
        (0xe8, 5),
        // Event selects, counters, fixed-function counters and their control, global control.
        (0x186, 0xc0),
        (0x18d, 0xc0),
        (0xc1, 7),
        (0x4c8, 7),
        (0x309, 7),
        (0x30a, 7),
        (0x38d, 3),
        (0x38f, 1),
        // Memory types.
        (0x2ff, 6),
        (0x250, 0),
        (0x20f, 0x800),
    ];
    let fresh = Cpu::new(0, Arc::new(Model::max_intel()));
    let mut seen = vec![digest(&fresh)];
    for (index, value) in all {
        let mut cpu = fresh.clone();
        msr::write(&mut cpu, index, value, 0).unwrap();
        let now = digest(&cpu);
        assert!(!seen.contains(&now), "{index:#x}");
        seen.push(now);
    }
}

/// Devices that cannot be copied.
struct Opaque;

impl Bus for Opaque {
    fn read_port(&mut self, _: u16, _: u8, _: u64, _: &mut Effects) -> u32 {
        0
    }
    fn write_port(&mut self, _: u16, _: u8, _: u32, _: u64, _: &mut Effects) {}
    fn read_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: &mut Effects) -> u64 {
        0
    }
    fn write_mmio(&mut self, _: HostPhysical, _: u8, _: u64, _: u64, _: &mut Effects) {}
    fn deadline(&mut self, _: u32, _: u64, _: &mut PhysicalMemory, _: &mut Effects) {}
}

#[test]
fn what_cannot_be_saved_or_restored_is_named() {
    let mut one = board(&stale(), 0);
    let snapshot = one.snapshot().unwrap();
    one.set_bus(Box::new(Opaque));
    assert_eq!(one.snapshot().err(), Some(SnapshotError::Bus));
    let mut none = Board::new();
    assert_eq!(none.restore(&snapshot), Err(SnapshotError::Processors { saved: 2, present: 0 }));
}
