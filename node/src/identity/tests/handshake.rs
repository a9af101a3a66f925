use super::*;
use rustls::{ClientConfig, HandshakeKind, ServerConfig, ServerConnection};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use std::{io, sync::Arc};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What each side saw of the other.
struct Seen {
    client: Option<String>,
    server: Option<String>,
    alpn: Option<Vec<u8>>,
    kind: Option<HandshakeKind>,
}

fn peer(certificates: Option<&[CertificateDer<'_>]>) -> Option<String> {
    certificates.map(|chain| PeerCertificate::parse(&chain[0]).unwrap().spiffe.to_string())
}

/// A handshake and one byte each way over memory; errors of (client, server).
async fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> (io::Result<Seen>, io::Result<()>) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_u8().await?;
        let seen = peer(stream.get_ref().1.peer_certificates());
        stream.write_u8(1).await?;
        stream.flush().await?;
        Ok::<_, io::Error>(seen)
    };
    let dial = async {
        // Not a name of the certificate: identity is the SPIFFE id.
        let name = ServerName::try_from("nobody.invalid").unwrap();
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_u8(1).await?;
        stream.flush().await?;
        stream.read_u8().await?;
        let tls = stream.get_ref().1;
        Ok::<_, io::Error>((
            peer(tls.peer_certificates()),
            tls.alpn_protocol().map(<[u8]>::to_vec),
            tls.handshake_kind(),
        ))
    };
    match tokio::join!(dial, serve) {
        (Ok((server, alpn, kind)), Ok(client)) => (Ok(Seen { client, server, alpn, kind }), Ok(())),
        (dialled, served) => {
            let lost = || io::Error::other("the other side failed");
            (Err(dialled.err().unwrap_or_else(lost)), served.map(drop))
        }
    }
}

