//! Flags that a wrong one may have meant.

use rootmode_arch::cpuid::TABLE;

use super::{capabilities, flag};

/// `CamelCase` as `camel-case`.
pub(super) fn kebab(name: &str) -> String {
    let mut out = String::new();
    for (at, c) in name.char_indices() {
        if at > 0 && c.is_ascii_uppercase() {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

/// The flags nearest to `wrong`: few edits away, or one in the other; at most five.
pub(super) fn near(wrong: &str) -> Vec<String> {
    let wrong = wrong.to_ascii_lowercase();
    let own = TABLE.iter().map(|row| flag(row.feature)).chain(["phys-bits".to_owned()]);
    let flags = own.chain(capabilities::all().map(|(flag, _)| flag));
    let mut ranked: Vec<(usize, String)> = flags
        .filter_map(|flag| {
            let edits = distance(&wrong, &flag);
            let inside =
                wrong.len() >= 3 && (flag.contains(&wrong) || wrong.contains(&flag) && flag.len() >= 3);
            (edits <= 1 + wrong.len() / 4 || inside).then_some((edits, flag))
        })
        .collect();
    ranked.sort();
    ranked.truncate(5);
    ranked.into_iter().map(|(_, flag)| flag).collect()
}

/// Letters to insert, delete, replace or swap with a neighbour to get from one text to the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows = vec![(0..=to.len()).collect::<Vec<usize>>()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
