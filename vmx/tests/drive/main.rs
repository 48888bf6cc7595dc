//! VMX at work: guests between VM entry and VM exit, with a host in Rust. Section titles are of SDM Vol. 3C
//! (326019-083, Mar 2024).
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod bench;
mod chains;
mod flips;
mod notes;
mod random;
mod round_trip;
mod scenarios;
mod virtual_apic;
