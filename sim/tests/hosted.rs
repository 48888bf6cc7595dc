//! Images in VMs of the model of KVM, held against the same images on the bare machine.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use iced_x86::code_asm::*;
use rootmode::hosted::{Hosted, HostedError};
use rootmode::machine::{Machine, Parts, System};
use rootmode::processor::Processor;
use rootmode_arch::Hardware;
use rootmode_arch::choices::{Choices, Seeded, Tame};
use rootmode_arch::record::Stop;
use rootmode_models::devices::pc::Configuration;

const CPUS: [&str; 2] = ["max-intel", "max-amd"];

/// A flat binary.
fn flat(build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(16).unwrap();
    build(&mut assembler).unwrap();
    assembler.assemble(0x7c00).unwrap()
}

fn parts(cpu: &str, processors: u8, image: Vec<u8>) -> Parts {
    Parts {
        cpu: Processor::parse(cpu).unwrap(),
        configuration: Configuration { processors, ..Configuration::default() },
        ..Parts::of_image(image)
    }
}

fn bare(parts: &Parts) -> Box<dyn System> {
    Box::new(Machine::new(parts, Box::new(Tame)).unwrap())
}

fn hosted(parts: &Parts, choices: Box<dyn Choices + Send>) -> Box<dyn System> {
    Box::new(Hosted::new(parts, choices).unwrap())
}

/// What it prints, and why it stops.
fn run(mut system: Box<dyn System>) -> (String, Stop) {
    let stop = system.run(20_000_000).stop;
    assert_eq!(system.trouble(), None);
    (String::from_utf8(system.take_output().0).unwrap(), stop)
}

/// OUT of a byte.
fn out(a: &mut CodeAssembler, port: u32, value: u32) -> Result<(), IcedError> {
    a.mov(dx, port)?;
    a.mov(al, value)?;
    a.out(dx, al)
}

/// Counts three ticks of the 8254 as firmware left it, and three of the real-time clock at 1024 Hz, each printed by the
/// handler of its interrupt, which goes through both 8259s.
fn ticking() -> Vec<u8> {
    flat(|a| {
        let mut wait = a.create_label();
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(ss, ax)?;
        a.mov(sp, 0x7000)?;
        a.xor(bx, bx)?;
        for (vector, letter, slave) in [(0x08_u32, b'T', false), (0x70, b'C', true)] {
            // What a CALL pushes is the address of the handler behind it.
            let mut behind = a.create_label();
            a.call(behind)?;
            out(a, 0x3f8, letter.into())?;
            if slave {
                out(a, 0x70, 0x0c)?;
                a.in_(al, 0x71_u32)?;
                out(a, 0xa0, 0x20)?;
            }
            out(a, 0x20, 0x20)?;
            a.inc(bx)?;
            a.iret()?;
            a.set_label(&mut behind)?;
            a.pop(word_ptr(vector * 4))?;
            a.mov(word_ptr(vector * 4 + 2), 0)?;
        }
        for (port, value) in [
            // A tick of the 8254 a millisecond.
            (0x43, 0x34),
            (0x40, 0xa9),
            (0x40, 0x04),
            // The clock's periodic interrupt.
            (0x70, 0x0a),
            (0x71, 0x26),
            (0x70, 0x0b),
            (0x71, 0x42),
            (0x21, 0xfa),
            (0xa1, 0xfe),
        ] {
            out(a, port, value)?;
        }
        a.set_label(&mut wait)?;
        a.sti()?;
        a.hlt()?;
        a.cli()?;
        a.cmp(bx, 6)?;
        a.jb(wait)?;
        out(a, 0xf4, 1)
    })
}

/// The first processor starts the others through the local APIC; each adds 1 and halts; the first prints the sum.
fn starting(others: u32) -> Vec<u8> {
    const TRAMPOLINE: u32 = 0x8000;
    flat(|a| {
        let (mut wait, mut again) = (a.create_label(), a.create_label());
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        // lock inc word [0x600]; cli; hlt
        for (at, word) in [(0, 0xfff0_u32), (2, 0x0006), (4, 0xfa06), (6, 0xf4f4)] {
            a.mov(word_ptr(TRAMPOLINE + at), word)?;
        }
        // The local APIC's window, by a segment register with a limit of 4 GiB.
        for (at, word) in [(0x700, 0_u32), (0x702, 0), (0x704, 0), (0x706, 0)] {
            a.mov(word_ptr(at), word)?;
        }
        for (at, word) in [(0x708, 0xffff_u32), (0x70a, 0), (0x70c, 0x9300), (0x70e, 0x00cf)] {
            a.mov(word_ptr(at), word)?;
        }
        for (at, word) in [(0x710, 0xf_u32), (0x712, 0x700), (0x714, 0)] {
            a.mov(word_ptr(at), word)?;
        }
        a.lgdt(ptr(0x710))?;
        a.mov(eax, cr0)?;
        a.or(al, 1)?;
        a.mov(cr0, eax)?;
        a.mov(dx, 8)?;
        a.mov(es, dx)?;
        a.and(al, 0xfe)?;
        a.mov(cr0, eax)?;
        a.mov(edi, 0xfee0_0300_u32)?;
        a.mov(dword_ptr(edi).es(), 0xc_4500_u32)?;
        a.mov(dword_ptr(edi).es(), 0xc_4600_u32 | TRAMPOLINE >> 12)?;
        a.mov(cx, 50_000)?;
        a.set_label(&mut wait)?;
        a.cmp(word_ptr(0x600), others)?;
        a.je(again)?;
        a.loop_(wait)?;
        a.set_label(&mut again)?;
        a.mov(al, byte_ptr(0x600))?;
        a.add(al, u32::from(b'0'))?;
        a.mov(dx, 0x3f8)?;
        a.out(dx, al)?;
        out(a, 0xf4, 1)
    })
}

