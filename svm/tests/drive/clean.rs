//! Clean bits and ASIDs on hostile hardware: hypervisors with one mistake each, and their corrected twins. The mistake is found
//! and named, the twin is silent whatever is drawn ("VMCB Clean Field", "TLB Flush").

use super::bench::*;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use rootmode_arch::choices::{Choices, Seeded, Tame};
use rootmode_arch::record::{Payload, TrustedField};
use rootmode_arch::{Cr0, Cr4, DebugCtl, Dr7, Gpr, HostPhysical, msr};
use rootmode_svm::vmcb::{CLEAN_ROWS, Clean, EventInfo, EventKind, IntCtl, TlbControl, VirtExt};
use rootmode_svm::{Field, Intercept};

/// Seeds that each corrected twin runs with.
const SEEDS: u64 = 40;
/// A page of zeros.
const ZEROS: u64 = 0x1_8000;
/// The second 2 MBytes of the guest, which its second directory entry maps to the first ones.
const WINDOW: u64 = 0x20_0000;
const ENTRY: u64 = 0x3008;

/// What the guest did: its exit and its RAX.
type Outcome = (End, u64);

/// A hypervisor that changes the VMCB between two runs of the same guest.
struct Case {
    bit: Clean,
    build: fn(&mut CodeAssembler) -> Result<(), IcedError>,
    prepare: fn(&mut Bench),
    /// The change; it says nothing of clean bits.
    change: fn(&mut Bench),
    /// The fields that it changes.
    fields: &'static [Field],
}

fn outcome(bench: &mut Bench) -> Outcome {
    bench.set(Field::Rip, CODE);
    bench.set(Field::Rsp, STACK);
    bench.set(Field::Rax, 0);
    let end = bench.run();
    (end, bench.field(Field::Rax))
}

impl Case {
    /// The outcomes before and after the change, with `clean` in the VMCB, and what was found.
    fn run(
        &self,
        clean: u32,
        hardware: Option<Box<dyn Choices + Send>>,
    ) -> ([Outcome; 2], Vec<TrustedField>) {
        let (mut bench, found) = match hardware {
            Some(choices) => Bench::hostile(choices),
            None => (Bench::new(), Records::default()),
        };
        bench.assemble(self.build);
        bench.put(ENTRY, 0x87);
        (self.prepare)(&mut bench);
        let before = outcome(&mut bench);
        (self.change)(&mut bench);
        bench.set(Field::CleanBits, clean.into());
        let after = outcome(&mut bench);
        let found = found.take().into_iter().filter_map(|record| match record.payload {
            Payload::Trusted(trusted) => Some(trusted),
            _ => None,
        });
        ([before, after], found.collect())
    }
}

