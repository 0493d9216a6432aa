//! Asking one issuer.

use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use prometheus::IntCounterVec;
use reqwest::{RequestBuilder, header::CONTENT_TYPE};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{
    Introspection,
    answer::{Identity, NoIdentity},
    cache::{AnswerCache, Answered, Question},
};
use crate::auth::{
    AuthError,
    address::AddressRules,
    http::{Answer, CheckedClient, FetchError},
    jwt::TOKEN_BYTES_MAX,
};

/// Questions under way at once; sign-in services of a household are small.
const ASKED_MAX: usize = 16;
/// Questions under way or waiting for their turn.
const WAITING_MAX: usize = 1000;

/// An issuer, and what it answered lately.
pub(in crate::auth) struct Provider {
    introspection: Introspection,
    client: CheckedClient,
    // Held to look something up, never while asking.
    answers: Mutex<AnswerCache>,
    turns: Semaphore,
    waiting: Semaphore,
    /// Questions by result.
    results: IntCounterVec,
}

impl Provider {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// When no HTTP client can be made, for lack of a TLS provider.
    pub(in crate::auth) fn new(
        introspection: Introspection,
        addresses: AddressRules,
        results: IntCounterVec,
    ) -> Result<Self, AuthError> {
        let client = CheckedClient::new(addresses, introspection.timeout)
            .map_err(|cause| AuthError::NotAsked { url: introspection.url.text().to_owned(), cause })?;
        Ok(Self {
            introspection,
            client,
            answers: Mutex::new(AnswerCache::new()),
            turns: Semaphore::new(ASKED_MAX),
            waiting: Semaphore::new(WAITING_MAX),
            results,
        })
    }

    /// Who a token speaks for, as far as this issuer says or said a moment ago.
    pub(super) async fn ask(self: &Arc<Self>, token: &str) -> Answered {
        let question = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.get(token, Instant::now(), || self.question(token.to_owned()))
        };
        question.await
    }

    /// In a task of its own: the answer serves others too, also when this request gives up.
    fn question(self: &Arc<Self>, token: String) -> Question {
        let (provider, asked, keep_for) = (Arc::clone(self), Instant::now(), self.introspection.keep_for);
        let answer = tokio::spawn(async move { provider.answer(&token).await });
        let failed = self.not_asked(FetchError::Pending);
        let answer = answer.map(move |result| Answered::new(result.unwrap_or(Err(failed)), asked, keep_for));
        answer.boxed().shared()
    }

    async fn answer(&self, token: &str) -> Result<Arc<Identity>, AuthError> {
        let result = match self.waiting.try_acquire() {
            Ok(_place) => timeout(self.introspection.timeout, self.put(token)).await,
            Err(_) => Ok(Err(self.not_asked(FetchError::Busy))),
        };
        let result = result.unwrap_or_else(|_| Err(self.not_asked(FetchError::Pending)));
        let label = match &result {
            Ok(_) => "confirmed",
            Err(error) if error.is_temporary() => "unanswered",
            Err(_) => "refused",
        };
        self.results.with_label_values(&[label]).inc();
        result.map(Arc::new)
    }

    async fn put(&self, token: &str) -> Result<Identity, AuthError> {
        // Nothing closes the semaphore.
        let _turn = self.turns.acquire().await;
        let request = self.request(token)?;
        let answer = self.client.send(request).await.map_err(|cause| self.not_asked(cause))?;
        self.identity(&answer)
    }

    fn request(&self, token: &str) -> Result<RequestBuilder, AuthError> {
        let Introspection { url, method, header, body, .. } = &self.introspection;
        // Dots alone would be a step up in the path, encoded or not.
        if token.len() > TOKEN_BYTES_MAX || token.bytes().all(|byte| byte == b'.') {
            return Err(AuthError::Malformed("it is larger than 16 KiB, or nothing but dots"));
        }
        let url = url.fill_encoded(token).parse().map_err(|_| self.not_asked(FetchError::Address))?;
        let mut request = self.client.request(method.clone(), url).map_err(|cause| self.not_asked(cause))?;
        if let Some((name, value)) = header {
            let value = reqwest::header::HeaderValue::try_from(value.fill(token));
            request = request.header(name, value.map_err(|_| AuthError::Malformed("it cannot stand in a header"))?);
        }
        Ok(match body {
            Some(body) => {
                request.header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body.fill_encoded(token))
            }
            None => request,
        })
    }

    fn identity(&self, answer: &Answer) -> Result<Identity, AuthError> {
        let url = || self.introspection.url.text().to_owned();
        match answer.status.as_u16() {
            200..=299 => self.introspection.answer.read(&answer.body).map_err(|reason| match reason {
                NoIdentity::Inactive => AuthError::NotConfirmed { url: url(), answer: "not active".to_owned() },
                NoIdentity::Useless(problem) => AuthError::UselessAnswer { url: url(), problem },
            }),
            // 408 and 429 are about the question, not about the token.
            status @ (408 | 429 | 0..=399 | 500..) => Err(self.not_asked(FetchError::Status(status))),
            status => Err(AuthError::NotConfirmed { url: url(), answer: format!("status {status}") }),
        }
    }

    fn not_asked(&self, cause: FetchError) -> AuthError {
        AuthError::NotAsked { url: self.introspection.url.text().to_owned(), cause }
    }
}

#[cfg(test)]
#[path = "provider_tests.rs"]
mod tests;
