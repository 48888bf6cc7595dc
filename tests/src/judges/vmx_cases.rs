//! Nearly valid VMCSs: a valid launch with none, one or two things changed.
//!
//! The generator knows the fields but not the rules: it flips bits, writes boundary values, copies one field to
//! another. Values that would end the *judging machine* after a successful entry (a host CR3 that maps nothing) are
//! put back, because nobody would see the verdict.

use super::batch::{Case, Way};
use super::layout::*;
use super::random::Random;
use super::vmcs::*;
use super::vmx_bases::{Bases, Launch, PAT};

/// Makes case `number` of the run with `seed`.
#[must_use]
pub fn generate(bases: &Bases<'_>, seed: u64, number: u64) -> Launch {
    let random = Random::of_case(seed, number);
    let mut launch = bases.launch(&random);
    let changes = random.pick(&[0, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2]);
    for _ in 0..changes {
        change(&mut launch, bases, &random);
    }
    keep_the_machine_alive(&mut launch, bases, &random);
    launch
}

/// Facts that the file of disagreements may name.
#[must_use]
pub fn facts(launch: &Launch) -> Vec<&'static str> {
    let v = &launch.vmcs;
    let mut facts = Vec::new();
    let mut fact = |holds: bool, name| {
        if holds {
            facts.push(name);
        }
    };
    fact(v.get(PENDING_DEBUG) >> 32 != 0, "pending-debug-high");
    fact(v.get(GUEST_CR0) >> 32 != 0, "guest-cr0-high");
    fact(v.get(GUEST_S_CET) >> 32 != 0, "guest-s-cet-high");
    fact(v.get(GUEST_SSP) >> 32 != 0, "guest-ssp-high");
    facts
}

/// The launch as the ROM gets it.
#[must_use]
pub fn case(launch: &Launch, bases: &Bases<'_>) -> Case {
    let mut pokes = vec![(LINK_VMCS, launch.link_revision), (VIRTUAL_APIC + 0x80, launch.virtual_tpr)];
    for (n, &pdpte) in launch.pdptes.iter().enumerate() {
        pokes.push((GUEST_PAE_TABLE + 8 * n as u64, pdpte));
    }
    for (n, &(index, value)) in launch.entry_msrs.iter().enumerate() {
        pokes.push((ENTRY_MSR_LOAD + 16 * n as u64, index));
        pokes.push((ENTRY_MSR_LOAD + 16 * n as u64 + 8, value));
    }
    for (n, (index, value)) in [(0x174u64, 0u64), (0x175, 0)].into_iter().enumerate() {
        for list in [EXIT_MSR_STORE, EXIT_MSR_LOAD] {
            pokes.push((list + 16 * n as u64, index));
            pokes.push((list + 16 * n as u64 + 8, value));
        }
    }
    let missing = &bases.processor().missing_fields;
    let written = |&(encoding, value): &(u32, u64)| value != 0 && !missing.contains(&encoding);
    Case {
        pokes: pokes.into_iter().map(|(address, value)| (address as u32, value)).collect(),
        fields: launch.vmcs.fields().into_iter().filter(written).collect(),
        way: launch.way,
    }
}

const CONTROLS: &[u32] = &[PIN, PROCESSOR, SECONDARY, EXIT, ENTRY];

fn change(launch: &mut Launch, bases: &Bases<'_>, random: &Random) {
    match random.below(100) {
        0..=19 => {
            let control = random.pick(CONTROLS);
            let bit = 1 << random.below(32);
            launch.vmcs.set(control, launch.vmcs.get(control) ^ bit);
        }
        20..=26 => change_event(&mut launch.vmcs, random),
        27..=33 => change_memory(launch, bases, random),
        34..=55 => change_field(&mut launch.vmcs, bases, random, |encoding| encoding >> 10 & 3 == 2),
        56..=65 => change_field(&mut launch.vmcs, bases, random, |encoding| encoding >> 10 & 3 == 3),
        66..=75 => change_field(&mut launch.vmcs, bases, random, |encoding| {
            encoding >> 10 & 3 == 0 && !CONTROLS.contains(&encoding)
        }),
        76..=89 => change_specially(&mut launch.vmcs, bases, random),
        _ => change_field(&mut launch.vmcs, bases, random, |_| true),
    }
}

