//! Write checkpoints that the app's backend writes as rows: a device learns of one in the state that has its row.

use kairos_tests::service::{PATIENCE, TestService};
use reqwest::{Client, Response, StatusCode};
use serde_json::{Value, json};

const SCHEMA: &str = "
    CREATE TABLE marks (id text PRIMARY KEY, value int NOT NULL);
    CREATE TABLE uploads (user_id text, device text, checkpoint bigint, PRIMARY KEY (user_id, device));
    SELECT kairos.publish_table('marks');
    SELECT kairos.publish_table('uploads');
    INSERT INTO marks VALUES ('m', 0);
";

/// The table of uploads is in no bucket.
const RULES: &str = r"
bucket_definitions:
  marks: {data: [SELECT * FROM marks]}
event_definitions:
  write_checkpoints:
    payloads: ['SELECT user_id, device AS client_id, checkpoint FROM uploads']
";

/// What one device is told.
struct Stream {
    response: Response,
    rest: Vec<u8>,
}

/// A checkpoint and the values of `marks` that came with it.
#[derive(Debug, PartialEq)]
struct Told {
    write_checkpoint: Option<u64>,
    values: Vec<i64>,
}

impl Stream {
    async fn open(service: &TestService, user: &str, device: &str) -> Self {
        let request = Client::new().post(format!("{}/sync/stream", service.process.endpoint()));
        let request = request.header("authorization", format!("Token {}", service.token(user)));
        let body = json!({"raw_data": true, "client_id": device});
        let response = request.json(&body).send().await.expect("the service answers");
        assert_eq!(response.status(), StatusCode::OK);
        Self { response, rest: Vec::new() }
    }

    async fn line(&mut self) -> Value {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).expect("a line is JSON");
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("lines come in time");
            self.rest.extend_from_slice(&chunk.expect("the stream goes on").expect("the stream goes on"));
        }
    }

    async fn next(&mut self) -> Told {
        let mut told = Told { write_checkpoint: None, values: Vec::new() };
        loop {
            let line = self.line().await;
            let head = line.get("checkpoint").or(line.get("checkpoint_diff"));
            if let Some(head) = head {
                told.write_checkpoint =
                    head["write_checkpoint"].as_str().map(|id| id.parse().expect("ids are numbers"));
            }
            for operation in line["data"]["data"].as_array().into_iter().flatten() {
                let row: Value = serde_json::from_str(operation["data"].as_str().expect("a row")).expect("JSON");
                told.values.push(row["value"].as_i64().expect("a number"));
            }
            if line.get("checkpoint_complete").is_some() {
                return told;
            }
        }
    }
}

fn told(write_checkpoint: impl Into<Option<u64>>, values: &[i64]) -> Told {
    Told { write_checkpoint: write_checkpoint.into(), values: values.to_vec() }
}

#[tokio::test]
async fn a_device_is_told_of_its_upload_with_the_state_that_has_it() {
    let mut service = TestService::start(SCHEMA, RULES).await;
    service.wait_until_ready().await;
    let mut phone = Stream::open(&service, "ann", "phone").await;
    let mut tablet = Stream::open(&service, "ann", "tablet").await;
    let mut other = Stream::open(&service, "ben", "phone").await;
    for stream in [&mut phone, &mut tablet, &mut other] {
        assert_eq!(stream.next().await, told(None, &[0]));
    }

    // The backend applies the upload, and says so in the same transaction.
    service.run("BEGIN; UPDATE marks SET value = 1; INSERT INTO uploads VALUES ('ann', 'phone', 7); COMMIT").await;
    assert_eq!(phone.next().await, told(7, &[1]));
    for stream in [&mut tablet, &mut other] {
        assert_eq!(stream.next().await, told(None, &[1]));
    }
    // It stays in what follows, and a larger one may come alone.
    service.run("UPDATE marks SET value = 2").await;
    assert_eq!(phone.next().await, told(7, &[2]));
    service.run("UPDATE uploads SET checkpoint = 9").await;
    assert_eq!(phone.next().await, told(9, &[]));
    // What goes back, or is nothing, changes nothing for anybody.
    service.run("UPDATE uploads SET checkpoint = 3; UPDATE uploads SET checkpoint = NULL").await;
    service.run("UPDATE marks SET value = 3").await;
    assert_eq!(phone.next().await, told(9, &[3]));

    let ask = Client::new().get(format!("{}/write-checkpoint2.json?client_id=phone", service.process.endpoint()));
    let refused = ask.header("authorization", format!("Token {}", service.token("ann"))).send().await.expect("answers");
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let body: Value = refused.json().await.expect("JSON");
    assert_eq!(body["error"]["code"], "PSYNC_S2001");

    // It survives the process.
    service.process.kill().expect("killed");
    service.process.restart_with(&[]).expect("starts again");
    service.wait_until_ready().await;
    assert_eq!(Stream::open(&service, "ann", "phone").await.next().await, told(9, &[0, 1, 2, 3]));
    assert_eq!(Stream::open(&service, "ann", "tablet").await.next().await, told(None, &[0, 1, 2, 3]));
}

#[tokio::test]
async fn rows_that_were_there_before_the_service_count() {
    let with_upload = format!("{SCHEMA} INSERT INTO uploads VALUES ('ann', 'phone', 5);");
    let service = TestService::start(&with_upload, RULES).await;
    service.wait_until_ready().await;
    assert_eq!(Stream::open(&service, "ann", "phone").await.next().await, told(5, &[0]));
}
