//! Record bytes as a rope: an ordered list of shared slices, so that what arrived in one frame goes to disk, to followers
//! and to consumers without being put together again.

use bytes::Bytes;
use smallvec::SmallVec;

/// Two slices are the common case: a stamped batch header and the body it was cut from.
type Parts = SmallVec<[Bytes; 2]>;

/// A cheaply cloned list of byte slices that reads as one. Never holds an empty slice.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    parts: Parts,
    len: usize,
}

impl Payload {
    pub fn new() -> Self {
        Self::default()
    }

    /// Length in bytes of the whole.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn push(&mut self, part: Bytes) {
        if !part.is_empty() {
            self.len += part.len();
            self.parts.push(part);
        }
    }

    pub fn append(&mut self, other: Payload) {
        self.len += other.len;
        self.parts.extend(other.parts);
    }

    /// The slices in order.
    pub fn parts(&self) -> &[Bytes] {
        &self.parts
    }

    /// **Copies**, unless the payload is a single slice. For cold paths: tools, tests, small records.
    pub fn to_bytes(&self) -> Bytes {
        match self.parts.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            parts => parts.concat().into(),
        }
    }
}

impl From<Bytes> for Payload {
    fn from(part: Bytes) -> Self {
        let mut payload = Payload::new();
        payload.push(part);
        payload
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        let mut payload = Payload::new();
        parts.into_iter().for_each(|part| payload.push(part));
        payload
    }
}

impl IntoIterator for Payload {
    type Item = Bytes;
    type IntoIter = <Parts as IntoIterator>::IntoIter;
    fn into_iter(self) -> Self::IntoIter {
        self.parts.into_iter()
    }
}

/// Equal when they read the same, however they are cut.
impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && {
            let mine = self.parts.iter().flat_map(|part| part.iter());
            let theirs = other.parts.iter().flat_map(|part| part.iter());
            mine.eq(theirs)
        }
    }
}

impl Eq for Payload {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_is_what_it_reads_as_however_it_is_cut() {
        let whole = Payload::from(Bytes::from_static(b"abcdef"));
        let cut: Payload = [&b"ab"[..], b"", b"cdef"].into_iter().map(Bytes::from_static).collect();
        assert_eq!(whole, cut);
        assert_eq!((cut.len(), cut.parts().len()), (6, 2));
        assert_eq!(cut.to_bytes(), &b"abcdef"[..]);
    }
}
