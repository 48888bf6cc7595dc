//! What happens between instructions: exceptions on their way to a handler or an exit, interrupts, pending debug exceptions.

use super::{Exec, Flow};
use crate::apic::Pending;
use crate::fault::{Fault, Result};
use crate::state::{Activity, Attention, Delivery, DeliveryKind, Gate};
use crate::virtualization::Slot;
use rootmode_arch::event::{Exception, ExceptionSource};
use rootmode_arch::record::Stop;
use rootmode_arch::{Cr0, DebugCtl, Dr6, Dr7, Event, EventClass, RFlags, Reaction, Stage, Vendor, vector};

/// What the boundary decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Boundary {
    /// Nothing (more) to do: execute an instruction.
    Execute,
    /// Something was delivered, or the guest was left: look again.
    Again,
    /// Nothing wakes the processor.
    Asleep,
}

impl Exec<'_, '_> {
    /// Settles a fault: exits, delivers (one tick), or stops the machine. Afterwards the state is at a boundary.
    pub(crate) fn settle(&mut self, fault: Fault) -> Result<(), Stop> {
        let settled = self.settle_inner(fault);
        self.cpu.unblocked_by_iret = false;
        settled
    }

    fn settle_inner(&mut self, fault: Fault) -> Result<(), Stop> {
        let mut fault = fault;
        loop {
            match fault {
                // The extension has refreshed what is derived.
                Fault::Left => return Ok(()),
                Fault::Stop(stop) => return Err(stop),
                Fault::LogFull => match self.raise(&Event::PageModificationLogFull, Stage::AfterOperands) {
                    Err(next) => fault = next,
                    // Nobody made room: only an extension without a log could answer that.
                    Ok(_) => return Err(Stop::NoProgress),
                },
                Fault::SecondStage(access) => {
                    match self.raise(&Event::SecondStage(access), Stage::AfterOperands) {
                        Err(next) => fault = next,
                        // The extension repaired the cause: try again, with the event that was on its way.
                        Ok(_) => {
                            self.cpu.injected = self.cpu.delivering.take();
                            self.cpu.update_attention();
                            return Ok(());
                        }
                    }
                }
                Fault::Exception(exception) => match self.take_exception(exception) {
                    Ok(()) => return Ok(()),
                    Err(next) => fault = next,
                },
            }
        }
    }

    /// Offers an exception to the extension, combines it with the event whose delivery it interrupted, and delivers it.
    fn take_exception(&mut self, exception: Exception) -> Result {
        let mut exception = exception;
        // The data breakpoints of an instruction that does not complete are forgotten.
        self.cpu.matched_breakpoints = 0;
        let real = !self.cpu.cr0.contains(Cr0::PE);
        if real && exception.vector != vector::PF {
            // Real mode has no error codes.
            exception.error_code = None;
        }
        if self.offer_exception(exception)? {
            return Ok(());
        }
        if real {
            // Who runs a guest in paged real mode was told the page fault's (APM Vol. 2 "Paged Real Mode").
            exception.error_code = None;
        }
        if let Some(first) = self.cpu.delivering.take() {
            match combine(first, exception) {
                Combination::Serial => {}
                Combination::DoubleFault => {
                    exception = Exception {
                        vector: vector::DF,
                        error_code: exception.error_code.and(Some(0)),
                        detail: 0,
                        source: ExceptionSource::Hardware,
                        instruction_length: 0,
                    };
                    if self.offer_exception(exception)? {
                        return Ok(());
                    }
                }
                Combination::TripleFault => {
                    // An exit leaves the guest active: shutdown is what happens without one.
                    self.raise_if_guest(&Event::TripleFault)?;
                    self.cpu.activity = Activity::Shutdown;
                    self.cpu.update_attention();
                    return Err(Fault::Stop(Stop::TripleFault));
                }
            }
        }
        match exception.vector {
            vector::PF => self.cpu.cr2 = exception.detail,
            // INT1 has the vector, but is no debug exception: DR6 stays. What MOV SS holds back of a breakpoint goes
            // with it: the handler runs once (kvm-unit-tests, x86/debug.c).
            vector::DB if exception.source == ExceptionSource::Privileged => {
                let held = std::mem::take(&mut self.cpu.pending_debug) & !Dr6::BS.0;
                if held != 0 {
                    self.cpu.dr6 = self.cpu.dr6 & !0xf | held;
                }
                self.cpu.update_attention();
            }
            vector::DB if exception.source == ExceptionSource::Hardware => {
                // The bit that tells of bus locks is the only one that is active low.
                let set = exception.detail & !Dr6::BLD.0;
                self.cpu.dr6 = (self.cpu.dr6 & !0xf | set) & !(exception.detail & Dr6::BLD.0);
                self.cpu.msrs.debugctl &= !(DebugCtl::BTF | DebugCtl::LBR).0;
                self.cpu.dr7 &= !Dr7::GD.0;
            }
            _ => {}
        }
        let software = exception.source != ExceptionSource::Hardware;
        self.deliver_counted(Delivery {
            kind: exception.source.into(),
            vector: exception.vector,
            error_code: exception.error_code,
            length: if software { exception.instruction_length } else { 0 },
            return_rip: None,
            detail: exception.detail,
            blocks_nmis: false,
            resumes: exception.asks_for_resume(),
        })
    }

