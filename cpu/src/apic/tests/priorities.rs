//! IRR, ISR, TMR and priorities against lists
//! (SDM Vol. 3A "Task and Processor Priorities", "Interrupt Acceptance for Fixed Interrupts").

use super::*;
use crate::apic::Outgoing;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Receive(u8, bool),
    Acknowledge,
    End,
    TaskPriority(u8),
    Suppress(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (any::<u8>(), any::<bool>()).prop_map(|(vector, level)| Step::Receive(vector, level)),
        4 => Just(Step::Acknowledge),
        3 => Just(Step::End),
        2 => any::<u8>().prop_map(Step::TaskPriority),
        1 => any::<bool>().prop_map(Step::Suppress),
    ];
    prop::collection::vec(step, 1..200)
}

/// The rules as lists: what is requested, what is in service, which were level-triggered when they last arrived.
#[derive(Default)]
struct Lists {
    requested: Vec<u8>,
    service: Vec<u8>,
    level: Vec<u8>,
    task: u8,
    suppress: bool,
    ended: Vec<Outgoing>,
}

impl Lists {
    fn highest(list: &[u8]) -> Option<u8> {
        let mut sorted = list.to_vec();
        sorted.sort_unstable();
        sorted.pop()
    }

    fn priority(&self) -> u8 {
        let service = Self::highest(&self.service).map_or(0, |vector| vector / 16);
        if self.task / 16 >= service { self.task } else { service * 16 }
    }

    fn deliverable(&self) -> Option<u8> {
        Self::highest(&self.requested).filter(|vector| vector / 16 > self.priority() / 16)
    }

    fn step(&mut self, step: &Step) {
        let put = |list: &mut Vec<u8>, vector, on| {
            list.retain(|other| *other != vector);
            if on {
                list.push(vector);
            }
        };
        match *step {
            Step::Receive(vector, level) if vector >= 16 => {
                put(&mut self.requested, vector, true);
                put(&mut self.level, vector, level);
            }
            Step::Receive(..) => {}
            Step::Acknowledge => {
                if let Some(vector) = self.deliverable() {
                    put(&mut self.requested, vector, false);
                    put(&mut self.service, vector, true);
                }
            }
            Step::End => {
                if let Some(vector) = Self::highest(&self.service) {
                    put(&mut self.service, vector, false);
                    if self.level.contains(&vector) && !self.suppress {
                        self.ended.push(Outgoing::EndOfInterrupt(vector));
                    }
                }
            }
            Step::TaskPriority(priority) => self.task = priority,
            Step::Suppress(on) => self.suppress = on,
        }
    }
}

proptest! {
    #[test]
    fn any_history_agrees_with_lists(steps in steps()) {
        let (mut apic, mut lists) = (xapic(), Lists::default());
        let mut ended = Vec::new();
        for step in &steps {
            let expected = lists.deliverable();
            match *step {
                Step::Receive(vector, level) => apic.receive(vector, level),
                Step::Acknowledge => prop_assert_eq!(apic.acknowledge(), expected.unwrap_or(0xff)),
                Step::End => write(&mut apic, EOI, 0),
                Step::TaskPriority(priority) => write(&mut apic, TPR, priority.into()),
                Step::Suppress(on) => write(&mut apic, SVR, 0x1ff | u32::from(on) << 12),
            }
            lists.step(step);
            ended.extend(apic.take_outgoing());
            prop_assert_eq!(apic.deliverable(), lists.deliverable());
            prop_assert_eq!(read(&mut apic, PPR), u32::from(lists.priority()));
            for (base, list) in [(IRR, &lists.requested), (ISR, &lists.service), (TMR, &lists.level)] {
                let mut list = list.clone();
                list.sort_unstable();
                prop_assert_eq!(vectors(&apic, base), list);
            }
        }
        prop_assert_eq!(ended, lists.ended);
    }
}

#[test]
fn arbitration_priority_is_the_formulas() {
    let mut apic = fresh(AMD, 0);
    write(&mut apic, SVR, 0x1ff);
    // TPR, in service, requested, APR.
    let rows = [
        (0x35, 0, 0, 0x35),
        (0x35, 0, 0x30, 0x35),
        (0x35, 0, 0x41, 0x40),
        (0x35, 0x51, 0x20, 0x20),
        (0x75, 0x51, 0x60, 0x75),
        (0x75, 0x51, 0x90, 0x90),
    ];
    for (task, service, requested, expected) in rows {
        let mut apic = apic.clone();
        for vector in [service, requested] {
            if vector != 0 {
                apic.receive(vector, false);
                if vector == service {
                    assert_eq!(apic.acknowledge(), service);
                }
            }
        }
        write(&mut apic, TPR, task);
        assert_eq!(read(&mut apic, APR), expected, "{task:#x} {service:#x} {requested:#x}");
    }
}
