//! Devices held against QEMU's: the same port accesses, driven through its qtest protocol, must answer the same.
//!
//! Needs `qemu-system-x86_64`. Where it is missing, or `ROOTMODE_QEMU=off`, every test says so and checks nothing. Left out are
//! sequences on which QEMU is known to leave the data sheet: edges that fall before they are acknowledged (QEMU keeps them) and
//! non-specific ends of interrupt in special mask mode (QEMU ends masked ones).

use rootmode_arch::HostPhysical;
use rootmode_cpu::{Bus, Effects};
use rootmode_models::devices::pc::{Configuration, Pc};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// QEMU without a running processor, answering qtest commands.
struct Qemu {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Qemu {
    fn start(arguments: &[&str]) -> Option<Self> {
        if std::env::var("ROOTMODE_QEMU").is_ok_and(|value| value == "off") {
            eprintln!("not checked: ROOTMODE_QEMU=off");
            return None;
        }
        let started = Command::new("qemu-system-x86_64")
            .args([
                "-machine",
                "pc,accel=tcg",
                "-S",
                "-display",
                "none",
                "-vga",
                "none",
                "-net",
                "none",
                "-nodefaults",
            ])
            .args([
                "-qtest",
                "stdio",
                "-qtest-log",
                "none",
                "-device",
                "pc-testdev",
                "-device",
                "pci-testdev,addr=3",
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut process) = started else {
            eprintln!("not checked: qemu-system-x86_64 cannot be started");
            return None;
        };
        let input = process.stdin.take().expect("stdin is a pipe");
        let output = BufReader::new(process.stdout.take().expect("stdout is a pipe"));
        Some(Self { process, input, output })
    }

    fn command(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").expect("QEMU reads commands");
        self.input.flush().expect("QEMU reads commands");
        loop {
            let mut answer = String::new();
            assert_ne!(self.output.read_line(&mut answer).expect("QEMU answers"), 0, "QEMU ended");
            if let Some(rest) = answer.strip_prefix("OK") {
                return rest.trim().to_string();
            }
            assert!(!answer.starts_with("FAIL"), "{line}: {answer}");
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Already ended or not: either way it must not stay.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Both machines, at tick 0: QEMU's time stands still with its processors.
struct Pair {
    qemu: Qemu,
    pc: Pc,
    log: Vec<String>,
}

impl Pair {
    fn start(memory_mib: u64, processors: u8, arguments: &[&str]) -> Option<Self> {
        let size = format!("{memory_mib}M");
        let count = processors.to_string();
        let qemu = Qemu::start(&[&["-m", &size, "-smp", &count], arguments].concat())?;
        let configuration = Configuration {
            processors,
            memory: memory_mib << 20,
            firmware: 0x2_0000,
            ..Configuration::default()
        };
        Some(Self { qemu, pc: Pc::new(&configuration), log: Vec::new() })
    }

    fn letter(size: u8) -> char {
        ['b', 'w', '?', 'l'][usize::from(size) - 1]
    }

    fn write(&mut self, port: u16, size: u8, value: u32) {
        let line = format!("out{} {port:#x} {value:#x}", Self::letter(size));
        self.qemu.command(&line);
        self.log.push(line);
        self.pc.write_port(port, size, value, 0, &mut Effects::default());
    }

    /// Reads on both; they must agree.
    #[track_caller]
    fn read(&mut self, port: u16, size: u8) -> u32 {
        let line = format!("in{} {port:#x}", Self::letter(size));
        let answer = self.qemu.command(&line);
        let theirs = u32::from_str_radix(answer.trim_start_matches("0x"), 16).expect("a number");
        let ours = self.pc.read_port(port, size, 0, &mut Effects::default());
        assert_eq!(ours, theirs, "{line} after\n{}", self.log.join("\n"));
        self.log.push(format!("{line} = {ours:#x}"));
        ours
    }

    fn write_memory(&mut self, address: u64, value: u32) {
        let line = format!("writel {address:#x} {value:#x}");
        self.qemu.command(&line);
        self.log.push(line);
        let (address, value) = (HostPhysical(address), u64::from(value));
        self.pc.write_mmio(address, 4, value, 0, &mut Effects::default());
    }

    #[track_caller]
    fn read_memory(&mut self, address: u64) -> u32 {
        let line = format!("readl {address:#x}");
        let answer = self.qemu.command(&line);
        let theirs = u64::from_str_radix(answer.trim_start_matches("0x"), 16).expect("a number");
        let ours = self.pc.read_mmio(HostPhysical(address), 4, 0, &mut Effects::default());
        assert_eq!(ours, theirs, "{line} after\n{}", self.log.join("\n"));
        self.log.push(format!("{line} = {ours:#x}"));
        ours as u32
    }
}

/// A small generator, so that a failure is repeatable.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }
}

#[test]
fn the_interrupt_controllers_answer_polls_and_registers_as_qemus_do() {
    let Some(mut pair) = Pair::start(64, 1, &[]) else { return };
    let mut random = Random(0x1234_5678_9abc_def1);
    for session in 0..100_usize {
        pair.log.clear();
        for line in (0..16).filter(|line| *line != 2) {
            pair.write(0x2000 + line, 1, 0);
        }
        // One of the two in each session: a slave that is polled lowers the master's input before the master acknowledges.
        let chip = session % 2;
        let icw4 =
            0x01 | if random.below(3) == 0 { 0x02 } else { 0 } | if random.below(3) == 0 { 0x10 } else { 0 };
        for (port, words) in [(0x20, [0x11, 0x08, 0x04, icw4]), (0xa0, [0x11, 0x70, 0x02, icw4])] {
            pair.write(port, 1, words[0]);
            for word in &words[1..] {
                pair.write(port + 1, 1, *word);
            }
        }
        pair.write(0x4d0, 1, random.below(256) as u32);
        pair.write(0x4d1, 1, random.below(256) as u32);
        let elcr = [pair.read(0x4d0, 1), pair.read(0x4d1, 1)];
        let mut special_mask = false;
        for _ in 0..150 {
            let port = [0x20, 0xa0][chip];
            match random.below(12) {
                0..=2 => {
                    let input = random.below(8) as u16;
                    let line = 8 * chip as u16 + input;
                    if line != 2 {
                        pair.write(0x2000 + line, 1, 1);
                    }
                }
                3 => {
                    let input = random.below(8) as u16;
                    let line = 8 * chip as u16 + input;
                    pair.write(port, 1, 0x0a);
                    let pending = pair.read(port, 1) & 1 << input != 0;
                    if line != 2 && (!pending || elcr[chip] & 1 << input != 0) {
                        pair.write(0x2000 + line, 1, 0);
                    }
                }
                4..=6 => {
                    pair.write(port, 1, 0x0c);
                    pair.read(port, 1);
                }
                7 => {
                    let rotates = random.below(2) as u32 * 0x80;
                    let named = random.below(8) as u32;
                    if special_mask {
                        pair.write(port, 1, 0x60 | rotates | named);
                    } else {
                        pair.write(port, 1, 0x20 | rotates | random.below(2) as u32 * 0x40 | named);
                    }
                }
                8 => pair.write(port + 1, 1, random.below(256) as u32 & random.below(256) as u32),
                9 => {
                    special_mask = random.below(2) == 1;
                    pair.write(port, 1, 0x48 | u32::from(special_mask) << 5);
                }
                10 => {
                    let command = [0x00, 0x80, 0xc0][random.below(3) as usize];
                    pair.write(port, 1, command | if command == 0xc0 { random.below(8) as u32 } else { 0 });
                }
                _ => {
                    pair.write(port, 1, 0x0a | random.below(2) as u32);
                    pair.read(port, 1);
                    pair.read(port + 1, 1);
                }
            }
        }
    }
}

#[test]
fn the_io_apics_registers_and_remote_irr_follow_qemus() {
    const SELECT: u64 = 0xfec0_0000;
    const DATA: u64 = 0xfec0_0010;
    const EOI: u64 = 0xfec0_0040;
    let Some(mut pair) = Pair::start(64, 1, &[]) else { return };
    let mut random = Random(0x0fed_cba9_8765_4321);
    for register in [0, 1, 2] {
        pair.write_memory(SELECT, register);
        pair.read_memory(DATA);
        pair.write_memory(DATA, u32::MAX);
        pair.read_memory(DATA);
    }
    let mut high = [false; 24];
    for step in 0..4000 {
        if step % 500 == 0 {
            pair.log.clear();
        }
        let pin = 3 + random.below(13) as u32;
        let vector = 0x30 + random.below(8) as u32;
        match random.below(8) {
            0..=2 => {
                high[pin as usize] = random.below(2) == 1;
                pair.write(0x2000 + pin as u16, 1, u32::from(high[pin as usize]));
            }
            // QEMU forgets an edge's line, so an input changes its trigger mode only while it is low.
            3 if !high[pin as usize] => {
                // Fixed delivery, high active: QEMU looks at neither polarity nor reserved bits.
                pair.write_memory(SELECT, 0x10 + 2 * pin);
                pair.write_memory(DATA, vector | random.below(4) as u32 * 0x8000);
            }
            4 => {
                pair.write_memory(SELECT, 0x11 + 2 * pin);
                pair.write_memory(DATA, (random.below(256) as u32) << 24);
                pair.read_memory(DATA);
            }
            5 => pair.write_memory(EOI, vector),
            _ => {
                pair.write_memory(SELECT, 0x10 + 2 * pin);
                pair.read_memory(DATA);
            }
        }
    }
}

#[test]
fn cmos_bytes_of_memory_and_processors_are_where_qemu_puts_them() {
    for (memory, processors) in [(64, 1), (1000, 2), (2048, 4), (5120, 3)] {
        let Some(mut pair) = Pair::start(memory, processors, &[]) else { return };
        for index in
            [0x15, 0x16, 0x17, 0x18, 0x30, 0x31, 0x34, 0x35, 0x5b, 0x5c, 0x5d, 0x5f, 0x0f, 0x0b, 0x0d]
        {
            pair.write(0x70, 1, index);
            pair.read(0x71, 1);
        }
    }
}

#[test]
fn the_real_time_clock_shows_dates_in_every_format_as_qemus_does() {
    let Some(mut pair) = Pair::start(64, 1, &["-rtc", "base=2024-01-01T00:00:00,clock=vm"]) else { return };
    // QEMU's processors are stopped, and its clock with them: both stand at the start.
    for mode in [0x02, 0x06, 0x04, 0x00] {
        pair.write(0x70, 1, 0x0b);
        pair.write(0x71, 1, 0x80 | mode);
        let binary = mode & 4 != 0;
        let hours = if mode & 2 != 0 { 23 } else { 11 };
        let afternoon = if mode & 2 != 0 { 0 } else { 0x80 };
        for (index, value) in [(0, 58), (2, 59), (4, hours), (7, 31), (8, 12), (9, 27), (0x32, 20)] {
            let coded = if binary { value } else { value / 10 << 4 | value % 10 };
            pair.write(0x70, 1, index);
            pair.write(0x71, 1, if index == 4 { coded | afternoon } else { coded });
        }
        pair.write(0x70, 1, 0x0b);
        pair.write(0x71, 1, mode);
        for index in [0, 2, 4, 6, 7, 8, 9, 0x32, 0x0b] {
            pair.write(0x70, 1, index);
            pair.read(0x71, 1);
        }
    }
}

#[test]
fn configuration_items_are_what_qemu_offers() {
    let Some(mut pair) = Pair::start(300, 3, &[]) else { return };
    for (item, bytes) in
        [(0x00, 5), (0x01, 4), (0x03, 8), (0x05, 2), (0x0f, 2), (0x02, 16), (0x0a, 4), (0x0b, 4)]
    {
        pair.write(0x510, 2, item);
        for _ in 0..bytes {
            pair.read(0x511, 1);
        }
    }
    pair.read(0x514, 4);
    pair.read(0x518, 4);
}

#[test]
fn functions_have_the_identities_of_qemus() {
    let Some(mut pair) = Pair::start(64, 1, &[]) else { return };
    for function in [0x00, 0x08, 0x0b, 0x18] {
        for register in [0x00, 0x08, 0x2c] {
            pair.write(0xcf8, 4, 0x8000_0000 | function << 8 | register);
            pair.read(0xcfc, 4);
            pair.read(0xcfe, 2);
            pair.read(0xcfd, 1);
        }
        pair.write(0xcf8, 4, 0x8000_0000 | function << 8 | 0x0c);
        pair.read(0xcfe, 1);
    }
    // Sizes of the test device's base registers.
    for register in [0x10, 0x14, 0x18] {
        pair.write(0xcf8, 4, 0x8000_1800 | register);
        pair.write(0xcfc, 4, u32::MAX);
        pair.read(0xcfc, 4);
    }
}

#[test]
fn test_ports_and_the_pci_test_device_answer_as_qemus_do() {
    let Some(mut pair) = Pair::start(64, 1, &[]) else { return };
    for (port, size, value) in [(0xe0, 4, 0x1234_5678), (0xe0, 2, 0x9999), (0xe3, 1, 0x11), (0xea, 1, 0x42)] {
        pair.write(port, size, value);
        for (port, size) in [(0xe0, 4), (0xe1, 1), (0xe2, 2), (0xe8, 1), (0xe3, 1)] {
            pair.read(port, size);
        }
    }
    pair.write(0xcf8, 4, 0x8000_1814);
    pair.write(0xcfc, 4, 0xc000);
    pair.write(0xcf8, 4, 0x8000_1804);
    pair.write(0xcfc, 2, 1);
    // Only the tests without an event notifier count their writes in QEMU.
    for test in [0, 1, 2, 3] {
        pair.write(0xc000, 1, test);
        for offset in [0, 1, 4, 5, 8, 12, 16, 17, 20, 21, 24, 34, 35] {
            pair.read(0xc000 + offset, 1);
        }
        pair.read(0xc004, 4);
        if test == 0 {
            for value in [0xfa, 0xfa, 0x11] {
                pair.write(0xc083, 1, value);
            }
        }
        pair.read(0xc00c, 4);
    }
}
