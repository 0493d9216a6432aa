//! One function per promise of the contract.

use kairos_sync_protocol::{WriteCheckpointId, operation::OpKind};

use super::{
    super::{
        BucketGrowth, BucketTotals, Checkpoint, DefinitionStats, Dependency, RANGE_OPERATIONS_MAX, StoreStats,
        WriteCheckpoint, WriteCheckpointKey,
    },
    *,
};

const NO_BOUND: usize = usize::MAX;

pub(in crate::storage) fn an_empty_store_has_nothing<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let view = store.view().unwrap();
    assert_eq!(view.checkpoint(), None);
    assert_eq!(view.bucket(&name("b")).unwrap(), BucketTotals::default());
    assert!(view.lookup(&lookup("l")).unwrap().is_empty());
    assert!(read_all(&*store, &name("b"), OpId::ZERO, op_id(9), NO_BOUND).unwrap().is_empty());
    assert_eq!(store.row(&key(1, "a")).unwrap(), None);
    assert!(store.rows_of_table(TableId(1), None, 9).unwrap().is_empty());
    assert!(store.lookup_entries(&lookup("l")).unwrap().is_empty());
    assert!(store.dependents(&lookup("l"), None, 9).unwrap().is_empty());
    assert_eq!(store.replication_state().unwrap(), None);
    assert_eq!(store.write_checkpoint(&WriteCheckpointKey("u".to_owned())).unwrap(), None);
}

pub(in crate::storage) fn op_ids_ascend_over_all_buckets<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    store.commit(batch(vec![put("b1", "1"), put("b2", "2"), put("b1", "3")])).unwrap();
    let commit = store.commit(batch(vec![put("b2", "4")])).unwrap();
    assert_eq!(commit.checkpoint, Some(Checkpoint { op_id: op_id(4), lsn: Lsn::new(1) }));
    let ids = |bucket| {
        let all = read_all(&*store, &name(bucket), OpId::ZERO, op_id(9), NO_BOUND).unwrap();
        all.into_iter().map(|operation| operation.op_id.get()).collect::<Vec<_>>()
    };
    assert_eq!(ids("b1"), [1, 3]);
    assert_eq!(ids("b2"), [2, 4]);
}

pub(in crate::storage) fn operations_are_sent_as_the_protocol_says<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let (added, removed) = (put("b", "ä\"1"), remove("b", "2"));
    store.commit(batch(vec![added.clone(), removed.clone()])).unwrap();
    let expect = |id, kind, operation: &NewOperation| Operation {
        op_id: op_id(id),
        op: kind,
        object_type: Some("todos".to_owned()),
        object_id: Some(operation.output.object_id.to_string()),
        checksum: operation.checksum,
        subkey: Some(operation.subkey.to_string()),
        data: operation.data.as_deref().map(str::to_owned),
    };
    let all = read_all(&*store, &name("b"), OpId::ZERO, op_id(2), NO_BOUND).unwrap();
    assert_eq!(all, [expect(1, OpKind::Put, &added), expect(2, OpKind::Remove, &removed)]);
}

pub(in crate::storage) fn a_range_keeps_its_bounds<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let count = RANGE_OPERATIONS_MAX + 1;
    store.commit(batch((0..count).map(|id| put("b", &id.to_string())).collect())).unwrap();
    let upto = op_id(count as u64);

    let whole = store.operations(&name("b"), OpId::ZERO, upto, NO_BOUND).unwrap();
    assert_eq!((whole.count, whole.has_more), (RANGE_OPERATIONS_MAX, true));
    let rest = store.operations(&name("b"), whole.last_op_id, upto, NO_BOUND).unwrap();
    assert_eq!((rest.count, rest.last_op_id, rest.has_more), (1, upto, false));

    let small = store.operations(&name("b"), OpId::ZERO, upto, 1_000).unwrap();
    assert!(small.json.length() <= 1_000 && small.count > 1 && small.has_more, "{} bytes", small.json.length());

    let inner = read_all(&*store, &name("b"), op_id(10), op_id(20), 300).unwrap();
    let ids: Vec<_> = inner.into_iter().map(|operation| operation.op_id.get()).collect();
    assert_eq!(ids, (11..=20).collect::<Vec<_>>());
    // Positions come from clients, so none may do harm.
    let end = op_id(u64::MAX >> 1);
    for (after, upto) in [(op_id(20), op_id(10)), (end, end), (end, OpId::ZERO)] {
        assert_eq!(store.operations(&name("b"), after, upto, NO_BOUND).unwrap().count, 0);
    }
}

