//! The processor models that `--cpu` and `cpu = NAME` know.

use rootmode_svm::capabilities::Processor as SvmProcessor;
use rootmode_vmx::definitions::models::Model as VmxModel;

/// A processor model of either vendor.
#[derive(Clone, Copy, Debug)]
pub enum Cpu {
    /// With VMX.
    Intel(VmxModel),
    /// With SVM.
    Amd(&'static SvmProcessor),
}

/// No model has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no processor model is called `{name}`; known are {}", Cpu::names().join(", "))]
pub struct UnknownCpu {
    /// The name.
    pub name: String,
}

impl Cpu {
    /// The model called `name`.
    ///
    /// # Errors
    /// [`UnknownCpu`] lists the names that exist.
    pub fn from_name(name: &str) -> Result<Self, UnknownCpu> {
        let intel = VmxModel::from_name(name).map(Self::Intel);
        intel
            .or_else(|| SvmProcessor::by_name(name).map(Self::Amd))
            .ok_or_else(|| UnknownCpu { name: name.to_owned() })
    }

    /// The names of all models.
    pub fn names() -> Vec<&'static str> {
        let amd = rootmode_svm::capabilities::PROCESSORS.iter().map(|p| p.name);
        VmxModel::ALL.iter().map(|m| m.name).chain(amd).collect()
    }
}

impl std::str::FromStr for Cpu {
    type Err = UnknownCpu;

    fn from_str(name: &str) -> Result<Self, UnknownCpu> {
        Self::from_name(name)
    }
}
