//! Measures the engine: `cargo run --release -p rootmode-cpu --example speed`.

use rootmode_arch::HostPhysical;
use rootmode_cpu::{Cpu, Model, board::Board};
use std::time::Instant;

fn board(code: &[u8]) -> Board {
    let mut board = Board::new();
    board.memory.add_ram(HostPhysical(0), 0x20_0000).expect("an empty board has room");
    for (at, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)] {
        board.memory.write_u64(HostPhysical(at), entry);
    }
    board.memory.write(HostPhysical(0x1_0000), code);
    let mut cpu = Cpu::new(0, Model::max_intel().into());
    cpu.enter_long_mode(0x1000, 0x1_0000, 0x9000);
    cpu.gpr[6] = 0x1_8000;
    board.add_processor(cpu, None);
    board.slice_ticks = 100_000;
    board
}

fn main() {
    // add rax, rcx; xor rdx, rax; inc rcx; cmp rcx, rbx; jne start
    let registers: &[u8] =
        &[0x48, 0x01, 0xc8, 0x48, 0x31, 0xc2, 0x48, 0xff, 0xc1, 0x48, 0x39, 0xd9, 0x75, 0xf2];
    // mov rax, [rsi]; add rax, rcx; mov [rsi + 8], rax; inc rcx; jmp start
    let memory: &[u8] =
        &[0x48, 0x8b, 0x06, 0x48, 0x01, 0xc8, 0x48, 0x89, 0x46, 0x08, 0x48, 0xff, 0xc1, 0xeb, 0xf1];
    // lea rax, [rip + 2]; jmp over; target: inc rdx; ret; over: call rax; dec rbx; jnz over
    let calls: &[u8] = &[
        0x48, 0x8d, 0x05, 0x02, 0x00, 0x00, 0x00, 0xeb, 0x04, 0x48, 0xff, 0xc2, 0xc3, 0xff, 0xd0, 0x48, 0xff,
        0xcb, 0x75, 0xf9,
    ];
    for (name, code) in [("register loop", registers), ("memory loop", memory), ("call loop", calls)] {
        let ticks = 40_000_000;
        let mut board = board(code);
        let start = Instant::now();
        board.run(ticks);
        let seconds = start.elapsed().as_secs_f64();
        println!("{name}: {:.1} MIPS", ticks as f64 / seconds / 1e6);
    }
}
