//! Images of a few instructions, loaded and run.

use super::*;
use iced_x86::code_asm::*;
use rootmode_arch::choices::Tame;

fn assemble(bits: u32, at: u64, build: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(bits).unwrap();
    build(&mut assembler);
    assembler.assemble(at).unwrap()
}

fn parts(image: Vec<u8>) -> Parts {
    Parts {
        cpu: Processor::default(),
        configuration: Configuration { command_line: "a=1 b".into(), ..Configuration::default() },
        firmware: None,
        watch: None,
        hardware: Hardware::Tame,
        image: Some(image),
        name: "kernel".into(),
    }
}

/// Runs an image and answers with what it printed and why it stopped.
fn run(parts: &Parts) -> (String, Stop) {
    let mut machine = Machine::new(parts, Box::new(Tame)).unwrap();
    let stop = machine.run(1_000_000).stop;
    (String::from_utf8(machine.take_output().0).unwrap(), stop)
}

/// A Multiboot kernel that says itself where it goes: its header, then `code` at 0x10_0020.
fn multiboot(flags: u32, code: &[u8]) -> Vec<u8> {
    let flags = flags | 1 << 16;
    let checksum = 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let header = [0x1bad_b002, flags, checksum, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
    [header.map(u32::to_le_bytes).concat(), code.to_vec()].concat()
}

/// Prints the string at ESI; DX is the serial port then.
fn print_string(a: &mut CodeAssembler) {
    let (mut next, mut done) = (a.create_label(), a.create_label());
    a.mov(edx, 0x3f8).unwrap();
    a.set_label(&mut next).unwrap();
    a.lodsb().unwrap();
    a.test(al, al).unwrap();
    a.jz(done).unwrap();
    a.out(dx, al).unwrap();
    a.jmp(next).unwrap();
    a.set_label(&mut done).unwrap();
    a.nop().unwrap();
}

/// The header of an ELF64 executable and of its segments: type and flags, offset, linear and physical address, size, alignment.
fn elf64(entry: u64, segments: &[([u32; 2], [u64; 5])]) -> Vec<u8> {
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let half = |file: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| file.extend(v.to_le_bytes()));
    half(&mut file, &[2, 62, 1, 0]);
    file.extend([entry, 64, 0].map(u64::to_le_bytes).concat());
    half(&mut file, &[0, 0, 64, 56, segments.len() as u16, 0, 0, 0]);
    for (kind, [offset, linear, physical, size, alignment]) in segments {
        file.extend(kind.map(u32::to_le_bytes).concat());
        file.extend([*offset, *linear, *physical, *size, *size, *alignment].map(u64::to_le_bytes).concat());
    }
    file
}

#[test]
fn a_multiboot_kernel_finds_its_command_line_and_stops_the_machine() {
    let code = assemble(32, 0x10_0020, |a| {
        let mut done = a.create_label();
        a.cmp(eax, 0x2bad_b002_u32 as i32).unwrap();
        a.jne(done).unwrap();
        a.mov(esi, dword_ptr(ebx + 16)).unwrap();
        print_string(a);
        a.set_label(&mut done).unwrap();
        a.mov(eax, 21).unwrap();
        a.out(0xf4, eax).unwrap();
        a.hlt().unwrap();
    });
    let (text, stop) = run(&parts(multiboot(0, &code)));
    assert_eq!((text.as_str(), stop), ("kernel a=1 b", Stop::Requested(21)));
    assert_eq!(exit_status(stop), 43);
}

