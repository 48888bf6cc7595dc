//! What came out of a serial port, judged.

use super::dumps::{self, Dump};
use super::initramfs::Modules;
use super::programs;
use super::rows::{Row, What};

/// What no log may contain, as the kernel writes it: WARN and BUG have prefixes in capitals, with which ACPICA's "ACPI Warning:"
/// and a driver's "Warning:" have nothing to do (Linux 6.12, __warn in kernel/panic.c, include/asm-generic/bug.h, oops_begin and
/// watchdogs; ex_handler_msr in arch/x86/mm/extable.c; HW_ERR in include/linux/printk.h).
const FORBIDDEN: [&str; 10] = [
    "WARNING:",
    "BUG:",
    "kernel BUG at",
    "unchecked MSR access",
    "[Hardware Error]",
    "Oops:",
    "Kernel panic",
    "general protection fault",
    "detected stall",
    "LOCKUP",
];

/// What KVM says when it misses a feature or does without one.
const MISSING: [&str; 4] = ["not supported", "disabled by bios", "unsupported", "kvm: no hardware support"];

/// What is wrong, and what is worth telling.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) failures: Vec<String>,
    pub(super) notes: Vec<String>,
    /// Of entries that were broken on purpose.
    pub(super) dumps: Vec<Dump>,
}

/// Judges what a row printed.
pub(super) fn judge(row: &Row, modules: &Modules, output: &str) -> Judged {
    let mut judged = Judged::default();
    let mut fail = |what: String| judged.failures.push(what);
    for forbidden in FORBIDDEN {
        if let Some(line) = output.lines().find(|line| line.contains(forbidden)) {
            fail(format!("it says {:?}", line.trim()));
        }
    }
    let marker = format!("ROOTMODE marker processors={}", row.processors);
    if !output.contains(&marker) {
        fail(format!("no {marker:?}"));
    }
    let said: Vec<&str> =
        output.lines().filter_map(|line| Some(line.split_once("ROOTMODE ")?.1.trim())).collect();
    let refusals = row.refusals();
    let (dumps, wrong) = dumps::judge(row, refusals, output);
    wrong.into_iter().for_each(&mut fail);
    match row.what {
        What::Boot | What::Hosted => {}
        What::Modules => {
            for name in modules.parameters(row.vendor) {
                let value = said.iter().find_map(|line| line.strip_prefix(&format!("parameter {name}=")));
                let on = match value {
                    Some("Y") => true,
                    Some(number) => number.parse::<u32>().is_ok_and(|number| number != 0),
                    None => false,
                };
                if !on {
                    fail(format!("{name} reads {value:?}"));
                }
            }
            for line in output.lines().filter(|line| line.contains("kvm")) {
                let lower = line.to_lowercase();
                if MISSING.iter().any(|missing| lower.contains(missing)) {
                    fail(format!("it says {line:?}"));
                }
            }
        }
        What::Client => {
            let wanted = modules.parameters(row.vendor).count() + 1;
            judge_client(&mut judged, &said, wanted);
        }
        What::Dump => {
            for line in said.iter().filter_map(|line| line.strip_prefix("failed ")) {
                fail(line.to_owned());
            }
            judged.notes.push(format!("{} dumps explained", dumps.len()));
        }
        What::Real { programs } => {
            let (failures, notes) = programs::judge(&said, programs);
            judged.failures.extend(failures);
            judged.notes.extend(notes);
        }
        What::Nested => {
            judge_client(&mut judged, &said, 1);
            judge_guest(&mut judged, output, 1);
        }
        What::Linux { processors, .. } => judge_guest(&mut judged, output, processors),
    }
    judged.dumps = dumps;
    judged
}

/// The client's checks, with each of `wanted` sets of options.
fn judge_client(judged: &mut Judged, said: &[&str], wanted: usize) {
    let mut set = "";
    let (mut sets, mut passed) = (0, 0);
    // Of the first set, which has everything on.
    let mut clocks = "clocks an exit:".to_owned();
    for line in said {
        if let Some(options) = line.strip_prefix("client ") {
            set = options;
        } else if let Some(case) = line.strip_prefix("failed ") {
            judged.failures.push(format!("{set}: {case}"));
        } else if line.starts_with("passed ") {
            passed += 1;
        } else if let Some(timed) = line.strip_prefix("clocks ").filter(|_| sets == 0) {
            clocks = format!("{clocks} {timed}");
        } else if *line == "done" {
            sets += 1;
        }
    }
    if sets != wanted {
        judged.failures.push(format!("{sets} of {wanted} runs of the client came to their end"));
    }
    judged.notes.push(format!("{sets} sets of options, {passed} checks; {clocks}"));
}

