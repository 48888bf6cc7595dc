//! A guest hypervisor as a guest of the model of KVM: it uses nested VMX or SVM.

use rootmode_arch::GuestPhysical;
use rootmode_arch::choices::Choices;
use rootmode_arch::record::{Level, Stop};
use rootmode_models::devices::TestPorts;
use rootmode_models::kvm::host::{Host, HostBug, HostConfig};
use rootmode_models::kvm::interception::Configuration;
use rootmode_models::kvm::{Filter, Regressions};

use super::bare::{extension, model, start_state};
use super::run::{Contents, Recorder, Run};
use crate::guests::GuestImage;

/// How L0 hosts a guest.
pub struct Hosting {
    /// L0's schedule.
    pub choices: Box<dyn Choices + Send>,
    /// A worker of L0 takes pages away from L2 meanwhile.
    pub reclaim: bool,
    /// Known bugs of L0.
    pub regressions: Regressions,
    /// L0's module parameter `emulate_invalid_guest_state`.
    pub emulate_invalid: bool,
}

/// A host that is about to run `image`, and the recorder of what happens.
///
/// # Errors
/// [`HostBug`] if L0 cannot set itself up.
pub fn host_of(image: &GuestImage, hosting: Hosting) -> Result<(Host, Recorder), HostBug> {
    let model = model(image.vendor);
    let recorder = Recorder::default();
    let mut host = Host::new(HostConfig {
        extension: extension(&model, Level::L0),
        start: start_state(image, model),
        memory: image.memory,
        bus: Box::new(TestPorts),
        choices: hosting.choices,
        observer: Some(Box::new(recorder.clone())),
        configuration: Configuration {
            regressions: hosting.regressions,
            ..Configuration::plain(image.vendor)
        },
        filter: Filter::off(),
        reclaim: hosting.reclaim,
        emulate_invalid: hosting.emulate_invalid,
    })?;
    for (address, bytes) in &image.segments {
        host.write_memory(GuestPhysical(*address), bytes);
    }
    Ok((host, recorder))
}

/// What a host that stopped leaves behind.
pub fn run_of(host: &Host, recorder: &Recorder, stop: Stop) -> Run {
    Run {
        stop,
        ticks: host.ticks(),
        records: recorder.take(),
        memory: Contents::read(host.memory(), |at, page| host.read_memory(GuestPhysical(at), page)),
        registers: host.registers(),
    }
}

/// Runs `image` hosted for at most `limit` ticks, with `regressions` switched on in L0. With `reclaim`, a worker of L0
/// takes pages away from L2 meanwhile.
///
/// # Errors
/// [`HostBug`] if L0 did something that cannot be right.
pub fn run_hosted(
    image: &GuestImage,
    choices: Box<dyn Choices + Send>,
    reclaim: bool,
    regressions: Regressions,
    limit: u64,
) -> Result<Run, HostBug> {
    let hosting = Hosting { choices, reclaim, regressions, emulate_invalid: true };
    let (mut host, recorder) = host_of(image, hosting)?;
    let stop = host.run(limit)?;
    Ok(run_of(&host, &recorder, stop))
}
