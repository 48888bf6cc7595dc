//! The walkers against slow, obvious walks that were written from the manuals: random tables in every mode, and every
//! combination of rights.
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod draw;
mod masking;
mod oracle;
mod pdptes;
mod random;
mod rights;
mod second;
mod world;
