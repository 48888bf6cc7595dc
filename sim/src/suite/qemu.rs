//! QEMU's options in test lists, translated to what our machine has.

use rootmode_arch::Vendor;

use crate::machine::PROCESSORS;
use crate::processor::{Processor, ProcessorError};

/// What the options ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setup {
    pub(super) cpu: Processor,
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

/// Reads options. `cpu` is the processor that the case is for; if `fixed`, whatever vendor the list names.
///
/// # Errors
/// What the machine would have to have and has not: the test is skipped for it.
pub(super) fn setup(words: &[String], cpu: &Processor, fixed: bool) -> Result<Setup, String> {
    let cpu = cpu.clone();
    let mut setup = Setup { cpu, processors: None, memory: 128 << 20, append: None, notes: Vec::new() };
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
            "cpu" => setup.processor(value, fixed)?,
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
    /// `-cpu MODEL[,flag ...]`: the case's processor stands for the model, with the flags. A named vendor that is not the
    /// case's is another case's, unless the case's processor is fixed.
    fn processor(&mut self, value: &str, fixed: bool) -> Result<(), String> {
        let mut flags = value.split(',');
        let model = flags.next().unwrap_or_default();
        let mut vendor = match model {
            "Opteron_G1" | "Opteron_G2" | "Opteron_G3" | "EPYC" => Some(Vendor::Amd),
            "IvyBridge" | "Skylake-Server" | "Haswell" | "Broadwell" => Some(Vendor::Intel),
            _ => None,
        };
        if !matches!(model, "max" | "host") {
            self.notes.push(format!("-cpu {model}: ran as {}", self.cpu.name()));
        }
        for flag in flags {
            match flag {
                "vendor=GenuineIntel" => vendor = Some(Vendor::Intel),
                "vendor=AuthenticAMD" => vendor = Some(Vendor::Amd),
                // The width is always the model's own, or what phys-bits says; there is no migration.
                "host-phys-bits" | "host-phys-bits=off" | "migratable=no" => {}
                flag => match self.cpu.changed(flag) {
                    Ok(changed) => self.cpu = changed,
                    // QEMU warns and goes on without what it cannot offer.
                    Err(error @ ProcessorError::Absent { .. }) => self.notes.push(format!("-cpu {error}")),
                    Err(_) => self.notes.push(format!("-cpu flag {flag} ignored")),
                },
            }
        }
        match vendor {
            Some(vendor) if vendor != self.cpu.vendor() && fixed => {
                self.notes.push(format!(
                    "-cpu {value}: the list asks for {vendor:?}, --cpu for {}",
                    self.cpu.name()
                ));
                Ok(())
            }
            Some(vendor) if vendor != self.cpu.vendor() => {
                Err(format!("the list asks for a processor of {vendor:?}"))
            }
            _ => Ok(()),
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
        Ok(count) if PROCESSORS.contains(&count) => Ok(count),
        _ => Err(format!(
            "{text} processors: the machine has from {} to {}",
            PROCESSORS.start(),
            PROCESSORS.end()
        )),
    }
}
