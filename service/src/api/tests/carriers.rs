//! The same stream in every form and compression.

use std::io::Read;

use super::*;

const BSON: &str = "application/vnd.powersync.bson-stream;q=0.9,application/x-ndjson;q=0.8";

/// What a response brings until a checkpoint is complete, as it came.
async fn raw(service: &TestService, accept: &str, encoding: Option<&str>) -> (Response, Vec<u8>) {
    let request = service.post("/sync/stream", "anna", &json!({"raw_data": true})).header("accept", accept);
    let request = match encoding {
        Some(encoding) => request.header("accept-encoding", encoding),
        None => request,
    };
    let mut response = request.send().await.unwrap();
    let mut bytes = Vec::new();
    while !is_complete(&plain(&bytes, encoding)) {
        bytes.extend_from_slice(&response.chunk().await.unwrap().expect("the stream goes on"));
    }
    (response, bytes)
}

fn is_complete(plain: &[u8]) -> bool {
    plain.windows(19).any(|window| window == b"checkpoint_complete")
        && (plain.ends_with(b"\n") || plain.ends_with(&[0; 3]))
}

/// What a decoder gives of the beginning of a stream.
fn plain(bytes: &[u8], encoding: Option<&str>) -> Vec<u8> {
    let mut decoder: Box<dyn Read> = match encoding {
        Some("gzip") => Box::new(flate2::read::GzDecoder::new(bytes)),
        Some("zstd") => Box::new(zstd::Decoder::new(bytes).unwrap()),
        _ => Box::new(bytes),
    };
    let (mut plain, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = decoder.read(&mut buffer) {
        plain.extend_from_slice(&buffer[..count]);
    }
    plain
}

fn documents(mut bytes: &[u8]) -> Vec<Value> {
    let mut documents = Vec::new();
    while !bytes.is_empty() {
        let length = usize::try_from(i32::from_le_bytes(bytes[..4].try_into().unwrap())).unwrap();
        let document: bson::Document = bson::deserialize_from_slice(&bytes[..length]).unwrap();
        documents.push(serde_json::to_value(document).unwrap());
        bytes = &bytes[length..];
    }
    documents
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// More than travels in one chunk, and more than is compressed with its neighbours.
async fn service_with_rows() -> TestService {
    let service = start_with(100, SYNC_LIMITS).await;
    let ids: Vec<String> = (0..2500).map(|n| format!("row {n}")).collect();
    let rows: Vec<_> = ids.iter().map(|id| ("anna", id.as_str())).collect();
    service.commit(1, &rows);
    service
}

#[tokio::test]
async fn every_form_and_compression_says_the_same() {
    let service = service_with_rows().await;
    let (response, plain_lines) = raw(&service, "*/*", None).await;
    assert!(!response.headers().contains_key("content-encoding"));
    let expect = lines(&plain_lines);
    let operations =
        |lines: &[Value]| lines.iter().filter_map(|line| line["data"]["data"].as_array()).map(Vec::len).sum::<usize>();
    assert_eq!((operations(&expect), expect.len()), (2500, 5), "a checkpoint, three lines of data, its completion");
    let service = TestService { client: Client::builder().no_gzip().no_zstd().build().unwrap(), ..service };
    for encoding in ["identity", "gzip", "zstd"] {
        let (response, bytes) = raw(&service, "application/x-ndjson", Some(encoding)).await;
        let encoded = response.headers().get("content-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(encoded, Some(encoding).filter(|encoding| *encoding != "identity"));
        assert_eq!(lines(&plain(&bytes, Some(encoding))), expect, "{encoding}");
        let (response, bson) = raw(&service, BSON, Some(encoding)).await;
        assert_eq!(response.headers()["content-type"], "application/vnd.powersync.bson-stream", "exactly");
        assert_eq!(documents(&plain(&bson, Some(encoding))), expect, "{encoding}");
        if encoding != "identity" {
            assert!(bytes.len() < plain_lines.len() / 4, "{encoding}: {} of {}", bytes.len(), plain_lines.len());
        }
    }
}

#[tokio::test]
async fn a_compressed_stream_that_ends_is_whole() {
    for encoding in ["gzip", "zstd"] {
        let service = service_with_rows().await;
        let service = TestService { client: Client::builder().no_gzip().no_zstd().build().unwrap(), ..service };
        let (mut response, mut bytes) = raw(&service, "*/*", Some(encoding)).await;
        service.shutdown.send(true).unwrap();
        while let Some(chunk) = response.chunk().await.unwrap() {
            bytes.extend_from_slice(&chunk);
        }
        let mut whole = Vec::new();
        match encoding {
            "gzip" => flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut whole).expect("its checksum is right"),
            _ => zstd::Decoder::new(&bytes[..]).unwrap().read_to_end(&mut whole).expect("its last frame is whole"),
        };
        assert_eq!(lines(&whole).len(), 5);
    }
}

#[tokio::test]
async fn clients_decompress_by_themselves() {
    let service = service_with_rows().await;
    let mut anna = service.stream("anna").await;
    assert!(!anna.response.headers().contains_key("content-encoding"), "taken off by the client, which asked for it");
    assert_eq!(anna.until_complete().await.0.len(), 2500);
    for lsn in 2..10 {
        service.commit(lsn, &[("anna", "again")]);
        assert_eq!(anna.until_complete().await.0, ["again"], "each line can be read when it was sent");
    }
}

#[tokio::test]
async fn clients_share_the_lines_of_a_bucket() {
    let service = service_with_rows().await;
    let metrics = async || service.client.get(service.url("/metrics")).send().await.unwrap().text().await.unwrap();
    service.stream("anna").await.until_complete().await;
    assert!(metrics().await.contains("kairos_shared_lines_total 0"));
    service.stream("anna").await.until_complete().await;
    assert!(metrics().await.contains("kairos_shared_lines_total 3"), "{}", metrics().await);
}
