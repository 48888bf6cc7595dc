//! Entries that the client breaks on purpose, and what `rootmode explain` has to find in what the kernel dumps of each.

use std::path::{Path, PathBuf};

use rootmode::explain::explain;

use crate::documents::root;

use super::rows::{Row, Vendor};

/// How the kernel begins a dump (Linux 6.12, dump_vmcs in arch/x86/kvm/vmx/vmx.c, dump_vmcb in arch/x86/kvm/svm/svm.c), and what it
/// says if it may not dump. No other line of a log has these words.
const BEGINS: [&str; 4] =
    ["last attempted VM-entry", "last attempted VMRUN", "dump_invalid_vmcs=1 to", "dump_invalid_vmcb=1 to"];

/// A way to break an entry, as the client calls it, and the rule that it breaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refusal {
    pub(super) name: &'static str,
    pub(super) rule: &'static str,
}

const fn refusal(name: &'static str, rule: &'static str) -> Refusal {
    Refusal { name, rule }
}

impl Vendor {
    /// What the client can break on this vendor's processors. On AMD's most of what KVM lets through is legal.
    pub(super) const fn refusals(self) -> &'static [Refusal] {
        const INTEL: &[Refusal] = &[
            refusal("tr_type", "vmx.guest.tr.type.long"),
            refusal("cs_long_and_default", "vmx.guest.cs.d"),
            refusal("ss_read_only", "vmx.guest.ss.type"),
            refusal("gdtr_base", "vmx.guest.gdtr.base"),
            refusal("sti_without_if", "vmx.guest.interruptibility.sti-if"),
            refusal("interrupt_without_if", "vmx.guest.rflags.if"),
        ];
        const AMD: &[Refusal] = &[
            refusal("cs_long_and_default", "svm.cs.long-and-default"),
            refusal("bound_in_long_mode", "svm.eventinj.impossible-in-64-bit-mode"),
            refusal("cr3_width", "svm.cr3.reserved"),
        ];
        match self {
            Self::Intel => INTEL,
            Self::Amd => AMD,
        }
    }

    /// Option of the module that lets it dump.
    pub(super) const fn dump_option(self) -> &'static str {
        match self {
            Self::Intel => "dump_invalid_vmcs=1",
            Self::Amd => "dump_invalid_vmcb=1",
        }
    }

    /// What KVM hands over as the reason: the VM exit "invalid guest state", and VMEXIT_INVALID in 32 bits.
    const fn refused_with(self) -> &'static str {
        match self {
            Self::Intel => "0x80000021",
            Self::Amd => "0xffffffff",
        }
    }
}

/// What `explain` is given: what was printed while an entry was refused, and the processor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Dump {
    name: String,
    text: String,
}

/// What a log has between the client's lines about its entries, and the rest of the log.
#[derive(Debug, Default)]
struct Split<'a> {
    /// By name, with the reason that the client saw.
    entries: Vec<(&'a str, &'a str, Vec<&'a str>)>,
    rest: Vec<&'a str>,
}

impl<'a> Split<'a> {
    fn new(output: &'a str) -> Self {
        let mut split = Self::default();
        let mut open: Option<(&str, Vec<&str>)> = None;
        for line in output.lines() {
            let said = line.split_once("ROOTMODE ").map_or("", |(_, said)| said.trim_end());
            if let Some(name) = said.strip_prefix("entry ") {
                open = Some((name, Vec::new()));
            } else if let Some((name, reason)) =
                said.strip_prefix("refused ").and_then(|said| said.split_once(' '))
            {
                if let Some((_, lines)) = open.take_if(|(opened, _)| *opened == name) {
                    split.entries.push((name, reason, lines));
                }
            } else if let Some((_, lines)) = &mut open {
                lines.push(line.trim_end());
            } else {
                split.rest.push(line);
            }
        }
        // What is not closed belongs to nothing.
        split.rest.extend(open.into_iter().flat_map(|(_, lines)| lines));
        split
    }
}

