//! What `kairos-sync store` prints, for people and for programs.

use std::{fmt::Write, path::Path};

use indicatif::{HumanBytes, HumanCount};
use serde_json::json;

use super::saved;
use crate::storage::{DefinitionStats, StoreStats, Verification};

/// A line for each damage, then the verdict.
pub(super) fn verification(found: &Verification, as_json: bool) -> String {
    if as_json {
        let mut object = json!(found);
        object["ok"] = found.is_whole().into();
        return format!("{object}\n");
    }
    let mut out = String::new();
    for damage in &found.damages {
        let place = damage.definition.as_ref().map(|of| format!(" in a bucket of {of}")).unwrap_or_default();
        let _ = writeln!(out, "damaged [{}]: {}{place}", damage.code, damage.what);
    }
    let Verification { bucket_count, operation_count, row_count, chunk_count, damage_count, .. } = found;
    let [buckets, operations, rows, chunks] =
        [bucket_count, operation_count, row_count, chunk_count].map(|count| HumanCount(*count));
    let verdict = match damage_count {
        0 => "nothing is damaged".to_owned(),
        1 => format!("1 damage; {}", remedy(found)),
        count => format!("{count} damages; {}", remedy(found)),
    };
    if found.mending_count > 0 {
        let mending = HumanCount(found.mending_count);
        let _ =
            writeln!(out, "{mending} buckets were damaged and are not built again yet: the service goes on with it");
    }
    let _ = writeln!(out, "{buckets} buckets, {operations} operations in {chunks} chunks, {rows} rows: {verdict}");
    out
}

/// What to do about damages.
fn remedy(found: &Verification) -> &'static str {
    let Verification { damage_count, bucket_damage_count, row_damage_count, filter_damage_count, .. } = *found;
    if filter_damage_count == damage_count {
        "look at the disk, then start the service: it makes these filters again by itself"
    } else if bucket_damage_count + filter_damage_count == damage_count {
        "look at the disk, then start the service: it builds these buckets again by itself"
    } else if bucket_damage_count + row_damage_count + filter_damage_count == damage_count {
        "look at the disk, then start the service: it copies the tables of these rows again by itself, and builds anew what \
         they went into"
    } else {
        "look at the disk, then run `kairos-sync store delete --yes`: all is built again from Postgres"
    }
}

/// What was deleted, or would be.
pub(super) fn deletion(folder: &Path, size_bytes: u64, is_done: bool, as_json: bool) -> String {
    if as_json {
        return format!("{}\n", json!({"folder": folder, "size_bytes": size_bytes, "deleted": is_done}));
    }
    let (size, folder) = (HumanBytes(size_bytes), folder.display());
    if is_done {
        format!("the store in {folder} is deleted, {size}; the service builds it again from Postgres\n")
    } else {
        format!("the store in {folder} would be deleted, {size}: run it with --yes\n")
    }
}

/// A table of the definitions, then the sums.
pub(super) fn stats(stats: StoreStats, definitions: &[DefinitionStats], as_json: bool) -> String {
    let StoreStats { bucket_count, operation_count, row_count, size_bytes, .. } = stats;
    if as_json {
        let object = json!({
            "bucket_count": bucket_count, "operation_count": operation_count, "row_count": row_count,
            "size_bytes": size_bytes, "definitions": definitions,
        });
        return format!("{object}\n");
    }
    let name_width = definitions.iter().map(|of| of.definition.chars().count()).max().unwrap_or(0).max(10);
    let mut out = format!(
        "{:name_width$}  {:>9}  {:>12}  {:>12}  {:>11}  {:>11}\n",
        "definition", "buckets", "rows", "operations", "JSON", "stored"
    );
    for of in definitions {
        let [buckets, rows, operations] =
            [of.bucket_count, of.row_count, of.operation_count].map(|count| HumanCount(count).to_string());
        let [json, stored] = [of.json_bytes, of.stored_bytes].map(|bytes| HumanBytes(bytes).to_string());
        let name = &of.definition;
        let _ =
            writeln!(out, "{name:name_width$}  {buckets:>9}  {rows:>12}  {operations:>12}  {json:>11}  {stored:>11}");
    }
    let [buckets, operations, rows] = [bucket_count, operation_count, row_count].map(HumanCount);
    let _ =
        writeln!(out, "{buckets} buckets, {operations} operations, {rows} rows, {} on disk", HumanBytes(size_bytes));
    out
}

/// What it was good for.
pub(super) fn compaction(before: StoreStats, after: StoreStats, as_json: bool) -> String {
    let (operations, bytes) = saved(before, after);
    if as_json {
        let sizes =
            |stats: StoreStats| json!({"operation_count": stats.operation_count, "size_bytes": stats.size_bytes});
        return format!("{}\n", json!({"before": sizes(before), "after": sizes(after)}));
    }
    format!(
        "{} operations, {} fewer; {} on disk, {} fewer\n",
        HumanCount(after.operation_count),
        HumanCount(operations),
        HumanBytes(after.size_bytes),
        HumanBytes(bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::Damage;

    #[test]
    fn a_verdict_names_each_damage_and_what_to_do() {
        let mut found =
            Verification { bucket_count: 3, operation_count: 1_200, row_count: 40, ..Verification::default() };
        assert_eq!(
            verification(&found, false),
            "3 buckets, 1,200 operations in 0 chunks, 40 rows: nothing is damaged\n"
        );
        found.damage_count = 1;
        let damage =
            Damage { code: "STORE-0104", what: "a chunk is missing".to_owned(), definition: Some("todos".to_owned()) };
        found.damages.push(damage);
        let text = verification(&found, false);
        assert!(text.starts_with("damaged [STORE-0104]: a chunk is missing in a bucket of todos\n"), "{text}");
        assert!(text.contains("1 damage; look at the disk, then run `kairos-sync store delete --yes`"), "{text}");
        found.bucket_damage_count = 1;
        assert!(verification(&found, false).contains("it builds these buckets again by itself"));
        (found.damage_count, found.row_damage_count) = (2, 1);
        assert!(verification(&found, false).contains("2 damages; look at the disk, then start the service: it copies"));
        found.filter_damage_count = 2;
        assert!(verification(&found, false).contains("it makes these filters again by itself"));
        let object: serde_json::Value = serde_json::from_str(&verification(&found, true)).unwrap();
        assert_eq!((&object["ok"], &object["damages"][0]["definition"]), (&json!(false), &json!("todos")));
    }

    #[test]
    fn sizes_stand_in_columns() {
        let all = StoreStats {
            bucket_count: 2,
            operation_count: 1_000,
            row_count: 900,
            size_bytes: 3 << 20,
            ..StoreStats::default()
        };
        let todos = DefinitionStats {
            definition: "todos".to_owned(),
            bucket_count: 2,
            operation_count: 1_000,
            row_count: 900,
            chunk_count: 1,
            json_bytes: 2 << 20,
            stored_bytes: 1 << 20,
        };
        let text = stats(all, &[todos], false);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0].len(), lines[1].len());
        assert_eq!(lines[2], "2 buckets, 1,000 operations, 900 rows, 3.00 MiB on disk");
    }
}
