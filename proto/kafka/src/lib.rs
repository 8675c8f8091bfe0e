//! The Kafka wire protocol, sans-IO: bytes in, messages out, and back.
//!
//! - [`decode`], [`encode`]: reading from a frame and writing to a rope. **Invariant:** no length or count is believed
//!   before it is checked against the bytes that remain, and what decoding builds in memory is bounded by a small
//!   multiple of the frame (a frame is all it takes to kill a broker that allocates first).
//! - [`wire`]: the types a message is made of, and how a field behaves over versions.
//! - [`mod@message`]: the macro that declares a message, and the [`Request`] trait that ties the two halves of an API together.
//! - [`header`]: what goes before a request and a response.
//! - [`error`]: Kafka's error codes.
//! - [`mod@api`]: one file per API; besides them what consumers embed in group requests ([`api::consumer_protocol`]) and what
//!   the records of `__consumer_offsets` hold ([`api::offsets_topic`]).
//!
//! A broker reads a [`RequestHeader`] from a frame, finds the API by its key, and goes on with [`decode_request`]; what it
//! answers becomes a frame by [`encode_response`]. A client does the reverse. What is wrong with a frame is a
//! [`DecodeError`]: which rule is broken, and at which byte.
//!
//! **Copies.** Decoding copies nothing: strings, byte fields and records are slices of the frame, and keep it alive.
//! Encoding copies small fields into chunks and splices larger byte fields in by reference
//! ([`encode::SPLICE_BYTES_MIN`]); tagged fields are written apart first, since their size stands in front of them.
//! [`Message::to_bytes`] and [`Records::to_bytes`] say that they copy.
//!
//! Messages follow Kafka's own schemas (the JSON files in its sources), in the versions that a Kafka 4.3 broker serves.

#![forbid(unsafe_code)]

#[macro_use]
pub mod message;
pub mod api;
pub mod decode;
pub mod encode;
pub mod error;
pub mod header;
pub mod wire;

#[cfg(test)]
mod oracle;

pub use decode::{DecodeError, Decoder};
pub use encode::{Encoder, InFile, Part, Parts, in_memory};
pub use error::ErrorCode;
pub use header::{RequestHeader, decode_request, decode_response, encode_request, encode_response};
pub use message::{Message, Request};
pub use wire::{Records, Str, Uuid};
