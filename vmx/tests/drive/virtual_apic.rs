//! The virtual APIC against a state machine that was written from the manual's pseudo code alone
//! ("APIC Virtualization and Virtual Interrupts"), and posted interrupts under all interleavings of two senders and a guest.

use super::bench::*;
use iced_x86::code_asm::*;
use rootmode_arch::choices::{Choices, Exhaustive, Seeded};
use rootmode_arch::{Gpr, HostPhysical, RFlags, Site};
use rootmode_cpu::Message;
use rootmode_vmx::{ExitControls, ExitReason, Field, PinControls, SecondaryControls};

/// Bits of 256 vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Vectors([u64; 4]);

impl Vectors {
    fn set(&mut self, vector: u8, on: bool) {
        let word = &mut self.0[usize::from(vector) / 64];
        *word = *word & !(1 << (vector & 63)) | u64::from(on) << (vector & 63);
    }
    /// The highest vector, or 0.
    fn highest(self) -> u8 {
        (0..=255).rev().find(|v: &u8| self.0[usize::from(*v) / 64] >> (v & 63) & 1 != 0).unwrap_or(0)
    }
}

/// The virtual APIC as the manual's operations define it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Oracle {
    vtpr: u8,
    vppr: u8,
    virr: Vectors,
    visr: Vectors,
    rvi: u8,
    svi: u8,
    recognized: bool,
}

impl Oracle {
    /// "PPR Virtualization".
    fn ppr(&mut self) {
        self.vppr = if self.vtpr >> 4 >= self.svi >> 4 { self.vtpr } else { self.svi & 0xf0 };
    }
    /// "Evaluation of Pending Virtual Interrupts".
    fn evaluate(&mut self) {
        self.recognized = self.rvi >> 4 > self.vppr >> 4;
    }
    /// What VM entry does of it.
    fn enter(&mut self) {
        self.ppr();
        self.evaluate();
    }
    /// "TPR Virtualization".
    fn write_tpr(&mut self, value: u8) {
        self.vtpr = value;
        self.enter();
    }
    /// "EOI Virtualization". True: it exits, with the vector.
    fn eoi(&mut self, exits: &Vectors) -> Option<u8> {
        let vector = self.svi;
        self.visr.set(vector, false);
        self.svi = self.visr.highest();
        self.ppr();
        if exits.0[usize::from(vector) / 64] >> (vector & 63) & 1 != 0 {
            return Some(vector);
        }
        self.evaluate();
        None
    }
    /// "Self-IPI Virtualization".
    fn self_ipi(&mut self, vector: u8) {
        self.virr.set(vector, true);
        self.rvi = self.rvi.max(vector);
        self.evaluate();
    }
    /// "Virtual-Interrupt Delivery": the vector.
    fn deliver(&mut self) -> u8 {
        let vector = self.rvi;
        self.visr.set(vector, true);
        self.svi = vector;
        self.vppr = vector & 0xf0;
        self.virr.set(vector, false);
        self.rvi = self.virr.highest();
        self.recognized = false;
        vector
    }
}

/// The registers of the virtual-APIC page from `offset` on, a bit a vector.
fn page_vectors(bench: &Bench, offset: u64) -> Vectors {
    let word = |n: u64| bench.get(VIRTUAL_APIC + offset + n * 16) & 0xffff_ffff;
    Vectors([0, 1, 2, 3].map(|n| word(2 * n) | word(2 * n + 1) << 32))
}

/// The same state as the processor has it.
fn seen(bench: &mut Bench) -> Oracle {
    let status = bench.vmread(Field::GuestInterruptStatus) as u16;
    let [rvi, svi] = status.to_le_bytes();
    Oracle {
        vtpr: bench.get(VIRTUAL_APIC + 0x80) as u8,
        vppr: bench.get(VIRTUAL_APIC + 0xa0) as u8,
        virr: page_vectors(bench, 0x200),
        visr: page_vectors(bench, 0x100),
        rvi,
        svi,
        recognized: false,
    }
}

