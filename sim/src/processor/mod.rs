//! [`Processor`]: what `--cpu MODEL,+feature,-feature,phys-bits=N` names.
//!
//! Features come from the one table in [`rootmode_arch::cpuid`]; what real parts have from the tables by which `explain`
//! judges entries. A model of a real part offers what the part and the simulator both have; [`Processor::lacks`] is the
//! rest.
//!
//! ```
//! use rootmode::processor::Processor;
//! let cpu = Processor::parse("max-intel,-pcid,phys-bits=39").unwrap();
//! assert!(!cpu.model().has(rootmode_arch::Feature::Pcid));
//! assert_eq!(cpu.model().physical_width(), 39);
//! assert!(Processor::parse("max-intel,-picd").unwrap_err().to_string().contains("pcid"));
//! ```

mod capabilities;
mod near;
mod parts;
mod show;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rootmode_arch::record::Level;
use rootmode_arch::{Feature, FeatureSet, Vendor};
use rootmode_cpu::{Model, Virtualization};
use rootmode_svm::Processor as SvmProcessor;
use rootmode_svm::drive::Svm;
use rootmode_vmx::drive::Vmx;
use rootmode_vmx::drive::offered::Offer;

use crate::machine::Watch;
use near::near;
pub use parts::{NAMES, about};
pub use show::{Leaf, Register, Sheet};

/// A processor model with changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// The model's name.
    name: &'static str,
    /// Name and changes, as `--cpu` takes them.
    text: String,
    model: Arc<Model>,
    /// What VMX offers as far as the model's features allow.
    offer: Offer,
}

/// Why a text names no processor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProcessorError {
    /// No model has this name.
    #[error("no processor model is called `{name}`; there are {}", NAMES.join(", "))]
    UnknownModel {
        /// The name.
        name: String,
    },
    /// No flag has this name.
    #[error("no processor flag is called `{flag}`; {}", nearest(near))]
    UnknownFlag {
        /// The flag, without its sign or value.
        flag: String,
        /// The nearest names, nearest first.
        near: Vec<String>,
    },
    /// It is neither a sign and a name nor a name and a value.
    #[error("`{item}` is no change of a processor: expected +FLAG, -FLAG, FLAG=on, FLAG=off or phys-bits=N")]
    Form {
        /// What was written.
        item: String,
    },
    /// The value does not fit.
    #[error("`{flag}={value}`: expected {expected}")]
    Value {
        /// The flag.
        flag: String,
        /// The value.
        value: String,
        /// What it can be.
        expected: &'static str,
    },
    /// The flag exists, but not here.
    #[error("`+{flag}`: {name} cannot have it, because {reason}")]
    Absent {
        /// The flag.
        flag: String,
        /// The model's name.
        name: &'static str,
        /// Why.
        reason: String,
    },
}

fn nearest(near: &[String]) -> String {
    match near {
        [] => "`rootmode cpu show MODEL` lists those that a model has".to_owned(),
        near => format!("near ones: {}", near.join(", ")),
    }
}

/// How command lines spell `feature`.
pub fn flag(feature: Feature) -> String {
    let row = feature.row();
    row.flag.map_or_else(|| near::kebab(row.name), str::to_owned)
}

impl Default for Processor {
    fn default() -> Self {
        Self::of(NAMES[0])
    }
}

impl Processor {
    fn of(name: &'static str) -> Self {
        Self { name, text: name.to_owned(), model: Arc::new(parts::model(name)), offer: parts::offer(name) }
    }

    /// The model called `name`, as it is.
    ///
    /// # Errors
    /// [`ProcessorError::UnknownModel`].
    pub fn named(name: &str) -> Result<Self, ProcessorError> {
        let known = NAMES.iter().copied().find(|known| *known == name);
        known.map(Self::of).ok_or_else(|| ProcessorError::UnknownModel { name: name.to_owned() })
    }

    /// The processor that a text as `--cpu` takes it names: a model, then changes by commas.
    ///
    /// # Errors
    /// [`ProcessorError`] names the part of the text that is wrong.
    pub fn parse(text: &str) -> Result<Self, ProcessorError> {
        let mut items = text.split(',');
        let base = Self::named(items.next().unwrap_or_default())?;
        items.try_fold(base, |processor, item| processor.changed(item))
    }

    /// Several of them, by commas: what has neither a sign nor a value begins the next.
    ///
    /// # Errors
    /// [`ProcessorError`] of the first that is wrong.
    pub fn parse_all(text: &str) -> Result<Vec<Self>, ProcessorError> {
        let mut all: Vec<Self> = Vec::new();
        for item in text.split(',') {
            match all.last_mut() {
                Some(last) if item.starts_with(['+', '-']) || item.contains('=') => {
                    *last = last.changed(item)?;
                }
                _ => all.push(Self::named(item)?),
            }
        }
        Ok(all)
    }

    /// The same with one change. A feature that is taken away takes those along that need it.
    ///
    /// # Errors
    /// [`ProcessorError`]: the change is not one, or is not possible.
    pub fn changed(&self, item: &str) -> Result<Self, ProcessorError> {
        let (flag, on) = match (item.strip_prefix('+'), item.strip_prefix('-'), item.split_once('=')) {
            (Some(flag), ..) => (flag, true),
            (_, Some(flag), _) => (flag, false),
            (.., Some(("phys-bits", bits))) => return self.with_width(item, bits),
            (.., Some((flag, value))) => (flag, switch(flag, value)?),
            _ => return Err(ProcessorError::Form { item: item.to_owned() }),
        };
        let Some(feature) = Feature::from_flag(flag) else { return self.with_vmx(item, flag, on) };
        let features =
            if on { self.adding(flag, feature)? } else { without(*self.model.features(), feature) };
        Ok(self.with(item, self.model.physical_width(), features))
    }

