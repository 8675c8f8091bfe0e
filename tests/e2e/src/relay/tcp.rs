//! Connections, carried each way by a reader and a writer with what is on its way between them.

use super::{Shared, Stop, Way, corrupt, takes, whose};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

const PIECE_BYTES: usize = 64 * 1024;
/// Pieces on their way: what a delayed line holds.
const ON_THE_WAY_MAX: usize = 64;

pub async fn relay(shared: Arc<Shared>, stop: Stop) {
    loop {
        shared.until(|shared| shared.answers(stop.node)).await;
        let Ok(listener) = TcpListener::bind(stop.relay).await else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        let gone = shared.until(|shared| !shared.answers(stop.node));
        tokio::pin!(gone);
        loop {
            let accepted = tokio::select! {
                () = &mut gone => break,
                accepted = listener.accept() => accepted,
            };
            if let Ok((stream, from)) = accepted
                && let Some(from) = whose::node_of(from, Some(stop.relay), &shared.processes())
            {
                let way = Way { plane: stop.plane, from, to: stop.node };
                tokio::spawn(carry(shared.clone(), way, stream, stop));
            }
        }
    }
}

async fn carry(shared: Arc<Shared>, way: Way, stream: TcpStream, stop: Stop) {
    let through = async {
        // Neither a request for a connection nor the answer to it comes through a cut.
        shared.until(|shared| !shared.rule(way).cut && !shared.rule(way.back()).cut).await;
        let target = TcpStream::connect(stop.target).await?;
        stream.set_nodelay(true)?;
        target.set_nodelay(true)?;
        let (near_reader, near_writer) = stream.into_split();
        let (far_reader, far_writer) = target.into_split();
        let there = one_way(shared.clone(), way, near_reader, far_writer);
        let back = one_way(shared.clone(), way.back(), far_reader, near_writer);
        tokio::try_join!(there, back)
    };
    tokio::select! {
        _ = through => {}
        () = shared.until_closed(way) => {}
    }
}

/// Until the sender has finished, and this was passed on; an error is where the connection has broken, after those who may
/// hear of it can.
async fn one_way(
    shared: Arc<Shared>,
    way: Way,
    mut reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
) -> std::io::Result<()> {
    let (sender, mut line) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_WAY_MAX);
    let read = async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let count = reader.read(&mut piece).await?;
            piece.truncate(count);
            if count == 0 || sender.send((Instant::now(), piece)).await.is_err() {
                return Ok(());
            }
        }
    };
    let write = async {
        let mut passed = 0;
        while let Some((came, mut piece)) = line.recv().await {
            let rule = shared.rule(way);
            tokio::time::sleep_until(came + Duration::from_millis(rule.delay_ms)).await;
            tokio::time::sleep(takes(rule, piece.len())).await;
            shared.until_open(way).await;
            corrupt(rule, &mut passed, &mut piece);
            if let Err(why) = writer.write_all(&piece).await {
                // The receiver's end is gone, which its machine says: the other way.
                shared.until_open(way.back()).await;
                return Err(why);
            }
        }
        shared.until_open(way).await;
        writer.shutdown().await
    };
    let (read, written): (std::io::Result<()>, std::io::Result<()>) = tokio::join!(read, write);
    read.and(written)
}
