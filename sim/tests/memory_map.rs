//! The gate of address line 20, programmable attribute maps and SMRAM as programs see them, with translations in use.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test that cannot be set up fails")]

use iced_x86::code_asm::*;
use rootmode::machine::{Machine, Parts};
use rootmode::processor::Processor;
use rootmode_arch::choices::Tame;
use rootmode_arch::record::Stop;
use rootmode_arch::{Hardware, HostPhysical};
use rootmode_cpu::Message;
use rootmode_models::devices::pc::Configuration;

fn assemble(at: u64, build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(16).unwrap();
    build(&mut assembler).unwrap();
    assembler.assemble(at).unwrap()
}

fn machine(image: Option<Vec<u8>>, firmware: Option<Vec<u8>>) -> Machine {
    let parts = Parts {
        cpu: Processor::default(),
        configuration: Configuration { memory: 4 << 20, ..Configuration::default() },
        firmware,
        watch: None,
        hardware: Hardware::Tame,
        image,
        name: "image".into(),
    };
    Machine::new(&parts, Box::new(Tame)).unwrap()
}

/// The low and the high byte of each of AX, CX, DX, BX.
fn bytes(machine: &Machine) -> [[u8; 2]; 4] {
    let gpr = machine.board.processors()[0].cpu.gpr;
    [0, 1, 2, 3].map(|n: usize| [gpr[n] as u8, (gpr[n] >> 8) as u8])
}

/// Writes `value` to the host bridge's register `at`.
fn configure(a: &mut CodeAssembler, at: u32, value: u32) -> Result<(), IcedError> {
    a.mov(eax, 0x8000_0000 | at & !3)?;
    a.mov(dx, 0xcf8)?;
    a.out(dx, eax)?;
    a.mov(dx, 0xcfc + (at & 3))?;
    a.mov(al, value)?;
    a.out(dx, al)
}

#[test]
fn the_gate_of_address_line_20_folds_odd_mebibytes_from_both_ports() {
    let image = assemble(0x7c00, |a| {
        // DS:0x510 is 0x100500, ES:0x500 what it folds to.
        a.mov(ax, 0xffff)?;
        a.mov(ds, ax)?;
        a.xor(ax, ax)?;
        a.mov(es, ax)?;
        a.mov(byte_ptr(0x500).es(), 0x11)?;
        a.mov(byte_ptr(0x510), 0x22)?;
        a.in_(al, 0x92)?;
        a.and(al, 0xfd)?;
        a.out(0x92, al)?;
        a.mov(bl, byte_ptr(0x510))?;
        a.mov(byte_ptr(0x510), 0x33)?;
        a.mov(bh, byte_ptr(0x500).es())?;
        // Open through the output port, closed and opened again by command.
        for (port, value) in [(0x64, 0xd1), (0x60, 0xdf)] {
            a.mov(al, value)?;
            a.out(port, al)?;
        }
        a.mov(cl, byte_ptr(0x510))?;
        a.mov(ch, byte_ptr(0x500).es())?;
        a.mov(al, 0xdd)?;
        a.out(0x64, al)?;
        a.mov(dl, byte_ptr(0x510))?;
        a.mov(al, 0xdf)?;
        a.out(0x64, al)?;
        a.mov(dh, byte_ptr(0x510))?;
        a.out(0xf4, al)?;
        a.hlt()
    });
    let mut machine = machine(Some(image), None);
    assert!(matches!(machine.run(100_000).stop, Stop::Requested(_)));
    let [_, c, d, b] = bytes(&machine);
    assert_eq!((b, c, d), ([0x11, 0x33], [0x22, 0x33], [0x33, 0x22]));
}

