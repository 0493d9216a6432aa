//! Whose certificate is accepted, and what a refusal says; and what comes in place of TLS.

use std::{io, sync::Arc};

use kairos_sync::postgres::{SourceConfig, TlsMode};
use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, date_time_ymd};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Authority, HOST, PASSWORD, Server, assert_refused, outcome};

const ROLE: &str = "postgres";

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_is_refused_with_the_reason() {
    use TlsMode::{VerifyCa, VerifyFull};
    let server = Server::start().await;
    let source = |tls| server.source(ROLE, None, tls);
    let unnamed = |tls| SourceConfig { tls_server_name: None, ..source(tls) };
    assert_eq!(outcome(&source(VerifyFull)).await, Ok(()));
    assert_refused(outcome(&unnamed(VerifyFull)).await, "PG-0104", "`tls_servername`", "an address is no name");
    assert_eq!(outcome(&unnamed(VerifyCa)).await, Ok(()), "the name does not matter");
    let other = |tls| SourceConfig { ca_certificate: Some(Authority::new().certificate()), ..source(tls) };
    assert_refused(outcome(&other(VerifyFull)).await, "PG-0104", "`cacert`", "of another authority");
    assert_refused(outcome(&other(VerifyCa)).await, "PG-0104", "`cacert`", "of another authority");

    let past = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    };
    let future = |params: &mut CertificateParams| {
        (params.not_before, params.not_after) = (date_time_ymd(2901, 1, 1), date_time_ymd(2902, 1, 1));
    };
    for (name, (certificate, key), says) in [
        ("expired", server.authority.certify(&[HOST], past), "expired"),
        ("early", server.authority.certify(&[HOST], future), "not valid yet"),
    ] {
        server.install(name, &certificate, &key).await;
        assert_refused(outcome(&source(VerifyFull)).await, "PG-0104", says, name);
        assert_refused(outcome(&source(VerifyCa)).await, "PG-0104", says, name);
    }
    let (certificate, key) = server.authority.certify(&["other.test", "127.0.0.1"], |_| {});
    server.install("other", &certificate, &key).await;
    assert_refused(outcome(&source(VerifyFull)).await, "PG-0104", "`tls_servername`", "of another host");
    assert_eq!(outcome(&source(VerifyCa)).await, Ok(()), "the name does not matter");
    assert_eq!(outcome(&unnamed(VerifyFull)).await, Ok(()), "its address is in the certificate");

    server.set("ssl", "off").await;
    assert_refused(outcome(&source(VerifyFull)).await, "PG-0103", "`ssl = on`", "without TLS");
}

/// Answers every connection's first message in this way, and ends it.
async fn answering(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            // Who has left already got no answer.
            let _ = stream.write_all(answer).await;
        }
    });
    port
}

#[tokio::test]
async fn what_is_no_answer_to_tls_is_told_from_a_refusal_of_it() {
    let server = Server::start().await;
    for (answer, tls, code, case) in [
        (&b""[..], TlsMode::VerifyFull, "PG-0110", "the end"),
        (b"S", TlsMode::VerifyFull, "PG-0110", "the end in the handshake"),
        (b"N", TlsMode::VerifyFull, "PG-0103", "no"),
        (b"E\0\0\0\x0dSFATAL\0\0", TlsMode::VerifyFull, "PG-0112", "an error"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", TlsMode::VerifyFull, "PG-0112", "another protocol"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", TlsMode::Disable, "PG-0112", "another protocol"),
        (b"", TlsMode::Disable, "PG-0110", "the end, without TLS"),
        (b"SR\0\0\0\x08\0\0\0\0", TlsMode::VerifyFull, "PG-0104", "something unprotected behind the yes"),
    ] {
        let source = SourceConfig { port: answering(answer).await, ..server.source(ROLE, None, tls) };
        assert_refused(outcome(&source).await, code, "", case);
    }
}

/// Takes TLS off, with a certificate of its own, and speaks TLS with the server itself.
async fn between(server: &Server, (certificate, key): (String, String)) -> u16 {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).map(|der| der.expect("PEM")).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let provider = Arc::new(ring::default_provider());
    let ours = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let ours = ours.expect("versions").with_no_client_auth().with_single_cert(chain, key).expect("a key of its own");
    let mut roots = RootCertStore::empty();
    let authority = server.authority.certificate();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("an authority");
    let theirs = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let theirs = theirs.expect("versions").with_root_certificates(roots).with_no_client_auth();
    let (acceptor, connector) = (TlsAcceptor::from(Arc::new(ours)), TlsConnector::from(Arc::new(theirs)));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let (port, server) = (listener.local_addr().expect("an address").port(), server.cluster.port());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, connector) = (acceptor.clone(), connector.clone());
            tokio::spawn(async move { drop(relay(client, server, acceptor, connector).await) });
        }
    });
    port
}

async fn relay(mut client: TcpStream, server: u16, acceptor: TlsAcceptor, connector: TlsConnector) -> io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    let mut request = [0; 8];
    client.read_exact(&mut request).await?;
    server.write_all(&request).await?;
    client.write_u8(server.read_u8().await?).await?;
    let mut client = acceptor.accept(client).await?;
    let mut server = connector.connect(ServerName::try_from(HOST).expect("a name"), server).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

#[tokio::test]
async fn a_password_is_tied_to_the_certificate_of_the_server() {
    let mut server = Server::start().await;
    let role = format!("CREATE ROLE app LOGIN REPLICATION PASSWORD '{PASSWORD}'");
    server.client.batch_execute(&role).await.expect("creates the role");
    server.write("pg_hba.conf", "host all app all scram-sha-256\nhost all all all trust").await;
    for (name, algorithm, is_tied) in [
        ("sha256", &PKCS_ECDSA_P256_SHA256, true),
        ("sha384", &PKCS_ECDSA_P384_SHA384, true),
        // For which no hash is defined: the password is proven without.
        ("ed25519", &PKCS_ED25519, false),
    ] {
        server.authority = Authority::signing_with(algorithm);
        let (certificate, key) = server.authority.certify(&[HOST], |_| {});
        server.install(name, &certificate, &key).await;
        let source = server.source("app", Some(PASSWORD), TlsMode::VerifyFull);
        assert_eq!(outcome(&source).await, Ok(()), "{name}");
        let port = between(&server, server.authority.certify(&[HOST], |_| {})).await;
        let outcome = outcome(&SourceConfig { port, ..source }).await;
        if is_tied {
            assert_refused(outcome, "PG-0106", "channel binding", name);
        } else {
            assert_eq!(outcome, Ok(()), "{name}");
        }
    }
}
