//! Gate addresses: where a Rust host takes over (HOST_RIP, the RIP after VMRUN, the host IDT's handlers).
//!
//! When RIP reaches a gate in host mode, the run stops with [`Stop::Gate`](rootmode_arch::record::Stop::Gate) before any
//! fetch. Only machines whose [`Context::gates`](crate::Context) is set have gates.

use rootmode_arch::Linear;

/// The first gate. Canonical with 48 and 57 bits; nothing is ever mapped there by a Rust host.
pub const GATE_BASE: Linear = Linear(0xffff_ffff_ffe0_0000);
/// Bytes between gates.
pub const GATE_STRIDE: u64 = 16;
/// Number of gates.
pub const GATE_COUNT: u32 = 4096;

/// The address of gate `n`.
///
/// # Panics
/// If `n` is not below [`GATE_COUNT`].
pub const fn gate_address(n: u32) -> Linear {
    assert!(n < GATE_COUNT, "gate number out of range");
    GATE_BASE.offset(n as u64 * GATE_STRIDE)
}

/// The gate at `rip`, if it is one.
pub const fn gate_at(rip: u64) -> Option<u32> {
    let offset = rip.wrapping_sub(GATE_BASE.0);
    if offset < GATE_COUNT as u64 * GATE_STRIDE && offset.is_multiple_of(GATE_STRIDE) {
        Some((offset / GATE_STRIDE) as u32)
    } else {
        None
    }
}
