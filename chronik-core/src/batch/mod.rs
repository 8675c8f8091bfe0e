//! Kafka's record batch, version 2: a small owned [`Header`] before a shared body.
//!
//! Offsets and the leader epoch lie outside the batch's checksum, so that a broker stamps them into a copied header of
//! 61 bytes and passes the body on untouched, compressed as it came. The layout is that of Kafka's protocol guide
//! ("Record Batch"; KIP-98):
//!
//! ```text
//!  0 base offset        8 batch length (from 12 on)   12 partition leader epoch   16 magic = 2   17 CRC-32C (of 21 on)
//! 21 attributes        23 last offset delta           27 base timestamp           35 max timestamp
//! 43 producer id       51 producer epoch              53 base sequence            57 records count   61 records …
//! ```

mod build;
mod records;
mod validate;

pub use build::{Builder, RecordOut};
pub use records::{Record, RecordHeader, Records, walk};
pub use validate::{Checked, CheckedBatch, Rejection, Rules, TimestampType, Validation, check, check_decompressed};

use crate::crc32c;
use crate::ids::{LeaderEpoch, Offset, ProducerId};
use crate::payload::Payload;
use crate::time::Timestamp;
use bytes::{BufMut, Bytes};

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes before what `batch length` counts.
pub const LENGTH_PREFIX_BYTES: usize = 12;
const CRC_FROM: usize = 21;
/// The only format version there has been since Kafka 0.11, and the only one we store.
pub const MAGIC: i8 = 2;

/// How a batch's records are compressed; the numbers are those of the attributes' lowest three bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    #[default]
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Compression {
    pub const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

    /// The name in configurations, `none` included.
    pub fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.name() == name)
    }
}

/// The attributes field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    const COMPRESSION: i16 = 0b0000_0111;
    const LOG_APPEND_TIME: i16 = 0b0000_1000;
    const TRANSACTIONAL: i16 = 0b0001_0000;
    const CONTROL: i16 = 0b0010_0000;

    /// `None` for a number that names no codec.
    pub fn compression(self) -> Option<Compression> {
        Compression::ALL.get(usize::from((self.0 & Self::COMPRESSION).unsigned_abs())).copied()
    }

    pub fn with_compression(self, codec: Compression) -> Self {
        Self((self.0 & !Self::COMPRESSION) | codec as i16)
    }

    /// The broker, not the producer, set the timestamps.
    pub fn is_log_append_time(self) -> bool {
        self.0 & Self::LOG_APPEND_TIME != 0
    }

    pub fn with_log_append_time(self, yes: bool) -> Self {
        Self(if yes { self.0 | Self::LOG_APPEND_TIME } else { self.0 & !Self::LOG_APPEND_TIME })
    }

    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Holds a transaction's marker, not records of users.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }
}

/// Everything before the records, owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub base_offset: Offset,
    /// Bytes after the length field itself: 49 and the records.
    pub batch_length: i32,
    pub leader_epoch: LeaderEpoch,
    pub magic: i8,
    pub crc: u32,
    pub attributes: Attributes,
    pub last_offset_delta: i32,
    pub base_timestamp: Timestamp,
    pub max_timestamp: Timestamp,
    pub producer_id: ProducerId,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub records_count: i32,
}

/// Why bytes are no batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotABatch {
    #[error("{have} bytes are fewer than the {need} that the batch claims")]
    Truncated { have: usize, need: usize },
    #[error("a batch length of {0} is less than a batch's own header")]
    LengthTooSmall(i32),
    #[error("message format version {0} is not supported, only version 2")]
    Magic(i8),
}

fn at<const N: usize>(bytes: &[u8; HEADER_BYTES], from: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[from..from + N]);
    field
}

