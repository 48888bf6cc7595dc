//! The 32-bit information fields of a VM exit: instruction information, interruption and IDT-vectoring information,
//! and the guest's interruptibility state.
//!
//! Source: SDM Vol. 3C (325384-083, Mar 2024) "VM-Exit Information Fields", "Information for VM Exits Due to
//! Instruction Execution", "Guest Non-Register State".

mod instruction;
mod interruptibility;
mod interruption;

pub use instruction::{Address, Format, InstructionInformation, InstructionOperand};
pub use interruptibility::Interruptibility;
pub use interruption::{Interruption, InterruptionType};
