//! Prints frames, the record batches in them, and their records: for people a line each, for programs a JSON object for
//! each batch.

use super::super::output::printable;
use super::segment::{End, Frame, Segment};
use crate::compression::inflate;
use chronik_core::batch::{Batch, Header, Records};
use chronik_core::ids::LogId;
use serde_json::{Value, json};
use std::io::{self, Write};

/// What a batch may inflate to: far more than producers make.
const INFLATED_BYTES_MAX: usize = 256 << 20;

pub(super) struct Show<W> {
    pub out: W,
    pub records: bool,
    pub json: bool,
}

/// A record as it is printed.
struct Row {
    offset: i64,
    timestamp_ms: i64,
    key: Value,
    value: Value,
    headers: Vec<(String, Value)>,
}

impl<W: Write> Show<W> {
    pub fn segment(&mut self, log: LogId, segment: &Segment) -> io::Result<()> {
        if self.json {
            return Ok(());
        }
        let (topic, partition) = (super::kafka_id(log.topic), log.partition);
        let (path, bytes) = (segment.path.display(), segment.bytes);
        writeln!(self.out, "{path}: topic id {topic}, partition {partition}, bytes {bytes}")
    }

    pub fn frame(&mut self, frame: &Frame) -> io::Result<()> {
        let header = &frame.header;
        if !frame.intact {
            if self.json {
                let shown = json!({ "position": frame.position, "base_offset": header.base.0, "damaged": true });
                return writeln!(self.out, "{shown}");
            }
            let (base, next) = (header.base, header.next_offset);
            return writeln!(self.out, "  DAMAGED at byte {}: offsets {base} up to {next}", frame.position);
        }
        let mut rest = frame.payload.clone();
        let mut batches = 0;
        while let Ok(batch) = Batch::split_from(&mut rest) {
            self.batch(frame, &batch)?;
            batches += 1;
        }
        if batches > 0 && rest.is_empty() {
            return Ok(());
        }
        // The metadata log, for one, holds something else.
        let (base, last, bytes) = (header.base.0, header.next_offset.0 - 1, rest.len());
        if self.json {
            let shown = json!({
                "position": frame.position,
                "base_offset": base,
                "last_offset": last,
                "epoch": header.epoch.0,
                "other_bytes": bytes,
            });
            return writeln!(self.out, "{shown}");
        }
        writeln!(self.out, "  {base}–{last}  epoch {}  {bytes} bytes that are no record batch", header.epoch)
    }

    fn batch(&mut self, frame: &Frame, batch: &Batch) -> io::Result<()> {
        let header = &batch.header;
        let codec = header.attributes.compression();
        let codec_name = codec.map_or("unknown codec", |codec| codec.name());
        let rows = if self.records { Some(rows(batch)) } else { None };
        if self.json {
            let mut shown = json!({
                "position": frame.position,
                "base_offset": header.base_offset.0,
                "last_offset": header.last_offset().0,
                "records_count": header.records_count,
                "epoch": frame.header.epoch.0,
                "compression": codec_name,
                "bytes": header.size_bytes(),
                "base_timestamp_ms": header.base_timestamp.0,
                "max_timestamp_ms": header.max_timestamp.0,
                "log_append_time": header.attributes.is_log_append_time(),
                "transactional": header.attributes.is_transactional(),
                "control": header.attributes.is_control(),
                "checksum_ok": batch.is_intact(),
            });
            if header.is_idempotent() {
                shown["producer"] = producer_json(header);
            }
            match rows {
                Some(Ok(rows)) => shown["records"] = rows.iter().map(Row::json).collect(),
                Some(Err(why)) => shown["unreadable"] = why.into(),
                None => {}
            }
            return writeln!(self.out, "{shown}");
        }
        write!(
            self.out,
            "  {}–{}  records {}  epoch {}  {codec_name}  bytes {}  time {}",
            header.base_offset,
            header.last_offset(),
            header.records_count,
            frame.header.epoch,
            header.size_bytes(),
            header.max_timestamp,
        )?;
        if header.is_idempotent() {
            let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
            write!(self.out, "  producer {id} epoch {epoch} sequence {sequence}")?;
        }
        let flags = [
            (header.attributes.is_log_append_time(), "log-append-time"),
            (header.attributes.is_transactional(), "transactional"),
            (header.attributes.is_control(), "control"),
            (!batch.is_intact(), "WRONG CHECKSUM"),
        ];
        for (_, flag) in flags.iter().filter(|(is_set, _)| *is_set) {
            write!(self.out, "  {flag}")?;
        }
        writeln!(self.out)?;
        match rows {
            Some(Ok(rows)) => rows.iter().try_for_each(|row| row.print(&mut self.out)),
            Some(Err(why)) => writeln!(self.out, "      cannot be read: {why}"),
            None => Ok(()),
        }
    }