fn cases() -> Vec<Case> {
    let case = |bit, build, prepare, change, fields| Case { bit, build, prepare, change, fields };
    vec![
        case(
            Clean::I,
            |a| a.cpuid().and_then(|()| a.vmmcall()),
            |_| {},
            |b| b.intercept(Intercept::CPUID),
            &[Field::Intercept3],
        ),
        case(
            Clean::IOPM,
            |a| a.rdmsr().and_then(|()| a.vmmcall()),
            |b| {
                b.intercept(Intercept::MSR_PROT);
                b.register(Gpr::Rcx, msr::IA32_STAR.into());
                b.fill(ZEROS, 0x2000, 0xff);
            },
            |b| b.set(Field::MsrpmBase, ZEROS),
            &[Field::MsrpmBase],
        ),
        case(
            Clean::ASID,
            |a| a.mov(al, byte_ptr(rbx)).and_then(|()| a.vmmcall()),
            |b| {
                b.intercept(Intercept::EXCP_PF);
                b.register(Gpr::Rbx, WINDOW + DATA);
            },
            // A fresh ASID instead of a flush.
            |b| {
                b.put(ENTRY, 0);
                b.set(Field::Asid, 2);
            },
            &[Field::Asid],
        ),
        case(
            Clean::TPR,
            |a| a.nop().and_then(|()| a.vmmcall()),
            |b| {
                b.interrupts_on();
                b.set(Field::IntVector, 0x66);
            },
            |b| {
                b.interrupts_on();
                b.int_ctl(IntCtl::V_IRQ | IntCtl::V_IGN_TPR);
            },
            &[Field::IntCtl],
        ),
        case(
            Clean::NP,
            |a| a.vmmcall(),
            Bench::nested_paging,
            |b| {
                b.set(Field::NestedCr3, ZEROS);
                b.set(Field::TlbControl, TlbControl::FlushAll as u64);
            },
            &[Field::NestedCr3],
        ),
        case(
            Clean::CRX,
            |a| a.fninit().and_then(|()| a.vmmcall()),
            |b| b.intercept(Intercept::EXCP_NM),
            |b| b.or(Field::Cr0, Cr0::TS.0),
            &[Field::Cr0],
        ),
        case(
            Clean::DRX,
            |a| a.mov(rdx, dr0).and_then(|()| a.vmmcall()),
            |b| b.intercept(Intercept::EXCP_DB),
            |b| b.or(Field::Dr7, Dr7::GD.0),
            &[Field::Dr7],
        ),
        case(Clean::DT, |a| a.ud2(), |_| {}, |b| b.set(Field::IdtrLimit, 0), &[Field::IdtrLimit]),
        case(
            Clean::SEG,
            |a| a.hlt(),
            |b| {
                b.intercept(Intercept::HLT);
                b.intercept(Intercept::EXCP_GP);
            },
            Bench::user,
            &[Field::CsSelector, Field::CsAttrib, Field::SsSelector, Field::SsAttrib, Field::Cpl],
        ),
        case(
            Clean::CR2,
            |a| a.mov(rax, cr2).and_then(|()| a.vmmcall()),
            |_| {},
            |b| b.set(Field::Cr2, 0x1234),
            &[Field::Cr2],
        ),
        case(
            Clean::LBR,
            |a| a.rdmsr().and_then(|()| a.vmmcall()),
            |b| {
                b.or(Field::VirtExt, VirtExt::LBR_ENABLE.0);
                b.register(Gpr::Rcx, msr::IA32_DEBUGCTL.into());
            },
            |b| {
                b.register(Gpr::Rcx, msr::IA32_DEBUGCTL.into());
                b.set(Field::Dbgctl, DebugCtl::BTF.0);
            },
            &[Field::Dbgctl],
        ),
        case(
            Clean::AVIC,
            |a| a.mov(dword_ptr(rbx), 0x51).and_then(|()| a.vmmcall()),
            |b| {
                b.avic();
                b.register(Gpr::Rbx, APIC + 0x300);
            },
            // No processor 0 in the new table.
            |b| b.set(Field::AvicPhysicalTable, ZEROS | 7),
            &[Field::AvicPhysicalTable],
        ),
        case(
            Clean::CET,
            |a| a.rdmsr().and_then(|()| a.vmmcall()),
            |b| {
                b.or(Field::Cr4, Cr4::CET.0);
                b.register(Gpr::Rcx, msr::IA32_S_CET.into());
            },
            |b| {
                b.register(Gpr::Rcx, msr::IA32_S_CET.into());
                b.set(Field::SCet, 2);
            },
            &[Field::SCet],
        ),
    ]
}

const ALL: u32 = Clean::NAMED.0 & !Clean::SOFTWARE.0;

#[test]
fn a_trusted_field_that_changed_is_used_as_it_was_and_reported() {
    for case in cases() {
        let ([before, after], found) = case.run(ALL, Some(Box::new(Tame)));
        assert_eq!(before, after, "{:?}", case.bit);
        let fields: Vec<_> = found.iter().map(|trusted| trusted.field).collect();
        let expected: Vec<_> = CLEAN_ROWS
            .iter()
            .flat_map(|row| row.fields)
            .filter(|field| case.fields.contains(field))
            .map(|field| Some(field.row().offset))
            .collect();
        assert_eq!(fields, expected, "{:?}", case.bit);
        assert!(found.iter().all(|trusted| trusted.vmcb == HostPhysical(VMCB) && trusted.bits == case.bit.0));
    }
}

#[test]
fn the_corrected_twin_is_silent_whatever_is_drawn_and_tame_hardware_reads_everything() {
    for case in cases() {
        let (tame, _) = case.run(ALL, None);
        assert_ne!(tame[0], tame[1], "{:?}", case.bit);
        for seed in 0..SEEDS {
            let (outcomes, found) = case.run(ALL & !case.bit.0, Some(Box::new(Seeded::new(seed))));
            assert_eq!(outcomes, tame, "{:?}, seed {seed}", case.bit);
            assert!(found.is_empty(), "{:?}, seed {seed}: {found:x?}", case.bit);
        }
    }
}

#[test]
fn every_clean_bit_has_a_case() {
    for row in CLEAN_ROWS {
        assert!(cases().iter().any(|case| case.bit == row.bit), "{:?}", row.bit);
    }
}

