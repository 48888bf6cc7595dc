//! vmcb02's permission map: no MSR reaches L2 unless both hypervisors let it, and no exit is lost.

use rootmode_arch::{Choices, Site, Vendor};
use rootmode_models::kvm::interception::{Access, Accesses, Configuration, Intercepts, Kernel};
use rootmode_models::kvm::nested::{ActiveMap, ChunkList, ChunkSize, NestedMsrpm, Vmcb12};
use rootmode_models::kvm::{Errno, Filter, Regressions};
use rootmode_svm::bitmap::Msrpm;

use super::draw::{self, FilterDraw, L1Memory, MapDraw, Pool};
use super::oracle::{self, SVM};
use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "svm-merge-list",
        about: "The list of merged chunks is complete, holds nothing else, and a table that is too small is an error.",
        source: "catalogue A-1, A-8, A-9, A-27",
        cost: 1,
        check: list,
    },
    Property {
        name: "svm-merge-is-or",
        about: "In merged chunks a bit is the OR of L0's and L1's, elsewhere 1; exactly the chunks of L1's map are read.",
        source: "catalogue A3; P-A10 to P-A13, P-A17",
        cost: 1,
        check: merge,
    },
    Property {
        name: "svm-vmrun-history",
        about: "After any sequence of VMRUNs by an honest L1, L2 runs under the map that a full merge would give.",
        source: "catalogue A3; P-A14, P-A15",
        cost: 1,
        check: history,
    },
    Property {
        name: "svm-l2-is-filtered-at-once",
        about: "A filter that changes while L2 runs holds for L2's next instruction.",
        source: "catalogue A3, M35; decision 1",
        cost: 1,
        check: filtered,
    },
    Property {
        name: "svm-l2-spec-ctrl-is-saved",
        about: "While L2 runs, SPEC_CTRL is read back if, and only if, the map in use lets L2 write it.",
        source: "catalogue A3, M19; P-A7",
        cost: 1,
        check: saved,
    },
];

/// Offsets of the merged chunks in 8-byte and in 4-byte units, by kernel, as the catalogue counts them.
fn chunk_indices(kernel: Kernel, size: ChunkSize) -> Vec<usize> {
    let (base, counters, pmu): (&[usize], &[usize], &[usize]) = match size {
        ChunkSize::Eight => (&[260, 264, 11, 2, 8, 14], &[7], &[512, 528, 280]),
        ChunkSize::Four => (&[520, 528, 23, 4, 16, 29], &[14], &[1024, 1056, 560]),
    };
    let mut indices = base.to_vec();
    if kernel >= Kernel::V6_17 {
        indices.extend(counters);
    }
    if kernel >= Kernel::Later {
        indices.extend(pmu);
    }
    indices.sort_unstable();
    indices
}

fn kernel_and_size(c: &mut dyn Choices) -> (Kernel, ChunkSize) {
    let kernel = Kernel::ALL[3 - c.choose(Site::State, 4) as usize];
    (kernel, if c.choose(Site::State, 4) == 3 { ChunkSize::Four } else { ChunkSize::Eight })
}

fn list(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let (kernel, size) = kernel_and_size(c);
    let expected = chunk_indices(kernel, size);
    let capacity = c.choose(Site::State, 14) as usize;
    let found = ChunkList::new(kernel, size, capacity, bugs);
    let found = match found {
        Ok(list) => {
            let mut indices: Vec<usize> = list.indices().collect();
            indices.sort_unstable();
            Ok(indices)
        }
        Err(error) => Err(error.errno()),
    };
    let due = if capacity < expected.len() { Err(Errno::Enospc) } else { Ok(expected) };
    if found != due {
        return Counterexample::new(format!("{kernel:?}, {size:?} bytes, table of {capacity}: {found:?}"))
            .with("expected", format!("{due:?}"))
            .into();
    }
    Verdict::Holds
}

