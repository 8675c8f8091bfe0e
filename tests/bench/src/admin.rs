//! What a broker's admin port answers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const ANSWER_BYTES_MAX: u64 = 16 << 20;
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The status and body of an answer; `address` is of loopback.
pub fn get(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(ANSWER_WITHIN)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split_whitespace().nth(1)?.parse().ok()?, body.to_owned()))
}
