//! How a section of the configuration is declared: once, with type, default, bounds and reason side by side.
//!
//! [`section!`] makes of such a declaration a plain struct, its `Default`, the reading of values with every problem
//! reported (not only the first), and the list of keys that suggestions, `config print` and the documentation use. A key
//! therefore cannot exist in one of these and be missing in another.

use super::address::{AdvertisedAddress, ListenAddress};
use super::problem::Report;
use super::units::{ByteSize, Millis, Minutes};
use figment::value::Value;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Something a key, or a table of keys, can be read into.
pub(super) trait Setting {
    /// Takes over what `value` gives; what is wrong goes to `report`, and the former value stays.
    fn merge(&mut self, at: &str, value: &Value, bounds: Option<RangeInclusive<i64>>, report: &mut Report<'_>);

    /// Shows every key below `at` with its value.
    fn visit(&self, at: &str, doc: &[&'static str], show: &mut dyn FnMut(Shown<'_>));
}

/// A key with its value, as `config print` shows it.
pub(super) struct Shown<'a> {
    pub key: &'a str,
    /// Lines of documentation.
    pub doc: &'a [&'static str],
    /// As a bare number in the key's unit, a string, or null where unset.
    pub json: serde_json::Value,
    /// As the file would say it; `None` where unset.
    pub toml: Option<String>,
}

/// A single value.
pub(super) trait Leaf: Sized {
    /// What is wanted, to end "… must be ".
    fn wanted() -> String;

    /// Reads text, or a value of the file in its text form; an error is a whole sentence, or none for "must be wanted".
    fn parse(text: &str) -> Result<Self, Option<String>>;

    fn json(&self) -> serde_json::Value;

    fn toml(&self) -> Option<String> {
        match self.json() {
            serde_json::Value::Null => None,
            json => Some(json.to_string()),
        }
    }

    /// What bounds compare.
    fn number(&self) -> Option<i64> {
        None
    }

    /// A bound, in the unit's own words.
    fn show_bound(bound: i64) -> String {
        bound.to_string()
    }

    /// How a value of the file becomes text for [`Leaf::parse`]; `None` for a type that is never right.
    fn text_of(value: &Value) -> Option<String> {
        text_of(value)
    }
}

/// The text of a string or number.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Char(_, c) => Some(c.to_string()),
        Value::Num(_, number) => match (number.to_i128(), number.to_u128(), number.to_f64()) {
            (Some(whole), _, _) => Some(whole.to_string()),
            (_, Some(whole), _) => Some(whole.to_string()),
            (_, _, Some(fraction)) => Some(fraction.to_string()),
            _ => None,
        },
        _ => None,
    }
}

impl<T: Leaf> Setting for T {
    fn merge(&mut self, at: &str, value: &Value, bounds: Option<RangeInclusive<i64>>, report: &mut Report<'_>) {
        let read = match T::text_of(value) {
            Some(text) => T::parse(&text).map_err(|why| (why, format!("{text:?}"))),
            None => Err((None, super::problem::kind(value).to_owned())),
        };
        match read {
            Ok(read) => match (read.number(), bounds) {
                (Some(number), Some(bounds)) if !bounds.contains(&number) => {
                    let (low, high) = (T::show_bound(*bounds.start()), T::show_bound(*bounds.end()));
                    let what = if number < *bounds.start() {
                        format!("must be at least {low}, not {}", T::show_bound(number))
                    } else {
                        format!("must be at most {high}, not {}", T::show_bound(number))
                    };
                    report.wrong(at, value, what);
                }
                _ => {
                    *self = read;
                    report.taken(at, value);
                }
            },
            Err((Some(sentence), _)) => report.wrong(at, value, sentence),
            Err((None, found)) => report.wrong(at, value, format!("must be {}, not {found}", T::wanted())),
        }
    }

    fn visit(&self, at: &str, doc: &[&'static str], show: &mut dyn FnMut(Shown<'_>)) {
        show(Shown { key: at, doc, json: self.json(), toml: self.toml() });
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Leaf for $type {
            fn wanted() -> String {
                "a whole number".into()
            }
            fn parse(text: &str) -> Result<Self, Option<String>> {
                // Out of the type's range is out of bounds too, but there is no value to compare with them.
                text.trim().replace('_', "").parse().map_err(|_| None)
            }
            fn json(&self) -> serde_json::Value {
                (*self).into()
            }
            fn number(&self) -> Option<i64> {
                Some(i64::try_from(*self).unwrap_or(i64::MAX))
            }
        }
    )*};
}
whole_number!(i32, u32, u64, usize);

impl Leaf for bool {
    fn wanted() -> String {
        "true or false".into()
    }
    fn parse(text: &str) -> Result<Self, Option<String>> {
        text.trim().parse().map_err(|_| None)
    }
    fn json(&self) -> serde_json::Value {
        (*self).into()
    }
    fn text_of(value: &Value) -> Option<String> {
        value.to_bool().map(|truth| truth.to_string()).or_else(|| value.as_str().map(str::to_owned))
    }
}

impl Leaf for String {
    fn wanted() -> String {
        "text".into()
    }
    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.trim().is_empty() { Err(Some("must not be empty".into())) } else { Ok(text.to_owned()) }
    }
    fn json(&self) -> serde_json::Value {
        self.as_str().into()
    }
}

impl Leaf for PathBuf {
    fn wanted() -> String {
        "a path".into()
    }
    fn parse(text: &str) -> Result<Self, Option<String>> {
        if text.is_empty() { Err(Some("must not be empty".into())) } else { Ok(text.into()) }
    }
    fn json(&self) -> serde_json::Value {
        self.to_string_lossy().into()
    }
}

