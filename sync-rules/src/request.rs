//! Requests through the plan: which buckets a client gets.

use kairos_sync_protocol::BucketName;
use serde_json::{Map, Value};

use crate::evaluate::{EvaluationError, LookupKey, LookupSource};

/// What a client proved and asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RequestContext {
    /// Payload of the verified token.
    pub token: Map<String, Value>,
    /// Client parameters: not authenticated.
    pub parameters: Map<String, Value>,
    /// Also the streams everybody gets.
    pub include_defaults: bool,
    /// Explicit subscriptions.
    pub subscriptions: Vec<Subscription>,
}

/// One explicit stream subscription.
#[derive(Debug, Clone, PartialEq)]
pub struct Subscription {
    /// Name of the stream.
    pub stream: String,
    /// Subscription parameters: not authenticated.
    pub parameters: Option<Map<String, Value>>,
    /// Overrides the stream's priority.
    pub priority: Option<u8>,
}

/// Why a client has a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Everybody gets it.
    Default,
    /// An index into [`RequestContext::subscriptions`].
    Subscription(usize),
}

/// A bucket a client gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedBucket {
    /// The bucket, prefix included.
    pub name: BucketName,
    /// Index into [`Querier::definitions`].
    pub definition: usize,
    /// 0 syncs first, 3 last.
    pub priority: u8,
    /// Why; never empty, ascending.
    pub reasons: Vec<Reason>,
}

/// All buckets a client gets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolution {
    /// Each bucket once, sorted by name.
    pub buckets: Vec<ResolvedBucket>,
    /// Lookups that were asked; when the values of one change, the request must be resolved again.
    pub consulted: Vec<LookupKey>,
    /// Subscriptions that failed; `None` is the default one.
    pub errors: Vec<(Option<usize>, EvaluationError)>,
}

/// A definition that is active for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveDefinition {
    /// Name of the bucket definition or stream.
    pub name: String,
    /// Everybody gets it.
    pub is_default: bool,
}

/// A request, evaluated as far as it can be without lookups. Made by [`crate::SyncPlan::querier`].
#[derive(Debug, Clone)]
pub struct Querier {}

impl Querier {
    /// The definitions this request activates, in the order of the rules file.
    pub fn definitions(&self) -> &[ActiveDefinition] {
        &[]
    }

    /// The buckets as of the state `lookups` shows.
    ///
    /// # Errors
    /// Only those of `lookups`.
    pub fn resolve<L: LookupSource>(&self, lookups: &mut L) -> Result<Resolution, L::Error> {
        let _ = lookups;
        Ok(Resolution::default())
    }
}
