//! [`Choices`]: the only source of anything that image and inputs do not determine.
//!
//! Interleaving, injected faults, architectural latitude, generated programs: all draw from `choose(site, n)`.
//! A recording is the list of what was drawn, as text: one `site n k` a line.
//!
//! ```
//! use rootmode_arch::choices::{Choices, Exhaustive, Site};
//! let mut all = Exhaustive::new(1000);
//! let mut seen = Vec::new();
//! while all.begin() {
//!     seen.push((all.choose(Site::Task, 2), all.choose(Site::Fault, 2)));
//! }
//! assert_eq!(seen, [(0, 0), (0, 1), (1, 0), (1, 1)]);
//! ```

#[cfg(feature = "std")]
mod replay;
#[cfg(feature = "std")]
pub use replay::{Choice, ChoiceError, Exhaustive, Recorded, Recorder, format_choices, parse_choices};

macro_rules! sites {
    ($($(#[$meta:meta])* $name:ident = $number:literal $text:literal;)*) => {
        /// A place where something is chosen. Numbers and names are stable: recordings refer to them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[cfg_attr(feature = "std", derive(serde::Serialize, serde::Deserialize))]
        #[repr(u16)]
        pub enum Site { $($(#[$meta])* $name = $number,)* }

        impl Site {
            /// Every site, ascending by number.
            pub const ALL: &'static [Site] = &[$(Site::$name),*];
            /// The name in recordings.
            pub const fn name(self) -> &'static str {
                match self { $(Site::$name => $text,)* }
            }
        }
    };
}

sites! {
    /// Which L0 task continues at a named point.
    Task = 1 "task";
    /// Which vCPU runs first in a slice.
    Slice = 2 "slice";
    /// Whether an injected fault happens here.
    Fault = 3 "fault";
    /// Whether a cached translation is evicted.
    TlbEviction = 4 "tlb-eviction";
    /// Whether VMCS data is still held on-chip.
    VmcsHeld = 5 "vmcs-held";
    /// Whether a set clean bit is trusted.
    CleanBit = 6 "clean-bit";
    /// A bit of RDRAND or RDSEED output, or its failure.
    Random = 7 "random";
    /// Timer jitter.
    Jitter = 8 "jitter";
    /// A draw of a program generator.
    Program = 9 "program";
    /// A draw of a state generator (VMCS, VMCB, bitmap, filter, CPUID).
    State = 10 "state";
    /// A draw of an event-sequence generator.
    Sequence = 11 "sequence";
    /// Which features a campaign case enables.
    Swarm = 12 "swarm";
    /// Whether the host's state stays on the chip while a guest runs.
    HostSave = 13 "host-save";
}

/// How a machine uses the latitude that the manuals leave to processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Hardware {
    /// As software expects; nothing is looked for.
    #[default]
    Tame,
    /// Sites of latitude are drawn, and software that relies on more than the manuals promise is reported.
    Hostile,
}

impl Site {
    /// The site called `name` in recordings.
    pub fn from_name(name: &str) -> Option<Site> {
        Self::ALL.iter().copied().find(|s| s.name() == name)
    }
}

/// Answers `choose`. Every back end is deterministic.
pub trait Choices {
    /// One of `0..n` for `site`; `n` is at least 1, and with `n == 1` the answer is 0. 0 is the tamest.
    fn choose(&mut self, site: Site, n: u64) -> u64;

    /// A choice between no (0) and yes.
    fn flip(&mut self, site: Site) -> bool {
        self.choose(site, 2) == 1
    }

    /// A source that answers from here on as this one will, for snapshots. `None`: it cannot be copied.
    #[cfg(feature = "std")]
    fn copy(&self) -> Option<Box<dyn Choices + Send>> {
        None
    }
}

#[cfg(feature = "std")]
impl<C: Choices + ?Sized> Choices for Box<C> {
    fn choose(&mut self, site: Site, n: u64) -> u64 {
        (**self).choose(site, n)
    }
    fn copy(&self) -> Option<Box<dyn Choices + Send>> {
        (**self).copy()
    }
}

impl<C: Choices + ?Sized> Choices for &mut C {
    fn choose(&mut self, site: Site, n: u64) -> u64 {
        (**self).choose(site, n)
    }
}

/// Always 0: the machine that software expects.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tame;

impl Choices for Tame {
    fn choose(&mut self, _: Site, _: u64) -> u64 {
        0
    }
    #[cfg(feature = "std")]
    fn copy(&self) -> Option<Box<dyn Choices + Send>> {
        Some(Box::new(*self))
    }
}

/// Pseudo-random choices from a 64-bit seed (SplitMix64: the same on every host).
#[derive(Clone, Debug)]
pub struct Seeded {
    state: u64,
}

impl Seeded {
    /// Choices that `seed` determines.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next 64 pseudo-random bits.
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}

impl Choices for Seeded {
    fn choose(&mut self, _: Site, n: u64) -> u64 {
        let bits = self.next();
        if n <= 1 { 0 } else { (u128::from(bits) * u128::from(n) >> 64) as u64 }
    }
    #[cfg(feature = "std")]
    fn copy(&self) -> Option<Box<dyn Choices + Send>> {
        Some(Box::new(self.clone()))
    }
}
