//! Promises about rules that change.

use kairos_sync_rules::NamePrefixes;

use super::{
    super::{Dependency, DeploymentNumber, RANGE_OPERATIONS_MAX, StoreStats, StoredRules},
    *,
};

fn rules(serving: u64, state: &'static str) -> StoredRules {
    StoredRules { serving: DeploymentNumber(serving), state: Bytes::from_static(state.as_bytes()) }
}

pub(in crate::storage) fn rules_are_stored_with_what_they_serve<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    assert_eq!((store.rules().unwrap(), store.view().unwrap().serving()), (None, DeploymentNumber(0)));
    let commit = store.commit(Batch { rules: Some(rules(3, "first")), ..batch(vec![]) }).unwrap();
    assert_eq!(commit.serving, DeploymentNumber(3));
    let before = store.view().unwrap();
    assert_eq!(store.commit(batch(vec![put("b", "1")])).unwrap().serving, DeploymentNumber(3));
    assert_eq!(store.rules().unwrap(), Some(rules(3, "first")), "a batch that says nothing of rules leaves them");
    store.commit(Batch { rules: Some(rules(4, "second")), ..batch(vec![]) }).unwrap();
    assert_eq!(before.serving(), DeploymentNumber(3));
    drop(before);
    drop(store);
    let store = engine.open();
    assert_eq!(
        (store.rules().unwrap(), store.view().unwrap().serving()),
        (Some(rules(4, "second")), DeploymentNumber(4))
    );
    store.reset().unwrap();
    assert_eq!((store.rules().unwrap(), store.view().unwrap().serving()), (None, DeploymentNumber(0)));
}

/// Forgets step by step.
fn forget_all(store: &dyn BucketStore, names: &NamePrefixes, limit: u32) {
    for _ in 0..10_000 {
        if !store.forget(names, limit).unwrap() {
            return;
        }
    }
    panic!("there is always more to forget");
}

pub(in crate::storage) fn what_is_forgotten_is_gone_and_nothing_else<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let prefix = store.bucket_prefix().unwrap();
    let bucket = |own: &str| format!("{prefix}{own}");
    let own_names = ["old[1]", "old[2]", "old[3]", "older[1]", "1#old[1]"];
    // Some of them folded, some not.
    for round in 0..30 {
        let operations = own_names.map(|own| put(&bucket(own), &round.to_string()));
        store.commit(batch(operations.to_vec())).unwrap();
    }
    let stored = row("image", own_names.map(|own| output(&bucket(own), "1")).to_vec());
    let entries = |key_text: &str| (lookup(key_text), key(1, "a"), values(&["v"]));
    store
        .commit(Batch {
            rows: vec![(key(1, "a"), Some(stored.clone()))],
            lookups: vec![entries(r#"["x","1"]"#), entries(r#"["x","2"]"#), entries(r#"["xy","1"]"#)],
            dependents: vec![
                (lookup(r#"["x","1"]"#), key(1, "a"), Dependency::Added),
                (lookup(r#"["xy","1"]"#), key(1, "a"), Dependency::Added),
            ],
            ..batch(vec![])
        })
        .unwrap();
    let before = store.view().unwrap().bucket(&name(&bucket("older[1]"))).unwrap();
    forget_all(&*store, &NamePrefixes { buckets: vec!["old[".to_owned()], lookups: vec![r#"["x""#.to_owned()] }, 2);

    let check = |store: &dyn BucketStore| {
        let view = store.view().unwrap();
        let upto = view.checkpoint().unwrap().op_id;
        let count = |own: &str| {
            let count = view.bucket(&name(&bucket(own))).unwrap().count;
            let read = read_all(store, &name(&bucket(own)), OpId::ZERO, upto, RANGE_OPERATIONS_MAX).unwrap();
            assert_eq!(read.len() as u64, count, "{own}");
            count
        };
        assert_eq!(own_names.map(count), [0, 0, 0, 30, 30]);
        assert_eq!(view.bucket(&name(&bucket("older[1]"))).unwrap(), before);
        drop(view);
        let outputs = store.row(&key(1, "a")).unwrap().unwrap().outputs;
        assert_eq!(outputs, [output(&bucket("older[1]"), "1"), output(&bucket("1#old[1]"), "1")]);
        let has = |key_text: &str| !store.lookup_entries(&lookup(key_text)).unwrap().is_empty();
        assert_eq!([r#"["x","1"]"#, r#"["x","2"]"#, r#"["xy","1"]"#].map(has), [false, false, true]);
        let asked = |key_text: &str| store.dependents(&lookup(key_text), None, 9).unwrap().len();
        assert_eq!([asked(r#"["x","1"]"#), asked(r#"["xy","1"]"#)], [0, 1]);
        let StoreStats { bucket_count, operation_count, row_count, .. } = store.stats().unwrap();
        assert_eq!((bucket_count, operation_count, row_count), (2, 60, 1));
    };
    check(&*store);
    drop(store);
    let store = engine.open();
    check(&*store);

    // A bucket of the same name is another one.
    store.commit(batch(vec![put(&bucket("old[1]"), "new")])).unwrap();
    assert_eq!(store.view().unwrap().bucket(&name(&bucket("old[1]"))).unwrap().count, 1);
}
