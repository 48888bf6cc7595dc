//! Intel PT's MSRs: which writes are accepted, which accesses exit, and what entries and exits leave behind.

use std::collections::BTreeMap;

use rootmode_arch::{Choices, Site};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::rtit::{GuestTrace, TraceCpuid, TraceMode, TraceRegisters};

use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[Property {
    name: "trace-msrs",
    about: "KVM takes exactly the trace-MSR values that CPUID, MAXPHYADDR and TraceEn allow, passes the MSRs through exactly while the guest traces, and gives the host its own back.",
    source: "catalogue 2.2; P-2.1 to P-2.5; SDM Vol. 3C \"IA32_RTIT_CTL MSR\"",
    cost: 2,
    check,
}];

const CTL: u32 = 0x570;
const MSRS: [u32; 13] =
    [0x560, 0x561, 0x570, 0x571, 0x572, 0x580, 0x581, 0x582, 0x583, 0x584, 0x585, 0x586, 0x587];

/// What the catalogue says, as sets and formulas over CPUID.
struct Expected {
    host_guest: bool,
    cpuid: TraceCpuid,
    in_vmx: bool,
    values: BTreeMap<u32, u64>,
}

impl Expected {
    fn value(&self, index: u32) -> u64 {
        self.values.get(&index).copied().unwrap_or(0)
    }

    fn tracing(&self) -> bool {
        self.value(CTL) % 2 == 1
    }

    fn has(&self, index: u32) -> bool {
        let [_, ebx, ecx, _] = self.cpuid.leaf0;
        match index {
            0x570 | 0x571 => true,
            0x560 | 0x561 => ecx & 0b101 != 0,
            0x572 => ebx & 1 != 0,
            _ => (index - 0x580) / 2 < self.cpuid.leaf1[0] % 8,
        }
    }

    fn ctl_is_legal(&self, value: u64) -> bool {
        let [_, ebx, ecx, _] = self.cpuid.leaf0;
        // Bits of IA32_RTIT_CTL by the CPUID bit that brings them.
        let mut known: Vec<u32> = vec![0, 2, 3, 10, 11, 13];
        let rows: [(u32, u32, &[u32]); 7] = [
            (ebx, 0, &[7]),
            (ebx, 1, &[1, 19, 20, 21, 22, 24, 25, 26, 27]),
            (ebx, 3, &[9, 14, 15, 16, 17]),
            (ebx, 4, &[5, 12]),
            (ebx, 5, &[4]),
            (ecx, 0, &[8]),
            (ecx, 3, &[6]),
        ];
        for (register, bit, bits) in rows {
            if register & 1 << bit != 0 {
                known.extend(bits);
            }
        }
        let ranges = self.cpuid.leaf1[0] % 8;
        known.extend((0..ranges).flat_map(|range| 32 + 4 * range..36 + 4 * range));
        let only_known = (0..64).filter(|bit| value >> bit & 1 == 1).all(|bit| known.contains(&bit));
        let field = |low: u32| (value >> low) as u32 % 16;
        let frequencies = (ebx & 8 == 0 || self.cpuid.leaf1[0] & 0x1_0000 << field(14) != 0)
            && (ebx & 2 == 0 || self.cpuid.leaf1[1] & 1 << field(19) != 0)
            && (ebx & 2 == 0 || self.cpuid.leaf1[1] & 0x1_0000 << field(24) != 0);
        let old = self.value(CTL);
        let only_stops = !self.tracing() || (value | 1) == old;
        let starts = value % 2 == 1 && !self.tracing();
        let has_output = value & 0x140 != 0 || ecx & 4 != 0;
        let ranges_defined = (0..4).all(|range| field(32 + 4 * range) <= 2);
        !self.in_vmx && only_known && frequencies && only_stops && (!starts || has_output) && ranges_defined
    }

    fn accepts(&self, index: u32, value: u64) -> bool {
        if !self.host_guest || !self.has(index) {
            return false;
        }
        if index == CTL {
            return self.ctl_is_legal(value);
        }
        let width = self.cpuid.physical_width.map_or(36, u32::from);
        let legal = match index {
            0x560 => u128::from(value) < 1 << width && value.is_multiple_of(128),
            0x571 => {
                (0..64).filter(|bit| value >> bit & 1 == 1).all(|bit| matches!(bit, 0..=2 | 4 | 5 | 32..=48))
            }
            0x561 | 0x572 => true,
            _ => (value as i64) << 16 >> 16 == value as i64,
        };
        legal && !self.tracing()
    }
}

fn cpuid(c: &mut dyn Choices) -> TraceCpuid {
    let widths = [None, Some(36), Some(39), Some(46), Some(52), Some(32)];
    TraceCpuid {
        leaf0: [1, c.choose(Site::State, 64) as u32, c.choose(Site::State, 16) as u32, 0],
        leaf1: [
            c.choose(Site::State, 5) as u32 | (c.choose(Site::State, 1 << 16) as u32) << 16,
            // Period 0 of both is what a guest that sets nothing asks for.
            c.choose(Site::State, 1 << 16) as u32 | 0x1_0001,
            0,
            0,
        ],
        physical_width: widths[c.choose(Site::State, 6) as usize],
    }
}

