//! Which Codes are judged, and why the others are not.

use super::encodings::{Template, encodings};
use iced_x86::{Code, CpuidFeature as C};
use rootmode_arch::Feature;
use rootmode_cpu::Model;
use std::collections::BTreeMap;

/// Codes that are not judged, with reasons: `NAME: reason`, or `NAME*: reason` for all that start so.
const EXCLUSIONS: &str = include_str!("exclusions.txt");

/// An instruction form: a Code in code of 32 or 64 bits.
#[derive(Clone, Debug)]
pub struct Form {
    /// The Code.
    pub code: Code,
    /// 32 or 64.
    pub bits: u32,
    /// Its encodings.
    pub templates: Vec<Template>,
}

/// Every Code that the model advertises and user mode can run, sorted by what becomes of it.
#[derive(Debug, Default)]
pub struct Scope {
    /// Judged.
    pub judged: Vec<Form>,
    /// On the list of exclusions, with the reason.
    pub excluded: Vec<(Code, &'static str)>,
    /// The model has it, the host does not.
    pub host_lacks: Vec<Code>,
}

impl Scope {
    /// Codes in scope.
    pub fn codes(&self) -> usize {
        self.judged_codes() + self.excluded.len() + self.host_lacks.len()
    }

    /// Codes that are judged, in one mode or both.
    pub fn judged_codes(&self) -> usize {
        let mut codes: Vec<Code> = self.judged.iter().map(|form| form.code).collect();
        codes.sort_unstable();
        codes.dedup();
        codes.len()
    }
}

/// The scope of `model` on a host that has what `host_has` says. A form of 32-bit code is judged only where 64-bit code does not
/// have the Code, unless `everywhere`.
///
/// # Errors
/// An exclusion that names no Code.
pub fn scope(model: &Model, host_has: &dyn Fn(Feature) -> bool, everywhere: bool) -> Result<Scope, String> {
    let amd = model.vendor() == rootmode_arch::Vendor::Amd;
    let mut all: BTreeMap<Code, Vec<Form>> = BTreeMap::new();
    for bits in [64, 32] {
        for (code, templates) in encodings(bits, amd) {
            let forms = all.entry(code).or_default();
            if forms.is_empty() || everywhere {
                forms.push(Form { code, bits, templates });
            }
        }
    }
    let exclusions = exclusions();
    let mut scope = Scope::default();
    for (code, forms) in all {
        let features = code.cpuid_features();
        if is_privileged(code) || !features.iter().all(|f| provided(*f, &|feature| model.has(feature))) {
            continue;
        }
        let name = format!("{code:?}");
        if let Some(at) = exclusions.iter().position(|(pattern, _)| matches(pattern, &name)) {
            scope.excluded.push((code, exclusions[at].1));
        } else if !features.iter().all(|f| provided(*f, host_has)) {
            scope.host_lacks.push(code);
        } else {
            scope.judged.extend(forms);
        }
    }
    let known: Vec<String> = Code::values().map(|code| format!("{code:?}")).collect();
    match exclusions.iter().find(|(pattern, _)| !known.iter().any(|name| matches(pattern, name))) {
        Some((pattern, _)) => Err(format!("exclusions.txt: {pattern} names no Code")),
        None => Ok(scope),
    }
}

fn exclusions() -> Vec<(&'static str, &'static str)> {
    let lines = EXCLUSIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(": ")).collect()
}

fn matches(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

/// Instructions that always fault above CPL 0, or with the I/O privilege level of user mode.
fn is_privileged(code: Code) -> bool {
    let mut instruction = iced_x86::Instruction::default();
    instruction.set_code(code);
    instruction.is_privileged()
}

/// Whether a processor whose features `has` tells has what iced calls `feature`. Written apart from the engine's own table.
pub(crate) fn provided(feature: C, has: &dyn Fn(Feature) -> bool) -> bool {
    use Feature as F;
    let needs = match feature {
        C::INTEL8086 | C::INTEL8086_ONLY | C::INTEL186 | C::INTEL286 | C::INTEL386 | C::INTEL486 => {
            return true;
        }
        C::X64 | C::CPUID | C::PAUSE | C::MULTIBYTENOP | C::RDPMC | C::SMM | C::CET_IBT => return true,
        C::FPU | C::FPU287 | C::FPU387 => F::Fpu,
        C::PREFETCHW => return true,
        C::TSC => F::Tsc,
        C::MSR => F::Msr,
        C::CX8 => F::Cx8,
        C::CMPXCHG16B => F::Cmpxchg16b,
        C::CMOV => F::Cmov,
        C::SYSCALL => F::Syscall,
        C::SEP => F::Sep,
        C::RDTSCP => F::Rdtscp,
        C::RDPID => F::Rdpid,
        C::RDPRU => F::Rdpru,
        C::RDRAND => F::Rdrand,
        C::RDSEED => F::Rdseed,
        C::FSGSBASE => F::Fsgsbase,
        C::PKU => F::Pku,
        C::MOVBE => F::Movbe,
        C::POPCNT => F::Popcnt,
        C::BMI1 => F::Bmi1,
        C::BMI2 => F::Bmi2,
        C::LZCNT => F::Abm,
        C::ADX => F::Adx,
        C::CLFSH => F::Clflush,
        C::CLFLUSHOPT => F::Clflushopt,
        C::CLWB => F::Clwb,
        C::CLDEMOTE => F::Cldemote,
        C::CLZERO => F::Clzero,
        C::MOVDIRI => F::Movdiri,
        C::MOVDIR64B => F::Movdir64b,
        C::SERIALIZE => F::Serialize,
        C::MMX => F::Mmx,
        C::FXSR => F::Fxsr,
        C::SSE => F::Sse,
        C::SSE2 => F::Sse2,
        C::SSE3 => F::Sse3,
        C::SSSE3 => F::Ssse3,
        C::SSE4_1 => F::Sse41,
        C::SSE4_2 => F::Sse42,
        C::SSE4A => F::Sse4a,
        C::AES => F::Aes,
        C::PCLMULQDQ => F::Pclmulqdq,
        C::SHA => F::Sha,
        C::AVX => F::Avx,
        C::AVX2 => F::Avx2,
        C::FMA => F::Fma,
        C::F16C => F::F16c,
        C::VAES => F::Vaes,
        C::VPCLMULQDQ => F::Vpclmulqdq,
        C::XSAVE => F::Xsave,
        C::XSAVEC => F::XsaveC,
        C::XSAVEOPT => F::XsaveOpt,
        C::CET_SS => F::Shstk,
        C::VMX => F::Vmx,
        C::SVM => F::Svm,
        C::INVEPT | C::INVVPID => F::Vmx,
        C::INVPCID => F::Invpcid,
        C::MONITOR => F::Monitor,
        C::XSAVES => F::Xsaves,
        C::SMAP => F::Smap,
        _ => return false,
    };
    has(needs)
}
