//! The table that a full run leaves in docs/full.md: written, and read back by whoever quotes it.

use std::fmt::Write as _;

/// How a command prints its table.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// A table.
    Text,
    /// One JSON object.
    Json,
}

/// One proof: a key that documents quote, what was measured, and what is promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Stable key, such as `vmx-entry-ns`.
    pub key: String,
    /// What was run.
    pub what: String,
    /// What came out, as documents quote it.
    pub value: String,
    /// What is promised.
    pub promise: String,
    /// Whether the promise is kept.
    pub kept: bool,
    /// The commit at which it was run; empty before it is in a table.
    pub commit: String,
}

impl Row {
    /// A row whose promise is a condition that was evaluated.
    pub fn new(key: &str, what: &str, value: impl ToString, promise: &str, kept: bool) -> Self {
        let (key, what, promise) = (key.to_owned(), what.to_owned(), promise.to_owned());
        Self { key, what, value: value.to_string(), promise, kept, commit: String::new() }
    }
}

/// The page: how it was made, then the table.
pub fn to_markdown(command: &str, rows: &[Row]) -> String {
    let mut page = format!(
        "# The last full run\n\nWritten by `{command}`, each row at the commit beside it. Documents quote its values; CI compares.\n\n| key | what was run | value | promised | kept | commit |\n| --- | --- | --- | --- | --- | --- |\n"
    );
    for row in rows {
        let kept = if row.kept { "yes" } else { "**no**" };
        let Row { key, what, value, promise, commit, .. } = row;
        let _ = writeln!(page, "| {key} | {what} | {value} | {promise} | {kept} | {commit} |");
    }
    page
}

/// Reads the rows of a page that [`to_markdown`] wrote.
pub fn from_markdown(page: &str) -> Vec<Row> {
    let cells = |line: &str| -> Vec<String> { line.split('|').map(|cell| cell.trim().to_owned()).collect() };
    page.lines()
        .filter(|line| line.starts_with("| "))
        .map(cells)
        .filter(|cells| cells.len() == 8 && cells[1] != "key" && !cells[1].starts_with("---"))
        .map(|cells| Row {
            key: cells[1].clone(),
            what: cells[2].clone(),
            value: cells[3].clone(),
            promise: cells[4].clone(),
            kept: cells[5] == "yes",
            commit: cells[6].clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_survives_its_page() {
        let mut rows = vec![
            Row::new("a", "first", 17, "at least 10", true),
            Row::new("b-ns", "second", "3.5", "under 3", false),
        ];
        rows[0].commit = "abc".into();
        assert_eq!(from_markdown(&to_markdown("cmd", &rows)), rows);
    }
}
