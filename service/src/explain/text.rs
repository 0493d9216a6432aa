//! The answer for people.

use std::fmt::Write;

use kairos_sync_rules::explain::{ExplainedBucketQuery, ExplainedRowQuery, Outcome, Predicate};
use serde_json::Value;

use super::answer::{
    Answer, BucketAnswer, DeviceAnswer, ExplainedAs, RequestSource, RowAnswer, RowBucket, RowOnDevice, ToldAnswer,
    shown,
};

/// The answer, its sentence first.
pub(super) fn text_of(answer: &Answer) -> String {
    let mut text = String::new();
    // A string takes all.
    let _ = write(answer, &mut text);
    text
}

fn write(answer: &Answer, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{}\n", answer.summary)?;
    write_request(&answer.user_id, &answer.request, out)?;
    match &answer.checkpoint {
        Some(checkpoint) => {
            writeln!(out, "checkpoint: operation {} at {} of the source", checkpoint.op_id, checkpoint.lsn)?;
        }
        None => writeln!(out, "checkpoint: none is visible yet")?,
    }
    if let Some(row) = &answer.row {
        write_row(row, out)?;
    }
    write_buckets(answer, out)?;
    write_definitions(answer, out)?;
    write_devices(answer, out)
}

fn write_request(user_id: &str, request: &ExplainedAs, out: &mut String) -> std::fmt::Result {
    let source = match (request.source, &request.client_id) {
        (RequestSource::Device, Some(client_id)) => format!("as device {client_id} asked"),
        (RequestSource::Device, None) => "as a connected device asked".to_owned(),
        (RequestSource::Given, _) => "as given".to_owned(),
        (RequestSource::UserAlone, _) => "with a token that says nothing else: no device is connected".to_owned(),
    };
    writeln!(out, "user {user_id}, {source}")?;
    writeln!(out, "  token {}", Value::Object(request.token.clone()))?;
    if !request.parameters.is_empty() {
        writeln!(out, "  parameters {}", Value::Object(request.parameters.clone()))?;
    }
    for subscription in &request.subscriptions {
        let parameters = subscription
            .parameters
            .clone()
            .map_or_else(|| "no parameters".to_owned(), |parameters| Value::Object(parameters).to_string());
        writeln!(out, "  subscribed to {} with {parameters}", subscription.stream)?;
    }
    Ok(())
}

fn write_row(row: &RowAnswer, out: &mut String) -> std::fmt::Result {
    writeln!(out, "row {} of {}", row.key, row.table)?;
    for query in &row.queries {
        write_row_query(query, out)?;
    }
    if row.queries.is_empty() {
        return Ok(());
    }
    writeln!(out, "  it is in {}, of which the user has {}", count(row.bucket_count, "bucket"), row.user_bucket_count)?;
    for bucket in &row.buckets {
        writeln!(out, "    {}", row_bucket(bucket))?;
    }
    write_rest(row.bucket_count - row.buckets.len(), "    ", out)
}

fn row_bucket(bucket: &RowBucket) -> String {
    let RowBucket { name, is_users, object_type, object_id, op_id, bucket_last_op_id } = bucket;
    if !is_users {
        return format!("{name} as {object_type} {object_id}: not the user's");
    }
    let operation = match (op_id, bucket_last_op_id) {
        (Some(op_id), _) => format!("last operation {op_id}"),
        (None, Some(last)) => format!("its last operation was not found; that of the bucket is {last}"),
        (None, None) => "no operations".to_owned(),
    };
    format!("{name} as {object_type} {object_id}: the user has it; {operation}")
}

fn write_row_query(query: &ExplainedRowQuery, out: &mut String) -> std::fmt::Result {
    let outcome = if query.is_met() { "takes it" } else { "leaves it out" };
    writeln!(out, "  query {} of {} {outcome}", query.number, query.definition)?;
    if let Some(failure) = &query.failure {
        writeln!(out, "    an expression has no value: {failure}")?;
    }
    for pass in &query.passes {
        if !pass.elements.is_empty() {
            writeln!(out, "    for element {}", pass.elements.join(", "))?;
        }
        pass.predicates.iter().try_for_each(|predicate| write_predicate(predicate, "    ", out))?;
    }
    write_rest(query.pass_count.saturating_sub(query.passes.len()), "    ", out)
}

fn write_predicate(predicate: &Predicate, margin: &str, out: &mut String) -> std::fmt::Result {
    let Predicate { text, values, outcome, note, alternatives } = predicate;
    let outcome = match outcome {
        Outcome::Holds => "yes",
        Outcome::DoesNotHold => "NO ",
        Outcome::Failed(_) => "ERR",
    };
    let mut details: Vec<_> = if values.is_empty() { Vec::new() } else { vec![shown(values)] };
    details.extend(note.clone());
    let details = if details.is_empty() { String::new() } else { format!("   ({})", details.join("; ")) };
    writeln!(out, "{margin}{outcome} {text}{details}")?;
    for alternative in alternatives {
        writeln!(out, "{margin}  either")?;
        let margin = format!("{margin}    ");
        alternative.iter().try_for_each(|predicate| write_predicate(predicate, &margin, out))?;
    }
    Ok(())
}

