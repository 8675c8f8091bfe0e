//! Certificates between nodes: both ends show one, and it names its node.
//!
//! The node is bound to the certificate by a URI among its alternative names, `urn:chronik:node:ID`; which hosts it names
//! does not matter, since it is a node that is dialled and not a host. TLS 1.3 only; keys of the *ring* provider, which
//! builds with a C compiler alone.

use crate::link::LinkError;
use chronik_core::ids::NodeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, ServerConfig, SignatureScheme,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a node's certificate names it as, before its id.
pub const NODE_URI: &str = "urn:chronik:node:";

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path} cannot be read: {why}")]
    Unreadable { path: PathBuf, why: String },
    #[error("{path} holds no certificate")]
    NoCertificate { path: PathBuf },
    #[error("the certificates cannot be used")]
    Unusable(#[from] rustls::Error),
    #[error("the authority's certificates cannot be used: {0}")]
    Authority(String),
    #[error("{path} is the certificate of {whose}, and this is node {node}: a node's names {NODE_URI}{node}")]
    OtherNode { path: PathBuf, whose: String, node: NodeId },
}

/// Both sides' configuration of this node.
#[derive(Clone)]
pub struct Tls {
    pub client: Arc<ClientConfig>,
    pub server: Arc<ServerConfig>,
}

impl Tls {
    /// From PEM files: the node's chain, its key, the authority. Checks that the certificate is this node's.
    pub fn load(node: NodeId, cert: &Path, key: &Path, ca: &Path) -> Result<Self, TlsError> {
        let unreadable =
            |path: &Path, why: &dyn std::fmt::Display| TlsError::Unreadable { path: path.into(), why: why.to_string() };
        let chain = |path: &Path| -> Result<Vec<CertificateDer<'static>>, TlsError> {
            let read = CertificateDer::pem_file_iter(path).map_err(|why| unreadable(path, &why))?;
            let read: Vec<_> = read.collect::<Result<_, _>>().map_err(|why| unreadable(path, &why))?;
            if read.is_empty() { Err(TlsError::NoCertificate { path: path.into() }) } else { Ok(read) }
        };
        let own = chain(cert)?;
        let whose = own.first().and_then(node_of);
        if whose != Some(node) {
            let whose = whose.map_or("no node".into(), |whose| format!("node {whose}"));
            return Err(TlsError::OtherNode { path: cert.into(), whose, node });
        }
        let key = || PrivateKeyDer::from_pem_file(key).map_err(|why| unreadable(key, &why));
        let mut roots = RootCertStore::empty();
        for authority in chain(ca)? {
            roots.add(authority)?;
        }
        let roots = Arc::new(roots);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = &[&rustls::version::TLS13];
        let authority = |why: &dyn std::fmt::Display| TlsError::Authority(why.to_string());
        let server_verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|why| authority(&why))?;
        let client_verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|why| authority(&why))?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyHost(server_verifier)))
            .with_client_auth_cert(own.clone(), key()?)?;
        let server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)?
            .with_client_cert_verifier(client_verifier)
            .with_single_cert(own, key()?)?;
        Ok(Self { client: Arc::new(client), server: Arc::new(server) })
    }
}

/// The node that a certificate names, if it names exactly one.
pub fn node_of(certificate: &CertificateDer<'_>) -> Option<NodeId> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let nodes = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(NODE_URI)?.parse().ok().map(NodeId),
        _ => None,
    });
    let mut nodes = nodes.fuse();
    nodes.next().filter(|_| nodes.next().is_none())
}

/// The node that a peer's certificate, which has been checked, names.
pub fn node_of_peer(chain: Option<&[CertificateDer<'_>]>) -> Result<NodeId, LinkError> {
    let named = chain.and_then(<[_]>::first).and_then(node_of);
    named.ok_or_else(|| LinkError::Untrusted(std::io::Error::other("its certificate names no node")))
}

/// Checks all of a certificate but the host that it names: that it names the right *node* is checked by the handshake.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is looked at last, when everything else is right.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
