//! The types that messages are made of.
//!
//! [`Wire`] is a type's encoding; [`Field`] adds null, which `Option<T>` can be where a field's [`Spec`] allows it.

use crate::decode::{DecodeError, Decoder, Malformed};
use crate::encode::{Encoder, InFile, Part};
use bytes::{BufMut, Bytes};
use smallvec::SmallVec;
use std::fmt;

/// How a field behaves over its message's versions. Built in `const` context by [`since`].
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    first: i16,
    last: i16,
    null_first: i16,
    tag: Option<u32>,
}

/// A field that exists from `version` on.
pub const fn since(version: i16) -> Spec {
    Spec { first: version, last: i16::MAX, null_first: i16::MAX, tag: None }
}

impl Spec {
    /// … up to and with `version`.
    pub const fn until(self, version: i16) -> Spec {
        Spec { last: version, ..self }
    }

    /// May be null from `version` on.
    pub const fn null(self, version: i16) -> Spec {
        Spec { null_first: version, ..self }
    }

    /// Is a tagged field (KIP-482).
    pub const fn tag(self, tag: u32) -> Spec {
        Spec { tag: Some(tag), ..self }
    }

    pub const fn tag_number(&self) -> Option<u32> {
        self.tag
    }

    pub const fn is_in(&self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    pub const fn may_be_null(&self, version: i16) -> bool {
        self.null_first <= version
    }
}

/// What a message is read or written as.
#[derive(Clone, Copy, Debug)]
pub struct Form {
    pub version: i16,
    /// Compact lengths and tagged fields (KIP-482).
    pub flexible: bool,
}

/// A type with an encoding.
pub trait Wire: Sized {
    fn put(&self, out: &mut Encoder, form: Form);
    fn get(input: &mut Decoder, form: Form) -> Result<Self, DecodeError>;

    /// With null as a possible value. The default is that of structures: a byte, −1 for null.
    fn put_nullable(value: Option<&Self>, out: &mut Encoder, form: Form) {
        out.out().put_i8(if value.is_some() { 1 } else { -1 });
        if let Some(value) = value {
            value.put(out, form);
        }
    }

    fn get_nullable(input: &mut Decoder, form: Form) -> Result<Option<Self>, DecodeError> {
        let [marker] = input.array()?;
        if (marker as i8) < 0 { Ok(None) } else { Self::get(input, form).map(Some) }
    }
}

/// A type that a message's field may have.
pub trait Field: Sized {
    fn put_field(&self, out: &mut Encoder, form: Form, spec: Spec);
    fn get_field(input: &mut Decoder, form: Form, spec: Spec) -> Result<Self, DecodeError>;
}

impl<T: Wire> Field for T {
    fn put_field(&self, out: &mut Encoder, form: Form, _: Spec) {
        self.put(out, form);
    }

    fn get_field(input: &mut Decoder, form: Form, _: Spec) -> Result<Self, DecodeError> {
        T::get(input, form)
    }
}

impl<T: Wire + Default> Field for Option<T> {
    /// In versions that have no null here, null is written as the type's default.
    fn put_field(&self, out: &mut Encoder, form: Form, spec: Spec) {
        if spec.may_be_null(form.version) {
            T::put_nullable(self.as_ref(), out, form);
        } else if let Some(value) = self {
            value.put(out, form);
        } else {
            T::default().put(out, form);
        }
    }

    fn get_field(input: &mut Decoder, form: Form, spec: Spec) -> Result<Self, DecodeError> {
        if spec.may_be_null(form.version) { T::get_nullable(input, form) } else { T::get(input, form).map(Some) }
    }
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Encoder, _: Form) {
                out.out().put_slice(&self.to_be_bytes());
            }
            fn get(input: &mut Decoder, _: Form) -> Result<Self, DecodeError> {
                input.array().map(<$type>::from_be_bytes)
            }
        }
    )*};
}

number!(i8, i16, u16, i32, u32, i64, f64);

impl Wire for bool {
    fn put(&self, out: &mut Encoder, _: Form) {
        out.out().put_u8(u8::from(*self));
    }

    fn get(input: &mut Decoder, _: Form) -> Result<Self, DecodeError> {
        input.array().map(|[byte]| byte != 0)
    }
}

