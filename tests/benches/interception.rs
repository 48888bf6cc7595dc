//! Speed of MSR interception: a recalculation after a filter change, and the merges for a nested guest.
#![allow(missing_docs, reason = "criterion's macros generate undocumented items")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rootmode_arch::{FeatureSet, Vendor};
use rootmode_models::kvm::filter::{FilterRange, MsrBits};
use rootmode_models::kvm::interception::{
    Accesses, ApicMode, Cause, Configuration, InterceptMap, Intercepts, MediatedPmu,
};
use rootmode_models::kvm::nested::{ChunkList, ChunkSize, GuestMemory, NestedMsrpm, Unreadable, Vmcb12};
use rootmode_models::kvm::{DisabledExits, Filter, Regressions};
use rootmode_svm::bitmap::Msrpm;
use rootmode_vmx::bitmap::MsrBitmap;

const NONE: Regressions = Regressions::NONE;

/// Everything that can be passed through is, and 16 ranges are asked about each access in vain.
fn busiest(vendor: Vendor) -> (Configuration, Filter) {
    let config = Configuration {
        host: FeatureSet::all(),
        kvm: FeatureSet::all(),
        guest: FeatureSet::all(),
        disabled_exits: DisabledExits::KNOWN,
        spec_ctrl: 1,
        xfd_written: true,
        apic: if vendor == Vendor::Amd {
            ApicMode::X2Avic
        } else {
            ApicMode::VirtualizeX2apic { apicv: true, ipi: true }
        },
        pmu: Some(MediatedPmu { counters: 6, fixed_counters: 3, full_width: true, global: true }),
        ..Configuration::plain(vendor)
    };
    let range = |n: u32| FilterRange {
        accesses: Accesses::RW,
        base: 0x4000_0000 + 0x1000 * n,
        nmsrs: 64,
        bitmap: MsrBits::repeat(false, 64),
    };
    (config, Filter { default_allow: true, ranges: (0..16).map(range).collect() })
}

fn recalculation<M: InterceptMap>(c: &mut Criterion, name: &str, vendor: Vendor) {
    let (config, filter) = busiest(vendor);
    let mut vcpu = Intercepts::<M>::closed();
    c.bench_function(name, |b| {
        b.iter(|| vcpu.recalculate(black_box(&config), black_box(&filter), Cause::FilterChanged));
    });
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

fn merge(c: &mut Criterion, name: &str, chunks: &ChunkList) {
    let mut vcpu = Intercepts::<Msrpm>::closed();
    let mut nested = NestedMsrpm::new(NONE);
    let mut memory = Memory(Msrpm::filled(false));
    let vmcb12 = Vmcb12 {
        address: 0,
        msr_prot: true,
        msrpm_base: 0,
        hypercalls: false,
        enlightened: false,
        clean: false,
    };
    c.bench_function(name, |b| {
        b.iter(|| nested.vmrun(&mut vcpu, black_box(&vmcb12), chunks, &mut memory, NONE));
    });
}

fn interception(c: &mut Criterion) {
    recalculation::<Msrpm>(c, "recalculate SVM, 16 ranges", Vendor::Amd);
    recalculation::<MsrBitmap>(c, "recalculate VMX, 16 ranges", Vendor::Intel);
    let kernel = rootmode_models::kvm::interception::Kernel::Later;
    let list = ChunkList::new(kernel, ChunkSize::Eight, 16, NONE).expect("the list fits into 16 places");
    merge(c, "merge MSRPM, KVM's 10 chunks", &list);
    merge(c, "merge MSRPM, all 1024 chunks", &ChunkList::whole(ChunkSize::Eight));
}

criterion_group!(benches, interception);
criterion_main!(benches);
