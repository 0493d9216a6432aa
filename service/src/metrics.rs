//! All metrics, in one registry. Label sets are bounded and never carry row values, users or tokens.
//!
//! Names follow the Prometheus convention; those which operators of a PowerSync service already watch keep their names.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};

/// Buckets of latencies, in seconds: from what a user does not notice to what is out of order.
const LATENCY_BOUNDS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The metrics of one service. Cheap to share behind an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Rows read from the source, snapshot and stream.
    pub rows_replicated: IntCounter,
    /// Stored rows that were evaluated for rules being built.
    pub rows_rebuilt: IntCounter,
    /// Damaged buckets that were built again.
    pub buckets_mended: IntCounter,
    /// Blocks of stored rows that were damaged and dropped.
    pub row_blocks_dropped: IntCounter,
    /// Number of the deployment of rules that clients are served by.
    pub deployment: IntGauge,
    /// 1 while rules are wanted that cannot be deployed.
    pub deployment_refused: IntGauge,
    /// About how many stored rows are to be evaluated for rules being built; 0 while none are.
    pub rebuild_rows_left: IntGauge,
    /// Transactions read from the source.
    pub transactions_replicated: IntCounter,
    /// Bytes read from the source.
    pub bytes_replicated: IntCounter,
    /// Rows for which a rule failed.
    pub evaluation_errors: IntCounter,
    /// WAL bytes between the source's head and what is durable here.
    pub replication_lag_bytes: IntGauge,
    /// When the source was last heard of, in Unix seconds; 0: never.
    pub last_message_timestamp: IntGauge,
    /// When a checkpoint last became visible, in Unix seconds; 0: never since the start.
    pub checkpoint_timestamp: IntGauge,
    /// WAL bytes that the source keeps for our slot.
    pub slot_retained_bytes: IntGauge,
    /// WAL bytes that it may keep; 0 where no bound is known.
    pub slot_budget_bytes: IntGauge,
    /// Bytes that are still to be copied, by table; nothing once all is copied.
    pub copy_bytes_left: IntGaugeVec,
    /// Rows read by copies that run, by table.
    pub copy_rows_done: IntGaugeVec,
    /// Seconds until all is copied, at the speed so far; 0 before it is known, and afterwards.
    pub copy_seconds_left: IntGauge,
    /// Bytes kept of large transactions that the source sends while they still run.
    pub open_transaction_bytes: IntGauge,
    /// Times that all tables had to be compared, by the code of the reason.
    pub comparisons: IntCounterVec,
    /// 1 while the stream is open, 0 while reconnecting.
    pub replication_connected: IntGauge,
    /// Bytes of the bucket store on disk.
    pub store_bytes: IntGauge,
    /// Buckets that have operations.
    pub store_buckets: IntGauge,
    /// Operations in all buckets.
    pub store_operations: IntGauge,
    /// Rows of the source that are kept.
    pub store_rows: IntGauge,
    /// Bytes that are free on the store's disk; 0 where that is not known.
    pub store_free_bytes: IntGauge,
    /// 1 while nothing can be stored because the disk is full.
    pub store_full: IntGauge,
    /// Buckets that were found damaged and are not whole again.
    pub store_damaged_buckets: IntGauge,
    /// 1 while stored rows are damaged that are not dropped yet.
    pub store_damaged_rows: IntGauge,
    /// Bytes that were read only to see whether they are whole.
    pub store_scrubbed_bytes: IntGauge,
    /// Open sync streams.
    pub connections: IntGauge,
    /// Open sync streams by what carries them.
    pub connections_by_carrier: IntGaugeVec,
    /// Operations sent to clients.
    pub operations_synced: IntCounter,
    /// Bytes sent to clients before compression.
    pub bytes_synced: IntCounter,
    /// Bytes sent to clients.
    pub bytes_sent: IntCounter,
    /// `data` lines that were there already, made for another client.
    pub shared_lines: IntCounter,
    /// Refused requests by error code.
    pub requests_refused: IntCounterVec,
    /// Questions to issuers about tokens by result: `confirmed`, `refused`, `unanswered`.
    pub introspections: IntCounterVec,
    /// Requests of clients that must wait, by whose account is empty and what was asked for.
    pub rate_limited: IntCounterVec,
    /// Uploaded writes by outcome: `applied`, `merged`, `conflict`, `duplicate`, `refused`, `repeated`.
    pub writes: IntCounterVec,
    /// Conflicts by table (of a write rule), strategy, and whose values they end with: `open`, `theirs`, `mine`,
    /// `merged`. One that a person decides counts when it opens and when it ends.
    pub conflicts: IntCounterVec,
    /// How long things take.
    pub latencies: Latencies,
}