#[test]
fn firmware_copies_itself_to_the_ram_behind_it() {
    const CODE: usize = 0x1_e000;
    let mut rom = vec![0x5a; 0x2_0000];
    let code = assemble(0xe000, |a| {
        let show = |a: &mut CodeAssembler, bits| configure(a, 0x59, bits);
        a.mov(ax, 0xf000)?;
        a.mov(ds, ax)?;
        a.mov(es, ax)?;
        // Stores go nowhere.
        a.mov(byte_ptr(0x1234), 0x77)?;
        a.mov(bl, byte_ptr(0x1234))?;
        // Stores go to RAM, loads still come from the ROM.
        show(a, 0x20)?;
        a.cld()?;
        a.xor(si, si)?;
        a.xor(di, di)?;
        a.mov(cx, 0x8000)?;
        a.rep().movsw()?;
        a.mov(byte_ptr(0x1234), 0x66)?;
        a.mov(bh, byte_ptr(0x1234))?;
        // Both: this code runs from its copy now.
        show(a, 0x30)?;
        a.mov(cl, byte_ptr(0x1234))?;
        // The copy is write-protected.
        show(a, 0x10)?;
        a.mov(byte_ptr(0x1234), 0x99)?;
        a.mov(ch, byte_ptr(0x1234))?;
        show(a, 0x00)?;
        a.mov(ah, byte_ptr(0x1234))?;
        a.out(0xf4, al)?;
        a.hlt()
    });
    rom[CODE..CODE + code.len()].copy_from_slice(&code);
    // mov byte ptr cs:[1234h], 77h; mov bp, cs:[1234h]; jmp far f000h:e000h: below 4 GiB it is a ROM as well.
    rom[0x1_fff0..0x2_0000].copy_from_slice(&[
        0x2e, 0xc6, 0x06, 0x34, 0x12, 0x77, 0x2e, 0x8b, 0x2e, 0x34, 0x12, 0xea, 0x00, 0xe0, 0x00, 0xf0,
    ]);
    let mut machine = machine(None, Some(rom));
    assert_eq!(machine.run(1_000_000).stop, Stop::Requested(0));
    let [a, c, _, b] = bytes(&machine);
    let below_4g = machine.board.processors()[0].cpu.gpr[5] as u16;
    assert_eq!((b, c, a[1], below_4g), ([0x5a, 0x5a], [0x66, 0x66], 0x5a, 0x5a5a));
}

#[test]
fn smram_is_there_for_handlers_and_while_it_is_open() {
    let image = assemble(0x7c00, |a| {
        let smram = |a: &mut CodeAssembler, bits| configure(a, 0x72, bits);
        a.mov(ax, 0xa000)?;
        a.mov(ds, ax)?;
        a.mov(bl, byte_ptr(0x8000))?;
        smram(a, 0x48)?;
        a.mov(bh, byte_ptr(0x8000))?;
        // The handler: INC BYTE CS:[0x9000]; RSM.
        for (n, byte) in [0x2e, 0xfe, 0x06, 0x00, 0x90, 0x0f, 0xaa].into_iter().enumerate() {
            a.mov(byte_ptr(0x8000 + n), byte)?;
        }
        a.mov(byte_ptr(0x9000), 0x40)?;
        a.mov(cl, byte_ptr(0x9000))?;
        // Closed and locked.
        smram(a, 0x18)?;
        a.mov(ch, byte_ptr(0x9000))?;
        a.mov(byte_ptr(0x9000), 0x99)?;
        a.out(0xf4, al)?;
        // Here an SMI comes.
        a.nop()?;
        smram(a, 0x48)?;
        a.mov(ah, byte_ptr(0x9000))?;
        a.out(0xf4, al)?;
        a.hlt()
    });
    let mut machine = machine(Some(image), None);
    assert!(matches!(machine.run(100_000).stop, Stop::Requested(_)));
    let [_, c, _, b] = bytes(&machine);
    assert_eq!((b, c), ([0xff, 0x0f], [0x40, 0xff]), "hidden, open; open, closed");
    let before = machine.snapshot().unwrap();
    let mut counted = 0x40;
    for smi in [true, false, true] {
        machine.restore(&before).unwrap();
        if smi {
            machine.board.processors_mut()[0].cpu.post(Message::Smi);
            machine.board.processors_mut()[0].cpu.refresh();
        }
        assert!(matches!(machine.run(200_000).stop, Stop::Requested(_)));
        assert_eq!(bytes(&machine)[0][1], 0xff, "a locked SMRAM does not open");
        assert_eq!(machine.board.memory.read_u8(HostPhysical(0xa_9000)), 0xff);
        machine.board.memory.set_management(true);
        counted = machine.board.memory.read_u8(HostPhysical(0xa_9000));
        machine.board.memory.set_management(false);
        assert_eq!(counted, 0x40 + u8::from(smi));
    }
    assert_eq!(counted, 0x41);
}
