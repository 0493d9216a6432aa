//! What becomes visible, and when.

use super::*;
use crate::store::account;

#[tokio::test]
async fn nothing_is_visible_before_its_checkpoint_is_complete() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    bench.perform([service.put("a", "h1", "Read")]).await;
    assert!(bench.habits().await.is_empty());
    assert_eq!(bench.perform([service.full()]).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Read"]);
}

#[tokio::test]
async fn data_survives_a_restart_and_the_download_continues_after_it() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    bench.perform([service.put("a", "h1", "Read"), service.put("a", "h2", "Run")]).await;
    let bench = bench.reopen(schema()).await;
    let states = bench.store.bucket_states().await.unwrap();
    assert_eq!((states[0].name.as_str(), states[0].last_op_id.get()), ("a", 2));
    assert_eq!((states[0].count_at_last, states[0].count_since_last), (0, 2));
    bench.perform([service.put("a", "h2", "Swim"), service.full()]).await;
    assert_eq!(bench.habits().await, ["h1|Read", "h2|Swim"]);
    let states = bench.store.bucket_states().await.unwrap();
    assert_eq!((states[0].count_at_last, states[0].count_since_last), (3, 0));
}

#[tokio::test]
async fn the_highest_operation_over_all_buckets_decides() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let old = service.put("a", "h1", "old");
    let new = service.put("b", "h1", "new");
    bench.perform([new, old, service.full()]).await;
    assert_eq!(bench.habits().await, ["h1|new"]);
    let newest = service.put("a", "h1", "newest");
    bench.perform([newest, service.full()]).await;
    assert_eq!(bench.habits().await, ["h1|newest"]);
}

#[tokio::test]
async fn a_row_removed_from_one_bucket_stays_while_another_has_it() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let steps = [service.put("a", "h1", "from a"), service.put("b", "h1", "from b"), service.full()];
    bench.perform(steps).await;
    let remove = service.remove("b", "h1");
    bench.perform([remove, service.full()]).await;
    assert_eq!(bench.habits().await, ["h1|from a"]);
    let remove = service.remove("a", "h1");
    bench.perform([remove, service.full()]).await;
    assert!(bench.habits().await.is_empty());
}

#[tokio::test]
async fn only_the_damaged_bucket_is_dropped_and_nothing_is_published() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let steps = [service.put("a", "h1", "Read"), service.put("b", "h2", "Run"), service.full()];
    bench.perform(steps).await;
    let lost = service.put("b", "h3", "lost on the way");
    let seen = service.put("a", "h1", "Write");
    let outcome = bench.perform([seen, service.full()]).await;
    assert_eq!(outcome, Some(Outcome::Damaged(vec!["b".to_owned()])));
    assert_eq!(bench.habits().await, ["h1|Read", "h2|Run"], "the app sees the last good state");
    let names: Vec<_> = bench.store.bucket_states().await.unwrap().into_iter().map(|state| state.name).collect();
    assert_eq!(names, ["a"], "the other is fetched from the start");

    let mut again = service.clone();
    again.buckets.remove("b");
    let steps = [again.put("b", "h2", "Run"), lost];
    let StoreStep::ApplyData(lost_line) = &steps[1] else { unreachable!() };
    again.bucket("b").checksum += lost_line.data[0].checksum;
    let outcome = bench.perform([steps[1].clone(), steps[0].clone(), again.full()]).await;
    assert_eq!(outcome, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Write", "h2|Run", "h3|lost on the way"]);
}

#[tokio::test]
async fn move_only_adds_up_and_clear_starts_again() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let steps = [service.put("a", "h1", "Read"), service.operation("a", OpKind::Move, None, None), service.full()];
    assert_eq!(bench.perform(steps).await, Some(PUBLISHED));
    let steps = [service.operation("a", OpKind::Clear, None, None), service.put("a", "h2", "Run"), service.full()];
    assert_eq!(bench.perform(steps).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h2|Run"]);
}

#[tokio::test]
async fn rows_of_a_deleted_bucket_disappear_with_the_next_checkpoint() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let steps = [service.put("a", "h1", "Read"), service.put("b", "h2", "Run"), service.full()];
    bench.perform(steps).await;
    service.buckets.remove("b");
    bench.perform([StoreStep::DeleteBuckets(vec!["b".to_owned()])]).await;
    assert_eq!(bench.habits().await, ["h1|Read", "h2|Run"]);
    bench.perform([service.full()]).await;
    assert_eq!(bench.habits().await, ["h1|Read"]);
}

#[tokio::test]
async fn local_writes_hold_a_checkpoint_back_until_it_contains_them() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let put = service.put("a", "h1", "Read");
    bench.perform([put, service.full()]).await;
    bench.execute("UPDATE habits SET name = 'Mine' WHERE id = 'h1'").await.unwrap();

    let other = service.put("a", "h2", "from another device");
    assert_eq!(bench.perform([other, service.full()]).await, Some(Outcome::Withheld), "queued");
    bench.upload(7).await;
    assert_eq!(bench.perform([service.full()]).await, Some(Outcome::Withheld), "not seen");
    service.write_checkpoint = Some(6);
    assert_eq!(bench.perform([service.full()]).await, Some(Outcome::Withheld), "seen, but an older one");
    assert_eq!(bench.habits().await, ["h1|Mine"]);

    let mine = service.put("a", "h1", "Mine");
    service.write_checkpoint = Some(7);
    assert_eq!(bench.perform([mine, service.full()]).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Mine", "h2|from another device"]);

    service.write_checkpoint = None;
    assert_eq!(bench.perform([service.full()]).await, Some(PUBLISHED), "nothing is awaited any more");
}

