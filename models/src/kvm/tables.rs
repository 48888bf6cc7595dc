//! [`Tables`]: the data that KVM's interception goes by, in one place. The model reads it through [`Regressions`], so that
//! tests can put changed data there and see whether a property notices.
//!
//! [`Regressions`]: super::Regressions

use super::filter::UNFILTERABLE;
use super::interception::{MSR_BITMAP, MSRPM, MapLayout, Row, SVM_TABLE, VMX_TABLE};
use super::nested::{MergedMsr, SVM_MERGED, VMX_MERGED, VMX_X2APIC, X2apicRules};

/// What KVM passes through, merges and never filters, and where it takes bits to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The pass-through table of SVM.
    pub svm: &'static [Row],
    /// The pass-through table of VMX.
    pub vmx: &'static [Row],
    /// KVM's arithmetic on MSR permission maps.
    pub msrpm: MapLayout,
    /// KVM's arithmetic on MSR bitmaps.
    pub msr_bitmap: MapLayout,
    /// The MSRs whose chunks of L1's permission map are merged; their accesses do not matter.
    pub svm_merged: &'static [MergedMsr],
    /// The MSRs whose bits of L1's bitmap are merged.
    pub vmx_merged: &'static [MergedMsr],
    /// How the bits of L2's x2APIC are made.
    pub vmx_x2apic: X2apicRules,
    /// First and last MSR that no filter denies.
    pub unfilterable: [u32; 2],
}

impl Tables {
    /// KVM's own.
    pub const KVM: &'static Self = &Self {
        svm: SVM_TABLE,
        vmx: VMX_TABLE,
        msrpm: MSRPM,
        msr_bitmap: MSR_BITMAP,
        svm_merged: SVM_MERGED,
        vmx_merged: VMX_MERGED,
        vmx_x2apic: VMX_X2APIC,
        unfilterable: UNFILTERABLE,
    };
}