    pub fn end(&mut self, segment: &Segment, end: &End) -> io::Result<()> {
        if self.json {
            let shown = match end {
                End::Clean => json!({ "segment": segment.base.0, "end": "clean" }),
                End::Reserved { bytes } => json!({ "segment": segment.base.0, "end": "reserved", "bytes": bytes }),
                End::Unfinished { position, bytes } => {
                    json!({ "segment": segment.base.0, "end": "unfinished", "position": position, "bytes": bytes })
                }
                End::Damaged { position, witness } => {
                    json!({ "segment": segment.base.0, "end": "damaged", "position": position, "witness": witness })
                }
            };
            return writeln!(self.out, "{shown}");
        }
        match end {
            End::Clean => Ok(()),
            End::Reserved { bytes } => writeln!(self.out, "  then {bytes} bytes of reserved room"),
            End::Unfinished { position, bytes } => writeln!(
                self.out,
                "  then {bytes} bytes from byte {position} on that are no whole frame: a write under way or cut off"
            ),
            End::Damaged { position, witness } => writeln!(
                self.out,
                "  DAMAGED at byte {position}: the frame at byte {witness} shows that more had been durable here"
            ),
        }
    }
}

fn producer_json(header: &Header) -> Value {
    json!({ "id": header.producer_id.0, "epoch": header.producer_epoch, "base_sequence": header.base_sequence })
}

fn rows(batch: &Batch) -> Result<Vec<Row>, String> {
    let header = &batch.header;
    let codec = header.attributes.compression().ok_or("its compression is unknown")?;
    let body = inflate(codec, &batch.records, INFLATED_BYTES_MAX).map_err(|why| why.to_string())?;
    let mut rows = Vec::new();
    for record in Records::new(&body) {
        let record = record.map_err(|why| why.to_string())?;
        rows.push(Row {
            offset: header.base_offset.0.saturating_add(record.offset_delta.into()),
            timestamp_ms: if header.attributes.is_log_append_time() {
                header.max_timestamp.0
            } else {
                header.base_timestamp.0.saturating_add(record.timestamp_delta)
            },
            key: shown(record.key),
            value: shown(record.value),
            headers: record
                .headers()
                .map(|header| (String::from_utf8_lossy(header.key).into_owned(), shown(header.value)))
                .collect(),
        });
    }
    Ok(rows)
}

/// Text stays text; other bytes become an object with their hexadecimal digits.
fn shown(bytes: Option<&[u8]>) -> Value {
    match bytes.map(std::str::from_utf8) {
        None => Value::Null,
        Some(Ok(text)) => text.into(),
        Some(Err(_)) => {
            let digits: String = bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
            json!({ "hex": digits })
        }
    }
}

impl Row {
    fn json(&self) -> Value {
        let mut shown = json!({
            "offset": self.offset,
            "timestamp_ms": self.timestamp_ms,
            "key": self.key,
            "value": self.value,
        });
        if !self.headers.is_empty() {
            let header = |(key, value): &(String, Value)| json!({ "key": key, "value": value });
            shown["headers"] = self.headers.iter().map(header).collect();
        }
        shown
    }

    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let text = |value: &Value| match value {
            Value::Null => "null".to_owned(),
            Value::String(text) => format!("{text:?}"),
            other => format!("0x{}", other["hex"].as_str().unwrap_or_default()),
        };
        write!(
            out,
            "      {}  time {}  key {}  value {}",
            self.offset,
            self.timestamp_ms,
            text(&self.key),
            text(&self.value)
        )?;
        for (key, value) in &self.headers {
            write!(out, "  {}={}", printable(key), text(value))?;
        }
        writeln!(out)
    }
}