    fn with(&self, item: &str, width: u8, features: FeatureSet) -> Self {
        let model = Model::part(self.vendor(), self.model.signature(), width, features);
        Self { text: format!("{},{item}", self.text), model: Arc::new(model), ..self.clone() }
    }

    fn with_vmx(&self, item: &str, flag: &str, on: bool) -> Result<Self, ProcessorError> {
        let unknown = || ProcessorError::UnknownFlag { flag: flag.to_owned(), near: near(flag) };
        let capability = capabilities::from_flag(flag).ok_or_else(unknown)?;
        let offer = capability.set(self.offer, on);
        if on && !(self.model.has(Feature::Vmx) && capability.reported(&offer, &self.model)) {
            let reason = "neither VMX nor the CPUID features here bring it".to_owned();
            return Err(ProcessorError::Absent { flag: flag.to_owned(), name: self.name, reason });
        }
        Ok(Self { text: format!("{},{item}", self.text), offer, ..self.clone() })
    }

    fn with_width(&self, item: &str, bits: &str) -> Result<Self, ProcessorError> {
        // SDM Vol. 3A "Enumeration of Paging Features by CPUID": at most 52; without PSE-36 nothing is below 32.
        let width = bits.parse().ok().filter(|width| (32..=52).contains(width));
        let width = width.ok_or_else(|| ProcessorError::Value {
            flag: "phys-bits".into(),
            value: bits.to_owned(),
            expected: "a number from 32 to 52",
        })?;
        Ok(self.with(item, width, *self.model.features()))
    }

    fn adding(&self, flag: &str, feature: Feature) -> Result<FeatureSet, ProcessorError> {
        let opt_in = |feature: Feature| self.vendor() == Vendor::Amd && parts::OPT_IN.contains(&feature);
        let absent = |reason| Err(ProcessorError::Absent { flag: flag.to_owned(), name: self.name, reason });
        if !parts::most(self.vendor()).has(feature) && !opt_in(feature) {
            let row = feature.row();
            let (leaf, bit) = (format!("CPUID.{:X}H.{}", row.leaf, row.subleaf), row.bit);
            return absent(format!("no model of its vendor has {leaf}:{:?}[{bit}] here", row.output));
        }
        let mut features = *self.model.features();
        let mut wanted = vec![feature];
        while let Some(feature) = wanted.pop() {
            features = features.with(feature);
            let missing = feature.needs().iter().filter(|needed| !features.has(**needed));
            for needed in missing {
                if !opt_in(*needed) {
                    return absent(format!("it needs {}", self::flag(*needed)));
                }
                wanted.push(*needed);
            }
        }
        Ok(features)
    }

    /// The model's name, without changes.
    pub const fn name(&self) -> &'static str {
        self.name
    }
    /// Name and changes, as `--cpu` takes them.
    pub fn text(&self) -> &str {
        &self.text
    }
    /// What the engine runs.
    pub const fn model(&self) -> &Arc<Model> {
        &self.model
    }
    /// Whose.
    pub fn vendor(&self) -> Vendor {
        self.model.vendor()
    }
    /// Its VMX or SVM, if it has that; `level` is what runs in host mode, `watch` who watches.
    pub fn extension(&self, level: Level, watch: Option<&Watch>) -> Option<Box<dyn Virtualization>> {
        let feature = match self.vendor() {
            Vendor::Intel => Feature::Vmx,
            Vendor::Amd => Feature::Svm,
        };
        self.model.has(feature).then(|| extension(&self.model, &self.offer, level, watch))
    }
    /// The flags of what its VMX capability MSRs report.
    fn vmx_flags(&self) -> Vec<String> {
        let vmx = self.model.has(Feature::Vmx);
        if vmx { capabilities::flags(&self.offer, &self.model) } else { Vec::new() }
    }
    /// What the real part has and this simulator lacks, as flags and `leaf N`; empty for models that stand for no part.
    pub fn lacks(&self) -> Vec<String> {
        parts::lacks(self.name)
    }
}

/// The extension of a processor of `model`, whose VMX offers `offer`.
pub(crate) fn extension(
    model: &Model,
    offer: &Offer,
    level: Level,
    watch: Option<&Watch>,
) -> Box<dyn Virtualization> {
    match model.vendor() {
        Vendor::Intel => {
            let vmx = Vmx::offering(offer, model, level);
            Box::new(vmx.watched(watch.map(|watch| watch.vmx.clone())))
        }
        Vendor::Amd => {
            let svm = SvmProcessor::new("max-amd", *model.features(), model.physical_width());
            Box::new(Svm::new(svm, level).watched(watch.map(|watch| watch.svm.clone())))
        }
    }
}

impl serde::Serialize for Processor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// QEMU's words for a switch.
fn switch(flag: &str, value: &str) -> Result<bool, ProcessorError> {
    match value {
        "on" | "yes" | "true" => Ok(true),
        "off" | "no" | "false" => Ok(false),
        _ => Err(ProcessorError::Value {
            flag: flag.to_owned(),
            value: value.to_owned(),
            expected: "on or off",
        }),
    }
}

/// `features` without one, and without those that need it.
fn without(features: FeatureSet, feature: Feature) -> FeatureSet {
    let rest = features.without(feature);
    let needing = features.iter().filter(|other| *other != feature && other.needs().contains(&feature));
    needing.fold(rest, |rest, other| if rest.has(other) { without(rest, other) } else { rest })
}