#[test]
fn a_multiboot_kernel_in_low_memory_is_not_overwritten_by_its_boot_information() {
    const LOAD: u32 = 0x9000;
    const SIZE: u32 = 0x2000;
    // Prints the command line and the first two bytes of its module, and stops with a double word of its image.
    let code = assemble(32, u64::from(LOAD) + 0x20, |a| {
        a.mov(esi, dword_ptr(ebx + 16)).unwrap();
        print_string(a);
        a.mov(esi, dword_ptr(ebx + 24)).unwrap();
        a.mov(esi, dword_ptr(esi)).unwrap();
        a.lodsb().unwrap();
        a.out(dx, al).unwrap();
        a.lodsb().unwrap();
        a.out(dx, al).unwrap();
        a.mov(eax, dword_ptr(0x9500_u32)).unwrap();
        a.out(0xf4, eax).unwrap();
        a.hlt().unwrap();
    });
    let flags = 1_u32 << 16;
    let checksum = 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let header = [0x1bad_b002, flags, checksum, LOAD, LOAD, 0, 0, LOAD + 0x20];
    let mut image = [header.map(u32::to_le_bytes).concat(), code].concat();
    image.resize(SIZE as usize, 0x11);
    let mut parts = parts(image);
    parts.configuration.initrd = b"!?".to_vec();
    assert_eq!(run(&parts), ("kernel a=1 b!?".into(), Stop::Requested(0x1111_1111)));
}

#[test]
fn a_flat_binary_starts_in_real_mode() {
    let code = assemble(16, 0x7c00, |a| {
        a.smsw(ax).unwrap();
        a.and(ax, 1).unwrap();
        a.add(al, i32::from(b'r')).unwrap();
        a.mov(dx, 0x3f8).unwrap();
        a.out(dx, al).unwrap();
        a.mov(al, 5).unwrap();
        a.out(0xf4, al).unwrap();
    });
    assert_eq!(run(&parts(code)), ("r".into(), Stop::Requested(5)));
}

#[test]
fn an_elf64_image_starts_in_64_bit_mode() {
    let code = assemble(64, 0x40_0000, |a| {
        a.mov(rax, 0x1_0000_0000_u64 + 7).unwrap();
        a.shr(rax, 32).unwrap();
        a.out(0xf4, eax).unwrap();
    });
    let length = code.len() as u64;
    let mut file = elf64(0x40_0000, &[([1, 5], [120, 0x40_0000, 0x40_0000, length, 0x1000])]);
    file.extend(code);
    assert_eq!(run(&parts(file.clone())), (String::new(), Stop::Requested(1)));
    file.truncate(121);
    let error = Machine::new(&parts(file), Box::new(Tame)).err().unwrap();
    assert!(error.to_string().starts_with("image: not a usable ELF file: segment 0 lies at"), "{error}");
}

