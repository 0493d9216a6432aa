//! Streams over HTTP: what a client is told, and when a stream ends or is refused.

use super::*;

#[tokio::test]
async fn a_client_gets_its_rows_then_what_changes_and_nothing_of_others() {
    let service = start().await;
    service.commit(1, &[("anna", "a1"), ("ben", "b1")]);
    let mut anna = service.stream("anna").await;
    assert_eq!(anna.response.headers()["content-type"], "application/x-ndjson");
    assert_eq!(anna.response.headers()["x-accel-buffering"], "no");
    assert_eq!(anna.until_complete().await, (vec!["a1".to_owned()], None));
    service.commit(2, &[("ben", "b2")]);
    service.commit(3, &[("anna", "a2")]);
    assert_eq!(anna.until_complete().await, (vec!["a2".to_owned()], None));
}

#[tokio::test]
async fn a_client_that_waits_for_the_first_state_gets_it() {
    let service = start().await;
    let mut anna = service.stream("anna").await;
    let ready = service.client.get(service.url("/probes/readiness")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::BAD_REQUEST);
    let probe: Value = ready.json().await.unwrap();
    assert_eq!(probe["reason"], "no checkpoint is visible yet: connecting to the source");
    assert_eq!(probe["replication"]["phase"], "connecting");
    service.commit(1, &[("anna", "a1")]);
    assert_eq!(anna.until_complete().await.0, ["a1"]);
    let ready = service.client.get(service.url("/probes/readiness")).send().await.unwrap();
    assert_eq!(ready.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_client_that_returns_gets_only_what_it_misses() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    service.commit(2, &[("anna", "a2")]);
    let bucket = format!("{}by_user[\"anna\"]", service.store.bucket_prefix().unwrap());
    let body = json!({"raw_data": true, "buckets": [{"name": bucket, "after": "1"}]});
    let response = service.post("/sync/stream", "anna", &body).send().await.unwrap();
    let mut anna = Lines { response, rest: Vec::new() };
    assert_eq!(anna.until_complete().await.0, ["a2"]);
}

#[tokio::test]
async fn what_is_stored_in_parts_ends_no_stream_and_is_told_as_a_whole() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    for id in ["a2", "a3"] {
        service.commit_part(2, &[("anna", id)], false);
        assert!(tokio::time::timeout(Duration::from_millis(50), anna.next()).await.is_err(), "nothing is told");
    }
    service.commit(2, &[("anna", "a4")]);
    assert_eq!(anna.until_complete().await.0, ["a2", "a3", "a4"]);
}

#[tokio::test]
async fn a_write_checkpoint_comes_once_the_source_has_passed_it_and_only_to_its_client() {
    let service = start().await;
    service.commit(1, &[]);
    let (mut anna, mut ben) = (service.stream("anna").await, service.stream("ben").await);
    anna.until_complete().await;
    ben.until_complete().await;
    let url = service.url("/write-checkpoint2.json?client_id=phone");
    let request = service.client.get(url).header("authorization", format!("Bearer {}", token("anna")));
    let answer: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(answer, json!({"data": {"write_checkpoint": "1"}}));
    service.commit(99, &[("anna", "a1"), ("ben", "b1")]);
    assert_eq!(anna.until_complete().await, (vec!["a1".to_owned()], None), "not passed yet");
    service.commit(100, &[]);
    assert_eq!(anna.until_complete().await, (vec![], Some(1)));
    service.commit(101, &[("anna", "a2"), ("ben", "b2")]);
    assert_eq!(anna.until_complete().await, (vec!["a2".to_owned()], Some(1)), "repeated in each diff");
    let (mut rows, mut write_checkpoint) = ben.until_complete().await;
    if rows.len() < 2 {
        let (more, later) = ben.until_complete().await;
        rows.extend(more);
        write_checkpoint = write_checkpoint.or(later);
    }
    assert_eq!((rows, write_checkpoint), (vec!["b1".to_owned(), "b2".to_owned()], None));
}

