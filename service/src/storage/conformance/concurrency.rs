//! Promises about several threads.

use std::{collections::BTreeSet, thread};

use super::{super::WriteCheckpointKey, *};

/// Every commit puts one operation into each of three buckets and its number into a lookup, so any mixture of two
/// states shows.
pub(in crate::storage) fn views_are_consistent_while_commits_run<E: Engine>(new: &dyn Fn() -> E) {
    const COMMITS: u64 = 150;
    const BUCKETS: [&str; 3] = ["b1", "b2", "b3"];
    let engine = new();
    let store = engine.open();
    let check = || -> u64 {
        let view = store.view().unwrap();
        let seen = view.checkpoint().map_or(0, |checkpoint| checkpoint.lsn.get());
        let upto = view.checkpoint().map(|checkpoint| checkpoint.op_id).unwrap_or_default();
        assert_eq!(upto.get(), seen * BUCKETS.len() as u64);
        let number = view.lookup(&lookup("l")).unwrap();
        assert_eq!(number, if seen == 0 { Vec::new() } else { values(&[&seen.to_string()]) });
        let totals = BUCKETS.map(|bucket| view.bucket(&name(bucket)).unwrap());
        drop(view);
        for (bucket, totals) in BUCKETS.into_iter().zip(totals) {
            assert_eq!(totals.count, seen);
            let all = read_all(&*store, &name(bucket), OpId::ZERO, upto, 2_000).unwrap();
            assert_eq!(all.len() as u64, totals.count);
            assert_eq!(all.iter().map(|operation| operation.checksum).sum::<Checksum>(), totals.checksum);
            assert!(all.is_sorted_by(|a, b| a.op_id < b.op_id));
        }
        seen
    };
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| while check() < COMMITS {});
        }
        for number in 1..=COMMITS {
            let text = number.to_string();
            let commit = Batch {
                operations: BUCKETS.iter().map(|bucket| put(bucket, &text)).collect(),
                lookups: vec![(lookup("l"), key(1, "a"), values(&[&text]))],
                visible_at: Some(Lsn::new(number)),
                ..Batch::default()
            };
            store.commit(commit).unwrap();
        }
    });
}

pub(in crate::storage) fn write_checkpoints_may_be_concurrent<E: Engine>(new: &dyn Fn() -> E) {
    let engine = new();
    let store = engine.open();
    let user = WriteCheckpointKey("u".to_owned());
    let ids = thread::scope(|scope| {
        let ask = || {
            (0..20).map(|_| store.put_write_checkpoint(&user, Lsn::new(1), None).unwrap().id.get()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<BTreeSet<_>>()
    });
    assert_eq!(ids, (1..=80).collect::<BTreeSet<_>>(), "each id once");
    assert_eq!(store.write_checkpoint(&user).unwrap().unwrap().id.get(), 80);
}
