//! Which runs are worth merging. Pure.
//!
//! Few runs make rows soon found, few merges make them seldom written. Runs of similar size are merged, so a row is written
//! about once for each doubling of what is newer; the oldest run, which has most rows, when the newer ones together are a
//! good part of it: that much of it may be states that no longer count.

/// Runs from which the newest are merged whatever they are.
pub(super) const RUNS_MAX: usize = 32;
/// Runs of similar size that are merged, at least.
const SIMILAR_MIN: usize = 4;
/// The oldest run is merged once the newer ones have one part in so many of its bytes.
const OLDEST_PARTS: u64 = 3;

/// How many of the newest runs to merge, of which these are the bytes, the newest first; `None` is not yet worth it.
/// `are_all`: no run is older than these.
pub(super) fn worth_merging(bytes: &[u64], are_all: bool) -> Option<usize> {
    let (oldest, newer) = bytes.split_last()?;
    if are_all && !newer.is_empty() && newer.iter().sum::<u64>().saturating_mul(OLDEST_PARTS) >= *oldest {
        return Some(bytes.len());
    }
    let mut sum = 0_u64;
    let similar = bytes.iter().enumerate().take_while(|(number, bytes)| {
        let is_similar = *number == 0 || **bytes <= sum.saturating_mul(2);
        sum = sum.saturating_add(**bytes);
        is_similar
    });
    let similar = similar.count();
    if similar >= SIMILAR_MIN {
        return Some(similar);
    }
    // The largest are at the end, mostly.
    (bytes.len() > RUNS_MAX).then_some(bytes.len() / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_similar_size_are_merged_and_the_oldest_when_it_pays() {
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
    fn no_sizes_let_them_become_many() {
        let falling: Vec<u64> = (0..40).map(|number| 3_u64.pow(number)).collect();
        assert_eq!(worth_merging(&falling, false), Some(20));
    }

    /// Adds runs of one size, and of sizes from a simple sequence.
    #[test]
    fn rows_are_written_a_few_times_and_runs_stay_few() {
        for vary in [false, true] {
            let (mut runs, mut written, mut added, mut most) = (Vec::new(), 0_u64, 0_u64, 0);
            for number in 0..2_000_u64 {
                let size = if vary { 1 + number * 7_919 % 100 } else { 50 };
                added += size;
                runs.insert(0, size);
                while let Some(count) = worth_merging(&runs, true) {
                    let merged = runs.drain(..count).sum::<u64>();
                    written += merged;
                    runs.insert(0, merged);
                }
                most = most.max(runs.len());
            }
            assert!(most <= 12, "{most} runs");
            assert!(written <= 9 * added, "{written} written for {added}");
        }
    }
}