#[tokio::test]
async fn a_client_may_request_a_write_checkpoint_with_its_own_id() {
    let service = start().await;
    service.commit(1, &[]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    let request = async |body: Value| service.post("/sync/checkpoint-request", "anna", &body).send().await.unwrap();
    for id in [json!("42"), json!(42), json!("41")] {
        let answer: Value =
            request(json!({"client_id": "phone", "checkpoint_request_id": id})).await.json().await.unwrap();
        assert_eq!(answer, json!({"data": {"checkpoint_request_id": "42"}}));
    }
    service.commit(100, &[]);
    assert_eq!(anna.until_complete().await, (vec![], Some(42)));
    for body in [
        json!({"client_id": "phone", "checkpoint_request_id": "0"}),
        json!({"client_id": "phone", "checkpoint_request_id": -1}),
        json!({"client_id": "phone", "checkpoint_request_id": "9223372036854775808"}),
        json!({"checkpoint_request_id": "1"}),
        json!({"client_id": "phone"}),
    ] {
        assert_eq!(error_of(request(body).await).await, (400, "PSYNC_S2001".to_owned()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_commit_is_missed_however_fast_they_come() {
    let service = Arc::new(start().await);
    service.commit(1, &[]);
    let mut anna = service.stream("anna").await;
    let committer = tokio::task::spawn_blocking({
        let service = Arc::clone(&service);
        move || (2..=500).for_each(|lsn| service.commit(lsn, &[("anna", &format!("a{lsn}")), ("ben", "b")]))
    });
    let mut ids = Vec::new();
    while ids.len() < 499 {
        let (more, _) = tokio::time::timeout(DEADLINE, anna.until_complete()).await.expect("all commits arrive");
        ids.extend(more);
    }
    committer.await.unwrap();
    assert_eq!(ids, (2..=500).map(|lsn| format!("a{lsn}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_change_after_silence_is_told_at_once_and_the_next_has_to_wait() {
    let checkpoint_interval_min = Duration::from_hours(1);
    let service = start_with(2, SyncLimits { checkpoint_interval_min, ..SYNC_LIMITS }).await;
    service.commit(1, &[("anna", "a1")]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    service.commit(2, &[("anna", "a2")]);
    assert_eq!(anna.until_complete().await.0, ["a2"]);
    service.commit(3, &[("anna", "a3")]);
    assert!(tokio::time::timeout(Duration::from_millis(100), anna.next()).await.is_err());
}

#[tokio::test]
async fn what_changes_within_an_interval_is_one_checkpoint() {
    let checkpoint_interval_min = Duration::from_millis(50);
    let service = start_with(2, SyncLimits { checkpoint_interval_min, ..SYNC_LIMITS }).await;
    service.commit(1, &[]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    let started = Instant::now();
    let (mut ids, mut checkpoints) = (Vec::new(), 0);
    for lsn in 2..=200 {
        service.commit(lsn, &[("anna", &format!("a{lsn}"))]);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    while ids.len() < 199 {
        ids.extend(anna.until_complete().await.0);
        checkpoints += 1;
    }
    assert_eq!(ids, (2..=200).map(|lsn| format!("a{lsn}")).collect::<Vec<_>>());
    let intervals = started.elapsed().as_millis() / checkpoint_interval_min.as_millis();
    assert!(checkpoints <= intervals + 1, "{checkpoints} in {intervals} intervals");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_clients_share_one_reader_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteOptions { reader_count: 1, ..SqliteOptions::default() };
    let store = Arc::new(SqliteStore::open(folder.path(), options).unwrap());
    let service = start_on(store, 100, SYNC_LIMITS).await;
    service.commit(1, &[("anna", "a1")]);
    let clients = (0..50).map(|_| async {
        let mut anna = service.stream("anna").await;
        assert_eq!(anna.until_complete().await.0, ["a1"]);
    });
    let all = futures_util::future::join_all(clients);
    tokio::time::timeout(DEADLINE, all).await.expect("nobody waits for a second reader");
}

#[tokio::test]
async fn clients_of_long_ago_get_nested_data() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let mut response = service.post("/sync/stream", "anna", &json!({})).send().await.unwrap();
    let mut text = String::new();
    while !text.contains("checkpoint_complete") {
        text.push_str(std::str::from_utf8(&response.chunk().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.contains(r#""data":{"id":"a1"}"#), "{text}");
}

#[tokio::test]
async fn a_stream_ends_with_its_token() {
    let service = start().await;
    service.commit(1, &[]);
    let token = token_of_a_second("anna");
    let request = service.client.post(service.url("/sync/stream")).json(&json!({}));
    let response = request.header("authorization", format!("Token {token}")).send().await.unwrap();
    let mut lines = Lines { response, rest: Vec::new() };
    let mut last = None;
    while let Some(line) = lines.next().await {
        last = Some(line);
    }
    assert_eq!(last, Some(SyncLine::TokenExpiresIn(0)));
}

#[tokio::test]
async fn a_reset_of_the_store_ends_the_streams_of_the_old_generation() {
    let service = start().await;
    service.commit(1, &[("anna", "a1")]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    service.store.reset().unwrap();
    service.hub.publish(&service.store.commit(Batch::default()).unwrap());
    assert_eq!(anna.next().await, None);
}

#[tokio::test]
async fn streams_end_when_the_service_stops() {
    let service = start().await;
    service.commit(1, &[]);
    let mut anna = service.stream("anna").await;
    anna.until_complete().await;
    service.shutdown.send(true).unwrap();
    assert_eq!(anna.next().await, None);
}

#[tokio::test]
async fn too_many_streams_are_refused_without_a_body() {
    let service = start_with(1, SYNC_LIMITS).await;
    service.commit(1, &[]);
    let open = service.stream("anna").await;
    let refused = service.post("/sync/stream", "anna", &json!({})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.text().await.unwrap(), "");
    let metrics = service.client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"kairos_requests_refused_total{code="PSYNC_S2304"} 1"#), "{metrics}");
    drop(open);
    let deadline = Instant::now() + DEADLINE;
    while service.post("/sync/stream", "anna", &json!({})).send().await.unwrap().status() != StatusCode::OK {
        assert!(Instant::now() < deadline, "the place is given back");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn too_many_buckets_are_an_error_that_names_their_definition() {
    let service = start_with(1, SyncLimits { bucket_count_max: 0, ..SYNC_LIMITS }).await;
    service.commit(1, &[]);
    let refused = service.post("/sync/stream", "anna", &json!({})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["error"]["code"], json!("PSYNC_S2305"));
    assert!(body["error"]["description"].as_str().unwrap().contains("1 of them come from `by_user`"), "{body}");
}
