//! The end of a link that listens: it counts what is bulk, and sends back what is a probe.

use super::end::{Over, say};
use super::work::{ACKNOWLEDGED, ANSWER, BULK, FRAME_BYTES_MAX, Order, PROBE};
use crate::network;
use crate::part::Said;
use chronik_link::lane::{Bound, Order as Place, Outbox};
use chronik_link::{Frame, Lane, LinkError};
use std::sync::Arc;

/// What waits to be sent back on a lane: one that is not read is given up.
const BOUND: Bound = Bound { frames: 65_536, bytes: 256 << 20 };

pub async fn serve(order: Order, over: Over) -> Result<(), String> {
    let link = order.layer.link(super::FAR, &order.certs).map_err(|why| why.to_string())?;
    let mut incoming = link.listen((network::ends().listen, 0).into()).await.map_err(words)?;
    say(&Said::Listens(incoming.local_address().map_err(words)?.port()));
    let accepting = async {
        loop {
            match incoming.accept().await {
                Ok(lane) => drop(tokio::spawn(answer(lane))),
                Err(why) => return Err::<(), String>(words(why)),
            }
        }
    };
    tokio::select! {
        failed = accepting => failed,
        _ = over => Ok(()),
    }
}

/// An error with what caused it.
pub fn words(why: LinkError) -> String {
    let mut words = why.to_string();
    let mut cause = std::error::Error::source(&why);
    while let Some(why) = cause {
        words = format!("{words}: {why}");
        cause = why.source();
    }
    words
}

async fn answer(lane: Lane) {
    let Lane { mut sender, mut receiver, .. } = lane;
    receiver.set_frame_bytes_max(FRAME_BYTES_MAX);
    let outbox: Arc<Outbox<u8>> = Arc::new(Outbox::new(BOUND, FRAME_BYTES_MAX));
    let sending = {
        let outbox = outbox.clone();
        tokio::spawn(async move { outbox.send_all(&mut *sender).await })
    };
    let mut came = 0;
    // Whatever ends the lane, the other end says so.
    while let Ok(Some(frame)) = receiver.receive().await {
        let taken = match frame.kind {
            BULK => {
                came += 1;
                outbox.push(Frame::new(ACKNOWLEDGED, came), Place::Latest(0, ACKNOWLEDGED))
            }
            PROBE => outbox.push(Frame { kind: ANSWER, ..frame }, Place::Alone),
            _ => break,
        };
        if taken.is_err() {
            break;
        }
    }
    outbox.close();
    sending.abort();
}
