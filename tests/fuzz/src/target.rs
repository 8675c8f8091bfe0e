//! What is fed, and what a feeding tells.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Inputs are no longer than this unless a target says otherwise: long enough for a message of thousands of elements, short
/// enough for hundreds of thousands of executions per second.
pub const INPUT_BYTES_MAX: usize = 8 * 1024;

/// What one execution did, as far as it did what it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What kind of thing happened: an input with a mark that no other had is kept, and mutated further.
    pub mark: u64,
    /// Where in the input reading stopped; mutations like that place.
    pub at: Option<usize>,
    /// Was it taken for what it pretends to be? For the report: a target that refuses everything tests nothing.
    pub is_taken: bool,
}

impl Seen {
    /// The input was read to its end; `mark` says as what, without growing with every detail.
    pub fn taken(mark: impl Hash) -> Self {
        Self { mark: hash((true, mark)), at: None, is_taken: true }
    }

    /// The input was refused with a named error, at that byte if it is known.
    pub fn refused(mark: impl Hash, at: Option<usize>) -> Self {
        Self { mark: hash((false, mark)), at, is_taken: false }
    }
}

fn hash(what: impl Hash) -> u64 {
    // Always the same keys, so that a seed tells the same run again.
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// About how large: for marks, that should not differ with every byte.
pub fn about(size: usize) -> u32 {
    size.checked_ilog2().map_or(0, |power| power + 1)
}

/// Something that reads bytes from outside.
///
/// **Invariant:** `feed` depends on the input alone, works on the calling thread, and panics if and only if something is
/// wrong with the code it feeds.
pub trait Target: Sync {
    fn name(&self) -> &'static str;

    /// Valid inputs, by our own encoders.
    fn seeds(&self) -> Vec<Vec<u8>>;

    fn feed(&self, input: &[u8]) -> Seen;

    /// Makes checksums and lengths right again after a mutation, where without that nearly everything would be refused at
    /// the first check. Done to half of the inputs.
    fn mend(&self, _input: &mut Vec<u8>) {}

    /// Words of the format, to be put in now and then.
    fn words(&self) -> &[&'static [u8]] {
        &[]
    }

    fn input_bytes_max(&self) -> usize {
        INPUT_BYTES_MAX
    }

    /// Memory that an execution may need whatever its input is, beyond [`crate::memory::BASE_BYTES`]; the target says why.
    fn more_memory_bytes(&self) -> usize {
        0
    }
}
