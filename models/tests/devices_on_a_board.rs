//! The chipset on a board: what a running guest gets from it.

use rootmode_arch::HostPhysical;
use rootmode_arch::record::Stop;
use rootmode_cpu::board::Board;
use rootmode_cpu::{Cpu, Model};
use rootmode_models::devices::pc::{Configuration, Pc};

/// A board with a chipset and one processor in 64-bit mode that runs `code` at 0x8000; the first 2 MiB are mapped.
fn board(code: &[u8]) -> Board {
    let mut board = Board::new();
    Pc::install(&Configuration { memory: 16 << 20, ..Configuration::default() }, &mut board)
        .expect("memory fits");
    let mut cpu = Cpu::new(0, Model::max_intel().into());
    for (at, entry) in [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x83)] {
        board.memory.write_u64(HostPhysical(at), entry);
    }
    board.memory.write(HostPhysical(0x8000), code);
    cpu.enter_long_mode(0x1000, 0x8000, 0x9000);
    board.add_processor(cpu, None);
    board
}

#[test]
fn a_guest_prints_and_stops_the_machine() {
    let mut board = board(&[
        0xb0, b'A', // mov al, 'A'
        0xe6, 0xe9, // out 0xe9, al
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xe6, 0x80, // out 0x80, al
        0xb8, 0x21, 0x43, 0x00, 0x00, // mov eax, 0x4321
        0xe7, 0xf4, // out 0xf4, eax
    ]);
    assert_eq!(board.run(1000).stop, Stop::Requested(0x4321));
    board.with_bus(|bus, _, _, _| {
        let pc = Pc::of_mut(bus).expect("a Pc is installed");
        assert_eq!((pc.take_serial_output(), pc.take_console_output()), (b"A".to_vec(), b"A".to_vec()));
    });
}

#[test]
fn a_guest_that_polls_sees_its_transfer_end() {
    let mut board = board(&[
        0x66, 0xba, 0x14, 0x05, // mov dx, 0x514
        0x31, 0xc0, // xor eax, eax
        0xef, // out dx, eax
        0x66, 0xba, 0x18, 0x05, // mov dx, 0x518
        0xb8, 0x00, 0x00, 0x60, 0x00, // mov eax, 0x6000 in big-endian order
        0xef, // out dx, eax
        0x8b, 0x1c, 0x25, 0x00, 0x60, 0x00, 0x00, // again: mov ebx, [0x6000]
        0x85, 0xdb, // test ebx, ebx
        0x75, 0xf5, // jnz again
        0x8b, 0x04, 0x25, 0x00, 0x70, 0x00, 0x00, // mov eax, [0x7000]
        0x66, 0xba, 0xf4, 0x00, // mov dx, 0xf4
        0xef, // out dx, eax
    ]);
    // Select item 0 and read 4 bytes to 0x7000.
    board.memory.write(HostPhysical(0x6000), &[0, 0, 0, 0x0a, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0x70, 0]);
    assert_eq!(board.run(100_000).stop, Stop::Requested(u32::from_le_bytes(*b"QEMU")));
}

#[test]
fn a_run_cut_anywhere_leaves_the_same_machine() {
    // Reads the timer's count, the clock's register A and the power timer for ever.
    let code = [
        0x30, 0xc0, // again: xor al, al
        0xe6, 0x43, // out 0x43, al
        0xe4, 0x40, // in al, 0x40
        0x00, 0xc3, // add bl, al
        0x66, 0xba, 0x08, 0x06, // mov dx, 0x608
        0xed, // in eax, dx
        0x01, 0xc6, // add esi, eax
        0xeb, 0xef, // jmp again
    ];
    let mut whole = board(&code);
    whole.run(60_000);
    let mut cut = board(&code);
    for limit in (0..60_000).step_by(777).chain([60_000]) {
        cut.run(limit);
        // A snapshot of the devices is taken and restored on the way.
        let copy = Pc::of(cut.bus()).expect("a Pc is installed").clone();
        cut.set_bus(Box::new(copy));
    }
    assert_eq!(whole.processors()[0].cpu.gpr, cut.processors()[0].cpu.gpr);
    assert_eq!(whole.digest(), cut.digest());
}
