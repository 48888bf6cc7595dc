//! docs/linux.md: what each row came to when it was run last.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use super::Measured;
use crate::documents::root;
use crate::full::commit;

const HEAD: &str = "# Linux, and its KVM inside: the last run of each row

Written by `cargo run --release -p rootmode-tests -- linux --write`, each row at the commit beside it. Ticks are the simulated
machine's, seconds the simulator's processor time, exits those of guests of Linux's KVM, or, of `hosted` rows, of the model's.

| row | works | ticks | seconds | exits | commit | what it says |
| --- | --- | --- | --- | --- | --- | --- |
";

/// The page: lines by the name of their row, in the order of the table.
#[derive(Debug)]
pub(super) struct Page {
    path: PathBuf,
    order: Vec<String>,
    lines: BTreeMap<String, String>,
    commit: String,
}

impl Page {
    /// What the last runs left. Lines of rows that are not in `order` are dropped.
    pub(super) fn open(order: Vec<String>) -> Self {
        let path = root().join("docs/linux.md");
        let lines = parse(&std::fs::read_to_string(&path).unwrap_or_default());
        Self { path, order, lines, commit: commit() }
    }

    /// Puts a row in place of its last run, and writes the page: what ran for minutes is not lost with what fails later.
    pub(super) fn put(&mut self, measured: &Measured) -> Result<(), String> {
        self.lines.insert(measured.row.clone(), line(measured, &self.commit));
        std::fs::write(&self.path, self.text()).map_err(|error| format!("{}: {error}", self.path.display()))
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for line in self.order.iter().filter_map(|row| self.lines.get(row)) {
            let _ = writeln!(text, "{line}");
        }
        text
    }
}

fn line(measured: &Measured, commit: &str) -> String {
    let Measured { row, ticks, seconds, exits, failures, notes, .. } = measured;
    let works = if failures.is_empty() { "yes" } else { "**no**" };
    let said = failures.iter().chain(notes).map(|said| said.replace('|', "/")).collect::<Vec<_>>().join("; ");
    format!("| {row} | {works} | {ticks} | {seconds:.1} | {exits} | {commit} | {said} |")
}

/// The table's lines by the name of their row.
fn parse(page: &str) -> BTreeMap<String, String> {
    let row = |line: &str| Some(line.strip_prefix("| ")?.split_once(" |")?.0.to_owned());
    let table = page.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    table.filter_map(|line| Some((row(line)?, line.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(row: &str, ticks: u64) -> Measured {
        Measured { ticks, ..Measured::failed(row.into(), "a | b".into()) }
    }

    #[test]
    fn a_row_takes_the_place_of_its_last_run_and_the_others_stay() {
        let text = |lines| {
            let order = ["b", "a"].map(String::from).to_vec();
            Page { path: PathBuf::new(), order, lines, commit: String::new() }.text()
        };
        let first: BTreeMap<_, _> = [("a", 1), ("b", 2), ("gone", 3)]
            .map(|(row, ticks)| (row.into(), line(&measured(row, ticks), "c")))
            .into();
        let mut again = parse(&text(first));
        again.insert("a".into(), line(&measured("a", 7), "d"));
        let text = text(again);
        let table: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("| ---")).skip(1).collect();
        assert_eq!(
            table,
            ["| b | **no** | 2 | 0.0 | 0 | c | a / b |", "| a | **no** | 7 | 0.0 | 0 | d | a / b |"]
        );
    }
}
