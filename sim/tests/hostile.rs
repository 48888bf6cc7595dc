//! Guests with one mistake each in what they invalidate, and their corrected twins, on hostile hardware: the mistake is found
//! and named, the twin is silent whatever is drawn (SDM Vol. 3A "Invalidation of TLBs and Paging-Structure Caches",
//! Vol. 3C "Operations That Invalidate Cached Mappings"; APM Vol. 2 "TLB Management").
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

#[path = "hostile/held.rs"]
mod held;

use std::sync::Arc;

use iced_x86::code_asm::*;
use rootmode::guests::{GuestImage, Initially, Workload, assemble, layout};
use rootmode::machine::{Findings, describe, describe_held};
use rootmode::transparency::bare_board;
use rootmode_arch::choices::{Choices, Seeded, Tame};
use rootmode_arch::record::{Payload, StaleUse, StaleWhy, Stop};
use rootmode_arch::{Cr4, Hardware, HostPhysical, Vendor};
use rootmode_cpu::board::Board;
use rootmode_cpu::{Cpu, Model};
use rootmode_models::devices::TestPorts;
use rootmode_vmx::definitions::exit_reason::ExitReason;
use rootmode_vmx::definitions::field::Field;

/// Seeds that each corrected twin runs with; ROOTMODE_HOSTILE_SEEDS says another number.
fn seeds() -> u64 {
    std::env::var("ROOTMODE_HOSTILE_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(500)
}
const LIMIT: u64 = 100_000;

/// What a program forgot: `Some` names where the stale entry was and what it leads to now.
fn one(found: &[StaleUse]) -> StaleUse {
    match found {
        [stale] => *stale,
        other => panic!("one finding was expected: {other:x?}"),
    }
}

/// Runs `board` to the value that its program writes to port 0xf4.
fn findings(mut board: Board) -> Vec<StaleUse> {
    let found = Findings::default();
    board.set_observer(Some(Box::new(found.clone())));
    let stopped = board.run(LIMIT);
    assert_eq!(stopped.stop, Stop::Requested(1), "{stopped:?} at {:#x}", board.processors()[0].cpu.rip);
    let records = found.take();
    let stale = records.iter().filter_map(|record| match record.payload {
        Payload::Stale(stale) => Some((record, stale)),
        _ => None,
    });
    stale
        .inspect(|(record, stale)| assert!(describe(record, stale).starts_with("stale: vCPU ")))
        .map(|(_, s)| s)
        .collect()
}

/// The bug is found with tame choices; `corrected` is silent with all seeds.
fn judge(run: impl Fn(bool, Box<dyn Choices + Send>) -> Vec<StaleUse>) -> StaleUse {
    let found = one(&run(false, Box::new(Tame)));
    for seed in 0..seeds() {
        let silent = run(true, Box::new(Seeded::new(seed)));
        assert!(silent.is_empty(), "seed {seed}: {silent:x?}");
    }
    found
}

fn code(at: u64, build: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut assembler = CodeAssembler::new(64).unwrap();
    build(&mut assembler).unwrap();
    assembler.assemble(at).unwrap()
}

fn stop(a: &mut CodeAssembler) -> Result<(), IcedError> {
    a.mov(eax, 1)?;
    a.out(0xf4, eax)?;
    a.hlt()
}

const PML4: u64 = 0x1000;
const OTHER_PML4: u64 = 0x5000;
/// Page table of the 2 MiB from `WINDOW` on; in `OTHER_PML4`'s tables `OTHER_TABLE` is in its place.
const TABLE: u64 = 0x4000;
const OTHER_TABLE: u64 = 0x8000;
const WINDOW: u64 = 0x20_0000;
const CODE: [u64; 2] = [0x1_0000, 0x1_1000];
/// Words by which two programs talk.
const FLAG: i32 = 0x1_2000;

/// Processors in 64-bit mode that run `programs`. The window's pages are the physical ones at `WINDOW`, or those that follow
/// them by 16 in the other tables.
fn bare(programs: &[Vec<u8>], choices: Box<dyn Choices + Send>) -> Board {
    let mut board = Board::new();
    board.memory.add_ram(HostPhysical(0), 0x40_0000).unwrap();
    for (top, table, shift) in [(PML4, TABLE, 0), (OTHER_PML4, OTHER_TABLE, 16)] {
        let entries = [
            (top, top + 0x1003),
            (top + 0x1000, top + 0x2003),
            (top + 0x2000, 0x83),
            (top + 0x2008, table | 3),
        ];
        for (at, entry) in entries {
            board.memory.write_u64(HostPhysical(at), entry);
        }
        for page in 0..512 {
            let target = WINDOW + ((page + shift) % 512) * 0x1000;
            board.memory.write_u64(HostPhysical(table + page * 8), target | 3);
        }
    }
    board.set_bus(Box::new(TestPorts));
    board.set_hardware(Hardware::Hostile);
    board.set_choices(choices);
    for (index, program) in programs.iter().enumerate() {
        board.memory.write(HostPhysical(CODE[index]), program);
        let mut cpu = Cpu::new(index as u8, Arc::new(Model::max_intel()));
        cpu.enter_long_mode(PML4, CODE[index], 0xf000 + index as u64 * 0x1000);
        cpu.cr4 = cpu.cr4 | Cr4::PCIDE;
        cpu.refresh();
        board.add_processor(cpu, None);
    }
    board
}

#[test]
fn a_missing_invlpg() {
    let found = judge(|corrected, choices| {
        let program = code(CODE[0], |a| {
            a.mov(rsi, WINDOW)?;
            a.mov(rax, qword_ptr(rsi))?;
            a.add(qword_ptr(TABLE), 0x1000)?;
            if corrected {
                a.invlpg(ptr(rsi))?;
            }
            a.mov(rax, qword_ptr(rsi))?;
            stop(a)
        });
        findings(bare(&[program], choices))
    });
    assert_eq!((found.linear.0, found.used.0), (WINDOW, WINDOW));
    assert_eq!(found.walked, Some(HostPhysical(WINDOW + 0x1000)));
    let StaleWhy::Entry { address, old, new } = found.why else { panic!("{found:x?}") };
    // The accessed flag was set when the translation was cached.
    assert_eq!((address.0, old, new), (TABLE, WINDOW | 0x23, WINDOW + 0x1023));
    let (cached, changed) = (found.cached, found.changed.unwrap());
    assert!(CODE[0] < cached.rip && cached.rip < changed.rip && changed.rip < found.rip, "{found:x?}");
}

#[test]
fn a_store_after_write_protection_without_invlpg() {
    let found = judge(|corrected, choices| {
        let program = code(CODE[0], |a| {
            a.mov(rcx, cr0)?;
            a.or(ecx, 0x1_0000)?;
            a.mov(cr0, rcx)?;
            a.mov(rsi, WINDOW)?;
            a.mov(qword_ptr(rsi), rsi)?;
            a.and(qword_ptr(TABLE), !2)?;
            if corrected {
                // The twin makes it writable again before it stores, which needs no invalidation.
                a.invlpg(ptr(rsi))?;
                a.mov(rax, qword_ptr(rsi))?;
                a.or(qword_ptr(TABLE), 2)?;
            }
            a.mov(qword_ptr(rsi), rsi)?;
            stop(a)
        });
        findings(bare(&[program], choices))
    });
    assert!(found.write);
    assert_eq!(found.walked, None);
}

#[test]
fn a_pcid_given_to_other_tables_without_invpcid() {
    let found = judge(|corrected, choices| {
        let program = code(CODE[0], |a| {
            a.mov(rsi, WINDOW)?;
            a.mov(rax, qword_ptr(rsi))?;
            a.mov(rax, OTHER_PML4)?;
            if !corrected {
                a.bts(rax, 63)?;
            }
            a.mov(cr3, rax)?;
            a.mov(rax, qword_ptr(rsi))?;
            stop(a)
        });
        findings(bare(&[program], choices))
    });
    assert_eq!(found.why, StaleWhy::Root);
    assert_eq!(found.walked, Some(HostPhysical(WINDOW + 0x1_0000)));
    assert!(found.changed.is_some_and(|changed| changed.rip < found.rip && changed.rip > found.cached.rip));
}

#[test]
fn a_page_freed_before_the_other_processor_flushed() {
    let found = judge(|corrected, choices| {
        // The first processor takes the page away and uses it at another address; the twin waits for the other's answer.
        let first = code(CODE[0], |a| {
            let (mut ready, mut answer, mut done) = (a.create_label(), a.create_label(), a.create_label());
            a.set_label(&mut ready)?;
            a.cmp(dword_ptr(FLAG), 1)?;
            a.jne(ready)?;
            a.and(qword_ptr(TABLE), !1)?;
            a.mov(dword_ptr(FLAG), 2)?;
            if corrected {
                a.set_label(&mut answer)?;
                a.cmp(dword_ptr(FLAG), 3)?;
                a.jne(answer)?;
            }
            // The next entry of the table maps the same page now: its new owner.
            a.mov(qword_ptr(TABLE + 8), (WINDOW | 3) as i32)?;
            a.mov(rsi, WINDOW + 0x1000)?;
            a.mov(qword_ptr(rsi), 77)?;
            a.mov(dword_ptr(FLAG + 4), 1)?;
            a.set_label(&mut done)?;
            a.jmp(done)
        });
        let second = code(CODE[1], |a| {
            let (mut wait, mut reused) = (a.create_label(), a.create_label());
            a.mov(rsi, WINDOW)?;
            a.mov(rax, qword_ptr(rsi))?;
            a.mov(dword_ptr(FLAG), 1)?;
            a.set_label(&mut wait)?;
            a.cmp(dword_ptr(FLAG), 2)?;
            a.jne(wait)?;
            if corrected {
                a.invlpg(ptr(rsi))?;
                a.mov(dword_ptr(FLAG), 3)?;
            }
            a.set_label(&mut reused)?;
            a.cmp(dword_ptr(FLAG + 4), 1)?;
            a.jne(reused)?;
            if !corrected {
                a.mov(rax, qword_ptr(rsi))?;
            }
            stop(a)
        });
        findings(bare(&[first, second], choices))
    });
    assert_eq!((found.linear.0, found.used.0, found.walked), (WINDOW, WINDOW, None));
    assert_eq!((found.cached.vcpu, found.changed.unwrap().vcpu), (1, 0));
}

/// Where an L1's own exit handler lies.
const HANDLER: u64 = layout::L1_CODE + 0x8000;
/// L1's count of exits.
const COUNT: i32 = layout::L1_DATA as i32 + 0x100;
/// The page that L2 reads, and the entry of the second stage that maps it.
const PAGE: u64 = layout::WINDOW;
const LEAF: u64 = layout::SECOND_STAGE_LEAVES + (PAGE >> 12) * 8;

/// L2 reads the page, calls L1, reads it again, calls again. L1's and L2's tables are those of the embedded guests.
fn nested(vendor: Vendor) -> GuestImage {
    let mut workload = Workload::draw(vendor, 1, &mut Tame);
    workload.controls.window = [Initially::Mapped; 16];
    workload.controls.low_absent = 0;
    workload.controls.exceptions = 0;
    let mut image = assemble(&workload).unwrap();
    let program = code(layout::L2_CODE, |a| {
        a.mov(rsi, PAGE)?;
        for _ in 0..2 {
            a.mov(rax, qword_ptr(rsi))?;
            if vendor == Vendor::Intel { a.vmcall()? } else { a.vmmcall()? }
        }
        a.ud2()
    });
    image.segments.push((layout::L2_BASE + layout::L2_CODE, program));
    image
}

fn hosted(image: &GuestImage, choices: Box<dyn Choices + Send>) -> Vec<StaleUse> {
    findings(bare_board(image, Hardware::Hostile, choices))
}

/// The four tables of one hierarchy that the image has at `from`, linked with `bits` to lie at `to`, with `leaf` for the page.
fn other_tables(image: &GuestImage, from: u64, to: u64, bits: u64, leaf: u64) -> Vec<u8> {
    let mut tables = image.segments.iter().find(|(at, _)| *at == from).unwrap().1.clone();
    for level in 1..4 {
        let at = (level as usize - 1) * 4096;
        tables[at..at + 8].copy_from_slice(&(to + level * 0x1000 | bits).to_le_bytes());
    }
    let at = 0x3000 + (PAGE >> 12) as usize * 8;
    tables[at..at + 8].copy_from_slice(&(leaf | bits).to_le_bytes());
    tables
}

/// An L1 for VMX with the embedded guest's beginning: at the first call of L2 it does `between`, at the second it stops.
fn intel(between: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> GuestImage {
    let mut image = nested(Vendor::Intel);
    let fields = image.segments.iter_mut().find(|(at, _)| *at == layout::L1_FIELDS).unwrap();
    let row =
        fields.1.chunks_mut(16).find(|row| row[4..8] == Field::HostRip.encoding().to_le_bytes()).unwrap();
    row[8..].copy_from_slice(&HANDLER.to_le_bytes());
    let handler = code(HANDLER, |a| {
        let mut second = a.create_label();
        a.mov(eax, Field::ExitReason.encoding())?;
        a.vmread(rbx, rax)?;
        a.cmp(ebx, i32::from(ExitReason::VMCALL.0))?;
        a.jne(second)?;
        a.inc(dword_ptr(COUNT))?;
        a.cmp(dword_ptr(COUNT), 2)?;
        a.je(second)?;
        between(a)?;
        a.mov(eax, Field::GuestRip.encoding())?;
        a.vmread(rbx, rax)?;
        a.add(rbx, 3)?;
        a.vmwrite(rax, rbx)?;
        a.vmresume()?;
        a.set_label(&mut second)?;
        a.cmp(dword_ptr(COUNT), 2)?;
        a.sete(al)?;
        a.movzx(eax, al)?;
        a.out(0xf4, eax)?;
        a.hlt()
    });
    image.segments.push((HANDLER, handler));
    image
}

#[test]
fn a_missing_invept() {
    let found = judge(|corrected, choices| {
        let image = intel(|a| {
            a.add(qword_ptr(LEAF), 0x1000)?;
            if corrected {
                a.mov(qword_ptr(layout::L1_DATA + 32), (layout::SECOND_STAGE | 0x1e) as i32)?;
                a.mov(qword_ptr(layout::L1_DATA + 40), 0)?;
                a.mov(eax, 1)?;
                a.invept(rax, xmmword_ptr(layout::L1_DATA + 32))?;
            }
            Ok(())
        });
        hosted(&image, choices)
    });
    assert_eq!((found.linear.0, found.used.0), (PAGE, layout::L2_BASE + PAGE));
    let StaleWhy::Entry { address, .. } = found.why else { panic!("{found:x?}") };
    assert_eq!(address.0, LEAF);
    assert!((HANDLER..HANDLER + 0x100).contains(&found.changed.unwrap().rip));
}

#[test]
fn a_vpid_given_to_other_tables_without_invvpid() {
    // A second hierarchy for L2 whose page table leads elsewhere.
    const OTHER: u64 = 0x3_0000;
    let found = judge(|corrected, choices| {
        let mut image = intel(|a| {
            a.mov(eax, Field::GuestCr3.encoding())?;
            a.mov(ebx, OTHER as u32)?;
            a.vmwrite(rax, rbx)?;
            if corrected {
                a.mov(eax, Field::Vpid.encoding())?;
                a.vmread(rbx, rax)?;
                a.mov(qword_ptr(layout::L1_DATA + 32), rbx)?;
                a.mov(qword_ptr(layout::L1_DATA + 40), 0)?;
                a.mov(eax, 1)?;
                a.invvpid(rax, xmmword_ptr(layout::L1_DATA + 32))?;
            }
            Ok(())
        });
        let from = layout::L2_BASE + layout::L2_PML4;
        let tables = other_tables(&image, from, OTHER, 3, PAGE + 0x1000);
        image.segments.push((layout::L2_BASE + OTHER, tables));
        hosted(&image, choices)
    });
    assert_eq!(found.why, StaleWhy::Root);
    assert_eq!(found.walked, Some(HostPhysical(layout::L2_BASE + PAGE + 0x1000)));
}

/// An L1 for SVM: at the first call of L2 it does `between` with the VMCB's address in RAX, at the second it stops.
fn amd(between: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> GuestImage {
    let mut image = nested(Vendor::Amd);
    let rip = rootmode_svm::vmcb::Field::Rip.row().offset as i32;
    let program = code(layout::L1_CODE, |a| {
        let mut second = a.create_label();
        a.mov(ecx, 0xc000_0080_u32)?;
        a.rdmsr()?;
        a.or(eax, 1 << 12)?;
        a.wrmsr()?;
        a.mov(ecx, 0xc001_0117_u32)?;
        a.mov(eax, layout::VMXON_REGION as u32)?;
        a.xor(edx, edx)?;
        a.wrmsr()?;
        a.mov(rax, layout::CONTROL)?;
        a.vmrun()?;
        between(a)?;
        a.add(qword_ptr(rax + rip), 3)?;
        a.vmrun()?;
        // VMMCALL.
        a.cmp(qword_ptr(rax + 0x70), 0x81)?;
        a.jne(second)?;
        stop(a)?;
        a.set_label(&mut second)?;
        a.ud2()
    });
    let own = image.segments.iter_mut().find(|(at, _)| *at == layout::L1_CODE).unwrap();
    own.1 = program;
    image
}

#[test]
fn a_changed_nested_entry_without_tlb_control() {
    let found = judge(|corrected, choices| {
        let image = amd(|a| {
            a.add(qword_ptr(LEAF), 0x1000)?;
            if corrected {
                // TLB_CONTROL: flush this guest's translations.
                a.mov(byte_ptr(rax + 0x5c), 3)?;
            }
            Ok(())
        });
        hosted(&image, choices)
    });
    let StaleWhy::Entry { address, .. } = found.why else { panic!("{found:x?}") };
    assert_eq!(address.0, LEAF);
}

#[test]
fn an_asid_given_to_another_guest_without_tlb_control() {
    // Tables like the first, but with the page elsewhere.
    const OTHER: u64 = 0x5_0000;
    let found = judge(|corrected, choices| {
        let mut image = amd(|a| {
            a.mov(qword_ptr(rax + 0xb0), OTHER as i32)?;
            if corrected {
                // Another ASID.
                a.inc(dword_ptr(rax + 0x58))?;
            }
            Ok(())
        });
        let leaf = layout::L2_BASE + PAGE + 0x1000;
        let tables = other_tables(&image, layout::SECOND_STAGE, OTHER, 7, leaf);
        image.segments.push((OTHER, tables));
        hosted(&image, choices)
    });
    assert_eq!(found.why, StaleWhy::Root);
}