fn value(c: &mut dyn Choices, index: u32, old: u64) -> u64 {
    match index {
        CTL => match c.choose(Site::State, 8) {
            0 => 0,
            1 => old ^ 1,
            2 => 1 | 1 << 8 | 1 << 13 | 1 << 2,
            3 => 1 | 1 << c.choose(Site::State, 64),
            4 => old ^ 1 << c.choose(Site::State, 64),
            5 => {
                1 | 1 << 8 | c.choose(Site::State, 16) << [14, 19, 24, 32][c.choose(Site::State, 4) as usize]
            }
            6 => 1 | 1 << 13,
            _ => 1,
        },
        0x560 => {
            let edge = 1_u64 << [32, 36, 39, 46, 52][c.choose(Site::State, 5) as usize];
            let low = [0, 0x80, 0x40, 1, 0x1000][c.choose(Site::State, 5) as usize];
            [edge - 128, edge, low, edge / 2 + low][c.choose(Site::State, 4) as usize]
        }
        0x571 => 1 << c.choose(Site::State, 64),
        0x561 | 0x572 => c.choose(Site::State, u64::MAX),
        _ => [0, 1 << 46, 1 << 47, u64::MAX << 47, 1 << 63][c.choose(Site::State, 5) as usize],
    }
}

fn check(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let host_guest = c.choose(Site::State, 8) != 7;
    let mode = if host_guest { TraceMode::HostGuest } else { TraceMode::System };
    let mut guest = GuestTrace::new(mode, bugs);
    let mut expected =
        Expected { host_guest, cpuid: TraceCpuid::default(), in_vmx: false, values: BTreeMap::new() };
    let mut processor = TraceRegisters { ctl: 0x2001, output_base: 0x1000, ..TraceRegisters::default() };
    expected.cpuid = cpuid(c);
    guest.set_cpuid(expected.cpuid);
    for _ in 0..4 + c.choose(Site::Sequence, 20) {
        let verdict = match c.choose(Site::Sequence, 12) {
            0 => {
                expected.cpuid = cpuid(c);
                guest.set_cpuid(expected.cpuid);
                None
            }
            1 => {
                expected.in_vmx = !expected.in_vmx;
                if expected.in_vmx {
                    guest.vmxon();
                    expected.values.insert(CTL, 0);
                } else {
                    guest.vmxoff();
                }
                None
            }
            2 => runs(&mut guest, &mut expected, &mut processor, c),
            _ => writes(&mut guest, &mut expected, c),
        };
        if let Some(example) = verdict.or_else(|| passes(&guest, &expected)) {
            return describe(example, &expected).into();
        }
    }
    Verdict::Holds
}

/// One WRMSR, as it is handled after an exit, and RDMSR of the same.
fn writes(guest: &mut GuestTrace, expected: &mut Expected, c: &mut dyn Choices) -> Option<Counterexample> {
    let index = MSRS[c.choose(Site::Sequence, 13) as usize];
    let value = value(c, index, expected.value(CTL));
    let accepted = expected.accepts(index, value);
    if guest.write(index, value).is_some() != accepted {
        let verb = if accepted { "is refused" } else { "is accepted" };
        return Some(Counterexample::new(format!("WRMSR of {value:#x} to {index:#x} {verb}")));
    }
    if accepted {
        expected.values.insert(index, value);
    }
    let read = (expected.host_guest && expected.has(index)).then(|| expected.value(index));
    let found = guest.read(index);
    (found != read)
        .then(|| Counterexample::new(format!("RDMSR of {index:#x} gives {found:x?} instead of {read:x?}")))
}

/// Interception follows TraceEn, for the MSRs that the guest has.
fn passes(guest: &GuestTrace, expected: &Expected) -> Option<Counterexample> {
    let wrong = MSRS.iter().copied().find(|index| {
        let open = expected.tracing() && *index != CTL && expected.has(*index);
        guest.passes(*index) != open
    });
    wrong.map(|index| {
        let (verb, en) = if guest.passes(index) { ("does not exit", 0) } else { ("exits", 1) };
        Counterexample::new(format!("access to {index:#x} {verb} with TraceEn = {en}"))
    })
}

/// An entry, accesses that do not exit, and an exit.
fn runs(
    guest: &mut GuestTrace,
    expected: &mut Expected,
    processor: &mut TraceRegisters,
    c: &mut dyn Choices,
) -> Option<Counterexample> {
    let before = *processor;
    guest.enter(processor);
    if expected.host_guest && processor.ctl != expected.value(CTL) {
        return Some(Counterexample::new("the guest runs under another IA32_RTIT_CTL than its own"));
    }
    for _ in 0..c.choose(Site::Sequence, 3) {
        let index = MSRS[c.choose(Site::Sequence, 13) as usize];
        if !guest.passes(index) {
            continue;
        }
        let read = guest.native(processor, index, None);
        if read != Some(expected.value(index)) {
            return Some(Counterexample::new(format!(
                "the guest reads {read:x?} from {index:#x} while it runs"
            )));
        }
        if guest.native(processor, index, Some(0x80)).is_some() {
            return Some(Counterexample::new(format!("{index:#x} is written while it is in use")));
        }
    }
    guest.exit(processor);
    (*processor != before).then(|| Counterexample::new("the host's trace MSRs are not what they were"))
}

fn describe(example: Counterexample, expected: &Expected) -> Counterexample {
    let example = example
        .with("pt_mode", u8::from(expected.host_guest))
        .with("CPUID.14H.0", format!("{:x?}", expected.cpuid.leaf0))
        .with("CPUID.14H.1", format!("{:x?}", expected.cpuid.leaf1))
        .with("MAXPHYADDR", format!("{:?}", expected.cpuid.physical_width));
    expected
        .values
        .iter()
        .fold(example, |example, (index, value)| example.with(format!("{index:#x}"), format!("{value:#x}")))
}
