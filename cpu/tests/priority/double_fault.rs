//! Which exceptions during a delivery make a double fault, or end the machine (SDM Vol. 3A "Interrupt 8—Double Fault
//! Exception (#DF)", APM Vol. 2 "#DF—Double-Fault Exception"): every first event against every second exception that a
//! delivery can meet.

use crate::support::{Rig, witness::Witness};
use rootmode_arch::record::Stop;
use rootmode_arch::{HostPhysical, SegmentName};
use rootmode_cpu::{Delivery, DeliveryKind, Model, RunEnd};

const DF: u8 = 8;
/// The second exceptions: #TS, #NP, #SS, #GP, #PF.
const SECOND: [u8; 5] = [10, 11, 12, 13, 14];

/// The manual's classes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Benign,
    Contributory,
    PageFault,
    DoubleFault,
}

/// Of an exception of the processor. Interrupts, NMIs and what instructions ask for are benign.
fn class(vector: u8) -> Class {
    match vector {
        0 | 10 | 11 | 12 | 13 | 21 => Class::Contributory,
        14 | 20 => Class::PageFault,
        DF => Class::DoubleFault,
        _ => Class::Benign,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Becomes {
    Second,
    DoubleFault,
    Shutdown,
}

/// The manual's table: rows are the first event, columns the second.
fn table(first: Class, second: Class) -> Becomes {
    match (first, second) {
        (Class::Contributory, Class::Contributory) => Becomes::DoubleFault,
        (Class::PageFault, Class::Contributory | Class::PageFault) => Becomes::DoubleFault,
        (Class::DoubleFault, Class::Contributory | Class::PageFault) => Becomes::Shutdown,
        _ => Becomes::Second,
    }
}

/// Delivers `first` through a gate at which `second` arises.
fn meet(model: Model, first: Delivery, second: u8) -> Becomes {
    let mut rig = Rig::with_model(model);
    let gate = 0x6000 + u64::from(first.vector) * 16;
    for vector in SECOND.into_iter().chain([DF]) {
        rig.gate(vector, 0x1_8000, 0xe, 0, 0);
    }
    rig.gate(first.vector, 0x1_8000, 0xe, 0, if second == 10 { 1 } else { 0 });
    match second {
        // The TSS ends before its interrupt stacks.
        10 => rig.cpu().segment_mut(SegmentName::Tr).limit = 0x20,
        11 => {
            let low = rig.read(gate);
            rig.memory.write_u64(HostPhysical(gate), low & !(1 << 47));
        }
        12 => rig.cpu().gpr[4] = 1 << 60,
        13 => rig.memory.write_u64(HostPhysical(gate), 0),
        _ => rig.cpu().gpr[4] = 0x7000_0000_0000,
    }
    rig.memory.write_u8(HostPhysical(0x1_8000), 0xf4);
    let (extension, seen) = Witness::attach(rig.cpu(), 1);
    rig.processor.extension = Some(extension);
    rig.cpu().injected = Some(first);
    rig.cpu().refresh();
    let end = rig.run(20);
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen[0].vector, second, "{first:?}");
    match seen.get(1) {
        _ if end == RunEnd::Stop(Stop::TripleFault) => Becomes::Shutdown,
        Some(next) if next.vector == DF => {
            assert_eq!(next.error_code, Some(0));
            Becomes::DoubleFault
        }
        _ => Becomes::Second,
    }
}

#[test]
fn double_faults_follow_the_table_of_classes() {
    let delivery = |kind, vector| Delivery {
        kind,
        vector,
        error_code: matches!(vector, 8 | 10..=14 | 17 | 21).then_some(0),
        length: 0,
        return_rip: None,
        detail: 0,
        blocks_nmis: false,
        resumes: false,
    };
    let exceptions = (0..=21).filter(|vector| ![2, 9, 15].contains(vector));
    let exceptions = exceptions.map(|vector| (delivery(DeliveryKind::Hardware, vector), class(vector)));
    let others = [
        (DeliveryKind::External, 0x40),
        (DeliveryKind::Nmi, 2),
        (DeliveryKind::Software, 0x41),
        // INT 13 and INT 14 are no exceptions.
        (DeliveryKind::Software, 13),
        (DeliveryKind::Software, 14),
        (DeliveryKind::SoftwareException, 3),
        (DeliveryKind::Privileged, 1),
    ];
    let others = others.map(|(kind, vector)| {
        let error_code = None;
        (Delivery { error_code, ..delivery(kind, vector) }, Class::Benign)
    });
    let firsts: Vec<_> = exceptions.chain(others).collect();
    for model in [Model::max_intel(), Model::max_amd()] {
        for (first, kind) in &firsts {
            for second in SECOND {
                // Its own gate has the defect: the second would meet it again.
                if first.vector == second && matches!(second, 10 | 11 | 13) {
                    continue;
                }
                let expected = table(*kind, class(second));
                assert_eq!(meet(model.clone(), *first, second), expected, "{first:?}, then {second}");
            }
        }
    }
}
