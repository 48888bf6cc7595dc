//! What VMRUN loads, #VMEXIT saves, and what VMLOAD loads, VMSAVE saves: drawn states come back as they were, the host's too
//! ("VMRUN Instruction", "#VMEXIT", "VMSAVE and VMLOAD Instructions", "Canonicalization and Consistency Checks").

use super::bench::*;
use rootmode_arch::choices::{Choices, Seeded, Site};
use rootmode_arch::{Cr0, Cr4, DebugCtl, Gpr, HostPhysical};
use rootmode_cpu::{Instruction, Message};
use rootmode_svm::vmcb::{IntCtl, VirtExt, Vmcb};
use rootmode_svm::{Field, Intercept};

const CASES: u64 = 300;
const NMI: u64 = 0x61;

struct Draw(Seeded);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0.choose(Site::State, n)
    }
    fn word(&mut self) -> u64 {
        (0..4).fold(0, |bits, _| bits << 16 | self.below(1 << 16))
    }
    /// Some of `bits`.
    fn some(&mut self, bits: u64) -> u64 {
        self.word() & bits
    }
    fn canonical(&mut self) -> u64 {
        ((self.word() << 16) as i64 >> 16) as u64
    }
}

/// A guest's state that VMRUN takes as it is: each field with its value.
fn state(d: &mut Draw) -> Vec<(Field, u64)> {
    let user = d.below(2) != 0;
    let data: u64 = if user { 0xcf3 } else { 0xc93 };
    let mut all = vec![
        (
            Field::Cr0,
            (Cr0::PE | Cr0::PG | Cr0::ET | Cr0::NE).0 | d.some((Cr0::WP | Cr0::TS | Cr0::MP | Cr0::AM).0),
        ),
        (Field::Cr2, d.word()),
        (Field::Cr3, CR3 | d.some(0x18)),
        (Field::Cr4, Cr4::PAE.0 | d.some((Cr4::PGE | Cr4::DE | Cr4::TSD | Cr4::OSFXSR | Cr4::SMEP).0)),
        (Field::Efer, 0x1d00 | d.some(1)),
        (Field::Dr6, 0xffff_0ff0 | d.some(0xe00f)),
        (Field::Dr7, 0x400 | d.some(0xffff_03ff)),
        (Field::Rflags, 2 | d.some(0x24_0ed5)),
        (Field::Rip, d.canonical()),
        (Field::Rsp, d.word()),
        (Field::Rax, d.word()),
        (Field::Cpl, if user { 3 } else { 0 }),
        (Field::CsSelector, if user { USER_CS } else { KERNEL_CS }.into()),
        (Field::CsAttrib, if user { 0xafb } else { 0xa9b }),
        (Field::GdtrBase, d.canonical()),
        (Field::GdtrLimit, d.some(0xffff)),
        (Field::IdtrBase, d.canonical()),
        (Field::IdtrLimit, d.some(0xffff)),
        (Field::GPat, 0x0007_0406_0007_0406 ^ d.some(0x0101_0101_0101_0101) & 0x0001_0000_0001_0000),
        (Field::SCet, d.some(3)),
        (Field::Ssp, d.canonical() & !7),
        (Field::IsstAddr, d.canonical()),
        (Field::SpecCtrl, d.some(7)),
        (Field::Dbgctl, d.some((DebugCtl::LBR | DebugCtl::BTF).0)),
    ];
    for (selector, attributes, limit, base) in [
        (Field::EsSelector, Field::EsAttrib, Field::EsLimit, Field::EsBase),
        (Field::SsSelector, Field::SsAttrib, Field::SsLimit, Field::SsBase),
        (Field::DsSelector, Field::DsAttrib, Field::DsLimit, Field::DsBase),
    ] {
        let text = if user { USER_SS } else { 0x10 };
        all.extend([(selector, text.into()), (attributes, data), (limit, d.some(u32::MAX.into()))]);
        all.push((base, d.some(u32::MAX.into())));
    }
    for field in [Field::BrFrom, Field::BrTo, Field::LastExcpFrom, Field::LastExcpTo] {
        all.push((field, d.canonical()));
    }
    all
}

