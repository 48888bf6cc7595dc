//! The native differential as a row of `rootmode-tests full`.

use super::command::{judge, processors};
use crate::table::Row;

/// One row: Codes judged and forms that differ.
///
/// # Errors
/// A list of exclusions that does not fit, a child process that could not be started.
pub fn rows() -> Result<Vec<Row>, String> {
    let summary = judge(500, 0, processors(), true, |_| true)?;
    let failures = summary.failures().count();
    let scope = &summary.scope;
    let value = format!(
        "{} of {} Codes, {} cases ({} left open); {failures} forms differ; {} excluded, {} not on this host",
        scope.judged_codes(),
        scope.codes(),
        summary.cases(),
        summary.open(),
        scope.excluded.len(),
        scope.host_lacks.len()
    );
    let what = "instruction forms on the host's processor and here, 500 cases each";
    Ok(vec![Row::new("native", what, value, "none differs", failures == 0)])
}
