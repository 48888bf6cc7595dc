//! When a guest with AVIC looks at its requests: at VMRUN, and when its processor is told ("Doorbell Mechanism",
//! "Additional VMRUN Handling", "Interprocessor Interrupts"). Two processors, each with a guest.

use super::bench::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Gpr, HostPhysical, msr};
use rootmode_cpu::{Activity, Fault, Instruction, Message, Outcome};
use rootmode_svm::Field;
use rootmode_svm::vmcb::Vmcb;

const VMMCALL: u64 = 0x81;
const VALID: u64 = 1 << 63;
const RUNNING: u64 = 1 << 62;
/// Where the second guest spins.
const OTHER_CODE: u64 = 0x1_2000;
const REQUEST: u64 = 0x200 + 0x20;
/// Bit of vector 0x51 in its word of IRR.
const BIT: u64 = 1 << 0x11;
const TICKS: u64 = 5000;

/// A first guest that runs `build` and then halts for ever, and a second one that spins with interrupts on. `entry` is the
/// second one's in the physical table.
fn pair(entry: u64, build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Bench {
    let mut bench = Bench::new();
    bench.avic();
    bench.put(PHYSICAL_TABLE + 8, entry);
    bench.register(Gpr::Rbx, APIC);
    bench.assemble(|a| {
        build(a)?;
        a.hlt()
    });
    let spin = assemble(64, OTHER_CODE, |a| {
        let mut here = a.create_label();
        a.set_label(&mut here)?;
        a.jmp(here)
    });
    bench.board.memory.write(HostPhysical(OTHER_CODE), &spin);
    bench.second(|vmcb| {
        vmcb.set(Field::Rip, OTHER_CODE);
        vmcb.set(Field::Rflags, 0x202);
        vmcb.set(Field::Rsp, STACK - 0x2000);
        vmcb.set(Field::AvicBackingPage, OTHER_BACKING);
    });
    // It finds nothing at VMRUN.
    bench.cpu().activity = Activity::Halted;
    bench.cpu().refresh();
    assert!(!is_interrupted(&mut bench));
    bench
}

/// Goes on, and says whether the second guest was interrupted: its handler exits.
fn is_interrupted(bench: &mut Bench) -> bool {
    let until = bench.board.now() + TICKS;
    match bench.board.run(until).stop {
        Stop::Gate(0) => {
            let mut page = [0; 4096];
            bench.board.memory.read(HostPhysical(OTHER_VMCB), &mut page);
            let vmcb = Vmcb::from_bytes(page);
            let field = |field| vmcb.get(field).unwrap();
            assert_eq!((field(Field::ExitCode), field(Field::Rip)), (VMMCALL, HANDLER));
            true
        }
        Stop::Limit => false,
        other => panic!("{other:?}"),
    }
}

fn command(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(dword_ptr(rbx + 0x310), 1 << 24)?;
    a.mov(dword_ptr(rbx + 0x300), 0x51)
}

#[test]
fn a_command_rings_at_the_processor_that_the_table_names() {
    // Host APIC ID 1.
    let mut bench = pair(VALID | RUNNING | OTHER_BACKING | 1, command);
    bench.board.memory.write(HostPhysical(VMCB), bench.vmcb.clone().as_bytes());
    bench.execute(Instruction::Vmrun { vmcb: VMCB }).unwrap();
    assert!(is_interrupted(&mut bench));
    assert_eq!(bench.get(OTHER_BACKING + REQUEST) & BIT, 0);
    // Host APIC ID 0, which is wrong: the request is there, and nobody who can take it knows.
    let mut bench = pair(VALID | RUNNING | OTHER_BACKING, command);
    bench.board.memory.write(HostPhysical(VMCB), bench.vmcb.clone().as_bytes());
    bench.execute(Instruction::Vmrun { vmcb: VMCB }).unwrap();
    assert!(!is_interrupted(&mut bench));
    assert_eq!(bench.get(OTHER_BACKING + REQUEST) & BIT, BIT);
    bench.board.processors_mut()[1].cpu.post(Message::Doorbell);
    assert!(is_interrupted(&mut bench), "it was told");
}

#[test]
fn the_host_rings_with_an_msr() {
    for (id, heard) in [(1, true), (0, false), (2, false)] {
        let mut bench = pair(0, |_| Ok(()));
        bench.put(OTHER_BACKING + REQUEST, BIT);
        assert!(!is_interrupted(&mut bench), "nobody has said so");
        let ring = Instruction::Wrmsr { index: msr::AVIC_DOORBELL, value: id };
        assert_eq!(bench.execute(ring), Ok(Outcome::Done));
        assert_eq!(is_interrupted(&mut bench), heard, "{id}");
    }
    let mut bench = Bench::new();
    let index = msr::AVIC_DOORBELL;
    assert_eq!(bench.execute(Instruction::Rdmsr { index }), Err(Fault::GP0));
    assert_eq!(bench.execute(Instruction::Wrmsr { index, value: 0x100 }), Err(Fault::GP0));
}

/// A doorbell is not kept for the host, nor for the next guest, which looks by itself.
#[test]
fn vmrun_looks_at_requests_and_a_doorbell_outside_guests_is_nothing() {
    let mut bench = Bench::new();
    bench.avic();
    bench.interrupts_on();
    bench.put(BACKING + REQUEST, BIT);
    bench.assemble(|a| a.nop());
    assert_eq!(bench.exit().rip, HANDLER);
    bench.cpu().post(Message::Doorbell);
    assert!(!bench.cpu().interrupts.doorbell);
}

#[test]
fn a_halted_guest_wakes_when_it_is_told() {
    let mut bench = Bench::new();
    bench.avic();
    bench.interrupts_on();
    bench.assemble(|a| a.hlt());
    assert!(matches!(bench.run(), End::Stopped(_)));
    bench.put(BACKING + REQUEST, BIT);
    assert!(matches!(bench.go_on(), End::Stopped(_)), "nobody has said so");
    bench.cpu().post(Message::Doorbell);
    let End::Exit(exit) = bench.go_on() else { panic!("the guest sleeps on") };
    assert_eq!((exit.code, exit.rip), (VMMCALL, HANDLER));
}

/// What the guest itself does to its priority is a reason to look: TPR, CR8, and the end of an interrupt.
#[test]
fn a_guest_that_lowers_its_priority_gets_what_waited() {
    type Build = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let lowers: [(u64, Build); 3] = [
        (0x80, |a| a.mov(dword_ptr(rbx + 0x80), 0)),
        (0x80, |a| {
            a.xor(eax, eax)?;
            a.mov(cr8, rax)
        }),
        (0x100 + 0x30, |a| a.mov(dword_ptr(rbx + 0xb0), 0)),
    ];
    for (at, lower) in lowers {
        let mut bench = Bench::new();
        bench.avic();
        bench.interrupts_on();
        // Task priority 0x60, or vector 0x66 in service.
        bench.put(BACKING + at, if at == 0x80 { 0x60 } else { 1 << 6 });
        bench.put(BACKING + REQUEST, BIT);
        bench.register(Gpr::Rbx, APIC);
        bench.assemble(|a| {
            a.nop()?;
            a.nop()?;
            lower(a)?;
            a.vmmcall()
        });
        assert_eq!(bench.exit().rip, HANDLER, "{at:#x}");
    }
}
