//! Snapshots change nothing, and a board restored from one continues as if it had not been.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use iced_x86::code_asm::*;
use rootmode_arch::choices::{Choices, Seeded};
use rootmode_arch::{HostPhysical, Site};
use rootmode_cpu::board::{Board, Snapshot, SnapshotError};
use rootmode_cpu::{Bus, Cpu, Effects, Model};
use rootmode_mmu::PhysicalMemory;
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