    fn offer_exception(&mut self, exception: Exception) -> Result<bool> {
        let event = Event::Exception(exception);
        Ok(self.offer(EventClass::Exception, Stage::AfterOperands, |_| event)?.is_some())
    }

    /// An event that always exits from a guest, whatever the mask says.
    fn raise_if_guest(&mut self, event: &Event) -> Result {
        if self.cpu.published.guest {
            self.raise(event, Stage::AfterOperands)?;
        }
        Ok(())
    }

    /// A delivery that is a step of its own: one tick.
    fn deliver_counted(&mut self, delivery: Delivery) -> Result {
        self.cpu.current.length = delivery.length;
        let from = self.cpu.rip;
        self.deliver(delivery)?;
        self.cpu.record_delivery(from);
        self.cpu.tick += 1;
        match delivery.kind {
            DeliveryKind::External | DeliveryKind::Nmi | DeliveryKind::Hardware => {
                self.cpu.happened.deliveries += 1;
            }
            // These are instructions.
            _ => self.cpu.happened.branches += 1,
        }
        self.cpu.trap_inhibited = false;
        let matched = std::mem::take(&mut self.cpu.matched_breakpoints);
        if matched != 0 {
            self.cpu.pending_debug |= matched;
            self.cpu.update_attention();
        }
        Ok(())
    }

    /// Everything that can happen at an instruction boundary, in the order of SDM Vol. 3A "Prioritization of Concurrent
    /// Events". Call it while [`Attention`] is set or a deadline of the extension has come.
    pub(crate) fn boundary(&mut self) -> Result<Boundary, Stop> {
        self.cpu.current.length = 0;
        self.cpu.trap_inhibited = false;
        match self.boundary_inner() {
            Ok(boundary) => Ok(boundary),
            Err(fault) => {
                self.settle(fault)?;
                Ok(Boundary::Again)
            }
        }
    }

