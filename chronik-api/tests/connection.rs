//! The order and the bounds of one connection, with requests whose answers the story itself gives out; and what becomes
//! of those that wait when their client goes away.

mod broker;

use broker::*;
use bytes::Bytes;
use chronik_api::config::{Config, Millis};
use chronik_api::kafka::connection::{Answer, Close, Dispatch, Encoded, Ended, Limits, MemoryBudget, serve};
use chronik_api::metrics::Metrics;
use chronik_api::partitions::anatomy::Arrival;
use chronik_proto_kafka::api::*;
use chronik_proto_kafka::{InFile, Part};
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// How a request is answered: by the first byte of its frame.
const AT_ONCE: u8 = b'n';
const LATER: u8 = b'l';
const ALONE: u8 = b'x';
const ALONE_AND_NOT_AT_ALL: u8 = b'y';
const NOT_AT_ALL: u8 = b'0';
const REFUSED: u8 = b'!';

/// A request that was dispatched. Dropping it drops what it would have been answered with.
struct Seen {
    frame: Bytes,
    answer: Option<oneshot::Sender<()>>,
}

impl Seen {
    fn give(&mut self) {
        let _ = self.answer.take().expect("given once").send(());
    }

    /// Whether the connection still wants the answer.
    fn is_awaited(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| !answer.is_closed())
    }
}

/// Answers each frame with itself.
struct Echo(mpsc::UnboundedSender<Seen>);

impl Dispatch for Echo {
    fn dispatch(&mut self, frame: Bytes, _: Arrival) -> Result<Answer, Close> {
        let kind = frame[0];
        let mut encoded = Encoded::new();
        encoded.push(Bytes::copy_from_slice(&(frame.len() as i32).to_be_bytes()).into());
        encoded.push(frame.clone().into());
        let (answer, given) = oneshot::channel();
        let _ = self.0.send(Seen { frame, answer: Some(answer) });
        let working = Box::pin(async move {
            match given.await {
                Ok(()) => Ok((kind != ALONE_AND_NOT_AT_ALL).then_some(encoded)),
                Err(_) => Err(Close("the story is over".to_owned())),
            }
        });
        Ok(match kind {
            LATER => Answer::Later(working),
            ALONE | ALONE_AND_NOT_AT_ALL => Answer::Exclusive(working),
            NOT_AT_ALL => Answer::Nothing,
            REFUSED => return Err(Close("refused".to_owned())),
            _ => {
                let mut encoded = Encoded::new();
                encoded.push(Bytes::from_static(&[0, 0, 0, 1, AT_ONCE]).into());
                Answer::Ready(encoded)
            }
        })
    }
}

/// Answers each frame with itself, then so many bytes of a file, then itself again.
struct FromFile {
    file: Arc<File>,
    bytes: usize,
}

impl Dispatch for FromFile {
    fn dispatch(&mut self, frame: Bytes, _: Arrival) -> Result<Answer, Close> {
        let length = (2 * frame.len() + self.bytes) as i32;
        let mut encoded = Encoded::new();
        encoded.push(Bytes::copy_from_slice(&length.to_be_bytes()).into());
        encoded.push(frame.clone().into());
        // In two parts, as two runs would be.
        let half = self.bytes / 2;
        for (position, bytes) in [(0, half), (half, self.bytes - half)] {
            encoded.push(Part::InFile(InFile { file: self.file.clone(), position: position as u64, bytes }));
        }
        encoded.push(frame.into());
        Ok(Answer::Ready(encoded))
    }
}

/// A connection, from the client's side and from the broker's.
struct Story {
    client: TcpStream,
    seen: mpsc::UnboundedReceiver<Seen>,
    ended: JoinHandle<Ended>,
}

async fn story(adjust: impl FnOnce(&mut Limits)) -> Story {
    let (echo, seen) = mpsc::unbounded_channel();
    let (client, ended, _) = connect(Echo(echo), adjust).await;
    Story { client, seen, ended }
}

async fn connect(
    dispatch: impl Dispatch,
    adjust: impl FnOnce(&mut Limits),
) -> (TcpStream, JoinHandle<Ended>, Arc<Metrics>) {
    let mut limits = Limits {
        request_bytes_max: 1 << 20,
        pending_requests_max: 64,
        pending_bytes_max: 1 << 20,
        idle: Duration::from_secs(600),
        frame_within: Duration::from_secs(600),
        receive_bytes_per_second: 1,
        send_stall: Duration::from_secs(600),
    };
    adjust(&mut limits);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
    let (stream, _) = listener.accept().await.expect("it comes");
    let metrics = Arc::new(Metrics::default());
    let counted = metrics.clone();
    let ended = tokio::spawn(async move {
        serve(stream, dispatch, limits, MemoryBudget::new(1 << 24), &counted, std::future::pending()).await
    });
    (client, ended, metrics)
}