/// How long things take, in seconds.
#[derive(Debug)]
pub struct Latencies {
    /// A store commit, fsync included.
    pub store_commit: Histogram,
    /// From a commit in the source until it is stored here.
    pub replication: Histogram,
    /// From a change being visible until a client that it concerns was sent all of its checkpoint.
    pub delivery: Histogram,
    /// An upload, taken or not.
    pub upload: Histogram,
}

impl Latencies {
    fn new(register: &Register) -> Self {
        Self {
            store_commit: register.seconds(
                "kairos_store_commit_seconds",
                "Time of a store commit, fsync included",
                &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5],
            ),
            replication: register.seconds(
                "kairos_replication_delay_seconds",
                "Time from a commit in the source until it is stored",
                LATENCY_BOUNDS,
            ),
            delivery: register.seconds(
                "kairos_delivery_seconds",
                "Time from a change being visible until a client that it concerns was sent all of its checkpoint",
                LATENCY_BOUNDS,
            ),
            upload: register.seconds("kairos_upload_seconds", "Time an upload takes, taken or not", LATENCY_BOUNDS),
        }
    }
}

/// A registry that takes constants: names are valid, and each is given once.
struct Register(Registry);

impl Register {
    fn add<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("a constant, valid name");
        self.0.register(Box::new(metric.clone())).expect("registered once");
        metric
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauges(&self, name: &str, help: &str, label: &str) -> IntGaugeVec {
        self.add(IntGaugeVec::new(Opts::new(name, help), &[label]))
    }

    /// The release, as Prometheus is told of releases: in a label of what is always 1.
    fn version(&self) {
        let version = self.gauges("kairos_build_info", "1, with the version of the service", "version");
        version.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    }

    fn seconds(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())))
    }
}

