//! Whose certificate is accepted, and what a refusal says; and what comes in place of TLS.

use kairos_sync::postgres::{SourceConfig, TlsMode};
use rcgen::{CertificateParams, date_time_ymd};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Authority, HOST, Server, assert_refused, outcome};

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
