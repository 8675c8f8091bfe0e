//! The endpoint over a real socket, before a broker that is made up.

use super::*;
use crate::metrics::exposition::Names;
use crate::metrics::{GroupSample, Metrics, MetricsSource, PartitionLag, PartitionSample, Snapshot};
use crate::partitions::throttle::ThrottleSample;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

/// One topic with two partitions, and a group whose name tries to break out of its label.
struct MadeUp;

#[async_trait::async_trait]
impl MetricsSource for MadeUp {
    async fn snapshot(&self) -> Snapshot {
        let partition = |partition, log_end| PartitionSample {
            topic: "orders".into(),
            partition,
            log_end,
            high_watermark: log_end,
            under_min_isr: partition == 1,
            leads: true,
            under_replicated: partition == 1,
            leader_epoch: 0,
            follower_lag: 0,
            ..PartitionSample::default()
        };
        let lag = PartitionLag { topic: "orders".into(), partition: 0, committed: 40, lag: 2 };
        Snapshot {
            partitions: vec![partition(0, 42), partition(1, 7)],
            groups: vec![GroupSample {
                group: "bil\"l\ning\\".into(),
                state: "Stable".into(),
                members: 3,
                partitions: vec![lag],
            }],
            storage: None,
            throttles: vec![
                ThrottleSample { side: "leader", rate: Some(1_000), bytes: 70, waits: 3 },
                ThrottleSample { side: "follower", rate: None, bytes: 0, waits: 0 },
            ],
        }
    }
}

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

async fn start(connections: u32) -> Running {
    let mut config = crate::config::Admin { connections, ..Default::default() };
    config.listen.port = 0;
    let admin = Admin::bind(&config).await.expect("a free port").expect("enabled");
    let address = admin.local_address().expect("bound");
    let (readiness, metrics) = (Readiness::not_yet("logs are being opened"), Arc::new(Metrics::default()));
    let names = Names { api: |key| format!("Api{key}"), ..Names::default() };
    let exposition = Exposition::new(metrics.clone(), Arc::new(MadeUp), names);
    let state = Arc::new(AdminState::new(readiness.clone(), exposition));
    let (stop, stopped) = oneshot::channel::<()>();
    let task = tokio::spawn(admin.serve(state, async move {
        let _ = stopped.await;
    }));
    Running { address, readiness, metrics, stop, task }
}

/// The whole answer to a request that closes its connection.
async fn ask(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(format!("{head}\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn readiness_is_refused_with_its_reason_until_it_is_given_and_again_when_it_is_taken() {
    let admin = start(4).await;
    assert!(ask(admin.address, "GET /healthz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
    let before = ask(admin.address, "GET /readyz HTTP/1.1").await;
    assert!(before.starts_with("HTTP/1.1 503") && before.contains("logs are being opened"), "{before}");
    admin.readiness.set_ready();
    assert!(ask(admin.address, "GET /readyz HTTP/1.1").await.starts_with("HTTP/1.1 200"));
    admin.readiness.set_not_ready("the broker is stopping");
    assert!(ask(admin.address, "GET /readyz HTTP/1.1").await.contains("stopping"));
}

#[tokio::test]
async fn a_scrape_shows_what_was_counted_and_what_the_broker_says_of_itself() {
    let admin = start(4).await;
    admin.metrics.api(3).requests.add(5);
    admin.metrics.api(3).latency.observe(Duration::from_millis(1));
    admin.metrics.api(3).error(3);
    admin.metrics.topic("orders").produced_records.add(42);
    let scrape = ask(admin.address, "GET /metrics HTTP/1.1").await;
    for line in [
        "chronik_requests_total{api=\"Api3\"} 5",
        "chronik_request_errors_total{api=\"Api3\",error=\"3\"} 1",
        "chronik_request_duration_seconds_count{api=\"Api3\"} 1",
        "chronik_topic_produced_records_total{topic=\"orders\"} 42",
        "chronik_partition_high_watermark{topic=\"orders\",partition=\"0\"} 42",
        "chronik_under_min_isr_partitions 1",
        "chronik_under_replicated_partitions 1",
        "chronik_group_members{group=\"bil\\\"l\\ning\\\\\",state=\"Stable\"} 3",
        "chronik_group_lag{group=\"bil\\\"l\\ning\\\\\",topic=\"orders\",partition=\"0\"} 2",
        "chronik_replication_throttle_rate_bytes{side=\"leader\"} 1000",
        "chronik_replication_throttled_bytes_total{side=\"leader\"} 70",
        "chronik_replication_throttle_waits_total{side=\"follower\"} 0",
        "chronik_ready 0",
        "# EOF",
    ] {
        assert!(scrape.lines().any(|found| found == line), "{line} in {scrape}");
    }
    assert!(!scrape.contains("throttle_rate_bytes{side=\"follower\"}"), "there is no limit to be shown");
    for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "chronik_build_info{version="] {
        assert!(scrape.lines().any(|line| line.starts_with(name)), "{name} in {scrape}");
    }
}

#[tokio::test]
async fn other_pages_methods_and_endless_heads_are_refused() {
    let admin = start(4).await;
    assert!(ask(admin.address, "GET /etc/passwd HTTP/1.1").await.starts_with("HTTP/1.1 404"));
    assert!(ask(admin.address, "POST /metrics HTTP/1.1").await.starts_with("HTTP/1.1 405"));
    let long = format!("GET /healthz HTTP/1.1\r\nX: {}", "a".repeat(HEAD_BYTES_MAX));
    assert!(!ask(admin.address, &long).await.starts_with("HTTP/1.1 200"));
    let many: String = (0..=HEADERS_MAX).map(|index| format!("\r\nX-{index}: 1")).collect();
    assert!(!ask(admin.address, &format!("GET /healthz HTTP/1.1{many}")).await.starts_with("HTTP/1.1 200"));
    assert!(ask(admin.address, "GET / HTTP/1.1").await.contains("/readyz"));
}

#[tokio::test]
async fn beyond_the_bound_connections_are_closed_and_places_are_given_back() {
    let admin = start(1).await;
    let mut first = TcpStream::connect(admin.address).await.expect("it listens");
    first.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("sent");
    let mut head = [0; 12];
    first.read_exact(&mut head).await.expect("served");
    assert_eq!(ask(admin.address, "GET /healthz HTTP/1.1").await, "");
    drop(first);
    while ask(admin.address, "GET /healthz HTTP/1.1").await.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn it_stops_when_told_also_with_an_idle_connection() {
    let admin = start(4).await;
    let _idle = TcpStream::connect(admin.address).await.expect("it listens");
    admin.stop.send(()).expect("it runs");
    admin.task.await.expect("it ended by itself");
    assert!(TcpStream::connect(admin.address).await.is_err());
}
