//! Builds batches: what a broker writes of its own (committed offsets, group metadata), and what tools and tests send.

use super::{Attributes, Batch, HEADER_BYTES, Header, LENGTH_PREFIX_BYTES, MAGIC};
use crate::ids::{LeaderEpoch, Offset, ProducerId};
use crate::time::Timestamp;
use bytes::{BufMut, BytesMut};

/// A record to be added.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordOut<'a> {
    /// `None`: the batch's base timestamp.
    pub timestamp: Option<Timestamp>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a [u8], Option<&'a [u8]>)],
}

/// Collects records, uncompressed, into one batch.
#[derive(Debug)]
pub struct Builder {
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    attributes: Attributes,
    producer: (ProducerId, i16, i32),
    count: i32,
    records: BytesMut,
    /// One record, whose length must be known before it is written; kept to be used again.
    scratch: BytesMut,
}

fn put_varlong(out: &mut BytesMut, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.put_u8(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.put_u8(raw as u8);
}

fn put_nullable(out: &mut BytesMut, field: Option<&[u8]>) {
    match field {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}

impl Builder {
    pub fn new(base_timestamp: Timestamp) -> Self {
        Self {
            base_timestamp,
            max_timestamp: base_timestamp,
            attributes: Attributes::default(),
            producer: (ProducerId::NONE, -1, -1),
            count: 0,
            records: BytesMut::new(),
            scratch: BytesMut::new(),
        }
    }

    /// Marks the batch as an idempotent producer's.
    pub fn idempotent(mut self, id: ProducerId, epoch: i16, base_sequence: i32) -> Self {
        self.producer = (id, epoch, base_sequence);
        self
    }

    pub fn push(&mut self, record: &RecordOut<'_>) {
        let timestamp = record.timestamp.unwrap_or(self.base_timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.scratch.clear();
        self.scratch.put_i8(0);
        put_varlong(&mut self.scratch, timestamp.0.wrapping_sub(self.base_timestamp.0));
        put_varlong(&mut self.scratch, i64::from(self.count));
        put_nullable(&mut self.scratch, record.key);
        put_nullable(&mut self.scratch, record.value);
        put_varlong(&mut self.scratch, record.headers.len() as i64);
        for (key, value) in record.headers {
            put_nullable(&mut self.scratch, Some(key));
            put_nullable(&mut self.scratch, *value);
        }
        put_varlong(&mut self.records, self.scratch.len() as i64);
        self.records.put_slice(&self.scratch);
        self.count += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes the batch has so far.
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// The batch at base offset zero, checksum included.
    pub fn build(self) -> Batch {
        let (producer_id, producer_epoch, base_sequence) = self.producer;
        let mut header = Header {
            base_offset: Offset::ZERO,
            batch_length: (HEADER_BYTES - LENGTH_PREFIX_BYTES + self.records.len()) as i32,
            leader_epoch: LeaderEpoch(-1),
            magic: MAGIC,
            crc: 0,
            attributes: self.attributes,
            last_offset_delta: self.count - 1,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id,
            producer_epoch,
            base_sequence,
            records_count: self.count,
        };
        header.crc = header.checksum(&self.records);
        Batch { header, records: self.records.freeze() }
    }
}
