//! What was measured, as a table for people or as JSON.

use serde::Serialize;
use serde_json::Value;

/// The middle of several figures; with an even number of them, between the two in the middle.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// One line of a report: a variant and its figures, by name, in order.
#[derive(Debug, Serialize)]
pub struct Row {
    pub variant: String,
    pub figures: Vec<(&'static str, Option<f64>)>,
}

/// A whole report.
#[derive(Debug, Serialize)]
pub struct Report {
    pub workload: &'static str,
    pub settings: Vec<(&'static str, String)>,
    pub machine: Vec<(&'static str, String)>,
    pub rows: Vec<Row>,
}

impl Report {
    pub fn new(workload: &'static str, settings: Vec<(&'static str, String)>) -> Self {
        Self { workload, settings, machine: machine(), rows: Vec::new() }
    }

    pub fn print(&self, json: bool) {
        if json {
            println!("{}", self.to_json());
            return;
        }
        println!("{}", self.workload);
        for (name, value) in self.settings.iter().chain(&self.machine) {
            println!("  {name}: {value}");
        }
        println!();
        let width = self.rows.iter().map(|row| row.variant.len()).max().unwrap_or(0);
        for row in &self.rows {
            print!("{:width$}", row.variant);
            for (name, figure) in &row.figures {
                match figure {
                    Some(figure) => print!("  {} {name}", readable(*figure)),
                    None => print!("  - {name}"),
                }
            }
            println!();
        }
    }

    fn to_json(&self) -> Value {
        let map = |pairs: &[(&'static str, String)]| -> Value {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.as_str()))).collect()
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let figures: Value =
                    row.figures.iter().map(|(name, figure)| ((*name).to_owned(), Value::from(*figure))).collect();
                serde_json::json!({ "variant": row.variant, "figures": figures })
            })
            .collect();
        serde_json::json!({
            "workload": self.workload,
            "settings": map(&self.settings),
            "machine": map(&self.machine),
            "rows": rows,
        })
    }
}

fn readable(figure: f64) -> String {
    match figure.abs() {
        100_000.0.. => format!("{:.0}k", figure / 1000.0),
        100.0.. => format!("{figure:.0}"),
        _ => format!("{figure:.2}"),
    }
}

/// What the figures depend on besides the programs: the machine, and what else it was doing.
fn machine() -> Vec<(&'static str, String)> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let load = read("/proc/loadavg");
    vec![
        ("cores", format!("{cores},{}", model.trim_start_matches(|c: char| c == ':' || c.is_whitespace()))),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load before", load.split_whitespace().next().unwrap_or_default().to_owned()),
        ("librdkafka", rdkafka::util::get_rdkafka_version().1),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }
}