/// RIP, RSP, RAX, RFLAGS, EVENTINJ, the interrupt shadow and TLB_CONTROL are in no row: they are read by every VMRUN.
#[test]
fn what_no_clean_bit_covers_is_read_with_every_clean_bit_set() {
    let (mut bench, found) = Bench::hostile(Box::new(Tame));
    bench.nested_paging();
    bench.intercept(Intercept::VINTR);
    bench.int_ctl(IntCtl::V_IRQ | IntCtl::V_IGN_TPR);
    bench.register(Gpr::Rbx, DATA);
    bench.assemble(|a| {
        a.mov(rcx, rax)?;
        a.mov(rdx, rsp)?;
        a.lahf()?;
        a.mov(esi, dword_ptr(rbx))?;
        a.vmmcall()
    });
    let clean = |bench: &mut Bench, fields: &[(Field, u64)]| {
        for (field, value) in
            [(Field::Rip, CODE), (Field::Rsp, STACK), (Field::Rflags, 2)].iter().chain(fields)
        {
            bench.set(*field, *value);
        }
        bench.set(Field::CleanBits, ALL.into());
        let exit = bench.exit();
        (exit.code, exit.rip - CODE)
    };
    bench.exit();
    found.take();
    bench.put(ZEROS, 7);
    bench.host_writes(Bench::nested_entry(DATA), ZEROS | 7);
    let changed = [
        (Field::Rsp, STACK - 8),
        (Field::Rax, 0x77),
        (Field::Rflags, 3),
        (Field::TlbControl, TlbControl::FlushAll as u64),
    ];
    assert_eq!(clean(&mut bench, &changed).0, 0x81);
    let seen = [Gpr::Rcx, Gpr::Rdx, Gpr::Rsi].map(|gpr| bench.cpu().gpr[gpr as usize]);
    assert_eq!(seen, [0x77, STACK - 8, 7]);
    assert_eq!(bench.field(Field::Rax) & 0x100, 0x100, "LAHF saw CF");
    // RIP, and the shadow that keeps the virtual interrupt away for one instruction.
    let enabled = (Field::Rflags, 0x202);
    assert_eq!(clean(&mut bench, &[enabled, (Field::Rip, CODE + 3)]), (0x64, 3));
    assert_eq!(clean(&mut bench, &[enabled, (Field::InterruptState, 1)]), (0x64, 3));
    bench.set(Field::InterruptState, 0);
    let event = EventInfo::new(EventKind::Interrupt, 0x80, None).0;
    assert_eq!(clean(&mut bench, &[(Field::EventInj, event)]), (0x81, HANDLER - CODE));
    assert!(found.take().is_empty(), "none of it is a mistake");
}

/// One VMCB is kept; for another one clean bits count as 0.
#[test]
fn clean_bits_of_a_vmcb_that_the_processor_does_not_keep_are_ignored_and_reported() {
    let (mut bench, found) = Bench::hostile(Box::new(Tame));
    bench.assemble(|a| a.cpuid().and_then(|()| a.vmmcall()));
    bench.set(Field::CleanBits, ALL.into());
    bench.intercept(Intercept::CPUID);
    assert_eq!(bench.exit().code, 0x72, "everything was read");
    let found = found.take();
    assert!(
        matches!(found[..], [record] if matches!(
            record.payload,
            Payload::Trusted(TrustedField { field: None, bits: ALL, .. })
        )),
        "{found:x?}"
    );
}

/// An ASID whose guest's tables changed needs TLB_CONTROL, or a fresh ASID.
#[test]
fn a_missing_flush_of_an_asid_is_found_and_its_twins_are_silent() {
    let run = |choices: Box<dyn Choices + Send>, correct: fn(&mut Bench)| {
        let (mut bench, found) = Bench::hostile(choices);
        bench.nested_paging();
        bench.register(Gpr::Rbx, DATA);
        bench.assemble(|a| a.mov(al, byte_ptr(rbx)).and_then(|()| a.vmmcall()));
        assert_eq!(outcome(&mut bench).1, 0);
        // Another page for the guest's data.
        bench.put(ZEROS, 7);
        bench.host_writes(Bench::nested_entry(DATA), ZEROS | 7);
        correct(&mut bench);
        let (_, value) = outcome(&mut bench);
        let stale = found.take().into_iter().filter(|record| matches!(record.payload, Payload::Stale(_)));
        (value, stale.count())
    };
    assert_eq!(run(Box::new(Tame), |_| {}), (0, 1), "the old page, and a report");
    let twins: [fn(&mut Bench); 4] = [
        |b| b.set(Field::TlbControl, TlbControl::FlushAll as u64),
        |b| b.set(Field::TlbControl, TlbControl::FlushGuest as u64),
        |b| b.set(Field::TlbControl, TlbControl::FlushGuestNonGlobal as u64),
        |b| b.set(Field::Asid, 2),
    ];
    for (n, twin) in twins.into_iter().enumerate() {
        for seed in 0..SEEDS {
            assert_eq!(run(Box::new(Seeded::new(seed)), twin), (7, 0), "twin {n}, seed {seed}");
        }
    }
}
