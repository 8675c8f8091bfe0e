//! The rules of network layers, kept by TCP, plain and with TLS.

use chronik_conformance::link::{self, Port};
use chronik_link::Link;
use chronik_link::tls::Tls;
use chronik_link_tcp::{Options, TcpLink};
use std::sync::Arc;

fn tcp(tls: Option<Tls>) -> Arc<dyn Link> {
    Arc::new(TcpLink::new(tls, Options::default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_tcp_keeps_the_rules() {
    link::plain(tcp, Port::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tcp_with_tls_keeps_the_rules() {
    link::encrypted(tcp, Port::Tcp, true).await;
}
