//! What comes first between instructions of a guest, exhaustively; and whose branch records there are
//! ("Physical (INTR) Interrupt Masking in EFLAGS", "Injecting Virtual (INTR) Interrupts", "Virtual GIF", "NMI Virtualization", "LBR Virtualization").

use super::bench::*;
use rootmode_arch::{DebugCtl, HostPhysical, RFlags, msr};
use rootmode_cpu::{Instruction, Message, Outcome};
use rootmode_svm::vmcb::{IntCtl, VirtExt};
use rootmode_svm::{Field, Intercept};

const VMMCALL: u64 = 0x81;
/// Handlers of their own, 16 bytes each.
const HANDLERS: u64 = 0x6_0000;

const fn handler_of(vector: u8) -> u64 {
    HANDLERS + vector as u64 * 16
}

/// What is pending, and what keeps it away or makes it exit.
#[derive(Clone, Copy, Debug)]
struct Situation {
    masking: bool,
    host_interrupts: bool,
    guest_interrupts: bool,
    shadow: bool,
    /// V_GIF, if virtual GIF is enabled.
    virtual_gif: Option<bool>,
    interrupt: bool,
    nmi: bool,
    virtual_interrupt: bool,
    /// V_NMI, if virtual NMIs are enabled.
    virtual_nmi: Option<bool>,
    exits_interrupt: bool,
    exits_nmi: bool,
    exits_virtual: bool,
}

impl Situation {
    fn all() -> impl Iterator<Item = Self> {
        (0..1_u32 << 14).filter_map(|n| {
            let bit = |at: u32| n >> at & 1 != 0;
            let optional = |at: u32| bit(at).then_some(bit(at + 1));
            let situation = Self {
                masking: bit(0),
                host_interrupts: bit(1),
                guest_interrupts: bit(2),
                shadow: bit(3),
                virtual_gif: optional(4),
                interrupt: bit(6),
                nmi: bit(7),
                virtual_interrupt: bit(8),
                virtual_nmi: optional(9),
                exits_interrupt: bit(11),
                exits_nmi: bit(12),
                exits_virtual: bit(13),
            };
            let repeated = !bit(4) && bit(5) || !bit(9) && bit(10);
            // Virtual NMIs need the NMI intercept.
            (!repeated && (situation.virtual_nmi.is_none() || situation.exits_nmi)).then_some(situation)
        })
    }

    fn run(self) -> (u64, u64) {
        let mut bench = Bench::new();
        for vector in [2, 0x55, 0x66] {
            let target = handler_of(vector);
            let low = target & 0xffff | u64::from(KERNEL_CS) << 16 | 0x8e << 40 | (target >> 16) << 48;
            bench.put(IDT + u64::from(vector) * 16, low);
            bench.board.memory.write(HostPhysical(target), &[0x0f, 0x01, 0xd9]);
        }
        bench.assemble(|a| a.nop().and_then(|()| a.nop()).and_then(|()| a.vmmcall()));
        bench.set(Field::IntVector, 0x66);
        let mut control = IntCtl::V_IGN_TPR
            .set(IntCtl::V_INTR_MASKING, self.masking)
            .set(IntCtl::V_IRQ, self.virtual_interrupt);
        if let Some(gif) = self.virtual_gif {
            control = control.with(IntCtl::V_GIF_ENABLE).set(IntCtl::V_GIF, gif);
        }
        if let Some(nmi) = self.virtual_nmi {
            control = control.with(IntCtl::V_NMI_ENABLE).set(IntCtl::V_NMI, nmi);
        }
        bench.int_ctl(control);
        bench.set(Field::InterruptState, self.shadow.into());
        for (on, intercept) in [
            (self.exits_interrupt, Intercept::INTR),
            (self.exits_nmi, Intercept::NMI),
            (self.exits_virtual, Intercept::VINTR),
        ] {
            if on {
                bench.intercept(intercept);
            }
        }
        if self.guest_interrupts {
            bench.interrupts_on();
        }
        let flags = bench.cpu().rflags().set(RFlags::IF, self.host_interrupts);
        bench.cpu().set_rflags(flags);
        bench.cpu().refresh();
        if self.interrupt {
            bench.cpu().post(Message::Interrupt(0x55));
        }
        if self.nmi {
            bench.cpu().post(Message::Nmi);
        }
        let exit = bench.exit();
        (exit.code, exit.rip)
    }

