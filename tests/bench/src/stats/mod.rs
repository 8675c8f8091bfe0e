//! What makes figures comparable: who has a turn when, and what several rounds say.
//!
//! Pure: no clock, no file, and chance only from a seed.

mod dice;
pub mod interval;
pub mod latencies;
pub mod order;

pub use dice::Dice;
pub use interval::{Interval, PAIRS_MIN, Ratio, median, median_interval, paired, unpaired};
pub use latencies::Latencies;
pub use order::Order;
