//! What a lane does with frames.

use super::{Layer, Pair, frame, lane, listener, pair, soon};
use bytes::Bytes;
use chronik_link::{Frame, LaneClass, LinkError};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub async fn arrive_whole_and_in_order_both_ways(layer: &Layer) {
    let Pair { mut dialler, mut listener, .. } = pair(layer).await;
    let sizes: Vec<Vec<usize>> =
        vec![vec![], vec![1], vec![61, 1_000], vec![100; 700], vec![16 << 10], vec![3, 256 << 10, 5], vec![0, 7, 0]];
    let mut all: Vec<Frame> = (0..200u64).map(|number| frame(number, &sizes[number as usize % sizes.len()])).collect();
    for number in [50, 51, 120] {
        all[number as usize] = frame(number, &[12 << 20]);
    }
    let send = |mut lane: Box<dyn chronik_link::LaneSender>| {
        let all = all.clone();
        async move {
            for chunk in all.chunks(7) {
                let mut frames: VecDeque<Frame> = chunk.iter().cloned().collect();
                lane.send(&mut frames).await.expect("it is sent");
                assert!(frames.is_empty(), "what was sent is gone from the queue");
            }
            // Kept until all has come.
            lane
        }
    };
    let there = tokio::spawn(send(dialler.sender));
    let back = tokio::spawn(send(listener.sender));
    let read = async {
        for lane in [&mut listener.receiver, &mut dialler.receiver] {
            for sent in &all {
                let got = lane.receive().await.expect("a frame").expect("not the end");
                assert_eq!((got.kind, got.flags, got.number), (sent.kind, sent.flags, sent.number));
                assert!(got.into_body() == sent.clone().into_body(), "the body of frame {} is another", sent.number);
            }
        }
    };
    soon("frames both ways", read).await;
    drop((there.await, back.await));
}

pub async fn of_a_stranger_are_small(layer: &Layer) {
    let (mut incoming, at) = listener(layer, 2).await;
    let link = (layer.node)(1);
    let sent = async {
        let mut lane = link.dial(&at, LaneClass::Control).await.expect("it is reached");
        // The other end may close before it is all gone.
        let _ = lane.sender.send(&mut VecDeque::from([frame(1, &[1 << 20])])).await;
        lane
    };
    let refused = async {
        let mut lane = incoming.accept().await.expect("it is accepted");
        lane.receiver.receive().await
    };
    let (_lane, refused) = soon("a large first frame", async { tokio::join!(sent, refused) }).await;
    assert!(matches!(refused, Err(LinkError::TooLarge { .. })), "a stranger's megabyte: {refused:?}");
}

pub async fn beyond_the_bound_are_refused(layer: &Layer) {
    let Pair { mut dialler, mut listener, .. } = pair(layer).await;
    listener.receiver.set_frame_bytes_max(100_000);
    let mut frames = VecDeque::from([frame(1, &[100_000]), frame(2, &[50_000, 50_001])]);
    dialler.sender.send(&mut frames).await.expect("it is sent");
    let got = soon("a frame as long as the bound", listener.receiver.receive()).await;
    assert_eq!(got.expect("a frame").expect("not the end").body_bytes(), 100_000);
    let refused = soon("a frame beyond the bound", listener.receiver.receive()).await;
    assert!(matches!(refused, Err(LinkError::TooLarge { bytes: 100_001, max: 100_000 })), "{refused:?}");
}

pub async fn end_in_order(layer: &Layer) {
    let Pair { mut dialler, mut listener, mut incoming, at } = pair(layer).await;
    dialler.sender.send(&mut VecDeque::from([frame(5, &[10])])).await.expect("it is sent");
    dialler.sender.finish().await;
    let got = soon("the last frame", listener.receiver.receive()).await.expect("a frame").expect("not the end yet");
    assert_eq!(got.number, 5);
    assert!(matches!(soon("the end", listener.receiver.receive()).await, Ok(None)), "the end is told as such");
    // The other direction goes on.
    listener.sender.send(&mut VecDeque::from([frame(6, &[10])])).await.expect("it is sent");
    let back = soon("a frame back", dialler.receiver.receive()).await.expect("a frame").expect("not the end");
    assert_eq!(back.number, 6);
    let link = (layer.node)(1);
    let (dialler, mut listener) = soon("another lane", lane(&*link, &at, &mut *incoming)).await;
    drop(dialler);
    let ended = soon("the peer is gone", listener.receiver.receive()).await;
    assert!(!matches!(ended, Ok(Some(_))), "nothing was sent");
}

pub async fn hold_up_the_sender_where_nobody_reads(layer: &Layer) {
    const FRAMES: u64 = 256;
    let body = Bytes::from(vec![7; 1 << 20]);
    let Pair { mut dialler, mut listener, .. } = pair(layer).await;
    let sent = Arc::new(AtomicU64::new(0));
    let (count, shared) = (sent.clone(), body.clone());
    let sending = tokio::spawn(async move {
        for number in 0..FRAMES {
            let frame = Frame::new(1, number).with(shared.clone());
            dialler.sender.send(&mut VecDeque::from([frame])).await.expect("it is sent");
            count.store(number + 1, Ordering::SeqCst);
        }
        dialler
    });
    // Until nothing more goes out.
    let mut before = u64::MAX;
    while before != sent.load(Ordering::SeqCst) {
        before = sent.load(Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(before < FRAMES / 2, "{before} MiB went to a peer that reads nothing");
    for number in 0..FRAMES {
        let got = soon("what was held up", listener.receiver.receive()).await.expect("a frame").expect("not the end");
        assert_eq!((got.number, got.into_body() == body), (number, true));
    }
    drop(sending.await);
}

pub async fn of_one_lane_do_not_wait_for_another(layer: &Layer) {
    let Pair { mut dialler, listener: _unread, mut incoming, at } = pair(layer).await;
    let link = (layer.node)(1);
    let (mut other, mut read) = soon("another lane", lane(&*link, &at, &mut *incoming)).await;
    let stuck = tokio::spawn(async move {
        let body = Bytes::from(vec![7; 1 << 20]);
        for number in 0..128 {
            if dialler.sender.send(&mut VecDeque::from([Frame::new(1, number).with(body.clone())])).await.is_err() {
                return;
            }
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    for number in 0..50 {
        other.sender.send(&mut VecDeque::from([frame(number, &[100])])).await.expect("it is sent");
        let got = soon("a frame beside a lane that is full", read.receiver.receive()).await;
        assert_eq!(got.expect("a frame").expect("not the end").number, number);
    }
    stuck.abort();
}
