//! The answer in one sentence. Pure.

use kairos_sync_rules::explain::{ExplainedBucketQuery, ExplainedDefinition, ExplainedRowQuery, Outcome, Predicate};
use serde_json::value::RawValue;

use super::answer::{Answer, DeviceAnswer, RequestSource, RowAnswer, RowBucket, RowOnDevice, RowState, shown};

/// Buckets, definitions or devices that a sentence names.
const NAMED_MAX: usize = 3;

/// Why is this row on this user's devices, or not? Without a row: which buckets has the user?
pub(super) fn summary(answer: &Answer) -> String {
    match &answer.row {
        Some(row) => of_row(answer, row),
        None => of_buckets(answer),
    }
}

fn of_buckets(answer: &Answer) -> String {
    let user = &answer.user_id;
    if let Some(reason) = obstacle_for_all(answer) {
        return reason;
    }
    let mut definitions: Vec<&str> = answer
        .definitions
        .iter()
        .filter(|definition| definition.ways.iter().flat_map(|way| &way.queries).any(|query| query.bucket_count > 0))
        .map(|definition| definition.name.as_str())
        .collect();
    definitions.dedup();
    let count = answer.buckets.count;
    match count {
        0 => format!("{user} has no buckets: see below what each definition asks for."),
        1 => format!("{user} has 1 bucket, of {}.", some(&definitions)),
        _ => format!("{user} has {count} buckets, of {}.", some(&definitions)),
    }
}

/// What keeps everything from a user, or from everybody.
fn obstacle_for_all(answer: &Answer) -> Option<String> {
    let user = &answer.user_id;
    let buckets = &answer.buckets;
    if answer.checkpoint.is_none() {
        return Some(
            "Nothing is on any device yet: no checkpoint is visible, because tables are still being copied or compared."
                .to_owned(),
        );
    }
    if buckets.count > buckets.limit {
        return Some(format!(
            "Nothing new reaches {user}: {} buckets are more than limits.buckets_per_connection_max allows ({}), so the \
             stream is refused with PSYNC_S2305.",
            buckets.count, buckets.limit
        ));
    }
    let failed = buckets.failures.first().filter(|_| buckets.count == 0)?;
    Some(format!("Nothing reaches {user}: the rules cannot be evaluated for the user's token ({failed})."))
}

fn of_row(answer: &Answer, row: &RowAnswer) -> String {
    let name = format!("Row {} of {}", row.key, row.table);
    match &row.state {
        RowState::TableNotInRules => format!("{name} is on no device: the rules do not read this table."),
        RowState::TableNotPublished(publications) => {
            let publications =
                if publications.is_empty() { "the publication".to_owned() } else { publications.join(", ") };
            format!(
                "{name} is on no device: the rules read this table, but {publications} does not have it, or it does not \
                 exist."
            )
        }
        RowState::TableBeingCopied => {
            format!("{name} is not here yet: the table is still being copied from the source.")
        }
        RowState::NothingReplicated => format!("{name} is on no device: replication has not begun."),
        RowState::KeyNeeded(columns) => {
            let members: Vec<_> = columns.iter().map(|column| format!("\"{column}\": …")).collect();
            format!(
                "Rows of {} are told apart by {}: give the id as {{{}}}.",
                row.table,
                columns.join(", "),
                members.join(", ")
            )
        }
        RowState::NoSuchRow => {
            let lag = match answer.lag_bytes {
                0 => String::new(),
                bytes => format!(", or is in the {bytes} bytes of WAL that are still to be read"),
            };
            format!("{name} is on no device: the source has no such row, or the publication leaves it out{lag}.")
        }
        RowState::Stored | RowState::Incomplete => of_stored_row(answer, row, &name),
    }
}