/// The list that the model uses; a case whose list cannot be made fails.
fn chunks(kernel: Kernel, size: ChunkSize, bugs: Regressions) -> Result<ChunkList, Verdict> {
    let capacity = ChunkList::upstream_capacity(kernel);
    ChunkList::new(kernel, size, capacity, bugs)
        .map_err(|error| Counterexample::new(format!("the module does not load: {error}")).into())
}

/// vmcb01's map as a description, and the model's vCPU with it.
fn l0(c: &mut dyn Choices, pool: &Pool, config: &Configuration) -> (MapDraw, Intercepts<Msrpm>) {
    let mut vcpu = Intercepts::closed();
    let mut map = MapDraw { fill: true, flipped: Vec::new() };
    for _ in 0..c.choose(Site::State, 5) {
        flip_l0(c, pool, config, &mut map, &mut vcpu);
    }
    (map, vcpu)
}

fn flip_l0(
    c: &mut dyn Choices,
    pool: &Pool,
    config: &Configuration,
    map: &mut MapDraw,
    vcpu: &mut Intercepts<Msrpm>,
) -> String {
    let (msr, access) = (pool.msr(c), draw::access(c));
    let only = if access == Access::Read { Accesses::R } else { Accesses::W };
    let was_open = map.toggle((msr, access));
    vcpu.set_intercept(config, &Filter::off(), msr, only, was_open);
    format!("L0 {} {access} of {}", if was_open { "intercepts" } else { "passes through" }, oracle::name(msr))
}

/// What a full merge gives, as a set of open bits: everything else is 1.
fn full_merge(l0: &MapDraw, l1: &MapDraw, chunks: &[usize], size: ChunkSize) -> Vec<u8> {
    let mut map = vec![0xff_u8; 8192];
    for &(msr, access) in &l0.flipped {
        let Some((byte, bit)) = oracle::svm_position(msr, access) else { continue };
        if chunks.contains(&(byte / size.bytes())) && !l1.intercepts(msr, access) {
            map[byte] &= !(1 << bit);
        }
    }
    map
}

fn different(found: &[u8], expected: &[u8]) -> Option<Counterexample> {
    if found == expected {
        return None;
    }
    let Some((msr, access)) = SVM.first_difference(found, expected) else {
        return Some(Counterexample::new("a reserved bit of L2's map was cleared"));
    };
    let position = oracle::svm_position(msr, access);
    let text = |map: &[u8]| if oracle::exits(map, position) { "exits" } else { "does not exit" };
    Some(
        Counterexample::new(format!(
            "{access} of {} by L2 {}, and a full merge says it {}",
            oracle::name(msr),
            text(found),
            text(expected)
        ))
        .with("where", oracle::place(position)),
    )
}

const BASE: u64 = 0x20_0000;

const fn plain_vmcb12() -> Vmcb12 {
    Vmcb12 {
        address: 0x5000,
        msr_prot: true,
        msrpm_base: BASE,
        hypercalls: false,
        enlightened: false,
        clean: false,
    }
}

