//! The rules of network layers, kept by gRPC, plain and with TLS.

use chronik_conformance::link::{self, Port};
use chronik_link::Link;
use chronik_link::tls::Tls;
use chronik_link_grpc::{GrpcLink, Options};
use std::sync::Arc;

fn grpc(tls: Option<Tls>) -> Arc<dyn Link> {
    Arc::new(GrpcLink::new(tls, Options::default()))
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_grpc_keeps_the_rules() {
    link::plain(grpc, Port::Tcp).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_with_tls_keeps_the_rules() {
    link::encrypted(grpc, Port::Tcp, true).await;
}