impl Story {
    async fn send(&mut self, frames: &[&[u8]]) {
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend_from_slice(&(frame.len() as i32).to_be_bytes());
            bytes.extend_from_slice(frame);
        }
        self.client.write_all(&bytes).await.expect("sent");
    }

    async fn seen(&mut self) -> Seen {
        self.seen.recv().await.expect("it is dispatched")
    }

    async fn answer(&mut self) -> Vec<u8> {
        let length = self.client.read_i32().await.expect("an answer");
        let mut body = vec![0; usize::try_from(length).expect("a length")];
        self.client.read_exact(&mut body).await.expect("all of it");
        body
    }

    /// Lets the connection do all that it can do by itself.
    async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn pipelined_requests_all_take_effect_before_the_first_is_answered_and_are_answered_in_order() {
    let mut story = story(|_| {}).await;
    story.send(&[b"l0", b"l1", b"n", b"l3", b"l4"]).await;
    let mut seen = Vec::new();
    for _ in 0..5 {
        // All are dispatched while none is answered: so produces that come together share the next sync.
        seen.push(story.seen().await);
    }
    assert_eq!(seen.iter().map(|it| &it.frame[..]).collect::<Vec<_>>(), [&b"l0"[..], b"l1", b"n", b"l3", b"l4"]);
    for late_first in [4, 3, 1] {
        seen[late_first].give();
    }
    story.settle().await;
    assert_eq!(story.client.try_read(&mut [0; 1]).ok(), None, "nothing overtakes the first");
    seen[0].give();
    for expected in [&b"l0"[..], b"l1", b"n", b"l3", b"l4"] {
        assert_eq!(story.answer().await, expected);
    }
}

/// Bytes that no piece of which looks like another.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7]).collect()
}

#[tokio::test]
async fn what_lies_in_a_file_is_sent_in_its_place_however_slowly_the_client_takes_it() {
    let mut file = tempfile::tempfile().expect("a file");
    // More than the kernel holds for a client that does not read yet.
    let inside = pattern(24 << 20);
    file.write_all(&inside).expect("written");
    let dispatch = FromFile { file: Arc::new(file), bytes: inside.len() };
    let (mut client, _ended, metrics) = connect(dispatch, |_| {}).await;
    client.write_all(b"\0\0\0\x02ab\0\0\0\x02cd").await.expect("sent");
    for around in [b"ab", b"cd"] {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let length = client.read_i32().await.expect("an answer");
        let mut body = vec![0; usize::try_from(length).expect("a length")];
        client.read_exact(&mut body).await.expect("all of it");
        assert!(body == [&around[..], &inside, around].concat(), "the answer to {around:?} is not what it was made of");
    }
    // Counted once an answer is out; the client may have it a little before.
    while metrics.sent_from_files_bytes.get() < 2 * inside.len() as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(metrics.sent_bytes.get(), 2 * (inside.len() as u64 + 8));
    assert_eq!(metrics.sent_from_files_bytes.get(), 2 * inside.len() as u64);
}

#[tokio::test]
async fn a_file_that_was_cut_while_it_was_to_be_sent_ends_the_connection() {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&pattern(1000)).expect("written");
    let (mut client, ended, _) = connect(FromFile { file: Arc::new(file), bytes: 1001 }, |_| {}).await;
    client.write_all(b"\0\0\0\x02ab").await.expect("sent");
    let mut taken = Vec::new();
    client.read_to_end(&mut taken).await.expect("it ends");
    assert!(taken.len() <= 4 + 2 + 1000, "nothing stands in for what is not there");
    let ended = ended.await.expect("it does not panic");
    assert!(ended.to_string().contains("a log was cut"), "{ended}");
}

