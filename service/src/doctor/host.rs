//! What this host has: the store's folder, the clock.

use std::path::{Path, PathBuf};

use super::facts::Store;

/// Looks at the folder, or at the one it will be made in.
pub(super) fn store(folder: &Path) -> Store {
    let existing = existing_part(folder);
    let refusal = tempfile::tempfile_in(&existing).err().map(|error| error.to_string());
    let status = rustix::fs::statvfs(&existing).ok();
    let free_bytes = status.map(|status| status.f_bavail.saturating_mul(status.f_frsize));
    Store { folder: folder.to_owned(), refusal, free_bytes }
}

/// The nearest folder above that is there.
fn existing_part(folder: &Path) -> PathBuf {
    let nearest = folder.ancestors().find(|part| part.exists()).unwrap_or(Path::new(""));
    // The parent of a relative name is empty, and means the working directory.
    if nearest.as_os_str().is_empty() { PathBuf::from(".") } else { nearest.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let found = store(&folder.path().join("a/b"));
        assert_eq!(found.refusal, None);
        assert!(found.free_bytes > Some(0));
        assert!(!folder.path().join("a").exists(), "nothing is made");
        assert_eq!(existing_part(Path::new("no-such-folder")), Path::new("."));
    }

    #[test]
    fn a_file_in_the_place_of_the_folder_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(store(&file.path().join("data")).refusal.is_some());
    }
}
