//! Documents against facts: generated pages, and the numbers that README and SPECIFICATION quote.
//!
//! A quoted number stands between `<!-- full:KEY -->` and `<!-- end -->`; it must be the value of that key in docs/full.md.

use std::path::{Path, PathBuf};

use clap::Args;
use rootmode::explain::rules_page;

use crate::explained;
use crate::table::{Row, from_markdown};

/// Arguments of `rootmode-tests documents`.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Change nothing; say what disagrees and end with status 1.
    #[arg(long)]
    check: bool,
}

/// The documents that quote the last full table.
const QUOTING: [&str; 2] = ["README.md", "SPECIFICATION.md"];

/// Writes generated pages and quoted numbers, or checks them; true if all agrees.
///
/// # Errors
/// Files that cannot be read or written, and quotations that never end or name no key.
pub fn run(arguments: &Arguments) -> Result<bool, String> {
    let root = root();
    let rows = from_markdown(&read(&root.join("docs/full.md"))?);
    let mut wanted = vec![
        (root.join("docs/rules-vmx.md"), rules_page("Rules of VM entry", "vmx.")),
        (root.join("docs/rules-svm.md"), rules_page("Rules of VMRUN", "svm.")),
        (root.join("docs/not-in-dumps.md"), explained::page()),
    ];
    for name in QUOTING {
        let path = root.join(name);
        let text = quoted(&read(&path)?, &rows).map_err(|e| format!("{name}: {e}"))?;
        wanted.push((path, text));
    }
    let mut agrees = true;
    for (path, text) in wanted {
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        if found == text {
            continue;
        }
        if arguments.check {
            agrees = false;
            let line = found.lines().zip(text.lines()).take_while(|(a, b)| a == b).count() + 1;
            eprintln!("{}: line {line} is not what `rootmode-tests documents` writes", path.display());
        } else {
            std::fs::write(&path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))?;
        }
    }
    // A promise that is not kept is a fact, not a disagreement: the table says so in bold.
    for row in rows.iter().filter(|row| !row.kept) {
        eprintln!("docs/full.md: {} is {}, promised is {}", row.key, row.value, row.promise);
    }
    Ok(agrees)
}

/// The cargo that runs us, or the one on the path.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The root of the checkout.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// `text` with every quoted number replaced by the table's value.
fn quoted(text: &str, rows: &[Row]) -> Result<String, String> {
    const OPEN: &str = "<!-- full:";
    const CLOSE: &str = "<!-- end -->";
    let mut result = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(OPEN) {
        let line = 1 + text[..text.len() - rest.len() + start].matches('\n').count();
        let after = &rest[start + OPEN.len()..];
        let (key, after) =
            after.split_once(" -->").ok_or(format!("line {line}: a quotation without a key"))?;
        let (_, after) = after.split_once(CLOSE).ok_or(format!("line {line}: `{key}` has no `{CLOSE}`"))?;
        let row = rows
            .iter()
            .find(|row| row.key == key)
            .ok_or(format!("line {line}: docs/full.md has no `{key}`"))?;
        result.push_str(&rest[..start]);
        result.push_str(&format!("{OPEN}{key} -->{}{CLOSE}", row.value));
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_number_becomes_the_tables_value() {
        let rows = [Row::new("rules", "rules", 210, "", true)];
        let text =
            "We check <!-- full:rules -->9<!-- end --> rules,\nreally <!-- full:rules -->8<!-- end -->.";
        let expected = text.replace(">9<", ">210<").replace(">8<", ">210<");
        assert_eq!(quoted(text, &rows), Ok(expected));
    }

    #[test]
    fn a_quotation_of_an_unknown_key_is_named_by_line() {
        assert!(quoted("a\nb <!-- full:x -->1<!-- end -->", &[]).unwrap_err().contains("line 2"));
        assert!(quoted("<!-- full:x -->1", &[]).unwrap_err().contains("no `<!-- end -->`"));
    }
}