pub(in crate::storage) fn a_range_has_at_least_one_operation<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    store.commit(batch(vec![put("b", "1"), put("b", "2")])).unwrap();
    let range = store.operations(&name("b"), OpId::ZERO, op_id(2), 0).unwrap();
    assert_eq!((range.count, range.last_op_id, range.has_more), (1, op_id(1), true));
}

pub(in crate::storage) fn totals_are_the_sums_of_operations<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let operations = vec![put("b", "1"), remove("b", "1"), put("b", "1"), put("other", "2")];
    let checksum = operations[..3].iter().map(|operation| operation.checksum).sum();
    store.commit(batch(operations)).unwrap();
    let totals = store.view().unwrap().bucket(&name("b")).unwrap();
    assert_eq!(totals, BucketTotals { count: 3, checksum, last_op_id: op_id(3) });
}

pub(in crate::storage) fn nothing_is_visible_before_the_first_checkpoint<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let hidden = Batch {
        operations: vec![put("b", "1")],
        lookups: vec![(lookup("l"), key(1, "a"), values(&["v"]))],
        visible_at: None,
        ..Batch::default()
    };
    for round in 1..=2 {
        assert_eq!(store.commit(hidden.clone()).unwrap().checkpoint, None);
        let view = store.view().unwrap();
        assert_eq!(view.checkpoint(), None);
        assert_eq!(view.bucket(&name("b")).unwrap(), BucketTotals::default());
        assert!(view.lookup(&lookup("l")).unwrap().is_empty());
        assert_eq!(store.lookup_entries(&lookup("l")).unwrap().len(), 1, "replication sees it, round {round}");
    }
    store.commit(batch(Vec::new())).unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.checkpoint(), Some(Checkpoint { op_id: op_id(2), lsn: Lsn::new(1) }));
    assert_eq!(view.bucket(&name("b")).unwrap().count, 2);
    assert_eq!(view.lookup(&lookup("l")).unwrap(), values(&["v"]));
}

pub(in crate::storage) fn a_batch_without_checkpoint_hides_the_state_until_the_next<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    store.commit(batch(vec![put("b", "1")])).unwrap();
    let hidden = Batch { operations: vec![put("b", "2")], visible_at: None, ..Batch::default() };
    assert_eq!(store.commit(hidden).unwrap().checkpoint, None);
    let view = store.view().unwrap();
    assert_eq!((view.checkpoint(), view.bucket(&name("b")).unwrap()), (None, BucketTotals::default()));
    let downloading = read_all(&*store, &name("b"), OpId::ZERO, op_id(1), NO_BOUND).unwrap();
    assert_eq!(downloading.len(), 1, "a client that downloads an earlier state goes on");
    drop(view);
    drop(store);
    let store = engine.open();
    assert_eq!(store.view().unwrap().checkpoint(), None, "also after a restart");
    store.commit(batch(Vec::new())).unwrap();
    let view = store.view().unwrap();
    assert_eq!(view.checkpoint(), Some(Checkpoint { op_id: op_id(2), lsn: Lsn::new(1) }));
    assert_eq!(view.bucket(&name("b")).unwrap().count, 2);
}

pub(in crate::storage) fn a_view_does_not_change<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let entry = |value| vec![(lookup("l"), key(1, "a"), values(&[value]))];
    store.commit(Batch { lookups: entry("before"), ..batch(vec![put("b", "1")]) }).unwrap();
    let view = store.view().unwrap();
    let unchanged = || {
        assert_eq!(view.checkpoint().unwrap().op_id, op_id(1));
        assert_eq!(view.bucket(&name("b")).unwrap().count, 1);
        assert_eq!(view.lookup(&lookup("l")).unwrap(), values(&["before"]));
    };
    // Enough for a fold, in engines that have one.
    for id in 0..50 {
        store.commit(Batch { lookups: entry("after"), ..batch(vec![put("b", &id.to_string())]) }).unwrap();
    }
    unchanged();
    store.reset().unwrap();
    unchanged();
}

