//! Events that wait at one instruction boundary are taken in the manual's order: every combination against a walk over
//! its list; and the classes of exceptions that make a double fault.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod double_fault;
mod oracle;
#[path = "../support/mod.rs"]
mod support;

use iced_x86::code_asm::*;
use oracle::{Case, Delivered, INTERRUPT, Next, Previous, deliveries};
use rootmode_arch::record::{Observer, Payload, Record};
use rootmode_arch::{Cr0, HostPhysical, RFlags};
use rootmode_cpu::{Context, Message, Model, RunEnd};
use std::sync::{Arc, Mutex};
use support::*;

/// The next instruction begins the second large page, which is an alias of the first one.
const NEXT: u64 = 0x20_0000;
/// Where handlers of #DB append DR6.
const LOG: u64 = 0x2_8000;
const HANDLERS: u64 = 0x1_8000;
/// An address that is not mapped.
const NOWHERE: u64 = 0x7000_0000_0000;

/// The vectors of what the processor delivered.
#[derive(Default)]
struct Order(Arc<Mutex<Vec<u8>>>);

impl Observer for Order {
    fn observe(&mut self, record: &Record) {
        if let Payload::Delivery { vector, .. } = record.payload {
            self.0.lock().unwrap().push(vector);
        }
    }
}

struct Boundary {
    rig: Rig,
    order: Order,
}

impl Boundary {
    /// A machine in front of the previous instruction of `case`.
    fn new(case: &Case) -> Self {
        let mut rig = Rig::with_model(if case.amd { Model::max_amd() } else { Model::max_intel() });
        rig.memory.write_u64(HostPhysical(0x3008), if case.next == Next::Unfetchable { 0 } else { 0x87 });
        for vector in [1, 2, 6, 13, 14, INTERRUPT] {
            rig.gate(vector, HANDLERS + 0x100 * u64::from(vector), 0xe, 0, 0);
        }
        rig.code_at(HANDLERS + 0x100, |a| handle_debug(a).unwrap());
        for vector in [2, INTERRUPT] {
            rig.code_at(HANDLERS + 0x100 * u64::from(vector), |a| a.iretq().unwrap());
        }
        for vector in [6, 13, 14] {
            rig.code_at(HANDLERS + 0x100 * vector, |a| a.hlt().unwrap());
        }
        // RSM, for SMIs.
        rig.memory.write(HostPhysical(0x3_8000), &[0x0f, 0xaa]);
        rig.memory.write_u64(HostPhysical(DATA), 0x10);
        let next: &[u8] = match case.next {
            Next::Nop | Next::Unfetchable => &[0x90, 0xfa, 0xf4],
            Next::TooLong => &[0x66; 16],
            Next::Undefined => &[0x0f, 0x0b],
            // MOV RAX, [RSI].
            Next::Faulting => &[0x48, 0x8b, 0x06],
        };
        rig.memory.write(HostPhysical(0), next);
        // MOV RAX, [RDI]; STI; MOV SS, [RDI].
        let previous: &[u8] = match case.previous {
            Previous::Load => &[0x48, 0x8b, 0x07],
            Previous::Sti => &[0xfb],
            Previous::MovSs => &[0x8e, 0x17],
        };
        let start = NEXT - previous.len() as u64;
        rig.memory.write(HostPhysical(start), previous);
        let cpu = rig.cpu();
        cpu.rip = start;
        (cpu.gpr[4], cpu.gpr[6], cpu.gpr[7], cpu.gpr[15]) = (0x3_7000, NOWHERE, DATA, LOG);
        let mut flags = RFlags(2);
        if case.enabled {
            flags = flags | RFlags::IF;
        }
        if case.single_step {
            flags = flags | RFlags::TF;
        }
        cpu.set_rflags(flags);
        cpu.nmi_blocked = case.nmi_blocked;
        (cpu.dr[0], cpu.dr[1], cpu.dr7) = (NEXT, DATA, 0x400);
        if case.code_breakpoint {
            cpu.dr7 |= 2;
        }
        if case.data_breakpoint {
            // Reads and writes of 8 bytes.
            cpu.dr7 |= 8 | 0xb << 20;
        }
        cpu.refresh();
        Self { rig, order: Order::default() }
    }

    fn run(&mut self, ticks: u64) -> RunEnd {
        let until = self.rig.processor.cpu.tick + ticks;
        let mut context = Context {
            memory: &mut self.rig.memory,
            bus: &mut *self.rig.bus,
            choices: &mut *self.rig.choices,
            observer: Some(&mut self.order),
            effects: &mut self.rig.effects,
            gates: false,
        };
        self.rig.processor.run(&mut context, until)
    }

    fn post(&mut self, case: &Case) {
        let cpu = self.rig.cpu();
        let messages = [
            (case.smi, Message::Smi),
            (case.nmi, Message::Nmi),
            (case.interrupt, Message::Interrupt(INTERRUPT)),
        ];
        for (_, message) in messages.into_iter().filter(|(waits, _)| *waits) {
            cpu.post(message);
        }
        cpu.refresh();
    }

    /// What was delivered so far.
    fn delivered(&self) -> Vec<Delivered> {
        let order = self.order.0.lock().unwrap();
        let mut log = (0..).map(|n| self.rig.memory.read_u64(HostPhysical(LOG + n * 8)) & 0x400f);
        order.iter().map(|vector| (*vector, if *vector == 1 { log.next().unwrap() } else { 0 })).collect()
    }
}

