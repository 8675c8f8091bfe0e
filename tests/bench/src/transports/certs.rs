//! Certificates for a run: an authority and nodes that it lives only as long as, on loopback.

use chronik_link::tls::NODE_URI;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use std::path::Path;

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum CertsError {
    #[error("certificates for the run cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error("certificates for the run cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

/// Makes `ca.pem`, and `node-ID.pem` and `node-ID.key` for each node, in a directory that nobody else can read.
pub fn make(directory: &Path, nodes: &[i32]) -> Result<(), CertsError> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    std::fs::write(directory.join("ca.pem"), params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    for node in nodes {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names.push(SanType::URI(format!("{NODE_URI}{node}").try_into()?));
        std::fs::write(directory.join(format!("node-{node}.pem")), params.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(directory.join(format!("node-{node}.key")), key.serialize_pem())?;
    }
    Ok(())
}
