//! `rootmode-tests judge`: runs judges and prints how they and our rules compare.

use clap::{Args, ValueEnum};

use super::judge::{Extension, JUDGES, Judge, Tally};
use super::recorded::{record, text};
use crate::documents::root;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct JudgeArguments {
    /// Whose entries are judged; both when not given.
    #[arg(value_enum)]
    extension: Option<ExtensionName>,
    /// Which machine judges; every one that can when not given.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// Cases for each extension and peer; several CPU models of a peer share them.
    #[arg(long, default_value_t = 100_000)]
    cases: u64,
    /// Seed of the generated cases.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only print the state of this case, for each judge, and what our rules say of it.
    #[arg(long)]
    show: Option<u64>,
    /// Also list the rules that decided in no agreeing case.
    #[arg(long)]
    undecided: bool,
    /// Record what the machines say of up to this many cases in tests/judges/golden-*.txt, and compare nothing.
    #[arg(long, value_name = "CASES")]
    record: Option<usize>,
    /// Machines that run at the same time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExtensionName {
    Vmx,
    Svm,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    Bochs,
    Qemu,
}

impl JudgeArguments {
    /// Runs the judges that were asked for; false when one disagrees without explanation.
    ///
    /// # Errors
    ///
    /// A judge that could not be run.
    pub fn run(&self) -> Result<bool, String> {
        let judges: Vec<Judge> = JUDGES.into_iter().filter(|judge| self.wants(*judge)).collect();
        if judges.is_empty() {
            return Err("no such judge: QEMU's TCG has no VMX, ask --peer bochs".to_owned());
        }
        let mut success = true;
        for judge in &judges {
            if let Some(keep) = self.record {
                let recorded =
                    record(*judge, self.cases, keep).map_err(|error| format!("{}: {error}", judge.name))?;
                let path = root().join(format!("tests/judges/golden-{}.txt", judge.name));
                let file = text(judge.name, &recorded);
                std::fs::write(&path, file).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
                println!("{}: {} cases", judge.name, recorded.cases.len());
                continue;
            }
            if let Some(number) = self.show {
                let state =
                    judge.show(self.seed, number).map_err(|error| format!("{}: {error}", judge.name))?;
                println!("{}\n{state}", judge.name);
                continue;
            }
            let sharing = judges.iter().filter(|other| share(**other, *judge)).count() as u64;
            let cases = self.cases.div_ceil(sharing);
            let progress = |done| eprint!("\r{}: {done} of {cases} ", judge.name);
            let tally = judge
                .run(cases, self.seed, self.jobs, progress)
                .map_err(|error| format!("{}: {error}", judge.name))?;
            eprint!("\r");
            print_tally(&tally);
            let rules = judge.rules();
            let undecided: Vec<&str> =
                rules.iter().copied().filter(|rule| !tally.decisive.contains_key(*rule)).collect();
            println!(
                "    {} of {} rules decided an agreeing case: dropping one would be noticed",
                rules.len() - undecided.len(),
                rules.len()
            );
            if self.undecided {
                println!("    undecided: {}", undecided.join(" "));
            }
            success &= tally.unexplained == 0;
        }
        Ok(success)
    }

    fn wants(&self, judge: Judge) -> bool {
        let extension = match self.extension {
            None => true,
            Some(ExtensionName::Vmx) => judge.extension == Extension::Vmx,
            Some(ExtensionName::Svm) => judge.extension == Extension::Svm,
        };
        let peer = match self.peer {
            None => true,
            Some(Peer::Bochs) => judge.is_bochs(),
            Some(Peer::Qemu) => !judge.is_bochs(),
        };
        extension && peer
    }
}

fn share(one: Judge, other: Judge) -> bool {
    one.extension == other.extension && one.is_bochs() == other.is_bochs()
}

/// Prints a summary line, the known disagreements that were met, and examples of the unexplained ones.
fn print_tally(tally: &Tally) {
    println!("{tally}");
    for (name, count) in &tally.explained {
        println!("    {count:>7}  {name}");
    }
    for (kind, (count, examples)) in &tally.examples {
        println!("  {count:>5} × {kind}");
        for example in examples {
            println!("          {example}");
        }
    }
}