pub(in crate::storage) fn rows_are_replaced_and_forgotten<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let (first, second) = (row("one", vec![output("b1", "1"), output("b2", "1")]), row("two", Vec::new()));
    let set = |row| store.commit(Batch { rows: vec![(key(1, "a"), row)], ..batch(Vec::new()) }).unwrap();
    set(Some(first.clone()));
    assert_eq!(store.row(&key(1, "a")).unwrap(), Some(first));
    assert_eq!(store.row(&key(2, "a")).unwrap(), None);
    set(Some(second.clone()));
    assert_eq!(store.row(&key(1, "a")).unwrap(), Some(second));
    set(None);
    assert_eq!(store.row(&key(1, "a")).unwrap(), None);
    set(None);
}

pub(in crate::storage) fn rows_of_a_table_are_paged_in_key_order<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let keys = [key(1, "z"), key(2, ""), key(2, "a"), key(2, "a\u{0}"), key(2, "b"), key(3, "")];
    let rows = keys.iter().rev().map(|key| (key.clone(), Some(row("image", Vec::new())))).collect();
    store.commit(Batch { rows, ..batch(Vec::new()) }).unwrap();
    let page = |after: Option<&RowKey>, limit| store.rows_of_table(TableId(2), after, limit).unwrap();
    assert_eq!(page(None, 2), keys[1..3]);
    assert_eq!(page(Some(&keys[2]), 9), keys[3..5]);
    assert_eq!(page(Some(&keys[0]), 9), keys[1..5], "a position in an earlier table");
    assert!(page(Some(&keys[5]), 9).is_empty(), "a position in a later table");
    assert!(page(None, 0).is_empty());
}

pub(in crate::storage) fn lookups_hold_what_rows_give<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let set = |entries| store.commit(Batch { lookups: entries, ..batch(Vec::new()) }).unwrap();
    set(vec![
        (lookup("l"), key(2, "b"), values(&["x", "y", "x"])),
        (lookup("l"), key(1, "a"), values(&["y", ""])),
        (lookup("other"), key(1, "a"), values(&["z"])),
    ]);
    assert_eq!(store.view().unwrap().lookup(&lookup("l")).unwrap(), values(&["", "x", "y"]));
    let entries = [(key(1, "a"), values(&["", "y"])), (key(2, "b"), values(&["x", "y"]))];
    assert_eq!(store.lookup_entries(&lookup("l")).unwrap(), entries);
    set(vec![(lookup("l"), key(2, "b"), Vec::new())]);
    assert_eq!(store.view().unwrap().lookup(&lookup("l")).unwrap(), values(&["", "y"]));
}

pub(in crate::storage) fn a_commit_names_what_it_changed<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let entry = |text: &str, value: &[&str]| (lookup(text), key(1, "a"), values(value));
    let first = Batch {
        lookups: vec![entry("l1", &["x", "y"]), entry("l2", &["x"]), entry("l3", &[])],
        ..batch(vec![put("b2", "1"), put("b1", "2"), put("b2", "3")])
    };
    let mut commit = store.commit(first).unwrap();
    commit.lookups.sort();
    let grown = |bucket: &str, first, last, operations: &[NewOperation]| {
        let checksum = operations.iter().map(|operation| operation.checksum).sum();
        let added = BucketTotals { count: operations.len() as u64, checksum, last_op_id: op_id(last) };
        BucketGrowth { bucket: name(bucket), first_op_id: op_id(first), added }
    };
    let b2 = [put("b2", "1"), put("b2", "3")];
    assert_eq!(commit.buckets, [grown("b1", 2, 2, &[put("b1", "2")]), grown("b2", 1, 3, &b2)]);
    assert_eq!(commit.lookups, [lookup("l1"), lookup("l2")]);
    let second = Batch { lookups: vec![entry("l1", &["y", "x", "y"]), entry("l2", &["z"])], ..batch(Vec::new()) };
    let commit = store.commit(second).unwrap();
    assert!(commit.buckets.is_empty());
    assert_eq!(commit.lookups, [lookup("l2")], "the same values in another order are no change");
}