#[test]
fn a_guest_that_does_nothing_comes_back_as_it_was() {
    for seed in 0..CASES {
        let mut d = Draw(Seeded::new(seed));
        let mut bench = Bench::new();
        bench.intercept(Intercept::NMI);
        bench.nested_paging();
        bench.or(Field::VirtExt, VirtExt::LBR_ENABLE.0);
        let control =
            d.some((IntCtl::V_INTR_MASKING | IntCtl::V_GIF | IntCtl::V_GIF_ENABLE | IntCtl::V_IRQ).0.into());
        bench.set(Field::IntCtl, control | d.below(16) | d.below(16) << 16);
        let state = state(&mut d);
        for (field, value) in &state {
            bench.set(*field, *value);
        }
        let control = bench.field(Field::IntCtl);
        let others: Vec<u64> = (0..16).map(|n| n * 0x1111).collect();
        for gpr in [Gpr::Rbx, Gpr::Rcx, Gpr::Rbp, Gpr::R8, Gpr::R15] {
            bench.register(gpr, others[gpr as usize]);
        }
        let host = (bench.cpu().cr0, bench.cpu().cr4, bench.cpu().efer, bench.cpu().gpr[Gpr::Rsp as usize]);
        // The exit comes before the first instruction.
        bench.cpu().post(Message::Nmi);
        assert_eq!(bench.exit().code, NMI, "seed {seed}: {state:x?}");
        for (field, value) in &state {
            assert_eq!(bench.field(*field), *value, "seed {seed}: {field:?}");
        }
        assert_eq!(bench.field(Field::IntCtl), control, "seed {seed}");
        for gpr in [Gpr::Rbx, Gpr::Rcx, Gpr::Rbp, Gpr::R8, Gpr::R15] {
            assert_eq!(bench.cpu().gpr[gpr as usize], others[gpr as usize]);
        }
        let cpu = bench.cpu();
        assert_eq!((cpu.cr0, cpu.cr4, cpu.efer, cpu.gpr[Gpr::Rsp as usize]), host, "seed {seed}");
    }
}

#[test]
fn what_vmload_loads_vmsave_saves() {
    const FROM: u64 = 0x1_8000;
    const TO: u64 = 0x1_9000;
    for seed in 0..CASES {
        let mut d = Draw(Seeded::new(seed));
        let mut bench = Bench::new();
        let mut vmcb = Vmcb::zeroed();
        for (selector, attributes, limit, base) in [
            (Field::FsSelector, Field::FsAttrib, Field::FsLimit, Field::FsBase),
            (Field::GsSelector, Field::GsAttrib, Field::GsLimit, Field::GsBase),
            (Field::LdtrSelector, Field::LdtrAttrib, Field::LdtrLimit, Field::LdtrBase),
            (Field::TrSelector, Field::TrAttrib, Field::TrLimit, Field::TrBase),
        ] {
            vmcb.set(selector, d.some(0xffff));
            vmcb.set(attributes, d.some(0xfff));
            vmcb.set(limit, d.some(u32::MAX.into()));
            vmcb.set(base, d.canonical());
        }
        for field in [Field::Star, Field::SysenterCs, Field::Sfmask, Field::Lstar, Field::Cstar] {
            vmcb.set(field, d.canonical());
        }
        for field in [Field::KernelGsBase, Field::SysenterEsp, Field::SysenterEip] {
            vmcb.set(field, d.canonical());
        }
        bench.board.memory.write(HostPhysical(FROM), vmcb.as_bytes());
        bench.execute(Instruction::Vmload { vmcb: FROM }).unwrap();
        bench.execute(Instruction::Vmsave { vmcb: TO }).unwrap();
        let mut page = [0; 4096];
        bench.board.memory.read(HostPhysical(TO), &mut page);
        assert_eq!(&page, vmcb.as_bytes(), "seed {seed}");
    }
}
