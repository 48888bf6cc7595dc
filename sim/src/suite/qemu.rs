//! QEMU's options in test lists, translated to what our machine has.

use std::sync::Arc;

use rootmode_arch::Vendor;
use rootmode_cpu::Model;

/// A processor model that a suite runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Core {
    /// Everything that the Intel model has.
    MaxIntel,
    /// Everything that the AMD model has.
    MaxAmd,
}

impl Core {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::MaxIntel, Self::MaxAmd];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxIntel => "max-intel",
            Self::MaxAmd => "max-amd",
        }
    }
    /// The model itself.
    pub fn model(self) -> Arc<Model> {
        Arc::new(match self {
            Self::MaxIntel => Model::max_intel(),
            Self::MaxAmd => Model::max_amd(),
        })
    }
    const fn of(vendor: Vendor) -> Self {
        match vendor {
            Vendor::Intel => Self::MaxIntel,
            Vendor::Amd => Self::MaxAmd,
        }
    }
}

/// What the options ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) core: Core,
    pub(super) processors: Option<u8>,
    pub(super) memory: u64,
    pub(super) append: Option<String>,
    /// What was asked for and has no counterpart here.
    pub(super) notes: Vec<String>,
}

/// Options without an argument that mean nothing here.
const ALONE: &[&str] = &["enable-kvm", "no-reboot", "nodefaults", "no-shutdown", "no-hpet"];
/// Options with an argument that change nothing that a guest sees here.
const WITH: &[&str] = &["global", "overcommit", "display", "serial", "vga", "rtc", "name"];
/// Devices that every machine of ours has.
const DEVICES: &[&str] = &["pc-testdev", "pci-testdev", "isa-debug-exit", "testdev"];

/// Reads options. `core` is the processor that the suite runs on.
///
/// # Errors
/// What the machine would have to have and has not: the test is skipped for it.
pub(super) fn setup(words: &[String], core: Core) -> Result<Setup, String> {
    let mut setup = Setup { core, processors: None, memory: 128 << 20, append: None, notes: Vec::new() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let Some(option) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            setup.notes.push(format!("'{word}' is no option: ignored"));
            continue;
        };
        if ALONE.contains(&option) {
            continue;
        }
        let value = words.next().map(String::as_str).ok_or_else(|| format!("-{option} without its value"))?;
        match option {
            "cpu" => setup.processor(value),
            "m" => setup.memory = memory(value)?,
            "smp" => setup.processors = Some(processors(value)?),
            "append" => setup.append = Some(value.to_owned()),
            "machine" | "M" => setup.machine(value)?,
            "device" => {
                let name = value.split(',').next().unwrap_or(value);
                if !DEVICES.contains(&name) {
                    return Err(format!("the machine has no device {name}"));
                }
            }
            _ if WITH.contains(&option) => {}
            _ => return Err(format!("the machine has no option -{option}")),
        }
    }
    Ok(setup)
}

impl Setup {
    /// `-cpu MODEL[,flag ...]`. Models stand for the suite's own; a named vendor is followed.
    fn processor(&mut self, value: &str) {
        let mut parts = value.split(',');
        let model = parts.next().unwrap_or_default();
        let vendor = match model {
            "Opteron_G1" | "Opteron_G2" | "Opteron_G3" | "EPYC" => Some(Vendor::Amd),
            "IvyBridge" | "Skylake-Server" | "Haswell" | "Broadwell" => Some(Vendor::Intel),
            _ => None,
        };
        let mut core = vendor.map_or(self.core, Core::of);
        for flag in parts {
            match flag {
                "vendor=GenuineIntel" => core = Core::MaxIntel,
                "vendor=AuthenticAMD" => core = Core::MaxAmd,
                // Ours are always those of the model.
                "host-phys-bits" | "host-phys-bits=off" | "migratable=no" => {}
                flag => self.notes.push(format!("-cpu flag {flag} ignored")),
            }
        }
        if core != self.core {
            self.notes.push(format!("-cpu {value}: ran on {}", core.name()));
            self.core = core;
        } else if !matches!(model, "max" | "host") {
            self.notes.push(format!("-cpu {model}: ran as {}", core.name()));
        }
    }

    fn machine(&mut self, value: &str) -> Result<(), String> {
        for property in value.split(',') {
            match property {
                "pc" | "type=pc" | "accel=kvm" | "accel=tcg" => {}
                "q35" | "microvm" => return Err(format!("the machine is no {property}")),
                property => self.notes.push(format!("-machine {property} ignored")),
            }
        }
        Ok(())
    }
}

/// A size as QEMU's -m takes it: MiB without a suffix.
fn memory(text: &str) -> Result<u64, String> {
    let text = text.strip_prefix("size=").unwrap_or(text);
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "m" | "M" => 20,
        "g" | "G" => 30,
        "k" | "K" => 10,
        _ => return Err(format!("-m {text}: no size")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("-m {text}: no size"))?;
    number.checked_mul(1 << shift).filter(|n| *n > 0).ok_or_else(|| format!("-m {text}: no size"))
}

/// A number of processors that a machine can have.
pub(super) fn processors(text: &str) -> Result<u8, String> {
    let number = text.split(',').next().unwrap_or(text);
    let number = number.strip_prefix("cpus=").unwrap_or(number);
    let number = if matches!(number, "$MAX_SMP" | "$(($MAX_SMP))") { "8" } else { number };
    match number.parse() {
        Ok(count) if crate::machine::PROCESSORS.contains(&count) => Ok(count),
        _ => Err(format!("{text} processors: the machine has from 1 to 8")),
    }
}
