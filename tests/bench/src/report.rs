//! What was measured, as a table for people or as JSON.

use crate::machine::about;
use serde::Serialize;
use serde_json::Value;

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
        Self { workload, settings, machine: about::machine(), rows: Vec::new() }
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

/// With as many digits as are read.
pub fn readable(figure: f64) -> String {
    match figure.abs() {
        100_000.0.. => format!("{:.0}k", figure / 1000.0),
        100.0.. => format!("{figure:.0}"),
        _ => format!("{figure:.2}"),
    }
}
