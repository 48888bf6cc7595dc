//! VMCSs that move, are copied or reused without VMCLEAR (SDM Vol. 3C "Software Access to the VMCS and Related Structures").

use super::*;
use rootmode_arch::record::{HeldRegion, HeldUse, Level};
use rootmode_vmx::drive::Vmx;
use rootmode_vmx::drive::offered::REVISION;

/// VMXON regions of the processors, a VMCS, and room for another.
const VMXON: [u64; 2] = [0x1_3000, 0x1_4000];
const VMCS: u64 = 0x1_5000;
const OTHER: u64 = 0x1_6000;
/// Words in memory that hold a region's address, one a processor.
const POINTER: [i32; 2] = [0x1_2100, 0x1_2108];
/// A field without meaning for entries, and a value.
const FIELD: u32 = Field::TscOffset.encoding();
const VALUE: u64 = 0x5a;

/// Processors with VMX that run `programs`.
fn virtual_machines(programs: &[Vec<u8>], choices: Box<dyn Choices + Send>) -> Board {
    let mut board = bare(programs, choices);
    for region in [VMXON[0], VMXON[1], VMCS, OTHER] {
        board.memory.write_u32(HostPhysical(region), REVISION);
    }
    for processor in board.processors_mut() {
        processor.cpu.cr4 = processor.cpu.cr4 | Cr4::VMXE;
        processor.cpu.msrs.feature_control = 5;
        processor.extension = Some(Box::new(Vmx::new(&Model::max_intel(), Level::L1)));
        processor.cpu.refresh();
    }
    board
}

/// Runs it; what was found of regions, in order. Nothing else may be.
fn held(mut board: Board) -> Vec<HeldRegion> {
    let found = Findings::default();
    board.set_observer(Some(Box::new(found.clone())));
    let stopped = board.run(LIMIT);
    assert_eq!(stopped.stop, Stop::Requested(1), "{stopped:?} at {:#x}", board.processors()[0].cpu.rip);
    let told = |record: rootmode_arch::record::Record| match record.payload {
        Payload::Held(held) => {
            assert!(describe_held(&record, &held).contains("VMCLEAR is missing"));
            held
        }
        other => panic!("{other:x?}"),
    };
    found.take().into_iter().map(told).collect()
}

/// The mistake is found with tame choices, first as answered; `corrected` is silent with all seeds.
fn judge(run: impl Fn(bool, Box<dyn Choices + Send>) -> Vec<HeldRegion>) -> HeldRegion {
    let found = run(false, Box::new(Tame));
    for seed in 0..seeds() {
        let silent = run(true, Box::new(Seeded::new(seed)));
        assert!(silent.is_empty(), "seed {seed}: {silent:x?}");
    }
    *found.first().expect("the mistake is found")
}

/// Puts the address of a region where processor `n`'s next instruction finds it.
fn point(a: &mut CodeAssembler, n: usize, region: u64) -> Result<(), IcedError> {
    a.mov(qword_ptr(POINTER[n]), region as i32)
}

/// VMXON on processor `n`.
fn begin(a: &mut CodeAssembler, n: usize) -> Result<(), IcedError> {
    point(a, n, VMXON[n])?;
    a.vmxon(qword_ptr(POINTER[n]))
}

/// On processor 0: VMPTRLD of `region`, and VMWRITE of the value, after VMCLEAR, which new regions need.
fn fill(a: &mut CodeAssembler, region: u64) -> Result<(), IcedError> {
    point(a, 0, region)?;
    a.vmclear(qword_ptr(POINTER[0]))?;
    a.vmptrld(qword_ptr(POINTER[0]))?;
    a.mov(eax, FIELD)?;
    a.mov(ebx, VALUE as u32)?;
    a.vmwrite(rax, rbx)
}

/// Ends with 1 if the current VMCS has `value`.
fn stop_with(a: &mut CodeAssembler, value: u64) -> Result<(), IcedError> {
    a.mov(eax, FIELD)?;
    a.vmread(rbx, rax)?;
    a.cmp(rbx, value as i32)?;
    a.sete(al)?;
    a.movzx(eax, al)?;
    a.out(0xf4, eax)?;
    a.hlt()
}

