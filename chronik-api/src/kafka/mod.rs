//! The Kafka listener.
//!
//! - [`listener`] accepts, [`connection`] cuts frames and keeps the order of answers, [`send`] sends them, [`dispatch`] finds
//!   the handler.
//! - [`handler`]: what a handler is; [`handlers`]: one file per API.
//! - [`refusal`]: codes for what the core refuses. [`nodes`], [`authorized`]: parts of several answers.
//! - [`context`]: who asks. [`resolve`]: what they name. [`fetch_sessions`], [`recode`]: parts of Fetch and Produce.

pub mod authorized;
pub mod connection;
pub mod context;
pub mod coordination;
pub mod dispatch;
pub mod fetch_sessions;
pub mod handler;
pub mod handlers;
pub mod listener;
pub mod nodes;
pub mod recode;
pub mod refusal;
pub mod resolve;
pub mod send;