fn change_field(v: &mut Vmcs, bases: &Bases<'_>, random: &Random, wanted: impl Fn(u32) -> bool) {
    let fields: Vec<u32> = FIELDS.iter().map(|&(encoding, _)| encoding).filter(|&e| wanted(e)).collect();
    let field = random.pick(&fields);
    let old = v.get(field);
    let bits = u64::from(width(field));
    let value = match random.below(10) {
        0..=4 => {
            let range = if bits == 64 && random.chance(50) { 32 } else { bits };
            old ^ 1 << random.below(range)
        }
        5..=7 => boundary(bases, random),
        8 => old.wrapping_add(random.pick(&[1, u64::MAX, 0x10, 0x1000, u64::MAX - 0xfff])),
        _ => v.get(random.pick(&fields)),
    };
    v.set(field, value);
}

/// Values at which rules tend to change their mind.
fn boundary(bases: &Bases<'_>, random: &Random) -> u64 {
    let top = 1u64 << bases.processor().physical_address_bits();
    random.pick(&[
        0,
        1,
        2,
        3,
        4,
        0xf,
        0x10,
        0xff,
        0x100,
        0xfff,
        0x1000,
        0xffff,
        0x1_0000,
        0xf_ffff,
        0x10_0000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        0x1_0000_0000,
        0x7fff_ffff_ffff,
        0x8000_0000_0000,
        0xffff_7fff_ffff_ffff,
        0xffff_8000_0000_0000,
        0x00ff_ffff_ffff_ffff,
        top,
        top - 0x1000,
        top - 0x10,
        top - 1,
        top | 0x1000,
        u64::MAX,
        u64::MAX - 0xfff,
    ])
}

/// Changes that bit flips find too seldom.
fn change_specially(v: &mut Vmcs, bases: &Bases<'_>, random: &Random) {
    let segment = 2 * random.below(6) as u32;
    match random.below(19) {
        16 => change_shadow_stack(v, bases, random),
        17 => {
            // An address that some control asks for: misaligned, or too wide.
            let address = random.pick(ADDRESSES);
            let wide = 1 << random.pick(&[bases.processor().physical_address_bits(), 51, 52, 62, 63]);
            v.set(address, v.get(address) ^ random.pick(&[wide, 1 << random.below(13)]));
        }
        18 => match random.below(3) {
            0 => v.set(TSC_MULTIPLIER, random.below(2)),
            1 => {
                let top = 1u64 << bases.processor().physical_address_bits();
                v.set(ENTRY_MSR_LOAD_COUNT, 2);
                v.set(ENTRY_MSR_LOAD_ADDRESS, top - 0x10);
            }
            _ => v.set(random.pick(&[GUEST_PERF_GLOBAL, HOST_PERF_GLOBAL]), 1 << random.below(64)),
        },
        0..=2 => {
            // Any type, DPL and flags for one segment register.
            let rights = random.below(0x100) | random.below(16) << 12;
            v.set(ES_RIGHTS + segment, rights | u64::from(random.chance(15)) << 16);
        }
        3 => v.set(GUEST_ES + segment, random.below(0x40)),
        4 => {
            v.set(ES_LIMIT + segment, boundary(bases, random));
            v.set(ES_RIGHTS + segment, v.get(ES_RIGHTS + segment) ^ random.pick(&[0, 1 << 15]));
        }
        5 => {
            // All segments at another privilege level, or only SS.
            let level = random.below(4);
            let of_all = random.chance(60);
            for selector in SEGMENTS {
                let n = selector - GUEST_ES;
                if of_all || selector == GUEST_SS {
                    v.set(selector, v.get(selector) & !3 | level);
                    v.set(ES_RIGHTS + n, v.get(ES_RIGHTS + n) & !0x60 | level << 5);
                }
            }
        }
        6 => v.set(random.pick(&[LDTR_RIGHTS, TR_RIGHTS]), random.below(0x100) | random.below(2) << 15),
        7 => {
            v.set(LDTR_RIGHTS, 0x82);
            v.set(GUEST_LDTR, random.below(0x40));
            v.set(LDTR_BASE, boundary(bases, random));
        }
        8 => {
            v.set(ACTIVITY, random.pick(&[0, 1, 2, 2, 2, 4]));
            v.set(INTERRUPTIBILITY, random.below(32));
        }
        9 => {
            v.set(
                PENDING_DEBUG,
                random.pick(&[1 << 12, 1 << 14, 0xf, 1 << 16, 1 << 12 | 1, 1 << 14 | 1 << 12]),
            );
            v.set(GUEST_RFLAGS, v.get(GUEST_RFLAGS) ^ random.pick(&[0, 0x100, 0x200, 0x300]));
            v.set(GUEST_DEBUGCTL, random.pick(&[0, 0, 1, 2, 3]));
            v.set(INTERRUPTIBILITY, random.pick(&[0, 1, 2]));
        }
        10 => {
            v.set(
                random.pick(&[GUEST_EFER, HOST_EFER]),
                random.below(16) << 8 | u64::from(random.chance(50)),
            );
        }
        11 => {
            let byte = 8 * random.below(8);
            let value = PAT & !(0xff << byte) | random.below(10) << byte;
            v.set(random.pick(&[GUEST_PAT, HOST_PAT]), value);
        }
        12 => {
            let register = random.pick(&[GUEST_CR0, HOST_CR0]);
            let flips = 1 << random.pick(&[0u64, 1, 2, 3, 5, 16, 18, 29, 30, 31])
                | u64::from(random.chance(30)) << 31;
            v.set(register, v.get(register) ^ flips);
        }
        13 => {
            let register = random.pick(&[GUEST_CR4, HOST_CR4]);
            v.set(register, v.get(register) ^ 1 << random.below(25));
        }
        14 => {
            v.set(EPTP, v.get(EPTP) & !0xfff | random.below(0x100));
            v.or(SECONDARY, u64::from(random.chance(50)) << 1);
        }
        _ => {
            let counts = [ENTRY_MSR_LOAD_COUNT, EXIT_MSR_LOAD_COUNT, EXIT_MSR_STORE_COUNT];
            let addresses = [ENTRY_MSR_LOAD_ADDRESS, EXIT_MSR_LOAD_ADDRESS, EXIT_MSR_STORE_ADDRESS];
            let which = random.below(3) as usize;
            v.set(counts[which], random.pick(&[1, 2, 2, 0x100, 0x200]));
            v.set(addresses[which], random.pick(&[v.get(addresses[which]) + 8, boundary(bases, random)]));
        }
    }
}

