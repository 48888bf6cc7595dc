//! rootmode: a deterministic x86 machine for people who write, test and teach hypervisors.
//!
//! The only crate that knows all others: campaigns, explanations, the embedded demonstration, the command line.
//!
//! ```
//! # #[cfg(feature = "tools")]
//! // Every property of the catalogue, with the claim it checks.
//! for property in rootmode::campaign::properties() {
//!     assert!(!property.about.is_empty(), "{} has no claim", property.name);
//! }
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "tools")]
pub mod campaign;
pub mod demo;
#[cfg(feature = "tools")]
pub mod explain;
pub mod guests;
pub mod hosted;
pub mod machine;
pub mod processor;
#[cfg(feature = "tools")]
pub mod strategies;
#[cfg(feature = "tools")]
pub mod suite;
pub mod transparency;
