//! What came out of a serial port, judged.

use super::initramfs::Modules;
use super::rows::{Row, What};

/// What no log may contain.
const FORBIDDEN: [&str; 9] = [
    "WARNING:",
    "BUG:",
    "unchecked MSR access",
    "hardware error",
    "Oops:",
    "Kernel panic",
    "general protection fault",
    "detected stall",
    "lockup",
];

/// What KVM says when it misses a feature or does without one.
const MISSING: [&str; 4] = ["not supported", "disabled by bios", "unsupported", "kvm: no hardware support"];

/// What is wrong, and what is worth telling.
#[derive(Debug, Default)]
pub(super) struct Judged {
    pub(super) failures: Vec<String>,
    pub(super) notes: Vec<String>,
}

/// Judges what a row printed.
pub(super) fn judge(row: &Row, modules: &Modules, output: &str) -> Judged {
    let mut judged = Judged::default();
    let mut fail = |what: String| judged.failures.push(what);
    let lower = output.to_lowercase();
    for forbidden in FORBIDDEN {
        if let Some(at) = lower.find(&forbidden.to_lowercase()) {
            fail(format!("it says {:?}", line_at(output, at)));
        }
    }
    let marker = format!("ROOTMODE marker processors={}", row.processors);
    if !output.contains(&marker) {
        fail(format!("no {marker:?}"));
    }
    let said: Vec<&str> =
        output.lines().filter_map(|line| Some(line.split_once("ROOTMODE ")?.1.trim())).collect();
    match row.what {
        What::Boot => {}
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
            let mut set = "";
            let (mut sets, mut passed) = (0, 0);
            // Of the first set, which has everything on.
            let mut clocks = "clocks an exit:".to_owned();
            for line in said {
                if let Some(options) = line.strip_prefix("client ") {
                    set = options;
                } else if let Some(case) = line.strip_prefix("failed ") {
                    fail(format!("{set}: {case}"));
                } else if line.starts_with("passed ") {
                    passed += 1;
                } else if let Some(timed) = line.strip_prefix("clocks ").filter(|_| sets == 0) {
                    clocks = format!("{clocks} {timed}");
                } else if line == "done" {
                    sets += 1;
                }
            }
            let wanted = modules.parameters(row.vendor).count() + 1;
            if sets != wanted {
                fail(format!("{sets} of {wanted} runs of the client came to their end"));
            }
            judged.notes.push(format!("{sets} sets of options, {passed} checks; {clocks}"));
        }
        What::Linux { processors, .. } => {
            let marker = format!("L2 ROOTMODE marker processors={processors}");
            if !output.contains(&marker) {
                fail(format!("no {marker:?}"));
            }
        }
    }
    judged
}

/// The line of `text` around `at`, an offset in the same text in small letters.
fn line_at(text: &str, at: usize) -> &str {
    let start = text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1);
    text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default().trim()
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
            "[ 1] ------\n[ 1] WARNING: CPU: 0",
            "[ 1] unchecked MSR access error: RDMSR",
            "mce: [Hardware Error]: x",
        ] {
            let [why] = &failures(What::Boot, &format!("{line}\n{good}"))[..] else {
                panic!("{line:?} passes")
            };
            assert!(why.contains(line.lines().last().unwrap_or_default()), "{why}");
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
    fn the_second_linux_needs_a_marker_of_its_own() {
        let what = What::Linux { second_stage: true, processors: 1 };
        let end = "ROOTMODE marker processors=2\n";
        assert_eq!(failures(what, end).len(), 1);
        assert_eq!(failures(what, &format!("[ 9] L2 ROOTMODE marker processors=1\n{end}")), [""; 0]);
    }
}
