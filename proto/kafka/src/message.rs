//! The macro that declares messages, and what a request is.
//!
//! ```text
//! message! {
//!     pub struct MetadataRequest flexible 9;
//!     topics: Option<Vec<MetadataRequestTopic>> [since(0).null(1)];
//!     allow_auto_topic_creation: bool [since(4)] = true;
//! }
//! ```
//!
//! declares the structure, its default, and its encoding in every version. `flexible N` is the first version with compact
//! lengths and tagged fields (`never` if there is none). A field is written and read in the order of declaration, tagged ones
//! after all others in the order of declaration too, which must be that of their numbers. What stands in brackets is a
//! [`Spec`](crate::wire::Spec):
//!
//! | | |
//! |---|---|
//! | `since(4)` | in versions from 4 on |
//! | `since(0).until(7)` | in versions 0 to 7 |
//! | `since(0).null(2)` | an `Option`, that may be null from version 2 on |
//! | `since(12).tag(1)` | a tagged field, number 1 (KIP-482); left out when it has its default |
//!
//! A field's default is that of its type (0, empty, `None`) unless another stands behind `=`. In a version that lacks a field
//! it has its default when read, and is left out in silence when written, whether or not Kafka's schema calls it
//! "ignorable": who must not lose it looks at the version first. A version that has no null writes `None` as the type's
//! default.
//!
//! `api!(Request => Response, key 3, versions 0..=13)` makes a [`Request`] of the two.

use crate::decode::{DecodeError, Decoder};
use crate::encode::{Encoder, in_memory};
use crate::wire::{Form, Wire};
use bytes::Bytes;
use std::ops::RangeInclusive;

/// A first flexible version that never comes.
pub const NEVER: i16 = i16::MAX;

/// A whole request or response, as opposed to a structure inside one.
pub trait Message: Wire + Default {
    /// First version with compact lengths and tagged fields.
    const FLEXIBLE_SINCE: i16;

    fn form(version: i16) -> Form {
        Form { version, flexible: version >= Self::FLEXIBLE_SINCE }
    }

    /// Writes the message alone, without any header.
    fn encode(&self, out: &mut Encoder, version: i16) {
        self.put(out, Self::form(version));
    }

    /// Reads the message alone; it must end where `input` does.
    fn decode(input: &mut Decoder, version: i16) -> Result<Self, DecodeError> {
        let message = Self::get(input, Self::form(version))?;
        input.finish()?;
        Ok(message)
    }

    /// The message as one slice. **Copies.** For what goes inside other messages: subscriptions, assignments, records. None of
    /// them has anything in files.
    fn to_bytes(&self, version: i16) -> Bytes {
        let mut out = Encoder::new();
        self.encode(&mut out, version);
        in_memory(out.finish()).expect("only who answers a fetch has records in files").concat().into()
    }
}

/// A request, and with it its API.
pub trait Request: Message {
    const KEY: i16;
    const NAME: &'static str;
    /// What this codec speaks.
    const VERSIONS: RangeInclusive<i16>;
    type Response: Message;
}

/// See the module's head.
#[macro_export]
macro_rules! message {
    (@default) => { Default::default() };
    (@default $default:expr) => { $default };
    (@flexible never) => { $crate::message::NEVER };
    (@flexible $since:literal) => { $since };
    (
        $(#[$attribute:meta])*
        pub struct $name:ident flexible $flexible:tt;
        $($(#[$field_attribute:meta])* $field:ident : $type:ty [$spec:expr] $(= $default:expr)?;)*
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $($(#[$field_attribute])* pub $field: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $crate::message!(@default $($default)?),)* }
            }
        }

        impl $crate::wire::Wire for $name {
            #[allow(unused_imports, unused_variables)]
            fn put(&self, out: &mut $crate::Encoder, form: $crate::wire::Form) {
                use $crate::wire::{Field, Spec, since};
                $({
                    const SPEC: Spec = $spec;
                    if SPEC.tag_number().is_none() && SPEC.is_in(form.version) {
                        self.$field.put_field(out, form, SPEC);
                    }
                })*
                const TAGGED: bool = false $(|| {
                    const SPEC: Spec = $spec;
                    SPEC.tag_number().is_some()
                })*;
                if form.flexible && !TAGGED {
                    out.unsigned_varint(0);
                } else if form.flexible {
                    // Those at their defaults are left out, which is most of them most of the time.
                    let mut count = 0u32;
                    $({
                        const SPEC: Spec = $spec;
                        if SPEC.tag_number().is_some() && SPEC.is_in(form.version) {
                            let default: $type = $crate::message!(@default $($default)?);
                            count += u32::from(self.$field != default);
                        }
                    })*
                    out.unsigned_varint(count);
                    if count == 0 {
                        return;
                    }
                    $({
                        const SPEC: Spec = $spec;
                        if let Some(tag) = SPEC.tag_number()
                            && SPEC.is_in(form.version)
                        {
                            let default: $type = $crate::message!(@default $($default)?);
                            if self.$field != default {
                                let mut inside = $crate::Encoder::new();
                                self.$field.put_field(&mut inside, form, SPEC);
                                out.unsigned_varint(tag);
                                out.unsigned_varint(inside.len() as u32);
                                out.append(inside);
                            }
                        }
                    })*
                }
            }

            #[allow(unused_imports, unused_mut, unused_variables)]
            fn get(
                input: &mut $crate::Decoder,
                form: $crate::wire::Form,
            ) -> Result<Self, $crate::DecodeError> {
                use $crate::wire::{Field, Spec, since};
                let mut message = Self::default();
                $({
                    const SPEC: Spec = $spec;
                    if SPEC.tag_number().is_none() && SPEC.is_in(form.version) {
                        message.$field = Field::get_field(input, form, SPEC)?;
                    }
                })*
                if form.flexible {
                    input.tagged_fields(|tag, inside| {
                        $({
                            const SPEC: Spec = $spec;
                            if SPEC.tag_number() == Some(tag) {
                                if !SPEC.is_in(form.version) {
                                    return Err(inside.error($crate::decode::Malformed::TagVersion));
                                }
                                message.$field = Field::get_field(inside, form, SPEC)?;
                                return Ok(true);
                            }
                        })*
                        Ok(false)
                    })?;
                }
                Ok(message)
            }
        }

        #[cfg(test)]
        impl $crate::oracle::Sample for $name {
            #[allow(unused_imports, unused_mut, unused_variables)]
            fn sample(draw: &mut $crate::oracle::Draw, form: $crate::wire::Form) -> Self {
                use $crate::oracle::SampleField;
                use $crate::wire::{Spec, since};
                let mut message = Self::default();
                $({
                    const SPEC: Spec = $spec;
                    if SPEC.is_in(form.version) && (SPEC.tag_number().is_none() || form.flexible) {
                        message.$field = SampleField::sample_field(draw, form, SPEC);
                    }
                })*
                message
            }
        }

        impl $crate::Message for $name {
            const FLEXIBLE_SINCE: i16 = $crate::message!(@flexible $flexible);
        }
    };
}

/// Ties a request to its key, its versions and its response.
#[macro_export]
macro_rules! api {
    ($request:ident => $response:ident, key $key:literal, versions $versions:expr) => {
        impl $crate::Request for $request {
            const KEY: i16 = $key;
            const NAME: &'static str = {
                // "ProduceRequest" without its last seven letters.
                const FULL: &str = stringify!($request);
                match FULL.split_at_checked(FULL.len() - 7) {
                    Some((name, _)) => name,
                    None => FULL,
                }
            };
            const VERSIONS: std::ops::RangeInclusive<i16> = $versions;
            type Response = $response;
        }
    };
}
