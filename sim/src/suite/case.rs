//! [`Case`]: a definition on a processor; variants; which cases are skipped, and why.

use std::path::{Path, PathBuf};

use regex::Regex;
use rootmode_arch::Vendor;
use rootmode_cpu::Model;
use rootmode_models::devices::rtc::Date;
use rootmode_models::kvm::vm::host_of;

use super::words::split;
use super::{Definition, qemu};
use crate::processor::Processor;

/// One run to be made, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// A name of its own: the definition's, with the variants' additions.
    pub name: String,
    /// The definition. A generator gets all of it, and cannot lose a key on the way.
    pub definition: Definition,
    /// On which processor. The list's own options may still change it.
    pub cpu: Processor,
    /// Why it is not run: what a generator says, or else what the runner finds.
    pub skipped: Option<String>,
    /// What is run.
    pub(super) setup: Option<Launch>,
}

/// Everything that a machine is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) image: PathBuf,
    pub(super) qemu: qemu::Setup,
    pub(super) processors: u8,
    pub(super) command_line: String,
    /// The initial RAM disk: the test's environment, a variable a line.
    pub(super) environment: String,
    /// In a VM of the model of KVM.
    pub(super) hosted: bool,
    /// Seconds.
    pub(super) timeout: u64,
}

/// One definition becomes any number of cases: what upstream's `ARCH_CMD` hook is, as a typed function.
pub type Generator = Box<dyn Fn(&Case) -> Vec<Case>>;

/// The case itself on every one of `cpus`; names stay, because outcomes name their processor.
pub fn processors(cpus: Vec<Processor>) -> Generator {
    Box::new(move |case| cpus.iter().map(|cpu| Case { cpu: cpu.clone(), ..case.clone() }).collect())
}

/// The case itself, and the same with every other number of processors.
pub fn on_processors(counts: Vec<u8>) -> Generator {
    Box::new(move |case| {
        let variant = |count: &u8| {
            let mut variant = case.clone();
            variant.name = format!("{}-smp{count}", case.name);
            variant.definition.smp = Some(count.to_string());
            variant
        };
        [case.clone()].into_iter().chain(counts.iter().map(variant)).collect()
    })
}

/// What is asked for.
pub struct Request {
    /// Only names in which this matches somewhere.
    pub filter: Option<Regex>,
    /// Only this group; its tests run even if they are marked as manual.
    pub group: Option<String>,
    /// Manual tests too.
    pub all: bool,
    /// What the images were built for.
    pub arch: String,
    /// The accelerator that is claimed; without one, tests for every accelerator run.
    pub accel: Option<String>,
    /// Replaces every test's seconds.
    pub timeout: Option<u64>,
    /// Replaces every test's checks.
    pub check: Option<String>,
    /// Variables `NAME=value` of every test's environment.
    pub environment: Vec<String>,
    /// The cases' processors are asked for: whatever vendor the list names.
    pub fixed: bool,
    /// Tests run as guests of the model of KVM.
    pub hosted: bool,
    /// Applied one after the other to what the one before made, first to a case on the default processor.
    pub generators: Vec<Generator>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            filter: None,
            group: None,
            all: false,
            arch: "x86_64".into(),
            accel: None,
            timeout: None,
            check: None,
            environment: Vec::new(),
            fixed: false,
            hosted: false,
            generators: Vec::new(),
        }
    }
}

/// Seconds that a test may take if its definition does not say.
const TIMEOUT: u64 = 90;

/// What the files that upstream's checks read would say on a host whose processor is the case's, with a hypervisor that
/// offers everything that the processor has, or with the model of KVM. (Parameters of kvm.ko and kvm-intel.ko: Linux 6.12, arch/x86/kvm.)
fn file(path: &str, cpu: &Processor, hosted: bool) -> Option<&'static str> {
    Some(match path {
        "/sys/module/kvm/parameters/enable_pmu" => {
            // Intel enumerates counters by leaf 0AH's version; AMD has had four since its first 64-bit processors.
            let version = |model: &Model| model.leaves().get(&(0xa, 0)).map_or(0, |leaf| leaf[0] & 0xff);
            let version = if hosted { version(&host_of(cpu.model())) } else { version(cpu.model()) };
            if cpu.vendor() == Vendor::Amd || version > 0 { "Y" } else { "N" }
        }
        "/sys/module/kvm/parameters/ignore_msrs" => "N",
        "/sys/module/kvm/parameters/enable_vmware_backdoor" => "N",
        // A processor with fewer physical-address bits is exact here, not emulated on one with more.
        "/sys/module/kvm_intel/parameters/allow_smaller_maxphyaddr" if cpu.vendor() == Vendor::Intel => {
            if hosted {
                "N"
            } else {
                "Y"
            }
        }
        "/proc/sys/kernel/nmi_watchdog" => "0",
        "/sys/devices/system/clocksource/clocksource0/current_clocksource" => "tsc",
        _ => return None,
    })
}

