//! Who handles an MSR exit of L2: L1 exactly when its own map, as the processor would read it, intercepts the access.

use rootmode_arch::{Choices, Site};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::interception::Access;
use rootmode_models::kvm::nested::{
    Handler, Vmcb12, Vmcs12, svm_msr_exit_handler, svm_msr_exit_place, vmx_msr_exit_handler,
};

use super::draw::{self, L1Memory, MapDraw};
use super::oracle::{self, SVM, VMX};
use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "svm-msr-exit-goes-to-whom-it-concerns",
        about: "VMEXIT_MSR of L2 goes to L1 if, and only if, L1 intercepts that access; at most one byte of L1's map is read.",
        source: "APM Vol. 2 (24593 rev. 3.42) \"MSR Intercepts\"; catalogue A-25; P-A16",
        cost: 1,
        check: svm,
    },
    Property {
        name: "vmx-msr-exit-goes-to-whom-it-concerns",
        about: "RDMSR and WRMSR exits of L2 go to L1 if, and only if, L1 wants them; at most one byte of L1's bitmap is read.",
        source: "SDM Vol. 3C (325384-083, Mar 2024) \"Instructions That Cause VM Exits Conditionally\"; catalogue A4",
        cost: 1,
        check: vmx,
    },
];

/// Guest-physical address of L1's map.
const BASE: u64 = 0x10_0000;

/// An access of L2 and L1's map, with the accessed MSR or its neighbours among the exceptions.
fn situation(c: &mut dyn Choices) -> (u32, Access, MapDraw) {
    let (msr, access) = (draw::any_msr(c), draw::access(c));
    let mut map = MapDraw { fill: c.flip(Site::State), flipped: Vec::new() };
    for _ in 0..c.choose(Site::State, 4) {
        let near = if c.flip(Site::State) { draw::any_msr(c) } else { msr ^ c.choose(Site::State, 8) as u32 };
        map.flipped.push((near, draw::access(c)));
    }
    (msr, access, map)
}

/// Judges who got the exit and what was read.
fn judge(
    found: Handler,
    memory: &L1Memory<'_>,
    (msr, access): (u32, Access),
    asks_map: bool,
    position: Option<(usize, u32)>,
) -> Option<Counterexample> {
    let intercepted = memory.map.intercepts(msr, access);
    let unreadable = position.is_some_and(|(byte, _)| memory.hole == Some(BASE + byte as u64));
    let expected_reads: Vec<(u64, usize)> =
        position.filter(|_| asks_map).map(|(byte, _)| (BASE + byte as u64, 1)).into_iter().collect();
    let wants = position.is_none() || unreadable || intercepted;
    let by_map = if wants { Handler::L1 } else { Handler::L0 };
    let example = |expected: Handler| {
        let what = if intercepted { "intercepts" } else { "does not intercept" };
        Counterexample::new(format!(
            "{access} of {} by L2 goes to {found:?}, and should go to {expected:?}",
            oracle::name(msr)
        ))
        .with("L1's map", format!("{what} this access"))
        .with("the bit that decides", oracle::place(position))
        .with("reads of L1's memory", format!("{:x?}", memory.reads))
        .with(
            "L1's map otherwise",
            format!("all {}, but {:x?}", u8::from(memory.map.fill), memory.map.flipped),
        )
    };
    if asks_map && found != by_map {
        return Some(example(by_map));
    }
    if memory.reads != expected_reads {
        return Some(example(found).with("expected reads", format!("{expected_reads:x?}")));
    }
    None
}

fn hole(c: &mut dyn Choices, position: Option<(usize, u32)>) -> Option<u64> {
    let (byte, _) = position?;
    (c.choose(Site::Fault, 16) == 15).then_some(BASE + byte as u64)
}

fn svm(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let (msr, access, map) = situation(c);
    let position = (SVM.position)(msr, access);
    let msr_prot = c.choose(Site::State, 8) != 7;
    let vmcb12 = Vmcb12 {
        address: 0x1000,
        msr_prot,
        msrpm_base: BASE,
        hypercalls: false,
        enlightened: false,
        clean: false,
    };
    let hole = hole(c, position);
    let mut memory =
        L1Memory { base: BASE, size: 8192, map: &map, layout: oracle::svm_position, hole, reads: Vec::new() };
    let found = svm_msr_exit_handler(&vmcb12, msr, access, &mut memory, bugs);
    if !msr_prot && (found != Handler::L0 || !memory.reads.is_empty()) {
        return Counterexample::new(format!("L1 intercepts no MSR, and the exit goes to {found:?}"))
            .with("reads of L1's memory", format!("{:x?}", memory.reads))
            .into();
    }
    match judge(found, &memory, (msr, access), msr_prot, position) {
        None => Verdict::Holds,
        Some(example) => {
            let place = svm_msr_exit_place(msr, access, bugs);
            let looked = place.map(|p| (p.byte, p.mask.trailing_zeros()));
            example.with("KVM looks at", oracle::place(looked)).into()
        }
    }
}

fn vmx(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let (msr, access, map) = situation(c);
    let position = (VMX.position)(msr, access);
    let use_bitmaps = c.choose(Site::State, 8) != 7;
    let vmcs12 = Vmcs12 { use_bitmaps, bitmap: BASE, ..Vmcs12::default() };
    let hole = hole(c, position);
    let mut memory =
        L1Memory { base: BASE, size: 4096, map: &map, layout: oracle::vmx_position, hole, reads: Vec::new() };
    let found = vmx_msr_exit_handler(&vmcs12, msr, access, &mut memory, bugs);
    if !use_bitmaps && (found != Handler::L1 || !memory.reads.is_empty()) {
        return Counterexample::new(format!("L1 uses no bitmap, and the exit goes to {found:?}")).into();
    }
    judge(found, &memory, (msr, access), use_bitmaps, position).map_or(Verdict::Holds, Verdict::Fails)
}
