//! What VMRUN refuses, and the C-bit.

use super::super::bench::*;
use super::*;
use iced_x86::code_asm::*;
use rootmode_arch::record::Stop;
use rootmode_arch::{Efer, Gpr, msr};
use rootmode_cpu::Instruction;
use rootmode_svm::vmcb::{EventInfo, EventKind, NestedControl, VirtExt};
use rootmode_svm::{Field, Intercept};

/// Memory is the same with the C-bit as without, for the guest, for its host and in nested tables.
#[test]
fn the_c_bit_is_no_part_of_addresses_while_encryption_is_on() {
    let read = |a: &mut CodeAssembler| {
        a.mov(rax, qword_ptr(rbx))?;
        vmgexit(a)
    };
    let mut bench = bench();
    bench.assemble(read);
    bench.register(Gpr::Rbx, DATA);
    bench.put(DATA, 0x1122_3344_5566_7788);
    for entry in [CR3, 0x2000, 0x3000] {
        bench.put(entry, bench.get(entry) | C_BIT);
    }
    bench.set(Field::Cr3, CR3 | C_BIT);
    seal(&mut bench);
    bench.or(Field::NestedCr3, C_BIT);
    bench.put(Bench::nested_entry(DATA), DATA | 7 | C_BIT);
    for field in [Field::MsrpmBase, Field::IopmBase, Field::VmsaPointer] {
        bench.or(field, C_BIT);
    }
    assert_eq!(bench.exit().code, 0x403);
    assert_eq!(saved(&bench, Field::Rax), 0x1122_3344_5566_7788);
    assert_eq!(saved(&bench, Field::Cr3), CR3 | C_BIT);
    // The host's CR3 and page tables, as the tables are by now.
    bench.execute(Instruction::WriteCr { cr: 3, value: CR3 | C_BIT }).unwrap();
    bench.assemble(|a| {
        a.mov(rax, qword_ptr(DATA))?;
        a.ud2()
    });
    assert_eq!(bench.host(CODE), Stop::Gate(0x106));
    assert_eq!(bench.cpu().gpr[Gpr::Rax as usize], 0x1122_3344_5566_7788);
    // With encryption off the bit is reserved.
    bench.execute(Instruction::Wrmsr { index: msr::SYSCFG, value: 0 }).unwrap();
    assert!(bench.execute(Instruction::WriteCr { cr: 3, value: CR3 | C_BIT }).is_err());
    // A guest without SEV has no C-bit.
    let mut plain = bench_without_sev();
    assert_eq!(plain.exit().code, 0x4e);
}

fn bench_without_sev() -> Bench {
    let mut bench = bench();
    bench.nested_paging();
    bench.intercept(Intercept::EXCP_PF);
    bench.put(0x2000, bench.get(0x2000) | C_BIT);
    bench.assemble(|a| a.vmmcall());
    bench
}

/// The flip test of the enables that the default model does not have.
#[test]
fn the_enables_of_sev_and_sev_es_each_tell_when_they_alone_flip() {
    let run = |flipped: Option<NestedControl>| {
        let mut bench = guest(vmgexit);
        bench.set(Field::Asid, 100);
        if let Some(bit) = flipped {
            bench.clear(Field::NestedControl, bit.0);
        }
        bench.exit()
    };
    assert_eq!(run(None), nothing_but(0x403, 0));
    for bit in [NestedControl::SEV_ENABLE, NestedControl::SEV_ES_ENABLE, NestedControl::NP_ENABLE] {
        assert_eq!(run(Some(bit)), nothing_but(u64::MAX, 0), "{bit:?}");
    }
}

/// "Enabling SEV", "Enabling SEV-ES", "VMRUN": what VMRUN refuses, each with its twin that enters.
#[test]
fn vmrun_refuses_what_sev_es_forbids() {
    type Change = fn(&mut Bench);
    let cases: [(&str, Change); 9] = [
        ("no nested paging", |b| b.clear(Field::NestedControl, NestedControl::NP_ENABLE.0)),
        ("no SEV", |b| b.clear(Field::NestedControl, NestedControl::SEV_ENABLE.0)),
        ("no LBR virtualization", |b| b.clear(Field::VirtExt, VirtExt::LBR_ENABLE.0)),
        ("VMSA beyond the width", |b| b.set(Field::VmsaPointer, 1 << 46)),
        ("an ASID above those of encrypted guests", |b| b.set(Field::Asid, 1007)),
        ("a software interrupt", |b| {
            b.set(Field::EventInj, EventInfo::new(EventKind::SoftwareInterrupt, 0x80, None).0);
        }),
        ("#BP", |b| b.set(Field::EventInj, EventInfo::new(EventKind::Exception, 3, None).0)),
        ("SMM is not locked", |b| {
            b.execute(Instruction::Wrmsr { index: msr::HWCR, value: 0 }).unwrap();
        }),
        ("EFER.SVME clear in the VMSA", |b| {
            let efer = saved(b, Field::Efer) & !Efer::SVME.0;
            change(b, &[(Field::Efer, efer)]);
        }),
    ];
    for (name, refused) in cases {
        let mut bench = guest(vmgexit);
        refused(&mut bench);
        let before = vmsa(&bench);
        assert_eq!(bench.exit().code, u64::MAX, "{name}");
        assert!(before == vmsa(&bench), "{name}: the guest's state is not touched");
    }
    let mut bench = guest(vmgexit);
    bench.set(Field::Asid, 1006);
    assert_eq!(bench.exit().code, 0x403);
    // Without encryption the bits say nothing, and the state is the VMCB's.
    let mut bench = Bench::with_features(encrypting());
    bench.nested_paging();
    bench.or(Field::NestedControl, (NestedControl::SEV_ENABLE | NestedControl::SEV_ES_ENABLE).0);
    bench.assemble(|a| a.vmmcall());
    assert_eq!(bench.exit().code, 0x81);
    // With SEV alone as well, but for the ASIDs that SEV-ES keeps.
    for (asid, code) in [(99, u64::MAX), (100, 0x81)] {
        let mut bench = bench_with_sev();
        bench.set(Field::Asid, asid);
        assert_eq!(bench.exit().code, code, "ASID {asid}");
    }
}

fn bench_with_sev() -> Bench {
    let mut bench = bench();
    bench.nested_paging();
    bench.or(Field::NestedControl, NestedControl::SEV_ENABLE.0);
    bench.assemble(|a| a.vmmcall());
    bench
}
