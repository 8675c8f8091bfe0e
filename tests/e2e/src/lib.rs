//! Real clients against the real binary.
//!
//! - [`broker`]: the broker as a process of its own, on a free port and in a directory of its own, which a test may kill
//!   and start again.
//! - [`client`]: client programs in other languages (`clients/`), each driven by the same commands.
//! - [`cluster`]: several brokers, which may be killed, paused and stopped one by one.
//! - [`corpus`]: text enough to be a real job.
//! - [`disk`]: a node's disk, from which the power can be cut.
//! - [`relay`]: the network between nodes, which may be cut, slowed and garbled.
//! - [`workload`]: clients that write meanwhile, and what must be true in the end.
//!
//! The tests in `tests/` are marked `ignore`: they need the built broker and the prepared clients, and `tests/run` gives
//! them both.

pub mod broker;
pub mod client;
pub mod cluster;
pub mod corpus;
pub mod disk;
pub mod relay;
pub mod workload;
