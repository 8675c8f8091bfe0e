//! What nobody should send, against the executable itself: each gets Kafka's own answer, costs no more than a small
//! multiple of what was sent, and leaves everyone else served.

mod executable;

use executable::*;
use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, Instant};

fn varint(mut value: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

#[test]
fn frame_lengths_that_no_frame_may_have_close_the_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(dir.path(), &[]);
    let before = broker.resident_bytes();
    for length in [-1, i32::MIN, i32::MAX, (100 << 20) + 1] {
        let mut connection = broker.connect();
        connection.raw(&length.to_be_bytes());
        assert!(connection.is_closed(), "length {length}");
    }
    // A length of nothing holds no request.
    let mut empty = broker.connect();
    empty.raw(&0i32.to_be_bytes());
    assert!(empty.is_closed());
    // A hundred large claims without the bytes: paid for as they come, so nearly nothing.
    let claims: Vec<_> = (0..100)
        .map(|_| {
            let mut connection = broker.connect();
            connection.raw(&(100i32 << 20).to_be_bytes());
            connection.raw(&[0; 10]);
            connection
        })
        .collect();
    broker.serves();
    assert!(broker.resident_bytes() < before + (64 << 20), "claims cost {} bytes", broker.resident_bytes() - before);
    drop(claims);
}

#[test]
fn what_is_no_request_closes_the_connection() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(dir.path(), &[]);
    let unknown_key = header(999, 0);
    let internal_key = header(4, 0);
    let unsupported = header(1, 99);
    let refused_produce = header(0, 2);
    let half_a_header = vec![0, 3, 0];
    let mut not_utf8 = header(3, 1);
    not_utf8.extend_from_slice(&[0, 0, 0, 1, 0, 2, 0xff, 0xfe]);
    let mut null_name = header(3, 1);
    null_name.extend_from_slice(&[0, 0, 0, 1, 0xff, 0xff]);
    let mut negative_count = header(2, 1);
    negative_count.extend_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]);
    let mut long_varint = header(3, 9);
    long_varint.extend_from_slice(&[0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    for (what, frame) in [
        ("an unknown key", unknown_key),
        ("a key of controllers", internal_key),
        ("a version too new", unsupported),
        ("produce before version 3", refused_produce),
        ("half a header", half_a_header),
        ("text that is none", not_utf8),
        ("null for a name", null_name),
        ("a negative count", negative_count),
        ("a varint without end", long_varint),
    ] {
        let mut connection = broker.connect();
        connection.send(&frame);
        assert!(connection.is_closed(), "{what}");
    }
    // Kafka passes over what follows a request's body, and librdkafka relies on it.
    let mut trailing = api_versions();
    trailing.extend_from_slice(b"more");
    let mut tolerated = broker.connect();
    tolerated.send(&trailing);
    assert!(tolerated.answer().is_some());
    let mut garbage = broker.connect();
    garbage.raw(b"GET / HTTP/1.1\r\nHost: broker\r\n\r\n");
    assert!(garbage.is_closed());
    broker.serves();
}

#[test]
fn counts_beyond_the_frame_and_millions_of_tags_cost_next_to_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    // Two thousand million topics in a few bytes.
    let mut counted = header(3, 1);
    counted.extend_from_slice(&i32::MAX.to_be_bytes());
    // Ten million elements of one byte each, where each would be a structure in memory.
    let mut amplified = header(3, 9);
    amplified.push(0);
    amplified.extend(varint(10_000_001));
    amplified.resize(amplified.len() + 10_000_000, 1);
    // Ten million tagged fields of two bytes: in the header, before anything is known of the client.
    let mut tags_in_header = header(3, 9);
    tags_in_header.extend(varint(10_000_000));
    tags_in_header.extend((0..10_000_000u32).flat_map(|tag| [(tag % 128) as u8, 0]));
    // The same, in order, as far as small numbers go.
    let mut tags_in_order = header(3, 9);
    tags_in_order.extend(varint(100_000));
    tags_in_order.extend((0..100_000u32).flat_map(|tag| [varint(tag), vec![0]].concat()));
    for (what, frame) in [
        ("a count beyond the frame", counted),
        ("small elements", amplified),
        ("tagged fields in the header", tags_in_header),
        ("tagged fields in order", tags_in_order),
    ] {
        // Each to a broker of its own, whose allocator keeps nothing of an earlier one's.
        let broker = Broker::start(dir.path(), &[]);
        broker.serves();
        let before = broker.resident_bytes();
        let sent = frame.len() as u64;
        let mut connection = broker.connect();
        connection.send(&frame);
        assert!(connection.is_closed(), "{what}");
        let grown = broker.resident_bytes().saturating_sub(before);
        assert!(grown < 4 * sent + (16 << 20), "{what}: {sent} bytes sent, {grown} bytes grown");
        broker.serves();
    }
}

#[test]
fn slow_senders_are_cut_off_and_idle_ones_are_not_waited_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(
        dir.path(),
        &["limits.partial_request_ms=300", "limits.receive_bytes_per_second=1MiB", "limits.connection_idle_ms=1500"],
    );
    let mut slow = broker.connect();
    slow.raw(&1000i32.to_be_bytes());
    let mut sent = 0;
    while sent < 1000 && slow.0.write_all(b"x").is_ok() {
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(sent < 1000, "a byte now and then is not enough");
    let mut idle = broker.connect();
    idle.send(&api_versions());
    assert!(idle.answer().is_some());
    assert!(idle.is_closed(), "nothing was sent for the time that connections may be idle");
    broker.serves();
}

#[test]
fn a_flood_of_connections_leaves_the_broker_standing() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(dir.path(), &["limits.connections=50", "limits.connections_per_ip=50"]);
    let before = broker.resident_bytes();
    // In which order the system lets them in is its own affair once the queue of those who wait to be accepted is full.
    let flood: Vec<_> = (0..400).map(|_| broker.connect()).collect();
    let is_served = |connection: &mut Connection| {
        connection.send(&api_versions());
        connection.answer().is_some()
    };
    let (mut served, refused): (Vec<_>, Vec<_>) =
        flood.into_iter().map(|mut it| (is_served(&mut it), it)).partition(|it| it.0);
    assert_eq!((served.len(), refused.len()), (50, 350), "those above the bound are closed");
    assert!(served.iter_mut().all(|(_, connection)| is_served(connection)), "those below it are served");
    assert!(broker.resident_bytes() < before + (32 << 20));
    drop((served, refused));
    // Their places come back; the broker notices each on its own time.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = broker.connect();
        client.send(&api_versions());
        if client.answer().is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "places do not come back");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_client_that_never_reads_its_answers_is_let_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Broker::start(dir.path(), &["limits.stalled_send_ms=500"]);
    let before = broker.resident_bytes();
    let mut deaf = broker.connect();
    deaf.0.set_write_timeout(Some(Duration::from_secs(5))).expect("a socket");
    // Each answer is larger than its request: in the end neither side's buffers take more.
    let frame = api_versions();
    let mut request = (frame.len() as i32).to_be_bytes().to_vec();
    request.extend_from_slice(&frame);
    let many = request.repeat(1000);
    let began = Instant::now();
    while deaf.0.write_all(&many).is_ok() {
        assert!(began.elapsed() < PATIENCE, "it is never let go");
    }
    assert!(broker.resident_bytes() < before + (64 << 20));
    broker.serves();
    let _ = deaf.0.shutdown(Shutdown::Both);
}