impl Metrics {
    /// Fresh metrics in a registry of their own.
    ///
    /// # Panics
    /// Never: the names are constants, each registered once.
    pub fn new() -> Self {
        let register = Register(Registry::new());
        let (counter, gauge) = (|name, help| register.counter(name, help), |name, help| register.gauge(name, help));
        let counters = |name, help, label| register.counters(name, help, &[label]);
        let gauges = |name, help, label| register.gauges(name, help, label);
        register.version();
        let metrics = Self {
            rows_replicated: counter("powersync_rows_replicated_total", "Rows read from the source"),
            deployment: gauge("kairos_rules_deployment", "Number of the deployment of rules that is served"),
            deployment_refused: gauge("kairos_rules_refused", "Whether rules are wanted that cannot be deployed"),
            rebuild_rows_left: gauge("kairos_rebuild_rows_left", "Rows left for rules being built; 0: none are"),
            rows_rebuilt: counter("kairos_rebuilt_rows_total", "Stored rows that were evaluated for rules being built"),
            buckets_mended: counter("kairos_store_mended_buckets_total", "Damaged buckets that were built again"),
            row_blocks_dropped: counter("kairos_store_dropped_row_blocks_total", "Damaged blocks of rows dropped"),
            transactions_replicated: counter("powersync_transactions_replicated_total", "Transactions read"),
            bytes_replicated: counter("powersync_data_replicated_bytes_total", "Bytes read from the source"),
            evaluation_errors: counter("kairos_rule_errors_total", "Rows for which a rule failed"),
            replication_lag_bytes: gauge("kairos_replication_lag_bytes", "WAL bytes not yet durable in the store"),
            last_message_timestamp: gauge(
                "kairos_replication_last_message_timestamp_seconds",
                "When the replication stream last brought something",
            ),
            checkpoint_timestamp: gauge(
                "kairos_checkpoint_timestamp_seconds",
                "When a checkpoint last became visible to clients",
            ),
            slot_retained_bytes: gauge("kairos_slot_retained_bytes", "WAL bytes the source keeps for the slot"),
            slot_budget_bytes: gauge("kairos_slot_budget_bytes", "WAL bytes it may keep; 0 when no bound is known"),
            copy_bytes_left: gauges("kairos_copy_bytes_left", "Bytes still to be copied", "table"),
            copy_rows_done: gauges("kairos_copy_rows_done", "Rows read by copies that run", "table"),
            copy_seconds_left: gauge("kairos_copy_seconds_left", "Time until all is copied; 0 when not known"),
            open_transaction_bytes: gauge("kairos_open_transaction_bytes", "Bytes kept of transactions that run"),
            comparisons: counters("kairos_comparisons_total", "Times that all tables had to be compared", "code"),
            replication_connected: gauge("kairos_replication_connected", "1 while the replication stream is open"),
            store_bytes: gauge("kairos_store_bytes", "Size of the bucket store on disk"),
            store_buckets: gauge("kairos_store_buckets", "Buckets that have operations"),
            store_operations: gauge("kairos_store_operations", "Operations in all buckets"),
            store_rows: gauge("kairos_store_rows", "Rows of the source that the store keeps"),
            store_free_bytes: gauge("kairos_store_free_bytes", "Space left on the store's disk; 0 when not known"),
            store_full: gauge("kairos_store_full", "Whether nothing can be stored because the disk is full"),
            store_damaged_buckets: gauge("kairos_store_damaged_buckets", "Buckets found damaged and not whole again"),
            store_damaged_rows: gauge(
                "kairos_store_damaged_rows",
                "Whether stored rows are damaged and not dropped yet",
            ),
            store_scrubbed_bytes: gauge("kairos_store_scrubbed_bytes", "Bytes read to find damage, since the start"),
            connections: gauge("powersync_concurrent_connections", "Open sync streams"),
            connections_by_carrier: gauges("kairos_connections", "Open sync streams", "carrier"),
            operations_synced: counter("powersync_operations_synced_total", "Operations sent to clients"),
            bytes_synced: counter("powersync_data_synced_bytes_total", "Bytes sent to clients before compression"),
            bytes_sent: counter("powersync_data_sent_bytes_total", "Bytes sent to clients"),
            shared_lines: counter("kairos_shared_lines_total", "Data lines that were made for another client before"),
            requests_refused: counters("kairos_requests_refused_total", "Refused requests", "code"),
            introspections: counters("kairos_introspections_total", "Questions to issuers about tokens", "result"),
            rate_limited: register.counters(
                "kairos_rate_limited_total",
                "Requests of clients that must wait",
                &["by", "activity"],
            ),
            writes: counters("kairos_writes_total", "Uploaded writes", "outcome"),
            conflicts: register.counters(
                "kairos_conflicts_total",
                "Writes that met those of others",
                &["table", "strategy", "resolution"],
            ),
            latencies: Latencies::new(&register),
            registry: register.0,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// Makes counters with few known labels appear before anything is counted: what appears with 1 has not increased, as
    /// Prometheus sees it.
    fn begin_at_zero(&self) {
        for outcome in ["applied", "merged", "conflict", "duplicate", "refused", "repeated"] {
            self.writes.with_label_values(&[outcome]);
        }
        for result in ["confirmed", "refused", "unanswered"] {
            self.introspections.with_label_values(&[result]);
        }
        for carrier in ["http", "websocket"] {
            self.connections_by_carrier.with_label_values(&[carrier]);
        }
    }

    /// The text exposition format.
    ///
    /// # Panics
    /// Never: encoding into memory does not fail.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("memory takes all");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_rendered_as_text() {
        let metrics = Metrics::new();
        metrics.rows_replicated.inc_by(3);
        let text = String::from_utf8(metrics.render()).expect("text");
        assert!(text.contains("powersync_rows_replicated_total 3"), "{text}");
    }
}
