//! Nested VM entries of a hypervisor that changes its VMCS between them, and the ends of nested operation.

use rootmode_arch::choices::Tame;
use rootmode_arch::record::{Payload, Stop};
use rootmode_arch::{Choices, GuestPhysical, HostPhysical, SegmentName, Site, Vendor};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::host::{HostBug, Request, State};
use rootmode_vmx::Field;

use crate::campaign::{Counterexample, Property, Verdict};
use crate::guests::layout::L1_MSRS;
use crate::guests::{GuestImage, Workload, assemble_edited};
use crate::transparency::{Hosting, Run, compare, host_of, run_bare, run_bare_with, run_of, schedule};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "nested-entries",
        about: "An L1 that changes its VMCS between entries, legally or not, sees the same hosted by L0, under any schedule, as on the bare machine.",
        source: "catalogue 7.2; P-7.3 to P-7.5; SDM Vol. 3C \"VM Entries\"",
        cost: 500,
        check: entries,
    },
    Property {
        name: "missing-page",
        about: "An entry that names an APIC-access page which L1 does not have stops KVM_RUN with everything of L1 as it was, and succeeds when the page is there.",
        source: "catalogue 7.2 step 5; P-7.1, P-7.7",
        cost: 500,
        check: missing_page,
    },
    Property {
        name: "nested-ends",
        about: "INIT and the destruction of a vCPU, at any moment of nested operation, leave vmcs01 loaded, the registers of reset, and nothing freed twice or in use.",
        source: "catalogue 7.2, teardown; P-7.1, P-7.6, P-7.8; SDM Vol. 3A \"Processor State After Reset\"",
        cost: 250,
        check: ends,
    },
];

/// Ticks of a run, far more than one that ends needs.
const TICKS: u64 = 60_000;
/// Ticks that a hosted run which went astray may have beyond the bare one.
const ASTRAY: u64 = 2000;

type Edits = Vec<Vec<(Field, u64)>>;

/// Code and stack of the given privilege level; every exception exits.
fn level(cpl: u64) -> Vec<(Field, u64)> {
    vec![
        (Field::GuestCsSelector, 0x08 | cpl),
        (Field::GuestCsRights, 0xa09b | cpl << 5),
        (Field::GuestSsSelector, 0x10 | cpl),
        (Field::GuestSsRights, 0xc093 | cpl << 5),
        (Field::ExceptionBitmap, 0xffff_ffff),
        (Field::EntryInterruptionInfo, 0),
    ]
}

/// One field, at or beyond the border of what is legal.
const SINGLE: [(Field, u64); 24] = [
    (Field::GuestSsRights, 0xc0f3),
    (Field::GuestSsRights, 0xc091),
    (Field::GuestSsSelector, 0x13),
    (Field::GuestCsRights, 0xa0fb),
    (Field::GuestCsRights, 0xa09a),
    (Field::GuestCsSelector, 0x0b),
    (Field::GuestDsRights, 0x1_0000),
    (Field::GuestDsRights, 0xc013),
    (Field::GuestEsSelector, 0x13),
    (Field::GuestFsRights, 0xc092),
    (Field::GuestTrRights, 0x89),
    (Field::GuestTrSelector, 0x1c),
    (Field::GuestLdtrRights, 0x1_0082),
    (Field::GuestLdtrRights, 0x83),
    (Field::GuestRflags, 0),
    (Field::GuestCr4, 0x2020 | 1 << 30),
    (Field::GuestActivity, 7),
    (Field::LinkPointer, 0x123),
    (Field::Cr3TargetCount, 5),
    (Field::Vpid, 0),
    (Field::Eptp, 0x2a01f),
    (Field::HostCr3, 1 << 60),
    (Field::HostTrSelector, 0),
    (Field::TscOffset, 0x1_0000),
];

