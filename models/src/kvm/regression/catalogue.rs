//! The identifiers of the catalogue, typed from it, and whether the table has them all.

use super::{LEFT_OUT, Regression};

/// Parts 2 to 5, 7, 8 and 11 of the one catalogue, the mutants of the other's parts A and B.
const IDENTIFIERS: &str = "
    M-2.1 M-2.2 M-2.3 M-2.4 M-2.5 M-2.6 M-2.7
    M-3.1 M-3.2 M-3.3 M-3.4 M-3.5 M-3.6 M-3.7
    M-4.1 M-4.2 M-4.3 M-4.4 M-4.5 M-4.6 M-4.7 M-4.8 M-4.9
    M-5.1 M-5.2 M-5.3 M-5.4 M-5.5 M-5.6 M-5.7 M-5.8 M-5.9 M-5.10 M-5.11
    M-7.1 M-7.1b M-7.1c M-7.2 M-7.3 M-7.4 M-7.5 M-7.6 M-7.7 M-7.8 M-7.9 M-7.10
    M-8.1 M-8.1b M-8.2 M-8.3 M-8.4 M-8.5 M-8.6 M-8.7 M-8.8 M-8.9 M-8.10 M-8.11
    M-11.1 M-11.2 M-11.3 M-11.4 M-11.5 M-11.6 M-11.7 M-11.8 M-11.9 M-11.10 M-11.11 M-11.12
    MSR-M01 MSR-M02 MSR-M02a MSR-M03 MSR-M04 MSR-M05 MSR-M06 MSR-M07 MSR-M08 MSR-M09 MSR-M10 MSR-M11 MSR-M12
    MSR-M13 MSR-M14 MSR-M15 MSR-M16 MSR-M17 MSR-M17b MSR-M17c MSR-M18 MSR-M19 MSR-M20 MSR-M21 MSR-M22 MSR-M23
    MSR-M24 MSR-M25 MSR-M26 MSR-M27 MSR-M28 MSR-M29 MSR-M30 MSR-M31 MSR-M32 MSR-M33 MSR-M34 MSR-M35 MSR-M36
    MSR-M37 MSR-M38 MSR-M39 MSR-M40 MSR-M41 MSR-M42 MSR-M43 MSR-M44 MSR-M45 MSR-M46 MSR-M47
    AP-M1 AP-M2 AP-M3 AP-M4 AP-M5 AP-M6 AP-M7 AP-M8 AP-M9
";

/// `MSR-M15.2` is a variant of `MSR-M15`, `M-5.3` is none.
fn base(id: &str) -> &str {
    let (whole, dots) = if id.starts_with("M-") { (id, 2) } else { (id, 1) };
    whole.match_indices('.').nth(dots - 1).map_or(whole, |(at, _)| &whole[..at])
}

#[test]
fn the_table_has_every_identifier_of_the_catalogue_or_a_reason() {
    let identifiers: Vec<&str> = IDENTIFIERS.split_whitespace().collect();
    assert_eq!(identifiers.len(), 129);
    for id in &identifiers {
        let there = Regression::ALL.iter().any(|regression| base(regression.id()) == *id);
        let excused = LEFT_OUT.iter().any(|(left, _)| left == id);
        assert!(
            there != excused,
            "{id} is {}",
            if there { "there and excused" } else { "missing without a reason" }
        );
    }
    for regression in Regression::ALL {
        assert!(identifiers.contains(&base(regression.id())), "{regression} is not in the catalogue");
    }
}
