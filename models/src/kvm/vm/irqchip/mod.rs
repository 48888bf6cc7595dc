//! The interrupt controllers in the kernel: a local APIC for every vCPU, and, unless they are the client's (split), the pair
//! of 8259s, the I/O APIC and the 8254.
//!
//! They are `cpu`'s local APIC and `devices`' chips. What one of them causes waits here until [`Irqchip::settle`] brings it
//! to the others and to the vCPUs that it concerns: one that sleeps is woken, one that is in the guest is made to leave it.

mod formats;
mod ports;
mod routes;
mod timers;

use std::collections::BTreeMap;

use rootmode_cpu::apic::{
    Abilities, ApicPage, Ipi, LocalApic, Mode, Outgoing, OwnPage, Shorthand, register, targets,
};
use rootmode_cpu::{InterruptMessage, Message, Model};
use rootmode_mmu::Digest;

use super::signals::{EventCounter, Fired, IrqEvents};
use crate::devices::ioapic::{IoApic, Kind as IoApicKind, PINS};
use crate::devices::pic::PicPair;
use crate::devices::pit::Pit;
use crate::kvm::Errno;
use crate::kvm::abi::{
    IoapicState, IrqLevel, IrqRoutingEntry, Irqchip as ChipState, Irqfd, LapicState, Msi, PicState, Plain,
};
use crate::kvm::host::{Machine, Tasks};
use routes::{IOAPIC, MASTER, Pin, Route, Routes, SLAVE};
use timers::Timers;

pub use routes::MOST_ROUTES;
pub(super) use timers::{ALARM, HostTimers, TIMERS};

/// Which controllers are in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// None.
    Client,
    /// All.
    Kernel,
    /// Local APICs; the client's I/O APIC has the interrupts below this one.
    Split(u32),
}

/// What waits for a vCPU beside its local APIC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Inputs {
    pub(super) nmi: bool,
    pub(super) init: bool,
    pub(super) sipi: Option<u8>,
    /// Another vCPU kicked it.
    pub(super) kicked: bool,
    /// A vector whose end the client's I/O APIC wants to see.
    pub(super) ended: Option<u8>,
}

/// A vCPU's place.
struct Seat {
    apic: Option<LocalApic>,
    inputs: Inputs,
    /// It sleeps.
    asleep: bool,
    /// What it does next was decided: it has to leave the guest to see anything new.
    inside: bool,
    /// What is added to the host's time-stamp counter.
    tsc_offset: u64,
    /// A vector that the client's 8259 gave (split).
    external: Option<u8>,
}

/// Who holds a line high.
const CLIENT: u8 = 1;
const RESAMPLED: u8 = 2;
const TIMER: u8 = 4;

/// What became of an interrupt: nobody got it, somebody who has it already, or so many.
pub(super) type Delivered = i32;
const NOBODY: Delivered = -1;

/// The interrupt controllers of a VM.
pub(super) struct Irqchip {
    tasks: Tasks,
    kind: Kind,
    seats: Vec<Seat>,
    pic: PicPair,
    ioapic: IoApic,
    pit: Option<Pit>,
    /// The next tick at which OUT of the 8254's counter 0 changes.
    pit_event: Option<u64>,
    /// Port 0x61 is the timer's.
    speaker: bool,
    routes: Routes,
    /// Who holds which line high.
    lines: BTreeMap<Pin, u8>,
    events: IrqEvents,
    timers: Timers,
    /// Messages of the I/O APIC that wait to be routed.
    sent: Vec<InterruptMessage>,
    /// vCPUs that something came for.
    touched: Vec<usize>,
}

