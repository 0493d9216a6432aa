//! Which runs are worth merging. Pure.
//!
//! Few runs make rows soon found, few merges make them seldom written. Runs of similar size are merged, so a row is written
//! about once for each doubling of what is newer; the oldest run, which has most rows, when the newer ones together are a
//! good part of it: that much of it may be states that no longer count. Runs that have no keys in common, as a copy makes them, are
//! found among others by their first and last keys alone, and none hides another's states: of these more may be.

/// Runs from which the newest are merged whatever they are.
pub(super) const RUNS_MAX: usize = 32;
/// Runs of similar size that are merged, at least.
const SIMILAR_MIN: usize = 4;
/// As many where no key is between those of another run.
const APART_MIN: usize = 8;
/// The oldest run is merged once the newer ones have one part in so many of its bytes.
const OLDEST_PARTS: u64 = 3;

/// What is known of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) bytes: u64,
    /// It may have keys that a newer one has.
    pub(super) is_overlapped: bool,
}

/// How many of the newest runs to merge, of which these are the sizes, the newest first; `None` is not yet worth it.
/// `are_all`: no run is older than these.
pub(super) fn worth_merging(sizes: &[Size], are_all: bool) -> Option<usize> {
    let (oldest, newer) = sizes.split_last()?;
    let newer_bytes: u64 = newer.iter().map(|size| size.bytes).sum();
    if are_all && oldest.is_overlapped && newer_bytes.saturating_mul(OLDEST_PARTS) >= oldest.bytes {
        return Some(sizes.len());
    }
    let (mut sum, mut are_apart) = (0_u64, true);
    let similar = sizes.iter().enumerate().take_while(|(number, size)| {
        let is_similar = *number == 0 || size.bytes <= sum.saturating_mul(2);
        sum = sum.saturating_add(size.bytes);
        are_apart &= !(is_similar && size.is_overlapped);
        is_similar
    });
    let similar = similar.count();
    if similar >= if are_apart { APART_MIN } else { SIMILAR_MIN } {
        return Some(similar);
    }
    // The largest are at the end, mostly.
    (sizes.len() > RUNS_MAX).then_some(sizes.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each overlapped by all newer ones.
    fn overlapping(bytes: &[u64]) -> Vec<Size> {
        let size = |(number, bytes): (usize, &u64)| Size { bytes: *bytes, is_overlapped: number > 0 };
        bytes.iter().enumerate().map(size).collect()
    }

    fn apart(bytes: &[u64]) -> Vec<Size> {
        bytes.iter().map(|bytes| Size { bytes: *bytes, is_overlapped: false }).collect()
    }

    #[test]
    fn runs_of_similar_size_are_merged_and_the_oldest_when_it_pays() {
        let worth_merging = |bytes: &[u64], are_all| worth_merging(&overlapping(bytes), are_all);
        assert_eq!(worth_merging(&[], true), None);
        assert_eq!(worth_merging(&[5], true), None);
        assert_eq!(worth_merging(&[5, 100], true), None);
        assert_eq!(worth_merging(&[5, 5, 5, 100], true), None);
        assert_eq!(worth_merging(&[5, 5, 5, 5, 100], true), Some(4));
        assert_eq!(worth_merging(&[5, 5, 10, 40, 1_000], true), Some(4), "a chain of doublings");
        assert_eq!(worth_merging(&[5, 20, 20, 20, 1_000], true), None, "the newest waits for its like");
        assert_eq!(worth_merging(&[10, 24, 100], true), Some(3));
        assert_eq!(worth_merging(&[10, 24, 100], false), None, "an older one is being merged");
    }

    #[test]
    fn runs_without_keys_in_common_wait_until_there_are_many() {
        assert_eq!(worth_merging(&apart(&[5, 5, 5, 5]), true), None, "nothing in the oldest is outdated");
        assert_eq!(worth_merging(&apart(&[5; 7]), true), None);
        assert_eq!(worth_merging(&apart(&[5; 8]), true), Some(8));
        let mut one_overlapped = apart(&[5, 5, 5, 5, 1_000]);
        one_overlapped[2].is_overlapped = true;
        assert_eq!(worth_merging(&one_overlapped, true), Some(4));
        one_overlapped[2].is_overlapped = false;
        one_overlapped[4].is_overlapped = true;
        assert_eq!(worth_merging(&one_overlapped, true), None, "it is not among those of similar size");
    }

    #[test]
    fn no_sizes_let_them_become_many() {
        let falling: Vec<u64> = (0..40).map(|number| 3_u64.pow(number)).collect();
        assert_eq!(worth_merging(&overlapping(&falling), false), Some(20));
        assert_eq!(worth_merging(&apart(&falling), false), Some(20));
    }

    /// Adds runs of one size, and of sizes from a simple sequence; gives how many runs there were at most, and how often each
    /// byte was written.
    fn grow(vary: bool, known: fn(&[u64]) -> Vec<Size>) -> (usize, u64) {
        let (mut runs, mut written, mut added, mut most) = (Vec::new(), 0_u64, 0_u64, 0);
        for number in 0..2_000_u64 {
            let size = if vary { 1 + number * 7_919 % 100 } else { 50 };
            added += size;
            runs.insert(0, size);
            while let Some(count) = worth_merging(&known(&runs), true) {
                let merged = runs.drain(..count).sum::<u64>();
                written += merged;
                runs.insert(0, merged);
            }
            most = most.max(runs.len());
        }
        (most, written / added)
    }

    #[test]
    fn rows_are_written_a_few_times_and_runs_stay_few() {
        for vary in [false, true] {
            let (most, written) = grow(vary, overlapping);
            assert!(most <= 12 && written <= 8, "{most} runs, each row written {written} times");
            let (most, written) = grow(vary, apart);
            assert!(most <= RUNS_MAX && written <= 5, "{most} runs, each row written {written} times");
        }
    }
}
