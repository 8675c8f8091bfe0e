//! An end of a link, in a process of its own.

use super::work::{Order, Seen};
use super::{far, near};
use crate::part::{self, Said};
use tokio::sync::oneshot;

/// Resolves when whoever started this end has no more use for it.
pub type Over = oneshot::Receiver<()>;

/// What an end says.
pub fn say(said: &Said<Seen>) {
    part::say(said);
}

/// Does what it is told, until it is over.
pub fn run() -> Result<(), String> {
    let order: Order = part::order()?;
    let (sender, over) = oneshot::channel();
    std::thread::spawn(move || {
        part::until_over();
        let _ = sender.send(());
    });
    // As the broker's main runtime.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|why| why.to_string())?;
    let done = runtime.block_on(async {
        match order.near.clone() {
            Some(near) => near::drive(order, near, over).await,
            None => far::serve(order, over).await,
        }
    });
    if let Err(why) = &done {
        say(&Said::Failed(why.clone()));
    }
    // What still goes on need not end in order.
    runtime.shutdown_background();
    done
}
