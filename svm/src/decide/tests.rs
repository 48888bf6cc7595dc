//! The table's own consistency; truth tables of the manual stand beside it in `truth.rs`.

use super::*;
use crate::encode::ExitCode;
use crate::vmcb::INTERCEPTS;

#[test]
fn identifiers_are_unique_and_every_row_names_its_section() {
    let rows = Table::BUILT_IN.rows();
    for (index, row) in rows.iter().enumerate() {
        assert!(rows[..index].iter().all(|other| other.id != row.id), "{}", row.id);
        assert!(!row.source.is_empty() && row.code.name().is_some(), "{}", row.id);
        assert_eq!(Table::BUILT_IN.of(row.class).iter().filter(|other| other.id == row.id).count(), 1);
    }
}

#[test]
fn every_intercept_bit_that_the_manual_defines_has_a_row_that_asks_for_it() {
    for intercept in INTERCEPTS {
        let asked = Table::BUILT_IN.rows().iter().any(|row| match row.gate {
            Gate::Open => false,
            Gate::Bit(bit) => bit == intercept.bit && row.code == ExitCode::of(bit),
            Gate::Numbered { first, count } => (first.0..first.0 + count).contains(&intercept.bit.0),
        });
        assert!(asked, "{}", intercept.name);
    }
}
