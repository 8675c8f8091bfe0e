//! Sizes and spans of time as people write them: `"64MiB"`, `"10s"`, or a bare number in the unit that the key names.
//!
//! A value keeps the unit of its key, so that a number in the file, in a log and on the wire is the same number.

use std::fmt;
use std::time::Duration;

/// A number of bytes. −1 means "no limit" for the keys whose bounds allow it, as in Kafka's own configs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub i64);

impl ByteSize {
    pub const KIB: i64 = 1 << 10;
    pub const MIB: i64 = 1 << 20;
    pub const GIB: i64 = 1 << 30;

    pub const fn kib(count: i64) -> Self {
        Self(count * Self::KIB)
    }

    pub const fn mib(count: i64) -> Self {
        Self(count * Self::MIB)
    }

    pub const fn gib(count: i64) -> Self {
        Self(count * Self::GIB)
    }

    /// As a length of memory; "no limit" becomes the largest one.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// "No limit" becomes the largest number.
    pub fn as_u64(self) -> u64 {
        u64::try_from(self.0).unwrap_or(u64::MAX)
    }

    /// Reads `64MiB`, `64 MB`, `64m` (binary, as in every Java and container tool), `1024`.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        let (number, unit) = split(text);
        let scale = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => Self::KIB,
            "m" | "mib" => Self::MIB,
            "g" | "gib" => Self::GIB,
            "t" | "tib" => Self::GIB << 10,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(NotAQuantity),
        };
        scaled(number, scale).map(Self)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(Self::GIB << 10, "TiB"), (Self::GIB, "GiB"), (Self::MIB, "MiB"), (Self::KIB, "KiB")];
        match units.iter().find(|(scale, _)| self.0 >= *scale && self.0 % scale == 0) {
            Some((scale, unit)) => write!(f, "{}{unit}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A number of milliseconds. −1 means "no limit" for the keys whose bounds allow it, as in Kafka's own configs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub i64);

impl Millis {
    pub const fn seconds(count: i64) -> Self {
        Self(count * 1_000)
    }

    pub const fn minutes(count: i64) -> Self {
        Self::seconds(count * 60)
    }

    pub const fn hours(count: i64) -> Self {
        Self::minutes(count * 60)
    }

    /// "No limit" becomes the longest span.
    pub fn duration(self) -> Duration {
        u64::try_from(self.0).map_or(Duration::MAX, Duration::from_millis)
    }

    /// As Kafka's 32-bit fields carry it.
    pub fn as_i32(self) -> i32 {
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }

    /// Reads `500ms`, `10s`, `5m`, `2h`, `7d`, and a bare number of milliseconds.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        let (number, unit) = split(text);
        let scale = match unit.to_ascii_lowercase().as_str() {
            "" | "ms" => 1,
            "s" | "sec" => 1_000,
            "m" | "min" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(NotAQuantity),
        };
        scaled(number, scale).map(Self)
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        match units.iter().find(|(scale, _)| self.0 >= *scale && self.0 % scale == 0) {
            // The largest number stands for "never", and is no span that anybody reads.
            Some((scale, unit)) if self.0 < i64::MAX => write!(f, "{}{unit}", self.0 / scale),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// A number of minutes: what Kafka counts the retention of offsets in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minutes(pub i64);

impl Minutes {
    pub fn duration(self) -> Duration {
        self.millis().duration()
    }

    pub const fn millis(self) -> Millis {
        Millis(self.0.saturating_mul(60_000))
    }

    /// Reads a bare number of minutes, or a span like `7d`; one that is no whole number of minutes is refused.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        if let Ok(minutes) = text.trim().parse() {
            return Ok(Self(minutes));
        }
        let span = Millis::parse(text)?.0;
        if span % 60_000 == 0 { Ok(Self(span / 60_000)) } else { Err(NotAQuantity) }
    }
}

impl fmt::Display for Minutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 > 0 { self.millis().fmt(f) } else { self.0.fmt(f) }
    }
}

/// Text that is no size, or no span of time; who reads it knows which and says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAQuantity;

/// Splits `64MiB` into its number and unit; underscores may group digits.
fn split(text: &str) -> (String, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.replace('_', ""), unit.trim())
}

/// `number × scale` where that is a whole number; a fraction only up to what an `f64` holds exactly (8 PiB).
fn scaled(number: String, scale: i64) -> Result<i64, NotAQuantity> {
    const EXACT: f64 = (1u64 << 53) as f64;
    if !number.contains('.') {
        return number.parse::<i64>().ok().and_then(|number| number.checked_mul(scale)).ok_or(NotAQuantity);
    }
    let product = number.parse::<f64>().map_err(|_| NotAQuantity)? * scale as f64;
    if product.fract() == 0.0 && product.abs() <= EXACT { Ok(product as i64) } else { Err(NotAQuantity) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them_and_shown_the_same() {
        assert_eq!(ByteSize::parse("64MiB"), Ok(ByteSize::mib(64)));
        assert_eq!(ByteSize::parse("1.5 GiB"), Ok(ByteSize::mib(1536)));
        assert_eq!(ByteSize::parse("10MB"), Ok(ByteSize(10_000_000)));
        assert_eq!(ByteSize::parse("1_048_576"), Ok(ByteSize::mib(1)));
        assert_eq!(ByteSize::parse("-1"), Ok(ByteSize(-1)));
        for wrong in ["", "MiB", "64 apples", "1.2.3k", "0.3", "99999999999999999999"] {
            assert_eq!(ByteSize::parse(wrong), Err(NotAQuantity), "{wrong:?}");
        }
        assert_eq!(ByteSize::mib(64).to_string(), "64MiB");
        assert_eq!(ByteSize(1_048_588).to_string(), "1048588");
    }

    #[test]
    fn spans_of_time_are_read_as_people_write_them_and_shown_the_same() {
        assert_eq!(Millis::parse("10s"), Ok(Millis(10_000)));
        assert_eq!(Millis::parse("0.5s"), Ok(Millis(500)));
        assert_eq!(Millis::parse("7d"), Ok(Millis::hours(168)));
        assert_eq!(Millis::parse("250"), Ok(Millis(250)));
        assert_eq!(Millis::parse("3 fortnights"), Err(NotAQuantity));
        assert_eq!(Millis::hours(168).to_string(), "7d");
        assert_eq!(Millis(-1).to_string(), "-1");
        assert_eq!(Minutes::parse("7d"), Ok(Minutes(10_080)));
        assert_eq!(Minutes::parse("90s"), Err(NotAQuantity));
    }
}