/// 128 bits that name a topic or a directory. Its text is URL-safe base64 without padding, 22 characters, as in Kafka.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl Uuid {
    /// "None".
    pub const ZERO: Uuid = Uuid([0; 16]);
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const UUID_DIGITS: usize = 22;

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits and four of padding at the end make 22 digits of six bits.
        let bits = u128::from_be_bytes(self.0);
        for digit in 0..UUID_DIGITS {
            let shift = 122 - 6 * digit as i32;
            let six = if shift >= 0 { bits >> shift } else { bits << -shift };
            write!(f, "{}", char::from(BASE64[(six & 0x3f) as usize]))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is no [`Uuid`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id is 22 characters of URL-safe base64")]
pub struct NotAUuid;

impl std::str::FromStr for Uuid {
    type Err = NotAUuid;
    fn from_str(text: &str) -> Result<Self, NotAUuid> {
        let digits = text.as_bytes();
        if digits.len() != UUID_DIGITS {
            return Err(NotAUuid);
        }
        let mut bits = 0u128;
        for (at, digit) in digits.iter().enumerate() {
            let six = BASE64.iter().position(|known| known == digit).ok_or(NotAUuid)? as u128;
            let shift = 122 - 6 * at as i32;
            bits |= if shift >= 0 { six << shift } else { six >> -shift };
        }
        Ok(Uuid(bits.to_be_bytes()))
    }
}

impl Wire for Uuid {
    fn put(&self, out: &mut Encoder, _: Form) {
        out.out().put_slice(&self.0);
    }

    fn get(input: &mut Decoder, _: Form) -> Result<Self, DecodeError> {
        input.array().map(Uuid)
    }
}

/// The longest string that a message may hold. Kafka keeps to what two bytes of length can say also where the encoding
/// could say more.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// A string that shares the frame it came in, or owns its bytes.
///
/// One of more than [`STRING_BYTES_MAX`] is refused when read, and written without its end: whatever names something came
/// in over the wire and fits, so that this can only shorten words meant for people, such as an error's message.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str(Bytes);

impl Str {
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    pub fn as_str(&self) -> &str {
        // Only valid UTF-8 is ever put in. Looking again costs a few nanoseconds for a name, and is the price of having no
        // unsafe code here; an empty string is a harmless answer to the impossible.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// As much of it as a message may hold, in whole characters.
    fn cut(&self) -> Str {
        Str(self.0.slice(..self.as_str().floor_char_boundary(STRING_BYTES_MAX)))
    }
}

impl std::ops::Deref for Str {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl std::borrow::Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self
    }
}

impl AsRef<str> for Str {
    fn as_ref(&self) -> &str {
        self
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        *self.0 == *other.as_bytes()
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Wire for Str {
    fn put(&self, out: &mut Encoder, form: Form) {
        Self::put_nullable(Some(self), out, form);
    }

    fn get(input: &mut Decoder, form: Form) -> Result<Self, DecodeError> {
        Self::get_nullable(input, form)?.ok_or_else(|| input.error(Malformed::Null))
    }

    fn put_nullable(value: Option<&Self>, out: &mut Encoder, form: Form) {
        let cut = value.filter(|text| text.0.len() > STRING_BYTES_MAX).map(Str::cut);
        let value = cut.as_ref().or(value);
        out.length(value.map(|text| text.0.len()), form.flexible, true);
        if let Some(text) = value {
            out.splice(&text.0);
        }
    }

    fn get_nullable(input: &mut Decoder, form: Form) -> Result<Option<Self>, DecodeError> {
        let Some(length) = input.length(form.flexible, true)? else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(input.error(Malformed::LongString));
        }
        let text = input.take(length)?;
        match std::str::from_utf8(&text) {
            Ok(_) => Ok(Some(Str(text))),
            Err(_) => Err(input.error(Malformed::NotUtf8)),
        }
    }
}

impl Wire for Bytes {
    fn put(&self, out: &mut Encoder, form: Form) {
        Self::put_nullable(Some(self), out, form);
    }

    fn get(input: &mut Decoder, form: Form) -> Result<Self, DecodeError> {
        Self::get_nullable(input, form)?.ok_or_else(|| input.error(Malformed::Null))
    }

    fn put_nullable(value: Option<&Self>, out: &mut Encoder, form: Form) {
        out.length(value.map(Bytes::len), form.flexible, false);
        if let Some(bytes) = value {
            out.splice(bytes);
        }
    }

    fn get_nullable(input: &mut Decoder, form: Form) -> Result<Option<Self>, DecodeError> {
        match input.length(form.flexible, false)? {
            Some(length) => input.take(length).map(Some),
            None => Ok(None),
        }
    }
}

/// A records field: record batches as a rope. Decoding gives one slice of the frame; who answers a fetch may leave them in
/// files.
#[derive(Clone, Debug, Default)]
pub struct Records(pub SmallVec<[Part; 2]>);

impl Records {
    pub fn len(&self) -> usize {
        self.0.iter().map(Part::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Part::is_empty)
    }

    /// The whole as one slice, `None` if some of it lies in a file. **Copies**, unless it is one slice already, as decoding
    /// makes it.
    pub fn in_memory(&self) -> Option<Bytes> {
        let mut parts: SmallVec<[Bytes; 2]> = self.0.iter().cloned().map(Part::in_memory).collect::<Option<_>>()?;
        Some(match parts.len() {
            0 => Bytes::new(),
            1 => parts.remove(0),
            _ => parts.concat().into(),
        })
    }

    /// As [`Records::in_memory`], of what was decoded: there all of it is.
    pub fn to_bytes(&self) -> Bytes {
        self.in_memory()
            .expect("decoding puts nothing into files, and who answers a fetch does not look at what it sends")
    }
}

impl From<Bytes> for Records {
    fn from(bytes: Bytes) -> Self {
        Self(SmallVec::from_iter([bytes.into()]))
    }
}

impl FromIterator<Bytes> for Records {
    fn from_iter<I: IntoIterator<Item = Bytes>>(parts: I) -> Self {
        Self(parts.into_iter().map(Part::Bytes).collect())
    }
}

impl FromIterator<InFile> for Records {
    fn from_iter<I: IntoIterator<Item = InFile>>(parts: I) -> Self {
        Self(parts.into_iter().map(Part::InFile).collect())
    }
}

/// Equal when they read the same, however they are cut; what lies in files is equal to nothing, as it is not read.
impl PartialEq for Records {
    fn eq(&self, other: &Self) -> bool {
        self.in_memory().is_some_and(|bytes| Some(bytes) == other.in_memory())
    }
}

impl Wire for Records {
    fn put(&self, out: &mut Encoder, form: Form) {
        Self::put_nullable(Some(self), out, form);
    }

    fn get(input: &mut Decoder, form: Form) -> Result<Self, DecodeError> {
        Bytes::get(input, form).map(Records::from)
    }

    fn put_nullable(value: Option<&Self>, out: &mut Encoder, form: Form) {
        out.length(value.map(Records::len), form.flexible, false);
        for part in value.iter().flat_map(|records| &records.0) {
            match part {
                Part::Bytes(bytes) => out.splice(bytes),
                Part::InFile(part) => out.splice_in_file(part),
            }
        }
    }

    fn get_nullable(input: &mut Decoder, form: Form) -> Result<Option<Self>, DecodeError> {
        Ok(Bytes::get_nullable(input, form)?.map(Records::from))
    }
}

impl<T: Wire> Wire for Vec<T> {
    fn put(&self, out: &mut Encoder, form: Form) {
        Self::put_nullable(Some(self), out, form);
    }

    fn get(input: &mut Decoder, form: Form) -> Result<Self, DecodeError> {
        Self::get_nullable(input, form)?.ok_or_else(|| input.error(Malformed::Null))
    }

    fn put_nullable(value: Option<&Self>, out: &mut Encoder, form: Form) {
        out.length(value.map(Vec::len), form.flexible, false);
        for element in value.into_iter().flatten() {
            element.put(out, form);
        }
    }

    fn get_nullable(input: &mut Decoder, form: Form) -> Result<Option<Self>, DecodeError> {
        let Some(count) = input.length(form.flexible, false)? else { return Ok(None) };
        input.elements(count, |input| T::get(input, form)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(out: Encoder) -> Bytes {
        crate::in_memory(out.finish()).expect("nothing in files").concat().into()
    }

    #[test]
    fn a_string_of_more_than_32767_bytes_is_refused_when_read_and_cut_when_written() {
        for flexible in [false, true] {
            let form = Form { version: 0, flexible };
            let round = |text: &str| {
                let mut out = Encoder::new();
                Str::from(text).put(&mut out, form);
                Str::get(&mut Decoder::new(written(out)), form)
            };
            let longest = "x".repeat(STRING_BYTES_MAX);
            assert_eq!(round(&longest).as_deref(), Ok(longest.as_str()));
            assert_eq!(round(&format!("{longest}y")).as_deref(), Ok(longest.as_str()));
            // The last character would have to be cut in two.
            let snow = "\u{2603}".repeat(STRING_BYTES_MAX / 3 + 1);
            assert_eq!(round(&snow).map(|text| text.len()), Ok(STRING_BYTES_MAX / 3 * 3));
        }
        let mut long = Encoder::new();
        long.unsigned_varint(STRING_BYTES_MAX as u32 + 2);
        long.out().put_bytes(b'x', STRING_BYTES_MAX + 1);
        let mut input = Decoder::new(written(long));
        let error = Str::get(&mut input, Form { version: 0, flexible: true });
        assert_eq!(error.map_err(|error| error.what), Err(Malformed::LongString));
    }

    #[test]
    fn a_uuid_survives_its_text() {
        let id = Uuid(*b"\x01\x02\xff\x00\x80abcdefghijk");
        assert_eq!(id.to_string().len(), 22);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(Uuid::ZERO.to_string(), "A".repeat(22));
        assert_eq!(Uuid([0xff; 16]).to_string(), "_____________________w");
        assert_eq!("short".parse::<Uuid>(), Err(NotAUuid));
    }
}
