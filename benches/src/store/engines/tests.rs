use super::{
    engine::{Engine, Kind, Outcome},
    killed::verify,
    workload::Workload,
};

const WORKLOAD: Workload = Workload { rows: 200, changes: 40, has_operations: true };

fn filled(kind: Kind, upto: u64) -> (tempfile::TempDir, Box<dyn Engine>) {
    let folder = tempfile::tempdir().unwrap();
    let mut engine = kind.open(folder.path()).unwrap();
    for position in 1..=upto {
        engine.commit(&WORKLOAD.changes(position)).unwrap();
    }
    (folder, engine)
}

fn bytes_after(engine: &dyn Engine, after: u64) -> Outcome<usize> {
    let mut bytes = 0;
    for bucket in 0..WORKLOAD.rows {
        engine.read(bucket, after, &mut |slice| {
            bytes += slice.len();
            Ok(())
        })?;
    }
    Ok(bytes)
}

#[test]
fn every_engine_gives_back_what_was_committed_also_when_opened_again() {
    for kind in Kind::ALL {
        let (folder, engine) = filled(kind, 5);
        verify(engine.as_ref(), &WORKLOAD, 5).unwrap();
        drop(engine);
        let mut engine = kind.open(folder.path()).unwrap();
        verify(engine.as_ref(), &WORKLOAD, 5).unwrap();
        let last = engine.last_op_id().unwrap();
        engine.commit(&WORKLOAD.changes(6)).unwrap();
        verify(engine.as_ref(), &WORKLOAD, 6).unwrap();
        let (all, new) = (bytes_after(engine.as_ref(), 0).unwrap(), bytes_after(engine.as_ref(), last).unwrap());
        assert!(0 < new && new < all, "{kind:?}: {new} of {all} bytes are new");
        assert_eq!(bytes_after(engine.as_ref(), engine.last_op_id().unwrap()).unwrap(), 0, "{kind:?}");
    }
}

#[test]
fn a_lost_commit_and_a_half_one_are_noticed() {
    for kind in Kind::ALL {
        let (_folder, mut engine) = filled(kind, 5);
        assert!(verify(engine.as_ref(), &WORKLOAD, 6).unwrap_err().to_string().contains("is lost"), "{kind:?}");
        let mut half = WORKLOAD.changes(6);
        half.rows.pop();
        engine.commit(&half).unwrap();
        assert!(verify(engine.as_ref(), &WORKLOAD, 5).is_err(), "{kind:?}");
        // Rows without their operations.
        let (_folder, mut engine) = filled(kind, 5);
        let mut rows = WORKLOAD.changes(6);
        rows.has_operations = false;
        engine.commit(&rows).unwrap();
        assert!(verify(engine.as_ref(), &WORKLOAD, 6).unwrap_err().to_string().contains("operations"), "{kind:?}");
    }
}
