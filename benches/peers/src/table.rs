//! The table that is printed: a row for each workload, a column for each server, and the ratios.

use std::fmt::Write as _;

use serde::Serialize;

use crate::workload::{Measured, Workload};

/// The first two columns; all others are peers.
const FLOOR: &str = "floor";
const XPUSH: &str = "xpush";

/// What the numbers are of.
const READING: &str = "
CPU is the user and system time of all of a server's processes, which Linux counts in hundredths of a second. Memory is
their RssAnon and RssShmem: neither programs nor the kernel's buffers. Latencies count from the moment at which a
message was meant to be sent. Where clients connect, XPUSH checks a token (HS256) of each; no other server does.
";

#[derive(Serialize)]
pub(crate) struct Table {
    machine: String,
    pub(crate) servers: Vec<Column>,
    rows: Vec<Row>,
}

#[derive(Serialize)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    /// What it was asked to do.
    pub(crate) manner: &'static str,
}

#[derive(Serialize)]
struct Row {
    workload: &'static str,
    more_is_better: bool,
    /// In the order of the columns.
    cells: Vec<Cell>,
}

#[derive(Serialize)]
struct Cell {
    server: String,
    /// Absent: it failed, and the notes say how.
    value: Option<f64>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn of(machine: String) -> Self {
        Self { machine, servers: Vec::new(), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, workload: Workload, results: Vec<(String, anyhow::Result<Measured>)>) {
        let cells = results.into_iter().map(|(server, result)| match result {
            Ok(Measured { value, notes }) => Cell { server, value: Some(value), notes },
            Err(error) => Cell { server, value: None, notes: vec![format!("{error:#}")] },
        });
        let (title, more_is_better) = (workload.title(), workload.more_is_better());
        self.rows.push(Row { workload: title, more_is_better, cells: cells.collect() });
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}\n\n", self.machine);
        let mut footnotes = Vec::new();
        let names = self.servers.iter().map(|server| server.name);
        let header: Vec<_> =
            ["workload"].into_iter().chain(names).chain(["xpush ÷ floor", "xpush ÷ best peer"]).collect();
        line(&mut text, &header);
        line(&mut text, &vec!["---"; header.len()]);
        for row in &self.rows {
            let better = if row.more_is_better { "more is better" } else { "less is better" };
            let mut cells = vec![format!("{} ({better})", row.workload)];
            for cell in &row.cells {
                let mut shown = cell.value.map_or("—".to_owned(), number);
                for note in &cell.notes {
                    let note = format!("{}: {note}", cell.server);
                    let known = footnotes.iter().position(|known| *known == note);
                    let index = known.unwrap_or_else(|| {
                        footnotes.push(note);
                        footnotes.len() - 1
                    });
                    let mark = format!(" [{}]", index + 1);
                    if !shown.contains(&mark) {
                        shown.push_str(&mark);
                    }
                }
                cells.push(shown);
            }
            cells.push(row.ratio(row.value(FLOOR)).unwrap_or("—".to_owned()));
            let best = row.best_peer();
            let against =
                best.and_then(|(name, value)| Some(format!("{} ({name})", row.ratio(Some(value))?)));
            cells.push(against.unwrap_or("—".to_owned()));
            line(&mut text, &cells);
        }
        text.push('\n');
        for Column { name, version, manner } in &self.servers {
            // Writing to a String can't fail.
            let _ = writeln!(text, "- {name} {version}: {manner}");
        }
        text.push_str(READING);
        text.push('\n');
        for (n, note) in footnotes.iter().enumerate() {
            let _ = writeln!(text, "[{}] {note}  ", n + 1);
        }
        text
    }
}

impl Row {
    fn value(&self, server: &str) -> Option<f64> {
        self.cells.iter().find(|cell| cell.server == server)?.value
    }

    fn best_peer(&self) -> Option<(&str, f64)> {
        let peers = self.cells.iter().filter(|cell| ![FLOOR, XPUSH].contains(&cell.server.as_str()));
        let values = peers.filter_map(|cell| Some((cell.server.as_str(), cell.value?)));
        values.reduce(|best, other| if (other.1 > best.1) == self.more_is_better { other } else { best })
    }

    /// Of XPUSH to another.
    fn ratio(&self, other: Option<f64>) -> Option<String> {
        Some(format!("{:.2}", self.value(XPUSH)? / other.filter(|value| *value > 0.0)?))
    }
}

fn line(text: &mut String, cells: &[impl AsRef<str>]) {
    for cell in cells {
        let _ = write!(text, "| {} ", cell.as_ref());
    }
    text.push_str("|\n");
}

/// Three digits, with commas between the thousands.
fn number(value: f64) -> String {
    let digits = match value {
        value if value >= 1000.0 => {
            let digits = format!("{value:.0}");
            let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
            return groups.join(",");
        }
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_peer_is_the_cheapest_or_the_fastest_and_neither_floor_nor_xpush() {
        let measured = |value| Ok(Measured { value, notes: Vec::new() });
        let results = || {
            vec![
                ("floor".to_owned(), measured(1.0)),
                ("xpush".to_owned(), measured(3.0)),
                ("nats".to_owned(), measured(2.0)),
                ("ws".to_owned(), measured(12_345.6)),
                ("nchan".to_owned(), Err(anyhow::anyhow!("it is gone"))),
            ]
        };
        let mut table = Table::of(String::new());
        table.add(Workload::Fanout, results());
        table.add(Workload::FanoutMax, results());
        let markdown = table.markdown();
        assert!(
            markdown.contains("| 1.00 | 3.00 | 2.00 | 12,346 | — [1] | 3.00 | 1.50 (nats) |"),
            "{markdown}"
        );
        assert!(markdown.contains("| 3.00 | 0.00 (ws) |"), "{markdown}");
        assert!(markdown.contains("[1] nchan: it is gone"), "{markdown}");
    }
}
