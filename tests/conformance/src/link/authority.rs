//! Makes certificates, right ones and wrong ones.

use chronik_core::ids::NodeId;
use chronik_link::tls::{NODE_URI, Tls};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::Arc;

pub struct Authority {
    directory: tempfile::TempDir,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let key = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
        let pem = params.self_signed(&key).expect("a certificate").pem();
        std::fs::write(directory.path().join("ca.pem"), &pem).expect("it is written");
        Self { directory, issuer: rcgen::Issuer::new(params, key) }
    }

    /// A node's configuration, from files as a node has them.
    pub fn node(&self, node: i32) -> Tls {
        let path = |name: String| self.directory.path().join(name);
        let (cert, key) = (path(format!("{node}.pem")), path(format!("{node}.key")));
        let (made, pair) = self.certificate(&[node], |_| {});
        std::fs::write(&cert, made.pem()).expect("it is written");
        std::fs::write(&key, pair.serialize_pem()).expect("it is written");
        Tls::load(NodeId(node), &cert, &key, &path("ca.pem".into())).expect("the files are right")
    }

    /// Of a node whose certificate was valid once.
    pub fn expired(&self, node: i32) -> Tls {
        self.showing(Some(self.certificate(&[node], |params| {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        })))
    }

    /// Whose certificate is right in all but that it is no node's.
    pub fn nameless(&self) -> Tls {
        self.named(&[])
    }

    pub fn named(&self, nodes: &[i32]) -> Tls {
        self.showing(Some(self.certificate(nodes, |_| {})))
    }

    pub fn without_certificate(&self) -> Tls {
        self.showing(None)
    }

    fn certificate(
        &self,
        nodes: &[i32],
        change: impl FnOnce(&mut rcgen::CertificateParams),
    ) -> (rcgen::Certificate, rcgen::KeyPair) {
        let pair = rcgen::KeyPair::generate().expect("a key");
        let mut params = rcgen::CertificateParams::default();
        for node in nodes {
            let uri = format!("{NODE_URI}{node}");
            params.subject_alt_names.push(rcgen::SanType::URI(uri.try_into().expect("a URI")));
        }
        change(&mut params);
        (params.signed_by(&pair, &self.issuer).expect("a certificate"), pair)
    }

    /// A configuration that no node would load. It believes what the authority has signed, as nodes do.
    fn showing(&self, shown: Option<(rcgen::Certificate, rcgen::KeyPair)>) -> Tls {
        let proper = self.node(1);
        let ca = CertificateDer::from_pem_file(self.directory.path().join("ca.pem")).expect("it was written");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca).expect("it is an authority's");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has it")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone));
        let client = match shown {
            None => client.with_no_client_auth(),
            Some((certificate, pair)) => {
                let key = PrivateKeyDer::from_pem_slice(pair.serialize_pem().as_bytes()).expect("a key");
                client.with_client_auth_cert(vec![certificate.der().clone()], key).expect("they belong together")
            }
        };
        Tls { client: Arc::new(client), server: proper.server }
    }
}

/// Believes every server: a stranger does not care.
#[derive(Debug)]
struct Anyone;

mod anyone {
    use super::Anyone;
    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for Anyone {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}