fn merge(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let (kernel, size) = kernel_and_size(c);
    let list = match chunks(kernel, size, bugs) {
        Ok(list) => list,
        Err(verdict) => return verdict,
    };
    let config = Configuration { regressions: bugs, ..Configuration::plain(Vendor::Amd) };
    let pool = Pool::draw(c);
    let (l0, mut vcpu) = l0(c, &pool, &config);
    let l1 = pool.map(c);
    let indices = chunk_indices(kernel, size);
    let broken = c.choose(Site::Fault, 16) == 15;
    let hole = broken.then(|| {
        let index = indices[c.choose(Site::Fault, indices.len() as u64) as usize];
        BASE + (index * size.bytes()) as u64
    });
    let mut memory =
        L1Memory { base: BASE, size: 8192, map: &l1, layout: oracle::svm_position, hole, reads: Vec::new() };
    let mut nested = NestedMsrpm::new(bugs);
    let found = nested.vmrun(&mut vcpu, &plain_vmcb12(), &list, &mut memory, bugs);
    let describe = |example: Counterexample| -> Verdict {
        example
            .with("L0 passes through", format!("{:x?}", l0.flipped))
            .with("L1's map", format!("all {}, but {:x?}", u8::from(l1.fill), l1.flipped))
            .with("kernel", format!("{kernel:?}, chunks of {} bytes", size.bytes()))
            .into()
    };
    if hole.is_some() {
        let kept = found.is_err() && vcpu.force_merge;
        let text = "a chunk of L1's map cannot be read: VMRUN must fail, and the next one merge again";
        return if kept { Verdict::Holds } else { describe(Counterexample::new(text)) };
    }
    if found != Ok(ActiveMap::Msrpm02) || vcpu.force_merge {
        return describe(Counterexample::new(format!(
            "VMRUN gave {found:?}, merge forced {}",
            vcpu.force_merge
        )));
    }
    let mut reads = memory.reads;
    reads.sort_unstable();
    let expected: Vec<(u64, usize)> =
        indices.iter().map(|index| (BASE + (index * size.bytes()) as u64, size.bytes())).collect();
    if reads != expected {
        return describe(
            Counterexample::new("other reads of L1's map than one of each chunk")
                .with("reads", format!("{reads:x?}"))
                .with("expected", format!("{expected:x?}")),
        );
    }
    match different(nested.map.as_bytes(), &full_merge(&l0, &l1, &indices, size)) {
        None => Verdict::Holds,
        Some(example) => describe(example),
    }
}

/// The chunk of STAR, the first of the list, in 8-byte units.
const FIRST_CHUNK: usize = 260;

/// One of L1's VMCBs, with what L1 knows about its last VMRUN.
#[derive(Clone)]
struct L1Vmcb {
    vmcb12: Vmcb12,
    map: MapDraw,
    changed: bool,
}

