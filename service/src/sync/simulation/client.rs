//! A device: keeps operations by bucket, as the protocol says, and judges checksums itself.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Rows by type and id.
pub(super) type Rows = BTreeMap<(String, String), String>;

/// What a device has of a bucket.
#[derive(Debug, Default)]
struct Bucket {
    /// Sum of all operations that were sent since the last CLEAR, and how many were sent.
    checksum: u32,
    count: u64,
    /// Position of the last one.
    position: u64,
    rows: Rows,
}

/// What a bucket must be at the checkpoint.
#[derive(Debug, Clone, Copy)]
struct Target {
    checksum: u32,
    count: u64,
    priority: u64,
}

/// What became complete.
#[derive(Debug)]
pub(super) struct Completed {
    /// All rows of the buckets up to this priority; `None` stands for all of them.
    pub(super) priority: Option<u64>,
    /// The rows.
    pub(super) rows: Rows,
    /// The write checkpoint of the checkpoint.
    pub(super) write_checkpoint: Option<u64>,
}

/// What a device keeps while connections come and go.
#[derive(Debug, Default)]
pub(super) struct Device {
    buckets: BTreeMap<String, Bucket>,
    targets: BTreeMap<String, Target>,
    write_checkpoint: Option<u64>,
    /// On this connection.
    has_checkpoint: bool,
    /// The store makes operations fewer, so that counts differ.
    is_compacted: bool,
}

impl Device {
    /// One that has nothing yet.
    pub(super) fn new(is_compacted: bool) -> Self {
        Self { is_compacted, ..Self::default() }
    }

    /// Positions to go on from.
    pub(super) fn connect(&mut self) -> Vec<(String, u64)> {
        self.has_checkpoint = false;
        self.buckets.iter().map(|(name, bucket)| (name.clone(), bucket.position)).collect()
    }

    /// Takes a line in.
    pub(super) fn take(&mut self, line: &Value) -> Option<Completed> {
        let (kind, body) = line.as_object().and_then(|line| line.iter().next()).expect("a line has one member");
        match kind.as_str() {
            "checkpoint" => {
                assert!(!std::mem::replace(&mut self.has_checkpoint, true), "one checkpoint, then differences");
                self.targets.clear();
                self.announce(body, "buckets");
                let wanted: BTreeSet<_> = self.targets.keys().cloned().collect();
                self.buckets.retain(|name, _| wanted.contains(name));
                None
            }
            "checkpoint_diff" => {
                assert!(self.has_checkpoint, "a difference to nothing");
                for name in texts(&body["removed_buckets"]) {
                    assert!(self.targets.remove(&name).is_some(), "{name} is removed and was not there");
                    self.buckets.remove(&name);
                }
                self.announce(body, "updated_buckets");
                None
            }
            "data" => {
                self.data(body);
                None
            }
            "partial_checkpoint_complete" => Some(self.complete(Some(body["priority"].as_u64().expect("a number")))),
            "checkpoint_complete" => Some(self.complete(None)),
            "token_expires_in" => None,
            other => panic!("an unknown line: {other}"),
        }
    }

    fn announce(&mut self, body: &Value, member: &str) {
        self.write_checkpoint = body["write_checkpoint"].as_str().map(|id| id.parse().expect("a number"));
        for bucket in body[member].as_array().expect("a list") {
            let number = |member: &str| bucket[member].as_u64().expect("a number");
            let target = Target {
                checksum: u32::try_from(number("checksum")).expect("32 bits"),
                count: number("count"),
                priority: number("priority"),
            };
            self.targets.insert(bucket["bucket"].as_str().expect("a text").to_owned(), target);
        }
    }

    fn data(&mut self, body: &Value) {
        let name = body["bucket"].as_str().expect("a text");
        assert!(self.targets.contains_key(name), "data of {name}, which was not announced");
        let bucket = self.buckets.entry(name.to_owned()).or_default();
        assert_eq!(number(&body["after"]), bucket.position, "{name} goes on where it stopped");
        for operation in body["data"].as_array().expect("a list") {
            let position = number(&operation["op_id"]);
            assert!(position > bucket.position, "an operation of {name} is sent twice");
            bucket.position = position;
            bucket.count += 1;
            let checksum = u32::try_from(operation["checksum"].as_u64().expect("a number")).expect("32 bits");
            bucket.checksum = bucket.checksum.wrapping_add(checksum);
            let text = |member: &str| operation[member].as_str().expect("a text").to_owned();
            let key = || (text("object_type"), text("object_id"));
            match operation["op"].as_str() {
                Some("PUT") => {
                    let data = &operation["data"];
                    let data = data.as_str().map_or_else(|| data.to_string(), str::to_owned);
                    bucket.rows.insert(key(), data);
                }
                Some("REMOVE") => {
                    bucket.rows.remove(&key());
                }
                Some("MOVE") => {}
                Some("CLEAR") => {
                    bucket.rows.clear();
                    bucket.checksum = checksum;
                }
                other => panic!("an unknown operation: {other:?}"),
            }
        }
        assert!(number(&body["next_after"]) >= bucket.position);
        bucket.position = number(&body["next_after"]);
    }

    fn complete(&self, priority: Option<u64>) -> Completed {
        let mut rows = Rows::new();
        let none = Bucket::default();
        for (name, target) in self.targets.iter().filter(|(_, target)| priority.is_none_or(|at| target.priority <= at))
        {
            let bucket = self.buckets.get(name).unwrap_or(&none);
            assert_eq!(bucket.checksum, target.checksum, "checksum of {name} at priority {priority:?}");
            // Compaction makes operations fewer, before or after they are sent.
            assert!(self.is_compacted || bucket.count == target.count, "count of {name} at priority {priority:?}");
            rows.extend(bucket.rows.iter().map(|(key, data)| (key.clone(), data.clone())));
        }
        Completed { priority, rows, write_checkpoint: self.write_checkpoint }
    }
}

fn number(id: &Value) -> u64 {
    id.as_str().expect("ids are texts").parse().expect("ids are numbers")
}

fn texts(list: &Value) -> Vec<String> {
    let text = |element: &Value| element.as_str().expect("a text").to_owned();
    list.as_array().expect("a list").iter().map(text).collect()
}
