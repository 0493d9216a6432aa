//! Conflicts over HTTP.

use kairos_sync_protocol::{
    conflict::{Conflict, ConflictCount, ConflictPreference, ConflictStatus, Resolve, Resolved},
    upload::{CrudOp, Outcome},
};

use super::*;
use crate::write::{ConflictError, ConflictFilter};

/// The id of the only conflict there is.
const ID: &str = "0199aa01-4b1c-7c5d-8e11-52a1c6f0d9aa";

/// Knows one conflict of everybody, in the table that is asked for; whoever wants its other values is late.
pub(super) struct OneConflict;

fn conflict(table: &str, status: ConflictStatus) -> Conflict {
    Conflict {
        id: ID.to_owned(),
        client_id: None,
        op_id: None,
        op: CrudOp::Patch,
        table: table.to_owned(),
        row_id: Some("l1".to_owned()),
        outcome: Outcome::Conflict,
        code: None,
        message: None,
        base: None,
        mine: None,
        theirs: None,
        status,
        resolution: None,
        recorded_at: "2026-01-31T08:15:00.000000Z".to_owned(),
        resolved_at: None,
    }
}

impl Conflicts for OneConflict {
    fn list<'a>(&'a self, _: &'a str, filter: &'a ConflictFilter) -> BoxFuture<'a, Result<Vec<Conflict>, UploadError>> {
        let table = filter.table.as_deref().unwrap_or("lists");
        let one = conflict(table, filter.status.unwrap_or(ConflictStatus::Open));
        Box::pin(async move { Ok(vec![one; usize::from(filter.limit.min(2))]) })
    }

    fn count<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<ConflictCount>, UploadError>> {
        Box::pin(async { Err(UploadError::Deadline(Duration::from_secs(1))) })
    }

    fn resolve<'a>(
        &'a self,
        _: &'a Principal,
        id: &'a str,
        wanted: Resolve,
    ) -> BoxFuture<'a, Result<Resolved, ConflictError>> {
        Box::pin(async move {
            match (id, wanted.data) {
                (ID, None) => {
                    let conflict = conflict("lists", ConflictStatus::Resolved);
                    Ok(Resolved { conflict, result: None, write_checkpoint: None })
                }
                (ID, Some(data)) if data.contains_key("late") => Err(ConflictError::Resolved),
                (ID, Some(_)) => Ok(Resolved {
                    conflict: conflict("lists", ConflictStatus::Open),
                    result: None,
                    write_checkpoint: None,
                }),
                _ => Err(ConflictError::Unknown),
            }
        })
    }

    fn preferences<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<ConflictPreference>, UploadError>> {
        Box::pin(async { Ok(vec![ConflictPreference { table: "lists".to_owned(), strategy: None }]) })
    }

    fn prefer<'a>(
        &'a self,
        _: &'a str,
        preference: &'a ConflictPreference,
    ) -> BoxFuture<'a, Result<(), ConflictError>> {
        let is_known = preference.table == "lists";
        Box::pin(async move { if is_known { Ok(()) } else { Err(ConflictError::NotManual) } })
    }
}

async fn get(service: &TestService, path: &str) -> Response {
    let request = service.client.get(service.url(path)).timeout(DEADLINE);
    request.header("authorization", format!("Token {}", token("ann"))).send().await.unwrap()
}

#[tokio::test]
async fn they_are_listed_as_asked_for() {
    let service = start().await;
    let listed: Value =
        get(&service, "/api/sync/conflicts?status=settled&table=todos&limit=1").await.json().await.unwrap();
    let one = &listed["data"][0];
    assert_eq!((&one["status"], &one["table"]), (&json!("settled"), &json!("todos")));
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    for wrong in ["status=closed", "limit=0", "limit=1001", "limit=x", "table=a&table=b"] {
        let response = get(&service, &format!("/sync-api/api/sync/conflicts?{wrong}")).await;
        assert_eq!(error_of(response).await, (400, "PSYNC_S2001".to_owned()), "{wrong}");
    }
    let response = get(&service, "/api/sync/conflicts/statistics").await;
    assert_eq!(error_of(response).await, (503, "WRITE_DEADLINE".to_owned()));
}

#[tokio::test]
async fn decisions_that_cannot_be_are_told_apart() {
    let service = start().await;
    let late = json!({ "choice": "merged", "data": { "late": 1 } });
    for (path, body, expected) in [
        (format!("{ID}/resolve"), json!({ "choice": "mine" }), None),
        (format!("{ID}/resolve"), late, Some((409, "WRITE_CONFLICT_RESOLVED"))),
        (format!("{ID}/resolve"), json!({ "choice": "yours" }), Some((400, "PSYNC_S2001"))),
        ("other/resolve".to_owned(), json!({ "choice": "mine" }), Some((404, "WRITE_CONFLICT_UNKNOWN"))),
        ("preferences".to_owned(), json!({ "table": "lists", "strategy": "server_wins" }), None),
        ("preferences".to_owned(), json!({ "table": "others" }), Some((400, "WRITE_NOT_MANUAL"))),
        ("preferences".to_owned(), json!({ "table": "lists", "strategy": "lww" }), Some((400, "PSYNC_S2001"))),
    ] {
        let response = service.post(&format!("/api/sync/conflicts/{path}"), "ann", &body).send().await.unwrap();
        match expected {
            None => assert_eq!(response.status(), StatusCode::OK, "{path} {body}"),
            Some((status, code)) => assert_eq!(error_of(response).await, (status, code.to_owned()), "{path} {body}"),
        }
    }
}