pub(in crate::storage) fn dependents_are_paged_in_key_order<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let set = |entries: &[(&str, RowKey, Dependency)]| {
        let dependents = entries.iter().map(|(key, row, change)| (lookup(key), row.clone(), *change)).collect();
        store.commit(Batch { dependents, ..batch(Vec::new()) }).unwrap();
    };
    let (a, b, c) = (key(1, "a"), key(1, "b"), key(2, ""));
    set(&[
        ("l", c.clone(), Dependency::Added),
        ("l", b.clone(), Dependency::Added),
        ("l", b.clone(), Dependency::Added),
        ("l", a.clone(), Dependency::Added),
        ("other", key(9, "x"), Dependency::Added),
    ]);
    assert_eq!(store.dependents(&lookup("l"), None, 2).unwrap(), [a.clone(), b.clone()]);
    assert_eq!(store.dependents(&lookup("l"), Some(&b), 2).unwrap(), std::slice::from_ref(&c));
    set(&[("l", b.clone(), Dependency::Removed), ("l", key(7, "unknown"), Dependency::Removed)]);
    assert_eq!(store.dependents(&lookup("l"), None, 9).unwrap(), [a.clone(), c.clone()]);
    set(&[("l", a.clone(), Dependency::Removed), ("l", a.clone(), Dependency::Added)]);
    assert_eq!(store.dependents(&lookup("l"), None, 9).unwrap(), [a, c], "applied in order");
}

pub(in crate::storage) fn replication_state_is_replaced_whole<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let set = |state| store.commit(Batch { replication_state: state, ..batch(Vec::new()) }).unwrap();
    set(Some(Bytes::from_static(b"first, longer")));
    set(Some(Bytes::from_static(b"second")));
    set(None);
    assert_eq!(store.replication_state().unwrap().as_deref(), Some(b"second".as_slice()), "none leaves it");
}

pub(in crate::storage) fn a_reset_keeps_op_ids_and_write_checkpoints<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let user = WriteCheckpointKey("u".to_owned());
    let everything = || Batch {
        rows: vec![(key(1, "a"), Some(row("image", vec![output("b", "1")])))],
        lookups: vec![(lookup("l"), key(1, "a"), values(&["v"]))],
        dependents: vec![(lookup("l"), key(1, "a"), Dependency::Added)],
        replication_state: Some(Bytes::from_static(b"state")),
        ..batch(vec![put("b", "1"), put("b", "2")])
    };
    store.commit(everything()).unwrap();
    let first = store.put_write_checkpoint(&user, Lsn::new(5), None).unwrap().id;
    store.reset().unwrap();

    assert_eq!(store.view().unwrap().checkpoint(), None);
    assert!(read_all(&*store, &name("b"), OpId::ZERO, op_id(9), NO_BOUND).unwrap().is_empty());
    assert_eq!(store.row(&key(1, "a")).unwrap(), None);
    assert!(store.lookup_entries(&lookup("l")).unwrap().is_empty());
    assert!(store.dependents(&lookup("l"), None, 9).unwrap().is_empty());
    assert_eq!(store.replication_state().unwrap(), None);
    let StoreStats { bucket_count, operation_count, row_count, .. } = store.stats().unwrap();
    assert_eq!((bucket_count, operation_count, row_count), (0, 0, 0));
    assert_eq!(store.write_checkpoint(&user).unwrap(), Some(WriteCheckpoint { id: first, lsn: Lsn::new(5) }));
    assert_eq!(store.put_write_checkpoint(&user, Lsn::new(6), None).unwrap().id, first.next());

    store.commit(everything()).unwrap();
    let totals = store.view().unwrap().bucket(&name("b")).unwrap();
    assert_eq!((totals.count, totals.last_op_id), (2, op_id(4)), "the sequence goes on, the totals begin anew");
}

