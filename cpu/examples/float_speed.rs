//! Measures floating point: `cargo run --release -p rootmode-cpu --example float_speed`.

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
    let numbers = [1.0, 1.000_000_1, 0.5_f64].map(|x| u128::from(x.to_bits()));
    numbers.iter().enumerate().for_each(|(n, x)| cpu.vectors.set_xmm(n as u8, *x));
    board.add_processor(cpu, None);
    board.slice_ticks = 100_000;
    board
}

fn main() {
    // mulsd xmm0, xmm1; addsd xmm0, xmm2; jmp start: the latter's time is measured, too.
    let chain: &[u8] = &[0xf2, 0x0f, 0x59, 0xc1, 0xf2, 0x0f, 0x58, 0xc2, 0xeb, 0xf6];
    // divsd xmm0, xmm1; sqrtsd xmm0, xmm0
    let slow: &[u8] = &[0xf2, 0x0f, 0x5e, 0xc1, 0xf2, 0x0f, 0x51, 0xc0, 0xeb, 0xf6];
    // paddd xmm0, xmm1; pxor xmm2, xmm0
    let packed: &[u8] = &[0x66, 0x0f, 0xfe, 0xc1, 0x66, 0x0f, 0xef, 0xd0, 0xeb, 0xf6];
    // addps xmm0, xmm1; mulps xmm2, xmm1
    let singles: &[u8] = &[0x90, 0x0f, 0x58, 0xc1, 0x0f, 0x59, 0xd1, 0xeb, 0xf7];
    // fninit once; then fld1; fadd st0, st0; fstp st0
    let x87: &[u8] = &[0xdb, 0xe3, 0xd9, 0xe8, 0xd8, 0xc0, 0xdd, 0xd8, 0xeb, 0xf8];
    let loops = [
        ("mulsd, addsd", chain),
        ("divsd, sqrtsd", slow),
        ("paddd, pxor", packed),
        ("addps, mulps", singles),
        ("fld1, fadd, fstp", x87),
    ];
    for (name, code) in loops {
        let ticks = 10_000_000;
        let mut board = board(code);
        let start = Instant::now();
        board.run(ticks);
        let nanoseconds = start.elapsed().as_secs_f64() / ticks as f64 * 1e9;
        println!("{name}: {nanoseconds:.1} ns an instruction, the jump included");
    }
}
