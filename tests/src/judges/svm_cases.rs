//! Nearly valid VMCBs: a valid guest in one of eight modes with none, one or two things changed.
//!
//! Everything that can be intercepted is, and a virtual interrupt is pending, so that a guest which enters leaves
//! before its first instruction.

use super::batch::Case;
use super::layout::*;
use super::random::Random;
use super::rom::GDT_ADDRESS;
use super::transcript::Processor;
use super::vmcb::*;
use super::vmx_bases::PAT as VALID_PAT;

const SVME: u64 = 1 << 12;
const LME: u64 = 1 << 8;
const LMA: u64 = 1 << 10;
const PE: u64 = 1;
const PG: u64 = 1 << 31;
const PAE: u64 = 1 << 5;

/// A VMCB, and the PDPTEs in memory of a PAE guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The VMCB.
    pub vmcb: Vmcb,
    /// What the guest's CR3 points to when it uses PAE paging.
    pub pdptes: [u64; 4],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Long,
    Compatibility,
    Pae,
    Paging32,
    Virtual8086,
    Unpaged,
    Real,
    PagedReal,
}

/// Makes case `number` of the run with `seed`.
#[must_use]
pub fn generate(processor: &Processor, seed: u64, number: u64) -> Run {
    let random = Random::of_case(seed, number);
    let mut run = base(processor, &random);
    let changes = random.pick(&[0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]);
    for _ in 0..changes {
        change(&mut run, processor, &random);
    }
    keep_the_tables_known(&mut run, processor, &random);
    run
}

/// PDPTEs outside the arena are nobody's; a reserved CR3 that Bochs follows into nothing takes seconds.
fn keep_the_tables_known(run: &mut Run, processor: &Processor, random: &Random) {
    let v = &mut run.vmcb;
    let cr3 = v.get(CR3);
    if cr3 >> processor.physical_address_bits() == 0 || !random.chance(4) {
        let inside = (ARENA..ARENA + ARENA_SIZE as u64).contains(&cr3);
        v.set(CR3, if inside { cr3 } else { GUEST_PAE_TABLE | cr3 & 0x1f });
    } else {
        v.set(CR3, cr3 & !0xffff_ffff | GUEST_PAE_TABLE);
    }
}

/// Facts that the file of disagreements may name.
#[must_use]
pub fn facts(processor: &Processor, run: &Run) -> Vec<&'static str> {
    let v = &run.vmcb;
    let reserved = u64::MAX << processor.physical_address_bits();
    let mut facts = Vec::new();
    let mut fact = |holds: bool, name| {
        if holds {
            facts.push(name);
        }
    };
    fact(v.get(EFER) & 1 << 13 != 0, "efer-lmsle");
    fact(v.get(EFER) & 1 << 15 != 0, "efer-tce");
    fact(v.get(EFER) & 1 << 14 != 0, "efer-ffxsr");
    fact(v.get(CR3) & reserved != 0, "cr3-beyond-physical");
    fact(v.get(CR4) & 3 != 0, "cr4-vme");
    fact(v.get(CR4) & 1 << 24 != 0, "cr4-pks");
    fact(v.get(CR4) & 1 << 17 != 0, "cr4-pcide");
    fact(v.get(NESTED_CONTROL) & 0xff > 1, "nested-control-low-byte");
    let top = 1u64 << processor.physical_address_bits();
    fact(v.get(IOPM) & !0xfff == top - 0x3000, "permission-map-last");
    fact(v.get(EVENT) & 0x8000_07ff == 0x8000_031f, "event-vector-31");
    facts
}

/// The run as the ROM gets it.
#[must_use]
pub fn case(run: &Run) -> Case {
    let vmcb = run.vmcb.words().into_iter().map(|(offset, value)| (CONTROL_REGION + offset, value));
    let pdptes = (0..4).map(|n| (GUEST_PAE_TABLE + 8 * n, run.pdptes[n as usize]));
    let pokes = vmcb.chain(pdptes).map(|(address, value)| (address as u32, value)).collect();
    Case { pokes, ..Case::default() }
}

