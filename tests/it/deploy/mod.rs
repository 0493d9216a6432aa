//! The deployment kit in `deploy/`: its files by the tools they are for, and all of it at work, without containers but with
//! the same programs and the same files.

mod alerting;
mod backup;
mod compose;
mod dashboards;
mod files;
mod kubernetes;
mod monitoring;
mod mqtt;
mod programs;
mod proxies;
mod stack;
mod story;

// For tests of what stands around the service, which any app does for.

const SCHEMA: &str = "
    CREATE TABLE notes (id text PRIMARY KEY, owner text NOT NULL, body text);
    GRANT SELECT, INSERT, UPDATE, DELETE ON notes TO kairos_write;
    SELECT kairos.publish_table('notes');
";

const RULES: &str = "
bucket_definitions:
  notes:
    parameters: SELECT request.user_id() AS owner
    data: [SELECT * FROM notes WHERE owner = bucket.owner]
write_rules:
  notes: { allow: [put], check: row.owner = auth.user_id() }
";