/// A client that trusts `ca` and presents whatever it is told to.
fn client(issued: Option<&Issued>, ca: &Ca) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pem::certificates(ca.cert_pem().as_bytes()).unwrap().remove(0)).unwrap();
    let builder = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match issued {
        None => builder.with_no_client_auth(),
        Some(issued) => {
            let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![issued.der().clone()], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// A server with any certificate, as a node dials it.
fn server(issued: &Issued, ca: &Ca) -> Arc<ServerConfig> {
    let key = key::NodeKey::from_pem(issued.key_pem.as_bytes()).unwrap();
    let roots = pem::certificates(ca.cert_pem().as_bytes()).unwrap();
    let cluster = PeerCertificate::parse(issued.der()).unwrap().spiffe.cluster;
    let trust = Arc::new(Trust::new(cluster, roots).unwrap());
    tls::server_config(vec![issued.der().clone()], None, &key, trust).unwrap()
}

#[tokio::test]
async fn two_nodes_prove_who_they_are() {
    let ca = issuer("c");
    let (a, b) = (identity(&ca, "spiffe://c/coordinator/a"), identity(&ca, "spiffe://c/worker/b"));
    let seen = shake(a.peer_client_config(), b.server_config()).await.0.unwrap();
    assert_eq!(seen.client.as_deref(), Some("spiffe://c/coordinator/a"));
    assert_eq!(seen.server.as_deref(), Some("spiffe://c/worker/b"));
    assert_eq!(seen.alpn.as_deref(), Some(b"h2".as_slice()));
    assert_eq!(seen.kind, Some(HandshakeKind::Full));

    let again = shake(a.peer_client_config(), b.server_config()).await.0.unwrap();
    assert_eq!(again.kind, Some(HandshakeKind::Resumed));
    assert_eq!(again.client, seen.client, "a resumed session knows its client");
    assert_eq!(again.server, seen.server);
}

#[tokio::test]
async fn a_client_without_certificate_is_let_in_as_nobody() {
    let ca = issuer("c");
    let mut leaf = request("spiffe://c/worker/b");
    leaf.sans = vec!["nobody.invalid".parse().unwrap()];
    let issued = ca.issue(&leaf).unwrap();
    let seen = shake(client(None, &ca), server(&issued, &ca)).await.0.unwrap();
    assert_eq!(seen.client, None);
    assert_eq!(seen.alpn.as_deref(), Some(b"http/1.1".as_slice()));

    let admin = ca.issue(&request("spiffe://c/admin/alice")).unwrap();
    let seen = shake(client(Some(&admin), &ca), server(&issued, &ca)).await.0.unwrap();
    assert_eq!(seen.client.as_deref(), Some("spiffe://c/admin/alice"));
}

#[tokio::test]
async fn tls_1_2_clients_prove_who_they_are_too() {
    let ca = issuer("c");
    let node = identity(&ca, "spiffe://c/worker/b");
    let admin = ca.issue(&request("spiffe://c/admin/alice")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(admin.key_pem.as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(vec![admin.der().clone()], key)
        .unwrap();
    let verifier = Arc::new(tls::Verifier::new(node.trust()));
    config.dangerous().set_certificate_verifier(verifier);
    let seen = shake(Arc::new(config), node.server_config()).await.0.unwrap();
    assert_eq!(seen.client.as_deref(), Some("spiffe://c/admin/alice"));
    assert_eq!(seen.server.as_deref(), Some("spiffe://c/worker/b"));
}

/// What both sides say when a client presents `issued` to a node of cluster `c` below `ca`.
async fn client_refused(issued: &Issued, ca: &Ca) -> (String, String) {
    let mut leaf = request("spiffe://c/worker/b");
    leaf.sans = vec!["nobody.invalid".parse().unwrap()];
    let node = ca.issue(&leaf).unwrap();
    // Both protocol ends differ in when the client learns of it; the sentence must be the same.
    let (dialled, served) = shake(client(Some(issued), ca), server(&node, ca)).await;
    let dialled = dialled.err().expect("the client learns of it");
    (explain::handshake(&dialled), explain::handshake(&served.expect_err("the server refuses")))
}

#[tokio::test]
async fn clients_that_do_not_belong_are_refused_with_a_reason() {
    let ca = old_issuer("c");
    let (dialled, served) = client_refused(&ca.issue(&expired("spiffe://c/worker/w")).unwrap(), &ca).await;
    assert!(served.starts_with("the peer's certificate expired on 20"), "{served}");
    assert!(
        dialled.starts_with("the peer says that our certificate is expired or not yet valid"),
        "{dialled}"
    );

    let validity = Validity { not_before: in_days(2), not_after: in_days(9) };
    let early = ca.issue(&LeafRequest { validity, ..request("spiffe://c/worker/w") }).unwrap();
    let (_, served) = client_refused(&early, &ca).await;
    assert!(served.starts_with("the peer's certificate is not valid until 20"), "{served}");

    let foreign = issuer("c").issue(&request("spiffe://c/worker/w")).unwrap();
    let (dialled, served) = client_refused(&foreign, &ca).await;
    assert!(served.contains("issued by another CA"), "{served}");
    assert!(dialled.starts_with("the peer does not trust the CA that issued our certificate"), "{dialled}");

    let signer = ca.issue(&request("spiffe://c/token-signer/c-1")).unwrap();
    let (dialled, served) = client_refused(&signer, &ca).await;
    assert!(served.ends_with("may not connect as a client: its role is token-signer"), "{served}");
    assert!(dialled.starts_with("the peer refused our certificate, usually for its cluster id"), "{dialled}");
}

/// A CA made elsewhere, which may issue for any cluster.
fn neutral_ca() -> Ca {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    Ca::from_pem(&params.self_signed(&key).unwrap().pem(), &key.serialize_pem()).unwrap()
}

#[tokio::test]
async fn another_cluster_below_the_same_ca_is_kept_out_on_both_sides() {
    let ca = neutral_ca();
    let (ours, theirs) = (identity(&ca, "spiffe://c/worker/a"), identity(&ca, "spiffe://d/worker/b"));
    let (dialled, _) = shake(ours.peer_client_config(), theirs.server_config()).await;
    let sentence = explain::handshake(&dialled.err().unwrap());
    let expected = "the peer was refused: spiffe://d/worker/b belongs to cluster d, not to cluster c";
    assert_eq!(sentence, expected);

    let foreign = ca.issue(&request("spiffe://d/worker/b")).unwrap();
    let (_, served) = client_refused(&foreign, &ca).await;
    assert_eq!(served, expected);
}

#[tokio::test]
async fn a_dialled_server_must_be_a_node_in_time() {
    let ca = old_issuer("c");
    let dialler = identity(&ca, "spiffe://c/worker/a");
    for (leaf, reason) in [
        (request("spiffe://c/admin/alice"), "may not serve as a node: its role is admin"),
        (expired("spiffe://c/worker/b"), "the peer's certificate expired on"),
    ] {
        let (dialled, _) = shake(dialler.peer_client_config(), server(&ca.issue(&leaf).unwrap(), &ca)).await;
        let sentence = explain::handshake(&dialled.err().unwrap());
        assert!(sentence.contains(reason), "{sentence}");
    }
    let other = issuer("c");
    let impostor = server(&other.issue(&request("spiffe://c/worker/b")).unwrap(), &other);
    let (dialled, served) = shake(dialler.peer_client_config(), impostor).await;
    assert!(explain::handshake(&dialled.err().unwrap()).contains("issued by another CA"));
    assert!(explain::handshake(&served.unwrap_err()).contains("does not trust the CA that issued our"));
}

#[tokio::test]
async fn a_reload_shows_in_the_next_handshake() {
    let (ca, directory) = (issuer("c"), tempfile::tempdir().unwrap());
    let first = ca.issue(&request("spiffe://c/worker/b")).unwrap();
    let files = place(directory.path(), &first, ca.cert_pem());
    let store = IdentityStore::load(files, expect("b", false), now()).unwrap();
    let dialler = identity(&ca, "spiffe://c/worker/a");
    let serial = |seen: &IdentityStore| seen.current().chain_der()[0].clone();
    shake(dialler.peer_client_config(), store.current().server_config()).await.0.unwrap();
    assert_eq!(store.reload(now()).unwrap(), Reloaded::Unchanged);

    let (before, held) = (serial(&store), store.current());
    let second = ca.issue(&request("spiffe://c/worker/b")).unwrap();
    place(directory.path(), &second, ca.cert_pem());
    assert_eq!(store.reload(now()).unwrap(), Reloaded::Replaced);
    assert_ne!(serial(&store), before);
    assert_eq!(held.chain_der()[0], before, "who holds the old identity keeps it whole");
    let seen = shake(dialler.peer_client_config(), store.current().server_config()).await.0.unwrap();
    assert_eq!(seen.kind, Some(HandshakeKind::Full), "sessions of the old identity are not resumed");

    // Another CA in the file: those below the old one are strangers from now on.
    let other = issuer("c");
    place(directory.path(), &other.issue(&request("spiffe://c/worker/b")).unwrap(), other.cert_pem());
    assert_eq!(store.reload(now()).unwrap(), Reloaded::Replaced);
    let (dialled, _) = shake(dialler.peer_client_config(), store.current().server_config()).await;
    assert!(explain::handshake(&dialled.err().unwrap()).contains("issued by another CA"));
}

#[test]
fn tls_1_1_is_refused() {
    let ca = issuer("c");
    let mut server = ServerConnection::new(identity(&ca, "spiffe://c/worker/b").server_config()).unwrap();
    // ClientHello of TLS 1.1: version 3.2, random, no session, ECDHE-ECDSA with AES-128-CBC, no compression.
    let body = [&[3, 2], [7; 32].as_slice(), &[0, 0, 2, 0xc0, 0x09, 1, 0]].concat();
    let handshake = [&[1, 0, 0, body.len() as u8], body.as_slice()].concat();
    let record = [&[22, 3, 1, 0, handshake.len() as u8], handshake.as_slice()].concat();
    server.read_tls(&mut record.as_slice()).unwrap();
    let error = server.process_new_packets().unwrap_err();
    let sentence = explain::tls(&error);
    assert!(sentence.starts_with("no common TLS version or cipher suite (TLS 1.2 or newer"), "{sentence}");
}

#[test]
fn every_cipher_suite_is_an_aead() {
    for suite in &tls::provider().cipher_suites {
        let name = format!("{:?}", suite.suite());
        assert!(name.contains("GCM") || name.contains("POLY1305"), "{name}");
    }
}

#[tokio::test]
async fn what_is_no_tls_is_said_to_be_none() {
    let (near, mut far) = tokio::io::duplex(1024);
    far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let config = identity(&issuer("c"), "spiffe://c/worker/a").peer_client_config();
    let name = ServerName::try_from("n").unwrap();
    let error = TlsConnector::from(config).connect(name, near).await.err().unwrap();
    assert!(explain::handshake(&error).starts_with("the peer does not speak TLS on this port"), "{error}");
    let closed = io::Error::from(io::ErrorKind::UnexpectedEof);
    assert!(explain::handshake(&closed).starts_with("the peer closed the connection during"));
    let none = explain::tls(&rustls::Error::NoCertificatesPresented);
    assert_eq!(none, "the peer presented no certificate");
}