#[test]
fn a_hosted_image_prints_and_stops_as_it_does_bare() {
    for cpu in CPUS {
        let parts = parts(cpu, 1, ticking());
        let (text, stop) = run(hosted(&parts, Box::new(Tame)));
        assert_eq!((text.len(), stop), (6, Stop::Requested(1)), "{cpu}: {text}");
        assert!(text.contains('T') && text.contains('C'), "{cpu}: {text}");
        assert_eq!((text, stop), run(bare(&parts)), "{cpu}");
    }
}

#[test]
fn other_processors_start_and_share_memory() {
    for cpu in CPUS {
        for count in [2, 8] {
            let parts = parts(cpu, count, starting(u32::from(count) - 1));
            let expected = (char::from(b'0' + count - 1).to_string(), Stop::Requested(1));
            assert_eq!(run(hosted(&parts, Box::new(Tame))), expected, "{cpu}");
            assert_eq!(run(hosted(&parts, Box::new(Seeded::new(3)))), expected, "{cpu}, another schedule");
        }
    }
}

#[test]
fn a_run_that_is_cut_anywhere_ends_like_one_in_one_piece() {
    for cpu in CPUS {
        let parts = parts(cpu, 2, ticking());
        let mut whole = hosted(&parts, Box::new(Tame));
        let stopped = whole.run(20_000_000);
        let mut cut = hosted(&parts, Box::new(Tame));
        let pieces = (1..).step_by(12_345).map(|limit| cut.run(limit)).find(|s| s.stop != Stop::Limit);
        assert_eq!(pieces.unwrap(), stopped, "{cpu}");
        assert_eq!(cut.digest(), whole.digest(), "{cpu}");
        assert_eq!((cut.take_output(), cut.exits()), (whole.take_output(), whole.exits()), "{cpu}");
    }
}

#[test]
fn the_guest_finds_kvm_and_its_timer() {
    for cpu in CPUS {
        // The letters of CPUID 0x40000000, then whether leaf 1 has the hypervisor's bit.
        let image = flat(|a| {
            a.mov(eax, 0x4000_0000_u32)?;
            a.cpuid()?;
            a.mov(dx, 0x3f8)?;
            for _ in 0..3 {
                a.mov(al, bl)?;
                a.out(dx, al)?;
                a.shr(ebx, 8)?;
            }
            a.mov(eax, 1)?;
            a.cpuid()?;
            a.shr(ecx, 31)?;
            a.mov(ax, cx)?;
            a.mov(dx, 0xf4)?;
            a.out(dx, al)
        });
        assert_eq!(run(hosted(&parts(cpu, 1, image), Box::new(Tame))), ("KVM".into(), Stop::Requested(1)));
    }
}

#[test]
fn what_l0_needs_of_its_processor_the_image_need_not_have() {
    for (cpu, leaf, shift, has) in [
        // CPUID.1:ECX.VMX; CPUID.8000000A:EDX.NP.
        ("max-intel", 1, 5, 1),
        ("max-intel,-vmx", 1, 5, 0),
        ("max-amd", 0x8000_000a_u32, 0, 1),
        ("max-amd,-npt", 0x8000_000a, 0, 0),
    ] {
        let image = flat(|a| {
            a.mov(eax, leaf)?;
            a.cpuid()?;
            if leaf == 1 {
                a.mov(edx, ecx)?;
            }
            a.shr(edx, shift)?;
            a.and(dl, 1)?;
            a.mov(al, dl)?;
            a.mov(dx, 0xf4)?;
            a.out(dx, al)
        });
        let stopped = run(hosted(&parts(cpu, 1, image), Box::new(Tame)));
        assert_eq!(stopped, (String::new(), Stop::Requested(has)), "{cpu}");
    }
}

#[test]
fn what_a_vm_lacks_is_said() {
    let hostile = Parts { hardware: Hardware::Hostile, ..Parts::of_image(vec![0xf4]) };
    let firmware = Parts { firmware: Some(vec![0; 4096]), image: None, ..Parts::of_image(Vec::new()) };
    for (parts, what) in [(hostile, "hostile hardware"), (firmware, "firmware")] {
        assert_eq!(Hosted::new(&parts, Box::new(Tame)).err(), Some(HostedError::Absent(what)));
    }
    // A triple fault: an IDT without room.
    let image = flat(|a| {
        a.xor(ax, ax)?;
        a.mov(ds, ax)?;
        a.mov(dword_ptr(0x600), 0)?;
        a.mov(word_ptr(0x604), 0)?;
        a.lidt(ptr(0x600))?;
        a.int3()
    });
    assert_eq!(
        run(hosted(&parts("max-intel", 1, image), Box::new(Tame))),
        (String::new(), Stop::TripleFault)
    );
}
