//! The SQL that mends what stands in the way of replication, apart from the sentence it is told in.

use crate::postgres::preflight::SetupProblem;

/// What to run, each statement by itself; and whether `--fix` may.
pub(super) fn of(problem: &SetupProblem) -> (Vec<String>, bool) {
    let (sql, is_safe) = match problem {
        SetupProblem::ServerVersion { .. } | SetupProblem::Failover { .. } | SetupProblem::EqualRows { .. } => {
            return (Vec::new(), false);
        }
        SetupProblem::WalLevel { .. } => ("ALTER SYSTEM SET wal_level = 'logical';".to_owned(), false),
        SetupProblem::NoWalSenders => ("ALTER SYSTEM SET max_wal_senders = 10;".to_owned(), false),
        SetupProblem::NoFreeSlot { .. } => ("SELECT slot_name, active FROM pg_replication_slots;".to_owned(), false),
        SetupProblem::ReplicationPrivilege { role } => (format!("ALTER ROLE {role} REPLICATION;"), false),
        SetupProblem::PublicationPartial { name } => {
            (format!("ALTER PUBLICATION {name} SET (publish = 'insert, update, delete, truncate');"), false)
        }
        SetupProblem::TableNotPublished { table, publication } => {
            (format!("ALTER PUBLICATION {publication} ADD TABLE {table};"), true)
        }
        SetupProblem::SelectPrivilege { role, table, schema } => {
            let usage = format!("GRANT USAGE ON SCHEMA {schema} TO {role};");
            return (vec![usage, format!("GRANT SELECT ON {table} TO {role};")], true);
        }
        SetupProblem::RowSecurity { role, .. } => (format!("ALTER ROLE {role} BYPASSRLS;"), false),
        SetupProblem::PartitionsApart { publication, .. } => {
            (format!("ALTER PUBLICATION {publication} SET (publish_via_partition_root = true);"), false)
        }
        SetupProblem::PublicationMissing { sql, .. }
        | SetupProblem::ColumnsDiffer { sql, .. }
        | SetupProblem::NoIdentity { sql, .. } => (sql.clone(), false),
    };
    (vec![sql], is_safe)
}

/// The SQL in a sentence of the form "…, run `SQL`".
pub(super) fn quoted_in(help: &str) -> Option<String> {
    let (_, rest) = help.split_once("run `")?;
    rest.rsplit_once('`').map(|(sql, _)| sql.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_run_is_what_the_sentence_says() {
        let text = || "\"a\"".to_owned();
        let problems = [
            SetupProblem::WalLevel { found: "replica".to_owned() },
            SetupProblem::NoWalSenders,
            SetupProblem::NoFreeSlot { allowed: 1 },
            SetupProblem::ReplicationPrivilege { role: text() },
            SetupProblem::PublicationMissing { name: text(), sql: "CREATE PUBLICATION x;".to_owned() },
            SetupProblem::PublicationPartial { name: text() },
            SetupProblem::TableNotPublished { table: text(), publication: "p".to_owned() },
            SetupProblem::SelectPrivilege { role: text(), table: "t".to_owned(), schema: "s".to_owned() },
            SetupProblem::RowSecurity { role: text(), table: "t".to_owned() },
            SetupProblem::PartitionsApart { table: text(), publication: text() },
            SetupProblem::ColumnsDiffer {
                table: text(),
                publication: text(),
                other: text(),
                sql: "ALTER PUBLICATION p DROP TABLE t;".to_owned(),
            },
            SetupProblem::NoIdentity { table: text(), sql: "ALTER TABLE t REPLICA IDENTITY FULL;".to_owned() },
        ];
        for problem in problems {
            let (statements, _) = of(&problem);
            assert!(!statements.is_empty(), "{problem:?}");
            for sql in statements {
                assert!(problem.to_string().contains(&sql), "{sql} is not in {problem}");
            }
        }
    }
}