/// What a guest does in one step.
#[derive(Clone, Copy, Debug)]
enum Step {
    Tpr(u8),
    Eoi,
    SelfIpi(u8),
    Nothing,
}

impl Step {
    fn draw(draw: &mut Seeded) -> Self {
        let mut below = |n| draw.choose(Site::Sequence, n);
        match below(6) {
            0 => Self::Tpr(below(256) as u8),
            1 | 2 => Self::Eoi,
            3 | 4 => Self::SelfIpi(16 + below(240) as u8),
            _ => Self::Nothing,
        }
    }
    /// The x2APIC register and its value.
    const fn write(self) -> Option<(u64, u64)> {
        match self {
            Self::Tpr(value) => Some((0x808, value as u64)),
            Self::Eoi => Some((0x80b, 0)),
            Self::SelfIpi(vector) => Some((0x83f, vector as u64)),
            Self::Nothing => None,
        }
    }
}

/// Length of WRMSR.
const WRMSR: u64 = 2;

#[test]
fn the_virtual_apic_does_what_the_manuals_pseudo_code_does() {
    let (mut delivered, mut ended, mut exits) = (0, 0, 0);
    for seed in 0..60 {
        let mut draw = Seeded::new(seed);
        let mut bench = Bench::new();
        bench.virtual_interrupts();
        bench.virtual_x2apic();
        bench.secondary(SecondaryControls::APIC_REGISTER_VIRTUALIZATION);
        bench.set(Field::GuestInterruptStatus, 0);
        let mut bitmap = Vectors::default();
        let fields =
            [Field::EoiExitBitmap0, Field::EoiExitBitmap1, Field::EoiExitBitmap2, Field::EoiExitBitmap3];
        for (word, field) in bitmap.0.iter_mut().zip(fields) {
            *word = (0..4).fold(0, |all, _| all << 16 | draw.choose(Site::Sequence, 1 << 16));
            *word &= (0..4).fold(0, |all, _| all << 16 | draw.choose(Site::Sequence, 1 << 16));
            bench.set(field, *word);
        }
        bench.assemble(|a| {
            a.wrmsr()?;
            a.vmcall()
        });
        let mut oracle = Oracle::default();
        for step in 0..60 {
            let does = Step::draw(&mut draw);
            let open = draw.choose(Site::Sequence, 2) == 0;
            bench.set(Field::GuestRip, CODE + if does.write().is_some() { 0 } else { WRMSR });
            bench.set(Field::GuestRsp, STACK);
            bench.set(Field::GuestRflags, if open { (RFlags::ONE | RFlags::IF).0 } else { RFlags::ONE.0 });
            if let Some((register, value)) = does.write() {
                bench.register(Gpr::Rcx, register);
                bench.register(Gpr::Rax, value);
                bench.register(Gpr::Rdx, 0);
            }
            let exit = bench.exit();
            // Before the step, and after it.
            oracle.enter();
            let taken = |oracle: &mut Oracle| (open && oracle.recognized).then(|| oracle.deliver());
            let at = format!("seed {seed}, step {step}, {does:?}, IF {open}");
            if taken(&mut oracle).is_some() {
                assert_eq!((exit.reason, exit.rip), (ExitReason::VMCALL.0.into(), HANDLER), "{at}");
                delivered += 1;
            } else {
                let ends = match does {
                    Step::Tpr(value) => {
                        oracle.write_tpr(value);
                        None
                    }
                    Step::Eoi => {
                        ended += 1;
                        oracle.eoi(&bitmap)
                    }
                    Step::SelfIpi(vector) => {
                        oracle.self_ipi(vector);
                        None
                    }
                    Step::Nothing => None,
                };
                let expected = match ends {
                    Some(vector) => {
                        exits += 1;
                        (ExitReason::VIRTUALIZED_EOI.0.into(), u64::from(vector), CODE + WRMSR)
                    }
                    None if taken(&mut oracle).is_some() => {
                        delivered += 1;
                        (ExitReason::VMCALL.0.into(), 0, HANDLER)
                    }
                    None => (ExitReason::VMCALL.0.into(), 0, CODE + WRMSR),
                };
                assert_eq!((exit.reason, exit.qualification, exit.rip), expected, "{at}");
            }
            oracle.recognized = false;
            assert_eq!(seen(&mut bench), oracle, "{at}");
        }
    }
    assert!(delivered > 200 && ended > 500 && exits > 50, "{delivered} {ended} {exits}");
}

