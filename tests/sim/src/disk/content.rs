//! The bytes of a file, in blocks: one that grows is not moved, and what is all zeros takes no room until somebody writes
//! something else there. Engines write zeros ahead, and a cluster's worth of files is made anew for every story.

const BLOCK: usize = 4 << 10;

type Block = Option<Box<[u8; BLOCK]>>;

/// **Invariant:** there are blocks for `length` bytes and no more, and what lies behind the length is zeros.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    blocks: Vec<Block>,
    length: usize,
}

/// The pieces of a range within blocks: which block, from where in it, how many bytes.
fn pieces(mut at: usize, bytes: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    let end = at + bytes;
    std::iter::from_fn(move || {
        let (block, from) = (at / BLOCK, at % BLOCK);
        let piece = (BLOCK - from).min(end - at);
        at += piece;
        (piece > 0).then_some((block, from, piece))
    })
}

impl Content {
    pub fn len(&self) -> usize {
        self.length
    }

    /// Fills all of it. It lies within the file.
    pub fn read(&self, buffer: &mut [u8], at: usize) {
        let mut done = 0;
        for (block, from, bytes) in pieces(at, buffer.len()) {
            let into = &mut buffer[done..done + bytes];
            match &self.blocks[block] {
                Some(block) => into.copy_from_slice(&block[from..from + bytes]),
                None => into.fill(0),
            }
            done += bytes;
        }
    }

    /// As far as it lies within the file.
    pub fn copy(&self, at: usize, bytes: usize) -> Vec<u8> {
        let at = at.min(self.length);
        let mut copy = vec![0; bytes.min(self.length - at)];
        self.read(&mut copy, at);
        copy
    }

    /// Writes, behind the end as well; between that and `at` there are zeros then. Nothing changes nothing.
    pub fn write(&mut self, bytes: &[u8], at: usize) {
        if bytes.is_empty() {
            return;
        }
        if self.length < at + bytes.len() {
            self.resize(at + bytes.len());
        }
        let mut done = 0;
        for (block, from, count) in pieces(at, bytes.len()) {
            let piece = &bytes[done..done + count];
            done += count;
            match &mut self.blocks[block] {
                Some(block) => block[from..from + count].copy_from_slice(piece),
                None if piece.iter().all(|byte| *byte == 0) => {}
                none => none.insert(Box::new([0; BLOCK]))[from..from + count].copy_from_slice(piece),
            }
        }
    }

    pub fn resize(&mut self, to: usize) {
        let is_shorter = to < self.length;
        self.blocks.resize_with(to.div_ceil(BLOCK), || None);
        self.length = to;
        if is_shorter && let Some(Some(last)) = self.blocks.last_mut() {
            let end = to - (to - 1) / BLOCK * BLOCK;
            last[end..].fill(0);
        }
    }

    pub fn flip(&mut self, at: usize, bit: u8) {
        if at < self.length {
            let block = self.blocks[at / BLOCK].get_or_insert_with(|| Box::new([0; BLOCK]));
            block[at % BLOCK] ^= 1 << (bit % 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dice::Dice;

    #[test]
    fn it_holds_what_a_plain_vector_holds() {
        let mut dice = Dice::new(4711);
        let (mut content, mut plain) = (Content::default(), Vec::new());
        for _ in 0..2_000 {
            let at = usize::try_from(dice.below(4 * BLOCK as u64)).unwrap_or(0);
            let count = usize::try_from(dice.below(2 * BLOCK as u64)).unwrap_or(0);
            let byte = if dice.once_in(2) { 0 } else { 7 };
            match dice.below(4) {
                0 => {
                    content.resize(at);
                    plain.resize(at, 0);
                }
                1 if at < plain.len() => {
                    content.flip(at, byte);
                    plain[at] ^= 1 << byte;
                }
                _ => {
                    content.write(&vec![byte; count], at);
                    plain.resize(if count > 0 { plain.len().max(at + count) } else { plain.len() }, 0);
                    plain.iter_mut().skip(at).take(count).for_each(|place| *place = byte);
                }
            }
            assert_eq!(content.len(), plain.len());
            assert!(content.copy(0, usize::MAX) == plain);
            let end = plain.len().min(at + count);
            assert!(content.copy(at, count) == plain[at.min(end)..end]);
        }
    }
}