/// Notes DR6 and clears it; clears TF, and sets RF behind a code breakpoint.
fn handle_debug(a: &mut CodeAssembler) -> Result<(), IcedError> {
    let mut trap = a.create_label();
    a.push(rax)?;
    a.mov(rax, dr6)?;
    a.mov(qword_ptr(r15), rax)?;
    a.add(r15, 8)?;
    a.and(dword_ptr(rsp + 24), !0x100)?;
    a.test(al, 1)?;
    a.jz(trap)?;
    a.or(dword_ptr(rsp + 24), 0x1_0000)?;
    a.set_label(&mut trap)?;
    a.mov(eax, 0xffff_0ff0_u32)?;
    a.mov(dr6, rax)?;
    a.pop(rax)?;
    a.iretq()
}

/// Every case whose outcome the manual fixes.
fn cases() -> impl Iterator<Item = Case> {
    let flags = 1_u32 << 9;
    (0..flags)
        .flat_map(|bits| {
            let flag = move |n: u32| bits >> n & 1 != 0;
            let previous = [Previous::Load, Previous::Sti, Previous::MovSs];
            previous.into_iter().flat_map(move |previous| {
                let next = [Next::Nop, Next::Unfetchable, Next::TooLong, Next::Undefined, Next::Faulting];
                next.into_iter().map(move |next| Case {
                    amd: flag(0),
                    previous,
                    next,
                    single_step: flag(1),
                    data_breakpoint: flag(2),
                    code_breakpoint: flag(3),
                    nmi: flag(4),
                    nmi_blocked: flag(5),
                    interrupt: flag(6),
                    enabled: flag(7),
                    smi: flag(8),
                })
            })
        })
        .filter(|case| match case.previous {
            Previous::Load => true,
            // It has no operand in memory, and casts its shadow if IF was clear.
            Previous::Sti => !case.data_breakpoint && !case.enabled,
            // What becomes of a trap that MOV SS holds back before a fault is left open.
            Previous::MovSs => {
                !case.data_breakpoint || case.next == Next::Nop && !(case.amd && case.code_breakpoint)
            }
        })
}

#[test]
fn what_waits_at_a_boundary_comes_in_the_order_of_the_manual() {
    let mut longest = 0;
    // Every 7th case; all of them take some seconds.
    for case in cases().step_by(7) {
        let mut boundary = Boundary::new(&case);
        assert_eq!(boundary.run(1), RunEnd::Budget, "{case:?}");
        boundary.post(&case);
        if case.smi {
            // Nothing that comes from inside the processor, and no NMI, precedes it.
            boundary.run(1);
            assert_eq!(boundary.delivered(), [], "{case:?}");
        }
        assert_eq!(boundary.run(200), RunEnd::Asleep, "{case:?}");
        let expected = deliveries(&case);
        longest = longest.max(expected.len());
        assert_eq!(boundary.delivered(), expected, "{case:?}");
    }
    assert_eq!(longest, 5, "#DB, NMI, interrupt, #DB, fault");
}

#[test]
fn init_waits_for_smm_and_precedes_everything_else() {
    for (smi, amd) in [(false, false), (true, false), (false, true), (true, true)] {
        let case = Case {
            amd,
            previous: Previous::Load,
            next: Next::Undefined,
            single_step: true,
            data_breakpoint: true,
            code_breakpoint: true,
            nmi: false,
            nmi_blocked: false,
            interrupt: true,
            enabled: true,
            smi,
        };
        let mut boundary = Boundary::new(&case);
        boundary.run(1);
        boundary.post(&case);
        boundary.rig.cpu().post(Message::Init);
        boundary.rig.cpu().refresh();
        // At most RSM, and what lies at the reset vector: nothing, which is undefined.
        boundary.run(if smi { 3 } else { 2 });
        assert!(boundary.delivered().iter().all(|(vector, _)| ![1, INTERRUPT].contains(vector)));
        let cpu = boundary.rig.cpu();
        assert!(!cpu.cr0.contains(Cr0::PE), "SMI {smi}, AMD {amd}");
    }
}

#[test]
fn an_instruction_that_is_too_long_is_told_from_one_that_is_not_defined() {
    // Prefixes, then NOP, PUSH ES, which 64-bit mode does not have, an opcode that nothing has, or UD2.
    let rows: [(usize, &[u8], Option<u8>); 7] = [
        (14, &[0x90], None),
        (15, &[0x90], Some(13)),
        (14, &[0x06], Some(6)),
        (15, &[0x06], Some(13)),
        (13, &[0x0f, 0x04], Some(6)),
        (14, &[0x0f, 0x04], Some(13)),
        (12, &[0x0f, 0x0b], Some(6)),
    ];
    for (prefixes, opcode, expected) in rows {
        let mut rig = Rig::new();
        let (extension, seen) = witness::Witness::attach(rig.cpu(), 0);
        rig.processor.extension = Some(extension);
        let code = [&vec![0x66; prefixes][..], opcode, &[0xf4]].concat();
        rig.memory.write(HostPhysical(CODE), &code);
        rig.run(1);
        let seen = seen.lock().unwrap().first().map(|e| e.vector);
        assert_eq!(seen, expected, "{prefixes} prefixes, {opcode:02x?}");
    }
}
