//! The properties, one folder or file a subject.

mod interception;

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
];
