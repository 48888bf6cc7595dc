//! Plain text tables: columns as wide as their widest cell.

/// Prints `rows` under `heads`; cells that look like numbers are aligned to the right.
pub(super) fn print(heads: &[&str], rows: &[Vec<String>]) {
    let bold = anstyle::Style::new().bold();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([heads[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| -> String {
        let padded: Vec<String> = cells
            .zip(&widths)
            .map(|(cell, &width)| {
                let number = cell.starts_with(|c: char| c.is_ascii_digit());
                if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            })
            .collect();
        padded.join("  ").trim_end().to_owned()
    };
    anstream::println!("{bold}{}{bold:#}", line(&mut heads.iter().copied()));
    for row in rows {
        anstream::println!("{}", line(&mut row.iter().map(String::as_str)));
    }
}
