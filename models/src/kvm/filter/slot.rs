//! [`FilterSlot`]: a VM's filter, swapped as a whole; and the order of swap and request.

use std::sync::Arc;

use super::{Filter, FilterError, Layout, UserMemory, prepare};
use crate::kvm::{Regression, Regressions};

/// A step of installing a filter. vCPUs may enter the guest between the steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SwapStep {
    /// The new filter becomes visible, as a whole.
    Publish,
    /// Every vCPU gets a request to recalculate, served before its next entry.
    Request,
}

/// The filter of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterSlot {
    current: Arc<Filter>,
}

impl Default for FilterSlot {
    fn default() -> Self {
        Self { current: Arc::new(Filter::off()) }
    }
}

impl FilterSlot {
    /// The filter, as a reader sees it: entirely the old or entirely the new one, alive while it is held.
    pub fn current(&self) -> Arc<Filter> {
        Arc::clone(&self.current)
    }

    /// The steps of installing a filter, in KVM's order.
    pub const fn steps(bugs: Regressions) -> &'static [SwapStep] {
        if bugs.has(Regression::RequestBeforeSwap) {
            return &[SwapStep::Request, SwapStep::Publish];
        }
        if bugs.has(Regression::NewDenialNotApplied) {
            return &[SwapStep::Publish];
        }
        &[SwapStep::Publish, SwapStep::Request]
    }

    /// [`SwapStep::Publish`]. The old filter lives on until its last reader drops it.
    pub fn publish(&mut self, filter: Arc<Filter>) {
        self.current = filter;
    }

    /// KVM_X86_SET_MSR_FILTER up to the point where the filter is visible; the caller then posts the requests.
    ///
    /// # Errors
    /// See [`prepare`]; the old filter stays.
    pub fn set(
        &mut self,
        layout: Layout,
        address: u64,
        memory: &mut dyn UserMemory,
    ) -> Result<(), FilterError> {
        let filter = prepare(layout, address, memory)?;
        self.publish(Arc::new(filter));
        Ok(())
    }
}
