//! Intercept decisions: [`decide`] answers whether an event makes the guest exit, and what the exit reports.
//!
//! One [`Table`] holds the rows: `decide`, the published mask of classes ([`interest`]), the documentation and the tests
//! read it. A decision reads a [`View`] and nothing else, and changes nothing.
//!
//! What the caller does before it asks:
//! - An instruction is offered only if it exists on the processor and its opcode is valid in this encoding.
//! - It is offered at the [`Stage`](rootmode_arch::Stage)s of [`Table::stages`]; [`Table::decide_at`] looks only at the
//!   rows of one stage, `decide` at all.
//! - Asynchronous events are offered only when the processor would take them: GIF, masks and priorities are its business.
//! - An exception is offered before it is combined with an earlier one; #DF and shutdown are offered as what they are.
//!
//! In an SEV-ES guest most exits become #VC inside the guest: [`Exit::is_automatic`] tells them apart.
//!
//! Source: APM Vol. 2 (24593 rev. 3.43) "Intercept Operation", "Instruction Intercepts" and the sections that rows name.
//!
//! ```
//! use rootmode_arch::Event;
//! use rootmode_svm::bitmap::Uniform;
//! use rootmode_svm::decide::{Controls, State, View, decide};
//! use rootmode_svm::{ExitCode, Intercept, Intercepts};
//!
//! let controls = Controls { intercepts: Intercepts::NONE.with(Intercept::HLT), ..Controls::default() };
//! let view = View { controls: &controls, state: &State::default(), maps: &Uniform(false) };
//! assert_eq!(decide(&view, &Event::Hlt).map(|exit| exit.code), Some(ExitCode::of(Intercept::HLT)));
//! assert_eq!(decide(&view, &Event::Rdtsc), None);
//! ```

mod apic;
mod condition;
mod exit;
mod rows;
mod table;
mod view;

pub use apic::{APIC_REGISTERS, ApicBehaviour, ApicRow, apic_behaviour};
pub use condition::Condition;
pub use exit::{Exit, Info};
pub use table::{Gate, Row, Stages, Table};
pub use view::{Controls, IpiOutcome, PauseFilter, State, Traits, View};

use crate::bitmap::PermissionMaps;
use rootmode_arch::{Event, EventClasses};

/// Whether `event` makes the guest exit, by the built-in table: what [`Table::BUILT_IN`] answers, faster.
#[inline]
pub fn decide<M: PermissionMaps + ?Sized>(view: &View<'_, M>, event: &Event) -> Option<Exit> {
    rows::decide_built_in(view, event)
}

/// Whether `event` makes the guest exit, by `table`.
#[inline]
pub fn decide_with<M: PermissionMaps + ?Sized>(
    table: &Table,
    view: &View<'_, M>,
    event: &Event,
) -> Option<Exit> {
    table.decide(view, event)
}

/// The classes whose events may exit under `controls`: a superset of what [`decide`] answers.
///
/// It reads what cannot change while the guest runs, so that a CPU can test one bit before it asks.
pub fn interest(controls: &Controls) -> EventClasses {
    Table::BUILT_IN.interest(controls)
}

#[cfg(test)]
mod tests;
