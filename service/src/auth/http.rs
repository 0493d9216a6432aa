//! Asking hosts that the configuration names, within bounds of time, size and place.

use std::{error::Error, net::SocketAddr, time::Duration};

use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header, redirect,
};

use super::{
    address::{AddressRules, Rejection},
    fetch::KEYS_MAX,
};

/// The largest answer that is read, counted after decompression.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Why there is no usable answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Nothing that could be asked.
    #[error("it is no address: write it like https://auth.example.com/.well-known/jwks.json")]
    Address,
    /// The address lies where keys must not come from.
    #[error("`{0}` is at an address that client_auth.jwks_reject_ip_ranges or block_local_jwks rejects")]
    Rejected(String),
    /// The address is of IPv6, and that is rejected.
    #[error("`{0}` has addresses of IPv6 only, which client_auth.block_local_jwks rejects")]
    Ipv6(String),
    /// The request failed.
    #[error("{0}")]
    Request(String),
    /// Another answer than keys.
    #[error("status {0}{hint}", hint = hint(*.0))]
    Status(u16),
    /// The answer has no end.
    #[error("the answer is larger than 1 MiB")]
    TooLarge,
    /// There are more keys than any issuer has.
    #[error("the answer has more than {KEYS_MAX} keys")]
    TooManyKeys,
    /// The answer is something else.
    #[error("the answer is not a JSON Web Key Set")]
    NotKeys,
    /// Too many other questions wait for this host.
    #[error("too many questions wait for an answer")]
    Busy,
    /// It takes longer than a request waits.
    #[error("no answer yet")]
    Pending,
}

const fn hint(status: u16) -> &'static str {
    match status {
        300..=399 => ": redirects are not followed, write the address they lead to",
        _ => "",
    }
}

/// A client that connects to allowed addresses only and follows no redirects.
pub(super) struct CheckedClient {
    client: Client,
    addresses: AddressRules,
}

/// An answer that was read whole.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

impl CheckedClient {
    /// Requests of this client end after `deadline`.
    ///
    /// # Errors
    /// When no HTTP client can be made for lack of a TLS provider.
    pub(super) fn new(addresses: AddressRules, deadline: Duration) -> Result<Self, FetchError> {
        // No redirects: the address was checked by whoever wrote the configuration, another one was not.
        let mut builder = Client::builder().redirect(redirect::Policy::none()).timeout(deadline);
        if !addresses.is_empty() {
            // A proxy would connect to addresses that nobody checks.
            builder = builder.no_proxy().dns_resolver(CheckedResolver(addresses.clone()));
        }
        let client = builder.build().map_err(|error| FetchError::Request(error.to_string()))?;
        Ok(Self { client, addresses })
    }

    /// Begins a request for JSON.
    ///
    /// # Errors
    /// When the address is one that must not be asked.
    pub(super) fn request(&self, method: Method, uri: Url) -> Result<RequestBuilder, FetchError> {
        self.check_literal(&uri)?;
        Ok(self.client.request(method, uri).header(header::ACCEPT, "application/json"))
    }

    /// Sends a request and reads the answer, whatever its status.
    ///
    /// # Errors
    /// [`FetchError`].
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Answer, FetchError> {
        let response = request.send().await.map_err(describe)?;
        let status = response.status();
        Ok(Answer { status, body: read_bounded(response).await? })
    }

    /// An address that is written as such is not resolved, so nobody else checks it.
    fn check_literal(&self, uri: &Url) -> Result<(), FetchError> {
        let host = uri.host_str().ok_or(FetchError::Address)?;
        let Ok(address) = host.trim_matches(['[', ']']).parse() else { return Ok(()) };
        self.addresses.check(address).map_err(|rejection| rejected(host, rejection))
    }
}

fn rejected(host: &str, rejection: Rejection) -> FetchError {
    match rejection {
        Rejection::Range => FetchError::Rejected(host.to_owned()),
        Rejection::Ipv6 => FetchError::Ipv6(host.to_owned()),
    }
}

/// What the client says, with its causes; the address stands beside it.
fn describe(error: reqwest::Error) -> FetchError {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(found) = inner.downcast_ref::<FetchError>() {
            return found.clone();
        }
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    FetchError::Request(text)
}

async fn read_bounded(mut response: Response) -> Result<Vec<u8>, FetchError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(describe)? {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(FetchError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// Resolves names to those of their addresses that are allowed. The client connects to what comes out of here and to
/// nothing else, so a name that changes its address between check and connection gains nothing.
struct CheckedResolver(AddressRules);

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed = allowed(&rules, name.as_str(), found)?;
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

fn allowed(rules: &AddressRules, name: &str, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, FetchError> {
    let mut rejection = None;
    let check = |address: &SocketAddr| rules.check(address.ip()).map_err(|reason| rejection = Some(reason)).is_ok();
    let allowed: Vec<SocketAddr> = found.into_iter().filter(check).collect();
    match rejection {
        Some(reason) if allowed.is_empty() => Err(rejected(name, reason)),
        _ => Ok(allowed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_addresses_the_allowed_ones_remain() {
        let addresses = |list: &[&str]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let rules = AddressRules { local: true, ipv6: true, ..AddressRules::default() };
        let mixed = addresses(&["127.0.0.1:0", "1.1.1.1:0", "[2606:4700::1111]:0"]);
        assert_eq!(allowed(&rules, "mixed", mixed), Ok(addresses(&["1.1.1.1:0"])));
        let local = addresses(&["127.0.0.1:0", "10.0.0.1:0"]);
        assert_eq!(allowed(&rules, "local", local), Err(FetchError::Rejected("local".to_owned())));
        let new = addresses(&["[2606:4700::1111]:0"]);
        assert_eq!(allowed(&rules, "new", new), Err(FetchError::Ipv6("new".to_owned())));
        assert_eq!(allowed(&rules, "none", Vec::new()), Ok(Vec::new()), "resolving failed, which is said elsewhere");
    }
}
