//! Campaigns: properties checked over many generated cases, counterexamples shrunk and saved.
//!
//! ```
//! use rootmode::campaign::{self, Plan, Regressions, Shard};
//! let plan = Plan { cases: 100, seed: 1, shard: Shard::WHOLE, regressions: Regressions::NONE };
//! for property in campaign::properties() {
//!     let outcome = campaign::run(&property, &plan, &|_| ());
//!     assert_eq!((outcome.cases, outcome.failures), (property.cases_of(100), 0));
//! }
//! ```

mod case;
mod engine;
pub mod properties;
mod property;
mod reproducer;

pub use case::{Shrunk, case_seed, judge, record, shrink};
pub use engine::{Kill, Outcome, Plan, Shard, counterexample, hunt, is_found, run, sample};
pub use property::{Counterexample, Property, Verdict};
pub use reproducer::{Reproducer, ReproducerError};
pub use rootmode_models::kvm::{Regression, Regressions};

/// Every property, in the order in which the command line lists them.
pub fn properties() -> Vec<Property> {
    properties::TABLES.concat()
}

/// The property called `name`.
pub fn property(name: &str) -> Option<Property> {
    properties().into_iter().find(|p| p.name == name)
}

/// Runs a reproducer; `None` if its property does not exist.
pub fn replay(reproducer: &Reproducer) -> Option<Verdict> {
    property(&reproducer.property).map(|p| reproducer.run(&p))
}
