//! How soon a broker is ready, and how small it is while nothing happens.

use crate::broker::Local;
use crate::client::create_topic;
use crate::report::{Report, Row};
use crate::{BenchError, Common};

const PARTITIONS: i32 = 1000;

fn row(variant: &str, local: &Local) -> Result<Row, BenchError> {
    let usage = local.usage().ok_or(BenchError::BrokerGone)?;
    Ok(Row {
        variant: variant.to_owned(),
        figures: vec![
            ("ms to ready", Some(local.ready_after.as_secs_f64() * 1000.0)),
            ("MB memory", Some(usage.resident_bytes as f64 / 1e6)),
            ("open files", usage.open_files.map(|count| count as f64)),
            ("MB on disk", Some(local.disk_bytes() as f64 / 1e6)),
        ],
    })
}

pub fn run(common: &Common) -> Result<(), BenchError> {
    if common.bootstrap.is_some() {
        return Err(BenchError::NeedsLocal("start"));
    }
    let mut report = Report::new("start", Vec::new());
    let mut local = Local::start(common.broker_binary.as_deref(), common.data_dir.as_deref(), &common.broker_set)?;
    report.rows.push(row("empty", &local)?);
    create_topic(local.bootstrap(), "bench-start", PARTITIONS, 1)?;
    report.rows.push(row("1000 partitions, just created", &local)?);
    local.restart()?;
    report.rows.push(row("1000 partitions, after a clean stop", &local)?);
    report.print(common.json);
    Ok(())
}