fn write_buckets(answer: &Answer, out: &mut String) -> std::fmt::Result {
    let buckets = &answer.buckets;
    writeln!(out, "{} of at most {}", count(buckets.count, "bucket"), buckets.limit)?;
    for failure in &buckets.failures {
        writeln!(out, "  failed: {failure}")?;
    }
    buckets.page.iter().try_for_each(|bucket| write_bucket(bucket, out))?;
    if let Some(after) = &buckets.next_after {
        writeln!(out, "  more: --buckets-after '{after}'")?;
    }
    Ok(())
}

fn write_bucket(bucket: &BucketAnswer, out: &mut String) -> std::fmt::Result {
    let BucketAnswer { name, priority, operation_count, last_op_id, origins } = bucket;
    let operations = usize::try_from(*operation_count).unwrap_or(usize::MAX);
    writeln!(out, "  {name}: priority {priority}, {}, last {last_op_id}", count(operations, "operation"))?;
    for origin in origins {
        let way = origin
            .subscription
            .map_or_else(|| "by default".to_owned(), |index| format!("by subscription {}", index + 1));
        let parameters = origin.parameters.iter().enumerate();
        let parameters =
            parameters.map(|(at, parameter)| format!(", p{} = {} is {}", at + 1, parameter.value, parameter.from));
        writeln!(out, "    {}, {way}{}", origin.definition, parameters.collect::<String>())?;
        for lookup in &origin.lookups {
            let more = lookup.row_count.saturating_sub(lookup.rows.len());
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            writeln!(
                out,
                "      step {}: {} says {}, in {}{more}",
                lookup.step,
                lookup.table,
                lookup.value,
                lookup.rows.join("; ")
            )?;
        }
    }
    Ok(())
}

fn write_definitions(answer: &Answer, out: &mut String) -> std::fmt::Result {
    writeln!(out, "definitions")?;
    for definition in &answer.definitions {
        let kind = if definition.is_stream { "stream" } else { "bucket definition" };
        if definition.ways.is_empty() {
            writeln!(out, "  {kind} {}: the client did not ask for it", definition.name)?;
        }
        for way in &definition.ways {
            let by = way
                .subscription
                .map_or_else(|| "by default".to_owned(), |index| format!("by subscription {}", index + 1));
            writeln!(out, "  {kind} {}, {by}", definition.name)?;
            way.queries.iter().try_for_each(|query| write_query(query, out))?;
        }
    }
    Ok(())
}

fn write_query(query: &ExplainedBucketQuery, out: &mut String) -> std::fmt::Result {
    writeln!(out, "    {}[…]: {}", query.bucket, count(query.bucket_count, "bucket"))?;
    if let Some(failure) = &query.failure {
        writeln!(out, "      failed: {failure}")?;
    }
    query.conditions.iter().try_for_each(|predicate| write_predicate(predicate, "      ", out))?;
    for (number, step) in query.steps.iter().enumerate() {
        let asked =
            if step.asked.is_empty() { String::new() } else { format!(", asked with {}", step.asked.join("; ")) };
        let values = if step.values.is_empty() { String::new() } else { format!("   ({})", shown(&step.values)) };
        writeln!(out, "      step {}: {}{asked}: finds {}{values}", number + 1, step.text, step.found_count)?;
    }
    for (number, parameter) in query.parameters.iter().enumerate() {
        let value = parameter.value.as_ref().map_or_else(String::new, |value| format!(" = {value}"));
        writeln!(out, "      p{}{value} is {}", number + 1, parameter.from)?;
    }
    Ok(())
}

fn write_devices(answer: &Answer, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{} connected", count(answer.device_count, "device"))?;
    answer.devices.iter().try_for_each(|device| write_device(device, out))?;
    write_rest(answer.device_count.saturating_sub(answer.devices.len()), "  ", out)
}

fn write_device(device: &DeviceAnswer, out: &mut String) -> std::fmt::Result {
    let name = device.client_id.as_deref().unwrap_or("without a client id");
    let agent = device.user_agent.as_ref().map_or_else(String::new, |agent| format!(", {agent}"));
    let buckets = count(device.bucket_count, "bucket");
    writeln!(out, "  {name}, by {}{agent}, since {}, {buckets}", device.carrier, device.since)?;
    let told = |told: &Option<ToldAnswer>| {
        told.as_ref().map_or_else(|| "none".to_owned(), |told| format!("{} at {}", told.op_id, told.at))
    };
    writeln!(out, "    checkpoint announced: {}; complete: {}", told(&device.announced), told(&device.completed))?;
    match device.row {
        Some(RowOnDevice::Sent) => writeln!(out, "    the row was sent"),
        Some(RowOnDevice::Coming) => writeln!(out, "    the row is being sent"),
        Some(RowOnDevice::NotAsked) => writeln!(out, "    its stream has no bucket with the row"),
        None => Ok(()),
    }
}

fn write_rest(rest: usize, margin: &str, out: &mut String) -> std::fmt::Result {
    if rest == 0 { Ok(()) } else { writeln!(out, "{margin}and {rest} more") }
}

/// `1 bucket`, `2 buckets`
fn count(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