/// A bzImage of protocol 2.15 whose protected-mode part is `kernel`, that wants to lie at 2 MiB.
fn bz_image(entry_64: bool, kernel: &[u8]) -> Vec<u8> {
    let mut image = vec![0; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS\x0f\x02");
    put(0x211, &[1]);
    put(0x22c, &0x7fff_ffff_u32.to_le_bytes());
    put(0x234, &[1, 21]);
    put(0x236, &u16::from(entry_64).to_le_bytes());
    put(0x238, &255_u32.to_le_bytes());
    put(0x258, &0x20_0000_u64.to_le_bytes());
    put(0x260, &0x10_0000_u32.to_le_bytes());
    image.extend(kernel);
    image
}

/// Prints the string at ESI and `count` bytes at EDI, and stops the machine with EBX.
fn print_and_stop(a: &mut CodeAssembler, count: u32) {
    print_string(a);
    a.mov(ecx, count).unwrap();
    a.mov(esi, edi).unwrap();
    a.rep().outsb().unwrap();
    a.mov(eax, ebx).unwrap();
    a.out(0xf4, eax).unwrap();
    a.hlt().unwrap();
}

#[test]
fn a_linux_kernel_is_entered_by_its_protocol_and_finds_its_parameters() {
    for bits in [64, 32] {
        let offset = if bits == 64 { 0x200 } else { 0 };
        let code = assemble(bits, 0x20_0000 + offset, |a| {
            // The number of ranges, the loader's type, the selectors of the flat segments.
            let parameters = |offset: i32| if bits == 64 { rsi + offset } else { esi + offset };
            a.movzx(ebx, byte_ptr(parameters(0x1e8))).unwrap();
            a.mov(bh, byte_ptr(parameters(0x210))).unwrap();
            a.mov(eax, cs).unwrap();
            a.shl(eax, 16).unwrap();
            a.or(ebx, eax).unwrap();
            a.mov(eax, ds).unwrap();
            a.shl(eax, 24).unwrap();
            a.or(ebx, eax).unwrap();
            a.mov(edi, dword_ptr(parameters(0x218))).unwrap();
            a.mov(ecx, dword_ptr(parameters(0x21c))).unwrap();
            a.add(ebx, ecx).unwrap();
            a.mov(esi, dword_ptr(parameters(0x228))).unwrap();
            print_and_stop(a, 2);
        });
        let kernel = [vec![0xcc; offset as usize], code].concat();
        let mut parts = parts(bz_image(bits == 64, &kernel));
        parts.configuration.initrd = b"!?".to_vec();
        let stop = Stop::Requested(0x1810_ff04 + 2);
        assert_eq!(run(&parts), ("a=1 b!?".into(), stop), "{bits}");
    }
}

#[test]
fn a_linux_kernel_that_cannot_be_loaded_is_refused_by_offset_or_place() {
    let refused = |parts: &Parts| Machine::new(parts, Box::new(Tame)).err().unwrap().to_string();
    let good = parts(bz_image(true, &[0xf4; 0x300]));
    let mut old = good.clone();
    old.image.as_mut().unwrap()[0x206] = 0x09;
    assert!(refused(&old).contains("offset 0x206: boot protocol 2.09"), "{}", refused(&old));
    let mut low = good.clone();
    low.image.as_mut().unwrap()[0x211] = 0;
    assert!(refused(&low).contains("offset 0x211"), "{}", refused(&low));
    let mut cut = good.clone();
    cut.image.as_mut().unwrap().truncate(1024);
    assert!(refused(&cut).contains("offset 0x1f1"), "{}", refused(&cut));
    let mut talkative = good.clone();
    talkative.configuration.command_line = "x".repeat(256);
    assert!(refused(&talkative).contains("at most 255 bytes; this one has 256"), "{}", refused(&talkative));
    let mut large = good.clone();
    large.configuration.memory = 0x30_0000;
    large.configuration.initrd = vec![0; 1];
    assert!(refused(&large).contains("initial RAM disk"), "{}", refused(&large));
    large.configuration.memory = 0x10_0000;
    assert!(refused(&large).contains("kernel with the memory"), "{}", refused(&large));
}

#[test]
fn an_elf_kernel_with_a_pvh_note_gets_its_start_information() {
    const START: u32 = 0x40_0100;
    let code = assemble(32, START.into(), |a| {
        a.mov(esi, dword_ptr(ebx + 24)).unwrap();
        a.mov(edi, dword_ptr(ebx + 16)).unwrap();
        a.mov(edi, dword_ptr(edi)).unwrap();
        // Its magic number, the number of ranges of the map, and the kind of the first.
        a.mov(eax, dword_ptr(ebx)).unwrap();
        a.add(eax, dword_ptr(ebx + 48)).unwrap();
        a.mov(ecx, dword_ptr(ebx + 40)).unwrap();
        a.add(eax, dword_ptr(ecx + 16)).unwrap();
        a.mov(ebx, eax).unwrap();
        print_and_stop(a, 2);
    });
    let note =
        [[4_u32, 4, 18].map(u32::to_le_bytes).concat(), b"Xen\0".to_vec(), START.to_le_bytes().to_vec()]
            .concat();
    const LINEAR: u64 = 0xffff_ffff_8100_0000;
    let length = (0x100 + code.len()) as u64;
    let mut file = elf64(
        LINEAR,
        &[
            ([1, 5], [0x200, LINEAR, 0x40_0000, length, 0x1000]),
            ([4, 4], [0x100, 0, 0, note.len() as u64, 4]),
        ],
    );
    file.resize(0x100, 0);
    file.extend(note);
    file.resize(0x300, 0);
    file.extend(code);
    let mut parts = parts(file);
    parts.configuration.initrd = b"!?".to_vec();
    let value = 0x336e_c578 + 4 + 1;
    assert_eq!(run(&parts), ("a=1 b!?".into(), Stop::Requested(value)));
}

#[test]
fn parts_that_do_not_fit_are_refused_by_name() {
    let refused = |parts: &Parts| Machine::new(parts, Box::new(Tame)).err().unwrap();
    let good = parts(multiboot(0, &[0xf4]));
    let many = Configuration { processors: 65, ..good.configuration.clone() };
    assert_eq!(refused(&Parts { configuration: many, ..good.clone() }), MachineError::Processors(65));
    assert_eq!(refused(&Parts { image: None, ..good.clone() }), MachineError::Nothing);
    let video = Parts { image: Some(multiboot(1 << 5, &[])), ..good.clone() };
    assert!(refused(&video).to_string().contains("offset 0x0"), "{}", refused(&video));
    let firmware = Parts { firmware: Some(vec![0; 5]), ..good.clone() };
    assert_eq!(refused(&firmware), MachineError::Firmware(5));
    let small = Configuration { memory: 0x10_0000, ..good.configuration.clone() };
    let error = refused(&Parts { configuration: small, ..good });
    assert!(error.to_string().contains("kernel at 0x100000"), "{error}");
}

/// Entries take 2 bytes from SMBASE + 0x8000 on, state-save areas the last 0x200 of the 64 KiB behind SMBASE.
#[test]
fn every_processor_has_an_entry_and_a_state_save_area_of_its_own_in_smram() {
    let mut ranges: Vec<(u32, u32)> = (0..u32::from(*PROCESSORS.end()))
        .map(smbase)
        .flat_map(|base| [(base + 0x8000, base + 0x8002), (base + 0xfe00, base + 0x1_0000)])
        .collect();
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0), "{ranges:x?}");
    assert!(ranges[0].0 >= 0xa_0000 && ranges[ranges.len() - 1].1 <= 0xc_0000, "{ranges:x?}");
}

