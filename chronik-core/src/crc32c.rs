//! CRC-32C (Castagnoli's polynomial, as iSCSI has it: RFC 3720, appendix B.4), which Kafka's batches carry and everything does
//! that is kept on disk.
//!
//! Every byte that a broker takes in passes here at least twice, and every byte that it reads from a file once. On processors
//! whose CRC instruction is slow no function of a broker takes more of their time; so the library computes one part by that
//! instruction and another by carry-less multiplication at the same time.

use crc_fast::{CrcAlgorithm, Digest};

/// Of all these bytes.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// Of the bytes that `crc` is of, followed by these. Of none it is zero.
pub fn crc32c_append(crc: u32, bytes: &[u8]) -> u32 {
    // The state of the computation is the complement of its result.
    let mut digest = Digest::new_with_init_state(CrcAlgorithm::Crc32Iscsi, u64::from(!crc));
    digest.update(bytes);
    digest.finalize() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 3720, appendix B.4.
    #[test]
    fn it_is_the_one_that_the_standard_gives_examples_of() {
        let up: Vec<u8> = (0..32).collect();
        let down: Vec<u8> = (0..32).rev().collect();
        let examples: [(&[u8], u32); 4] =
            [(&[0; 32], 0x8a91_36aa), (&[0xff; 32], 0x62a8_ab43), (&up, 0x46dd_794e), (&down, 0x113f_db5c)];
        for (bytes, crc) in examples {
            assert_eq!(crc32c(bytes), crc, "{bytes:?}");
        }
    }

    /// Long enough for every way of computing it that a processor may have; a bit at a time is how it is defined.
    #[test]
    fn however_it_is_cut_the_result_is_the_same_as_bit_by_bit() {
        let bytes: Vec<u8> = (0..5_000u32).map(|nth| (nth.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let bit_by_bit = |bytes: &[u8]| {
            let by_bits = |state: u32, byte: &u8| {
                (0..8).fold(state ^ u32::from(*byte), |state, _| {
                    (state >> 1) ^ if state & 1 == 1 { 0x82f6_3b78 } else { 0 }
                })
            };
            !bytes.iter().fold(!0, by_bits)
        };
        let whole = bit_by_bit(&bytes);
        assert_eq!(crc32c(&bytes), whole);
        for cut in (0..300).chain([511, 512, 1023, 1024, 4096, 4999, 5000]) {
            let (front, back) = bytes.split_at(cut);
            assert_eq!(crc32c(front), bit_by_bit(front), "the first {cut} bytes");
            assert_eq!(crc32c_append(crc32c(front), back), whole, "cut at {cut}");
        }
        assert_eq!((crc32c(&[]), crc32c_append(0, &bytes)), (0, whole));
    }
}
