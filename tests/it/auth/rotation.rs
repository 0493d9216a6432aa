//! T45: the endpoint with the keys is slow, down, huge, elsewhere, or has new keys.

use std::time::Duration;

use kairos_tests::service::eventually;
use tokio::time::{Instant, sleep};

use super::{
    issuer::{AUDIENCE, Issuer},
    key_endpoint::{Answer, KeyEndpoint},
    service::{Service, keys_from},
};

/// Nothing here takes so long, unless it hangs.
const DEADLINE: Duration = Duration::from_mins(2);

/// Tries until a token is accepted; how long that took.
async fn until_accepted(service: &Service, token: &str) -> Duration {
    let began = Instant::now();
    while let Some(code) = service.refusal(token).await {
        assert!(began.elapsed() < DEADLINE, "still {code}:\n{}", service.process.log_tail());
        sleep(Duration::from_millis(200)).await;
    }
    began.elapsed()
}

#[tokio::test]
async fn t45_a_new_key_is_accepted_within_half_a_minute_and_a_removed_one_no_more() {
    let (old, new) = (Issuer::elliptic("2025"), Issuer::elliptic("2026"));
    let endpoint = KeyEndpoint::start(Answer::keys(&[&old])).await;
    let service = Service::start(&keys_from(&[&endpoint])).await;
    assert_eq!(service.refusal(&old.token("anna")).await, None);
    endpoint.answer(Answer::keys(&[&new]));
    // The worst moment: keys were fetched just now.
    let took = until_accepted(&service, &new.token("anna")).await;
    println!("a new key is accepted after {took:?}, {} fetches", endpoint.count());
    assert_eq!(endpoint.count(), 2, "one fetch found it");
    assert_eq!(service.refusal(&old.token("anna")).await.as_deref(), Some("PSYNC_S2101"));
    // Half a minute after the last fetch: the first request with the new key is accepted, none is refused.
    sleep(Duration::from_secs(31)).await;
    endpoint.answer(Answer::keys(&[&old, &new]));
    assert_eq!(service.refusal(&old.token("anna")).await, None, "the request waits for the fetch");
}

#[tokio::test]
async fn t45_keys_stay_while_the_endpoint_is_down() {
    let (known, unknown) = (Issuer::elliptic("known"), Issuer::elliptic("unknown"));
    let endpoint = KeyEndpoint::start(Answer::keys(&[&known])).await;
    let service = Service::start(&keys_from(&[&endpoint])).await;
    assert_eq!(service.refusal(&known.token("anna")).await, None);
    endpoint.answer(Answer::Status(503));
    sleep(Duration::from_secs(31)).await;
    assert_eq!(service.refusal(&unknown.token("anna")).await.as_deref(), Some("PSYNC_S2101"));
    assert_eq!(endpoint.count(), 2, "it was looked for");
    assert_eq!(service.refusal(&known.token("anna")).await, None);
}

#[tokio::test]
async fn t45_an_endpoint_that_is_down_at_first_is_asked_ever_less_often_and_found_again() {
    let issuer = Issuer::elliptic("key");
    let endpoint = KeyEndpoint::start(Answer::Status(500)).await;
    let service = Service::start(&keys_from(&[&endpoint])).await;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(8) {
        assert_eq!(service.refusal(&issuer.token("anna")).await.as_deref(), Some("PSYNC_S2204"));
    }
    // At 0, 1, 3 and 7 seconds.
    assert!((2..=4).contains(&endpoint.count()), "{} fetches", endpoint.count());
    assert!(service.log().contains("status 500"), "{}", service.log());
    endpoint.answer(Answer::keys(&[&issuer]));
    until_accepted(&service, &issuer.token("anna")).await;
}

#[tokio::test]
async fn t45_a_slow_endpoint_is_waited_for_a_moment_and_its_answer_serves_later_requests() {
    let issuer = Issuer::elliptic("key");
    let Answer::Body(body, _) = Answer::keys(&[&issuer]) else { panic!("a body") };
    let endpoint = KeyEndpoint::start(Answer::Body(body.clone(), Duration::from_secs(1))).await;
    let service = Service::start(&keys_from(&[&endpoint])).await;
    assert_eq!(service.refusal(&issuer.token("anna")).await, None, "a second is waited for");
    let slow = KeyEndpoint::start(Answer::Body(body, Duration::from_secs(6))).await;
    let service = Service::start(&keys_from(&[&slow])).await;
    let began = Instant::now();
    assert_eq!(service.refusal(&issuer.token("anna")).await.as_deref(), Some("PSYNC_S2204"));
    println!("a slow endpoint: refused after {:?}", began.elapsed());
    until_accepted(&service, &issuer.token("anna")).await;
    assert_eq!(slow.count(), 1, "requests that wait share one fetch");
}

#[tokio::test]
async fn t45_an_answer_without_an_end_is_given_up_at_a_mebibyte() {
    let issuer = Issuer::elliptic("key");
    // What is loaded with the first fetch is no cost of the next.
    let endpoint = KeyEndpoint::start(Answer::Status(500)).await;
    let service = Service::start(&keys_from(&[&endpoint])).await;
    service.warm_up(&issuer.token("anna")).await;
    let memory = service.memory();
    endpoint.answer(Answer::Endless);
    eventually(true, async || {
        service.refusal(&issuer.token("anna")).await;
        service.log().contains("larger than 1 MiB")
    })
    .await;
    let grown = memory.grown();
    println!("an endless answer: {} KiB more", grown / 1024);
    assert!(grown < 8 << 20, "{grown} bytes more");
}

#[tokio::test]
async fn t45_redirects_and_local_addresses_are_not_followed() {
    let issuer = Issuer::elliptic("key");
    let inner = KeyEndpoint::start(Answer::keys(&[&issuer])).await;
    let outer = KeyEndpoint::start(Answer::Redirect(inner.uri())).await;
    let service = Service::start(&keys_from(&[&outer])).await;
    assert_eq!(service.refusal(&issuer.token("anna")).await.as_deref(), Some("PSYNC_S2204"));
    assert_eq!((outer.count(), inner.count()), (1, 0));

    // By number, and by a name that leads there.
    for host in ["127.0.0.1", "localhost"] {
        for rule in
            ["block_local_jwks: true", "jwks_reject_ip_ranges: [local]", "jwks_reject_ip_ranges: [127.0.0.0/8, '::1']"]
        {
            let uri = inner.uri().replace("127.0.0.1", host);
            let service = Service::start(&format!("  audience: {AUDIENCE}\n  jwks_uri: {uri}\n  {rule}\n")).await;
            assert_eq!(service.refusal(&issuer.token("anna")).await.as_deref(), Some("PSYNC_S2203"), "{host} {rule}");
            assert_eq!(service.refused("PSYNC_S2203").await, 1);
        }
    }
    assert_eq!(inner.count(), 0);
}

#[tokio::test]
async fn t45_one_endpoint_that_is_down_does_not_keep_out_the_users_of_another() {
    let issuer = Issuer::elliptic("key");
    let [bad, good] = [Answer::Status(500), Answer::keys(&[&issuer])].map(KeyEndpoint::start);
    let (bad, good) = (bad.await, good.await);
    let service = Service::start(&keys_from(&[&bad, &good])).await;
    assert_eq!(service.refusal(&issuer.token("anna")).await, None);
    let unknown = Issuer::elliptic("unknown").token("anna");
    assert_eq!(service.refusal(&unknown).await.as_deref(), Some("PSYNC_S2204"), "the key may be where nobody answers");
}