fn history(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let (kernel, size) = (Kernel::Later, ChunkSize::Eight);
    let list = match chunks(kernel, size, bugs) {
        Ok(list) => list,
        Err(verdict) => return verdict,
    };
    let indices = chunk_indices(kernel, size);
    let config = Configuration { regressions: bugs, ..Configuration::plain(Vendor::Amd) };
    let pool = Pool::draw(c);
    let (mut l0, mut vcpu) = l0(c, &pool, &config);
    let hypercalls = c.choose(Site::Swarm, 4) != 3;
    let vmcb = |c: &mut dyn Choices, n: u64| L1Vmcb {
        vmcb12: Vmcb12 {
            address: 0x5000 + 0x1000 * n,
            msrpm_base: BASE + 0x10_0000 * n,
            hypercalls,
            enlightened: c.choose(Site::State, 4) != 3,
            ..plain_vmcb12()
        },
        map: pool.map(c),
        changed: true,
    };
    let mut vmcbs = [vmcb(c, 0), vmcb(c, 1)];
    let mut nested = NestedMsrpm::new(bugs);
    let mut steps: Vec<String> = Vec::new();
    let mut merged: Option<(usize, MapDraw, MapDraw)> = None;
    let mut last = None;
    let mut failed = None;
    for _ in 0..=c.choose(Site::Sequence, 5) {
        // Half of the failed ones are tried again as they are.
        let again = failed.take().filter(|_| c.choose(Site::Sequence, 2) == 1);
        let which = again.unwrap_or_else(|| usize::from(c.choose(Site::Sequence, 4) == 3));
        let other = usize::from(c.choose(Site::Sequence, 8) == 7);
        match if again.is_some() { 0 } else { c.choose(Site::Sequence, 6) } {
            1 | 4 => {
                let change = (pool.msr(c), draw::access(c));
                let l1 = &mut vmcbs[which];
                l1.map.toggle(change);
                l1.changed = true;
                steps.push(format!("L1 flips {} of {}", change.1, oracle::name(change.0)));
            }
            2 => steps.push(flip_l0(c, &pool, &config, &mut l0, &mut vcpu)),
            3 => {
                let l1 = &mut vmcbs[which];
                l1.vmcb12.msr_prot = !l1.vmcb12.msr_prot;
                l1.changed = true;
                steps.push(format!("L1 sets MSR_PROT to {}", l1.vmcb12.msr_prot));
            }
            _ => {}
        }
        let l1 = &mut vmcbs[which];
        // An honest L1 promises nothing after a change; a plain one leaves the bit as it is, whatever that is.
        let promised = c.choose(Site::State, 4) != 3;
        l1.vmcb12.clean = promised && !(l1.changed && l1.vmcb12.enlightened);
        l1.changed = false;
        let hole = (c.choose(Site::Fault, 4) == 3).then(|| {
            // Half of the holes are in the chunk that is merged first, so that nothing gets merged.
            let index =
                indices.get(c.choose(Site::Fault, 2 * indices.len() as u64) as usize).unwrap_or(&FIRST_CHUNK);
            l1.vmcb12.msrpm_base + 8 * *index as u64
        });
        let base = l1.vmcb12.msrpm_base;
        let mut memory = L1Memory {
            base,
            size: 8192,
            map: &l1.map,
            layout: oracle::svm_position,
            hole: hole.filter(|_| other == 0),
            reads: Vec::new(),
        };
        let found = nested.vmrun(&mut vcpu, &l1.vmcb12, &list, &mut memory, bugs);
        steps.push(format!(
            "VMRUN of {:#x}, MSR_PROT {}, clean bit {}: {}",
            l1.vmcb12.address,
            l1.vmcb12.msr_prot,
            l1.vmcb12.clean,
            found.map_or("fails", |active| if active == ActiveMap::Msrpm01 {
                "L0's map"
            } else {
                "merged map"
            })
        ));
        let may_skip = hypercalls && l1.vmcb12.enlightened && l1.vmcb12.clean;
        let nothing_new =
            last == Some(which) && merged.as_ref() == Some(&(which, l0.clone(), l1.map.clone()));
        last = Some(which);
        failed = found.is_err().then_some(which);
        if let Some(example) =
            judge(&nested, &vcpu, found, &memory, l1, &l0, &indices, may_skip && nothing_new, bugs)
        {
            return steps
                .iter()
                .enumerate()
                .fold(example, |e, (n, s)| e.with(format!("step {}", n + 1), s))
                .into();
        }
        if found.is_ok() && l1.vmcb12.msr_prot {
            merged = Some((which, l0.clone(), l1.map.clone()));
        } else if found.is_err() {
            merged = None;
        }
    }
    Verdict::Holds
}

#[allow(clippy::too_many_arguments, reason = "one state to be judged")]
fn judge(
    nested: &NestedMsrpm,
    vcpu: &Intercepts<Msrpm>,
    found: Result<ActiveMap, rootmode_models::kvm::nested::MergeFailed>,
    memory: &L1Memory<'_>,
    l1: &L1Vmcb,
    l0: &MapDraw,
    indices: &[usize],
    must_skip: bool,
    bugs: Regressions,
) -> Option<Counterexample> {
    if !l1.vmcb12.vmcb02_msr_prot(bugs) {
        return Some(Counterexample::new("L2 runs without MSR_PROT"));
    }
    if !l1.vmcb12.msr_prot {
        // L1 contributes nothing: L2 runs under L0's map.
        let expected = full_l0(l0);
        return match found {
            Ok(_) => different(nested.active_map(vcpu).as_bytes(), &expected),
            Err(_) => Some(Counterexample::new("VMRUN fails although L1 has no map")),
        };
    }
    if must_skip && !memory.reads.is_empty() {
        return Some(Counterexample::new("an enlightened VMRUN without any change reads L1's map again"));
    }
    let touched_hole = memory
        .hole
        .is_some_and(|hole| memory.reads.iter().any(|(at, n)| (*at..*at + *n as u64).contains(&hole)));
    match found {
        Err(_) if touched_hole => None,
        Err(_) => Some(Counterexample::new("VMRUN fails although every read of L1's map succeeded")),
        Ok(_) if touched_hole => {
            Some(Counterexample::new("VMRUN succeeds although a read of L1's map failed"))
        }
        Ok(_) => {
            different(nested.active_map(vcpu).as_bytes(), &full_merge(l0, &l1.map, indices, ChunkSize::Eight))
        }
    }
}