/// The second Linux came to its own marker.
fn judge_guest(judged: &mut Judged, output: &str, processors: u8) {
    let marker = format!("L2 ROOTMODE marker processors={processors}");
    if !output.contains(&marker) {
        judged.failures.push(format!("no {marker:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::{KERNELS, Vendor};
    use super::*;

    fn row(what: What) -> Row {
        Row { what, kernel: KERNELS[0], vendor: Vendor::Intel, processors: 2 }
    }

    fn failures(what: What, output: &str) -> Vec<String> {
        judge(&row(what), &Modules::default(), output).failures
    }

    #[test]
    fn a_boot_needs_its_marker_and_a_clean_log() {
        let good = "[ 0.1] clean\nROOTMODE marker processors=2\n";
        assert_eq!(failures(What::Boot, good), [""; 0]);
        assert_eq!(failures(What::Boot, "[ 0.1] clean\n").len(), 1);
        assert_eq!(failures(What::Boot, "ROOTMODE marker processors=1\n").len(), 1, "a processor is missing");
        for line in [
            "[ 1] ------\n[ 1] WARNING: CPU: 0 PID: 1 at kernel/x.c:1",
            "[ 1] BUG: kernel NULL pointer dereference",
            "[ 1] watchdog: BUG: stuck",
            "[ 1] kernel BUG at mm/x.c:1!",
            "[ 1] unchecked MSR access error: RDMSR from 0x10",
            "mce: [Hardware Error]: x",
            "L2 [ 1] WARNING: CPU: 0",
            "[ 1] kvm_intel: VMCS 0, last attempted VM-entry on CPU 0",
            "[ 1] SVM: set kvm_amd.dump_invalid_vmcb=1 to dump internal KVM state.",
        ] {
            let [why] = &failures(What::Boot, &format!("{line}\n{good}"))[..] else {
                panic!("{line:?} passes")
            };
            assert!(why.contains(line.lines().last().unwrap_or_default()), "{why}");
        }
        for line in
            ["[ 1] ACPI Warning: 32/64X length mismatch", "[ 1] ACPI BIOS Warning (bug): x", "[ 1] debug: x"]
        {
            assert_eq!(failures(What::Boot, &format!("{line}\n{good}")), [""; 0], "{line}");
        }
    }

    #[test]
    fn every_run_of_the_client_must_come_to_its_end() {
        let end = "ROOTMODE marker processors=2\n";
        let one = "[ 1] ROOTMODE client nested=1\n[ 1] ROOTMODE passed io\n[ 1] ROOTMODE done\n";
        assert_eq!(failures(What::Client, &format!("{one}{end}")), [""; 0], "no parameters, so one run");
        assert_eq!(failures(What::Client, end).len(), 1);
        let failed = "[ 1] ROOTMODE client ept=0\n[ 1] ROOTMODE failed io: no\n[ 1] ROOTMODE done\n";
        assert_eq!(failures(What::Client, &format!("{failed}{end}")), ["ept=0: io: no"]);
    }

    #[test]
    fn the_client_in_the_second_linux_must_come_to_its_end_and_the_second_linux_too() {
        let end = "ROOTMODE marker processors=2\n";
        let client = "[ 9] L2 [ 1] ROOTMODE client nested=0\n[ 9] L2 [ 1] ROOTMODE passed io\n[ 9] L2 [ 1] ROOTMODE done\n";
        let marker = "[ 9] L2 ROOTMODE marker processors=1\n";
        assert_eq!(failures(What::Nested, &format!("{client}{marker}{end}")), [""; 0]);
        assert_eq!(failures(What::Nested, &format!("{client}{end}")).len(), 1);
        assert_eq!(failures(What::Nested, &format!("{marker}{end}")).len(), 1);
    }

    #[test]
    fn the_second_linux_needs_a_marker_of_its_own() {
        let what = What::Linux { second_stage: true, processors: 1 };
        let end = "ROOTMODE marker processors=2\n";
        assert_eq!(failures(what, end).len(), 1);
        assert_eq!(failures(what, &format!("[ 9] L2 ROOTMODE marker processors=1\n{end}")), [""; 0]);
    }
}