#[tokio::test]
async fn a_write_after_the_upload_closes_the_gate_again() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    bench.execute("INSERT INTO habits (id) VALUES ('h1')").await.unwrap();
    bench.upload(1).await;
    bench.execute("INSERT INTO habits (id) VALUES ('h2')").await.unwrap();
    service.write_checkpoint = Some(1);
    assert_eq!(bench.perform([service.full()]).await, Some(Outcome::Withheld));
}

#[tokio::test]
async fn a_part_shows_its_priorities_and_nothing_of_the_others() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    service.bucket("first").priority = 1;
    let steps = [service.put("first", "h1", "Read"), service.put("later", "h2", "Run")];
    bench.perform(steps).await;
    assert_eq!(bench.perform([service.complete(Scope::UpTo(1))]).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Read"]);
    assert_eq!(bench.perform([service.full()]).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Read", "h2|Run"]);
}

#[tokio::test]
async fn a_part_does_not_take_a_visible_row_back_to_an_older_operation() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    service.bucket("first").priority = 1;
    let old = service.put("first", "h1", "old");
    let put = service.put("later", "h1", "new");
    let (whole, early) = (service.clone(), service.buckets.remove("first").unwrap());
    bench.perform([put, service.full()]).await;
    service.buckets.insert("first".to_owned(), early);
    bench.perform([old, whole.complete(Scope::UpTo(1))]).await;
    assert_eq!(bench.habits().await, ["h1|new"]);
}

#[tokio::test]
async fn a_bucket_that_became_less_urgent_is_not_shown_early() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    service.bucket("a").priority = 1;
    let put = service.put("a", "h1", "Read");
    bench.perform([put, service.full()]).await;
    service.bucket("a").priority = 3;
    let half = service.put("a", "h1", "half of a change");
    bench.perform([half, service.complete(Scope::UpTo(1))]).await;
    assert_eq!(bench.habits().await, ["h1|Read"]);
}

#[tokio::test]
async fn priority_0_passes_the_gate_but_spares_rows_written_locally() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    service.bucket("urgent").priority = 0;
    bench.execute("INSERT INTO habits (id, name) VALUES ('h1', 'Mine')").await.unwrap();
    let steps = [service.put("urgent", "h1", "Theirs"), service.put("urgent", "h2", "Run")];
    bench.perform(steps).await;
    assert_eq!(bench.perform([service.complete(Scope::UpTo(0))]).await, Some(PUBLISHED));
    assert_eq!(bench.habits().await, ["h1|Mine", "h2|Run"]);
    bench.upload(1).await;
    service.write_checkpoint = Some(1);
    bench.perform([service.full()]).await;
    assert_eq!(bench.habits().await, ["h1|Theirs", "h2|Run"]);
}

#[tokio::test]
async fn an_empty_bucket_adds_up_to_zero() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    service.bucket("empty");
    assert_eq!(bench.perform([service.full()]).await, Some(PUBLISHED));
}

#[tokio::test]
async fn rows_that_differ_in_their_subkey_are_kept_apart() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let with_subkey = |mut step: StoreStep, subkey: &str| {
        let StoreStep::ApplyData(line) = &mut step else { unreachable!() };
        line.data[0].subkey = Some(subkey.to_owned());
        step
    };
    let steps = [
        with_subkey(service.put("a", "h1", "one"), "s1"),
        with_subkey(service.put("a", "h1", "two"), "s2"),
        with_subkey(service.remove("a", "h1"), "s2"),
        service.full(),
    ];
    bench.perform(steps).await;
    assert_eq!(bench.habits().await, ["h1|one"]);
}

#[tokio::test]
async fn what_was_visible_once_is_known_by_priority() {
    let (bench, mut service) = (Bench::new().await, Service::default());
    let synced = |bench: &Bench| bench.store.local_state().first_synced_priority;
    let put = service.put("a", "h1", "Read");
    bench.perform([put]).await;
    assert_eq!(synced(&bench), None);
    for (scope, expected) in [(Scope::UpTo(1), 1), (Scope::UpTo(0), 1), (Scope::UpTo(2), 2), (Scope::Full, u8::MAX)] {
        bench.perform([service.complete(scope)]).await;
        assert_eq!(synced(&bench), Some(expected), "after {scope:?}");
    }
    let bench = bench.reopen(schema()).await;
    assert_eq!(synced(&bench), Some(u8::MAX));
    bench.store.write_as_sync(|tx| account::clear(tx)).await.unwrap();
    assert_eq!(synced(&bench), None);
}