/// vmcb01's map as a description says it.
fn full_l0(l0: &MapDraw) -> Vec<u8> {
    let mut map = vec![0xff_u8; 8192];
    for (byte, bit) in l0.flipped.iter().filter_map(|(msr, access)| oracle::svm_position(*msr, *access)) {
        map[byte] &= !(1 << bit);
    }
    map
}

fn filtered(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let list = match chunks(Kernel::Later, ChunkSize::Eight, bugs) {
        Ok(list) => list,
        Err(verdict) => return verdict,
    };
    let config = Configuration { regressions: bugs, spec_ctrl: 1, ..Configuration::plain(Vendor::Amd) };
    let mut vcpu = Intercepts::<Msrpm>::closed();
    let off = FilterDraw::OFF.build();
    vcpu.recalculate(&config, &off, rootmode_models::kvm::interception::Cause::Created);
    let l1 = MapDraw { fill: false, flipped: Vec::new() };
    let mut memory = L1Memory {
        base: BASE,
        size: 8192,
        map: &l1,
        layout: oracle::svm_position,
        hole: None,
        reads: Vec::new(),
    };
    let mut nested = NestedMsrpm::new(bugs);
    let vmcb12 = Vmcb12 { msr_prot: c.choose(Site::State, 4) != 3, ..plain_vmcb12() };
    if nested.vmrun(&mut vcpu, &vmcb12, &list, &mut memory, bugs).is_err() {
        return Counterexample::new("VMRUN failed").into();
    }
    let filter = draw::filter(c);
    vcpu.recalculation_requested = true;
    if vcpu.before_entry(&config, &filter.build()) {
        nested.tighten(&vcpu, bugs);
    }
    for _ in 0..4 {
        let (msr, access) = (draw::named_msr(c), draw::access(c));
        let exits = oracle::exits(nested.active_map(&vcpu).as_bytes(), oracle::svm_position(msr, access));
        if !exits && !oracle::allows(&filter, msr, access) {
            return Counterexample::new(format!(
                "a filter denies {access} of {} while L2 runs, and L2 still does it without an exit",
                oracle::name(msr)
            ))
            .with("filter", format!("{filter:x?}"))
            .into();
        }
    }
    Verdict::Holds
}

fn saved(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let list = match chunks(Kernel::Later, ChunkSize::Eight, bugs) {
        Ok(list) => list,
        Err(verdict) => return verdict,
    };
    let spec_ctrl = c.choose(Site::State, 2);
    let config = Configuration { regressions: bugs, spec_ctrl, ..Configuration::plain(Vendor::Amd) };
    let mut vcpu = Intercepts::<Msrpm>::closed();
    vcpu.recalculate(&config, &Filter::off(), rootmode_models::kvm::interception::Cause::Created);
    let mut nested = NestedMsrpm::new(bugs);
    let l1 = MapDraw { fill: c.flip(Site::State), flipped: Vec::new() };
    let vmcb12 = Vmcb12 { msr_prot: c.flip(Site::State), ..plain_vmcb12() };
    let mut memory = L1Memory {
        base: BASE,
        size: 8192,
        map: &l1,
        layout: oracle::svm_position,
        hole: None,
        reads: Vec::new(),
    };
    if nested.vmrun(&mut vcpu, &vmcb12, &list, &mut memory, bugs).is_err() {
        return Counterexample::new("VMRUN failed").into();
    }
    // L0 passes the MSR through once its value is not zero; L1 contributes only if it intercepts MSRs at all.
    let open = spec_ctrl != 0 && !(vmcb12.msr_prot && l1.fill);
    if nested.must_save_spec_ctrl(&vcpu, bugs) != open {
        return Counterexample::new(format!("L2 writes SPEC_CTRL without an exit: {open}; saved: {}", !open))
            .with("L1 intercepts MSRs", vmcb12.msr_prot)
            .into();
    }
    Verdict::Holds
}
