//! How fast the pure halves are: medians of short batches, as rows of `rootmode-tests full`. Release builds only.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rootmode::campaign::{self, Plan, Regressions, Shard};
use rootmode::machine::{Machine, Parts};
use rootmode_arch::HostPhysical;
use rootmode_arch::choices::Tame;
use rootmode_arch::{Event, EventClass, FeatureSet, Vendor};
use rootmode_models::devices::pc;
use rootmode_models::kvm::filter::{FilterRange, MsrBits};
use rootmode_models::kvm::interception::{
    Accesses, ApicMode, Cause, Configuration, InterceptMap, Intercepts, Kernel, MediatedPmu,
};
use rootmode_models::kvm::nested::{ChunkList, ChunkSize, GuestMemory, NestedMsrpm, Unreadable, Vmcb12};
use rootmode_models::kvm::{DisabledExits, Filter};
use rootmode_svm::bitmap::{Msrpm, Uniform};
use rootmode_svm::boundary::{Extras, Mode, base};
use rootmode_vmx::bitmap::{MsrBitmap, UniformBitmaps};
use rootmode_vmx::boundary::bases::BASES;

use crate::oracles::draw::Draw;
use crate::oracles::{svm_draw, vmx_draw};
use crate::table::Row;

/// Batches of which the median counts.
const BATCHES: usize = 401;

/// Views and events of one mix: few enough for a first-level cache, as in a running guest.
const MIX: usize = 48;

/// Nanoseconds a call of `f`: the median of batches of `calls` calls each.
fn nanoseconds(calls: u32, mut f: impl FnMut()) -> f64 {
    let mut batch = || {
        let start = Instant::now();
        (0..calls).for_each(|_| f());
        start.elapsed().as_nanos() as f64 / f64::from(calls)
    };
    batch();
    let mut times: Vec<f64> = (0..BATCHES).map(|_| batch()).collect();
    times.sort_by(f64::total_cmp);
    times[BATCHES / 2]
}

