//! A cluster in one thread: the production machines over simulated disks, clocks and networks, and those who judge.
//!
//! A seed is a story ([`story`]): so many nodes, these faults ([`harm`]), these clients ([`clients`]). The world ([`world`])
//! tells it turn by turn ([`rt`]), and after every fact ([`facts`]) the rules are looked at ([`check`]). Nothing of it is
//! known to the production crates.

#![forbid(unsafe_code)]

pub mod check;
pub mod clients;
pub mod dice;
pub mod disk;
pub mod facts;
pub mod harm;
pub mod less;
pub mod net;
pub mod node;
pub mod rt;
pub mod story;
pub mod trace;
pub mod world;
