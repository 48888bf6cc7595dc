//! SVM at work: guests between VMRUN and #VMEXIT, with a host in Rust. Section titles are of APM Vol. 2 (24593 rev. 3.43).
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod avic;
mod avic_tables;
mod bench;
mod chains;
mod clean;
mod doorbell;
mod encrypted;
mod features;
mod flips;
mod fuzz;
mod gates;
mod notes;
mod scenarios;
mod symmetry;
mod trust;
mod x2avic;
