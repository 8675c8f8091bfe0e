//! The codecs of record batches, in both directions, with a cap on what inflating may produce.
//!
//! Used off the hot path only: where a topic asks for another codec than the producer's (`compression.type`), where it
//! asks for every record to be looked at, for looking up an exact timestamp, and by the command line. Batches otherwise
//! pass through compressed as they came.

use bytes::Bytes;
use chronik_core::batch::Compression;
use std::io::{Read, Write};

/// snappy-java's frame: magic, two version words, then blocks with their lengths. What Java's and most other clients
/// send; a few send one bare snappy block.
const XERIAL_MAGIC: &[u8] = b"\x82SNAPPY\0";
const XERIAL_HEADER_BYTES: usize = 16;
/// What snappy-java puts into one block.
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

/// Why records could not be inflated.
#[derive(Debug, thiserror::Error)]
pub enum InflateError {
    #[error("the records do not inflate as {codec}: {cause}", codec = codec.name())]
    Malformed { codec: Compression, cause: String },
    /// A bomb, or a batch larger than this broker is willing to look into.
    #[error("the records inflate to more than {max_bytes} bytes")]
    TooLarge { max_bytes: usize },
}

/// Inflates a batch's records, producing at most `max_bytes`.
pub fn inflate(codec: Compression, records: &Bytes, max_bytes: usize) -> Result<Bytes, InflateError> {
    let malformed = |cause: String| InflateError::Malformed { codec, cause };
    match codec {
        Compression::None => Ok(records.clone()),
        Compression::Gzip => read_capped(codec, flate2::read::MultiGzDecoder::new(&records[..]), max_bytes),
        Compression::Lz4 => read_capped(codec, lz4_flex::frame::FrameDecoder::new(&records[..]), max_bytes),
        Compression::Zstd => {
            let decoder =
                zstd::stream::read::Decoder::new(&records[..]).map_err(|cause| malformed(cause.to_string()))?;
            read_capped(codec, decoder, max_bytes)
        }
        Compression::Snappy => inflate_snappy(records, max_bytes).map_err(|error| match error {
            SnappyError::TooLarge => InflateError::TooLarge { max_bytes },
            SnappyError::Malformed(cause) => malformed(cause),
        }),
    }
}

fn read_capped(codec: Compression, reader: impl Read, max_bytes: usize) -> Result<Bytes, InflateError> {
    let mut inflated = Vec::new();
    // One byte more than allowed tells "exactly at the cap" from "beyond it".
    let read = reader.take(max_bytes as u64 + 1).read_to_end(&mut inflated);
    match read {
        Ok(_) if inflated.len() > max_bytes => Err(InflateError::TooLarge { max_bytes }),
        Ok(_) => Ok(inflated.into()),
        Err(cause) => Err(InflateError::Malformed { codec, cause: cause.to_string() }),
    }
}

enum SnappyError {
    TooLarge,
    Malformed(String),
}

/// Appends one snappy block, inflated. The length it claims is checked before anything is allocated for it.
fn inflate_block(block: &[u8], inflated: &mut Vec<u8>, max_bytes: usize) -> Result<(), SnappyError> {
    let claimed = snap::raw::decompress_len(block).map_err(|cause| SnappyError::Malformed(cause.to_string()))?;
    if claimed > max_bytes.saturating_sub(inflated.len()) {
        return Err(SnappyError::TooLarge);
    }
    let from = inflated.len();
    inflated.resize(from + claimed, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut inflated[from..])
        .map_err(|cause| SnappyError::Malformed(cause.to_string()))
        .map(drop)
}

fn inflate_snappy(records: &[u8], max_bytes: usize) -> Result<Bytes, SnappyError> {
    let mut inflated = Vec::new();
    if !records.starts_with(XERIAL_MAGIC) {
        inflate_block(records, &mut inflated, max_bytes)?;
        return Ok(inflated.into());
    }
    let cut_short = || SnappyError::Malformed("a block ends beyond the records".into());
    let mut rest = records.get(XERIAL_HEADER_BYTES..).ok_or_else(cut_short)?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| cut_short())?;
        let (block, after) = after.split_at_checked(length).ok_or_else(cut_short)?;
        inflate_block(block, &mut inflated, max_bytes)?;
        rest = after;
    }
    if rest.is_empty() { Ok(inflated.into()) } else { Err(cut_short()) }
}

/// Compresses a batch's records. `level` is the codec's own scale; `None` is its default.
pub fn deflate(codec: Compression, records: &Bytes, level: Option<i32>) -> std::io::Result<Bytes> {
    match codec {
        Compression::None => Ok(records.clone()),
        Compression::Gzip => {
            let level = level.and_then(|level| u32::try_from(level).ok()).filter(|level| (1..=9).contains(level));
            let level = level.map_or_else(flate2::Compression::default, flate2::Compression::new);
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(records)?;
            encoder.finish().map(Bytes::from)
        }
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder.write_all(records)?;
            encoder.finish().map(Bytes::from).map_err(std::io::Error::other)
        }
        Compression::Zstd => {
            zstd::bulk::compress(records, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL)).map(Bytes::from)
        }
        Compression::Snappy => {
            let mut framed = Vec::with_capacity(XERIAL_HEADER_BYTES + snap::raw::max_compress_len(records.len()));
            framed.extend_from_slice(XERIAL_MAGIC);
            framed.extend_from_slice(&1i32.to_be_bytes());
            framed.extend_from_slice(&1i32.to_be_bytes());
            for block in records.chunks(XERIAL_BLOCK_BYTES) {
                let block = snap::raw::Encoder::new().compress_vec(block).map_err(std::io::Error::other)?;
                framed.extend_from_slice(&(block.len() as i32).to_be_bytes());
                framed.extend_from_slice(&block);
            }
            Ok(framed.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let records = Bytes::from("the same words again and again; ".repeat(5000));
        for codec in Compression::ALL {
            let deflated = deflate(codec, &records, None).unwrap();
            assert_eq!(inflate(codec, &deflated, records.len()).unwrap(), records, "{}", codec.name());
        }
        let bare = Bytes::from(snap::raw::Encoder::new().compress_vec(&records).unwrap());
        assert_eq!(inflate(Compression::Snappy, &bare, records.len()).unwrap(), records);
    }

    #[test]
    fn a_bomb_is_stopped_at_the_cap_and_nonsense_is_an_error() {
        let zeros = Bytes::from(vec![0u8; 1 << 20]);
        for codec in &Compression::ALL[1..] {
            let bomb = deflate(*codec, &zeros, None).unwrap();
            assert!(
                matches!(inflate(*codec, &bomb, 1000), Err(InflateError::TooLarge { max_bytes: 1000 })),
                "{codec:?}"
            );
            let nonsense = Bytes::from_static(&[0xff; 64]);
            assert!(
                matches!(
                    inflate(*codec, &nonsense, 1 << 20),
                    Err(InflateError::Malformed { .. } | InflateError::TooLarge { .. })
                ),
                "{codec:?}"
            );
        }
        // A block that claims four gigabytes (CVE-2023-34455) must not be believed.
        let claim = Bytes::from_static(b"\xff\xff\xff\xff\x0f\x00");
        assert!(matches!(inflate(Compression::Snappy, &claim, 1 << 20), Err(InflateError::TooLarge { .. })));
    }
}
