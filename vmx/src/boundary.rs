//! States of VM entry just inside and just outside every boundary.
//!
//! A [`State`] is everything that the rules read, owned. [`bases::BASES`] are valid states of many kinds (64-bit, PAE, real-mode, v8086,
//! 32-bit host, injections, activity states, SMM ...). [`witnesses`] are one change away from a base and break exactly one rule;
//! [`draw()`] picks a base, varies it and aims a change at one rule, from [`Choices`](rootmode_arch::Choices).
//!
//! ```
//! use rootmode_vmx::{Rule, boundary, check_entry};
//! let rule = Rule::from_id("vmx.guest.rflags.one").unwrap();
//! let witness = boundary::witness(rule).unwrap();
//! let refusal = check_entry(&witness.broken().context()).unwrap_err();
//! assert_eq!(refusal.rule, rule);
//! assert!(check_entry(&witness.edge().context()).is_ok());
//! ```

pub mod bases;
mod draw;
mod equip;
mod witness;

pub use draw::{Drawn, draw, draw_valid};
pub use witness::{Edit, Witness, edits, witness, witnesses};

use crate::Vmcs;
use crate::context::{EntryContext, Processor, Words};
use crate::definitions::capabilities::Capabilities;
use crate::definitions::controls::Control;
use crate::definitions::field::Field;
use crate::rules::{Place, RULES, check_entry};

/// Everything that the rules of VM entry read, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The current VMCS.
    pub vmcs: Vmcs,
    /// The capability MSRs.
    pub capabilities: Capabilities,
    /// The logical processor.
    pub processor: Processor,
    /// The memory that matters.
    pub memory: Words,
}

impl State {
    /// The state as the rules take it.
    pub fn context(&self) -> EntryContext<'_> {
        EntryContext {
            vmcs: &self.vmcs,
            capabilities: &self.capabilities,
            processor: &self.processor,
            memory: &self.memory,
        }
    }
    /// The value at `place`; unknown memory reads as 0.
    pub fn value(&self, place: Place) -> u64 {
        match place {
            Place::Field(field) => self.vmcs.value(field),
            Place::Processor(item) => self.processor.value(item),
            Place::Memory(address) => {
                self.memory.iter().find(|word| word.0 == address).map_or(0, |word| word.1)
            }
        }
    }
    /// Puts `value` at `place`.
    pub fn put(&mut self, place: Place, value: u64) {
        match place {
            Place::Field(field) => self.vmcs.set(field, value),
            Place::Processor(item) => self.processor.set(item, value),
            Place::Memory(address) => {
                let stored = self.memory.set(address, value);
                debug_assert!(stored, "states use fewer words of memory than fit");
            }
        }
    }
    /// How many rules are broken.
    pub fn broken(&self) -> usize {
        RULES.iter().filter(|rule| rule.judge(&self.context()).is_violated()).count()
    }
    /// Whether every rule is known to hold.
    pub fn is_valid(&self) -> bool {
        // The fast path refuses most invalid states; it takes what it cannot judge for met.
        check_entry(&self.context()).is_ok()
            && RULES.iter().all(|rule| rule.judge(&self.context()).is_satisfied())
    }

    fn set(&mut self, fields: &[(Field, u64)]) {
        for (field, value) in fields {
            self.vmcs.set(*field, *value);
        }
    }
    /// Sets a control and the control that activates its word, if the processor has them; says whether it does.
    fn enable(&mut self, control: Control) -> bool {
        if self.capabilities.supports(control) != Some(true) {
            return false;
        }
        if let Some(by) = control.word.activated_by() {
            self.enable(by);
        }
        if let Some(field) = control.word.field() {
            self.vmcs.set(field, self.vmcs.value(field) | 1 << control.bit);
        }
        true
    }
    fn disable(&mut self, control: Control) {
        if let Some(field) = control.word.field() {
            self.vmcs.set(field, self.vmcs.value(field) & !(1 << control.bit));
        }
    }
}
