//! One process at a time syncs a file: two would count each other's operations twice, and download them again and again.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use super::error::ClientCommandError;

/// The right to sync a file, until it is dropped or the process ends.
///
/// The lock is on a file of its own beside it: SQLite has locks on the other, which end when anybody closes it.
#[derive(Debug)]
pub(super) struct SyncLock {
    path: PathBuf,
    _file: File,
}

impl SyncLock {
    pub(super) fn take(database: &Path) -> Result<Self, ClientCommandError> {
        let mut path = database.as_os_str().to_owned();
        path.push("-lock");
        let path = PathBuf::from(path);
        let failed = |source| ClientCommandError::Lock { file: path.clone(), source };
        let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, _file: file }),
            Err(TryLockError::WouldBlock) => Err(ClientCommandError::InUse { file: database.to_path_buf() }),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

impl Drop for SyncLock {
    fn drop(&mut self) {
        // One that is left behind does no harm.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_synced_by_one_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("x.db");
        let lock = SyncLock::take(&database).unwrap();
        assert_eq!(SyncLock::take(&database).unwrap_err().code(), "CLIENT-0407");
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(SyncLock::take(&database).is_ok());
        assert_eq!(SyncLock::take(Path::new("/nowhere/x.db")).unwrap_err().code(), "CLIENT-0406");
    }
}