fn of_stored_row(answer: &Answer, row: &RowAnswer, name: &str) -> String {
    let user = &answer.user_id;
    if row.bucket_count == 0 {
        return format!("{name} is on no device: {}.", why_in_no_bucket(row));
    }
    if row.user_bucket_count == 0 {
        let place = row.buckets.first().map_or_else(String::new, |bucket| bucket.name.clone());
        let others = match row.bucket_count {
            1 => String::new(),
            count => format!(" and {} more", count - 1),
        };
        let reason = row.buckets.first().map_or_else(String::new, |bucket| why_not_users(answer, bucket));
        let left_out = also_left_out(row);
        return format!("{name} is in {place}{others}, which {user} does not have: {reason}{left_out}.");
    }
    if let Some(reason) = obstacle_for_all(answer) {
        return reason;
    }
    let buckets: Vec<_> =
        row.buckets.iter().filter(|bucket| bucket.is_users).map(|bucket| bucket.name.as_str()).collect();
    let has = format!("{user} gets {} through {}", name.replacen("Row", "row", 1), some(&buckets));
    match devices(answer) {
        Devices::None => format!("{has}; no device of the user is connected, so it comes with the next sync."),
        Devices::All(device) => {
            format!(
                "{has}, and it was sent to {device}: if the app does not show it, look at the app's schema and queries."
            )
        }
        Devices::Coming(device) => format!("{has}; it is being sent to {device}."),
        Devices::NotAsked(device) => format!(
            "{has}, but the stream of {device} is without it: it asked with another token, other parameters or \
             subscriptions{}.",
            if answer.request.source == RequestSource::Device { "" } else { " than explained here" }
        ),
    }
}

/// How the row is on the devices of the user: the worst of it.
enum Devices {
    None,
    All(String),
    Coming(String),
    NotAsked(String),
}

