//! What chronik's nodes say to each other, as Protocol Buffers.
//!
//! - [`greeting`]: the handshake of a lane.
//! - [`raft`]: Raft's messages, compatible on the wire with the `raft` crate's own.
//!
//! Declared by derive: what nodes exchange is exchanged between releases of chronik only, and the declaration beside its
//! use is the one that is read. Tags are never used again for something else.

#![forbid(unsafe_code)]

pub mod greeting;
pub mod raft;