/// Each of two processors sends itself an SMI and goes on behind it, on both vendors.
#[test]
fn a_system_management_interrupt_returns_on_every_processor() {
    for cpu in ["max-intel", "max-amd"] {
        let code = assemble(32, 0x10_0020, |a| {
            let (mut wait, mut again) = (a.create_label(), a.create_label());
            // INIT and SIPI for the other processor, which starts at 0x1000.
            for command in [0xc_4500, 0xc_4601] {
                a.mov(dword_ptr(0xfee0_0300_u32), command).unwrap();
            }
            a.set_label(&mut wait).unwrap();
            a.cmp(byte_ptr(0x2000), 7).unwrap();
            a.jne(wait).unwrap();
            // An SMI for itself: fixed destination, delivery mode 2.
            a.mov(dword_ptr(0xfee0_0310_u32), 0).unwrap();
            a.mov(dword_ptr(0xfee0_0300_u32), 0x4200).unwrap();
            a.mov(ecx, 10_000).unwrap();
            a.set_label(&mut again).unwrap();
            a.dec(ecx).unwrap();
            a.jne(again).unwrap();
            a.mov(eax, 9).unwrap();
            a.out(0xf4, eax).unwrap();
        });
        // The other processor, in real mode, sends itself one through the x2APIC's register and says that it came back.
        let other = assemble(16, 0x1000, |a| {
            a.mov(ecx, 0x1b).unwrap();
            a.rdmsr().unwrap();
            a.or(eax, 0x400).unwrap();
            a.wrmsr().unwrap();
            a.mov(ecx, 0x830).unwrap();
            a.mov(eax, 0x4200).unwrap();
            a.mov(edx, 1).unwrap();
            a.wrmsr().unwrap();
            a.nop().unwrap();
            a.mov(byte_ptr(0x2000), 7).unwrap();
            a.cli().unwrap();
            a.hlt().unwrap();
        });
        let mut parts = parts(multiboot(0, &code));
        parts.cpu = Processor::named(cpu).unwrap();
        parts.configuration.processors = 2;
        let mut machine = Machine::new(&parts, Box::new(Tame)).unwrap();
        machine.board.memory.write(HostPhysical(0x1000), &other);
        assert_eq!(machine.run(1_000_000).stop, Stop::Requested(9));
        // Both went through SMM: their state-save areas were written.
        for index in 0..2 {
            let area = 0xa_fe00 + index * 0x200;
            let mut bytes = [0; 0x200];
            machine.board.memory.read(HostPhysical(area), &mut bytes);
            assert!(bytes.iter().any(|byte| *byte != 0), "processor {index}");
        }
    }
}