/// What a sender does to a posted-interrupt descriptor, in this order ("Posted-Interrupt Processing", "Sending").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Request,
    Notify,
    Done,
}

const NOTIFICATION: u8 = 0xf2;
const ON: u64 = 1;

#[test]
fn of_two_senders_neither_loses_an_interrupt_however_they_interleave_with_the_guest() {
    const VECTORS: [u8; 2] = [0x51, 0xa3];
    let mut all = Exhaustive::new(1 << 20);
    let mut runs = 0;
    while all.begin() {
        runs += 1;
        let mut bench = Bench::new();
        bench.virtual_interrupts();
        bench.virtual_x2apic();
        bench.pin(PinControls::POSTED_INTERRUPTS);
        bench.exit_controls(ExitControls::ACKNOWLEDGE_INTERRUPT);
        bench.set(Field::PostedInterruptVector, NOTIFICATION.into());
        bench.set(Field::GuestInterruptStatus, 0);
        // Each vector's handler is four bytes further, ends the interrupt and goes on.
        for (n, vector) in VECTORS.into_iter().enumerate() {
            let handler = HANDLER + 0x100 * (n as u64 + 1);
            bench.put(
                IDT + u64::from(vector) * 16,
                handler & 0xffff | 8 << 16 | 0x8e << 40 | handler >> 16 << 48,
            );
            let code = assemble(64, handler, |a| {
                a.inc(if n == 0 { r8 } else { r9 })?;
                a.mov(ecx, 0x80b)?;
                a.xor(eax, eax)?;
                a.xor(edx, edx)?;
                a.wrmsr()?;
                a.iretq()
            });
            bench.board.memory.write(HostPhysical(handler), &code);
        }
        bench.assemble(|a| {
            let mut here = a.create_label();
            a.sti()?;
            a.set_label(&mut here)?;
            a.jmp(here)
        });
        let mut senders = [Sender::Request; 2];
        let mut guest_steps = 5;
        bench.enter();
        while senders != [Sender::Done; 2] || guest_steps > 0 {
            let mut can: Vec<usize> = (0..2).filter(|n| senders[*n] != Sender::Done).collect();
            if guest_steps > 0 {
                can.push(2);
            }
            let next = can[all.choose(Site::Task, can.len() as u64) as usize];
            if next == 2 {
                guest_steps -= 1;
                bench.ticks(1);
                continue;
            }
            let control = bench.get(DESCRIPTOR + 32);
            match senders[next] {
                Sender::Request => {
                    let word = DESCRIPTOR + u64::from(VECTORS[next] / 64) * 8;
                    bench.put(word, bench.get(word) | 1 << (VECTORS[next] & 63));
                    senders[next] = Sender::Notify;
                }
                _ => {
                    // Sets ON and looks at what it was, in one step.
                    bench.put(DESCRIPTOR + 32, control | ON);
                    if control & ON == 0 {
                        bench.post(Message::Interrupt(NOTIFICATION));
                    }
                    senders[next] = Sender::Done;
                }
            }
        }
        bench.ticks(100);
        let cpu = bench.cpu();
        assert_eq!([cpu.gpr[8], cpu.gpr[9]], [1, 1], "run {runs}: each is handled once");
        assert_eq!(bench.get(DESCRIPTOR + 32) & ON, 0, "run {runs}");
        assert_eq!(page_vectors(&bench, 0x200), Vectors::default());
        assert_eq!(page_vectors(&bench, 0x100), Vectors::default());
    }
    assert!(all.is_complete(), "{runs} interleavings were not all");
    assert_eq!(runs, 756, "the interleavings of 2, 2 and 5 steps");
}
