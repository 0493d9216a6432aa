//! Start-up and authentication, the same for all connections.

use bytes::BytesMut;
use postgres_protocol::{
    authentication::{md5_hash, sasl},
    message::{
        backend::{AuthenticationSaslBody, ErrorFields, Message},
        frontend,
    },
};

use tokio_postgres::fallible_iterator::FallibleIterator;

use crate::postgres::{
    channel_binding::tls_server_end_point,
    connect::APPLICATION_NAME,
    error::PgError,
    frame::{Framed, server_error},
    source::SourceConfig,
};

/// Brings a fresh connection to the point where it takes commands. Gives what the server said of the session, as it
/// was sent.
pub(super) async fn start_session(
    framed: &mut Framed,
    source: &SourceConfig,
    further: &[(&str, &str)],
) -> Result<BytesMut, PgError> {
    let mut parameters = vec![
        ("user", source.user.as_str()),
        ("database", source.database.as_str()),
        ("application_name", APPLICATION_NAME),
    ];
    parameters.extend_from_slice(further);
    let mut request = BytesMut::new();
    frontend::startup_message(parameters, &mut request).map_err(|_| PgError::Uri("a zero byte".to_owned()))?;
    framed.write(&request).await?;
    authenticate(framed, source).await?;
    framed.begun();
    let mut said = BytesMut::new();
    loop {
        let frame = framed.read().await?;
        said.extend_from_slice(frame.as_bytes());
        match frame.parse()? {
            Message::ReadyForQuery(_) => return Ok(said),
            Message::ErrorResponse(body) => return Err(refusal(source, body.fields())),
            Message::ParameterStatus(_) | Message::BackendKeyData(_) | Message::NoticeResponse(_) => {}
            _ => return Err(PgError::Protocol("one out of order at the start of a session")),
        }
    }
}

fn refusal(source: &SourceConfig, fields: ErrorFields<'_>) -> PgError {
    PgError::while_connecting(server_error(fields), source)
}

async fn authenticate(framed: &mut Framed, source: &SourceConfig) -> Result<(), PgError> {
    loop {
        match framed.read().await?.parse()? {
            Message::AuthenticationOk => return Ok(()),
            Message::AuthenticationSasl(body) => scram(framed, source, &body).await?,
            Message::AuthenticationMd5Password(body) => {
                let hash = md5_hash(source.user.as_bytes(), password(source)?, body.salt());
                send_password(framed, hash.as_bytes()).await?;
            }
            Message::AuthenticationCleartextPassword if framed.is_private() => {
                send_password(framed, password(source)?).await?;
            }
            Message::AuthenticationCleartextPassword => {
                return Err(PgError::AuthenticationMethod("the password in the clear on a connection without TLS"));
            }
            Message::ErrorResponse(body) => return Err(refusal(source, body.fields())),
            Message::NoticeResponse(_) => {}
            _ => return Err(PgError::AuthenticationMethod("a method of authentication that is not supported")),
        }
    }
}

fn password(source: &SourceConfig) -> Result<&[u8], PgError> {
    let password =
        source.password.as_ref().ok_or(PgError::AuthenticationMethod("a password, and none is configured"))?;
    Ok(password.reveal().as_bytes())
}

async fn send_password(framed: &mut Framed, text: &[u8]) -> Result<(), PgError> {
    let mut answer = BytesMut::new();
    frontend::password_message(text, &mut answer).map_err(|_| PgError::Uri("a zero byte".to_owned()))?;
    framed.write(&answer).await
}

async fn scram(framed: &mut Framed, source: &SourceConfig, offer: &AuthenticationSaslBody) -> Result<(), PgError> {
    let offers = |wanted: &str| offer.mechanisms().any(|name| Ok(name == wanted)).unwrap_or(false);
    let binding = framed.server_certificate().and_then(tls_server_end_point);
    let (mechanism, binding) = match binding {
        Some(hash) if offers(sasl::SCRAM_SHA_256_PLUS) => {
            (sasl::SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash))
        }
        // Tells the server, so that it notices when somebody between took its offer away.
        Some(_) => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unrequested()),
        None => (sasl::SCRAM_SHA_256, sasl::ChannelBinding::unsupported()),
    };
    if !offers(mechanism) {
        return Err(PgError::AuthenticationMethod("a SASL mechanism other than SCRAM-SHA-256"));
    }
    let lied = |_| PgError::Protocol("a SCRAM message which proves that the server does not know the password");
    let mut exchange = sasl::ScramSha256::new(password(source)?, binding);
    let mut answer = BytesMut::new();
    frontend::sasl_initial_response(mechanism, exchange.message(), &mut answer).map_err(lied)?;
    framed.write(&answer).await?;
    match framed.read().await?.parse()? {
        Message::AuthenticationSaslContinue(body) => exchange.update(body.data()).map_err(lied)?,
        Message::ErrorResponse(body) => return Err(refusal(source, body.fields())),
        _ => return Err(PgError::Protocol("one out of order during SCRAM")),
    }
    answer.clear();
    frontend::sasl_response(exchange.message(), &mut answer).map_err(lied)?;
    framed.write(&answer).await?;
    match framed.read().await?.parse()? {
        Message::AuthenticationSaslFinal(body) => exchange.finish(body.data()).map_err(lied),
        Message::ErrorResponse(body) => Err(refusal(source, body.fields())),
        _ => Err(PgError::Protocol("one out of order during SCRAM")),
    }
}
