//! The client before brokers that are made up, well behaved and otherwise.

use super::*;
use chronik_proto_kafka::api::api_versions::{ApiVersion, ApiVersionsResponse};
use chronik_proto_kafka::api::metadata::{MetadataResponseBroker, MetadataResponsePartition};
use chronik_proto_kafka::{Decoder, RequestHeader, decode_request, encode_response, in_memory};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

const TIMEOUT: Duration = Duration::from_secs(5);

/// What a made-up broker says to one request; `None` closes the connection.
type Answer = Box<dyn FnMut(RequestHeader, Decoder) -> Option<Vec<u8>> + Send>;

/// Serves connections one after the other, until the test ends.
fn broker(mut answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut length = [0; 4];
            while stream.read_exact(&mut length).is_ok() {
                let mut frame = vec![0; u32::from_be_bytes(length) as usize];
                stream.read_exact(&mut frame).expect("a whole request");
                let mut input = Decoder::new(frame.into());
                let header = RequestHeader::decode(&mut input).expect("a header");
                match answer(header, input) {
                    Some(bytes) => stream.write_all(&bytes).expect("the client reads"),
                    None => break,
                }
            }
        }
    });
    address
}

fn framed<R: Request>(header: &RequestHeader, response: &R::Response) -> Option<Vec<u8>> {
    Some(in_memory(encode_response::<R>(header.correlation_id, header.api_version, response))?.concat())
}

/// What the made-up broker speaks: ApiVersions, and Metadata up to a version.
fn versions(metadata_max: i16) -> ApiVersionsResponse {
    let range = |api_key, max_version| ApiVersion { api_key, min_version: 0, max_version };
    ApiVersionsResponse {
        api_keys: vec![range(18, 3), range(MetadataRequest::KEY, metadata_max)],
        ..Default::default()
    }
}

fn topic(error: ErrorCode, partition_error: ErrorCode) -> MetadataResponseTopic {
    let partition = MetadataResponsePartition { error_code: partition_error.0, leader_id: 1, ..Default::default() };
    MetadataResponseTopic {
        error_code: error.0,
        name: Some("orders".into()),
        partitions: vec![partition],
        ..Default::default()
    }
}

/// A broker that answers metadata with what `topics` makes of the count of such requests before.
fn with_metadata(
    mut metadata: impl FnMut(usize, &RequestHeader, MetadataRequest) -> MetadataResponse + Send + 'static,
) -> SocketAddr {
    let mut asked = 0;
    broker(Box::new(move |header, mut input| {
        if header.api_key == ApiVersionsRequest::KEY {
            return framed::<ApiVersionsRequest>(&header, &versions(5));
        }
        let request = decode_request::<MetadataRequest>(&mut input, header.api_version).expect("metadata");
        asked += 1;
        framed::<MetadataRequest>(&header, &metadata(asked - 1, &header, request))
    }))
}

fn client(address: SocketAddr) -> Client {
    Client::connect(&address.to_string(), TIMEOUT).expect("it listens")
}

#[test]
fn the_newest_version_that_both_sides_speak_is_used() {
    let (seen, versions) = mpsc::channel();
    let address = with_metadata(move |_, header, _| {
        seen.send(header.api_version).expect("the test listens");
        MetadataResponse::default()
    });
    client(address).metadata(None, false).expect("answered");
    assert_eq!(versions.recv(), Ok(5));
}

#[test]
fn an_old_broker_is_asked_again_in_the_version_it_knows() {
    let address = broker(Box::new(|header, _| {
        let mut answer = versions(1);
        if header.api_version > 0 {
            answer.error_code = ErrorCode::UNSUPPORTED_VERSION.0;
        }
        Some(in_memory(encode_response::<ApiVersionsRequest>(header.correlation_id, 0, &answer))?.concat())
    }));
    client(address);
}

#[test]
fn an_api_that_the_broker_lacks_is_named() {
    let address = with_metadata(|_, _, _| MetadataResponse::default());
    let said = client(address).ask(To::Any, &ListOffsetsRequest::default()).expect_err("not spoken").to_string();
    assert!(said.contains("does not serve ListOffsets"), "{said}");
}

