//! The models by name: everything that works, and real parts as far as it works.

use rootmode_arch::{Feature, FeatureSet, Vendor};
use rootmode_cpu::Model;
use rootmode_svm::capabilities::Processor as SvmProcessor;
use rootmode_vmx::definitions::models::Model as VmxModel;
use rootmode_vmx::drive::offered::Offer;

use super::capabilities::{self, Capability};
use super::flag;

/// Every model's name.
pub const NAMES: &[&str] = &["max-intel", "max-amd", "intel-skylake", "intel-spr", "amd-genoa"];

/// A real part.
struct Part {
    vendor: Vendor,
    signature: u32,
    physical_width: u8,
    /// Features that the tables of entry rules know.
    features: FeatureSet,
    leaves: &'static [u32],
}

impl Part {
    fn named(name: &str) -> Option<Self> {
        let intel = VmxModel::from_name(name).filter(|model| model.name != "max-intel").map(|model| Self {
            vendor: Vendor::Intel,
            signature: model.signature,
            physical_width: model.physical_width,
            features: model.beyond.iter().fold(model.features, |all, more| all.with_all(more)),
            leaves: model.leaves,
        });
        let amd = SvmProcessor::by_name(name).filter(|model| model.name != "max-amd").map(|model| Self {
            vendor: Vendor::Amd,
            signature: model.signature,
            physical_width: model.physical_address_bits,
            features: model.features().with_all(model.beyond),
            leaves: model.leaves,
        });
        intel.or(amd).map(|part| Self {
            // Bits that follow CR4 are no property of the part.
            features: part.features.without(Feature::Osxsave).without(Feature::Ospke),
            ..part
        })
    }
}

/// What works, but only for who asks for it: Linux looks for a security processor where CPUID tells of SEV. A flag brings
/// along what it needs of these.
pub(super) const OPT_IN: &[Feature] = &[Feature::Sme, Feature::Sev, Feature::SevEs];

/// What models of `vendor` have at most, flags of [`OPT_IN`] aside.
pub(super) fn most(vendor: Vendor) -> FeatureSet {
    *Model::max(vendor).features()
}

/// The model called `name`, one of [`NAMES`].
pub(super) fn model(name: &str) -> Model {
    match Part::named(name) {
        Some(part) => {
            let works = most(part.vendor);
            let features =
                part.features.iter().filter(|f| works.has(*f)).fold(FeatureSet::none(), FeatureSet::with);
            Model::part(part.vendor, part.signature, part.physical_width, features)
        }
        None if name == "max-amd" => Model::max_amd(),
        None => Model::max_intel(),
    }
}

/// What the VMX of the model called `name` offers, as far as its CPUID features allow.
pub(super) fn offer(name: &str) -> Offer {
    let part = VmxModel::from_name(name).filter(|model| model.name != "max-intel");
    part.map_or(Offer::FULL, |part| Offer::of(&part))
}

/// What the name means, in a few words.
pub fn about(name: &str) -> String {
    match (VmxModel::from_name(name), SvmProcessor::by_name(name)) {
        _ if name == "max-intel" => "everything that works, with VMX".into(),
        _ if name == "max-amd" => "everything that works, with SVM".into(),
        (Some(model), _) => format!("Intel {}, as far as it works", model.text),
        (None, Some(model)) => format!("AMD {}, as far as it works", model.text),
        (None, None) => String::new(),
    }
}

/// What the part called `name` has and its model lacks: features, leaves, VMX capabilities.
pub(super) fn lacks(name: &str) -> Vec<String> {
    let Some(part) = Part::named(name) else { return Vec::new() };
    let model = model(name);
    let features = part.features.iter().filter(|feature| !model.has(*feature)).map(flag);
    let has = |leaf: &&u32| !model.leaves().keys().any(|(known, _)| known == *leaf);
    let leaves = part.leaves.iter().filter(has).map(|leaf| format!("leaf {leaf:#x}"));
    let (real, offer) = (VmxModel::from_name(name), offer(name));
    let lacking = |capability: Capability| {
        real.is_some_and(|part| capability.is_of(&part)) && !capability.reported(&offer, &model)
    };
    let vmx = capabilities::all().filter(|(_, capability)| lacking(*capability)).map(|(flag, _)| flag);
    features.chain(leaves).chain(vmx).collect()
}
