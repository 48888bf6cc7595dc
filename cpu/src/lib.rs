//! Processor state, decoding, execution, exceptions, and the board around it.
//!
//! - [`Cpu`]: the architectural state; [`Published`]: what an extension tells the handlers.
//! - [`Virtualization`]: the seam to VMX and SVM; [`virtualization`] documents both directions.
//! - [`Processor`]: a `Cpu`, its decoded code and its extension at work.
//! - [`Instruction`], [`Outcome`]: instructions as values, for decoded code and a Rust host alike.
//! - [`Context`], [`Bus`], [`Effects`]: what a processor is lent, and how devices answer.
//! - [`time`]: what a tick is worth.
//! - [`apic`]: the local APIC, and how a `Cpu` is wired to it.
//! - [`board`]: memory, processors, one clock, one deadline queue, one scheduler.
#![forbid(unsafe_code)]

pub mod apic;
pub mod board;
mod branches;
mod breakpoints;
mod components;
mod context;
mod counters;
mod decode;
mod engine;
mod execute;
mod fault;
mod float;
mod gate;
mod instruction;
mod interrupts;
mod machine_check;
mod memory_types;
pub mod model;
mod monitor;
pub mod msr;
mod processor;
mod state;
pub mod time;
pub mod vectors;
pub mod virtualization;

pub use apic::{LocalApic, Pending};
pub use branches::BranchRecords;
pub use context::{Bus, Context, DeliveryMode, Effects, EmptyBus, InterruptMessage, Message};
pub use counters::Counters;
pub use execute::cet::ControlFlow;
pub use fault::{Fault, Result};
pub use float::F80;
pub use gate::{GATE_BASE, GATE_COUNT, GATE_STRIDE, gate_address, gate_at};
pub use instruction::{Instruction, Outcome};
pub use interrupts::Interrupts;
pub use machine_check::MachineCheck;
pub use memory_types::MemoryTypes;
pub use model::Model;
pub use processor::{Processor, RunEnd, STALL_BOUND};
pub use state::{
    Activity, ApicWindow, Attention, Cpu, Current, Delivery, DeliveryKind, Gate, ModificationLog, Published,
    TscRatio, segments_after_reset,
};
pub use virtualization::{Opcode, Slot, Virtualization};