#[test]
fn an_unknown_topic_is_told_at_once_with_what_to_do() {
    let address = with_metadata(|asked, _, request| {
        assert_eq!((asked, request.allow_auto_topic_creation), (0, false));
        let topics = vec![topic(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::NONE)];
        MetadataResponse { topics, ..Default::default() }
    });
    let said = client(address).topic("orders", false).expect_err("unknown").to_string();
    assert!(
        said.contains("topic orders: UNKNOWN_TOPIC_OR_PARTITION") && said.contains("chronik topic create"),
        "{said}"
    );
}

#[test]
fn a_topic_that_is_being_created_is_waited_for() {
    let address = with_metadata(|asked, _, _| {
        let topics = vec![match asked {
            0 => topic(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::NONE),
            1 => topic(ErrorCode::NONE, ErrorCode::LEADER_NOT_AVAILABLE),
            _ => topic(ErrorCode::NONE, ErrorCode::NONE),
        }];
        MetadataResponse { topics, ..Default::default() }
    });
    let found = client(address).topic("orders", true).expect("it comes");
    assert_eq!(found.leaders, BTreeMap::from([(0, 1)]));
}

#[test]
fn an_advertised_address_that_does_not_answer_is_explained() {
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port, free again");
    let address = with_metadata(move |_, _, _| MetadataResponse {
        brokers: vec![MetadataResponseBroker {
            node_id: 1,
            host: "127.0.0.1".into(),
            port: gone.port().into(),
            rack: None,
        }],
        topics: vec![topic(ErrorCode::NONE, ErrorCode::NONE)],
        ..Default::default()
    });
    let mut client = client(address);
    client.metadata(None, false).expect("answered");
    let said = client.ask(To::Node(1), &MetadataRequest::default()).expect_err("nobody is there").to_string();
    assert!(said.contains("says that node 1 is") && said.contains("kafka.advertise"), "{said}");
}

#[test]
fn what_is_no_kafka_broker_is_recognised() {
    let address = broker(Box::new(|_, _| Some(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())));
    let said = Client::connect(&address.to_string(), TIMEOUT).err().expect("no broker").to_string();
    assert!(said.contains("Is a Kafka broker listening there"), "{said}");
}

#[test]
fn silence_and_hanging_up_are_told_apart() {
    let silent = broker(Box::new(|_, _| Some(Vec::new())));
    let why = Client::connect(&silent.to_string(), Duration::from_millis(50)).err().expect("no answer");
    assert!(matches!(why, ClientError::TimedOut { .. }), "{why}");
    let rude = broker(Box::new(|_, _| None));
    let why = Client::connect(&rude.to_string(), TIMEOUT).err().expect("no answer");
    assert!(matches!(why, ClientError::Closed { .. }), "{why}");
}

#[test]
fn the_next_bootstrap_address_is_tried_and_nobody_at_all_is_told_with_what_to_do() {
    let address = with_metadata(|_, _, _| MetadataResponse::default());
    let gone = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port, free again");
    assert!(Client::connect(&format!("{gone}, {address}"), TIMEOUT).is_ok());
    let why = Client::connect(&gone.to_string(), TIMEOUT).err().expect("nobody is there");
    let Failure::Failed(said) = Failure::from(why) else { panic!("it is a failure") };
    assert!(said.contains("Start a broker with `chronik`"), "{said}");
}

#[test]
fn a_connection_that_was_closed_while_it_lay_idle_is_opened_again_once() {
    let mut asked = 0;
    let address = broker(Box::new(move |header, _| {
        if header.api_key == ApiVersionsRequest::KEY {
            return framed::<ApiVersionsRequest>(&header, &versions(5));
        }
        asked += 1;
        // The second request meets a closed connection, and so do the fourth and the one tried in its place.
        if [2, 4, 5].contains(&asked) { None } else { framed::<MetadataRequest>(&header, &MetadataResponse::default()) }
    }));
    let mut client = client(address);
    assert!(client.metadata(None, false).is_ok());
    assert!(client.metadata(None, false).is_ok(), "the third answers in place of the second");
    assert!(matches!(client.metadata(None, false), Err(ClientError::Closed { .. })));
}
