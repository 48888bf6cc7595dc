//! The arithmetic of the two maps: every operation touches the bit that the processor looks at, and no other.

use rootmode_arch::{Choices, Site};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::interception::{Access, InterceptMap};
use rootmode_svm::bitmap::Msrpm;
use rootmode_vmx::bitmap::MsrBitmap;

use super::draw;
use super::oracle::{self, Processor, SVM, VMX};
use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[
    Property {
        name: "svm-map-bits",
        about: "Setting and testing an MSR of a permission map uses the processor's bit and touches no other.",
        source: "APM Vol. 2 (24593 rev. 3.42) \"MSR Intercepts\"; catalogue 0.1, A-4, A-11",
        cost: 1,
        check: |c, bugs| bits::<Msrpm>(c, bugs, SVM),
    },
    Property {
        name: "vmx-map-bits",
        about: "Setting and testing an MSR of an MSR bitmap uses the processor's bit and touches no other.",
        source: "SDM Vol. 3C (325384-083, Mar 2024) \"MSR-Bitmap Address\"; catalogue 0.2",
        cost: 1,
        check: |c, bugs| bits::<MsrBitmap>(c, bugs, VMX),
    },
];

fn bits<M: InterceptMap>(c: &mut dyn Choices, bugs: Regressions, processor: Processor) -> Verdict {
    let closed = !c.flip(Site::State);
    let mut map = M::closed();
    if !closed {
        map.bytes_mut().fill(0);
    }
    let mut expected = vec![if closed { 0xff } else { 0 }; processor.size];
    let count = c.choose(Site::Sequence, 4);
    for _ in 0..count {
        let (msr, access, intercept) = (draw::any_msr(c), draw::access(c), c.flip(Site::State));
        map.put(msr, access, intercept, bugs);
        if let Some((byte, bit)) = (processor.position)(msr, access) {
            expected[byte] = expected[byte] & !(1 << bit) | u8::from(intercept) << bit;
        }
        if map.bytes() != expected.as_slice() {
            let verb = if intercept { "intercepting" } else { "passing through" };
            let found = map.bytes().iter().zip(&expected).position(|(a, b)| a != b).unwrap_or(0);
            return Counterexample::new(format!(
                "{verb} {access} of {} changed byte {found:#x}",
                oracle::name(msr)
            ))
            .with("the processor looks at", oracle::place((processor.position)(msr, access)))
            .with("byte found", format!("{:#04x}", map.bytes()[found]))
            .with("byte expected", format!("{:#04x}", expected[found]))
            .into();
        }
    }
    let (msr, access) = (draw::any_msr(c), draw::access(c));
    let exits = oracle::exits(&expected, (processor.position)(msr, access));
    let found = map.intercepts(msr, access, bugs);
    if found != exits {
        return Counterexample::new(format!(
            "{access} of {}: KVM says {found}, the processor {exits}",
            oracle::name(msr)
        ))
        .with("the processor looks at", oracle::place((processor.position)(msr, access)))
        .with("KVM looks at", looked_at::<M>(msr, access, bugs))
        .into();
    }
    Verdict::Holds
}

/// Where the model looks, as text.
fn looked_at<M: InterceptMap>(msr: u32, access: Access, bugs: Regressions) -> String {
    oracle::place(M::locate(msr, access, bugs).map(|p| (p.byte, p.mask.trailing_zeros())))
}
