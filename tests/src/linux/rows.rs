//! The table: what is run on which kernel, processor and number of processors, and what each has to say.

use super::dumps::Refusal;

/// A kernel of Debian's, by the package that depends on its newest build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    pub(super) name: &'static str,
    pub(super) package: &'static str,
}

impl Kernel {
    /// The name of the row that compares its plain boot with QEMU's.
    pub(super) fn tcg_name(self) -> String {
        format!("tcg-{}", self.name)
    }
}

pub(super) const KERNELS: [Kernel; 2] = [
    Kernel { name: "6.1", package: "linux-image-cloud-amd64" },
    Kernel { name: "6.12", package: "linux-image-6.12-cloud-amd64" },
];

/// Whose processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    Intel,
    Amd,
}

impl Vendor {
    pub(super) const ALL: [Self; 2] = [Self::Intel, Self::Amd];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Intel => "intel",
            Self::Amd => "amd",
        }
    }

    pub(super) const fn model(self) -> &'static str {
        match self {
            Self::Intel => "max-intel",
            Self::Amd => "max-amd",
        }
    }

    pub(super) const fn module(self) -> &'static str {
        match self {
            Self::Intel => "kvm-intel",
            Self::Amd => "kvm-amd",
        }
    }

    /// What switches the second stage of translation.
    pub(super) const fn second_stage(self) -> &'static str {
        match self {
            Self::Intel => "ept",
            Self::Amd => "npt",
        }
    }

    /// Options of the module that are not on by themselves.
    pub(super) const fn options(self) -> &'static str {
        match self {
            Self::Intel => "nested=1",
            Self::Amd => "avic=1 nested=1",
        }
    }

    /// Parameters of the module that stand for what a processor has. Of the last of Intel's the value is a number.
    pub(super) const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Intel => &[
                "ept",
                "eptad",
                "unrestricted_guest",
                "vpid",
                "vnmi",
                "flexpriority",
                "enable_apicv",
                "enable_ipiv",
                "pml",
                "preemption_timer",
                "enable_shadow_vmcs",
                "nested",
                "ple_gap",
            ],
            Self::Amd => &["npt", "nrips", "vgif", "vls", "lbrv", "vnmi", "tsc_scaling", "avic", "nested"],
        }
    }
}

/// What a row runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// To the marker of the init and power-off.
    Boot,
    /// The same as a guest of the model of KVM.
    Hosted,
    /// KVM's modules: their parameters, as the processor allows them.
    Modules,
    /// The client under KVM, with every parameter on, and with each of them off.
    Client,
    /// A second Linux under KVM, with or without a second stage of translation.
    Linux { second_stage: bool, processors: u8 },
    /// The client's broken entries, and what KVM dumps of them.
    Dump,
    /// Generated hypervisors under KVM, which do there what they do on the processor itself.
    Real { programs: u64 },
    /// The client under the KVM of a second Linux, so that its guests are third ones.
    Nested,
}

/// A line of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    pub(super) what: What,
    pub(super) kernel: Kernel,
    pub(super) vendor: Vendor,
    pub(super) processors: u8,
}

impl Row {
    /// What `--only` looks at.
    pub(super) fn name(&self) -> String {
        let what = match self.what {
            What::Boot => "boot".to_owned(),
            What::Hosted => "hosted".to_owned(),
            What::Modules => "modules".to_owned(),
            What::Client => "client".to_owned(),
            What::Dump => "dump".to_owned(),
            What::Linux { second_stage, processors } => {
                let stage = if second_stage { self.vendor.second_stage() } else { "shadow" };
                format!("linux-{stage}-{processors}")
            }
            What::Nested => "nested".to_owned(),
            What::Real { .. } => "real".to_owned(),
        };
        format!("{what}-{}-{}-{}", self.kernel.name, self.vendor.name(), self.processors)
    }

    /// The entries that it breaks.
    pub(super) fn refusals(&self) -> &'static [Refusal] {
        if self.what == What::Dump { self.vendor.refusals() } else { &[] }
    }

    pub(super) fn all() -> Vec<Self> {
        let mut rows = Vec::new();
        for what in [
            What::Boot,
            What::Hosted,
            What::Modules,
            What::Client,
            What::Dump,
            What::Linux { second_stage: true, processors: 1 },
            What::Linux { second_stage: false, processors: 1 },
            What::Linux { second_stage: true, processors: 2 },
            What::Linux { second_stage: false, processors: 2 },
            What::Nested,
        ] {
            let counts: &[u8] = match what {
                What::Boot => &[1, 2, 4, 16],
                What::Modules | What::Client => &[2],
                What::Hosted | What::Dump | What::Nested | What::Real { .. } => &[1],
                What::Linux { processors, .. } => {
                    if processors == 1 {
                        &[1]
                    } else {
                        &[2]
                    }
                }
            };
            let kernels = if what == What::Hosted { &KERNELS[..1] } else { &KERNELS };
            for &kernel in kernels {
                for vendor in Vendor::ALL {
                    rows.extend(counts.iter().map(|&processors| Self { what, kernel, vendor, processors }));
                }
            }
        }
        rows
    }

    /// Generated hypervisors, so many in each row. They are not part of the table while they find differences.
    pub(super) fn real(programs: u64) -> impl Iterator<Item = Self> {
        let what = What::Real { programs };
        let row = move |kernel, vendor| Self { what, kernel, vendor, processors: 1 };
        KERNELS.into_iter().flat_map(move |kernel| Vendor::ALL.map(|vendor| row(kernel, vendor)))
    }

    /// The part of CI: of one kernel and one vendor the smallest boot, the modules or the client; which of them, `turn` decides.
    pub(super) fn sample(turn: usize) -> Vec<Self> {
        let (kernel, vendor) = (KERNELS[turn % 2], Vendor::ALL[turn / 2 % 2]);
        let counts = [1, 2, 4];
        let boot = Self { what: What::Boot, kernel, vendor, processors: counts[turn / 4 % 3] };
        let mut rows = vec![boot];
        rows.push(Self {
            what: What::Modules,
            kernel,
            vendor: Vendor::ALL[(turn / 2 + 1) % 2],
            processors: 1,
        });
        rows
    }
}
