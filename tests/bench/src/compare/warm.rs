//! Before the rounds every broker works until it makes no difference any more: a virtual machine compiles what is hot only after
//! a while, and whoever comes first is not to pay for that. The same for all, whether they need it or not.

use super::cases::{Readable, Turns, Work};
use super::peer::Peer;
use crate::comparison::Fact;
use crate::{Acks, BenchError};

/// So many in a row that are alike …
const ALIKE: usize = 3;
/// … within this part of the highest.
const WITHIN: f64 = 0.05;
/// A broker that is not steady after so many turns will not be.
const TURNS_MAX: usize = 20;

/// Warms all of them; says how many turns each took.
pub fn all(peers: &[Peer], turns: &Turns, quick: bool) -> Result<Vec<Fact>, BenchError> {
    let size = turns.sizes.first().copied().unwrap_or(1024);
    let mut facts = Vec::new();
    for (candidate, peer) in peers.iter().enumerate() {
        let mut readable = Readable::default();
        let mut rates = Vec::new();
        let most = if quick { 1 } else { TURNS_MAX };
        while rates.len() < most && !is_flat(&rates) {
            let produced = turns.turn(Work::Produce { size, acks: Acks::All }, candidate, peer, &mut readable)?;
            turns.turn(Work::Consume { size }, candidate, peer, &mut readable)?;
            turns.turn(Work::Latency { acks: Acks::All }, candidate, peer, &mut readable)?;
            rates.push(produced.figures.first().map_or(0.0, |figure| figure.1));
            eprintln!(
                "warming {}: {} records/s",
                peer.name,
                crate::report::readable(rates.last().copied().unwrap_or(0.0))
            );
        }
        readable.clear()?;
        let flat = match (is_flat(&rates), quick) {
            (true, _) => format!("the last {ALIKE} within {} %", WITHIN * 100.0),
            (false, true) => "a short look".to_owned(),
            (false, false) => format!("still not steady within {} %", WITHIN * 100.0),
        };
        facts.push(Fact::new(format!("{} warmed", peer.name), format!("{} turns, {flat}", rates.len())));
    }
    Ok(facts)
}

fn is_flat(rates: &[f64]) -> bool {
    let Some(last) = rates.len().checked_sub(ALIKE).map(|from| &rates[from..]) else { return false };
    let highest = last.iter().copied().fold(f64::MIN, f64::max);
    let lowest = last.iter().copied().fold(f64::MAX, f64::min);
    lowest >= highest * (1.0 - WITHIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_alike_in_a_row_are_flat() {
        assert!(!is_flat(&[]) && !is_flat(&[1.0, 1.0]));
        assert!(!is_flat(&[100.0, 100.0, 100.0, 120.0]));
        assert!(is_flat(&[10.0, 100.0, 98.0, 102.0]));
    }
}
