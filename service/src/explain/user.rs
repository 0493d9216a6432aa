//! A user's request through the rules, in one view of the store. Blocks on disk.

use std::{collections::BTreeSet, sync::Arc};

use kairos_sync_protocol::BucketName;
use kairos_sync_rules::{
    ExplainedRequest, ExplainedRowQuery, Origin, RequestContext, Resolution, ResolvedBucket, Subscription, SyncPlan,
    explain::ExplainedDefinition,
};
use serde_json::Value;

use super::{
    answer::{
        BUCKETS_PAGE, BUCKETS_PAGE_MAX, BucketAnswer, Buckets, ExplainedAs, OriginAnswer, ParameterAnswer, Question,
        RequestSource, RowAnswer, RowBucket, Subscribed,
    },
    lookups::{BucketWithLookups, CachedLookups},
    row::Found,
};
use crate::{
    storage::{Checkpoint, RowOutput, StorageError, StoreView},
    sync::connections::Connection,
};

/// Buckets of a row that are listed.
const ROW_BUCKETS_MAX: usize = 100;

/// The request to explain, and where it is from.
pub(super) fn asked_by(question: &Question, connections: &[Arc<Connection>]) -> (RequestContext, ExplainedAs) {
    let Question { user_id, claims, parameters, subscriptions, client_id, .. } = question;
    let is_given = claims.is_some() || parameters.is_some() || subscriptions.is_some();
    let is_meant = |connection: &&&Arc<Connection>| client_id.is_none() || connection.client_id == *client_id;
    let device = connections.iter().rev().find(|connection| is_meant(&connection)).filter(|_| !is_given);
    let asked = device.map(|device| RequestContext::clone(&device.request));
    let source = match asked {
        Some(_) => RequestSource::Device,
        None if is_given => RequestSource::Given,
        None => RequestSource::UserAlone,
    };
    let request = asked.unwrap_or_else(|| {
        let mut token = claims.clone().unwrap_or_default();
        token.entry("sub").or_insert_with(|| Value::String(user_id.clone()));
        let subscription = |subscribed: &Subscribed| Subscription {
            stream: subscribed.stream.clone(),
            parameters: subscribed.parameters.clone(),
            priority: None,
        };
        RequestContext {
            token,
            parameters: parameters.clone().unwrap_or_default(),
            include_defaults: true,
            subscriptions: subscriptions.iter().flatten().map(subscription).collect(),
        }
    });
    let subscribed = |subscription: &Subscription| Subscribed {
        stream: subscription.stream.clone(),
        parameters: subscription.parameters.clone(),
    };
    let explained = ExplainedAs {
        source,
        client_id: device.and_then(|device| device.client_id.clone()),
        token: request.token.clone(),
        parameters: request.parameters.clone(),
        subscriptions: request.subscriptions.iter().map(subscribed).collect(),
    };
    (request, explained)
}

/// Whose buckets are read, and which of them are listed.
pub(super) struct User {
    pub(super) request: RequestContext,
    pub(super) page_after: Option<String>,
    pub(super) page_limit: Option<usize>,
}

/// What was read.
pub(super) struct Read {
    pub(super) checkpoint: Option<Checkpoint>,
    /// Without a page, which is there with what was asked on the way.
    pub(super) buckets: Buckets,
    pub(super) page: Vec<BucketWithLookups>,
    pub(super) definitions: Vec<ExplainedDefinition>,
    pub(super) row: Option<RowAnswer>,
}

impl User {
    /// Reads everything in one view, by its rules. Of `found`, too, it is said in which buckets it is; a client may have
    /// `limit`.
    pub(super) fn read(
        &self,
        view: &dyn StoreView,
        plan: &SyncPlan,
        found: Option<Found>,
        limit: usize,
    ) -> Result<Read, StorageError> {
        let prefix = view.bucket_prefix();
        let mut lookups = CachedLookups::new(view);
        let explained = plan.explain_request(&self.request, &prefix, &mut lookups)?;
        let ExplainedRequest { definitions, resolution } = explained;
        let mut failures = Vec::new();
        let resolution = resolution.unwrap_or_else(|failed| {
            failures.push(failed.to_string());
            Resolution::default()
        });
        failures.extend(resolution.errors.iter().map(|(_, error)| error.to_string()));
        let resolved = &resolution.buckets[..];
        let (listed, next_after) = self.page(resolved);
        let row = found.map(|found| explained_row(found, plan, resolved, &mut lookups)).transpose()?;
        let of_row = row.iter().flat_map(|row| &row.buckets).filter(|bucket| bucket.is_users);
        let of_row = of_row.map(|bucket| BucketName::new(bucket.name.as_str()));
        let wanted: BTreeSet<BucketName> = listed.into_iter().chain(of_row).collect();
        let mut origins = plan.origins(&self.request, &prefix, &mut lookups, &wanted)?;
        let mut page = Vec::with_capacity(wanted.len());
        for name in &wanted {
            if let Some(bucket) = find(resolved, name) {
                page.push(described(bucket, view, origins.remove(name).unwrap_or_default())?);
            }
        }
        let buckets = Buckets { count: resolved.len(), limit, failures, page: Vec::new(), next_after };
        Ok(Read { checkpoint: view.checkpoint(), buckets, page, definitions, row })
    }