/// A VMCB that every rule should accept.
fn base(processor: &Processor, random: &Random) -> Run {
    let mode = random.pick(&[
        Mode::Long,
        Mode::Long,
        Mode::Compatibility,
        Mode::Pae,
        Mode::Paging32,
        Mode::Virtual8086,
        Mode::Unpaged,
        Mode::Real,
        Mode::PagedReal,
    ]);
    let mut vmcb = Vmcb::zeroed();
    let v = &mut vmcb;
    for intercept in [INTERCEPT_CR, INTERCEPT_DR, INTERCEPT_EXCEPTIONS, INTERCEPT_1, INTERCEPT_2, INTERCEPT_3]
    {
        v.set(intercept, 0xffff_ffff);
    }
    // VMCB bits for intercepts that an older processor lacks must be zero nowhere, but keep to the documented ones.
    v.set(INTERCEPT_2, 0x3fff);
    v.set(INTERCEPT_3, 0);
    v.set(IOPM, IO_BITMAPS);
    v.set(MSRPM, MSR_BITMAP);
    v.set(ASID, 1);
    v.set(VIRTUAL_INTERRUPT, 1 << 8 | 1 << 20 | 1 << 24 | 0x30 << 32); // pending, ignores TPR, masking
    if nested_paging(processor) && random.chance(40) {
        v.set(NESTED_CONTROL, 1);
        v.set(NESTED_CR3, SECOND_STAGE);
    }
    if random.chance(30) {
        v.set(
            EVENT,
            1 << 31
                | random.pick(&[
                    0x30,
                    2 << 8 | 2,
                    3 << 8 | 6,
                    3 << 8 | 1 << 11 | 13,
                    3 << 8 | 14 | 1 << 11,
                    4 << 8 | 0x80,
                ]),
        );
    }

    let (cr0, cr3, cr4, efer) = match mode {
        Mode::Long | Mode::Compatibility => (PE | PG, GUEST_PML4, PAE, LME | LMA),
        Mode::Pae => (PE | PG, GUEST_PAE_TABLE, PAE, 0),
        Mode::Paging32 | Mode::Virtual8086 => (PE | PG, GUEST_PD32, 0, 0),
        Mode::Unpaged => (PE, 0, 0, 0),
        Mode::Real => (0, 0, 0, 0),
        Mode::PagedReal => (PG, GUEST_PD32, 0, 0),
    };
    v.set(CR0, cr0 | 0x10);
    v.set(CR3, cr3);
    v.set(CR4, cr4);
    v.set(EFER, efer | SVME);
    v.set(PAT, VALID_PAT);
    v.set(DR6, 0xffff_0ff0);
    v.set(DR7, 0x400);
    let low = matches!(mode, Mode::Real | Mode::PagedReal | Mode::Virtual8086);
    for n in 0..4 {
        let step = 0x10 * n;
        let code = n == 1;
        let attributes = match mode {
            Mode::Virtual8086 => 0x0f3,
            Mode::Real | Mode::PagedReal => 0x093,
            Mode::Long if code => 0xa9b,
            _ if code => 0xc9b,
            _ => 0xc93,
        };
        v.set(
            Field { offset: ES.offset + step, bits: 16 },
            if low {
                0
            } else if code {
                8
            } else {
                0x10
            },
        );
        v.set(Field { offset: ES_ATTRIBUTES.offset + step, bits: 16 }, attributes);
        v.set(Field { offset: ES_LIMIT.offset + step, bits: 32 }, if low { 0xffff } else { 0xffff_ffff });
    }
    if low {
        v.set(CS, GUEST_CODE >> 4);
        v.set(CS_BASE, GUEST_CODE);
    }
    v.set(RIP, if low { 0 } else { GUEST_CODE });
    v.set(RSP, 0x6000);
    v.set(RFLAGS, if mode == Mode::Virtual8086 { 0x2_3202 } else { 0x202 });
    v.set(CPL, if mode == Mode::Virtual8086 { 3 } else { 0 });
    v.set(GDTR_LIMIT, 0x2f);
    v.set(GDTR_BASE, GDT_ADDRESS);
    Run { vmcb, pdptes: [GUEST_PD | 1, 0, 0, 0] }
}