macro_rules! quantity {
    ($type:ident, $wanted:literal) => {
        impl Leaf for $type {
            fn wanted() -> String {
                $wanted.into()
            }
            fn parse(text: &str) -> Result<Self, Option<String>> {
                $type::parse(text).map_err(|_| None)
            }
            fn json(&self) -> serde_json::Value {
                self.0.into()
            }
            fn toml(&self) -> Option<String> {
                let text = self.to_string();
                Some(if text.parse::<i64>().is_ok() { text } else { format!("{text:?}") })
            }
            fn number(&self) -> Option<i64> {
                Some(self.0)
            }
            fn show_bound(bound: i64) -> String {
                $type(bound).to_string()
            }
        }
    };
}
quantity!(ByteSize, "a size like \"64MiB\" or a number of bytes");
quantity!(Millis, "a span of time like \"10s\" or a number of milliseconds");
quantity!(Minutes, "a span of time like \"7d\" or a number of minutes");

macro_rules! address {
    ($type:ty, $wanted:literal) => {
        impl Leaf for $type {
            fn wanted() -> String {
                $wanted.into()
            }
            fn parse(text: &str) -> Result<Self, Option<String>> {
                text.parse().map_err(|why| Some(format!("must be {}, but in {text:?} {why}", $wanted)))
            }
            fn json(&self) -> serde_json::Value {
                self.to_string().into()
            }
        }
    };
}
address!(ListenAddress, "an address like \"127.0.0.1:9092\"");
address!(AdvertisedAddress, "an address like \"broker.example.org:9092\"");

impl<T: Leaf> Leaf for Option<T> {
    fn wanted() -> String {
        T::wanted()
    }
    fn parse(text: &str) -> Result<Self, Option<String>> {
        T::parse(text).map(Some)
    }
    fn json(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, T::json)
    }
    fn toml(&self) -> Option<String> {
        self.as_ref().and_then(T::toml)
    }
    fn number(&self) -> Option<i64> {
        self.as_ref().and_then(T::number)
    }
    fn show_bound(bound: i64) -> String {
        T::show_bound(bound)
    }
    fn text_of(value: &Value) -> Option<String> {
        T::text_of(value)
    }
}

impl<T: Setting + Default> Setting for Vec<T> {
    fn merge(&mut self, at: &str, value: &Value, _: Option<RangeInclusive<i64>>, report: &mut Report<'_>) {
        let Value::Array(_, items) = value else {
            let what = format!("must be a list of tables, like [[{at}]], not {}", super::problem::kind(value));
            report.wrong(at, value, what);
            return;
        };
        report.taken(at, value);
        *self = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let mut read = T::default();
            read.merge(&format!("{at}[{index}]"), item, None, report);
            self.push(read);
        }
    }

    fn visit(&self, at: &str, doc: &[&'static str], show: &mut dyn FnMut(Shown<'_>)) {
        for (index, item) in self.iter().enumerate() {
            item.visit(&format!("{at}[{index}]"), doc, show);
        }
    }
}

/// Declares a section: `/// why` `key: Type = default, lowest..=highest;` for each key. Bounds may be left out.
macro_rules! section {
    ($(#[doc = $section_doc:literal])* pub struct $name:ident {
        $($(#[doc = $doc:literal])* $key:ident: $type:ty = $default:expr $(, $bounds:expr)?;)*
    }) => {
        $(#[doc = $section_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[doc = $doc])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        impl $crate::config::setting::Setting for $name {
            fn merge(
                &mut self,
                at: &str,
                value: &figment::value::Value,
                _: Option<std::ops::RangeInclusive<i64>>,
                report: &mut $crate::config::problem::Report<'_>,
            ) {
                let figment::value::Value::Dict(_, table) = value else {
                    report.wrong(at, value, format!("is a table of keys, not {}", $crate::config::problem::kind(value)));
                    return;
                };
                for (key, value) in table {
                    let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                    match key.as_str() {
                        $(stringify!($key) => {
                            let bounds: Option<std::ops::RangeInclusive<i64>> = None $(.or(Some($bounds)))?;
                            self.$key.merge(&path, value, bounds, report);
                        })*
                        _ => report.unknown(&path, value, &[$(stringify!($key)),*]),
                    }
                }
            }

            fn visit(
                &self,
                at: &str,
                _: &[&'static str],
                show: &mut dyn FnMut($crate::config::setting::Shown<'_>),
            ) {
                $({
                    let key = stringify!($key);
                    let path = if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
                    self.$key.visit(&path, &[$($doc),*], show);
                })*
            }
        }
    };
}

/// Declares a key's choices with the words that name them; `later` lists words that a later version will know.
macro_rules! choice {
    ($(#[doc = $enum_doc:literal])* pub enum $name:ident {
        $($(#[doc = $doc:literal])* $choice:ident = $word:literal,)*
    } $(later { $($later:literal: $sentence:literal,)* })?) => {
        $(#[doc = $enum_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[doc = $doc])* $choice,)*
        }

        impl $name {
            /// The word that names it in configuration and on the wire.
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$choice => $word,)*
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        impl $crate::config::setting::Leaf for $name {
            fn wanted() -> String {
                [$($word),*].map(|word| format!("{word:?}")).join(" or ")
            }
            fn parse(text: &str) -> Result<Self, Option<String>> {
                match text {
                    $($word => Ok(Self::$choice),)*
                    $($($later => Err(Some($sentence.into())),)*)?
                    _ => Err(None),
                }
            }
            fn json(&self) -> serde_json::Value {
                self.word().into()
            }
        }
    };
}

pub(super) use {choice, section};