/// The dumps of a row that breaks entries, or what is wrong. In other logs a dump is wrong.
pub(super) fn judge(row: &Row, refusals: &[Refusal], output: &str) -> (Vec<Dump>, Vec<String>) {
    let split = Split::new(output);
    let mut failures: Vec<String> = split
        .rest
        .iter()
        .filter(|line| BEGINS.iter().any(|begin| line.contains(begin)))
        .map(|line| format!("a dump that nothing asked for: {:?}", line.trim()))
        .collect();
    let mut dumps = Vec::new();
    for Refusal { name, rule } in refusals {
        let Some((_, reason, lines)) = split.entries.iter().find(|(entry, ..)| entry == name) else {
            failures.push(format!("{name}: no refused entry"));
            continue;
        };
        if *reason != row.vendor.refused_with() {
            failures.push(format!("{name}: refused with {reason} instead of {}", row.vendor.refused_with()));
        }
        let text = format!(
            "# Printed by the {} of Debian's Linux {} in {} of `rootmode-tests linux`: {name}, which breaks {rule}\ncpu = {}\n{}\n",
            row.vendor.module(),
            row.kernel.name,
            row.name(),
            row.vendor.model(),
            lines.join("\n")
        );
        failures.extend(wrong(&text, rule).map(|why| format!("{name}: {why}")));
        dumps.push(Dump { name: (*name).to_owned(), text });
    }
    (dumps, failures)
}

/// What is wrong with the explanation of `text`, in which an entry breaks `rule` and nothing else.
fn wrong(text: &str, rule: &str) -> Option<String> {
    let explanation = match explain(text, None) {
        Ok(explanation) => explanation,
        Err(error) => return Some(error.to_string()),
    };
    if let Some(line) = explanation.unreadable.first() {
        return Some(format!("not read: {line}"));
    }
    let [entry] = &explanation.entries[..] else {
        return Some(format!("{} dumps", explanation.entries.len()));
    };
    let broken: Vec<&str> = entry.broken.iter().map(|broken| broken.rule).collect();
    (broken != [rule]).then(|| format!("{broken:?} explain the dump instead of {rule}"))
}

fn path(row: &Row, name: &str) -> PathBuf {
    root().join(format!("tests/dumps/linux/{}-{}-{name}.txt", row.kernel.name, row.vendor.name()))
}

/// Puts the row's dumps in place of those of its last run.
pub(super) fn keep(row: &Row, dumps: &[Dump]) -> Result<(), String> {
    for dump in dumps {
        let path = path(row, &dump.name);
        let failed = |error| format!("{}: {error}", path.display());
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        std::fs::write(&path, &dump.text).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::rows::{KERNELS, What};
    use super::*;

    fn row(vendor: Vendor) -> Row {
        Row { what: What::Dump, kernel: KERNELS[0], vendor, processors: 1 }
    }

    #[test]
    fn the_rule_that_each_entry_broke_explains_alone_what_each_kernel_printed() {
        let rows = Row::all().into_iter().filter(|row| row.what == What::Dump);
        let mut judged = 0;
        for row in rows {
            for refusal in row.vendor.refusals() {
                let text = std::fs::read_to_string(path(&row, refusal.name)).expect("a dump of every row");
                assert_eq!(wrong(&text, refusal.rule), None, "{} {}", row.name(), refusal.name);
                judged += 1;
            }
        }
        assert_eq!(judged, KERNELS.len() * (Vendor::Intel.refusals().len() + Vendor::Amd.refusals().len()));
    }

    #[test]
    fn a_dump_has_to_be_there_and_to_name_the_rule_that_was_broken() {
        let row = row(Vendor::Amd);
        let refusals = &row.vendor.refusals()[..1];
        let failures = |output: &str| judge(&row, refusals, output).1;
        let text = std::fs::read_to_string(path(&row, refusals[0].name)).expect("a dump");
        let (begin, end) =
            ("[ 1] ROOTMODE entry cs_long_and_default", "ROOTMODE refused cs_long_and_default 0xffffffff");
        let good = format!("{begin}\n{text}\n[ 2] {end}\n");
        assert_eq!(failures(&good), [""; 0]);
        assert_eq!(failures(""), ["cs_long_and_default: no refused entry"]);
        assert_eq!(failures(&format!("{begin}\n{end}\n")), ["cs_long_and_default: 0 dumps"]);
        assert_eq!(failures(&good.replace("0xffffffff\n", "0x7f\n")).len(), 1, "another reason");
        let twice = format!("{good}{text}");
        assert!(failures(&twice)[0].starts_with("a dump that nothing asked for"), "outside an entry");
        let other = Refusal { rule: "svm.cr3.reserved", ..refusals[0] };
        let [why] = &judge(&row, &[other], &good).1[..] else { panic!("another rule passes") };
        assert!(why.contains("svm.cs.long-and-default") && why.ends_with("svm.cr3.reserved"), "{why}");
    }
}
