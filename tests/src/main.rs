//! The `rootmode-tests` command: full-size proofs, and the agreement of the documents with them.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
#[cfg(target_os = "linux")]
use rootmode_tests::{bench, linux};
use rootmode_tests::{documents, full, judges, mutation};

/// Full-size proofs of rootmode, and the documents that quote them.
#[derive(Debug, Parser)]
#[command(name = "rootmode-tests", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run every proof at full size and write its table to docs/full.md.
    Full(full::Arguments),
    /// Write the generated pages in docs/, or with --check say where documents and the last full table disagree.
    Documents(documents::Arguments),
    /// Compare the entry rules with independent machines over nearly valid VMCSs and VMCBs.
    Judge(judges::command::JudgeArguments),
    /// Compare generated VMX and SVM guests with Bochs and QEMU: exits, state, memory.
    Guests(judges::guests::command::GuestArguments),
    /// Run random machines: no panic, no hang, and how much of the processor was reached.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Fuzz(rootmode_tests::fuzz::Arguments),
    /// Measure the speed payload here and on Debian's QEMU.
    #[cfg(target_os = "linux")]
    Bench(bench::Arguments),
    /// Boot Debian's kernels, and guests under their KVM, and judge what they print.
    #[cfg(target_os = "linux")]
    Linux(linux::Arguments),
    /// Change every table mechanically and say which changes nobody notices.
    Mutation(mutation::command::Arguments),
    /// Compare every instruction form with the host's processor.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    Native(rootmode_tests::native::command::Arguments),
    /// Run the unit tests of the published kvm-ioctls crate on the model of KVM.
    #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
    KvmIoctls(rootmode_tests::conformance::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Full(arguments) => full::run(&arguments),
        Command::Documents(arguments) => documents::run(&arguments),
        Command::Judge(arguments) => arguments.run(),
        Command::Guests(arguments) => arguments.run(),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Command::Fuzz(arguments) => rootmode_tests::fuzz::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Bench(arguments) => bench::run(&arguments),
        #[cfg(target_os = "linux")]
        Command::Linux(arguments) => linux::run(&arguments),
        Command::Mutation(arguments) => mutation::command::run(&arguments),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Command::Native(arguments) => rootmode_tests::native::command::run(&arguments),
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Command::KvmIoctls(arguments) => rootmode_tests::conformance::run(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("rootmode-tests: {error}");
            ExitCode::from(2)
        }
    }
}
