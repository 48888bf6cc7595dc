//! Strategies for MSR interception: filters, configurations, and the two vendors' maps.

use rootmode_arch::{Choices, Site, Vendor};
use rootmode_models::kvm::interception::{Access, Configuration};
use rootmode_models::kvm::{Filter, Regressions};
use rootmode_svm::bitmap::Msrpm;
use rootmode_vmx::bitmap::MsrBitmap;

use super::{Chosen, chosen};
use crate::campaign::properties::interception::draw::{self, Machine};

/// Filters with up to four ranges around MSRs that KVM's tables name, overlapping and wrapping ones among them.
pub fn msr_filter() -> Chosen<Filter> {
    chosen(|c| draw::filter(c).build())
}

/// Everything but the filter that decides which MSRs of a guest on `vendor`'s processor exit.
pub fn interception_configuration(vendor: Vendor) -> Chosen<Configuration> {
    chosen(move |c| Machine::draw(c, vendor).configuration(c, Regressions::NONE))
}

/// MSR numbers: mostly with a meaning, sometimes first or last of a range, sometimes any.
pub fn msr_index() -> Chosen<u32> {
    chosen(draw::any_msr)
}

/// MSR permission maps of ones or zeros, with up to six exceptions.
pub fn msrpm() -> Chosen<Msrpm> {
    chosen(|c| {
        let mut map = Msrpm::filled(c.flip(Site::State));
        exceptions(c, |msr, access| {
            let intercept = !map.test(msr, access.into());
            map.assign(msr, access.into(), intercept);
        });
        map
    })
}

/// VMX MSR bitmaps of ones or zeros, with up to six exceptions.
pub fn msr_bitmap() -> Chosen<MsrBitmap> {
    chosen(|c| {
        let mut map = if c.flip(Site::State) { MsrBitmap::INTERCEPT_ALL } else { MsrBitmap::INTERCEPT_NONE };
        exceptions(c, |msr, access| {
            let exit = !map.test(msr, access.into());
            map.assign(msr, access.into(), exit);
        });
        map
    })
}

fn exceptions(c: &mut dyn Choices, mut flip: impl FnMut(u32, Access)) {
    for _ in 0..c.choose(Site::State, 7) {
        flip(draw::any_msr(c), draw::access(c));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rootmode_models::kvm::interception::{InterceptMap, recalculate};

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_a_generated_filter_denies_is_intercepted(
            filter in msr_filter(), config in interception_configuration(Vendor::Amd), msr in msr_index()
        ) {
            let map: Msrpm = recalculate(&config, &filter);
            for access in Access::ALL {
                let denied = !filter.allows(msr, access, Regressions::NONE);
                prop_assert!(!denied || map.intercepts(msr, access, Regressions::NONE));
            }
        }

        #[test]
        fn generated_maps_have_at_most_six_exceptions(svm in msrpm(), vmx in msr_bitmap()) {
            let odd = |bytes: &[u8]| {
                let ones: u32 = bytes.iter().map(|b| b.count_ones()).sum();
                ones.min(bytes.len() as u32 * 8 - ones)
            };
            prop_assert!(odd(svm.as_bytes()) <= 6 && odd(vmx.as_page()) <= 6);
        }
    }
}
