//! Which stale fields are reported: those on which something depends, one field at a time; and what is in the host save area
//! while a guest runs ("VMCB Clean Field", "VM_HSAVE_PA MSR").

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::choices::{Choices, Site, Tame};
use rootmode_arch::record::{Payload, TrustedField};
use rootmode_arch::{Gpr, HostPhysical};
use rootmode_svm::vmcb::{CLEAN_ROWS, Clean, IntCtl, VirtExt};
use rootmode_svm::{Field, Intercept};
use std::collections::BTreeSet;

const ALL: u32 = Clean::NAMED.0 & !Clean::SOFTWARE.0;

fn trusted(found: &Records) -> Vec<TrustedField> {
    let records = found.take().into_iter();
    let trusted = records.filter_map(|record| match record.payload {
        Payload::Trusted(trusted) => Some(trusted),
        _ => None,
    });
    trusted.collect()
}

/// Runs a guest twice; in between `field` gets other values in `bits`, and every clean bit is set. The fields reported.
fn reported(prepare: fn(&mut Bench), field: Field, bits: u64) -> Vec<Option<u16>> {
    let (mut bench, found) = Bench::hostile(Box::new(Tame));
    bench.assemble(|a| a.vmmcall());
    prepare(&mut bench);
    bench.run();
    trusted(&found);
    bench.set(Field::Rip, CODE);
    bench.set(field, bench.field(field) ^ bits);
    bench.set(Field::CleanBits, ALL.into());
    bench.run();
    trusted(&found).into_iter().map(|trusted| trusted.field).collect()
}

type Prepare = fn(&mut Bench);

/// Fields, bits of them, and a guest that nothing depends on them; then one that something does.
fn cases() -> Vec<(Field, u64, Prepare, Prepare)> {
    let plain: Prepare = |_| {};
    let irq: Prepare = |b| b.int_ctl(IntCtl::V_IRQ);
    let lbr: Prepare = |b| b.or(Field::VirtExt, VirtExt::LBR_ENABLE.0);
    let x2: Prepare = |b| {
        b.avic();
        b.int_ctl(IntCtl::X2AVIC_ENABLE);
    };
    let pause: Prepare = |b| b.intercept(Intercept::PAUSE);
    let control = |bits: IntCtl| u64::from(bits.0);
    vec![
        (Field::PauseFilterCount, 3, plain, pause),
        (Field::PauseFilterThreshold, 3, pause, |b| {
            b.intercept(Intercept::PAUSE);
            b.set(Field::PauseFilterCount, 8);
        }),
        (Field::IopmBase, 0x1000, plain, |b| b.intercept(Intercept::IOIO_PROT)),
        (Field::MsrpmBase, 0x1000, plain, |b| b.intercept(Intercept::MSR_PROT)),
        (Field::IntVector, 0x66, plain, irq),
        (Field::IntCtl, control(IntCtl::V_IGN_TPR), plain, irq),
        (Field::IntCtl, 0xf << 16, plain, irq),
        (Field::IntCtl, 0xf, plain, |b| b.int_ctl(IntCtl::V_INTR_MASKING)),
        (Field::IntCtl, control(IntCtl::V_GIF), plain, |b| b.int_ctl(IntCtl::V_GIF_ENABLE)),
        (Field::IntCtl, control(IntCtl::V_NMI_MASK), plain, |b| {
            b.intercept(Intercept::NMI);
            b.int_ctl(IntCtl::V_NMI_ENABLE);
        }),
        (Field::IntCtl, control(IntCtl::V_IRQ), Bench::avic, plain),
        (Field::NestedCr3, 0x1000, plain, Bench::nested_paging),
        (Field::GPat, 7, plain, Bench::nested_paging),
        (Field::Dbgctl, 1, plain, lbr),
        (Field::BrFrom, 1, plain, lbr),
        (Field::LastExcpTo, 1, plain, lbr),
        (Field::AvicApicBar, 0x1000, x2, Bench::avic),
        (Field::AvicLogicalTable, 0x1000, x2, Bench::avic),
        (Field::AvicPhysicalTable, 1, plain, x2),
        (Field::AvicBackingPage, 0x1000, plain, Bench::avic),
    ]
}

#[test]
fn a_stale_field_is_reported_exactly_if_something_depends_on_it() {
    for (field, bits, idle, needed) in cases() {
        let name = format!("{field:?} {bits:#x}");
        assert_eq!(reported(idle, field, bits), [], "{name}: nothing depends on it");
        assert_eq!(reported(needed, field, bits), [Some(field.row().offset)], "{name}");
    }
    // Bits that are never looked at.
    for (field, bits) in [
        (Field::InterceptCr, 1 << 5),
        (Field::InterceptDr, 1 << 8),
        (Field::GdtrLimit, 1 << 16),
        (Field::SsAttrib, 1 << 13),
        (Field::Cr0, 1 << 4),
    ] {
        assert_eq!(reported(|_| {}, field, bits), [], "{field:?} {bits:#x}");
    }
}

/// Whatever is not among the cases matters always.
#[test]
fn every_other_cached_field_is_reported_whenever_it_changes() {
    let conditional: BTreeSet<Field> = cases().iter().map(|case| case.0).collect();
    let fields = CLEAN_ROWS.iter().flat_map(|row| row.fields);
    for field in fields.filter(|field| !conditional.contains(field)) {
        let lbr = [Field::BrTo, Field::LastExcpFrom];
        let prepare: Prepare = |b| b.or(Field::VirtExt, VirtExt::LBR_ENABLE.0);
        let answer = reported(if lbr.contains(field) { prepare } else { |_| {} }, *field, 1);
        assert_eq!(answer, [Some(field.row().offset)], "{field:?}");
    }
}

/// Host areas stay on the chip, and clean bits are trusted.
struct Holds;
impl Choices for Holds {
    fn choose(&mut self, site: Site, _: u64) -> u64 {
        u64::from(site == Site::HostSave)
    }
}

/// A guest that writes the host save area, or reads it.
fn guest(choices: Box<dyn Choices + Send>, write: bool) -> (u64, u64, Vec<TrustedField>) {
    let (mut bench, found) = Bench::hostile(choices);
    let at = HSAVE + u64::from(Field::Rsp.row().offset);
    bench.register(Gpr::Rbx, at);
    bench.assemble(|a| {
        a.mov(rax, qword_ptr(rbx))?;
        if write {
            a.mov(dword_ptr(rbx), 0x4_4444)?;
        }
        a.vmmcall()
    });
    assert_eq!(bench.exit().code, 0x81);
    let host = bench.cpu().gpr[Gpr::Rsp as usize];
    assert_eq!(bench.get(at), host, "it is in memory at last");
    (bench.field(Field::Rax), host, trusted(&found))
}

#[test]
fn the_host_save_area_is_written_at_vmrun_or_at_the_exit_and_who_writes_it_in_between_is_reported() {
    const RSP: u64 = STACK - 0x1000;
    assert_eq!(guest(Box::new(Tame), false), (RSP, RSP, vec![]));
    assert_eq!(guest(Box::new(Holds), false), (0, RSP, vec![]));
    let report = |kept| TrustedField {
        vmcb: HostPhysical(HSAVE),
        bits: 0,
        field: Some(Field::Rsp.row().offset),
        kept,
        written: 0x4_4444,
    };
    assert_eq!(guest(Box::new(Tame), true), (RSP, 0x4_4444, vec![report(RSP)]));
    assert_eq!(guest(Box::new(Holds), true), (0, RSP, vec![report(0)]));
}
