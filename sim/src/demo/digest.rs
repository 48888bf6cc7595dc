//! A 64-bit fingerprint of what a run showed: FNV-1a over the facts in a fixed little-endian form, the same on every host.

use rootmode_arch::Vendor;
use rootmode_arch::choices::Seeded;
use rootmode_arch::record::{Payload, Record, Stop};

use super::nested::OPERATIONS;
use crate::transparency::{Run, TransparencyError, facts, transparency};

const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

fn mix(state: u64, value: u64) -> u64 {
    value.to_le_bytes().into_iter().fold(state, |state, byte| (state ^ u64::from(byte)).wrapping_mul(PRIME))
}

fn mix_record(state: u64, record: &Record) -> u64 {
    let state = mix(mix(state, record.tick), record.level as u64);
    let words: [u64; 5] = match record.payload {
        Payload::Entry { rip, injection, .. } => [1, rip, injection, 0, 0],
        Payload::EntryFailed { code, detail, .. } => [2, code, detail, 0, 0],
        Payload::Exit { code, info1, info2, rip, .. } => [3, code, info1, info2, rip],
        Payload::Delivery { vector, error_code, rip } => {
            [4, vector.into(), error_code.map_or(u64::MAX, u64::from), rip, 0]
        }
        Payload::Port { port, size, write, value } => {
            [5, port.into(), size.into(), write.into(), value.into()]
        }
        _ => return state,
    };
    words.into_iter().fold(state, mix)
}

/// The fingerprint of one run: its facts, its end, L1's registers and memory.
pub fn fingerprint(run: &Run) -> u64 {
    let mut state = facts(run).fold(BASIS, mix_record);
    let stop = match run.stop {
        Stop::Requested(value) => 0x100 | u64::from(value) << 16,
        Stop::Idle => 1,
        Stop::TripleFault => 2,
        Stop::Gate(_) => 3,
        Stop::Limit => 4,
        Stop::NoProgress => 5,
        Stop::Unmodelled(at) => mix(6, at.0),
        Stop::VmxAbort(indicator) => mix(7, indicator.into()),
    };
    state = mix(mix(state, stop), run.ticks);
    state = run.registers.into_iter().fold(state, mix);
    run.memory.iter().fold(state, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(PRIME))
}

/// The fingerprint of the bare and the hosted run of both vendors for `seed`.
///
/// # Errors
/// [`TransparencyError`] if a run could not be made.
pub fn digest(seed: u64) -> Result<u64, TransparencyError> {
    let mut state = BASIS;
    for vendor in [Vendor::Intel, Vendor::Amd] {
        let comparison = transparency(vendor, &mut Seeded::new(seed), OPERATIONS)?;
        state = mix(mix(state, fingerprint(&comparison.bare)), fingerprint(&comparison.hosted));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_seed_0_is_the_one_that_every_host_computes() {
        let first = digest(0).unwrap();
        assert_eq!(first, digest(0).unwrap());
        assert_ne!(first, digest(1).unwrap());
    }
}
