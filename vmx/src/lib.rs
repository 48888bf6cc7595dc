//! Intel VMX: definitions, entry rules, intercept decisions; and the half that drives the CPU.
