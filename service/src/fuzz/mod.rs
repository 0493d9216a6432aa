//! What the fuzz targets of this crate share. A target lies beside what it tries, since that is private.
//!
//! [`harness`] runs a target and says how to replay an input, [`bounded`] watches over memory, [`recorded`] has what a
//! real server sends.

#[path = "../../../sync-rules/tests/fuzz/harness.rs"]
mod harness;
#[path = "../../../sync-rules/tests/oracle/random.rs"]
mod random;
mod recorded;

pub(crate) use self::{harness::run, random::Random, recorded::recorded};

/// What may be allocated at a time whatever the input is: buffers, tables of a runtime.
const BYTES_ALWAYS: usize = 1 << 20;
/// What may be allocated at a time for each byte of input. A NULL is one byte in the stream and forty in memory, and a
/// list that grows is there twice.
const BYTES_PER_BYTE: usize = 160;

/// Does something with an input of this size, in memory that the size accounts for.
pub(crate) fn bounded<T>(input_bytes: usize, work: impl FnOnce() -> T) -> T {
    let mut done = None;
    let used = allocation_counter::measure(|| done = Some(work()));
    let bound = BYTES_ALWAYS + BYTES_PER_BYTE * input_bytes;
    assert!(used.bytes_max <= bound as u64, "{} bytes are allocated for {input_bytes}", used.bytes_max);
    done.expect("it was done")
}