fn edits(c: &mut dyn Choices) -> Edits {
    let list = |c: &mut dyn Choices| match c.choose(Site::Program, 8) {
        0 => Vec::new(),
        1 | 2 => level(0),
        3 => level(3),
        4 => vec![
            (Field::EntryMsrLoadAddress, L1_MSRS),
            (Field::EntryMsrLoadCount, c.choose(Site::Program, 4)),
        ],
        _ => vec![SINGLE[c.choose(Site::Program, SINGLE.len() as u64) as usize]],
    };
    let mut edits: Edits = (0..c.choose(Site::Program, 4)).map(|_| list(c)).collect();
    if c.flip(Site::Program) {
        edits.insert(0, level(3));
        edits.insert(1, level(0));
    }
    edits
}

/// An MSR-load area: IA32_KERNEL_GS_BASE, an IA32_LSTAR that WRMSR refuses, FS base, which may not be there at all.
fn with_msrs(mut image: GuestImage) -> GuestImage {
    let entries = [(0xc000_0102_u64, 0x1234_u64), (0xc000_0082, 1 << 62), (0xc000_0100, 0)];
    let bytes = entries.iter().flat_map(|(index, value)| [index.to_le_bytes(), value.to_le_bytes()].concat());
    image.segments.push((L1_MSRS, bytes.collect()));
    image
}

struct Case {
    workload: Workload,
    edits: Edits,
    seed: u64,
    reclaim: bool,
    emulate_invalid: bool,
}

impl Case {
    fn draw(c: &mut dyn Choices, operations: u64, edits: Edits) -> Self {
        let operations = c.choose(Site::Program, operations);
        Self {
            workload: Workload::draw(Vendor::Intel, operations, c),
            edits,
            seed: c.choose(Site::Task, 1 << 32),
            reclaim: c.choose(Site::Swarm, 4) != 3,
            emulate_invalid: c.flip(Site::Swarm),
        }
    }

    fn hosting(&self, regressions: Regressions) -> Hosting {
        Hosting {
            choices: schedule(self.seed),
            reclaim: self.reclaim,
            regressions,
            emulate_invalid: self.emulate_invalid,
        }
    }

    fn describe(&self, example: Counterexample) -> Verdict {
        let edits = self.edits.iter().enumerate();
        edits
            .fold(example, |example, (n, list)| {
                example.with(format!("before entry {}", n + 1), format!("{list:x?}"))
            })
            .with("L2's steps", self.workload.operations.len())
            .with("L0's schedule", format!("seed {}", self.seed))
            .with("L0 reclaims pages", self.reclaim)
            .with("emulate_invalid_guest_state", self.emulate_invalid)
            .into()
    }

    /// Holds if the hosted run is like the bare one; `claim` says what is wrong where it is not.
    fn judge(&self, bare: Run, hosted: Result<Run, impl core::fmt::Display>, claim: &str) -> Verdict {
        match hosted.map(|hosted| compare(bare, hosted, Vendor::Intel)) {
            Err(error) => self.describe(Counterexample::new(format!("the hosted run ended early: {error}"))),
            Ok(comparison) => match comparison.differences.first() {
                None => Verdict::Holds,
                Some(difference) => {
                    self.describe(Counterexample::new(claim).with("first", format!("{difference:x?}")))
                }
            },
        }
    }
}

fn entries(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let edits = edits(c);
    let case = Case::draw(c, 12, edits);
    let Ok(image) = assemble_edited(&case.workload, &case.edits).map(with_msrs) else {
        return Verdict::Skipped;
    };
    let bare = run_bare(&image, Box::new(Tame), TICKS);
    if bare.stop == Stop::Limit {
        return Verdict::Skipped;
    }
    let limit = bare.ticks + ASTRAY;
    let hosted = host_of(&image, case.hosting(bugs)).and_then(|(mut host, recorder)| {
        let stop = host.run(limit)?;
        Ok(run_of(&host, &recorder, stop))
    });
    case.judge(bare, hosted, "L1 can tell that L0 is there")
}