pub(in crate::storage) fn prefixes_are_short_and_never_repeated<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let first = store.bucket_prefix().unwrap();
    assert!(first.ends_with('#') && first.len() <= 16, "{first}");
    store.commit(batch(vec![put("b", "1")])).unwrap();
    assert_eq!(store.bucket_prefix().unwrap(), first);
    store.reset().unwrap();
    let second = store.bucket_prefix().unwrap();
    assert_ne!(second, first);
    drop(store);
    assert_eq!(engine.open().bucket_prefix().unwrap(), second);
    assert_ne!(new().open().bucket_prefix().unwrap(), first, "another store has another prefix");
}

pub(in crate::storage) fn write_checkpoints_count_per_key<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let (one, two) = (WriteCheckpointKey("u/1".to_owned()), WriteCheckpointKey("u/2".to_owned()));
    let ids: Vec<_> = [(&one, 7), (&two, 7), (&one, u64::MAX), (&one, 8)]
        .into_iter()
        .map(|(key, head)| store.put_write_checkpoint(key, Lsn::new(head), None).unwrap().id.get())
        .collect();
    assert_eq!(ids, [1, 1, 2, 3]);
    let newest = store.write_checkpoint(&one).unwrap().unwrap();
    assert_eq!((newest.id.get(), newest.lsn), (3, Lsn::new(8)));
}

pub(in crate::storage) fn requested_write_checkpoints_never_go_back<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let key = WriteCheckpointKey("u/1".to_owned());
    let request = |id, head| {
        let stored = store.put_write_checkpoint(&key, Lsn::new(head), WriteCheckpointId::new(id).ok()).unwrap();
        assert_eq!(store.write_checkpoint(&key).unwrap(), Some(stored));
        (stored.id.get(), stored.lsn.get())
    };
    assert_eq!(request(5, 10), (5, 10));
    assert_eq!(request(5, 20), (5, 10), "asked for again, it was reached as before");
    assert_eq!(request(4, 30), (5, 10));
    assert_eq!(request(6, 40), (6, 40));
    assert_eq!(store.put_write_checkpoint(&key, Lsn::new(50), None).unwrap().id.get(), 7);
}

pub(in crate::storage) fn write_checkpoints_of_a_batch_are_there_with_it<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let key = WriteCheckpointKey("u/1".to_owned());
    let id = |id| WriteCheckpointId::new(id).unwrap();
    let commit = |id| {
        let write_checkpoints = vec![(key.clone(), id)];
        store.commit(Batch { write_checkpoints, visible_at: Some(Lsn::new(10)), ..Batch::default() }).unwrap()
    };
    let before = store.view().unwrap();
    let reached = WriteCheckpoint { id: id(5), lsn: Lsn::ZERO };
    assert_eq!(commit(id(5)).write_checkpoints, [(key.clone(), reached)]);
    assert_eq!(store.write_checkpoint(&key).unwrap(), Some(reached));
    assert_eq!(before.write_checkpoint(&key).unwrap(), None, "it is in the state of its batch and later ones");
    assert_eq!(commit(id(4)).write_checkpoints, [(key.clone(), reached)], "it never goes back");
    drop(before);
    drop(store);
    assert_eq!(engine.open().write_checkpoint(&key).unwrap(), Some(reached));
}

pub(in crate::storage) fn released_write_checkpoints_are_reached<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let user = WriteCheckpointKey("u".to_owned());
    let id = store.put_write_checkpoint(&user, Lsn::new(900), None).unwrap().id;
    store.release_write_checkpoints().unwrap();
    assert_eq!(store.write_checkpoint(&user).unwrap(), Some(WriteCheckpoint { id, lsn: Lsn::ZERO }));
    assert_eq!(store.put_write_checkpoint(&user, Lsn::new(7), None).unwrap().id, id.next());
}

