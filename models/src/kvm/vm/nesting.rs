//! A vCPU whose guest is a hypervisor: what comes while L2 runs, and what nesting leaves to do.
//!
//! VMX, SVM and what is derived from L1's structures are the back end's ([`Backend::nest`](crate::kvm::host::Backend::nest)).

use rootmode_arch::{Feature, Vendor};

use super::emulate::Device;
use super::exit::{ClientExit, ERROR_DELIVERY, ERROR_EMULATION, ERROR_UNEXPECTED};
use super::run::Flow;
use super::vcpu::Vcpu;
use super::{Failure, Shared, Statistic};
use crate::kvm::Errno;
use crate::kvm::host::{Arrival, Injection, Nested, NestedState, Tasks, finish};

/// What the run loop does before an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// It enters.
    Enters,
    /// It looks again what there is to do: L2 was left.
    Looks,
    /// The client is needed.
    Asks,
}

impl Vcpu {
    /// What waits and makes L2 exit, if L1 wants so: exceptions first, then INIT, NMIs and interrupts, as KVM has them.
    pub(super) async fn take_to_l1(&mut self, shared: &Shared, tasks: &Tasks) -> Result<Before, Failure> {
        if !self.backend.in_l2() {
            return Ok(Before::Enters);
        }
        let Some(arrival) = self.arrival(shared)? else { return Ok(Before::Enters) };
        // An entry that has begun, and an event on its way, come first: L2 is left right behind them.
        let begun = self.backend.entry_pending();
        let delivers =
            self.events.injected.is_some() && !matches!(arrival, Arrival::Exception(..) | Arrival::Trap);
        if begun || delivers {
            self.hurries = true;
            return Ok(Before::Enters);
        }
        let arrival = match arrival {
            Arrival::Exception(..) => {
                self.events.exception = None;
                arrival
            }
            Arrival::Init => {
                self.init_waits = false;
                arrival
            }
            Arrival::Nmi => {
                // SVM leaves it to L1 to take (APM Vol. 2 "NMI Intercept").
                self.events.nmi = self.model.vendor() == Vendor::Amd;
                arrival
            }
            Arrival::Interrupt(_) if self.backend.acknowledges() => {
                let Some(vector) = self.take_interrupt(shared) else { return Ok(Before::Looks) };
                Arrival::Interrupt(Some(vector))
            }
            Arrival::Interrupt(_) | Arrival::Trap => arrival,
        };
        let nested = self.backend.arrive(arrival).await?;
        Ok(match self.settle(nested, None, shared, tasks).await? {
            Flow::Guest => Before::Looks,
            Flow::Client => Before::Asks,
        })
    }

    /// What waits that L1 is to see.
    fn arrival(&self, shared: &Shared) -> Result<Option<Arrival>, Failure> {
        let candidates = [
            self.events.exception.map(|event| Arrival::Exception(event, self.detail)),
            self.init_waits.then_some(Arrival::Init),
            self.backend.trap_waits().then_some(Arrival::Trap),
            self.events.nmi.then_some(Arrival::Nmi),
            self.has_interrupt(shared).then_some(Arrival::Interrupt(None)),
        ];
        for arrival in candidates.into_iter().flatten() {
            if self.backend.reaches_l1(arrival)? {
                return Ok(Some(arrival));
            }
        }
        Ok(None)
    }

    /// Whether something waits that ends a halted L2's sleep because L1 is to see it.
    pub(super) fn wakes_l1(&self, shared: &Shared) -> Result<bool, Failure> {
        Ok(self.backend.in_l2() && self.arrival(shared)?.is_some())
    }

    fn take_interrupt(&mut self, shared: &Shared) -> Option<u8> {
        self.events.interrupt.take().or_else(|| self.acknowledge(shared).map(|event| event.vector))
    }

    /// Does what an exit that belongs to nesting leaves to do. `interrupted` is the event whose delivery it interrupted.
    pub(super) async fn settle(
        &mut self,
        nested: Nested,
        interrupted: Option<Injection>,
        shared: &Shared,
        tasks: &Tasks,
    ) -> Result<Flow, Failure> {
        self.events.injected = None;
        shared.rooms().statistics[usize::from(self.processor)]
            .set(Statistic::GuestMode, self.backend.in_l2());
        match nested {
            Nested::Again => {
                shared.count(self.processor, Statistic::PfFixed);
                self.events.injected = interrupted;
                Ok(Flow::Guest)
            }
            Nested::Device { page, .. } if interrupted.is_some() => {
                let data = vec![0, page.0];
                Ok(self.ask(ClientExit::InternalError { suberror: ERROR_DELIVERY, data }))
            }
            Nested::Device { page, at } => {
                self.emulate(vec![Device { page, at }], Vec::new(), shared, tasks).await
            }
            nested => Ok(self.conclude(nested)),
        }
    }

    /// The same where no event was on its way and no page is in question.
    pub(super) fn conclude(&mut self, nested: Nested) -> Flow {
        match nested {
            Nested::Resumes | Nested::Again => Flow::Guest,
            Nested::Raises(event) => {
                self.events.exception = Some(event);
                Flow::Guest
            }
            Nested::Missing => {
                self.ask(ClientExit::InternalError { suberror: ERROR_EMULATION, data: Vec::new() })
            }
            Nested::Abort => self.ask(ClientExit::Shutdown),
            Nested::Device { .. } | Nested::Unmodelled => {
                let data = vec![0, self.processor.into()];
                self.ask(ClientExit::InternalError { suberror: ERROR_UNEXPECTED, data })
            }
        }
    }

    /// `KVM_GET_NESTED_STATE`.
    pub(super) fn nested_state(&mut self) -> Result<NestedState, Failure> {
        Ok(self.backend.nested_state()?)
    }

    /// `KVM_SET_NESTED_STATE`.
    ///
    /// # Errors
    /// [`Errno::Einval`] for a state that cannot be, or that this vCPU cannot have.
    pub(super) fn set_nested_state(&mut self, shared: &Shared, state: NestedState) -> Result<(), Failure> {
        let extension = match self.model.vendor() {
            Vendor::Intel => Feature::Vmx,
            Vendor::Amd => Feature::Svm,
        };
        let uses = match &state {
            NestedState::Vmx(state) => state.is_some(),
            NestedState::Svm(state) => state.running.is_some() || !state.gif,
        };
        if uses && !self.model.has(extension) {
            return Err(Errno::Einval.into());
        }
        finish(self.backend.set_nested_state(state))??;
        // The client may change its memory now.
        Ok(shared.memory(self.processor, |memory, below| memory.copy_out(below))?)
    }
}
