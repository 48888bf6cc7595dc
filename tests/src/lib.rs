//! What crosses crates: scenarios, properties, oracles, conformance.

pub mod judges;