    /// What the manual says, event by event. Handlers are entered with IF clear.
    fn expected(mut self) -> (u64, u64) {
        let (mut rip, mut blocked) = (CODE, false);
        let virtual_gif = self.virtual_gif != Some(false);
        loop {
            let nmi = self.nmi && (self.virtual_nmi.is_some() || !blocked);
            let open = if self.masking { self.host_interrupts } else { self.guest_interrupts };
            let taken = if self.shadow {
                None
            } else if nmi {
                if self.exits_nmi {
                    return (0x61, rip);
                }
                (self.nmi, blocked) = (false, true);
                Some(2)
            } else if self.virtual_nmi == Some(true) && virtual_gif && !blocked {
                (self.virtual_nmi, blocked) = (Some(false), true);
                Some(2)
            } else if self.interrupt && open {
                if self.exits_interrupt {
                    return (0x60, rip);
                }
                self.interrupt = false;
                Some(0x55)
            } else if self.virtual_interrupt && virtual_gif && self.guest_interrupts {
                if self.exits_virtual {
                    return (0x64, rip);
                }
                self.virtual_interrupt = false;
                Some(0x66)
            } else {
                None
            };
            if let Some(vector) = taken {
                rip = handler_of(vector);
                self.guest_interrupts = false;
                continue;
            }
            if rip >= CODE + 2 {
                return (VMMCALL, rip);
            }
            rip += 1;
            self.shadow = false;
        }
    }
}

#[test]
fn gates_and_priorities_of_physical_and_virtual_events_in_every_combination() {
    let mut count = 0;
    for situation in Situation::all() {
        assert_eq!(situation.run(), situation.expected(), "{situation:?}");
        count += 1;
    }
    // Without virtual NMIs eight sets of intercepts, with them four, for V_NMI clear and set.
    assert_eq!(count, 16 * 3 * 8 * (8 + 2 * 4));
}

const FROM: u32 = msr::LASTBRANCHFROMIP;
const TO: u32 = msr::LASTBRANCHTOIP;

fn read(bench: &mut Bench, index: u32) -> u64 {
    match bench.execute(Instruction::Rdmsr { index }) {
        Ok(Outcome::Value(value)) => value,
        other => panic!("RDMSR of {index:#x}: {other:?}"),
    }
}

#[test]
fn branches_of_a_guest_are_its_own_with_lbr_virtualization_and_the_hosts_without() {
    for own in [false, true] {
        let mut bench = Bench::new();
        bench.assemble(|a| {
            let mut next = a.create_label();
            a.jmp(next)?;
            a.nop()?;
            a.set_label(&mut next)?;
            a.vmmcall()
        });
        if own {
            bench.or(Field::VirtExt, VirtExt::LBR_ENABLE.0);
            bench.set(Field::Dbgctl, DebugCtl::LBR.0);
        } else {
            let (index, value) = (msr::IA32_DEBUGCTL, DebugCtl::LBR.0);
            bench.execute(Instruction::Wrmsr { index, value }).unwrap();
        }
        bench.cpu().branches.from = 0x1111;
        bench.cpu().branches.to = 0x2222;
        let exit = bench.exit();
        assert_eq!(exit.code, VMMCALL);
        let hosts = [read(&mut bench, FROM), read(&mut bench, TO)];
        let guests = [Field::BrFrom, Field::BrTo].map(|field| bench.field(field));
        if own {
            assert_eq!((hosts, guests), ([0x1111, 0x2222], [CODE, exit.rip]));
            assert_eq!(bench.field(Field::Dbgctl), DebugCtl::LBR.0);
            assert_eq!(read(&mut bench, msr::IA32_DEBUGCTL), 0);
        } else {
            assert_eq!((hosts, guests), ([CODE, exit.rip], [0, 0]));
        }
    }
}

#[test]
fn exceptions_of_a_guest_are_recorded_as_branches_and_what_was_there_before() {
    let mut bench = Bench::new();
    bench.or(Field::VirtExt, VirtExt::LBR_ENABLE.0);
    bench.set(Field::Dbgctl, DebugCtl::LBR.0);
    bench.assemble(|a| {
        let mut next = a.create_label();
        a.jmp(next)?;
        a.nop()?;
        a.set_label(&mut next)?;
        a.ud2()
    });
    assert_eq!(bench.exit().code, VMMCALL);
    let target = bench.field(Field::LastExcpTo);
    assert!((CODE + 3..CODE + 8).contains(&target), "the jump's target");
    assert_eq!(bench.field(Field::LastExcpFrom), CODE);
    assert_eq!((bench.field(Field::BrFrom), bench.field(Field::BrTo)), (target, HANDLER));
}
