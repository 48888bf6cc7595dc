//! `rootmode-tests full`: every proof at full size, one table.

use std::process::Command;
use std::time::Instant;

use clap::Args;

use crate::documents::root;
use crate::dump_fuzz;
use crate::explained;
use crate::judges::proofs;
use crate::msr_maps;
use crate::mutation;
use crate::oracles::proofs as decisions;
use crate::speed;
use crate::table::{Row, from_markdown, to_markdown};
use crate::transparency;

/// Arguments of `rootmode-tests full`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Run only the proofs whose name contains TEXT; their rows replace those of the same key in the table.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// List the proofs and end.
    #[arg(long)]
    list: bool,
}

/// A proof: its name, and what yields its rows.
pub struct Proof {
    /// Name, for `--only`.
    pub name: &'static str,
    /// Runs it.
    pub run: fn() -> Result<Vec<Row>, String>,
}

/// Every proof, in the order of the table.
const PROOFS: &[Proof] = &[
    Proof { name: "explain", run: explained::rows },
    Proof { name: "judge-vmx-bochs", run: proofs::vmx_on_bochs },
    Proof { name: "judge-svm-bochs", run: proofs::svm_on_bochs },
    Proof { name: "judge-svm-qemu", run: proofs::svm_on_qemu },
    Proof { name: "guests-vmx-bochs", run: proofs::vmx_guests_on_bochs },
    Proof { name: "guests-svm-bochs", run: proofs::svm_guests_on_bochs },
    Proof { name: "guests-svm-qemu", run: proofs::svm_guests_on_qemu },
    Proof { name: "dump-fuzz", run: dump_fuzz::proof },
    Proof { name: "msr-maps", run: msr_maps::rows },
    Proof { name: "decisions-vmx", run: decisions::of_vmx },
    Proof { name: "decisions-svm", run: decisions::of_svm },
    Proof { name: "mutation", run: mutation::proofs::rows },
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Proof { name: "native", run: crate::native::proofs::rows },
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Proof { name: "fuzz", run: crate::fuzz::rows },
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Proof { name: "kvm-ioctls", run: crate::conformance::rows },
    #[cfg(target_os = "linux")]
    Proof { name: "kvm-clients", run: crate::clients::rows },
    Proof { name: "transparency", run: transparency::rows },
    Proof { name: "speed", run: speed::rows },
    #[cfg(target_os = "linux")]
    Proof { name: "bench", run: crate::bench::rows },
];

/// Runs the chosen proofs and writes docs/full.md; true if every promise is kept.
///
/// # Errors
/// A proof that could not be run, a page that could not be written.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let chosen: Vec<&Proof> = PROOFS.iter().filter(|p| p.name.contains(&arguments.only)).collect();
    if arguments.list {
        for proof in chosen {
            println!("{}", proof.name);
        }
        return Ok(true);
    }
    let path = root().join("docs/full.md");
    std::fs::create_dir_all(root().join("docs")).map_err(|e| format!("cannot create docs: {e}"))?;
    let mut rows = from_markdown(&std::fs::read_to_string(&path).unwrap_or_default());
    let commit = commit();
    for proof in chosen {
        let start = Instant::now();
        eprintln!("{} ...", proof.name);
        for mut row in (proof.run)().map_err(|e| format!("{}: {e}", proof.name))? {
            println!(
                "{} = {} ({}){}",
                row.key,
                row.value,
                row.promise,
                if row.kept { "" } else { "  NOT KEPT" }
            );
            row.commit.clone_from(&commit);
            match rows.iter_mut().find(|old| old.key == row.key) {
                Some(old) => *old = row,
                None => rows.push(row),
            }
        }
        // After each proof: what ran for minutes is not lost with what fails later.
        let page = to_markdown("cargo run --release -p rootmode-tests -- full", &rows);
        std::fs::write(&path, page).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        eprintln!("{}: {:.1} s", proof.name, start.elapsed().as_secs_f64());
    }
    Ok(rows.iter().all(|row| row.kept))
}

/// The commit that is checked out.
pub(crate) fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).current_dir(root()).output();
    output
        .ok()
        .and_then(|o| String::from_utf8(o.stdout).ok())
        .map_or_else(|| "unknown".into(), |s| s.trim().to_owned())
}
