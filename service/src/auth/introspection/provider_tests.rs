use std::sync::atomic::Ordering::SeqCst;

use futures_util::future::join_all;

use super::*;
use crate::{
    auth::introspection::{
        Confirmation,
        test_issuer::{TIME_TO_ANSWER, introspection, issuer},
    },
    metrics::Metrics,
};

fn provider(url: &str, addresses: AddressRules, metrics: &Metrics) -> Arc<Provider> {
    Arc::new(Provider::new(introspection(url), addresses, metrics.introspections.clone()).unwrap())
}

async fn code(provider: &Arc<Provider>, token: &str) -> &'static str {
    Confirmation::of(provider, token).await.err().map_or("accepted", |error| error.code())
}

#[tokio::test]
async fn only_success_is_a_yes_and_only_silence_is_temporary() {
    let (issuer, metrics) = (issuer().await, Metrics::new());
    let provider = provider(&issuer.url, AddressRules::default(), &metrics);
    for (token, expected) in [
        ("ann", "accepted"),
        ("400", "PSYNC_S2101"),
        ("401", "PSYNC_S2101"),
        ("403", "PSYNC_S2101"),
        ("404", "PSYNC_S2101"),
        ("204", "AUTH-0102"),
        ("302", "AUTH-0101"),
        ("408", "AUTH-0101"),
        ("429", "AUTH-0101"),
        ("500", "AUTH-0101"),
        ("503", "AUTH-0101"),
        ("..", "PSYNC_S2101"),
    ] {
        assert_eq!(code(&provider, token).await, expected, "{token}");
    }
    assert_eq!(issuer.questions.load(SeqCst), 11, "dots are no token");
    let counted = |result: &str| metrics.introspections.with_label_values(&[result]).get();
    assert_eq!((counted("confirmed"), counted("refused"), counted("unanswered")), (1, 6, 5));
}

#[tokio::test]
async fn one_question_serves_all_who_ask_about_a_token() {
    let issuer = issuer().await;
    let provider = provider(&issuer.url, AddressRules::default(), &Metrics::new());
    let codes = join_all((0..100).map(|_| code(&provider, "ann"))).await;
    assert!(codes.iter().all(|code| *code == "accepted"), "{codes:?}");
    assert_eq!(code(&provider, "ann").await, "accepted");
    assert_eq!(issuer.questions.load(SeqCst), 1);
}

#[tokio::test]
async fn many_tokens_are_asked_about_a_few_at_a_time() {
    let issuer = issuer().await;
    let provider = provider(&issuer.url, AddressRules::default(), &Metrics::new());
    let users: Vec<String> = (0..3 * ASKED_MAX).map(|number| format!("user-{number}")).collect();
    let codes = join_all(users.iter().map(|user| code(&provider, user))).await;
    assert!(codes.iter().all(|code| *code == "accepted"), "{codes:?}");
    assert_eq!(issuer.questions.load(SeqCst), users.len());
    assert_eq!(issuer.most_at_once.load(SeqCst), ASKED_MAX);
}

#[tokio::test]
async fn who_does_not_wait_leaves_the_question_to_others() {
    let issuer = issuer().await;
    let provider = provider(&issuer.url, AddressRules::default(), &Metrics::new());
    assert!(timeout(TIME_TO_ANSWER / 10, code(&provider, "ann")).await.is_err());
    assert_eq!(code(&provider, "ann").await, "accepted");
    assert_eq!(issuer.questions.load(SeqCst), 1);
}

#[tokio::test]
async fn an_issuer_that_is_away_or_at_a_rejected_address_is_no_refusal() {
    let metrics = Metrics::new();
    let away = provider("http://127.0.0.1:1/me", AddressRules::default(), &metrics);
    assert_eq!(code(&away, "ann").await, "AUTH-0101");
    let issuer = issuer().await;
    let local = AddressRules { local: true, ..AddressRules::default() };
    let rejected = provider(&issuer.url, local, &metrics);
    let error = Confirmation::of(&rejected, "ann").await.unwrap_err();
    assert!(error.is_temporary() && error.to_string().contains("jwks_reject_ip_ranges"), "{error}");
    assert_eq!(issuer.questions.load(SeqCst), 0);
}
