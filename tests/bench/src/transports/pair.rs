//! One turn of work over a link, whose two ends are parts of this program.

use super::layer::Layer;
use super::work::{Near, Order, Seen, Work};
use crate::BenchError;
use crate::machine::sockets::Sockets;
use crate::machine::window::{Used, Window};
use crate::part::{PATIENCE, Part, Said};
use std::path::Path;
use std::time::Duration;

/// How the part is called that is an end.
pub const COMMAND: &str = "link-end";

/// What came of a turn.
pub struct Measured {
    pub seen: Seen,
    /// The near end first.
    pub used: Used,
    pub sockets: [Sockets; 2],
}

/// Makes a turn.
pub fn measure(
    layer: Layer,
    certs: &Path,
    work: &Work,
    warm_up_seconds: f64,
    seconds: f64,
) -> Result<Measured, BenchError> {
    let order = |near| Order { layer, certs: certs.to_owned(), near };
    let mut far = Part::start("the end that listens", COMMAND, &order(None))?;
    let Said::<Seen>::Listens(port) = far.says(PATIENCE)? else { return Err(far.failed("it does not listen")) };
    let near = Near { port, work: work.clone(), warm_up_seconds, seconds };
    let mut near = Part::start("the end that dials", COMMAND, &order(Some(near)))?;
    let Said::<Seen>::Begun = near.says(PATIENCE + Duration::from_secs_f64(warm_up_seconds))? else {
        return Err(near.failed("it does not begin"));
    };
    let window = Window::open(&[near.pid(), far.pid()]);
    let ended = near.says(PATIENCE + Duration::from_secs_f64(seconds))?;
    let used = window.close();
    let sockets = [Sockets::of(near.pid()), Sockets::of(far.pid())];
    let Said::Ended(seen) = ended else { return Err(near.failed("it does not end")) };
    Ok(Measured { seen, used, sockets })
}
