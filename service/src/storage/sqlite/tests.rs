//! What only an engine with files must prove; the rest is in the conformance suite.

use std::path::Path;

use tempfile::TempDir;

use super::{
    super::conformance::{self, Engine},
    *,
};

/// A store in a folder of its own.
struct Folder {
    folder: TempDir,
    options: SqliteOptions,
}

impl Folder {
    fn new(options: SqliteOptions) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), options }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn store(&self) -> Result<SqliteStore, StorageError> {
        SqliteStore::open(self.path(), self.options)
    }
}

impl Engine for Folder {
    fn open(&self) -> Arc<dyn BucketStore> {
        Arc::new(self.store().unwrap())
    }
}

/// Folds all the time.
fn restless() -> SqliteOptions {
    SqliteOptions { fold_operations: 7, ..SqliteOptions::default() }
}

mod tail_only {
    use super::*;
    conformance::suite!(Folder::new(SqliteOptions::default()));
}

mod folding {
    use super::*;
    conformance::suite!(Folder::new(restless()));
}
