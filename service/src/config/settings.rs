//! All settings there are: what each takes, what holds without it, and which variable of the environment says it where
//! the file does not. What reads a configuration, and what describes one, go by this table.

use super::{DEFAULT_DATA_DIR, DEFAULT_PORT, DEFAULT_SERVICE_NAME};

/// A setting.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) takes: Takes,
    /// For people, as Markdown; what it does.
    pub(super) about: &'static str,
    /// What holds without it, as it could be written; empty where there is nothing to write.
    pub(super) default: &'static str,
    /// Variables besides the one that follows from its path, for those who know them from elsewhere; first one first.
    /// In those that end with `_B64` the value is encoded as base64.
    pub(super) aliases: &'static [&'static str],
}

/// What a setting takes.
#[derive(Debug)]
pub(super) enum Takes {
    Flag,
    /// A whole number between these.
    Number(u64, u64),
    Text,
    /// Text that is not to be shown.
    Secret,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One text, or a list.
    Texts,
    /// As [`Takes::Texts`], none of which is to be shown.
    Secrets,
    /// What other rules than these say, and what it must be.
    Document(Shape, &'static str),
    /// Settings below it.
    Section(&'static [Key]),
    /// As [`Takes::Section`], but a file that has it says all of it.
    Whole(&'static [Key]),
    /// A list of one section, which a file that has it says all of.
    One(&'static [Key]),
    /// What the setting of this name takes.
    Renamed(&'static str),
    /// Known, and of no use here, for this reason.
    Nothing(&'static str),
    /// For the operator's own use.
    Anything,
}

/// Whether a document is a list or a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    List,
    Map,
}

const fn key(name: &'static str, takes: Takes, about: &'static str) -> Key {
    Key { name, takes, about, default: "", aliases: &[] }
}

const fn nothing(name: &'static str, why: &'static str) -> Key {
    key(name, Takes::Nothing(why), "")
}

impl Key {
    const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
}

/// The whole file.
pub(super) const ROOT: &[Key] = &[
    key("replication", Takes::Section(REPLICATION), "Where rows come from."),
    key("sync_config", Takes::Whole(SYNC_CONFIG), "The sync rules; read [rules.md](rules.md)."),
    key("sync_rules", Takes::Renamed("sync_config"), "The older name of `sync_config`."),
    key("client_auth", Takes::Section(CLIENT_AUTH), "Whose tokens are accepted; read [auth.md](auth.md)."),
    key("write", Takes::Section(WRITE), "How uploads are written; what may be written is in the rules."),
    key("port", Takes::Number(1, 65_535), "Port of everything that is served: sync, uploads, probes, metrics.")
        .default("8080")
        .aliases(&["PS_PORT"]),
    key(
        "base_path",
        Takes::Text,
        "A path under which everything is served as well, such as `/sync-api`, for proxies that do not take it off.",
    ),
    key(
        "trusted_proxies",
        Takes::Texts,
        "Addresses and ranges of proxies whose `X-Forwarded-For` says where requests come from.",
    ),
    key(
        "mirror",
        Takes::Flag,
        "Whether `/mirror/` is served, a page with the habits of the sample app; read [mirror.md](mirror.md).",
    )
    .default("false"),
    key(
        "data_dir",
        Takes::Text,
        "Folder of the bucket store. In a file it counts from the file's folder, in the environment from the working \
         directory.",
    )
    .default(DEFAULT_DATA_DIR),
    key(
        "drain_seconds",
        Takes::Number(0, 300),
        "How long after SIGTERM everything is still served, while the readiness probe says no: so long as whoever sends \
         clients here takes to notice.",
    )
    .default("0"),
    key("storage", Takes::Section(STORAGE), "The bucket store; read [operations.md](operations.md#the-store)."),
    key("limits", Takes::Section(LIMITS), "Bounds of this process; read [serving.md](serving.md)."),
    key("api", Takes::Section(API), "Who may look inside and change rules; read [admin.md](admin.md)."),
    key("traces", Takes::Section(TRACES), "Where traces go; read [operations.md](operations.md#traces)."),
    key("metadata", Takes::Anything, "Free text for your own use, with `!env` as everywhere."),
    key("parameters", Takes::Anything, "As `metadata`."),
    nothing("telemetry", "nothing is ever sent to its makers; metrics are at /metrics of the service's port, and traces have a section of their own"),
    nothing("migrations", "the bucket store upgrades itself"),
    nothing("healthcheck", "the probes are always served over HTTP"),
    nothing("system", "set PS_LOG_LEVEL and PS_LOG_FORMAT"),
];

const REPLICATION: &[Key] =
    &[key("connections", Takes::One(CONNECTION), "The source: a list of exactly one connection.")];

const CONNECTION: &[Key] = &[
    key("type", Takes::Word(&["postgresql"]), "The kind of database.").default("postgresql"),
    key("uri", Takes::Secret, "`postgresql://role:password@host:5432/database`.")
        .aliases(&["POWERSYNC_DATABASE_URL", "DATABASE_URL"]),
    key("hostname", Takes::Text, "Host, instead of the one in `uri`."),
    key("port", Takes::Number(1, 65_535), "Port, instead of the one in `uri`.").default("5432"),
    key("username", Takes::Text, "Role, instead of the one in `uri`."),
    key("password", Takes::Secret, "Password, instead of the one in `uri`."),
    key("database", Takes::Text, "Database, instead of the one in `uri`."),
    key(
        "sslmode",
        Takes::Word(&["disable", "verify-ca", "verify-full"]),
        "How the server is told from others: not at all and without encryption, by who vouches for it, or by its name as \
         well. `verify-full` without it, and on the same host `disable`.",
    ),
    key("cacert", Takes::Text, "Certificates of the authorities that are trusted, as PEM; the system's without it."),
    key("tls_servername", Takes::Text, "The name to look for in the server's certificate, instead of the host."),
    key(
        "publication",
        Takes::Texts,
        "The publication, or several, from which rows are read. Without it `kairos_sync`, or `powersync` if there is none.",
    ),
    key(
        "slot_name_prefix",
        Takes::Text,
        "How names of replication slots begin: up to 40 lower-case letters, digits and underscores. Services that share a \
         database must differ in it.",
    )
    .default("kairos_"),
    key("connect_timeout", Takes::Number(1, 3600), "Seconds for a connection to come about.").default("20"),
    key("snapshot_connections", Takes::Number(1, 16), "Sessions that copy tables at once.").default("2"),
    key(
        "snapshot_bytes_per_second",
        Takes::Number(10_000, u64::MAX >> 1),
        "How fast tables are copied at most. As fast as can be without it.",
    ),
    key(
        "failover",
        Takes::Word(&["auto", "true", "false"]),
        "Whether the slot lives on a standby too. `auto`: where the server can (17 and later) and something would keep it.",
    )
    .default("auto"),
    key(
        "slot_wal_budget_bytes",
        Takes::Number(1 << 20, u64::MAX >> 1),
        "WAL that the slot may hold back before that is an alert; `max_slot_wal_keep_size` of the server without it.",
    ),
    key(
        "heartbeat_interval_seconds",
        Takes::Number(5, 60),
        "How often a source where nothing happens is asked to say that it lives.",
    )
    .default("30"),
    nothing("id", "there is one connection"),
    nothing("tag", "there is one connection"),
    nothing("max_pool_size", "pools are sized by the service"),
    nothing("snapshot_socket_timeout", "deadlines are set by the service"),
    nothing("debug_api", "there is no SQL endpoint"),
    nothing("client_certificate", "client certificates are not supported yet"),
    nothing("client_private_key", "client certificates are not supported yet"),
    nothing("reject_ip_ranges", "address ranges are not checked yet"),
];

const SYNC_CONFIG: &[Key] = &[
    key(
        "path",
        Takes::Text,
        "The rules file. It is read again when it changes. In a file it counts from the file's folder, in the environment \
         from the working directory.",
    )
    .aliases(&["KAIROS_SYNC_RULES"]),
    key("content", Takes::Text, "The rules themselves, instead of a file.")
        .aliases(&["POWERSYNC_SYNC_CONFIG_B64", "POWERSYNC_SYNC_RULES_B64"]),
    key("by_api", Takes::Flag, "Rules are deployed over HTTP; before the first time there are none.").default("false"),
    nothing("exit_on_error", "rules with a mistake always stop the start"),
];

const CLIENT_AUTH: &[Key] = &[
    key("audience", Takes::Texts, "What tokens must be for (`aud`).").aliases(&["POWERSYNC_JWKS_AUDIENCE"]),
    key("issuer", Takes::Texts, "Who must have issued tokens (`iss`). Anybody whose key it is without it."),
    key("jwks", Takes::Section(JWKS), "Keys that stand here."),
    key("jwks_uri", Takes::Texts, "Where keys are published.").aliases(&["POWERSYNC_JWKS_URI"]),
    key("supabase", Takes::Flag, "Tokens of the Supabase project that the source database belongs to.")
        .default("false"),
    key("supabase_jwt_secret", Takes::Secret, "The secret of a project that has no signing keys yet."),
    key("preset", Takes::Section(PRESETS), "Providers of which the rest is known."),
    key("introspection", Takes::Whole(INTROSPECTION), "Who is asked about tokens that no key is for."),
    key("block_local_jwks", Takes::Flag, "Keys are never fetched from addresses of private networks.").default("false"),
    key(
        "jwks_reject_ip_ranges",
        Takes::Texts,
        "Addresses and ranges from which keys are never fetched, or `local` for those of private networks.",
    ),
];

const JWKS: &[Key] = &[key(
    "keys",
    Takes::Document(Shape::List, "must be a list of JSON Web Keys"),
    "JSON Web Keys, as `kairos-sync auth keygen` makes them.",
)];

const PRESETS: &[Key] = &[
    key("keycloak", Takes::Whole(KEYCLOAK), "A realm of Keycloak."),
    key("firebase", Takes::Whole(FIREBASE), "A project of Firebase."),
    key("auth0", Takes::Whole(AUTH0), "A tenant of Auth0."),
    key("supabase", Takes::Whole(SUPABASE), "A project of Supabase with signing keys."),
    key("pocketbase", Takes::Whole(POCKETBASE), "PocketBase, which is asked about each token."),
];

const KEYCLOAK: &[Key] = &[
    key("url", Takes::Text, "Its address."),
    key("realm", Takes::Text, "The realm's name."),
    key("audience", Takes::Texts, "What its tokens must be for; `client_auth.audience` without it."),
];

const FIREBASE: &[Key] = &[key("project_id", Takes::Text, "The project's id, as in its settings.")];

const AUTH0: &[Key] = &[
    key("domain", Takes::Text, "The tenant's domain, like `example.eu.auth0.com`."),
    key("audience", Takes::Texts, "The identifier of the API that the app asks tokens for."),
];

const SUPABASE: &[Key] = &[key("url", Takes::Text, "`https://<ref>.supabase.co`, or the project's own domain.")];

const POCKETBASE: &[Key] = &[
    key("url", Takes::Text, "Its address, as the service reaches it."),
    key("collection", Takes::Text, "The users' collection, like `users`."),
    key("cache_seconds", Takes::Number(1, 3600), CACHE).default("30"),
];

const CACHE: &str = "How long a yes is believed, and a revoked token may go on.";

const INTROSPECTION: &[Key] = &[
    key("url", Takes::Text, "Whom to ask; `{token}` in path or query is replaced."),
    key("method", Takes::Word(&["GET", "POST"]), "`POST` where there is a `body`, else `GET`."),
    key("header", Takes::Text, "One header, with `{token}`.").default("Authorization: Bearer {token}"),
    key("body", Takes::Text, "The body, with `{token}`."),
    key("subject", Takes::Text, "JSON pointer to the user's id in the answer.").default("/sub"),
    key("active", Takes::Text, "JSON pointer to what must be true."),
    key(
        "claims",
        Takes::Document(Shape::Map, "must have names of claims with JSON pointers, like `email: /email`"),
        "Names of claims, each with a JSON pointer into the answer.",
    ),
    key("cache_seconds", Takes::Number(1, 3600), CACHE).default("30"),
    key("timeout_seconds", Takes::Number(1, 30), "How long an answer may take.").default("5"),
];

const WRITE: &[Key] = &[
    key(
        "uri",
        Takes::Secret,
        "The connection that writes, on the source's server; that of the replication without it.",
    ),
    key(
        "role",
        Takes::Text,
        "The role that writes run as, so that row-level security holds. Without it, that of the connection.",
    ),
    key(
        "transaction",
        Takes::Word(&["batch", "tx_id"]),
        "What of an upload is committed at once: all of it, or each of the app's transactions.",
    )
    .default("batch"),
    key("remember_days", Takes::Number(1, 3650), "How long an upload that is repeated has no second effect.")
        .default("7"),
    key("conflict_history_days", Takes::Number(1, 3650), "How long decided conflicts are kept.").default("90"),
];

const STORAGE: &[Key] = &[
    key(
        "compaction_bytes_per_second",
        Takes::Number(0, 1 << 30),
        "How fast old operations are read and written to make them fewer, beside everything else; 0: only by \
         `kairos-sync store compact`.",
    )
    .default("4194304"),
    key(
        "scrub_bytes_per_second",
        Takes::Number(0, 1 << 30),
        "How fast old operations and rows are read to find what the disk has damaged; 0: only when somebody needs them.",
    )
    .default("1048576"),
    nothing("type", NO_DATABASE),
    nothing("uri", NO_DATABASE),
    nothing("hostname", NO_DATABASE),
    nothing("port", NO_DATABASE),
    nothing("username", NO_DATABASE),
    nothing("password", NO_DATABASE),
    nothing("database", NO_DATABASE),
    nothing("sslmode", NO_DATABASE),
    nothing("cacert", NO_DATABASE),
    nothing("tls_servername", NO_DATABASE),
    nothing("client_certificate", NO_DATABASE),
    nothing("client_private_key", NO_DATABASE),
    nothing("max_pool_size", NO_DATABASE),
    nothing("reject_ip_ranges", NO_DATABASE),
    nothing("id", NO_DATABASE),
    nothing("tag", NO_DATABASE),
];

const NO_DATABASE: &str = "the embedded bucket store in data_dir needs no database";

const LIMITS: &[Key] = &[
    key("connections_max", Takes::Number(1, 1_000_000), "Open streams.").default("10000"),
    key("buckets_per_connection_max", Takes::Number(1, 1_000_000), "Buckets of one client.").default("10000"),
    key("fetch_concurrency_max", Takes::Number(1, 1000), "Reads of the store at once.").default("4"),
    key(
        "shared_bytes_max",
        Takes::Number(1, 1 << 34),
        "Bytes of encoded operations that are kept because several clients may need them.",
    )
    .default("8388608"),
    key("body_bytes_max", Takes::Number(1, 1 << 30), "Bytes of a request's body.").default("16777216"),
    key("checkpoint_interval_ms", Takes::Number(0, 60_000), "Least time between two checkpoints of one client.")
        .default("10"),
    key("rate", Takes::Section(RATE), "What may be asked for in a minute; 0 is no bound."),
];

const RATE: &[Key] = &[
    key("device", Takes::Section(RATES_OF_DEVICE), "One device of one user."),
    key("user", Takes::Section(RATES_OF_USER), "All devices of a user."),
    key("address", Takes::Section(RATES_OF_ADDRESS), "All that come from one address."),
    key("refused_tokens_per_minute", Takes::Number(0, U32_MAX), "Tokens of one address that were refused.")
        .default("1200"),
];

const fn rates(defaults: [&'static str; 4]) -> [Key; 4] {
    let [uploads, operations, streams, write_checkpoints] = defaults;
    [
        key("uploads_per_minute", Takes::Number(0, U32_MAX), "Uploads.").default(uploads),
        key("operations_per_minute", Takes::Number(0, U32_MAX), "Writes in uploads.").default(operations),
        key("streams_per_minute", Takes::Number(0, U32_MAX), "Streams opened.").default(streams),
        key("write_checkpoints_per_minute", Takes::Number(0, U32_MAX), "Write checkpoints asked for.")
            .default(write_checkpoints),
    ]
}

const RATES_OF_DEVICE: &[Key] = &rates(["6000", "300000", "300", "6000"]);
const RATES_OF_USER: &[Key] = &rates(["12000", "600000", "1200", "12000"]);
const RATES_OF_ADDRESS: &[Key] = &rates(["0", "0", "0", "0"]);

const U32_MAX: u64 = 0xffff_ffff;

const API: &[Key] = &[
    key("tokens", Takes::Secrets, "Tokens of those who may. Nobody may without one.").aliases(&["KAIROS_ADMIN_TOKEN"]),
    nothing("parameters", "bounds are set in the section limits"),
];

const TRACES: &[Key] = &[
    key(
        "endpoint",
        Takes::Text,
        "A collector that takes OTLP over HTTP, like `http://127.0.0.1:4318`; spans go to `/v1/traces` below it. Nothing is \
         sent without it. Needs a binary that was built with `--features otlp`.",
    )
    .aliases(&["OTEL_EXPORTER_OTLP_ENDPOINT"]),
    key("service_name", Takes::Text, "As what the service appears there.")
        .default(DEFAULT_SERVICE_NAME)
        .aliases(&["OTEL_SERVICE_NAME"]),
];

/// So that the table says what holds.
const _: () = assert!(DEFAULT_PORT == 8080);
