//! TLS towards Postgres.

use std::{io, sync::Arc};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject},
};

use crate::postgres::{
    error::PgError,
    source::{SourceConfig, TlsMode},
};

/// What to verify with, or `None` for a plain connection.
pub(super) fn client_config(source: &SourceConfig) -> Result<Option<Arc<ClientConfig>>, PgError> {
    if source.tls == TlsMode::Disable {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(trusted_roots(source.ca_certificate.as_deref())?);
    let unusable = |error: &dyn std::fmt::Display| PgError::Certificates(error.to_string());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&error))?;
    let config = if source.tls == TlsMode::VerifyFull {
        builder.with_root_certificates(roots).with_no_client_auth()
    } else {
        let chain = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| unusable(&error))?;
        let verifier = Arc::new(AnyName { chain, provider });
        builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
    };
    Ok(Some(Arc::new(config)))
}

/// Why no TLS came about.
pub(super) fn failure(address: String, source: io::Error) -> PgError {
    use CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet, NotValidYetContext,
        UnknownIssuer,
    };
    // Anything else is an end of the connection, which TLS did not cause.
    let Some(error) = source.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return PgError::Lost(source);
    };
    let problem = match error {
        Error::InvalidCertificate(UnknownIssuer) => {
            "its certificate comes from an authority that is not trusted here; give that authority's certificate \
             (`cacert`)"
        }
        Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
            "its certificate is for another name; connect to a name it has, or give one of them (`tls_servername`)"
        }
        Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
            "its certificate, or the authority's, has expired; renew it"
        }
        Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
            "its certificate, or the authority's, is not valid yet; check the clocks of both hosts"
        }
        Error::InvalidCertificate(_) => {
            "its certificate cannot be used; give the authority's certificate, not the server's own (`cacert`)"
        }
        _ => "the two sides do not agree; see the cause in the log",
    };
    PgError::Tls { address, problem, source }
}

fn trusted_roots(pem: Option<&str>) -> Result<RootCertStore, PgError> {
    let mut roots = RootCertStore::empty();
    if let Some(pem) = pem {
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|_| PgError::Certificates("`cacert` is not PEM".to_owned()))?;
            roots.add(certificate).map_err(|error| PgError::Certificates(format!("`cacert`: {error}")))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        let problem = match pem {
            Some(_) => "`cacert` holds no certificate",
            None => "this system trusts no authority: install ca-certificates, or give `cacert`",
        };
        return Err(PgError::Certificates(problem.to_owned()));
    }
    Ok(roots)
}

/// Verifies the chain as usual, and accepts any name in it: what `verify-ca` means.
#[derive(Debug)]
struct AnyName {
    chain: Arc<WebPkiServerVerifier>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The chain is verified before the name is looked at, so an error about the name proves the chain.
        match self.chain.verify_server_cert(certificate, intermediates, name, ocsp_response, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
