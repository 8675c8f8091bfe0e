//! How an input becomes another: bytes, numbers, lengths in both of Kafka's encodings, pieces moved, doubled, cut and taken
//! from other inputs; preferably where reading the input stopped the last time.

use crate::dice::Dice;

/// Numbers at which readers go wrong: around zero, and around the ends of every width.
const NUMBERS: [i64; 26] = [
    0,
    1,
    -1,
    2,
    -2,
    3,
    4,
    7,
    8,
    16,
    61,
    64,
    127,
    128,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    i32::MAX as i64,
    i32::MIN as i64,
    u32::MAX as i64,
    i64::MAX,
    i64::MIN,
    i64::MAX - 1,
];
/// Mutations of one input at once.
const STEPS_MAX: usize = 6;
/// Times that a piece is repeated; enough for a count to be believed, and for a budget to be met.
const REPEATS_MAX: usize = 1024;

/// What mutations draw from.
#[derive(Clone, Copy, Debug)]
pub struct Material<'a> {
    /// Another input of the same target.
    pub other: &'a [u8],
    pub words: &'a [&'static [u8]],
    /// Where reading stopped.
    pub at: Option<usize>,
    pub bytes_max: usize,
}

/// Changes `input` by one or more steps; it is at most `bytes_max` long afterwards.
pub fn mutate(input: &mut Vec<u8>, material: &Material<'_>, dice: &mut Dice) {
    for _ in 0..dice.small(STEPS_MAX) {
        step(input, material, dice);
        input.truncate(material.bytes_max);
    }
}

fn place(input: &[u8], material: &Material<'_>, dice: &mut Dice) -> usize {
    match material.at {
        // The length or the type that led there stands before it.
        Some(at) if dice.one_in(2) => (at + 1).saturating_sub(dice.below(12)).min(input.len()),
        _ => dice.below(input.len() + 1),
    }
}

fn step(input: &mut Vec<u8>, material: &Material<'_>, dice: &mut Dice) {
    let at = place(input, material, dice);
    match dice.below(13) {
        0 => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << dice.below(8);
            }
        }
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = dice.byte();
            }
        }
        2 => {
            let value = number(dice).to_be_bytes();
            let width = 1 << dice.below(4);
            overwrite(input, at, &value[8 - width..]);
        }
        3 => nudge(input, at, dice),
        4 => {
            let value = varint(dice);
            if dice.one_in(2) {
                overwrite(input, at, &value);
            } else {
                insert(input, at, &value);
            }
        }
        5 => {
            let bytes: Vec<u8> = (0..dice.small(64)).map(|_| dice.byte()).collect();
            insert(input, at, &bytes);
        }
        6 => {
            let fill = if dice.one_in(3) { dice.byte() } else { dice.below(4) as u8 };
            insert(input, at, &vec![fill; dice.small(64)]);
        }
        7 => {
            let end = (at + dice.small(64)).min(input.len());
            input.drain(at..end);
        }
        8 => {
            let piece = input[at..(at + dice.small(256)).min(input.len())].to_vec();
            let to = dice.below(input.len() + 1);
            insert(input, to, &piece);
        }
        9 => {
            let piece = &input[at..(at + dice.small(64)).min(input.len())];
            let fits = material.bytes_max.saturating_sub(input.len()) / piece.len().max(1);
            let repeated = piece.repeat(dice.small(REPEATS_MAX).min(fits));
            insert(input, at, &repeated);
        }
        10 => {
            let from = dice.below(material.other.len() + 1);
            let end = (from + dice.small(1024)).min(material.other.len());
            let piece = &material.other[from..end];
            if dice.one_in(2) {
                overwrite(input, at, piece);
            } else {
                insert(input, at, piece);
            }
        }
        11 => {
            if dice.one_in(2) {
                input.truncate(at);
            } else {
                input.truncate(at);
                input.extend_from_slice(&material.other[at.min(material.other.len())..]);
            }
        }
        _ => match dice.pick(material.words) {
            Some(word) if dice.one_in(2) => overwrite(input, at, word),
            Some(word) => insert(input, at, word),
            None => insert(input, at, &(number(dice) as i32).to_be_bytes()),
        },
    }
}

fn number(dice: &mut Dice) -> i64 {
    let near = NUMBERS[dice.below(NUMBERS.len())];
    near.wrapping_add(dice.below(3) as i64 - 1)
}

/// A number as a varint, plain or zigzag, of up to ten bytes; now and then one that never ends.
fn varint(dice: &mut Dice) -> Vec<u8> {
    let signed = number(dice);
    let mut value = if dice.one_in(2) { signed as u64 } else { ((signed << 1) ^ (signed >> 63)) as u64 };
    let mut out = Vec::with_capacity(10);
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(if dice.one_in(16) { 0xff } else { value as u8 });
    out
}

/// A number of one to eight bytes grows or shrinks a little.
fn nudge(input: &mut [u8], at: usize, dice: &mut Dice) {
    let width = 1 << dice.below(4);
    let Some(field) = input.get_mut(at..at + width) else { return };
    let by = dice.below(33) as u64;
    let value = field.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    let value = if dice.one_in(2) { value.wrapping_add(by) } else { value.wrapping_sub(by) };
    field.copy_from_slice(&value.to_be_bytes()[8 - width..]);
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    input.splice(at..at, bytes.iter().copied());
}

fn overwrite(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    let end = (at + bytes.len()).min(input.len());
    input.splice(at..end, bytes.iter().copied());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_keep_to_the_longest_input_and_hardly_ever_change_nothing() {
        for seed in 0..4 {
            let mut dice = Dice::new(seed);
            let other: Vec<u8> = (0..100).collect();
            let mut unchanged = 0;
            for round in 0..20_000 {
                let before: Vec<u8> = (0..round as u8 % 90).collect();
                let material = Material { other: &other, words: &[b"word"], at: Some(round % 200), bytes_max: 120 };
                let mut after = before.clone();
                mutate(&mut after, &material, &mut dice);
                assert!(after.len() <= 120, "seed {seed}");
                unchanged += usize::from(after == before);
            }
            assert!(unchanged < 4_000, "seed {seed}: {unchanged} of 20000 were as before");
        }
    }
}