impl Header {
    /// Reads the fields, checking that the whole batch is there and that it is of version 2.
    pub fn parse(bytes: &[u8]) -> Result<Header, NotABatch> {
        let Some(fields) = bytes.first_chunk::<HEADER_BYTES>() else {
            // The version's place is the same in all versions: an old batch that is shorter than our header is old, not
            // truncated.
            return Err(match bytes.get(16) {
                Some(&magic) if magic as i8 != MAGIC => NotABatch::Magic(magic as i8),
                _ => NotABatch::Truncated { have: bytes.len(), need: HEADER_BYTES },
            });
        };
        let header = Header::from_fields(fields);
        if header.magic != MAGIC {
            return Err(NotABatch::Magic(header.magic));
        }
        if header.batch_length < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
            return Err(NotABatch::LengthTooSmall(header.batch_length));
        }
        if bytes.len() < header.size_bytes() {
            return Err(NotABatch::Truncated { have: bytes.len(), need: header.size_bytes() });
        }
        Ok(header)
    }

    fn from_fields(fields: &[u8; HEADER_BYTES]) -> Header {
        Header {
            base_offset: Offset(i64::from_be_bytes(at(fields, 0))),
            batch_length: i32::from_be_bytes(at(fields, 8)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(at(fields, 12))),
            magic: fields[16] as i8,
            crc: u32::from_be_bytes(at(fields, 17)),
            attributes: Attributes(i16::from_be_bytes(at(fields, 21))),
            last_offset_delta: i32::from_be_bytes(at(fields, 23)),
            base_timestamp: Timestamp(i64::from_be_bytes(at(fields, 27))),
            max_timestamp: Timestamp(i64::from_be_bytes(at(fields, 35))),
            producer_id: ProducerId(i64::from_be_bytes(at(fields, 43))),
            producer_epoch: i16::from_be_bytes(at(fields, 51)),
            base_sequence: i32::from_be_bytes(at(fields, 53)),
            records_count: i32::from_be_bytes(at(fields, 57)),
        }
    }

    /// The 61 bytes.
    pub fn to_bytes(&self) -> [u8; HEADER_BYTES] {
        let mut fields = [0u8; HEADER_BYTES];
        let mut out = &mut fields[..];
        out.put_i64(self.base_offset.0);
        out.put_i32(self.batch_length);
        out.put_i32(self.leader_epoch.0);
        out.put_i8(self.magic);
        out.put_u32(self.crc);
        out.put_i16(self.attributes.0);
        out.put_i32(self.last_offset_delta);
        out.put_i64(self.base_timestamp.0);
        out.put_i64(self.max_timestamp.0);
        out.put_i64(self.producer_id.0);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.base_sequence);
        out.put_i32(self.records_count);
        fields
    }

    /// Size of the whole batch. Only meaningful once [`Header::parse`] has checked the length.
    pub fn size_bytes(&self) -> usize {
        LENGTH_PREFIX_BYTES + usize::try_from(self.batch_length).unwrap_or(0)
    }

    pub fn last_offset(&self) -> Offset {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    pub fn next_offset(&self) -> Offset {
        self.last_offset() + 1
    }

    /// Sequence of the last record; sequences wrap from the greatest `i32` to zero.
    pub fn last_sequence(&self) -> i32 {
        sequence_after(self.base_sequence, self.last_offset_delta)
    }

    pub fn is_idempotent(&self) -> bool {
        self.producer_id != ProducerId::NONE
    }

    /// The checksum over the fields that it covers and these records. Reads all of `records`.
    pub fn checksum(&self, records: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.to_bytes()[CRC_FROM..]), records)
    }
}

/// The sequence `steps` after this one; sequences count from zero to the greatest `i32` and begin again.
pub fn sequence_after(sequence: i32, steps: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(steps);
    (sum % (i64::from(i32::MAX) + 1)) as i32
}

/// A batch: its header, and its records as they lay in the frame they came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub header: Header,
    /// The records, compressed as the attributes say.
    pub records: Bytes,
}

impl Batch {
    /// Splits the first batch off `bytes`, without copying its records.
    pub fn split_from(bytes: &mut Bytes) -> Result<Batch, NotABatch> {
        let header = Header::parse(bytes)?;
        let mut whole = bytes.split_to(header.size_bytes());
        let records = whole.split_off(HEADER_BYTES);
        Ok(Batch { header, records })
    }

    /// The batch as a rope: **copies** the header (61 bytes), shares the records.
    pub fn to_payload(&self) -> Payload {
        let mut payload = Payload::from(Bytes::copy_from_slice(&self.header.to_bytes()));
        payload.push(self.records.clone());
        payload
    }

    /// The same batch with its records in another form; length, codec and checksum follow.
    pub fn with_records(mut self, codec: Compression, records: Bytes) -> Batch {
        self.header.batch_length = (HEADER_BYTES - LENGTH_PREFIX_BYTES + records.len()) as i32;
        self.header.attributes = self.header.attributes.with_compression(codec);
        self.header.crc = self.header.checksum(&records);
        Batch { records, ..self }
    }

    /// Whether the checksum is right.
    pub fn is_intact(&self) -> bool {
        self.header.checksum(&self.records) == self.header.crc
    }
}

/// Every batch of a payload, in order. Shares the records; **copies** only a batch whose records lie in several slices, which
/// none does that came in one frame or from one file.
pub fn batches(payload: &Payload) -> impl Iterator<Item = Result<Batch, NotABatch>> {
    let mut parts = payload.parts().iter().cloned();
    let mut rest = Bytes::new();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            rest = parts.next()?;
        }
        // A stamped header is a slice of its own, with the records in the next.
        while rest.len() < HEADER_BYTES {
            match parts.next() {
                Some(more) => rest = [rest.as_ref(), more.as_ref()].concat().into(),
                None => break,
            }
        }
        let next = split(&mut rest, &mut parts);
        if next.is_err() {
            rest.clear();
            parts.by_ref().for_each(drop);
        }
        Some(next)
    })
}

