//! What a row becomes. Computed from the row alone, or with lookups besides, but not from what is stored of it: so rows of
//! a copy are evaluated by whoever reads them.

use std::{collections::HashMap, mem, sync::Arc};

use bytes::Bytes;
use foldhash::fast::RandomState;
use kairos_sync_protocol::{Checksum, WriteCheckpointId};
use kairos_sync_rules::{ErrorKind, EvaluatedRow, Evaluation, EvaluationError, LookupSource, Scratch};

use super::{
    custom_write_checkpoints,
    image::{CompleteRow, subkey},
    relations::Layout,
};
use crate::storage::{NewOperation, RowKey, RowOutput, StoredRow, WriteCheckpointKey};

/// Clients refuse larger rows; such an output is left out and reported like a failed query.
const DATA_BYTES_MAX: usize = 15 * 1024 * 1024;
/// Up to so many outputs of a row are compared one by one, which is faster than hashing them.
pub(super) const FEW_OUTPUTS: usize = 8;

/// A row through the rules.
#[derive(Debug)]
pub(super) struct Evaluated {
    /// To be stored.
    pub(super) stored: StoredRow,
    /// Of its operations.
    pub(super) subkey: Arc<str>,
    /// One per bucket, table and id.
    pub(super) outputs: Vec<Put>,
    /// Write checkpoints that are reached where this row is.
    pub(super) write_checkpoints: Vec<(WriteCheckpointKey, WriteCheckpointId)>,
    /// Queries that failed; their outputs are missing.
    pub(super) errors: Vec<EvaluationError>,
}

/// What clients get of a row in one bucket.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) output: RowOutput,
    pub(super) data: Arc<str>,
    pub(super) checksum: Checksum,
}

impl Evaluated {
    /// Evaluates a row of a layout; `image` is the row, as it is stored.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub(super) fn of<L: LookupSource, T: AsRef<[u8]>>(
        layout: &Layout,
        key: &RowKey,
        row: &CompleteRow<T>,
        image: Bytes,
        lookups: &mut L,
        scratch: &mut Scratch,
    ) -> Result<Self, L::Error> {
        Ok(Self::from_evaluation(layout, key, image, layout.evaluate(row, lookups, scratch)?))
    }

    /// A stored row of a layout by what is being built, beside what it is already.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub(super) fn of_news<L: LookupSource>(
        layout: &Layout,
        key: &RowKey,
        row: &CompleteRow,
        stored: &StoredRow,
        lookups: &mut L,
        scratch: &mut Scratch,
    ) -> Result<Self, L::Error> {
        let evaluation = layout.evaluate_news(row, lookups, scratch)?;
        let mut evaluated = Self::from_evaluation(layout, key, stored.image.clone(), evaluation);
        evaluated.keep(stored);
        Ok(evaluated)
    }

    /// Of a row that was evaluated, by all plans or some.
    fn from_evaluation(layout: &Layout, key: &RowKey, image: Bytes, mut evaluation: Evaluation) -> Self {
        let outputs = distinct(evaluation.rows, &mut evaluation.errors);
        let write_checkpoints = custom_write_checkpoints::of_events(&evaluation.events, &mut evaluation.errors);
        let stored = StoredRow {
            image,
            outputs: outputs.iter().map(|output| output.output.clone()).collect(),
            lookups: evaluation.lookups,
            consulted: evaluation.consulted,
        };
        let subkey = subkey(&layout.schema, &layout.name, key);
        Self { stored, subkey, outputs, write_checkpoints, errors: evaluation.errors }
    }

    /// About how much memory a batch holds of it.
    pub(super) fn bytes(&self) -> usize {
        let outputs: usize = self.outputs.iter().map(|put| put.data.len() + size_of::<NewOperation>()).sum();
        self.stored.image.len() + outputs
    }

    /// What other plans made of the row stays beside what it is.
    fn keep(&mut self, stored: &StoredRow) {
        let StoredRow { outputs, lookups, consulted, .. } = mem::replace(&mut self.stored, stored.clone());
        add_missing(&mut self.stored.outputs, outputs);
        add_missing(&mut self.stored.lookups, lookups);
        add_missing(&mut self.stored.consulted, consulted);
    }
}

/// Both lists are mostly short.
fn add_missing<T: PartialEq>(list: &mut Vec<T>, others: Vec<T>) {
    let own = list.len();
    for other in others {
        if !list[..own].contains(&other) {
            list.push(other);
        }
    }
}

/// One output per bucket, table and id, in order; of several the last counts.
pub(super) fn distinct(rows: Vec<EvaluatedRow>, errors: &mut Vec<EvaluationError>) -> Vec<Put> {
    let mut places = OutputPlaces::new(rows.len());
    let mut outputs: Vec<Put> = Vec::with_capacity(rows.len());
    for EvaluatedRow { bucket, object_type, object_id, data } in rows {
        if data.len() > DATA_BYTES_MAX {
            let message = format!("an output row of more than {DATA_BYTES_MAX} bytes is left out");
            errors.push(EvaluationError { definition: object_type.to_string(), message, kind: ErrorKind::Data });
            continue;
        }
        let output = RowOutput { bucket, object_type, object_id };
        let checksum = checksum(&output, &data, outputs.last());
        match places.find_or_add(&output, &outputs) {
            Some(known) => outputs[known] = Put { output, data, checksum },
            None => outputs.push(Put { output, data, checksum }),
        }
    }
    outputs
}

/// Buckets mostly get the very same row, so its checksum is computed once.
fn checksum(output: &RowOutput, data: &Arc<str>, last: Option<&Put>) -> Checksum {
    match last {
        Some(last)
            if Arc::ptr_eq(&last.data, data)
                && last.output.object_type == output.object_type
                && last.output.object_id == output.object_id =>
        {
            last.checksum
        }
        _ => Checksum::of_put(&output.object_type, &output.object_id, data),
    }
}

/// Where outputs of a row are in a list of them.
struct OutputPlaces {
    /// `None` for few, which are searched.
    places: Option<HashMap<RowOutput, usize, RandomState>>,
}

impl OutputPlaces {
    fn new(count: usize) -> Self {
        let places = (count > FEW_OUTPUTS).then(|| HashMap::with_capacity_and_hasher(count, RandomState::default()));
        Self { places }
    }

    /// The place of an output in the list; `None` if it is new and about to be added to its end.
    fn find_or_add(&mut self, output: &RowOutput, outputs: &[Put]) -> Option<usize> {
        let Some(places) = &mut self.places else {
            return outputs.iter().position(|known| known.output == *output);
        };
        let known = places.get(output).copied();
        if known.is_none() {
            places.insert(output.clone(), outputs.len());
        }
        known
    }
}
