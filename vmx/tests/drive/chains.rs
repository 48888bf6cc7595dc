//! Entries and exits within chains of blocks: a host and its guest that run in one piece end exactly like the same two cut after
//! every tick.

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Gpr, HostPhysical};
use rootmode_vmx::{ExitReason, Field, PinControls, SecondaryControls};

/// A name, and what it does to the bench.
type Prepare = (&'static str, fn(&mut Bench));

/// The host's code.
const HOST: u64 = 0x1_a000;

/// A host that counts exits and moves its guest on, and a guest that exits with CPUID, is left by VMCALL, loads, stores and runs
/// into a breakpoint. Answers with the digest of what is left after `ticks` ticks in pieces of `piece`.
fn run(prepare: impl Fn(&mut Bench), piece: u64, ticks: u64) -> u128 {
    let mut bench = Bench::new();
    bench.board.gates = false;
    let host = assemble(64, HOST, |a| {
        let mut plain = a.create_label();
        a.mov(eax, Field::ExitInstructionLength.encoding())?;
        a.vmread(rcx, rax)?;
        a.mov(eax, Field::ExitReason.encoding())?;
        a.vmread(rdx, rax)?;
        a.add(qword_ptr(DATA + 8), rdx)?;
        // An expired timer is no instruction.
        a.xor(r14d, r14d)?;
        a.cmp(edx, u32::from(ExitReason::PREEMPTION_TIMER.0))?;
        a.cmove(rcx, r14)?;
        // Field by field also what does not exist.
        a.vmread(r11, r12)?;
        a.setbe(byte_ptr(DATA + 16))?;
        a.inc(r12)?;
        a.mov(eax, Field::GuestRip.encoding())?;
        a.vmread(rsi, rax)?;
        a.add(rsi, rcx)?;
        a.vmwrite(rax, rsi)?;
        // Now and then a control changes.
        a.test(r12d, 7)?;
        a.jne(plain)?;
        a.mov(eax, Field::ExceptionBitmap.encoding())?;
        a.vmwrite(rax, r12)?;
        a.set_label(&mut plain)?;
        a.vmresume()?;
        a.hlt()
    });
    bench.board.memory.write(HostPhysical(HOST), &host);
    bench.assemble(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.add(qword_ptr(rdi), rax)?;
        a.push(rbx)?;
        a.push(rdx)?;
        a.vmcall()?;
        a.pop(rdx)?;
        a.pop(rbx)?;
        a.int3()?;
        a.dec(r13)?;
        a.jne(again)?;
        a.jmp(again)
    });
    let back = assemble(64, HANDLER, |a| a.iretq());
    bench.board.memory.write(HostPhysical(HANDLER), &back);
    bench.set(Field::HostRip, HOST);
    bench.set(Field::HostRsp, STACK - 0x1000);
    bench.register(Gpr::Rdi, DATA);
    prepare(&mut bench);
    bench.enter();
    let end = bench.cpu().tick + ticks;
    while bench.cpu().tick < end {
        let until = (bench.cpu().tick + piece).min(end);
        assert_eq!(bench.board.run(until).stop, Stop::Limit);
    }
    assert_ne!(bench.get(DATA + 8), 0, "it exits");
    bench.board.digest()
}

#[test]
fn a_host_and_its_guest_in_one_piece_end_like_the_same_cut_after_every_tick() {
    let prepare: [Prepare; 5] = [
        ("plain", |_| {}),
        ("EPT", Bench::ept),
        ("VPID", |bench| bench.secondary(SecondaryControls::ENABLE_VPID)),
        ("EPT and VPID", |bench| {
            bench.ept();
            bench.secondary(SecondaryControls::ENABLE_VPID);
        }),
        ("preemption timer", |bench| {
            bench.pin(PinControls::PREEMPTION_TIMER);
            bench.set(Field::PreemptionTimer, 1);
        }),
    ];
    for (name, prepare) in prepare {
        assert_eq!(run(prepare, 1_000_000, 3000), run(prepare, 1, 3000), "{name}");
    }
}
