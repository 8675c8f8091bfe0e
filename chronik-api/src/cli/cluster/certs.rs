//! `chronik cluster certs`: a certificate authority and a certificate per node, for trying out and for small private
//! clusters. Whoever has an authority of their own needs none of this: a node's certificate must only name the node as the
//! URI `urn:chronik:node:ID`, and be good for both ends of a connection.

use crate::cli::output::Failure;
use clap::Args;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a node's certificate names it as, before its id.
const NODE_URI: &str = "urn:chronik:node:";

#[derive(Args, Debug)]
pub(in crate::cli) struct CertsArgs {
    /// Where the files go; made if need be
    directory: PathBuf,
    /// Ids of the nodes
    #[arg(long, value_delimiter = ',', default_value = "1,2,3")]
    nodes: Vec<i32>,
    /// Names and addresses under which the nodes are reached, all of them by every node
    #[arg(long, value_delimiter = ',', default_value = "127.0.0.1,localhost")]
    hosts: Vec<String>,
}

pub(super) fn run(args: &CertsArgs) -> Result<(), Failure> {
    make(&args.directory, &args.nodes, &args.hosts)?;
    let mut out = std::io::stdout();
    let at = |name: &str| args.directory.join(name).display().to_string();
    writeln!(out, "The authority's certificate is {}; its key, {}, is needed only", at("ca.pem"), at("ca.key"))?;
    writeln!(out, "to make more: keep it away from the nodes. On node 1, write into the configuration:\n")?;
    writeln!(out, "[cluster.tls]")?;
    let node = args.nodes.first().copied().unwrap_or(1);
    for (key, file) in
        [("cert", format!("node-{node}.pem")), ("key", format!("node-{node}.key")), ("ca", "ca.pem".into())]
    {
        writeln!(out, "{key} = \"{}\"", at(&file))?;
    }
    Ok(())
}

/// Makes `ca.pem`, `ca.key`, and `node-ID.pem`, `node-ID.key` for each node. An authority that is there already is used, and
/// what nodes have already stays.
pub(in crate::cli) fn make(directory: &Path, nodes: &[i32], hosts: &[String]) -> Result<(), Failure> {
    let failed = |what: &str, why: &dyn std::fmt::Display| Failure::failed(format!("cannot {what}: {why}"));
    fs::create_dir_all(directory).map_err(|why| failed(&format!("make {}", directory.display()), &why))?;
    let (certificate, key) = (directory.join("ca.pem"), directory.join("ca.key"));
    let issuer = if certificate.exists() && key.exists() {
        let read =
            |path: &Path| fs::read_to_string(path).map_err(|why| failed(&format!("read {}", path.display()), &why));
        let key = KeyPair::from_pem(&read(&key)?).map_err(|why| failed("read the authority's key", &why))?;
        let issuer = rcgen::Issuer::from_ca_cert_pem(&read(&certificate)?, key);
        issuer.map_err(|why| failed("read the authority's certificate", &why))?
    } else {
        let (pem, pair) = authority().map_err(|why| failed("make an authority", &why))?;
        write_public(&certificate, &pem)?;
        write_secret(&key, &pair.serialize_pem())?;
        rcgen::Issuer::from_ca_cert_pem(&pem, pair).map_err(|why| failed("make an authority", &why))?
    };
    for node in nodes {
        let (certificate, secret) =
            (directory.join(format!("node-{node}.pem")), directory.join(format!("node-{node}.key")));
        if certificate.exists() && secret.exists() {
            continue;
        }
        let made =
            of_node(*node, hosts, &issuer).map_err(|why| failed(&format!("make node {node}'s certificate"), &why));
        let (pem, key) = made?;
        write_secret(&secret, &key)?;
        write_public(&certificate, &pem)?;
    }
    Ok(())
}

fn authority() -> Result<(String, KeyPair), rcgen::Error> {
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name("chronik cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok((params.self_signed(&pair)?.pem(), pair))
}

fn of_node(node: i32, hosts: &[String], issuer: &rcgen::Issuer<'_, KeyPair>) -> Result<(String, String), rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = name(&format!("chronik node {node}"));
    params.subject_alt_names.push(SanType::URI(format!("{NODE_URI}{node}").try_into()?));
    for host in hosts {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn write_public(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|why| Failure::failed(format!("cannot write {}: {why}", path.display())))
}

/// Readable by its owner alone.
fn write_secret(path: &Path, text: &str) -> Result<(), Failure> {
    let file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|why| Failure::failed(format!("cannot write {}: {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_made_once_keys_are_secret_and_more_nodes_get_theirs_from_the_same_authority() {
        let dir = tempfile::tempdir().expect("a directory");
        let read = |name: &str| fs::read_to_string(dir.path().join(name)).expect(name);
        make(dir.path(), &[1, 2], &["127.0.0.1".into()]).expect("made");
        let before = (read("ca.pem"), read("node-1.pem"));
        make(dir.path(), &[1, 2, 3], &["127.0.0.1".into(), "node-3.example.org".into()]).expect("made");
        assert_eq!(before, (read("ca.pem"), read("node-1.pem")));
        assert!(read("node-3.pem").contains("BEGIN CERTIFICATE"));
        let mode = fs::metadata(dir.path().join("node-3.key")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
