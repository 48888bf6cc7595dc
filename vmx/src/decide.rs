//! Intercept decisions: [`decide`] answers whether an event makes the guest exit, and what the exit reports.
//!
//! One [`Table`] holds the rules: `decide`, the published mask of classes ([`interest`]), the documentation and the
//! tests read it. A decision reads a [`View`] and nothing else, and changes nothing.
//!
//! What the caller does before it asks:
//! - An instruction is offered only if it exists on the processor and its opcode is valid in this encoding (a LOCK
//!   prefix or a register operand where memory is needed is #UD, whatever the controls).
//! - It is offered at the [`Stage`](rootmode_arch::Stage)s of [`Table::stages`]. `decide` itself does not know the stage; [`Table::decide_at`] does.
//! - Where a VM-execution control enables an instruction (RDTSCP, INVPCID, XSAVES, PCONFIG, UMWAIT, VMFUNC), a clear
//!   control means `None` here, and #UD is the instruction's own business.
//! - Asynchronous events (interrupts, NMIs, INIT, SIPI, MTF, timers, windows) are offered in the manual's order of priority.
//!
//! `None` for an EPT violation means a virtualization exception: see [`converts_to_virtualization_exception`].
//! `None` for an external interrupt under "external-interrupt exiting" means posted-interrupt processing.
//! `None` for an APIC access means that it is virtualized.
//!
//! Source: SDM Vol. 3C (325384-083, Mar 2024) "VMX Non-Root Operation", "VM Exits", "APIC Virtualization and Virtual Interrupts".
//!
//! ```
//! use rootmode_arch::Event;
//! use rootmode_vmx::bitmap::UniformBitmaps;
//! use rootmode_vmx::decide::{Controls, Processor, View, decide};
//! use rootmode_vmx::{ExitReason, PrimaryControls};
//!
//! let controls = Controls { primary: PrimaryControls::HLT_EXITING, ..Controls::default() };
//! let view = View { controls: &controls, processor: &Processor::default(), bitmaps: &UniformBitmaps(false) };
//! let exit = decide(&view, &Event::Hlt).expect("HLT exiting is on");
//! assert_eq!(exit.reason, ExitReason::HLT);
//! assert_eq!(decide(&view, &Event::Rdtsc), None);
//! ```

mod access;
mod built_in;
mod condition;
mod exit;
mod rows;
mod table;
mod view;

pub use access::{apic_access_is_virtualized, converts_to_virtualization_exception};
pub use condition::Condition;
pub use exit::Exit;
pub use table::{Gate, Row, Stages, Table};
pub use view::{Controls, PauseLoop, Processor, Traits, View};

use crate::bitmap::Bitmaps;
use rootmode_arch::{Event, EventClasses};

/// Whether `event` makes the guest exit, by the built-in table: what [`Table::BUILT_IN`] answers, faster.
#[inline]
pub fn decide<B: Bitmaps + ?Sized>(view: &View<'_, B>, event: &Event) -> Option<Exit> {
    built_in::decide_built_in(view, event)
}

/// Whether `event` makes the guest exit, by `table`.
#[inline]
pub fn decide_with<B: Bitmaps + ?Sized>(table: &Table, view: &View<'_, B>, event: &Event) -> Option<Exit> {
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