fn devices(answer: &Answer) -> Devices {
    let with = |wanted: RowOnDevice| {
        let found = answer.devices.iter().filter(|device| device.row == Some(wanted)).map(device_name);
        let found: Vec<String> = found.collect();
        (!found.is_empty()).then(|| some(&found.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    if let Some(names) = with(RowOnDevice::NotAsked) {
        return Devices::NotAsked(names);
    }
    if let Some(names) = with(RowOnDevice::Coming) {
        return Devices::Coming(names);
    }
    with(RowOnDevice::Sent).map_or(Devices::None, Devices::All)
}

fn device_name(device: &DeviceAnswer) -> String {
    device.client_id.as_ref().map_or_else(|| "a device without a client id".to_owned(), |id| format!("device {id}"))
}

/// What keeps a row out of all buckets.
fn why_in_no_bucket(row: &RowAnswer) -> String {
    let Some(query) = row.queries.first() else {
        return "no query of the rules puts rows of this table into buckets, it is only asked for lookups".to_owned();
    };
    let others = match row.queries.len() {
        1 => String::new(),
        2 => "; see below for the other query".to_owned(),
        count => format!("; see below for the other {} queries", count - 1),
    };
    let place = format!("query {} of {}", query.number, query.definition);
    format!("{place} leaves it out, because {}{others}", why_left_out(query))
}

/// A query that could have put a row into another bucket.
fn also_left_out(row: &RowAnswer) -> String {
    let mut others = row.queries.iter().filter(|query| !query.is_met());
    let Some(query) = others.next() else { return String::new() };
    let more = match others.count() {
        0 => String::new(),
        1 => ", and so does another".to_owned(),
        count => format!(", and so do {count} others"),
    };
    format!("; query {} of {} leaves it out, because {}{more}", query.number, query.definition, why_left_out(query))
}

fn why_left_out(query: &ExplainedRowQuery) -> String {
    if let Some(failure) = &query.failure {
        return format!("an expression has no value for it: {failure}");
    }
    if query.pass_count == 0 {
        return "the array it is expanded by has no elements".to_owned();
    }
    match query.obstacle() {
        Some(predicate) => why_does_not_hold(predicate),
        None => "no values of the bucket's parameters fit all its conditions at once".to_owned(),
    }
}

/// ``` `archived = 0` does not hold (archived is 1) ```
pub(super) fn why_does_not_hold(predicate: &Predicate) -> String {
    let Predicate { text, values, outcome, note, .. } = predicate;
    let mut details = Vec::new();
    if !values.is_empty() {
        details.push(shown(values));
    }
    details.extend(note.clone());
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join("; ")) };
    match outcome {
        Outcome::Failed(reason) => format!("`{text}` has no value{details}: {reason}"),
        _ => format!("`{text}` does not hold{details}"),
    }
}

/// Why a user does not have a bucket.
fn why_not_users(answer: &Answer, bucket: &RowBucket) -> String {
    let is_of =
        |definition: &&ExplainedDefinition| definition.buckets.iter().any(|name| base(&bucket.name, name).is_some());
    let definitions: Vec<_> = answer.definitions.iter().filter(is_of).collect();
    let queries: Vec<_> = definitions
        .iter()
        .flat_map(|definition| {
            definition.ways.iter().flat_map(|way| &way.queries).map(move |query| (definition, query))
        })
        .filter_map(|(definition, query)| Some((definition, query, base(&bucket.name, &query.bucket)?)))
        .collect();
    if let Some((definition, query, parameters)) = queries.first() {
        return why_other_buckets(&definition.name, query, parameters);
    }
    match definitions.first() {
        Some(definition) if definition.is_stream => format!("the client has not subscribed to {}", definition.name),
        Some(definition) => format!("the client asked for no default buckets, and {} is one", definition.name),
        None => "no definition of the rules asks for it".to_owned(),
    }
}

fn why_other_buckets(definition: &str, query: &ExplainedBucketQuery, row_has: &str) -> String {
    if let Some(failure) = &query.failure {
        return format!("{definition} gives the user nothing: {failure}");
    }
    if let Some(predicate) = query.conditions.iter().find(|predicate| predicate.outcome != Outcome::Holds) {
        return format!("{definition} gives the user nothing, because {}", why_does_not_hold(predicate));
    }
    let row_has = parts(row_has);
    let differs = query
        .parameters
        .iter()
        .zip(&row_has)
        .find(|(parameter, row_has)| parameter.value.as_ref().is_some_and(|users| users != *row_has));
    if let Some((parameter, row_has)) = differs {
        let users = parameter.value.as_deref().unwrap_or_default();
        return format!(
            "{definition} compares with {} of the user, which is {users}, and the row has {row_has}",
            parameter.from
        );
    }
    if let Some(step) = query.steps.iter().find(|step| step.found_count == 0) {
        let asked = if step.asked.is_empty() { String::new() } else { format!(" with {}", step.asked.join("; ")) };
        return format!("{definition} gives the user nothing, because `{}`, asked{asked}, finds nothing", step.text);
    }
    let found: Vec<_> = query.steps.iter().map(|step| format!("`{}`", step.text)).collect();
    match query.bucket_count {
        0 => format!("what {definition} finds for the user does not fit together"),
        count => format!("{definition} gives the user {count} other buckets, by {}", found.join(" and ")),
    }
}

/// The parameters in a bucket's name, if it begins so behind the prefix of the store.
fn base<'n>(name: &'n str, begins: &str) -> Option<&'n str> {
    // The prefix of the store ends with the first `#`.
    let (_, own) = name.split_once('#')?;
    own.strip_prefix(begins).filter(|rest| rest.starts_with('['))
}

fn parts(parameters: &str) -> Vec<String> {
    let parts: Vec<&RawValue> = serde_json::from_str(parameters).unwrap_or_default();
    parts.into_iter().map(|part| part.get().to_owned()).collect()
}

/// `a, b and 3 more`
fn some(names: &[&str]) -> String {
    let shown = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        rest => format!("{shown} and {rest} more"),
    }
}
