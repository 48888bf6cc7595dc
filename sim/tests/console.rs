//! `rootmode run` on a terminal: a pseudo-terminal plays the person in front of it.
#![cfg(all(unix, feature = "tools"))]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use iced_x86::code_asm::*;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};

/// A Multiboot kernel that prints `>` and echoes what it receives; `q` exits with 5, `t` faults thrice, `w` waits for ever.
fn kernel() -> Vec<u8> {
    let mut a = CodeAssembler::new(32).unwrap();
    let (mut next, mut quit, mut fault, mut wait) =
        (a.create_label(), a.create_label(), a.create_label(), a.create_label());
    a.cli().unwrap();
    a.mov(edx, 0x3f8).unwrap();
    a.mov(al, i32::from(b'>')).unwrap();
    a.out(dx, al).unwrap();
    a.set_label(&mut next).unwrap();
    a.mov(edx, 0x3fd).unwrap();
    a.in_(al, dx).unwrap();
    a.test(al, 1).unwrap();
    a.jz(next).unwrap();
    a.mov(edx, 0x3f8).unwrap();
    a.in_(al, dx).unwrap();
    a.out(dx, al).unwrap();
    a.cmp(al, i32::from(b'q')).unwrap();
    a.je(quit).unwrap();
    a.cmp(al, i32::from(b't')).unwrap();
    a.je(fault).unwrap();
    a.cmp(al, i32::from(b'w')).unwrap();
    a.jne(next).unwrap();
    a.set_label(&mut wait).unwrap();
    a.hlt().unwrap();
    a.jmp(wait).unwrap();
    a.set_label(&mut quit).unwrap();
    a.mov(eax, 2).unwrap();
    a.out(0xf4, eax).unwrap();
    a.set_label(&mut fault).unwrap();
    // An empty IDT.
    a.push(0).unwrap();
    a.push(0).unwrap();
    a.lidt(ptr(esp)).unwrap();
    a.int3().unwrap();
    let code = a.assemble(0x10_0020).unwrap();
    let flags = 1_u32 << 16;
    let checksum = 0_u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let header = [0x1bad_b002, flags, checksum, 0x10_0000, 0x10_0000, 0, 0, 0x10_0020];
    [header.map(u32::to_le_bytes).concat(), code].concat()
}

/// A terminal with the simulator on it.
struct Session {
    child: Child,
    keyboard: File,
    terminal: File,
    before: Termios,
    screen: Arc<Mutex<Vec<u8>>>,
    image: PathBuf,
}

impl Session {
    fn begin(name: &str, arguments: &[&str]) -> Self {
        let image = std::env::temp_dir().join(format!("rootmode-console-{}-{name}.flat", std::process::id()));
        std::fs::write(&image, kernel()).unwrap();
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let path = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let keyboard = File::from(keyboard);
        let terminal = File::options().read(true).write(true).open(path).unwrap();
        let before = tcgetattr(&terminal).unwrap();
        let side = || terminal.try_clone().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_rootmode"))
            .arg("run")
            .arg(&image)
            .args(arguments)
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, seen) = (keyboard.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 256];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                seen.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { child, keyboard, terminal, before, screen, image }
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    fn wait_for(&self, text: &str) {
        let begin = Instant::now();
        while !self.screen().contains(text) {
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "no {text:?} on the screen: {:?}",
                self.screen()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.terminal).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO)
    }

    /// The exit status; the terminal is as it was.
    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        let after = tcgetattr(&self.terminal).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes);
        assert_eq!(after.input_modes, self.before.input_modes);
        assert_eq!(after.output_modes, self.before.output_modes);
        std::fs::remove_file(&self.image).unwrap();
        (status, self.screen())
    }
}

#[test]
fn what_is_typed_reaches_the_guest_and_the_way_out_is_known() {
    let mut session = Session::begin("typed", &[]);
    session.wait_for(">");
    assert!(session.is_raw());
    session.keyboard.write_all(b"hello\x01\x01 \x03\x01h").unwrap();
    session.wait_for("hello\x01 \x03");
    session.wait_for("Ctrl-A x");
    session.keyboard.write_all(b"\x01x").unwrap();
    session.wait_for("rootmode: ended at the console");
    assert_eq!(session.end().0.code(), Some(0));
}

#[test]
fn the_terminal_is_restored_however_a_run_ends() {
    // The guest exits; it faults thrice.
    for (key, code, why) in [(b"q", 5, "Requested(2)"), (b"t", 3, "TripleFault")] {
        let mut session = Session::begin(why, &["--format", "json"]);
        session.wait_for(">");
        session.keyboard.write_all(key).unwrap();
        session.wait_for("\"ticks\"");
        let (status, screen) = session.end();
        assert_eq!(status.code(), Some(code));
        let summary = screen.lines().last().unwrap();
        let summary: serde_json::Value =
            serde_json::from_str(summary.trim_start_matches(|c| c != '{')).unwrap();
        assert_eq!((summary["status"].as_i64(), summary["exits"].as_i64()), (Some(code.into()), Some(0)));
    }
    // The choices of the run cannot be written.
    let mut session = Session::begin("error", &["--record-choices", "/nowhere/choices"]);
    session.wait_for(">");
    session.keyboard.write_all(b"q").unwrap();
    session.wait_for("cannot write /nowhere/choices");
    assert_eq!(session.end().0.code(), Some(2));
    // The process is asked to end.
    let session = Session::begin("signal", &[]);
    session.wait_for(">");
    assert!(session.is_raw());
    let sent = Command::new("kill").args(["-TERM", &session.child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(session.end().0.code(), Some(128 + 15));
}

#[test]
fn a_halted_guest_waits_for_whoever_types() {
    let mut session = Session::begin("halted", &[]);
    session.wait_for(">");
    session.keyboard.write_all(b"w").unwrap();
    session.wait_for(">w");
    std::thread::sleep(Duration::from_millis(300));
    assert!(session.child.try_wait().unwrap().is_none(), "nobody ended it");
    session.keyboard.write_all(b"\x01x").unwrap();
    assert_eq!(session.end().0.code(), Some(0));
}

#[test]
fn a_long_run_shows_where_it_is_and_cleans_up() {
    let file = std::env::temp_dir().join(format!("rootmode-console-{}.txt", std::process::id()));
    let mut session = Session::begin("progress", &["--serial", file.to_str().unwrap()]);
    session.wait_for(" MIPS");
    assert!(!session.is_raw(), "the serial port is elsewhere");
    session.child.kill().unwrap();
    let screen = session.end().1;
    assert!(screen.starts_with("\r\x1b[K"), "{screen:?}");
    assert_eq!(std::fs::read(&file).unwrap(), b">");
    std::fs::remove_file(file).unwrap();
}
