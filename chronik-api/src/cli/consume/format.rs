//! How a record is printed: by a template, or as a JSON object a line.

use super::super::output::Failure;
use super::reader::Read;
use serde_json::{Value, json};
use std::io::{self, Write};

/// Keys, values and headers are printed as the bytes they are; it is the caller's terminal.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Format {
    Template(Vec<Part>),
    Json,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text(Vec<u8>),
    Topic,
    Partition,
    Offset,
    Timestamp,
    Key,
    Value,
    Headers,
}

impl Format {
    /// Reads `%v\n` and the like.
    pub fn template(text: &str) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        let mut plain = Vec::new();
        let mut characters = text.chars();
        let wrong = |what: String| Failure::usage(format!("--format {text:?}: {what}"));
        while let Some(c) = characters.next() {
            let part = match c {
                '%' => match characters.next() {
                    Some('t') => Part::Topic,
                    Some('p') => Part::Partition,
                    Some('o') => Part::Offset,
                    Some('T') => Part::Timestamp,
                    Some('k') => Part::Key,
                    Some('v' | 's') => Part::Value,
                    Some('h') => Part::Headers,
                    Some('%') => {
                        plain.push(b'%');
                        continue;
                    }
                    Some(other) => return Err(wrong(format!("%{other} is none of %t %p %o %T %k %v %h %%"))),
                    None => return Err(wrong("it ends with a lone %".into())),
                },
                '\\' => {
                    plain.push(match characters.next() {
                        Some('n') => b'\n',
                        Some('t') => b'\t',
                        Some('r') => b'\r',
                        Some('0') => 0,
                        Some('\\') | None => b'\\',
                        Some(other) => return Err(wrong(format!("\\{other} is none of \\n \\t \\r \\0 \\\\"))),
                    });
                    continue;
                }
                c => {
                    plain.extend(c.encode_utf8(&mut [0; 4]).bytes());
                    continue;
                }
            };
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(part);
        }
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self::Template(parts))
    }

    pub fn print(&self, out: &mut dyn Write, read: &Read<'_>) -> io::Result<()> {
        match self {
            Self::Json => writeln!(out, "{}", as_json(read)),
            Self::Template(parts) => parts.iter().try_for_each(|part| part.print(out, read)),
        }
    }
}

impl Part {
    fn print(&self, out: &mut dyn Write, read: &Read<'_>) -> io::Result<()> {
        match self {
            Self::Text(text) => out.write_all(text),
            Self::Topic => out.write_all(read.topic.as_bytes()),
            Self::Partition => write!(out, "{}", read.partition),
            Self::Offset => write!(out, "{}", read.offset),
            Self::Timestamp => write!(out, "{}", read.timestamp_ms),
            Self::Key => out.write_all(read.record.key.unwrap_or_default()),
            Self::Value => out.write_all(read.record.value.unwrap_or_default()),
            Self::Headers => {
                for (index, header) in read.record.headers().enumerate() {
                    if index > 0 {
                        out.write_all(b",")?;
                    }
                    out.write_all(header.key)?;
                    out.write_all(b"=")?;
                    out.write_all(header.value.unwrap_or_default())?;
                }
                Ok(())
            }
        }
    }
}

/// Bytes that are text stay text; others are told apart by their own field, in hexadecimal.
fn as_json(read: &Read<'_>) -> Value {
    let mut object = json!({
        "topic": read.topic,
        "partition": read.partition,
        "offset": read.offset,
        "timestamp_ms": read.timestamp_ms,
    });
    let mut put = |name: &str, bytes: Option<&[u8]>| match bytes.map(std::str::from_utf8) {
        None => object[name] = Value::Null,
        Some(Ok(text)) => object[name] = text.into(),
        Some(Err(_)) => object[format!("{name}_hex")] = hexadecimal(bytes.unwrap_or_default()).into(),
    };
    put("key", read.record.key);
    put("value", read.record.value);
    let headers: Vec<Value> = read
        .record
        .headers()
        .map(|header| match header.value.map(std::str::from_utf8) {
            None => json!({ "key": String::from_utf8_lossy(header.key), "value": null }),
            Some(Ok(text)) => json!({ "key": String::from_utf8_lossy(header.key), "value": text }),
            Some(Err(_)) => {
                let value = hexadecimal(header.value.unwrap_or_default());
                json!({ "key": String::from_utf8_lossy(header.key), "value_hex": value })
            }
        })
        .collect();
    if !headers.is_empty() {
        object["headers"] = headers.into();
    }
    object
}

pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chronik_core::batch::{Builder, RecordOut, Records};
    use chronik_core::time::Timestamp;

    fn printed(format: &Format, key: Option<&[u8]>, value: Option<&[u8]>) -> String {
        let mut builder = Builder::new(Timestamp(7));
        builder.push(&RecordOut { timestamp: None, key, value, headers: &[(b"h", Some(b"1")), (b"i", None)] });
        let batch = builder.build();
        let record = Records::new(&batch.records).next().expect("one").expect("whole");
        let mut out = Vec::new();
        let read = Read { topic: "t", partition: 2, offset: 3, timestamp_ms: 7, record };
        format.print(&mut out, &read).expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_template_names_the_parts_of_a_record() {
        let format = Format::template("%t/%p@%o %T %k=%v (%h) 100%%\\n").expect("right");
        assert_eq!(printed(&format, Some(b"key"), Some(b"value")), "t/2@3 7 key=value (h=1,i=) 100%\n");
        assert_eq!(printed(&format, None, None), "t/2@3 7 = (h=1,i=) 100%\n");
    }

    #[test]
    fn a_wrong_template_is_refused() {
        for wrong in ["%q", "100%", "\\x"] {
            assert!(Format::template(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn json_tells_text_bytes_and_nothing_apart() {
        let shown: Value = serde_json::from_str(&printed(&Format::Json, None, Some(b"\xff\x00"))).expect("JSON");
        assert_eq!(shown["key"], Value::Null);
        assert_eq!(shown["value_hex"], "ff00");
        assert_eq!(shown["headers"][0], json!({ "key": "h", "value": "1" }));
    }
}
