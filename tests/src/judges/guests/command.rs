//! `rootmode-tests guests`: generated SVM guests on Bochs, on QEMU and here.

use clap::{Args, ValueEnum};

use super::{compare, differences, draw, here, names, reports, rom};
use crate::judges::batch::encode;
use crate::judges::emulator::{Emulator, EmulatorError, run};
use crate::judges::transcript::read as read_transcript;

/// Arguments of the command.
#[derive(Args, Clone, Debug)]
pub struct GuestArguments {
    /// Which machine is compared with; both when not given.
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

/// A machine to compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Debian's Bochs.
    Bochs,
    /// Debian's QEMU with TCG.
    Qemu,
}

impl Peer {
    /// Both.
    pub const ALL: [Peer; 2] = [Peer::Bochs, Peer::Qemu];

    /// The machine.
    #[must_use]
    pub const fn emulator(self) -> Emulator {
        match self {
            Peer::Bochs => Emulator::Bochs("ryzen"),
            Peer::Qemu => Emulator::Qemu,
        }
    }

    /// What the file of differences calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Peer::Bochs => "bochs",
            Peer::Qemu => "qemu",
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
            let tally = compare(peer.emulator(), peer.name(), self.seed, 0..self.cases)
                .map_err(|error| format!("{}: {error}", peer.name()))?;
            println!("{}: {tally}", peer.name());
            settled &= tally.unexplained() == 0;
        }
        Ok(settled)
    }
}

fn show(peer: Peer, seed: u64, number: u64) -> Result<String, String> {
    let text = |error: &dyn std::fmt::Display| format!("{}: {error}", peer.name());
    let scratch = tempfile::tempdir().map_err(|e| text(&e))?;
    let rom = rom::rom().map_err(|e| text(&e))?;
    let guest = draw::generate(seed, number).map_err(|e| text(&e))?;
    let empty = run(peer.emulator(), &rom.image(&encode(&[], [])), scratch.path()).map_err(|e| text(&e))?;
    let features = here::common(&read_transcript(&empty).processor.features());
    let cases = [guest.case.clone()];
    let theirs = reports(&cases, &rom, |image| run(peer.emulator(), image, scratch.path()));
    let theirs = theirs.map_err(|e| text(&e))?;
    let ours = reports(&cases, &rom, |image| Ok::<_, EmulatorError>(here::run(image, features)));
    let ours = ours.map_err(|e| text(&e))?;
    let mut lines = vec![format!("guest {number} of seed {seed}, {}: {:?}", peer.name(), guest.facts)];
    let code: Vec<u8> = guest
        .case
        .pokes
        .iter()
        .filter(|(address, _)| (0xc0_0000..0xc0_0080).contains(address))
        .flat_map(|(_, value)| value.to_le_bytes())
        .collect();
    lines.push(format!("code {code:02x?}"));
    for (n, name) in names().enumerate() {
        let value = |report: &super::Report| report.as_ref().map_or(0, |values| values[n]);
        lines.push(format!("{name:16} {:>20x} {:>20x}", value(&ours[0]), value(&theirs[0])));
    }
    lines.push(format!("differs: {:?}", differences(&ours[0], &theirs[0])));
    Ok(lines.join("\n"))
}
