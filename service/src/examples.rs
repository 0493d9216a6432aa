//! Examples below the help of each command: what people type, with what for. A test parses every one.

use clap::Command;

/// By command; those that have examples beside their arguments are not here.
const EXAMPLES: &[(&str, &[(&str, &str)])] = &[
    (
        "serve",
        &[
            ("With a configuration of one's own", "kairos-sync serve -c /etc/kairos-sync/kairos.yaml"),
            ("For a program that reads the log", "kairos-sync serve --no-progress --log-format json"),
        ],
    ),
    (
        "status",
        &[
            ("How far is the first copy?", "kairos-sync status --watch"),
            (
                "Can clients sync? For scripts, by the exit code",
                "kairos-sync status --ready --url http://127.0.0.1:8080",
            ),
        ],
    ),
    (
        "migrate",
        &[(
            "As a role that may create roles, of which nothing stays in the shell's history",
            "KAIROS_MIGRATE_ADMIN=postgresql://postgres@db/app kairos-sync migrate -c kairos.yaml",
        )],
    ),
    (
        "teardown",
        &[
            ("What would it do?", "kairos-sync teardown -c kairos.yaml"),
            ("Do it, and delete the store as well", "kairos-sync teardown -c kairos.yaml --yes --store"),
        ],
    ),
    (
        "doctor",
        &[
            ("Before the first start", "kairos-sync doctor -c kairos.yaml"),
            (
                "Mend what is safe, through another role",
                "kairos-sync doctor -c kairos.yaml --fix --admin postgresql://postgres@db/app",
            ),
        ],
    ),
    ("config check", &[("Before a restart", "kairos-sync config check -c kairos.yaml")]),
    ("config reference", &[("All settings as a page", "kairos-sync config reference > configuration.md")]),
    ("config schema", &[("For an editor", "kairos-sync config schema > kairos.schema.json")]),
    (
        "rules check",
        &[
            ("Is the file good by itself?", "kairos-sync rules check rules.yaml"),
            (
                "And for this database?",
                "kairos-sync rules check rules.yaml --database postgresql://kairos_replication@db/app",
            ),
        ],
    ),
    ("rules eval", &[("Cases of a file, a line each", "kairos-sync rules eval < cases.jsonl")]),
    ("rules explain", &[("What does it do?", "kairos-sync rules explain rules.yaml")]),
    ("rules plan", &[("What would be built, and what would devices download?", "kairos-sync rules plan rules.yaml")]),
    ("rules deploy", &[("To the service on this host", "kairos-sync rules deploy rules.yaml")]),
    ("rules rebuild", &[("Of the service on this host", "kairos-sync rules rebuild")]),
    ("rules schema", &[("For an editor", "kairos-sync rules schema > rules.schema.json")]),
    ("auth check", &[("Who is it by this token?", "kairos-sync auth check -c kairos.yaml < token.txt")]),
    ("auth keygen", &[("A secret for a service that signs its own tokens", "kairos-sync auth keygen")]),
    (
        "auth token",
        &[("To try things as anna", "kairos-sync auth token --sub anna --aud app --secret-file secret.txt")],
    ),
    ("store verify", &[("Is anything damaged? The service must not run", "kairos-sync store verify -c kairos.yaml")]),
    ("store stats", &[("What takes the space?", "kairos-sync store stats --data-dir /var/lib/kairos-sync")]),
    ("store compact", &[("Before a copy of the folder", "kairos-sync store compact -c kairos.yaml")]),
    (
        "store delete",
        &[
            ("What would go?", "kairos-sync store delete -c kairos.yaml"),
            ("Start again from Postgres", "kairos-sync store delete -c kairos.yaml --yes"),
        ],
    ),
    ("openapi", &[("For a generator of clients", "kairos-sync openapi > openapi.json")]),
    (
        "demo",
        &[
            ("With the mirror in the browser", "kairos-sync demo --open"),
            ("As a check, which ends by itself", "kairos-sync demo --once"),
        ],
    ),
    ("completions", &[("For this shell", "source <(kairos-sync completions bash)")]),
    ("man", &[("For `man kairos-sync`", "kairos-sync man /usr/local/share/man/man1")]),
];

/// The command with its examples, and so those below it.
pub fn with_examples(command: Command) -> Command {
    below(command, "")
}

fn below(command: Command, path: &str) -> Command {
    let of = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path} {name}") };
    let found = EXAMPLES.iter().find(|(name, _)| *name == path);
    let command = match found {
        Some((_, examples)) => command.after_help(text(examples)),
        None => command,
    };
    command.mut_subcommands(|below_it| {
        let path = of(below_it.get_name());
        below(below_it, &path)
    })
}

fn text(examples: &[(&str, &str)]) -> String {
    let lines = examples.iter().map(|(what, call)| format!("  {what}\n    {call}\n"));
    format!("Examples:\n{}", lines.collect::<String>())
}