    fn boundary_inner(&mut self) -> Result<Boundary> {
        if let Some(delivery) = self.cpu.injected.take() {
            self.cpu.update_attention();
            self.deliver_counted(delivery)?;
            return Ok(Boundary::Again);
        }
        if self.signals()? {
            return Ok(Boundary::Again);
        }
        let deadline_came = self.cpu.published.deadline.is_some_and(|tick| self.cpu.tick >= tick);
        let calls = self.cpu.published.boundary || self.cpu.interrupts.doorbell || deadline_came;
        if calls && self.visit(Slot::BeforeDebug)? {
            return Ok(Boundary::Again);
        }
        if self.cpu.pending_debug != 0 && !self.cpu.mov_ss_shadow && self.accepts_interrupts() {
            let detail = std::mem::take(&mut self.cpu.pending_debug);
            self.cpu.update_attention();
            return Err(debug_exception(detail));
        }
        if calls && self.visit(Slot::BeforeNmi)? {
            return Ok(Boundary::Again);
        }
        if self.cpu.interrupts.nmi && self.nmi_possible() {
            self.offer(EventClass::Nmi, Stage::AfterOperands, |_| Event::Nmi)?;
            self.cpu.interrupts.take_nmi();
            self.cpu.update_attention();
            self.deliver_counted(Delivery::interruption(DeliveryKind::Nmi, vector::NMI))?;
            return Ok(Boundary::Again);
        }
        if calls && self.visit(Slot::BeforeInterrupt)? {
            return Ok(Boundary::Again);
        }
        if let Some(pending) = self.acceptable_interrupt() {
            // Whoever acknowledges learns the vector of ExtINT, here or in an extension; until then it is 0.
            let vector = if let Pending::Vector(vector) = pending { vector } else { 0 };
            let event = Event::ExternalInterrupt { vector };
            if self.offer(EventClass::ExternalInterrupt, Stage::AfterOperands, |_| event)?.is_some() {
                // The extension has acknowledged it, and dealt with it.
                return Ok(Boundary::Again);
            }
            let vector = self.cpu.acknowledge_interrupt(self.ctx);
            self.deliver_counted(Delivery::interruption(DeliveryKind::External, vector))?;
            return Ok(Boundary::Again);
        }
        if calls && self.visit(Slot::AfterInterrupt)? {
            return Ok(Boundary::Again);
        }
        if self.cpu.activity != Activity::Active {
            if self.cpu.try_waking(self.ctx.memory) {
                return Ok(Boundary::Again);
            }
            return Ok(Boundary::Asleep);
        }
        self.instruction_breakpoint()?;
        Ok(Boundary::Execute)
    }

    /// # Errors
    /// #DB as a fault if a breakpoint waits for the next instruction. RFLAGS.RF suppresses it, on Intel's parts also MOV SS
    /// (kvm-unit-tests, x86/emulator.c).
    fn instruction_breakpoint(&self) -> Result {
        let cpu = &*self.cpu;
        let in_shadow = cpu.mov_ss_shadow && cpu.model.vendor() == Vendor::Intel;
        let suppressed = in_shadow || cpu.saved_flags().contains(RFlags::RF);
        if cpu.attention.0 & Attention::BREAKPOINT == 0 || suppressed {
            return Ok(());
        }
        match cpu.execution_matches(cpu.code_address()) {
            0 => Ok(()),
            bits => Err(debug_exception(bits)),
        }
    }

    /// Calls the extension. True: it injects something.
    fn visit(&mut self, slot: Slot) -> Result<bool> {
        let Some(extension) = self.extension.as_deref_mut() else { return Ok(false) };
        match extension.boundary(self.cpu, self.ctx, slot) {
            Reaction::Exit => Err(Fault::Left),
            Reaction::Exception(vector, code) => Err(Fault::instead(vector, code)),
            Reaction::Proceed | Reaction::Done(_) => {
                self.cpu.update_attention();
                Ok(self.cpu.injected.is_some())
            }
        }
    }

    /// SMI, INIT and start-up IPIs.
    fn signals(&mut self) -> Result<bool> {
        let held = self.cpu.published.held;
        if self.cpu.interrupts.smi && !held && !self.cpu.smm {
            self.raise_if_guest(&Event::Smi)?;
            self.enter_smm();
            return Ok(true);
        }
        let blocked = self.extension.as_deref().is_some_and(|e| e.blocks_init(self.cpu));
        let waits = self.cpu.published.guest && self.cpu.activity == Activity::WaitForSipi;
        if self.cpu.interrupts.init && !held && !blocked && !self.cpu.smm && !waits {
            self.cpu.interrupts.init = false;
            self.raise_if_guest(&Event::Init)?;
            if let Some(extension) = self.extension.as_deref_mut()
                && let Some(instead) = extension.init(self.cpu)
            {
                self.cpu.update_attention();
                return Err(instead);
            }
            self.cpu.init();
            return Ok(true);
        }
        if let Some(start) = self.cpu.interrupts.sipi.take() {
            if self.cpu.activity == Activity::WaitForSipi {
                self.raise_if_guest(&Event::Sipi { vector: start })?;
                self.cpu.start(start);
            }
            self.cpu.update_attention();
            return Ok(true);
        }
        Ok(false)
    }