pub(in crate::storage) fn a_reopened_store_is_the_same<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let state = row("image", vec![output("b", "1")]);
    let everything = Batch {
        rows: vec![(key(1, "a"), Some(state.clone()))],
        lookups: vec![(lookup("l"), key(1, "a"), values(&["v"]))],
        dependents: vec![(lookup("l"), key(1, "a"), Dependency::Added)],
        replication_state: Some(Bytes::from_static(b"state")),
        visible_at: Some(Lsn::new(u64::MAX)),
        ..batch(vec![put("b", "1"), put("b", "2")])
    };
    store.commit(everything).unwrap();
    store.put_write_checkpoint(&WriteCheckpointKey("u".to_owned()), Lsn::new(5), None).unwrap();
    let operations = |store: &dyn BucketStore| store.operations(&name("b"), OpId::ZERO, op_id(2), NO_BOUND).unwrap();
    let before = operations(&*store);
    let totals = store.view().unwrap().bucket(&name("b")).unwrap();
    drop(store);

    let store = engine.open();
    let view = store.view().unwrap();
    assert_eq!(view.checkpoint(), Some(Checkpoint { op_id: op_id(2), lsn: Lsn::new(u64::MAX) }));
    assert_eq!(view.bucket(&name("b")).unwrap(), totals);
    assert_eq!(view.lookup(&lookup("l")).unwrap(), values(&["v"]));
    let after = operations(&*store);
    assert_eq!((after.count, after.last_op_id, after.has_more), (2, op_id(2), false));
    assert_eq!(after.json.array().unwrap(), before.json.array().unwrap());
    assert_eq!(store.row(&key(1, "a")).unwrap(), Some(state));
    assert_eq!(store.dependents(&lookup("l"), None, 9).unwrap(), [key(1, "a")]);
    assert_eq!(store.replication_state().unwrap().as_deref(), Some(b"state".as_slice()));
    assert_eq!(store.write_checkpoint(&WriteCheckpointKey("u".to_owned())).unwrap().unwrap().lsn, Lsn::new(5));
    assert_eq!(store.commit(batch(vec![put("b", "3")])).unwrap().checkpoint.unwrap().op_id, op_id(3));
}

pub(in crate::storage) fn statistics_count_what_is_there<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let state = || Some(row("image", vec![output("b1", "1")]));
    let rows = vec![(key(1, "a"), state()), (key(1, "b"), state())];
    store.commit(Batch { rows, ..batch(vec![put("b1", "1"), put("b1", "2"), put("b2", "3")]) }).unwrap();
    let rows = vec![(key(1, "a"), state()), (key(1, "b"), None), (key(1, "unknown"), None)];
    store.commit(Batch { rows, ..batch(vec![put("b2", "4")]) }).unwrap();
    let StoreStats { bucket_count, operation_count, row_count, size_bytes, free_bytes, .. } = store.stats().unwrap();
    assert_eq!((bucket_count, operation_count, row_count), (2, 4, 1));
    assert!(size_bytes > 0 && free_bytes != Some(0));
}

pub(in crate::storage) fn sizes_are_told_by_definition<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let prefix = store.bucket_prefix().unwrap();
    let bucket = |own: &str| format!("{prefix}{own}");
    let outputs = |own: &[&str]| own.iter().map(|own| output(&bucket(own), "1")).collect();
    let rows = vec![
        (key(1, "a"), Some(row("image", outputs(&["todos[1]", "lists[]"])))),
        (key(1, "b"), Some(row("image", outputs(&["todos[2]"])))),
        (key(1, "c"), Some(row("image", outputs(&["todos[2]"])))),
    ];
    let operations = ["todos[1]", "lists[]", "todos[2]", "todos[2]", "todos[2]"].map(|own| put(&bucket(own), "1"));
    store.commit(Batch { rows, ..batch(operations.to_vec()) }).unwrap();
    store.commit(Batch { rows: vec![(key(1, "c"), None)], ..batch(vec![]) }).unwrap();
    let stats = store.definition_stats().unwrap();
    let counts = |of: &DefinitionStats| (of.definition.clone(), of.bucket_count, of.operation_count, of.row_count);
    let expected = [("lists".to_owned(), 1, 1, 1), ("todos".to_owned(), 2, 4, 2)];
    assert_eq!(stats.iter().map(counts).collect::<Vec<_>>(), expected);
    let json: usize = ["todos[1]", "todos[2]"]
        .map(|own| store.operations(&name(&bucket(own)), OpId::ZERO, op_id(5), NO_BOUND).unwrap())
        .into_iter()
        .map(|range| range.json.length() + 1 - range.count)
        .sum();
    assert_eq!(stats[1].json_bytes, json as u64);
    assert!(stats.iter().all(|of| of.stored_bytes > 0));
}
