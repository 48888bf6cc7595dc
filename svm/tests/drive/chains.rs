//! VMRUN and #VMEXIT within chains of blocks: a host and its guest that run in one piece end exactly like the same two cut after
//! every tick.

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Gpr, HostPhysical};
use rootmode_svm::{Field, Intercept};

/// A name, and what it does to the bench.
type Prepare = (&'static str, fn(&mut Bench));

/// The host's code.
const HOST: u64 = 0x1_a000;

/// A host that counts exits and moves its guest on, and a guest that exits with CPUID, is left by VMMCALL, loads, stores and
/// runs into a breakpoint. Answers with the digest of what is left after `ticks` ticks in pieces of `piece`.
fn run(prepare: impl Fn(&mut Bench), piece: u64, ticks: u64) -> u128 {
    let mut bench = Bench::new();
    bench.board.gates = false;
    let at = |field: Field| field.vmcb_offset().unwrap() as u64;
    let host = assemble(64, HOST, |a| {
        let (mut again, mut plain) = (a.create_label(), a.create_label());
        a.set_label(&mut again)?;
        a.mov(rax, VMCB)?;
        a.vmrun()?;
        a.mov(rcx, qword_ptr(rax + at(Field::ExitCode)))?;
        a.add(qword_ptr(DATA + 8), rcx)?;
        a.mov(rdx, qword_ptr(rax + at(Field::NextRip)))?;
        a.test(rdx, rdx)?;
        a.je(plain)?;
        a.mov(qword_ptr(rax + at(Field::Rip)), rdx)?;
        a.set_label(&mut plain)?;
        a.inc(r12)?;
        // Now and then an intercept changes.
        a.test(r12d, 7)?;
        a.jne(again)?;
        a.mov(dword_ptr(rax + at(Field::InterceptException)), r12d)?;
        a.jmp(again)
    });
    bench.board.memory.write(HostPhysical(HOST), &host);
    let back = assemble(64, HANDLER, |a| a.iretq());
    bench.board.memory.write(HostPhysical(HANDLER), &back);
    bench.assemble(|a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.xor(eax, eax)?;
        a.cpuid()?;
        a.add(qword_ptr(rdi), rax)?;
        a.push(rbx)?;
        a.push(rdx)?;
        a.vmmcall()?;
        a.pop(rdx)?;
        a.pop(rbx)?;
        a.int3()?;
        a.dec(r13)?;
        a.jne(again)?;
        a.jmp(again)
    });
    bench.intercept(Intercept::CPUID);
    bench.intercept(Intercept::VMMCALL);
    bench.register(Gpr::Rdi, DATA);
    prepare(&mut bench);
    bench.board.memory.write(HostPhysical(VMCB), bench.vmcb.as_bytes());
    bench.cpu().rip = HOST;
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
    let prepare: [Prepare; 3] = [
        ("plain", |_| {}),
        ("NPT", Bench::nested_paging),
        ("all flushed", |bench| bench.set(Field::TlbControl, 1)),
    ];
    for (name, prepare) in prepare {
        assert_eq!(run(prepare, 1_000_000, 3000), run(prepare, 1, 3000), "{name}");
    }
}