    /// Names of the buckets to list, and where the next page begins.
    fn page(&self, resolved: &[ResolvedBucket]) -> (Vec<BucketName>, Option<String>) {
        let limit = self.page_limit.unwrap_or(BUCKETS_PAGE).min(BUCKETS_PAGE_MAX);
        let after = self.page_after.as_deref().unwrap_or_default();
        let first = resolved.partition_point(|bucket| bucket.name.as_str() <= after);
        let rest = &resolved[first..];
        let listed: Vec<_> = rest.iter().take(limit).map(|bucket| bucket.name.clone()).collect();
        let next_after = listed.last().filter(|_| listed.len() < rest.len()).map(|name| name.as_str().to_owned());
        (listed, next_after)
    }
}

/// A row in its buckets, and what the rules make of it.
fn explained_row(
    found: Found,
    plan: &SyncPlan,
    resolved: &[ResolvedBucket],
    lookups: &mut CachedLookups<'_>,
) -> Result<RowAnswer, StorageError> {
    let prefix = &lookups.view.bucket_prefix();
    let Found { table, key, state, row } = found;
    let (mut queries, mut outputs) = (Vec::new(), Vec::new());
    if let Some(row) = row {
        queries = plan.explain_row(&table, &row.columns, &row.values, prefix, lookups)?;
        outputs = row.outputs;
    }
    // The store may still have buckets that no rules name any more.
    outputs.retain(|output| is_in_rules(&queries, prefix, output));
    let is_users = |output: &RowOutput| find(resolved, &output.bucket).is_some();
    outputs.sort_by(|one, other| {
        (!is_users(one), &one.bucket, &one.object_type).cmp(&(!is_users(other), &other.bucket, &other.object_type))
    });
    let mut buckets = Vec::new();
    for output in outputs.iter().take(ROW_BUCKETS_MAX) {
        let is_users = is_users(output);
        let totals = if is_users { Some(lookups.view.bucket(&output.bucket)?) } else { None };
        buckets.push(RowBucket {
            name: output.bucket.as_str().to_owned(),
            is_users,
            object_type: output.object_type.to_string(),
            object_id: output.object_id.to_string(),
            op_id: None,
            bucket_last_op_id: totals.map(|totals| totals.last_op_id),
        });
    }
    Ok(RowAnswer {
        table: format!("{}.{}", table.schema, table.name),
        key,
        state,
        queries,
        bucket_count: outputs.len(),
        user_bucket_count: outputs.iter().filter(|output| is_users(output)).count(),
        buckets,
    })
}

/// A bucket among those of a user, which are sorted.
fn find<'r>(resolved: &'r [ResolvedBucket], name: &BucketName) -> Option<&'r ResolvedBucket> {
    resolved.binary_search_by(|bucket| bucket.name.cmp(name)).ok().and_then(|place| resolved.get(place))
}

/// Whether a query of the rules puts rows into this bucket.
fn is_in_rules(queries: &[ExplainedRowQuery], prefix: &str, output: &RowOutput) -> bool {
    let Some(name) = output.bucket.as_str().strip_prefix(prefix) else { return false };
    let of = |bucket: &String| name.strip_prefix(bucket.as_str()).is_some_and(|rest| rest.starts_with('['));
    queries.iter().flat_map(|query| &query.buckets).any(of)
}

fn described(
    bucket: &ResolvedBucket,
    view: &dyn StoreView,
    origins: Vec<Origin>,
) -> Result<BucketWithLookups, StorageError> {
    let totals = view.bucket(&bucket.name)?;
    let mut lookups = Vec::with_capacity(origins.len());
    let mut answers = Vec::with_capacity(origins.len());
    for origin in origins {
        let parameter = |(value, from)| ParameterAnswer { value, from };
        answers.push(OriginAnswer {
            definition: origin.definition,
            subscription: origin.subscription,
            parameters: origin.parameters.into_iter().map(parameter).collect(),
            lookups: Vec::new(),
        });
        lookups.push(origin.lookups);
    }
    let answer = BucketAnswer {
        name: bucket.name.as_str().to_owned(),
        priority: bucket.priority,
        operation_count: totals.count,
        last_op_id: totals.last_op_id,
        origins: answers,
    };
    Ok((answer, lookups))
}