impl Irqchip {
    /// None in the kernel.
    pub(super) fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            kind: Kind::Client,
            seats: Vec::new(),
            pic: PicPair::kvm(),
            ioapic: IoApic::of(IoApicKind::Kvm),
            pit: None,
            pit_event: None,
            speaker: false,
            routes: Routes::default(),
            lines: BTreeMap::new(),
            events: IrqEvents::default(),
            timers: Timers::default(),
            sent: Vec::new(),
            touched: Vec::new(),
        }
    }

    /// Whether the local APICs are in the kernel.
    pub(super) fn in_kernel(&self) -> bool {
        self.kind != Kind::Client
    }

    /// Whether all controllers are.
    pub(super) fn is_full(&self) -> bool {
        self.kind == Kind::Kernel
    }

    /// `KVM_CREATE_IRQCHIP`.
    ///
    /// # Errors
    /// [`Errno::Eexist`] the second time, [`Errno::Einval`] behind the first vCPU.
    pub(super) fn create(&mut self) -> Result<(), Errno> {
        self.set_kind(Kind::Kernel, Errno::Einval)?;
        self.routes = Routes::of_chips();
        Ok(())
    }

    /// `KVM_CAP_SPLIT_IRQCHIP`: the client's I/O APIC has `pins` interrupts.
    ///
    /// # Errors
    /// [`Errno::Einval`] for too many, [`Errno::Eexist`] the second time and behind the first vCPU.
    pub(super) fn split(&mut self, pins: u64) -> Result<(), Errno> {
        let pins = u32::try_from(pins).ok().filter(|pins| *pins <= MOST_ROUTES).ok_or(Errno::Einval)?;
        self.set_kind(Kind::Split(pins), Errno::Eexist)
    }

    fn set_kind(&mut self, kind: Kind, late: Errno) -> Result<(), Errno> {
        if self.in_kernel() {
            return Err(Errno::Eexist);
        }
        if !self.seats.is_empty() {
            return Err(late);
        }
        self.kind = kind;
        Ok(())
    }

    /// A vCPU was made; the bootstrap one has the 8259's INTR.
    pub(super) fn add_vcpu(&mut self, id: u32, bootstrap: bool, model: &Model) {
        let apic = self.in_kernel().then(|| {
            let mut apic = LocalApic::new(OwnPage::default(), self.abilities(model), id);
            if bootstrap {
                apic.pass_external();
            }
            apic
        });
        let inputs = Inputs::default();
        let (asleep, inside, tsc_offset, external) = (false, false, 0, None);
        self.seats.push(Seat { apic, inputs, asleep, inside, tsc_offset, external });
    }

    /// What the local APICs of KVM can do for a processor of this model.
    fn abilities(&self, model: &Model) -> Abilities {
        let abilities = Abilities::of(model);
        let suppress_eoi = abilities.x2apic && !self.is_full();
        Abilities {
            intel: true,
            cmci: false,
            suppress_eoi,
            timer_clock: rootmode_cpu::time::CRYSTAL,
            ..abilities
        }
    }

    /// The client described another processor.
    pub(super) fn set_model(&mut self, vcpu: usize, model: &Model) {
        let abilities = self.abilities(model);
        if let Some(apic) = &mut self.seats[vcpu].apic {
            apic.set_abilities(abilities);
        }
    }

    /// The local APIC of a vCPU, if it is in the kernel.
    pub(super) fn apic(&self, vcpu: usize) -> Option<&LocalApic> {
        self.seats[vcpu].apic.as_ref()
    }

    /// Calls `f` with the local APIC of a vCPU and its time, and brings what comes of it to where it belongs.
    pub(super) fn with_apic<T>(
        &mut self,
        machine: &mut Machine,
        vcpu: usize,
        f: impl FnOnce(&mut LocalApic, rootmode_cpu::apic::Clock) -> T,
    ) -> Option<T> {
        let clock = self.clock(machine, vcpu);
        let result = f(self.seats[vcpu].apic.as_mut()?, clock);
        self.settle(machine, Some(vcpu));
        Some(result)
    }

    /// `KVM_GET_LAPIC`.
    ///
    /// # Errors
    /// [`Errno::Einval`] if it is the client's.
    pub(super) fn lapic(&self, machine: &Machine, vcpu: usize) -> Result<LapicState, Errno> {
        let apic = self.apic(vcpu).ok_or(Errno::Einval)?;
        let mut registers = apic.registers(self.clock(machine, vcpu));
        if apic.mode() == Mode::X2Apic {
            // Without KVM_CAP_X2APIC_API, clients see the ID where xAPIC mode has it.
            registers[usize::from(register::ID >> 4)] = apic.id() << 24;
        }
        Ok(LapicState::from(&registers))
    }

    /// `KVM_SET_LAPIC`.
    ///
    /// # Errors
    /// [`Errno::Einval`] if it is the client's.
    pub(super) fn set_lapic(
        &mut self,
        machine: &mut Machine,
        vcpu: usize,
        state: &LapicState,
    ) -> Result<(), Errno> {
        let registers = formats::registers(state);
        self.with_apic(machine, vcpu, |apic, clock| apic.restore(&registers, clock)).ok_or(Errno::Einval)
    }

    /// `KVM_GET_IRQCHIP`.
    ///
    /// # Errors
    /// [`Errno::Enxio`] if it is not in the kernel, [`Errno::Einval`] for another chip.
    pub(super) fn chip(&self, asked: &ChipState) -> Result<ChipState, Errno> {
        if !self.is_full() {
            return Err(Errno::Enxio);
        }
        let bytes = match asked.chip_id {
            MASTER | SLAVE => PicState::from(&self.pic.save(asked.chip_id == SLAVE)).to_bytes(),
            IOAPIC => IoapicState::from(&self.ioapic.save()).to_bytes(),
            _ => return Err(Errno::Einval),
        };
        let mut state = ChipState { pad: 0, ..*asked };
        state.chip[..bytes.len()].copy_from_slice(&bytes);
        Ok(state)
    }

    /// `KVM_SET_IRQCHIP`.
    ///
    /// # Errors
    /// [`Errno::Enxio`] if it is not in the kernel, [`Errno::Einval`] for another chip.
    pub(super) fn set_chip(&mut self, machine: &mut Machine, state: &ChipState) -> Result<(), Errno> {
        if !self.is_full() {
            return Err(Errno::Enxio);
        }
        match state.chip_id {
            MASTER | SLAVE => {
                let saved = formats::saved_pic(&PicState::from_bytes(&state.chip));
                self.pic.restore(state.chip_id == SLAVE, &saved);
            }
            IOAPIC => {
                let saved = formats::saved_ioapic(&IoapicState::from_bytes(&state.chip));
                self.ioapic.restore(&saved, &mut self.sent);
            }
            _ => return Err(Errno::Einval),
        }
        self.settle(machine, None);
        Ok(())
    }

    /// `KVM_SET_GSI_ROUTING`.
    ///
    /// # Errors
    /// [`Errno::Einval`].
    pub(super) fn set_routes(&mut self, entries: &[IrqRoutingEntry]) -> Result<(), Errno> {
        if !self.in_kernel() {
            return Err(Errno::Einval);
        }
        self.routes = Routes::of(entries, !self.is_full())?;
        Ok(())
    }

    /// `KVM_IRQ_LINE`, `KVM_IRQ_LINE_STATUS`: what became of it.
    ///
    /// # Errors
    /// [`Errno::Enxio`] if the controllers are the client's.
    pub(super) fn line(&mut self, machine: &mut Machine, asked: &IrqLevel) -> Result<Delivered, Errno> {
        if !self.in_kernel() {
            return Err(Errno::Enxio);
        }
        let delivered = self.set_gsi(asked.irq, CLIENT, asked.level != 0);
        self.settle(machine, None);
        Ok(delivered)
    }

    /// `KVM_SIGNAL_MSI`: how many got it.
    ///
    /// # Errors
    /// [`Errno::Einval`].
    pub(super) fn signal(&mut self, machine: &mut Machine, msi: &Msi) -> Result<Delivered, Errno> {
        let message = if self.in_kernel() { routes::signal(msi)? } else { return Err(Errno::Einval) };
        let delivered = message.map_or(0, |message| self.send(None, &whole(message)));
        self.settle(machine, None);
        Ok(delivered)
    }

    /// `KVM_IRQFD` with its counters.
    ///
    /// # Errors
    /// [`Errno::Einval`] without a controller for it, [`Errno::Ebusy`] if the counter interrupts already.
    pub(super) fn irqfd(
        &mut self,
        machine: &mut Machine,
        asked: &Irqfd,
        mut open: impl FnMut(i32) -> Result<Box<dyn EventCounter>, Errno>,
    ) -> Result<(), Errno> {
        let (deassign, resample) = IrqEvents::kind(asked)?;
        if deassign {
            let event = open(asked.fd as i32)?;
            self.events.remove(asked.gsi, &*event);
            return Ok(());
        }
        if if resample { !self.is_full() } else { !self.in_kernel() } {
            return Err(Errno::Einval);
        }
        let event = open(asked.fd as i32)?;
        let resample = if resample { Some(open(asked.resamplefd as i32)?) } else { None };
        self.events.add(asked.gsi, event, resample)?;
        self.poll(machine);
        Ok(())
    }

    /// Looks at the counters that interrupt.
    pub(super) fn poll(&mut self, machine: &mut Machine) {
        let fired = self.events.fired();
        for fired in &fired {
            match *fired {
                Fired::Pulse(gsi) => {
                    self.set_gsi(gsi, CLIENT, true);
                    self.set_gsi(gsi, CLIENT, false);
                }
                Fired::Raise(gsi) => drop(self.set_gsi(gsi, RESAMPLED, true)),
            }
        }
        if !fired.is_empty() {
            self.settle(machine, None);
        }
    }

    /// Raises or lowers an interrupt for one of those who can hold its line.
    fn set_gsi(&mut self, gsi: u32, holder: u8, high: bool) -> Delivered {
        let mut all = NOBODY;
        for route in self.routes.to(gsi).to_vec() {
            let one = match route {
                Route::Chip(pin) => self.set_pin(pin, holder, high),
                Route::Message(message) if high => self.send(None, &whole(message)),
                Route::Message(_) => NOBODY,
            };
            if one >= 0 {
                all = one + all.max(0);
            }
        }
        all
    }

    fn set_pin(&mut self, pin: Pin, holder: u8, high: bool) -> Delivered {
        let holders = self.lines.entry(pin).or_default();
        *holders = if high { *holders | holder } else { *holders & !holder };
        let level = *holders != 0;
        match pin {
            Pin::Pic(irq) => {
                let (before, bit) = (self.pic.save(irq >= 8), 1 << (irq & 7));
                self.pic.set_line(irq, level);
                let rises = before.elcr & bit != 0 || before.last_irr & bit == 0;
                if before.imr & bit != 0 {
                    NOBODY
                } else {
                    (!level || !rises || before.irr & bit == 0).into()
                }
            }
            Pin::IoApic(input) => {
                let (was_high, before) = (self.ioapic.save().lines & 1 << input != 0, self.sent.len());
                self.ioapic.set_line(input, level, &mut self.sent);
                // What the input became goes out now, so that it is known who got it.
                let sent = self.sent.split_off(before);
                let delivered = sent.iter().map(|message| self.send(None, &whole(*message))).max();
                match (level, was_high) {
                    (false, _) => 1,
                    (true, true) => 0,
                    (true, false) => delivered.unwrap_or(NOBODY),
                }
            }
        }
    }

    /// Brings a message to the local APICs that it is meant for: to how many it was news.
    fn send(&mut self, source: Option<usize>, ipi: &Ipi) -> Delivered {
        let Some(arrives) = ipi.message.arrives() else { return 0 };
        let apics = self.seats.iter().zip(0_u8..).filter_map(|(seat, n)| Some((n, seat.apic.as_ref()?)));
        let meant = targets(apics, source.map(|source| source as u8), ipi);
        meant.into_iter().map(|target| self.arrive(target.into(), arrives)).sum()
    }

    /// Sends messages to the local APICs with the IDs that they name: to how many they were news. `source` looks by itself.
    pub(super) fn send_each(
        &mut self,
        machine: &mut Machine,
        source: usize,
        messages: impl Iterator<Item = InterruptMessage>,
    ) -> u64 {
        let mut news = 0;
        for message in messages {
            let Some(arrives) = message.arrives() else { continue };
            if let Some(target) = self.named(message.destination) {
                news += u64::from(self.arrive(target, arrives) > 0);
            }
        }
        self.settle(machine, Some(source));
        news
    }

    /// The vCPU whose local APIC has this ID.
    fn named(&self, id: u32) -> Option<usize> {
        self.seats.iter().position(|seat| seat.apic.as_ref().is_some_and(|apic| apic.id() == id))
    }

    /// Kicks the vCPU whose local APIC has this ID, if there is one.
    pub(super) fn kick(&mut self, machine: &mut Machine, id: u32) {
        if let Some(target) = self.named(id) {
            self.seats[target].inputs.kicked = true;
            self.nudge(machine, target);
        }
    }

    /// Whether it is news.
    fn arrive(&mut self, target: usize, message: Message) -> Delivered {
        self.touched.push(target);
        let Seat { apic: Some(apic), inputs, .. } = &mut self.seats[target] else { return 0 };
        match message {
            Message::Interrupt(vector) | Message::LevelInterrupt(vector) => {
                let known = apic.page().contains(register::IRR, vector);
                apic.receive(vector, matches!(message, Message::LevelInterrupt(_)));
                return (!known && apic.is_enabled()).into();
            }
            Message::ExtInt => apic.receive_ext_int(),
            Message::Nmi => inputs.nmi = true,
            Message::Init => (inputs.init, inputs.sipi) = (true, None),
            Message::Sipi(vector) => inputs.sipi = Some(vector),
            // There is no SMM, and these come from elsewhere.
            Message::Smi | Message::Intr(_) | Message::NmiLine(_) | Message::Doorbell => {}
        }
        1
    }

    /// Brings what happened to where it belongs. `source`: the vCPU whose doing it was, which looks by itself.
    pub(super) fn settle(&mut self, machine: &mut Machine, source: Option<usize>) {
        loop {
            for vcpu in 0..self.seats.len() {
                let Some(apic) = &mut self.seats[vcpu].apic else { continue };
                for outgoing in apic.take_outgoing() {
                    match outgoing {
                        Outgoing::Ipi(ipi) => drop(self.send(Some(vcpu), &ipi)),
                        Outgoing::EndOfInterrupt(vector) => self.ended(vcpu, vector),
                        Outgoing::Doorbell(_) => {}
                    }
                }
            }
            if self.sent.is_empty() {
                break;
            }
            for message in std::mem::take(&mut self.sent) {
                self.send(None, &whole(message));
            }
        }
        if self.is_full() {
            let output = self.pic.output();
            for (vcpu, seat) in self.seats.iter_mut().enumerate() {
                let Some(apic) = &mut seat.apic else { continue };
                let before = apic.ext_int();
                apic.set_pin(0, output);
                if apic.ext_int() && !before {
                    self.touched.push(vcpu);
                }
            }
        }
        self.arm(machine);
        for vcpu in std::mem::take(&mut self.touched) {
            if Some(vcpu) != source {
                self.nudge(machine, vcpu);
            }
        }
    }

    /// A vCPU has something to look at: it wakes, or leaves the guest.
    pub(super) fn nudge(&mut self, machine: &mut Machine, vcpu: usize) {
        let seat = &mut self.seats[vcpu];
        if seat.asleep {
            self.tasks.wake(vcpu as u8);
        } else if seat.inside {
            machine.board.processors_mut()[vcpu].cpu.post(Message::ExtInt);
        }
    }

    /// The vCPU sleeps from now on, or no longer does.
    pub(super) fn set_asleep(&mut self, vcpu: usize, asleep: bool) {
        self.seats[vcpu].asleep = asleep;
    }

    /// What the vCPU does next is decided, or it has come back.
    pub(super) fn set_inside(&mut self, vcpu: usize, inside: bool) {
        self.seats[vcpu].inside = inside;
    }

    /// A level-triggered vector ended at a vCPU.
    fn ended(&mut self, vcpu: usize, vector: u8) {
        match self.kind {
            Kind::Kernel => {
                for pin in 0..PINS {
                    if self.ioapic.entry(pin) as u8 == vector {
                        self.acknowledged(Pin::IoApic(pin));
                    }
                }
                self.ioapic.end_of_interrupt(vector, &mut self.sent);
            }
            Kind::Split(pins) => {
                let apic = self.seats[vcpu].apic.as_ref();
                let wanted = |message: &InterruptMessage| {
                    message.vector == vector
                        && message.level_triggered
                        && apic.is_some_and(|apic| apic.is_destination(message, false))
                };
                if self.routes.messages(pins).any(wanted) {
                    self.seats[vcpu].inputs.ended = Some(vector);
                }
            }
            Kind::Client => {}
        }
    }

    /// An interrupt of this input ended: those who hold it until then are told.
    fn acknowledged(&mut self, pin: Pin) {
        for gsi in self.routes.from(pin).collect::<Vec<_>>() {
            if self.events.resample(gsi) {
                self.set_gsi(gsi, RESAMPLED, false);
            }
        }
    }

    /// Takes what waits for a vCPU beside its local APIC.
    pub(super) fn take_inputs(&mut self, vcpu: usize) -> Inputs {
        std::mem::take(&mut self.seats[vcpu].inputs)
    }

    /// INIT waits again.
    pub(super) fn put_init(&mut self, vcpu: usize) {
        self.seats[vcpu].inputs.init = true;
    }

    /// A start-up IPI waits again.
    pub(super) fn put_sipi(&mut self, vcpu: usize, vector: u8) {
        self.seats[vcpu].inputs.sipi = Some(vector);
    }

    /// `KVM_INTERRUPT` of a vCPU whose 8259 is the client's and whose local APIC is not.
    ///
    /// # Errors
    /// [`Errno::Enxio`] if the 8259 is in the kernel, [`Errno::Eexist`] if a vector waits.
    pub(super) fn external(&mut self, vcpu: usize, vector: u8) -> Result<(), Errno> {
        if self.is_full() {
            return Err(Errno::Enxio);
        }
        let external = &mut self.seats[vcpu].external;
        if external.is_some() {
            return Err(Errno::Eexist);
        }
        *external = Some(vector);
        Ok(())
    }

    /// Whether the client may give a vector (split): none waits, and the local APIC lets it through.
    pub(super) fn accepts_external(&self, vcpu: usize) -> bool {
        let Seat { apic, external, .. } = &self.seats[vcpu];
        !self.is_full() && external.is_none() && apic.as_ref().is_some_and(LocalApic::passes_external)
    }

    /// Whether an interrupt waits for a vCPU to take it.
    pub(super) fn pending(&self, vcpu: usize) -> bool {
        let Seat { apic, external, .. } = &self.seats[vcpu];
        apic.as_ref().is_some_and(|apic| {
            apic.deliverable().is_some() || apic.ext_int() || external.is_some() && apic.passes_external()
        })
    }

    /// The vCPU takes an interrupt, if one waits: its vector. The 8259's go first.
    pub(super) fn acknowledge(&mut self, machine: &mut Machine, vcpu: usize) -> Option<u8> {
        let full = self.is_full();
        let Seat { apic, external, .. } = &mut self.seats[vcpu];
        let apic = apic.as_mut()?;
        if full && apic.ext_int() {
            apic.ext_int_taken();
            let vector = self.acknowledge_pic();
            self.settle(machine, Some(vcpu));
            return Some(vector);
        }
        if apic.passes_external()
            && let Some(vector) = external.take()
        {
            return Some(vector);
        }
        apic.deliverable()?;
        Some(apic.acknowledge())
    }

    /// Adds the chips to `digest`.
    pub(super) fn digest(&self, digest: &mut Digest) {
        for seat in &self.seats {
            if let Some(apic) = &seat.apic {
                apic.digest(digest);
            }
            let Inputs { nmi, init, sipi, kicked, ended } = seat.inputs;
            digest.all(&[nmi.into(), init.into(), sipi.map_or(0, |vector| 1 + u64::from(vector))]);
            digest.all(&[
                ended.map_or(0, |vector| 1 + u64::from(vector)),
                seat.asleep.into(),
                kicked.into(),
                seat.tsc_offset,
            ]);
        }
        self.pic.digest(digest);
        self.ioapic.digest(digest);
        if let Some(pit) = &self.pit {
            pit.digest(digest);
        }
    }

    /// INIT of a vCPU's local APIC.
    pub(super) fn init_apic(&mut self, vcpu: usize, bootstrap: bool) {
        if let Some(apic) = &mut self.seats[vcpu].apic {
            apic.init();
            if bootstrap {
                apic.pass_external();
            }
        }
    }
}

/// A message with an 8-bit destination, for whom it says.
const fn whole(message: InterruptMessage) -> Ipi {
    Ipi { shorthand: Shorthand::None, wide: false, message }
}