#[test]
fn a_vmcs_that_moves_to_another_processor() {
    let found = judge(|corrected, choices| {
        let first = code(CODE[0], |a| {
            let mut wait = a.create_label();
            begin(a, 0)?;
            fill(a, VMCS)?;
            if corrected {
                a.vmclear(qword_ptr(POINTER[0]))?;
            }
            a.mov(dword_ptr(FLAG), 1)?;
            a.set_label(&mut wait)?;
            a.jmp(wait)
        });
        let second = code(CODE[1], |a| {
            let mut wait = a.create_label();
            a.set_label(&mut wait)?;
            a.cmp(dword_ptr(FLAG), 1)?;
            a.jne(wait)?;
            begin(a, 1)?;
            point(a, 1, VMCS)?;
            a.vmptrld(qword_ptr(POINTER[1]))?;
            // What the first processor wrote never came here.
            stop_with(a, if corrected { VALUE } else { 0 })
        });
        held(virtual_machines(&[first, second], choices))
    });
    assert_eq!((found.region.0, found.how), (VMCS, HeldUse::Loaded));
    assert_eq!(found.since.vcpu, 0);
    assert!(CODE[0] < found.since.rip && CODE[1] < found.rip && found.since.rip < CODE[1]);
}

#[test]
fn a_vmcs_that_is_copied_to_another_region() {
    let found = judge(|corrected, choices| {
        let program = code(CODE[0], |a| {
            begin(a, 0)?;
            fill(a, VMCS)?;
            if corrected {
                a.vmclear(qword_ptr(POINTER[0]))?;
            }
            a.mov(rsi, VMCS)?;
            a.mov(rdi, OTHER)?;
            a.mov(ecx, 512)?;
            a.rep().movsq()?;
            point(a, 0, OTHER)?;
            a.vmptrld(qword_ptr(POINTER[0]))?;
            stop_with(a, if corrected { VALUE } else { 0 })
        });
        held(virtual_machines(&[program], choices))
    });
    assert_eq!((found.region.0, found.how), (VMCS, HeldUse::Read));
}

#[test]
fn a_region_that_is_used_for_something_else() {
    let found = judge(|corrected, choices| {
        let program = code(CODE[0], |a| {
            begin(a, 0)?;
            fill(a, VMCS)?;
            // Another VMCS becomes current; the first stays active.
            fill(a, OTHER)?;
            if corrected {
                point(a, 0, VMCS)?;
                a.vmclear(qword_ptr(POINTER[0]))?;
            }
            a.mov(rdi, VMCS)?;
            a.mov(qword_ptr(rdi + 0x800), 7)?;
            stop_with(a, VALUE)
        });
        held(virtual_machines(&[program], choices))
    });
    assert_eq!((found.region.0, found.how), (VMCS, HeldUse::Written));
}

#[test]
fn a_vmclear_on_the_wrong_processor() {
    let found = judge(|corrected, choices| {
        let first = code(CODE[0], |a| {
            let (mut asked, mut wait) = (a.create_label(), a.create_label());
            begin(a, 0)?;
            fill(a, VMCS)?;
            a.mov(dword_ptr(FLAG), 1)?;
            a.set_label(&mut asked)?;
            a.cmp(dword_ptr(FLAG + 4), 1)?;
            a.jne(asked)?;
            a.vmclear(qword_ptr(POINTER[0]))?;
            a.mov(dword_ptr(FLAG), 2)?;
            a.set_label(&mut wait)?;
            a.jmp(wait)
        });
        let second = code(CODE[1], |a| {
            let mut wait = a.create_label();
            begin(a, 1)?;
            if corrected {
                a.mov(dword_ptr(FLAG + 4), 1)?;
            }
            a.set_label(&mut wait)?;
            a.cmp(dword_ptr(FLAG), if corrected { 2 } else { 1 })?;
            a.jne(wait)?;
            point(a, 1, VMCS)?;
            a.vmclear(qword_ptr(POINTER[1]))?;
            a.vmptrld(qword_ptr(POINTER[1]))?;
            stop_with(a, if corrected { VALUE } else { 0 })
        });
        held(virtual_machines(&[first, second], choices))
    });
    assert_eq!((found.region.0, found.how), (VMCS, HeldUse::Cleared));
}

#[test]
fn a_held_vmcs_comes_back_with_its_data_and_its_launch_state_and_may_be_asked_for_its_revision() {
    for seed in 0..20 {
        let program = code(CODE[0], |a| {
            begin(a, 0)?;
            fill(a, VMCS)?;
            fill(a, OTHER)?;
            a.mov(eax, FIELD)?;
            a.mov(ebx, 1)?;
            a.vmwrite(rax, rbx)?;
            a.mov(rsi, VMCS)?;
            a.mov(eax, dword_ptr(rsi))?;
            point(a, 0, VMCS)?;
            a.vmptrld(qword_ptr(POINTER[0]))?;
            stop_with(a, VALUE)
        });
        let found = held(virtual_machines(&[program], Box::new(Seeded::new(seed))));
        assert_eq!(found, []);
    }
}