/// The cases of a list, in its order: those that filters leave out are not among them, those that are skipped say why.
pub fn plan(definitions: &[Definition], folder: &Path, request: &Request) -> Vec<Case> {
    let wanted = |name: &str| request.filter.as_ref().is_none_or(|filter| filter.is_match(name));
    let in_group = |d: &Definition| request.group.as_ref().is_none_or(|group| d.is_in(group));
    let mut cases = Vec::new();
    for definition in definitions {
        let base = Case {
            name: definition.name.clone(),
            definition: definition.clone(),
            cpu: Processor::default(),
            skipped: None,
            setup: None,
        };
        let mut variants = vec![base];
        for generator in &request.generators {
            variants = variants.iter().flat_map(generator).collect();
        }
        variants.retain(|case| wanted(&case.name) && in_group(&case.definition));
        // A generator may refuse a variant, with its reason.
        for case in variants.iter_mut().filter(|case| case.skipped.is_none()) {
            match launch(case, folder, request) {
                Ok(launch) => case.setup = Some(launch),
                Err(reason) => case.skipped = Some(reason),
            }
        }
        cases.extend(variants);
    }
    cases
}

/// What to run, or why not. The order of the questions is upstream's.
fn launch(case: &Case, folder: &Path, request: &Request) -> Result<Launch, String> {
    let definition = &case.definition;
    if definition.is_in("pv-host") {
        return Err("no gen-se-header available for pv-host test".into());
    }
    if request.group.is_none() && !request.all && definition.is_in("nodefault") {
        return Err("test marked as manual run only".into());
    }
    if let Some(arch) = definition.arch.as_ref().filter(|arch| **arch != request.arch) {
        return Err(format!("{arch} only"));
    }
    if let Some(machine) = definition.machine.as_ref().filter(|machine| *machine != "pc") {
        return Err(format!("{machine} only"));
    }
    if let (Some(accel), Some(claimed)) = (&definition.accel, &request.accel)
        && claimed.split(',').next() != Some(accel)
    {
        return Err(format!("{accel} only, but ACCEL={claimed}"));
    }
    if let Some(condition) = &definition.disabled_if
        && holds(condition, request)?
    {
        return Err(format!("disabled because: {condition}"));
    }
    let checks = request.check.as_ref().or(definition.check.as_ref());
    for check in checks.iter().flat_map(|checks| checks.split_whitespace()) {
        let (path, value) = check.split_once('=').unwrap_or((check, check));
        if file(path, &case.cpu, request.hosted) != Some(value) {
            return Err(format!("{path} not equal to {value}"));
        }
    }
    let file = definition.file.as_deref().unwrap_or("");
    let image = folder.join(file);
    if file.is_empty() || !image.is_file() {
        return Err(format!("Test file '{}' not found", image.display()));
    }
    for group in ["migration", "panic"] {
        if definition.is_in(group) {
            return Err(format!("the machine has no {group} harness"));
        }
    }
    let words = |text: &str| split(text, command).map_err(|e| e.to_string());
    // Of several words the first follows -append; the others are options, as on upstream's command line.
    let mut arguments = words(definition.test_args.as_deref().unwrap_or(""))?;
    let mut options = if arguments.is_empty() { Vec::new() } else { arguments.split_off(1) };
    options.extend(words(&definition.params)?);
    let qemu = qemu::setup(&options, &case.cpu, request.fixed)?;
    let smp = definition.smp.as_deref().map(qemu::processors).transpose()?;
    Ok(Launch {
        image,
        processors: qemu.processors.or(smp).unwrap_or(1),
        command_line: qemu.append.clone().or(arguments.pop()).unwrap_or_default(),
        environment: request.environment.iter().map(|variable| format!("{variable}\n")).collect(),
        hosted: request.hosted,
        timeout: match (request.timeout, &definition.timeout) {
            (Some(seconds), _) => seconds,
            (None, Some(text)) => duration(text).ok_or_else(|| format!("timeout {text}: no duration"))?,
            (None, None) => TIMEOUT,
        },
        qemu,
    })
}

/// Commands in backticks whose output is part of the machine's configuration.
fn command(text: &str) -> Option<String> {
    // The date at which every machine starts.
    let epoch = Date { year: 1970, ..Date::default() };
    (text.trim() == "date +%s").then(|| (Date::default().seconds() - epoch.seconds()).to_string())
}

/// A duration of `timeout(1)` in seconds; 0 is no limit.
fn duration(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(['s', 'm', 'h']);
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// Conditions without a shell: `true`, `false`, and comparisons `[[ "$NAME" == text ]]`, `!=`, of ARCH and ACCEL.
fn holds(condition: &str, request: &Request) -> Result<bool, String> {
    let unknown = || format!("disabled_if needs a shell: {condition}");
    let words = split(condition, |_| None).map_err(|_| unknown())?;
    let value = |word: &str| match word.strip_prefix('$').map(|name| name.trim_matches(['{', '}'])) {
        None => Some(word.to_owned()),
        Some("ARCH") => Some(request.arch.clone()),
        Some("ACCEL") => Some(request.accel.clone().unwrap_or_default()),
        Some(_) => None,
    };
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["true"] => Ok(true),
        ["false"] => Ok(false),
        ["[[" | "[", left, operator @ ("=" | "==" | "!="), right, "]]" | "]"] => {
            let (left, right) = (value(left).ok_or_else(unknown)?, value(right).ok_or_else(unknown)?);
            Ok((left == right) != (operator == "!="))
        }
        _ => Err(unknown()),
    }
}
