//! Posted interrupts under drawn schedules: none is lost, late, doubled or sent to the wrong place.

use std::sync::Arc;

use rootmode_arch::{Choices, Site};
use rootmode_models::kvm::Regressions;
use rootmode_models::kvm::host::{Executor, Step};
use rootmode_models::kvm::posted::{Happened, NOTIFICATION, PROCESSORS, Posting, Shared};

use crate::campaign::{Counterexample, Property, Verdict};

pub(crate) const PROPERTIES: &[Property] = &[Property {
    name: "posted-interrupts",
    about: "Whatever the schedule of devices, vCPU and processors: every posted interrupt arrives, the highest first, a halted vCPU wakes, and no notification is sent for nothing.",
    source: "catalogue 5.2; P-5.1 to P-5.6; SDM Vol. 3C \"Posted-Interrupt Processing\"",
    cost: 5,
    check,
}];

/// Steps of one case, far more than it needs.
const STEPS: u32 = 4000;

/// What the vCPU's thread does next.
#[derive(Clone, Copy, Debug)]
enum Action {
    Run { time: u32, masked: bool, posts: Option<u8> },
    Halt { then_on: usize },
    Preempt { then_on: usize },
}

fn vector(c: &mut dyn Choices) -> u8 {
    [0x41, 0x51, 0x61, 0x93, 0xd1][c.choose(Site::Program, 5) as usize]
}

fn actions(c: &mut dyn Choices) -> Vec<Action> {
    let count = 1 + c.choose(Site::Program, 5);
    let action = |_| match c.choose(Site::Program, 4) {
        0 | 1 => Action::Run {
            time: 1 + c.choose(Site::Program, 4) as u32,
            masked: c.flip(Site::Program),
            posts: (c.choose(Site::Program, 4) == 3).then(|| vector(c)),
        },
        2 => Action::Halt { then_on: c.choose(Site::Program, PROCESSORS as u64) as usize },
        _ => Action::Preempt { then_on: c.choose(Site::Program, PROCESSORS as u64) as usize },
    };
    (0..count).map(action).collect()
}

async fn thread(posting: Arc<Posting>, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Run { time, masked, posts } => posting.run(time, masked, posts).await,
            Action::Halt { then_on } => {
                posting.blocks().await;
                posting.scheduled(then_on).await;
            }
            Action::Preempt { then_on } => {
                posting.preempted().await;
                posting.scheduled(then_on).await;
            }
        }
    }
}

fn check(c: &mut dyn Choices, bugs: Regressions) -> Verdict {
    let mut executor = Executor::new();
    let posting = Arc::new(Posting::new(executor.tasks(), c.flip(Site::Swarm), bugs));
    let actions = actions(c);
    let mut posters = Vec::new();
    for processor in 0..PROCESSORS {
        let posting = posting.clone();
        executor.spawn(async move { posting.interrupts(processor).await });
    }
    for _ in 0..1 + c.choose(Site::Program, 3) {
        let (vector, device, urgent) = (vector(c), c.flip(Site::Program), c.choose(Site::Program, 4) == 3);
        posters.push((vector, device, urgent));
        let posting = posting.clone();
        executor.spawn(async move {
            if device { posting.device(vector, urgent).await } else { posting.software(vector, false).await }
        });
    }
    executor.spawn(thread(posting.clone(), actions.clone()));
    let wrong = settle(&mut executor, &posting, c).or_else(|| {
        // Everything that was posted is there at the next entry at the latest.
        executor.spawn(thread(posting.clone(), vec![Action::Run { time: 2, masked: false, posts: None }]));
        settle(&mut executor, &posting, c).or_else(|| history(&posting.shared()))
    });
    match wrong {
        Some(message) => {
            let shared = posting.shared();
            Counterexample::new(message)
                .with("x2APIC", shared.x2apic)
                .with("posters (vector, device, urgent)", format!("{posters:x?}"))
                .with("vCPU", format!("{actions:x?}"))
                .with("what happened", format!("{:x?}", shared.log))
                .into()
        }
        None => Verdict::Holds,
    }
}

/// Lets all tasks run until they wait, and halted vCPUs wake by something else than interrupts in the end.
fn settle(executor: &mut Executor, posting: &Posting, c: &mut dyn Choices) -> Option<String> {
    for _ in 0..STEPS {
        match executor.step(c) {
            Step::Blocked => {
                let shared = posting.shared();
                if !shared.is_waiting() {
                    return None;
                }
                if shared.descriptor.pir != [0; 4] {
                    return Some("a halted vCPU has an interrupt and nobody wakes it".to_owned());
                }
                shared.wake();
            }
            Step::Finished => return None,
            Step::Waits(..) | Step::Ended(_) => {
                if let Some(message) = in_guest(&posting.shared()) {
                    return Some(message);
                }
            }
        }
    }
    None
}

/// A running guest is notified where it runs.
fn in_guest(shared: &Shared) -> Option<String> {
    if !shared.in_guest() {
        return None;
    }
    let id = Shared::apic_id(shared.processor);
    let destination = if shared.x2apic { id } else { id * 0x100 };
    let descriptor = &shared.descriptor;
    if descriptor.ndst != destination {
        return Some(format!("NDST is {:#x} for processor {id:#x}", descriptor.ndst));
    }
    if descriptor.nv != NOTIFICATION || descriptor.sn {
        return Some(format!("the guest runs with NV = {:#x}, SN = {}", descriptor.nv, descriptor.sn));
    }
    (shared.listed() != 0).then(|| "the guest runs and is on a list of blocked vCPUs".to_owned())
}

/// The log as a whole.
fn history(shared: &Shared) -> Option<String> {
    let log = &shared.log;
    for (at, happened) in log.iter().enumerate() {
        match *happened {
            Happened::Posted(vector) => {
                let arrived =
                    |later: &Happened| matches!(later, Happened::Delivered { vector: v, .. } if *v == vector);
                if !log[at..].iter().any(arrived) {
                    return Some(format!("vector {vector:#x} was posted and never arrived"));
                }
            }
            Happened::Delivered { vector, requested } => {
                let higher =
                    (vector..=255).skip(1).find(|v| requested[usize::from(*v) / 64] >> (v % 64) & 1 != 0);
                if let Some(higher) = higher {
                    return Some(format!("{vector:#x} arrives while {higher:#x} is requested"));
                }
            }
            Happened::Ipi { to: None, .. } => return Some("a notification goes nowhere".to_owned()),
            Happened::Ipi { vector: NOTIFICATION, own: true, .. } => {
                return Some("a processor notifies itself".to_owned());
            }
            Happened::Ipi { .. } | Happened::NotificationDue => {}
        }
    }
    let count = |wanted: fn(&Happened) -> bool| log.iter().filter(|happened| wanted(happened)).count();
    let notified = count(|happened| matches!(happened, Happened::Ipi { own: false, .. }));
    let due = count(|happened| matches!(happened, Happened::NotificationDue));
    (notified > due).then(|| format!("{notified} notifications for {due} transitions of ON"))
}
