//! A small deterministic source of random numbers, so that a case depends on its seed and number alone.

use std::cell::Cell;

/// SplitMix64 by Sebastiano Vigna (public domain): one word of state, full period.
#[derive(Clone, Debug)]
pub struct Random {
    state: Cell<u64>,
}

impl Random {
    /// The source for case `number` of the run with `seed`.
    #[must_use]
    pub fn of_case(seed: u64, number: u64) -> Random {
        let random = Random { state: Cell::new(seed) };
        let mixed = random.word();
        Random { state: Cell::new(mixed ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93)) }
    }

    /// The next 64 bits.
    pub fn word(&self) -> u64 {
        let mut z = self.state.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.state.set(z);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&self, bound: u64) -> u64 {
        self.word() % bound
    }

    /// Whether an event that happens `percent` times in a hundred happens now.
    pub fn chance(&self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// None, few, many or all of the bits of `all`.
    pub fn some_of(&self, all: u64) -> u64 {
        match self.below(4) {
            0 => 0,
            1 => all,
            2 => all & self.word() & self.word(),
            _ => all & self.word(),
        }
    }

    /// One of `options`, which is not empty.
    pub fn pick<T: Copy>(&self, options: &[T]) -> T {
        options[self.below(options.len() as u64) as usize]
    }
}
