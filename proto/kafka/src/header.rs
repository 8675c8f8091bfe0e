//! What goes before requests and responses.
//!
//! A request's header is version 1, or 2 (with tagged fields) where its message is flexible; the client id is in the old
//! encoding in both. A response's header is version 0, or 1 where flexible, except that ApiVersions always answers with
//! version 0, since the client cannot know yet what the broker speaks (KIP-511).

use crate::decode::{DecodeError, Decoder};
use crate::encode::{Encoder, Parts, Rope, in_memory};
use crate::message::{Message, Request};
use crate::wire::{Form, Str, Wire};
use bytes::{BufMut, Bytes};

const API_VERSIONS_KEY: i16 = 18;

/// The header of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<Str>,
}

impl RequestHeader {
    /// Reads the part that is the same in all versions. Call [`RequestHeader::skip_tagged_fields`] next where the
    /// message is flexible.
    pub fn decode(input: &mut Decoder) -> Result<Self, DecodeError> {
        Ok(Self {
            api_key: input.i16()?,
            api_version: input.i16()?,
            correlation_id: input.i32()?,
            client_id: Str::get_nullable(input, Form { version: 1, flexible: false })?,
        })
    }

    /// Reads the tagged fields of a header of version 2; none is known.
    pub fn skip_tagged_fields(input: &mut Decoder) -> Result<(), DecodeError> {
        input.tagged_fields(|_, _| Ok(false))
    }
}

fn response_header_is_flexible<R: Request>(version: i16) -> bool {
    R::KEY != API_VERSIONS_KEY && version >= R::Response::FLEXIBLE_SINCE
}

/// A whole response frame, length included.
pub fn encode_response<R: Request>(correlation_id: i32, version: i16, response: &R::Response) -> Parts {
    let mut out = Encoder::framed();
    out.out().put_i32(correlation_id);
    if response_header_is_flexible::<R>(version) {
        out.unsigned_varint(0);
    }
    response.encode(&mut out, version);
    out.finish()
}

/// A whole request frame, length included.
pub fn encode_request<R: Request>(request: &R, version: i16, correlation_id: i32, client_id: Option<&str>) -> Rope {
    let mut out = Encoder::framed();
    out.out().put_i16(R::KEY);
    out.out().put_i16(version);
    out.out().put_i32(correlation_id);
    Str::put_nullable(client_id.map(Str::from).as_ref(), &mut out, Form { version: 1, flexible: false });
    if version >= R::FLEXIBLE_SINCE {
        out.unsigned_varint(0);
    }
    request.encode(&mut out, version);
    in_memory(out.finish()).expect("only who answers a fetch has records in files")
}

/// A request's body, after [`RequestHeader::decode`].
///
/// What follows the body is passed over, as Kafka does: librdkafka asks for all topics with three bytes too many.
pub fn decode_request<R: Request>(input: &mut Decoder, version: i16) -> Result<R, DecodeError> {
    if version >= R::FLEXIBLE_SINCE {
        RequestHeader::skip_tagged_fields(input)?;
    }
    R::get(input, R::form(version))
}

/// A response frame, without its length, as a client reads it: the correlation id and the response.
pub fn decode_response<R: Request>(frame: Bytes, version: i16) -> Result<(i32, R::Response), DecodeError> {
    let mut input = Decoder::new(frame);
    let correlation_id = input.i32()?;
    if response_header_is_flexible::<R>(version) {
        RequestHeader::skip_tagged_fields(&mut input)?;
    }
    Ok((correlation_id, R::Response::decode(&mut input, version)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::metadata::MetadataRequest;

    #[test]
    fn what_follows_a_request_is_passed_over() {
        // librdkafka 2.16 asking for all topics: topics, two flags, no tagged fields, and three bytes more.
        let mut input = Decoder::new(Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 0]));
        let request: MetadataRequest = decode_request(&mut input, 13).unwrap();
        assert_eq!(request.topics, None);
    }
}