#[tokio::test]
async fn pending_requests_are_bounded_by_their_number_and_by_their_bytes() {
    let mut few = story(|limits| limits.pending_requests_max = 2).await;
    few.send(&[b"l0", b"l1", b"l2"]).await;
    let mut first = few.seen().await;
    let _second = few.seen().await;
    few.settle().await;
    assert!(few.seen.try_recv().is_err(), "the third waits for a place");
    first.give();
    assert_eq!(few.answer().await, b"l0");
    assert_eq!(few.seen().await.frame, &b"l2"[..]);

    let mut small = story(|limits| limits.pending_bytes_max = 1000).await;
    let large = [&b"l"[..], &[b'.'; 1999]].concat();
    small.send(&[&large, b"l1"]).await;
    let mut first = small.seen().await;
    small.settle().await;
    assert!(small.seen.try_recv().is_err(), "one that is larger than the bound goes alone");
    first.give();
    assert_eq!(small.answer().await, large);
    assert_eq!(small.seen().await.frame, &b"l1"[..]);
}

#[tokio::test]
async fn what_takes_effect_later_lets_nothing_overtake_it() {
    let mut story = story(|_| {}).await;
    story.send(&[b"l0", b"x1", b"l2"]).await;
    let mut first = story.seen().await;
    let mut alone = story.seen().await;
    first.give();
    assert_eq!(story.answer().await, b"l0");
    story.settle().await;
    assert!(story.seen.try_recv().is_err());
    alone.give();
    assert_eq!(story.answer().await, b"x1");
    assert_eq!(story.seen().await.frame, &b"l2"[..]);
}

#[tokio::test]
async fn a_request_without_an_answer_takes_no_place_in_the_row() {
    let mut story = story(|limits| limits.pending_requests_max = 2).await;
    story.send(&[b"l0", b"0", b"0", b"0", b"n"]).await;
    let mut first = story.seen().await;
    for _ in 0..4 {
        story.seen().await;
    }
    first.give();
    assert_eq!((story.answer().await, story.answer().await), (b"l0".to_vec(), b"n".to_vec()));
    // And one that is refused ends it, also while others wait.
    story.send(&[b"l5", b"!"]).await;
    story.seen().await;
    assert!(matches!(story.ended.await, Ok(Ended::Refused(_))));
    assert_eq!(story.client.read(&mut [0; 1]).await.ok(), Some(0));
}

#[tokio::test]
async fn what_takes_effect_later_and_is_not_answered_makes_room_for_what_was_read_already() {
    let mut story = story(|limits| limits.pending_requests_max = 2).await;
    story.send(&[b"l0", b"y1", b"n", b"l3"]).await;
    let (mut first, mut silent) = (story.seen().await, story.seen().await);
    // Both are ready when the connection looks: the first is sent, the second only leaves its place.
    silent.give();
    first.give();
    assert_eq!((story.answer().await, story.answer().await), (b"l0".to_vec(), b"n".to_vec()));
    assert_eq!(story.seen().await.frame, &b"n"[..]);
    let mut last = story.seen().await;
    last.give();
    assert_eq!(story.answer().await, b"l3");
    // Alone it makes room, too.
    story.send(&[b"y4", b"n"]).await;
    story.seen().await.give();
    assert_eq!(story.answer().await, b"n");
}

#[tokio::test]
async fn what_was_answered_before_a_failure_is_sent_before_the_connection_ends() {
    let mut story = story(|_| {}).await;
    story.send(&[b"l0", b"l1", b"l2", b"l3"]).await;
    let (mut first, mut second) = (story.seen().await, story.seen().await);
    let (failing, behind) = (story.seen().await, story.seen().await);
    // When the connection looks next, two are answered and the third has failed.
    drop(failing);
    second.give();
    first.give();
    assert_eq!((story.answer().await, story.answer().await), (b"l0".to_vec(), b"l1".to_vec()));
    assert!(matches!(story.ended.await, Ok(Ended::Refused(_))));
    assert_eq!(story.client.read(&mut [0; 1]).await.ok(), Some(0));
    assert!(!behind.is_awaited());
}

#[tokio::test]
async fn a_client_that_goes_away_takes_what_it_waits_for_with_it() {
    for full in [false, true] {
        // Also when the row is full, and nothing is read that would tell of the end.
        let mut story = story(|limits| limits.pending_requests_max = if full { 2 } else { 64 }).await;
        story.send(&[b"l0", b"l1"]).await;
        let (first, second) = (story.seen().await, story.seen().await);
        assert!(first.is_awaited() && second.is_awaited());
        drop(story.client);
        assert!(matches!(story.ended.await, Ok(Ended::ByClient)), "full: {full}");
        assert!(!first.is_awaited() && !second.is_awaited(), "full: {full}");
    }
}

