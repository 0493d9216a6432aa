//! Which answers are known, and for how long. Pure: the time and the questions come from the caller.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use futures_util::future::{BoxFuture, Shared};
use lru::LruCache;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::answer::Identity;
use crate::auth::AuthError;

/// Answers that are kept; the one not needed for longest goes first. About 10 MB where claims are small.
const ANSWERS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// For how long a no is believed at most: a token may be refused because its issuer has not heard of it yet.
const KEEP_REFUSAL: Duration = Duration::from_secs(5);
/// For how long nobody asks again after there was no answer.
const KEEP_FAILURE: Duration = Duration::from_secs(1);

/// What is known of a token.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    pub(super) result: Result<Arc<Identity>, AuthError>,
    /// When to ask again.
    pub(super) until: Instant,
}

impl Answered {
    /// `asked` is when the question was put: a token may have been revoked just after. A yes is believed for
    /// `keep_for`.
    pub(super) fn new(result: Result<Arc<Identity>, AuthError>, asked: Instant, keep_for: Duration) -> Self {
        let kept = match &result {
            Ok(_) => keep_for,
            Err(error) if error.is_temporary() => KEEP_FAILURE.min(keep_for),
            Err(_) => KEEP_REFUSAL.min(keep_for),
        };
        // A question that took longer than an answer is kept is still answered to all who wait for it.
        Self { result, until: asked + kept }
    }
}

/// An answer that is there or will be.
pub(super) type Question = Shared<BoxFuture<'static, Answered>>;

/// Answers by the hash of their token.
pub(super) struct AnswerCache(LruCache<[u8; 32], Question>);

impl AnswerCache {
    pub(super) fn new() -> Self {
        Self(LruCache::new(ANSWERS_MAX))
    }

    /// What is known of a token or being asked; else what `ask` begins.
    pub(super) fn get(&mut self, token: &str, now: Instant, ask: impl FnOnce() -> Question) -> Question {
        let key = Sha256::digest(token).into();
        let known = self.0.get(&key).filter(|known| known.peek().is_none_or(|answered| now < answered.until));
        known.cloned().unwrap_or_else(|| {
            let question = ask();
            self.0.put(key, question.clone());
            question
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use serde_json::Map;

    use super::*;
    use crate::auth::FetchError;

    const KEEP_FOR: Duration = Duration::from_secs(30);

    fn ann() -> Arc<Identity> {
        Arc::new(Identity { user_id: "ann".to_owned(), claims: Map::new() })
    }

    fn refusal() -> AuthError {
        AuthError::NotConfirmed { url: String::new(), answer: String::new() }
    }

    fn failure() -> AuthError {
        AuthError::NotAsked { url: String::new(), cause: FetchError::Busy }
    }

    /// Asks about a token with this answer; whether it had to be asked.
    fn is_asked(cache: &mut AnswerCache, token: &str, now: Instant, result: Result<Arc<Identity>, AuthError>) -> bool {
        let mut asked = false;
        let question = cache.get(token, now, || {
            asked = true;
            async move { Answered::new(result, now, KEEP_FOR) }.boxed().shared()
        });
        question.now_or_never().expect("answered at once");
        asked
    }

    #[test]
    fn a_yes_is_believed_for_the_configured_time_a_no_and_a_failure_for_less() {
        for (result, seconds) in [(Ok(ann()), 30), (Err(refusal()), 5), (Err(failure()), 1)] {
            let (mut cache, start) = (AnswerCache::new(), Instant::now());
            assert!(is_asked(&mut cache, "token", start, result.clone()));
            let end = start + Duration::from_secs(seconds);
            let before = end.checked_sub(Duration::from_millis(1)).expect("later than the start");
            assert!(!is_asked(&mut cache, "token", before, result.clone()), "{result:?}");
            assert!(is_asked(&mut cache, "other", before, result.clone()), "another token");
            assert!(is_asked(&mut cache, "token", end, result.clone()), "{result:?}");
        }
        let short = Answered::new(Err(refusal()), Instant::now(), Duration::from_secs(2));
        assert!(short.until <= Instant::now() + Duration::from_secs(2), "no longer than a yes");
    }

    #[test]
    fn a_question_under_way_is_not_put_again() {
        let (mut cache, start) = (AnswerCache::new(), Instant::now());
        let first = cache.get("token", start, || std::future::pending().boxed().shared());
        let late = start + 10 * KEEP_FOR;
        let second = cache.get("token", late, || panic!("it is being asked"));
        assert!(first.ptr_eq(&second));
    }

    #[test]
    fn a_flood_of_tokens_does_not_fill_the_memory() {
        let (mut cache, start) = (AnswerCache::new(), Instant::now());
        for number in 0..ANSWERS_MAX.get() + 500 {
            is_asked(&mut cache, &number.to_string(), start, Err(refusal()));
            is_asked(&mut cache, "used", start, Ok(ann()));
        }
        assert_eq!(cache.0.len(), ANSWERS_MAX.get());
        assert!(!is_asked(&mut cache, "used", start, Ok(ann())), "what is needed stays");
        assert!(is_asked(&mut cache, "0", start, Err(refusal())));
    }
}
