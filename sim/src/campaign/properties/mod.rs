//! The properties, one file a subject.

use super::Property;

/// The tables of all subjects, in the order of the command line.
pub(super) const TABLES: &[&[Property]] = &[];
