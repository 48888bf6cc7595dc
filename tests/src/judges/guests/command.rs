//! `rootmode-tests guests`: generated guests on Bochs, on QEMU and here.

use clap::{Args, ValueEnum};

use super::layout::{CODE, CODE_SIZE};
use super::{compare, differences, ran};
use crate::judges::emulator::Emulator;
use crate::judges::judge::Extension;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct GuestArguments {
    /// Which machine is compared with, and whose extension; all when not given.
    #[arg(long, value_enum)]
    peer: Option<Peer>,
    /// How many guests.
    #[arg(long, default_value_t = 20_000)]
    cases: u64,
    /// Seed of the generated guests.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only print this guest: what is known of it, and what differs.
    #[arg(long)]
    show: Option<u64>,
}

/// A machine to compare with, and an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// VMX of Debian's Bochs.
    BochsVmx,
    /// SVM of Debian's Bochs.
    BochsSvm,
    /// SVM of Debian's QEMU with TCG.
    QemuSvm,
}

impl Peer {
    /// All of them.
    pub const ALL: [Peer; 3] = [Peer::BochsVmx, Peer::BochsSvm, Peer::QemuSvm];

    /// The machine.
    #[must_use]
    pub const fn emulator(self) -> Emulator {
        match self {
            Peer::BochsVmx => Emulator::Bochs("tigerlake"),
            Peer::BochsSvm => Emulator::Bochs("ryzen"),
            Peer::QemuSvm => Emulator::Qemu,
        }
    }

    /// The extension.
    #[must_use]
    pub const fn extension(self) -> Extension {
        match self {
            Peer::BochsVmx => Extension::Vmx,
            Peer::BochsSvm | Peer::QemuSvm => Extension::Svm,
        }
    }

    /// What the file of differences calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Peer::BochsVmx => "bochs-vmx",
            Peer::BochsSvm => "bochs-svm",
            Peer::QemuSvm => "qemu-svm",
        }
    }
}

impl GuestArguments {
    /// Runs the guests; false when one differs without a reason.
    ///
    /// # Errors
    ///
    /// A machine that could not be run.
    pub fn run(&self) -> Result<bool, String> {
        let mut settled = true;
        for peer in Peer::ALL.into_iter().filter(|peer| self.peer.is_none_or(|wanted| wanted == *peer)) {
            if let Some(number) = self.show {
                println!("{}", show(peer, self.seed, number)?);
                continue;
            }
            let tally = compare(peer, self.seed, 0..self.cases)
                .map_err(|error| format!("{}: {error}", peer.name()))?;
            println!("{}: {tally}", peer.name());
            settled &= tally.unexplained() == 0;
        }
        Ok(settled)
    }
}

fn show(peer: Peer, seed: u64, number: u64) -> Result<String, String> {
    let all = ran(peer, seed, number..number + 1).map_err(|error| format!("{}: {error}", peer.name()))?;
    let mut lines = Vec::new();
    for guest in all {
        lines.push(format!("guest {number} of seed {seed}, {}: {:?}", peer.name(), guest.guest.facts));
        let pokes = &guest.guest.case.pokes;
        let code = pokes
            .iter()
            .filter(|(address, _)| (CODE..CODE + CODE_SIZE as u64).contains(&u64::from(*address)));
        lines.push(format!(
            "code {:02x?}",
            code.flat_map(|(_, value)| value.to_le_bytes()).collect::<Vec<u8>>()
        ));
        for (n, name) in peer.extension().names().into_iter().enumerate() {
            let value = |report: &super::Report| report.as_ref().map_or(0, |values| values[n]);
            lines.push(format!("{name:24} {:>20x} {:>20x}", value(&guest.ours), value(&guest.theirs)));
        }
        let differences = differences(peer.extension(), &guest.ours, &guest.theirs);
        lines.push(format!("differs: {differences:?}"));
    }
    Ok(lines.join("\n"))
}
