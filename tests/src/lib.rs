//! What crosses crates: scenarios, properties, oracles, conformance.