fn nested_paging(processor: &Processor) -> bool {
    processor.cpuid(0x8000_000A, 0)[3] & 1 != 0
}

fn change(run: &mut Run, processor: &Processor, random: &Random) {
    let v = &mut run.vmcb;
    match random.below(20) {
        0..=5 => {
            let (field, _) = random.pick(FIELDS);
            let range = if field.bits == 64 && random.chance(50) { 32 } else { u64::from(field.bits) };
            v.set(field, v.get(field) ^ 1 << random.below(range));
        }
        6..=8 => {
            let (field, _) = random.pick(FIELDS);
            v.set(field, boundary(processor, random));
        }
        9 => {
            let field = random.pick(&[EFER, CR0, CR4, CR3, DR6, DR7]);
            v.set(field, v.get(field) ^ 1 << random.below(64));
        }
        10 => v.set(EFER, random.below(64) << 8 | random.below(2)),
        11 => {
            v.set(
                EFER,
                v.get(EFER) ^ random.pick(&[SVME, LME, LMA, LME | LMA, 1, 1 << 11, 1 << 14, 1 << 15]),
            );
        }
        12 => {
            let flips = random.pick(&[
                PE,
                PG,
                PE | PG,
                1 << 29,
                1 << 30,
                1 << 29 | 1 << 30,
                1 << 16,
                1 << 4,
                1 << 32,
            ]);
            v.set(CR0, v.get(CR0) ^ flips);
        }
        13 => v.set(CR4, v.get(CR4) ^ 1 << random.below(33)),
        14 => v.set(
            CS_ATTRIBUTES,
            v.get(CS_ATTRIBUTES) ^ random.pick(&[1 << 9, 1 << 10, 3 << 9, 1 << 7, 1 << 4]),
        ),
        15 => {
            let event = 1 << 31 | random.below(8) << 8 | random.below(2) << 11 | random.below(36);
            v.set(EVENT, event | random.below(2) << 32 | (random.below(8) / 7) << (12 + random.below(19)));
        }
        16 => v.set(random.pick(&[IOPM, MSRPM, NESTED_CR3, CR3]), boundary(processor, random)),
        17 => match random.below(4) {
            0 => v.set(ASID, random.below(2) << 31),
            1 => v.set(INTERCEPT_2, 0x3ffe),
            2 => v.set(NESTED_CONTROL, random.below(4)),
            _ => v.set(PAT, VALID_PAT ^ 1 << random.below(64)),
        },
        18 => run.pdptes[random.below(4) as usize] = GUEST_PD | 1 | 1 << random.below(64),
        _ => v.set(
            random.pick(&[VIRTUAL_INTERRUPT, NESTED_CONTROL, LBR_CONTROL, TLB_CONTROL]),
            1 << random.below(64),
        ),
    }
}

fn boundary(processor: &Processor, random: &Random) -> u64 {
    let top = 1u64 << processor.physical_address_bits();
    random.pick(&[
        0,
        1,
        0xfff,
        0x1000,
        0xffff,
        0xffff_ffff,
        0x1_0000_0000,
        0x8000_0000_0000,
        0xffff_8000_0000_0000,
        top,
        top - 0x1000,
        top - 0x2000,
        top - 0x3000,
        top - 0x4000,
        top - 1,
        top | 0x1000,
        u64::MAX,
        u64::MAX - 0xfff,
    ])
}
