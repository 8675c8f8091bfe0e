//! The rules of network layers, kept by QUIC, which is always encrypted.

use chronik_conformance::link::{self, Port};
use chronik_link::Link;
use chronik_link::tls::Tls;
use chronik_link_quic::{Options, QuicLink, SetupError};
use std::sync::Arc;

fn quic(tls: Option<Tls>) -> Arc<dyn Link> {
    Arc::new(QuicLink::new(tls, Options::default()).expect("there are certificates"))
}

#[tokio::test(flavor = "multi_thread")]
async fn quic_keeps_the_rules() {
    link::encrypted(quic, Port::Udp, false).await;
}

#[test]
fn without_certificates_there_is_no_quic() {
    let refused = QuicLink::new(None, Options::default()).err();
    assert_eq!(refused, Some(SetupError::NoTls));
}
