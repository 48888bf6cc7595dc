//! The native differential: every instruction form that user mode can run, executed on the host's processor and here, on the
//! same registers and memory. The host is the oracle.
//!
//! | file | what |
//! | --- | --- |
//! | `state` | registers, memory and outcome of one case, and the layout of the addresses that both sides share |
//! | `encodings` | every encoding of every `iced_x86::Code`, found by decoding the opcode space |
//! | `scope` | which Codes are judged: features of the model, user mode, the list of exclusions |
//! | `draw` | cases: prefixes, operands, addresses, values |
//! | `host` | runs cases on the host, in a child process (the only `unsafe` code) |
//! | `here` | runs cases on a [`rootmode_cpu::Processor`] |
//! | `undefined` | cases of judged forms that are left open, and why |
//! | `compare`, `shrink` | what differs; the simplest case that still does |
//! | `run`, `command`, `proofs` | all Codes on all cores; the command line; the row of the full table |
//!
//! It needs an x86-64 Linux host (5.9 or later, with FSGSBASE); elsewhere the module and its command are absent.

pub mod command;
pub mod compare;
pub mod draw;
pub mod encodings;
pub mod here;
#[allow(
    unsafe_code,
    reason = "a child process whose signal handler sees and sets every register of the host"
)]
pub mod host;
pub mod proofs;
pub mod run;
pub mod scope;
pub mod shrink;
pub mod state;
pub mod undefined;