fn split(rest: &mut Bytes, more: &mut impl Iterator<Item = Bytes>) -> Result<Batch, NotABatch> {
    let header = match Header::parse(rest) {
        Err(NotABatch::Truncated { need, .. }) if rest.len() >= HEADER_BYTES => {
            let header = Header::from_fields(rest.first_chunk().expect("it was just looked at"));
            let mut records = rest.split_off(HEADER_BYTES);
            while records.len() < need - HEADER_BYTES {
                match more.next() {
                    Some(part) if records.is_empty() => records = part,
                    Some(part) => records = [records.as_ref(), part.as_ref()].concat().into(),
                    None => return Err(NotABatch::Truncated { have: HEADER_BYTES + records.len(), need }),
                }
            }
            *rest = records.split_off(need - HEADER_BYTES);
            return Ok(Batch { header, records });
        }
        header => header?,
    };
    let mut whole = rest.split_to(header.size_bytes());
    let records = whole.split_off(HEADER_BYTES);
    Ok(Batch { header, records })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_after_the_greatest() {
        assert_eq!(sequence_after(5, 3), 8);
        assert_eq!(sequence_after(i32::MAX, 1), 0);
        assert_eq!(sequence_after(i32::MAX - 1, 3), 1);
    }

    #[test]
    fn a_batch_is_cut_from_its_frame_and_reads_back() {
        let mut builder = Builder::new(Timestamp(1000));
        builder.push(&RecordOut { value: Some(b"v"), ..RecordOut::default() });
        let batch = builder.build();
        let mut frame = Bytes::from([batch.to_payload().to_bytes(), Bytes::from_static(b"rest")].concat());
        assert_eq!(Batch::split_from(&mut frame), Ok(batch.clone()));
        assert!(batch.is_intact());
        assert_eq!(frame, &b"rest"[..]);
    }

    #[test]
    fn batches_are_found_however_their_bytes_are_cut_and_records_are_shared_where_they_lie_together() {
        let batch = |value: &[u8]| {
            let mut builder = Builder::new(Timestamp(1000));
            builder.push(&RecordOut { value: Some(value), ..RecordOut::default() });
            builder.build()
        };
        let all = [batch(b"one"), batch(b"another"), batch(b"the last")];
        let stamped: Payload = all.iter().flat_map(|batch| batch.to_payload()).collect();
        let found: Vec<Batch> = batches(&stamped).map(|batch| batch.expect("whole")).collect();
        assert_eq!(found, all);
        assert_eq!(found[1].records.as_ptr(), all[1].records.as_ptr(), "shared");
        let whole = stamped.to_bytes();
        for cut in 1..whole.len() {
            for again in [1, 40, 61, 70] {
                let (head, tail) = (whole.slice(..cut), whole.slice(cut..));
                let middle = tail.slice(..again.min(tail.len()));
                let payload: Payload = [head, middle, tail.slice(again.min(tail.len())..)].into_iter().collect();
                assert_eq!(batches(&payload).collect::<Result<Vec<_>, _>>().as_deref(), Ok(&all[..]), "cut at {cut}");
            }
            let short: Vec<_> = batches(&Payload::from(whole.slice(..cut))).collect();
            let is_whole = [all[0].header.size_bytes(), all[0].header.size_bytes() + all[1].header.size_bytes()];
            assert_eq!(short.last().is_some_and(Result::is_err), !is_whole.contains(&cut), "{cut} bytes");
        }
    }

    #[test]
    fn what_is_no_batch_is_told_apart() {
        let mut builder = Builder::new(Timestamp(1000));
        builder.push(&RecordOut::default());
        let good = builder.build().to_payload().to_bytes();
        assert_eq!(Header::parse(&good[..40]), Err(NotABatch::Truncated { have: 40, need: 61 }));
        let need = good.len();
        assert_eq!(Header::parse(&good[..need - 1]), Err(NotABatch::Truncated { have: need - 1, need }));
        let mut old = good.to_vec();
        old[16] = 1;
        assert_eq!(Header::parse(&old), Err(NotABatch::Magic(1)));
        assert_eq!(Header::parse(&old[..30]), Err(NotABatch::Magic(1)));
        let mut negative = good.to_vec();
        negative[8..12].copy_from_slice(&(-1i32).to_be_bytes());
        assert_eq!(Header::parse(&negative), Err(NotABatch::LengthTooSmall(-1)));
    }
}