/// Fields that hold the address of a structure which some control makes the processor use.
const ADDRESSES: &[u32] = &[
    IO_BITMAP_A,
    IO_BITMAP_B,
    MSR_BITMAPS,
    PML_ADDRESS,
    VIRTUAL_APIC_ADDRESS,
    APIC_ACCESS_ADDRESS,
    EPTP,
    EPTP_LIST,
    VMREAD_BITMAP,
    VMWRITE_BITMAP,
    VE_ADDRESS,
    SPPTP,
    LINK_POINTER,
];

/// The shadow-stack and branch-tracking state, and the bits that go with it.
fn change_shadow_stack(v: &mut Vmcs, bases: &Bases<'_>, random: &Random) {
    let (s_cet, ssp, table, cr0, cr4) = random.pick(&[
        (GUEST_S_CET, GUEST_SSP, GUEST_SSP_TABLE, GUEST_CR0, GUEST_CR4),
        (HOST_S_CET, HOST_SSP, HOST_SSP_TABLE, HOST_CR0, HOST_CR4),
    ]);
    match random.below(5) {
        0 => v.set(
            s_cet,
            random.pick(&[1 << random.below(16), 3 << 10, 1 << 32, boundary(bases, random) & !0xfff]),
        ),
        1 => v.set(ssp, random.pick(&[random.below(16), 1 << 32, 1 << 40, boundary(bases, random)])),
        2 => v.set(table, boundary(bases, random)),
        _ => {
            v.set(cr4, v.get(cr4) | 1 << 23);
            v.set(cr0, v.get(cr0) ^ random.pick(&[0, 1 << 16]));
        }
    }
}

fn change_event(v: &mut Vmcs, random: &Random) {
    let old = v.get(INTERRUPTION);
    match random.below(6) {
        0 => v.set(INTERRUPTION, 1 << 31 | random.below(8) << 8 | random.below(2) << 11 | random.below(34)),
        1 => v.set(INTERRUPTION, old ^ 1 << random.below(32)),
        2 => v.set(INSTRUCTION_LENGTH, random.below(18)),
        3 => {
            v.set(INTERRUPTION, 1 << 31 | 1 << 11 | 3 << 8 | random.pick(&[8, 10, 11, 12, 13, 14, 17, 21]));
            v.set(INTERRUPTION_ERROR, 1 << random.below(32));
        }
        4 => {
            v.set(INTERRUPTION, 1 << 31 | random.pick(&[2 << 8 | 2, 0x30, 7 << 8]));
            v.set(INTERRUPTIBILITY, random.pick(&[0, 1, 2, 8, 8]));
            v.set(GUEST_RFLAGS, v.get(GUEST_RFLAGS) ^ random.pick(&[0, 0x200]));
        }
        _ => {
            v.set(INTERRUPTION, 1 << 31 | random.pick(&[2 << 8 | 2, 3 << 8 | 18, 3 << 8 | 1, 0x30, 7 << 8]));
            v.set(ACTIVITY, random.below(4));
        }
    }
}