    fn nmi_possible(&self) -> bool {
        let open = match self.cpu.published.nmi_gate {
            Gate::Normal => !self.cpu.nmi_blocked,
            Gate::Open => true,
            Gate::Closed => false,
        };
        // STI may or may not hold NMIs for one instruction; here it does.
        let awake = self.cpu.activity != Activity::WaitForSipi;
        open && !self.cpu.sti_shadow && !self.cpu.mov_ss_shadow && awake
    }

    /// The maskable interrupt that the processor would accept now.
    fn acceptable_interrupt(&self) -> Option<Pending> {
        let open = match self.cpu.published.interrupt_gate {
            Gate::Normal => self.cpu.rflags().contains(RFlags::IF),
            Gate::Open => true,
            Gate::Closed => false,
        };
        let shadow = self.cpu.sti_shadow || self.cpu.mov_ss_shadow;
        let pending = self.cpu.pending_interrupt()?;
        (open && !shadow && self.accepts_interrupts()).then_some(pending)
    }

    /// Shutdown and wait-for-SIPI block maskable interrupts and debug exceptions; shutdown lets NMIs through
    /// (SDM Vol. 3C "Activity State").
    const fn accepts_interrupts(&self) -> bool {
        self.cpu.activity.is_awake()
    }

    /// After an instruction completed that began with these: shadows expire, TF traps.
    pub(crate) fn after_instruction(&mut self, sti: bool, mov_ss: bool, trap: bool, flow: Flow) {
        if sti {
            self.cpu.sti_shadow = false;
        }
        if mov_ss {
            self.cpu.mov_ss_shadow = false;
        }
        // With DEBUGCTL.BTF only taken branches trap.
        let on_branches = self.cpu.msrs.debugctl & DebugCtl::BTF.0 != 0;
        if trap && !self.cpu.trap_inhibited && (!on_branches || flow == Flow::Jumped) {
            self.cpu.pending_debug |= Dr6::BS.0;
        }
        self.cpu.pending_debug |= std::mem::take(&mut self.cpu.matched_breakpoints);
        self.cpu.update_attention();
    }
}

/// #DB that would set `detail` in DR6.
pub(crate) const fn debug_exception(detail: u64) -> Fault {
    Fault::Exception(Exception {
        vector: vector::DB,
        error_code: None,
        detail,
        source: ExceptionSource::Hardware,
        instruction_length: 0,
    })
}

/// What becomes of an exception during the delivery of another event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Combination {
    /// The second is handled alone.
    Serial,
    DoubleFault,
    TripleFault,
}

/// SDM Vol. 3A "Interrupt 8—Double Fault Exception (#DF)", table of conditions; of AMD's own exceptions #VC is
/// contributory (APM Vol. 2 "#VC Exception").
fn combine(first: Delivery, second: Exception) -> Combination {
    use vector::{CP, DE, GP, NP, SS, TS, VC};
    let contributory = |v| matches!(v, DE | TS | NP | SS | GP | CP | VC);
    if first.kind != DeliveryKind::Hardware {
        return Combination::Serial;
    }
    let page = |v| matches!(v, vector::PF | vector::VE);
    let second_serious = contributory(second.vector) || page(second.vector);
    match first.vector {
        vector::DF if second_serious => Combination::TripleFault,
        v if page(v) && second_serious => Combination::DoubleFault,
        v if contributory(v) && contributory(second.vector) => Combination::DoubleFault,
        _ => Combination::Serial,
    }
}

/// Whether anything but instructions may happen at the next boundary.
pub(crate) const fn is_eventful(attention: Attention) -> bool {
    attention.0 & !Attention::EFFECTS != 0
}
