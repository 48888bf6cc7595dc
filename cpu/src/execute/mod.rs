//! The semantic functions: one short function an operation, one file a family.
//!
//! A handler gets an [`Exec`] (the processor and what it is lent) and a decoded instruction. It fetches operands, which
//! may fault; then commits; it either completes or leaves no trace. RIP is the instruction's address throughout.

pub(crate) mod access;
pub(crate) mod alu;
pub(crate) mod bits;
pub(crate) mod bmi;
mod bus_lock;
pub(crate) mod cet;
pub(crate) mod control;
pub(crate) mod data;
pub(crate) mod decimal;
pub(crate) mod descriptors;
pub(crate) mod events;
pub(crate) mod extension;
pub(crate) mod flags;
pub(crate) mod frame;
mod hostile;
pub(crate) mod inspect;
pub(crate) mod line;
pub(crate) mod multiply;
pub(crate) mod ports;
pub(crate) mod registers;
pub(crate) mod save;
pub(crate) mod segments;
pub(crate) mod shift;
pub(crate) mod simd;
pub(crate) mod smm;
pub(crate) mod string;
pub(crate) mod system;
pub(crate) mod transfer;
pub(crate) mod wait;
mod watched;
pub(crate) mod x87;

use crate::decode::Decoded;
use crate::engine::Running;
use crate::fault::{Fault, Result};
use crate::virtualization::Virtualization;
use crate::{Context, Cpu};
use rootmode_arch::{Event, EventClass, Reaction, Stage};

/// What a handler answers when it completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// Go on behind the instruction.
    Next,
    /// RIP was set by the handler.
    Jumped,
    /// One iteration of a REP instruction is done, and more follow.
    Repeat,
    /// A guest was entered: RIP is the guest's, and no tick passes.
    Entered,
}

/// The code behind a decoded instruction.
pub(crate) type Handler = fn(&mut Exec<'_, '_>, &Decoded) -> Result<Flow>;

/// A processor at work.
pub(crate) struct Exec<'a, 'c> {
    pub(crate) cpu: &'a mut Cpu,
    pub(crate) ctx: &'a mut Context<'c>,
    pub(crate) extension: Option<&'a mut (dyn Virtualization + 'static)>,
    /// The chain of blocks that runs.
    pub(crate) run: Running<'a>,
}

impl Exec<'_, '_> {
    /// Offers the event that `make` builds at `stage`, if its class is published.
    /// `Some` is the value of [`Reaction::Done`].
    #[inline(always)]
    pub(crate) fn offer(
        &mut self,
        class: EventClass,
        stage: Stage,
        make: impl FnOnce(&mut Self) -> Event,
    ) -> Result<Option<u64>> {
        if self.cpu.published.intercepts.contains(class) {
            self.offer_made(class, stage, make)
        } else {
            Ok(None)
        }
    }

    #[inline(never)]
    fn offer_made(
        &mut self,
        class: EventClass,
        stage: Stage,
        make: impl FnOnce(&mut Self) -> Event,
    ) -> Result<Option<u64>> {
        let event = make(self);
        debug_assert_eq!(event.class(), class);
        self.raise(&event, stage)
    }

    /// Calls the extension.
    #[cold]
    #[inline(never)]
    pub(crate) fn raise(&mut self, event: &Event, stage: Stage) -> Result<Option<u64>> {
        let Some(extension) = self.extension.as_deref_mut() else { return Ok(None) };
        match extension.raise(self.cpu, self.ctx, event, stage) {
            Reaction::Exit => Err(Fault::Left),
            Reaction::Proceed => Ok(None),
            Reaction::Done(value) => Ok(Some(value)),
            Reaction::Exception(vector, code) => Err(Fault::instead(vector, code)),
        }
    }

    /// An instruction for CPL 0 without memory operands: offers `event` around the privilege check.
    pub(crate) fn privileged(&mut self, event: Event) -> Result<Option<u64>> {
        if let Some(value) = self.offer(event.class(), Stage::BeforeExceptions, |_| event)? {
            return Ok(Some(value));
        }
        self.require_cpl0()?;
        self.offer_rest(event)
    }

    /// An instruction without memory operands and privilege check: offers `event` at every stage.
    pub(crate) fn unprivileged(&mut self, event: Event) -> Result<Option<u64>> {
        if let Some(value) = self.offer(event.class(), Stage::BeforeExceptions, |_| event)? {
            return Ok(Some(value));
        }
        self.offer_rest(event)
    }

    /// Offers `event` after privilege checks and after operands.
    pub(crate) fn offer_rest(&mut self, event: Event) -> Result<Option<u64>> {
        if let Some(value) = self.offer(event.class(), Stage::AfterPrivilege, |_| event)? {
            return Ok(Some(value));
        }
        self.offer(event.class(), Stage::AfterOperands, |_| event)
    }

    /// # Errors
    /// #UD while the extension makes instructions of `class` undefined.
    #[inline]
    pub(crate) const fn require_defined(&self, class: EventClass) -> Result {
        if self.cpu.published.undefined.contains(class) { Err(Fault::UD) } else { Ok(()) }
    }

    /// # Errors
    /// #GP(0) above CPL 0.
    pub(crate) const fn require_cpl0(&self) -> Result {
        if self.cpu.cpl == 0 { Ok(()) } else { Err(Fault::GP0) }
    }
}
