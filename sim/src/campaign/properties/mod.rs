//! The properties, one folder or file a subject.

pub mod interception;
mod systems;
mod transparency;

use super::Property;

/// The tables of all subjects, in the order of the command line.
pub(super) const TABLES: &[&[Property]] = &[
    interception::MAPS,
    interception::FILTER,
    interception::ACCESS,
    interception::HISTORY,
    interception::ROUTING,
    interception::NESTED_SVM,
    interception::NESTED_VMX,
    interception::EXITS,
    systems::CONTROLS,
    systems::RTIT,
    systems::USER_RETURN,
    systems::POSTED,
    systems::CONTAINMENT,
    systems::NESTED_ENTRIES,
    systems::TRACE,
    transparency::PROPERTIES,
];

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use crate::campaign::{self, Plan, Regressions, Shard};

    #[test]
    fn without_regressions_every_property_holds_and_hardly_any_case_is_skipped() {
        let plan = Plan { cases: 3000, seed: 17, shard: Shard::WHOLE, regressions: Regressions::NONE };
        for property in campaign::properties() {
            let outcome = campaign::run(&property, &plan, &|_| ());
            assert_eq!(outcome.failures, 0, "{} fails at case {:?}", property.name, outcome.first_failure);
            assert!(outcome.skipped <= outcome.cases / 4, "{} skips {}", property.name, outcome.skipped);
        }
    }

    /// All that were in a kernel, and one in three of the others; `rootmode campaign --regressions` tries every one.
    #[test]
    fn regressions_are_found_by_a_property() {
        // Whole machines only for what nothing cheaper finds.
        let (cheap, dear): (Vec<_>, Vec<_>) = campaign::properties().into_iter().partition(|p| p.cost < 100);
        campaign::sample(0).collect::<Vec<_>>().into_par_iter().for_each(|regression| {
            let found = [&cheap, &dear]
                .into_iter()
                .any(|properties| campaign::is_found(properties, regression, 23, 10_000));
            assert!(found, "{regression} survives: {}", regression.row().about);
        });
    }

    #[test]
    fn names_are_unique() {
        let properties = campaign::properties();
        for (n, property) in properties.iter().enumerate() {
            assert!(properties[..n].iter().all(|p| p.name != property.name), "{} twice", property.name);
        }
    }
}