/// Where the page is that L1 does not have at first.
const FAR: u64 = 0xf000_0000;

fn missing_page(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let at = c.choose(Site::Program, 3) as usize;
    let mut edits = vec![Vec::new(); at];
    // EPT, VPID and "virtualize APIC accesses".
    edits.push(vec![(Field::SecondaryControls, 0x23), (Field::ApicAccessAddress, FAR)]);
    let case = Case::draw(c, 12, edits);
    let Ok(image) = assemble_edited(&case.workload, &case.edits) else { return Verdict::Skipped };
    let more = [(HostPhysical(FAR), 0x1000)];
    let bare = run_bare_with(&image, &more, Box::new(Tame), TICKS);
    if bare.stop == Stop::Limit {
        return Verdict::Skipped;
    }
    let hosted = (|| -> Result<_, HostBug> {
        let (mut host, recorder) = host_of(&image, case.hosting(bugs))?;
        let mut stop = host.run(bare.ticks + ASTRAY)?;
        let rip = host.registers()[16];
        // VMLAUNCH or VMRESUME; otherwise L2 ended before the entry in question.
        let mut code = [0; 3];
        host.read_memory(GuestPhysical(rip), &mut code);
        let waits = matches!(code, [0x0f, 0x01, 0xc2 | 0xc3]);
        if waits {
            host.add_slot(GuestPhysical(FAR), 0x1000)?;
            host.resume();
            stop = host.run(bare.ticks + ASTRAY)?;
        }
        Ok(run_of(&host, &recorder, stop))
    })();
    case.judge(bare, hosted, "an entry that had to wait for a page is not like one that had not")
}

fn ends(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let edits = if c.flip(Site::Program) { vec![level(3)] } else { Vec::new() };
    let case = Case::draw(c, 20, edits);
    let Ok(image) = assemble_edited(&case.workload, &case.edits) else { return Verdict::Skipped };
    let bare = run_bare(&image, Box::new(Tame), TICKS);
    // Most often just after an entry, while L2 runs.
    let entered: Vec<u64> = bare
        .records
        .iter()
        .filter(|record| matches!(record.payload, Payload::Entry { .. }))
        .map(|record| record.tick)
        .collect();
    let ticks = match entered.as_slice() {
        [] => 1 + c.choose(Site::Sequence, bare.ticks.max(1)),
        _ if c.choose(Site::Sequence, 8) == 7 => 1 + c.choose(Site::Sequence, bare.ticks.max(1)),
        ticks => ticks[c.choose(Site::Sequence, ticks.len() as u64) as usize] + 1,
    };
    let request = [Request::Init, Request::Destroy][c.choose(Site::Sequence, 2) as usize];
    let ended = (|| -> Result<_, HostBug> {
        let (mut host, _) = host_of(&image, case.hosting(bugs))?;
        host.run(ticks)?;
        host.request(request)
    })();
    let message = match ended {
        Err(error) => Some(format!("L0 fails: {error}")),
        Ok(None) => Some("the vCPU does not answer".to_owned()),
        Ok(Some(ended)) => {
            let reset = State::reset(0).segments;
            let stale = |segments: &[_; 8]| {
                SegmentName::ALL
                    .iter()
                    .find(|name| segments[**name as usize] != reset[**name as usize])
                    .copied()
            };
            if ended.loaded02 {
                Some("vmcs02 is loaded though L2 does not run".to_owned())
            } else if ended.freed_while_loaded {
                Some("a VMCS is freed while it is loaded".to_owned())
            } else if ended.freed_twice {
                Some("a page is freed twice".to_owned())
            } else {
                ended.segments.as_ref().and_then(stale).map(|name| format!("{name:?} is not as after reset"))
            }
        }
    };
    match message {
        None => Verdict::Holds,
        Some(message) => case.describe(
            Counterexample::new(message)
                .with("what ends it", format!("{request:?}"))
                .with("after ticks", ticks),
        ),
    }
}
