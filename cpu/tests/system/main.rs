//! The system architecture outside 64-bit mode, rule by rule: segments, delivery, gates, tasks, virtual-8086 mode, debugging.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]
#![allow(clippy::type_complexity, reason = "rows of tables spell out their columns")]

#[path = "../support/mod.rs"]
mod support;

mod cet;
mod counters;
mod debug;
mod delivery;
mod fast_calls;
mod frequency;
mod gates;
mod invpcid;
mod legacy;
mod masking;
mod real;
mod segments;
mod smm;
mod speculation;
mod supervisor_keys;
mod tasks;
mod virtual_8086;