/// One place: whoever is in can be followed only by who comes after it has gone.
fn one_at_a_time(config: &mut Config) {
    config.limits.connections = 1;
    config.groups.initial_rebalance_delay_ms = Millis::minutes(5);
}

/// Connects until it is served.
async fn next_in(broker: &Running) -> Client {
    loop {
        let mut client = Client::to(broker).await;
        let request =
            api_versions::ApiVersionsRequest { client_software_name: "s".into(), client_software_version: "1".into() };
        client.send(3, 1, &request).await;
        if client.frame().await.is_some() {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_parked_fetch_and_a_parked_join_give_their_place_back_when_their_client_goes() {
    let broker = start(one_at_a_time).await;
    let mut client = next_in(&broker).await;
    client.create_topic("t", 1, &[]).await;
    client.send(NAMED_FETCH, 1, &fetch_from("t", 0, 300_000)).await;
    drop(client);
    let mut client = next_in(&broker).await;
    let join = join_group::JoinGroupRequest {
        group_id: "g".into(),
        session_timeout_ms: 300_000,
        rebalance_timeout_ms: 300_000,
        protocol_type: "consumer".into(),
        protocols: vec![join_group::JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() }],
        ..Default::default()
    };
    // Until the group's partition is there and read, its coordinator is not.
    let find = find_coordinator::FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    client.ask(find).await;
    loop {
        client.send(3, 7, &join).await;
        // A join that waits is answered by nothing; one that is refused is asked again.
        match tokio::time::timeout(Duration::from_millis(300), client.frame()).await {
            Ok(Some(_)) => continue,
            Ok(None) => panic!("closed"),
            Err(_) => break,
        }
    }
    drop(client);
    let mut client = next_in(&broker).await;
    assert_eq!(client.produce("t", 1, sealed(batch(&["served"]))).await.error_code, 0);
    broker.stop().await;
}

#[tokio::test]
async fn a_parked_fetch_delays_the_answers_of_its_own_connection_only() {
    let broker = start(|_| {}).await;
    let mut parked = Client::to(&broker).await;
    parked.create_topic("t", 1, &[]).await;
    parked.create_topic("other", 1, &[]).await;
    parked.send(NAMED_FETCH, 1, &fetch_from("t", 0, 300_000)).await;
    parked.send(NAMED_PRODUCE, 2, &produce_to("other", -1, sealed(batch(&["behind it"])))).await;
    // What is behind it has taken effect, as another connection sees, which is not delayed in the least.
    let mut other = Client::to(&broker).await;
    assert_eq!(other.fetch("other", 0, 60_000).await.high_watermark, 1);
    assert_eq!(parked.0.try_read(&mut [0; 1]).ok(), None, "its answer waits for the fetch's");
    assert_eq!(other.produce("t", -1, sealed(batch(&["news"]))).await.error_code, 0);
    assert_eq!(parked.receive::<fetch::FetchRequest>(NAMED_FETCH).await.0, 1);
    assert_eq!(parked.receive::<produce::ProduceRequest>(NAMED_PRODUCE).await.0, 2);
    broker.stop().await;
}

/// How many bytes a client's silence costs is asked of the budget itself.
#[tokio::test]
async fn memory_is_paid_for_as_bytes_come_and_given_back_in_the_end() {
    let budget = MemoryBudget::new(4 << 20);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("it listens");
    let (stream, _) = listener.accept().await.expect("it comes");
    let (echo, _seen) = mpsc::unbounded_channel();
    let limits = Limits {
        request_bytes_max: 8 << 20,
        pending_requests_max: 1,
        pending_bytes_max: 1,
        idle: Duration::from_secs(600),
        frame_within: Duration::from_secs(600),
        receive_bytes_per_second: 1,
        send_stall: Duration::from_secs(600),
    };
    let serving = tokio::spawn({
        let budget = budget.clone();
        async move { serve(stream, Echo(echo), limits, budget, &Metrics::default(), std::future::pending()).await }
    });
    client.write_all(&(3i32 << 20).to_be_bytes()).await.expect("sent");
    client.write_all(&[0; 1000]).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    // A claim of three megabytes with a thousand bytes behind it holds next to nothing.
    assert!(budget.try_take(3 << 20).is_some());
    client.write_all(&vec![0; 2 << 20]).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(budget.try_take(3 << 20).is_none(), "two megabytes that have come are paid for");
    drop(client);
    serving.await.expect("it ends");
    assert!(budget.try_take(4 << 20).is_some(), "all is given back");
}