/// All rows.
///
/// # Errors
/// In a debug build, whose times say nothing.
pub fn rows() -> Result<Vec<Row>, String> {
    if cfg!(debug_assertions) {
        return Err("times are measured in release builds only: cargo run --release".to_owned());
    }
    let ns = |key: &str, what: &str, value: f64, limit: f64| {
        Row::new(key, what, format!("{value:.1}"), &format!("under {limit}"), value < limit)
    };
    let mut rows = vec![
        ns("vmx-entry-ns", "all checks of a valid VMCS, mean over the base states, ns", vmx_entry(), 300.0),
        ns("svm-entry-ns", "all checks of a valid VMCB, mean over modes and extras, ns", svm_entry(), 200.0),
        ns(
            "vmx-decide-ns",
            "an intercept decision of VMX, mean over random views and events, ns",
            vmx_decide(),
            10.0,
        ),
        ns(
            "svm-decide-ns",
            "an intercept decision of SVM, mean over random views and events, ns",
            svm_decide(),
            10.0,
        ),
        ns(
            "msrpm-merge-ns",
            "merge of L1's MSRPM with L0's at VMRUN, every chunk of KVM's list, ns",
            msrpm_merge(&kvms_chunks()?)?,
            1000.0,
        ),
        ns(
            "msrpm-merge-full-ns",
            "merge of L1's MSRPM with L0's at VMRUN, all 1,024 chunks of both pages, ns",
            msrpm_merge(&ChunkList::whole(ChunkSize::Eight))?,
            1000.0,
        ),
        ns(
            "recalculate-us",
            "recalculation of all intercepts after a filter change, slower vendor, us",
            recalculation(),
            20.0,
        ),
    ];
    rows.push(ns(
        "snapshot-restore-us",
        "snapshot and restore of a 512 MiB machine that wrote 100 pages, us",
        snapshot_and_restore()?,
        1000.0,
    ));
    let (one, two) = (cases_per_second(1)?, cases_per_second(2)?);
    let what = "pure interception properties on 2 workers, cases a second";
    let thousands = format!("{:.0}", two / 1000.0) + "000";
    rows.push(Row::new(
        "interception-cases-per-second",
        what,
        thousands,
        "at least 200000",
        two >= 200_000.0,
    ));
    let what = "cases a second on 2 workers by those on 1";
    let scaling = two / one;
    rows.push(Row::new(
        "interception-scaling",
        what,
        format!("{scaling:.2}"),
        "at least 1.8",
        scaling >= 1.8,
    ));
    Ok(rows)
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

fn vmx_entry() -> f64 {
    let of_base = |state: rootmode_vmx::boundary::State| {
        let context = state.context();
        nanoseconds(20, || _ = black_box(rootmode_vmx::check_entry(black_box(&context))))
    };
    mean(&BASES.iter().map(|base| of_base((base.build)())).collect::<Vec<_>>())
}

fn svm_entry() -> f64 {
    let extras = [Extras::NONE, Extras::NESTED, Extras::X2AVIC, Extras::SEV, Extras::SEV_ES, Extras::SNP];
    let of_base = |(mode, extras)| {
        let case = base(mode, extras);
        let context = case.context();
        nanoseconds(20, || _ = black_box(rootmode_svm::rules::check_entry(black_box(&context))))
    };
    let all = Mode::ALL.into_iter().flat_map(|mode| extras.map(|extras| (mode, extras)));
    mean(&all.map(of_base).collect::<Vec<_>>())
}

/// Views and events: about as many that exit as not.
fn mix<T>(
    mut draw: impl FnMut(&mut Draw, EventClass) -> (T, Event),
    exits: impl Fn(&T, &Event) -> bool,
) -> Vec<(T, Event)> {
    let mut draws = Draw::new(11);
    let (mut exiting, mut passing) = (Vec::new(), Vec::new());
    for class in EventClass::ALL.iter().cycle().take(20 * EventClass::ALL.len()) {
        let (case, event) = draw(&mut draws, *class);
        let list = if exits(&case, &event) { &mut exiting } else { &mut passing };
        if list.len() < MIX / 2
            && list.iter().filter(|(_, other): &&(T, Event)| other.class() == *class).count() < 2
        {
            list.push((case, event));
        }
    }
    exiting.into_iter().chain(passing).collect()
}

fn vmx_decide() -> f64 {
    use rootmode_vmx::decide::{View, decide};
    let bitmaps = UniformBitmaps(true);
    let draw = |draw: &mut Draw, class| {
        let (case, mode) = vmx_draw::case(draw, class);
        ((case.controls, case.processor), draw.event(class, &mode))
    };
    let mix = mix(draw, |(controls, processor), event| {
        decide(&View { controls, processor, bitmaps: &bitmaps }, event).is_some()
    });
    let all = || {
        for ((controls, processor), event) in &mix {
            black_box(&decide(black_box(&View { controls, processor, bitmaps: &bitmaps }), black_box(event)));
        }
    };
    nanoseconds(20, all) / mix.len() as f64
}

fn svm_decide() -> f64 {
    use rootmode_svm::decide::{View, decide};
    let maps = Uniform(true);
    let draw = |draw: &mut Draw, class| {
        let (case, mode) = svm_draw::case(draw, class);
        ((case.controls, case.state), draw.event(class, &mode))
    };
    let mix =
        mix(draw, |(controls, state), event| decide(&View { controls, state, maps: &maps }, event).is_some());
    let all = || {
        for ((controls, state), event) in &mix {
            black_box(&decide(black_box(&View { controls, state, maps: &maps }), black_box(event)));
        }
    };
    nanoseconds(20, all) / mix.len() as f64
}

/// L1's memory: one permission map at address 0.
struct Memory(Msrpm);

impl GuestMemory for Memory {
    fn read(&mut self, address: u64, buffer: &mut [u8]) -> Result<(), Unreadable> {
        let start = address as usize;
        let bytes = self.0.as_bytes().get(start..start + buffer.len()).ok_or(Unreadable { address })?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }
}

/// What the latest kernel merges.
fn kvms_chunks() -> Result<ChunkList, String> {
    let capacity = ChunkList::upstream_capacity(Kernel::Later);
    ChunkList::new(Kernel::Later, ChunkSize::Eight, capacity, Regressions::NONE).map_err(|e| e.to_string())
}

fn msrpm_merge(chunks: &ChunkList) -> Result<f64, String> {
    let none = Regressions::NONE;
    let mut vcpu = Intercepts::<Msrpm>::closed();
    let mut nested = NestedMsrpm::new(none);
    let mut memory = Memory(Msrpm::filled(false));
    let vmcb12 = Vmcb12 {
        address: 0,
        msr_prot: true,
        msrpm_base: 0,
        hypercalls: false,
        enlightened: false,
        clean: false,
    };
    let mut failed = false;
    let time = nanoseconds(10, || {
        failed |= nested.vmrun(&mut vcpu, black_box(&vmcb12), chunks, &mut memory, none).is_err();
    });
    if failed { Err("L1's map could not be read".to_owned()) } else { Ok(time) }
}

/// Everything that can be passed through is, and 16 ranges are asked about each access in vain.
fn recalculation() -> f64 {
    fn of<M: InterceptMap>(config: &Configuration, filter: &Filter) -> f64 {
        let mut vcpu = Intercepts::<M>::closed();
        let once = || {
            vcpu.recalculate(black_box(config), black_box(filter), Cause::FilterChanged);
            black_box(&vcpu);
        };
        nanoseconds(10, once) / 1000.0
    }
    let config = |vendor, apic| Configuration {
        host: FeatureSet::all(),
        kvm: FeatureSet::all(),
        guest: FeatureSet::all(),
        disabled_exits: DisabledExits::KNOWN,
        spec_ctrl: 1,
        xfd_written: true,
        apic,
        pmu: Some(MediatedPmu { counters: 6, fixed_counters: 3, full_width: true, global: true }),
        ..Configuration::plain(vendor)
    };
    let range = |n: u32| FilterRange {
        accesses: Accesses::RW,
        base: 0x4000_0000 + 0x1000 * n,
        nmsrs: 64,
        bitmap: MsrBits::repeat(false, 64),
    };
    let filter = Filter { default_allow: true, ranges: (0..16).map(range).collect() };
    let amd = of::<Msrpm>(&config(Vendor::Amd, ApicMode::X2Avic), &filter);
    let virtual_apic = ApicMode::VirtualizeX2apic { apicv: true, ipi: true };
    amd.max(of::<MsrBitmap>(&config(Vendor::Intel, virtual_apic), &filter))
}

/// Microseconds for a snapshot of a machine with 512 MiB that wrote 100 scattered pages since the last one, and, after it
/// wrote them again, a restore.
fn snapshot_and_restore() -> Result<f64, String> {
    let parts = Parts {
        cpu: rootmode::processor::Processor::default(),
        configuration: pc::Configuration { memory: 512 << 20, ..pc::Configuration::default() },
        firmware: None,
        watch: None,
        hardware: rootmode_arch::Hardware::Tame,
        image: Some(vec![0xf4]),
        name: "hlt".into(),
    };
    let mut machine = Machine::new(&parts, Box::new(Tame)).map_err(|e| e.to_string())?;
    let write = |machine: &mut Machine, value| {
        for page in 0..100 {
            machine.board.memory.write_u64(HostPhysical(0x10_0000 + page * 0x50_0000), value);
        }
    };
    machine.snapshot().map_err(|e| e.to_string())?;
    let mut times = Vec::new();
    for round in 0..BATCHES as u64 {
        write(&mut machine, round + 1);
        let start = Instant::now();
        let snapshot = machine.snapshot().map_err(|e| e.to_string())?;
        let taken = start.elapsed();
        write(&mut machine, u64::MAX - round);
        let start = Instant::now();
        machine.restore(&snapshot).map_err(|e| e.to_string())?;
        times.push((taken + start.elapsed()).as_nanos() as f64 / 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[BATCHES / 2])
}

/// Cases of all interception properties together that `workers` threads judge in a second.
fn cases_per_second(workers: usize) -> Result<f64, String> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().map_err(|e| e.to_string())?;
    let mut properties = campaign::properties();
    // The pure ones: no machine runs in them.
    properties.retain(|property| property.cost == 1);
    let mut best: f64 = 0.0;
    for seed in 0..5 {
        let plan = Plan { cases: 20_000, seed, shard: Shard::WHOLE, regressions: Regressions::NONE };
        let start = Instant::now();
        let cases: u64 = pool.install(|| {
            properties.iter().map(|property| campaign::run(property, &plan, &|_| ()).cases).sum()
        });
        let time = start.elapsed().max(Duration::from_nanos(1));
        best = best.max(cases as f64 / time.as_secs_f64());
    }
    Ok(best)
}
