//! A copy of a file is another database.

use std::fs;

use super::*;

async fn client_id(bench: &Bench) -> String {
    bench.store.read(identity::client_id).await.unwrap()
}

async fn next_upload(bench: &Bench) -> Option<(String, Vec<String>, i64)> {
    let slice = bench.store.read(crud::next_upload).await.unwrap()?;
    let rows = slice.batch.batch.into_iter().filter_map(|entry| entry.id).collect();
    Some((slice.batch.client_id.unwrap(), rows, slice.last_id))
}

async fn insert(bench: &Bench, id: &'static str) {
    let insert = move |tx: &rusqlite::Transaction<'_>| {
        Ok::<_, StoreError>(tx.execute("INSERT INTO habits (id, name) VALUES (?1, 'x')", [id])?)
    };
    bench.store.write(insert).await.unwrap();
}

/// The same file, copied and put back in its place, as a backup is restored.
async fn restored(bench: Bench) -> Bench {
    drop(bench.store);
    let (file, backup) = (bench.folder.path().join("client.db"), bench.folder.path().join("backup.db"));
    fs::copy(&file, &backup).unwrap();
    let _ = fs::remove_file(bench.folder.path().join("client.db-wal"));
    fs::rename(&backup, &file).unwrap();
    let store = Store::open(file, schema()).await.unwrap();
    Bench { folder: bench.folder, store }
}

#[tokio::test]
async fn a_copy_has_a_new_id_and_uploads_what_was_queued_under_the_old_one() {
    let bench = Bench::new().await;
    let first = client_id(&bench).await;
    insert(&bench, "a").await;
    let bench = restored(bench).await;
    let second = client_id(&bench).await;
    assert_ne!(first, second);
    insert(&bench, "b").await;
    let bench = restored(bench).await;
    let third = client_id(&bench).await;
    assert!(third != second && third != first);
    insert(&bench, "c").await;
    let bench = bench.reopen(schema()).await;
    assert_eq!(client_id(&bench).await, third, "a file in its place keeps its id");

    for (expected, row) in [(first, "a"), (second, "b"), (third, "c")] {
        let (client_id, rows, last_id) = next_upload(&bench).await.expect("queued");
        assert_eq!((client_id, rows), (expected, vec![row.to_owned()]));
        bench.store.write(move |tx| crud::acknowledge(tx, last_id, &[], None)).await.unwrap();
    }
    assert_eq!(next_upload(&bench).await, None);
    assert!(bench.rows("SELECT * FROM kairos_former_client").await.is_empty(), "nothing is left of the old ids");
}

#[tokio::test]
async fn a_copy_with_nothing_queued_needs_no_old_id() {
    let bench = restored(Bench::new().await).await;
    assert!(bench.rows("SELECT * FROM kairos_former_client").await.is_empty());
    insert(&bench, "a").await;
    let (uploaded_as, ..) = next_upload(&bench).await.expect("queued");
    assert_eq!(uploaded_as, client_id(&bench).await);
}