fn change_memory(launch: &mut Launch, bases: &Bases<'_>, random: &Random) {
    match random.below(5) {
        0 => {
            let revision = launch.link_revision;
            launch.link_revision = random.pick(&[revision ^ 1 << random.below(32), revision ^ 1 << 31, 0]);
            launch.vmcs.set(LINK_POINTER, LINK_VMCS);
        }
        1 => {
            let pointers =
                [CONTROL_REGION, VMXON_REGION, LINK_VMCS + 8, LINK_VMCS | 1 << random.below(64), 0];
            launch.vmcs.set(LINK_POINTER, random.pick(&pointers));
        }
        2 => {
            launch.virtual_tpr = random.below(256);
            launch.vmcs.set(TPR_THRESHOLD, random.below(18));
        }
        3 => {
            let n = random.below(4) as usize;
            let value = GUEST_PD | 1 | 1 << random.below(64);
            launch.pdptes[n] = value;
            launch.vmcs.set(GUEST_PDPTE0 + 2 * n as u32, value ^ random.pick(&[0, 0, 1]));
        }
        _ => {
            let n = random.below(2) as usize;
            launch.vmcs.set(ENTRY_MSR_LOAD_COUNT, 2);
            launch.entry_msrs[n] = random.pick(&[
                (0xC000_0100, 0),
                (0xC000_0101, 0),
                (0x800 + random.below(0x140), 0),
                (0x1_0000_0174, 8),
                (0x8000_0000_0000_0175, 8),
                (0x175, boundary(bases, random)),
                (0x176, boundary(bases, random)),
                (0xC000_0082, boundary(bases, random)),
                (0xC000_0102, boundary(bases, random)),
                (0x277, PAT ^ 1 << random.below(64)),
                (0x9B, random.below(8)),
            ]);
        }
    }
}

/// Puts back what passes the checks but would leave the judging machine without its page tables, its exit handler or
/// its MSR areas.
fn keep_the_machine_alive(launch: &mut Launch, bases: &Bases<'_>, random: &Random) {
    let v = &mut launch.vmcs;
    let bits = bases.processor().physical_address_bits();
    let reserved = u64::MAX << bits;

    // The low bits of CR3 are free; an address is either the page tables or not an address at all.
    let legacy = launch.way == Way::Legacy;
    let (table, free) = if legacy { (HOST_PAE_TABLE, 0x1f) } else { (HOST_PML4, 0xfff) };
    let cr3 = v.get(HOST_CR3);
    if cr3 & reserved == 0 {
        v.set(HOST_CR3, table | cr3 & free);
    }
    if legacy {
        v.or(HOST_CR4, 1 << 5);
    }
    let rip = v.get(HOST_RIP);
    if rip >> 47 == 0 && !(legacy && rip >> 32 != 0) || rip >> 47 == 0x1_ffff && !legacy {
        v.set(HOST_RIP, bases.exit_handler(launch.way));
    }
    for (count, address, area) in [
        (ENTRY_MSR_LOAD_COUNT, ENTRY_MSR_LOAD_ADDRESS, ENTRY_MSR_LOAD),
        (EXIT_MSR_LOAD_COUNT, EXIT_MSR_LOAD_ADDRESS, EXIT_MSR_LOAD),
        (EXIT_MSR_STORE_COUNT, EXIT_MSR_STORE_ADDRESS, EXIT_MSR_STORE),
    ] {
        // More entries than IA32_VMX_MISC recommends is undefined behaviour, not a rule.
        if v.get(count) > 512 {
            v.set(count, 1 + v.get(count) % 512);
        }
        let (first, length) = (v.get(address), 16 * v.get(count));
        let valid = first & 0xf == 0 && first & reserved == 0 && (first + length.max(1) - 1) & reserved == 0;
        if length != 0 && valid {
            v.set(address, area);
            v.set(count, v.get(count).min(2));
        }
    }
    // Nothing but a SIPI ends wait-for-SIPI, and there is no second processor: the machine would wait for ever.
    // With an event to inject it is refused, which is a rule like any other.
    if v.get(ACTIVITY) == 3 && v.get(INTERRUPTION) >> 31 == 0 && !random.chance(1) {
        v.set(ACTIVITY, 4);
    }
}
