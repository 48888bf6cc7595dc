//! A guest hypervisor as a guest of the model of KVM: it uses nested VMX or SVM.

use rootmode_arch::GuestPhysical;
use rootmode_arch::choices::Choices;
use rootmode_arch::record::Level;
use rootmode_models::devices::TestPorts;
use rootmode_models::kvm::host::{Host, HostBug, HostConfig};
use rootmode_models::kvm::interception::Configuration;
use rootmode_models::kvm::{Filter, Regressions};

use super::bare::{extension, model, start_state};
use super::run::{Recorder, Run};
use crate::guests::GuestImage;

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
    let model = model(image.vendor);
    let recorder = Recorder::default();
    let mut host = Host::new(HostConfig {
        extension: extension(&model, Level::L0),
        start: start_state(image, model),
        memory: image.memory,
        bus: Box::new(TestPorts),
        choices,
        observer: Some(Box::new(recorder.clone())),
        configuration: Configuration { regressions, ..Configuration::plain(image.vendor) },
        filter: Filter::off(),
        reclaim,
    })?;
    for (address, bytes) in &image.segments {
        host.write_memory(GuestPhysical(*address), bytes);
    }
    let stop = host.run(limit)?;
    Ok(Run {
        stop,
        ticks: host.ticks(),
        records: recorder.take(),
        memory: host.memory(),
        registers: host.registers(),
    })
}
