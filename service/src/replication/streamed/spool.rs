//! The changes of one transaction while it runs: in memory at first, then in a file.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Read from the file at once.
const READ_BYTES: usize = 256 * 1024;
/// Transaction and length before each change.
const HEADER_BYTES: usize = 8;

/// Changes in the order they came. The file has no name, so it is gone with the process, whatever ends it.
#[derive(Debug, Default)]
pub(super) struct Spool {
    file: Option<File>,
    /// What is not in the file yet.
    memory: Vec<u8>,
    byte_count: u64,
}

impl Spool {
    /// Keeps a change of the (sub)transaction `xid`. Gives how many bytes more are in memory.
    pub(super) fn push(&mut self, xid: u32, change: &[u8]) -> usize {
        let length = u32::try_from(change.len()).expect("a message's length is 32 bits in the protocol");
        self.memory.reserve(HEADER_BYTES + change.len());
        self.memory.put_u32(xid);
        self.memory.put_u32(length);
        self.memory.put_slice(change);
        self.byte_count += (HEADER_BYTES + change.len()) as u64;
        HEADER_BYTES + change.len()
    }

    /// Bytes in memory.
    pub(super) fn memory_bytes(&self) -> usize {
        self.memory.len()
    }

    /// Bytes in all.
    pub(super) fn byte_count(&self) -> u64 {
        self.byte_count
    }

    /// Moves what is in memory to the file.
    ///
    /// # Errors
    /// Those of the file. The spool is of no use then.
    pub(super) fn spill(&mut self, folder: &Path) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(tempfile::tempfile_in(folder)?);
        }
        if let Some(file) = &mut self.file {
            file.write_all(&self.memory)?;
        }
        self.memory = Vec::new();
        Ok(())
    }

    /// Gives the changes back.
    ///
    /// # Errors
    /// Those of the file.
    pub(super) fn into_changes(mut self) -> io::Result<Changes> {
        if let Some(file) = &mut self.file {
            file.seek(SeekFrom::Start(0))?;
        }
        Ok(Changes { file: self.file, memory: self.memory, buffer: BytesMut::new() })
    }
}

/// The changes of a spool, in the order they came.
#[derive(Debug)]
pub(super) struct Changes {
    /// What is left of the file is read first.
    file: Option<File>,
    memory: Vec<u8>,
    buffer: BytesMut,
}

impl Changes {
    fn read(&mut self) -> io::Result<Option<(u32, Bytes)>> {
        if !self.fill(HEADER_BYTES)? {
            return Ok(None);
        }
        let (xid, length) = (self.buffer.get_u32(), self.buffer.get_u32() as usize);
        if !self.fill(length)? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((xid, self.buffer.split_to(length).freeze())))
    }

    /// Reads until the buffer has so many bytes; `false` if there are none left.
    fn fill(&mut self, wanted: usize) -> io::Result<bool> {
        while self.buffer.len() < wanted {
            if let Some(file) = &mut self.file {
                let held = self.buffer.len();
                self.buffer.resize(held + READ_BYTES.max(wanted - held), 0);
                let count = file.read(&mut self.buffer[held..])?;
                self.buffer.truncate(held + count);
                if count == 0 {
                    self.file = None;
                }
            } else if self.memory.is_empty() {
                return Ok(false);
            } else {
                self.buffer.extend_from_slice(&std::mem::take(&mut self.memory));
            }
        }
        Ok(true)
    }
}

impl Iterator for Changes {
    type Item = io::Result<(u32, Bytes)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_in_order(
            changes in prop::collection::vec((any::<u32>(), prop::collection::vec(any::<u8>(), 0..300), 0..4_u8), 0..40),
            large in 0..600_000_usize
        ) {
            let folder = tempfile::tempdir().expect("a folder");
            let mut spool = Spool::default();
            for (xid, change, spills) in &changes {
                spool.push(*xid, change);
                if *spills == 0 {
                    spool.spill(folder.path()).expect("spills");
                }
            }
            spool.push(7, &vec![1; large]);
            let mut expected: Vec<_> = changes.into_iter().map(|(xid, change, _)| (xid, Bytes::from(change))).collect();
            expected.push((7, vec![1; large].into()));
            let found: Result<Vec<_>, _> = spool.into_changes().expect("readable").collect();
            prop_assert_eq!(found.expect("readable"), expected);
            prop_assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "no file has a name");
        }
    }
}
