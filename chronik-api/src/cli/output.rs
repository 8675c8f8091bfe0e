//! What commands say: tables and JSON to standard output, failures to standard error.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    /// Wrong usage or configuration.
    Usage(String),
    /// All else; the text says what to do next where that is known.
    Failed(String),
    /// Who read our output has gone (`chronik … | head`): nothing is wrong.
    NobodyReads,
}

impl Failure {
    pub fn usage(what: impl Into<String>) -> Self {
        Self::Usage(what.into())
    }

    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// What is told.
    pub fn text(&self) -> &str {
        match self {
            Self::Usage(what) | Self::Failed(what) => what,
            Self::NobodyReads => "nobody reads",
        }
    }

    /// Tells it and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (what, code) = match self {
            Self::Usage(what) => (what, 2),
            Self::Failed(what) => (what, 1),
            Self::NobodyReads => return ExitCode::SUCCESS,
        };
        // Standard error may be closed too; there is nobody left to tell then.
        let _ = writeln!(io::stderr(), "chronik: {what}");
        ExitCode::from(code)
    }
}

impl From<io::Error> for Failure {
    /// For writing to standard output, the only input or output that commands do without naming what failed.
    fn from(why: io::Error) -> Self {
        match why.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyReads,
            _ => Self::failed(format!("cannot write to standard output: {why}")),
        }
    }
}

/// Rows under headings, each column as wide as its widest cell; the last one is not padded.
#[derive(Debug)]
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Columns of numbers stand to the right.
    numeric: Vec<bool>,
}

impl Table {
    /// A heading that begins with `#` is of a column of numbers.
    pub fn new(headings: &[&'static str]) -> Self {
        let numeric = headings.iter().map(|heading| heading.starts_with('#')).collect();
        let headings = headings.iter().map(|heading| heading.trim_start_matches('#')).collect();
        Self { headings, rows: Vec::new(), numeric }
    }

    pub fn row<const N: usize>(&mut self, cells: [&dyn Display; N]) {
        debug_assert_eq!(N, self.headings.len(), "a cell for each heading");
        self.rows.push(cells.iter().map(|cell| printable(&cell.to_string())).collect());
    }

    pub fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([self.headings[column].len()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let headings: Vec<String> = self.headings.iter().map(|heading| heading.to_string()).collect();
        for row in [&headings].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), numeric) in row.iter().zip(&widths).zip(&self.numeric) {
                let pad = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, after) = if *numeric { (pad.as_str(), "") } else { ("", pad.as_str()) };
                line.extend([before, cell, after, "  "]);
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

/// Text from elsewhere without what would steer the terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}

/// One JSON document, indented, with its line end.
pub(super) fn print_json(out: &mut dyn Write, json: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{json:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_steers_no_terminal() {
        let mut table = Table::new(&["TOPIC", "#PARTITIONS", "NOTE"]);
        table.row([&"orders", &3, &""]);
        table.row([&"größer\x1b[2J", &12_000, &"x"]);
        let mut out = Vec::new();
        table.print(&mut out).expect("memory takes it");
        let expected = "\
TOPIC            PARTITIONS  NOTE
orders                    3
größer\\u{1b}[2J       12000  x
";
        assert_eq!(String::from_utf8(out).expect("text"), expected);
    }
}
