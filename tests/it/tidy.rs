//! Rules of the tree itself: error codes are documented, layers import downwards only.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Families of error codes, as they begin.
const FAMILIES: [&str; 12] =
    ["ADMIN-", "AUTH-", "CONF-", "PG-", "REPL-", "STORE-", "SYNC-", "SYNC_", "DEMO-", "CLIENT-", "WRITE_", "PSYNC_"];

/// What a folder of the service must not import, since it lies below it.
const LAYERS: [(&str, &[&str]); 7] = [
    ("deployment", &["api", "auth", "config", "demo", "postgres", "replication", "server", "sync", "write"]),
    ("postgres", &["api", "auth", "demo", "deployment", "replication", "server", "storage", "sync", "write"]),
    ("storage", &["api", "auth", "config", "demo", "deployment", "postgres", "replication", "server", "sync", "write"]),
    ("replication", &["api", "auth", "config", "demo", "server", "sync", "write"]),
    ("sync", &["api", "config", "demo", "postgres", "replication", "server", "write"]),
    ("auth", &["api", "config", "demo", "deployment", "postgres", "replication", "server", "storage", "sync", "write"]),
    ("write", &["api", "config", "demo", "deployment", "replication", "server", "storage", "sync"]),
];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package lies in the project").to_path_buf()
}

pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    files(folder, "rs")
}

fn files(folder: &Path, wanted: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder exists") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            found.extend(files(&path, wanted));
        } else if path.extension().is_some_and(|extension| extension == wanted) {
            found.push(path);
        }
    }
    found
}

/// Words that look like an error code: a family and then capitals, digits or underscores, not the family alone.
fn codes(text: &str) -> BTreeSet<String> {
    text.split(|char: char| !(char.is_ascii_alphanumeric() || char == '-' || char == '_'))
        .filter(|word| FAMILIES.iter().any(|family| word.starts_with(family) && word.len() > family.len()))
        .filter(|word| {
            word.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte))
        })
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_error_code_is_documented_and_no_other() {
    let root = root();
    let mut in_code = BTreeSet::new();
    for folder in [
        "service/src",
        "sync-rules/src",
        "client-sdk/src",
        "client-sdk/core/src",
        "client-sdk/ffi/src",
        "client-sdk/web/core/src",
    ] {
        for file in rust_files(&root.join(folder)) {
            let text = fs::read_to_string(&file).expect("readable");
            // Codes in tests may be made up.
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            in_code.extend(codes(code).into_iter().filter(|word| code.contains(&format!("\"{word}\""))));
        }
    }
    for file in files(&root.join("client-sdk/web/src"), "ts") {
        let code = fs::read_to_string(&file).expect("readable");
        in_code.extend(codes(&code).into_iter().filter(|word| code.contains(&format!("'{word}'"))));
    }
    let documented = codes(&fs::read_to_string(root.join("docs/errors.md")).expect("docs/errors.md exists"));
    let missing: Vec<_> = in_code.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&in_code).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
    assert!(stale.is_empty(), "in docs/errors.md, but not in the code: {stale:?}");
}

/// Names of findings: `snake_case` words in quotes that stand first in a call that makes a finding, or in a tuple of one.
fn findings(code: &str) -> BTreeSet<String> {
    const MAKERS: [&str; 4] = ["Problem::new(", "fatal(", "fatal_with_help(", "push("];
    let mut found = BTreeSet::new();
    for maker in MAKERS {
        for rest in code.split(maker).skip(1) {
            let Some(rest) = rest.trim_start().strip_prefix('"') else { continue };
            found.extend(rest.split('"').next().filter(|name| is_finding(name)).map(str::to_owned));
        }
    }
    found
}

fn is_finding(name: &str) -> bool {
    name.contains('_') && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[test]
fn every_finding_in_rules_is_documented_and_no_other() {
    let root = root();
    let (mut made, mut quoted) = (BTreeSet::new(), BTreeSet::new());
    for folder in ["sync-rules/src", "service/src/rules_check"] {
        for file in rust_files(&root.join(folder)) {
            let text = fs::read_to_string(&file).expect("readable");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            made.extend(findings(code));
            quoted.extend(code.split('"').filter(|word| is_finding(word)).map(str::to_owned));
        }
    }
    let docs = fs::read_to_string(root.join("docs/errors.md")).expect("docs/errors.md exists");
    let section = docs.split("## Findings in a rules file").nth(1).expect("errors.md lists findings");
    // The first cell of a row has the names.
    let names = section.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let documented: BTreeSet<String> =
        names.flat_map(|cell| cell.split('`')).filter(|name| is_finding(name)).map(str::to_owned).collect();
    let missing: Vec<_> = made.difference(&documented).collect();
    let stale: Vec<_> = documented.difference(&quoted).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
    assert!(stale.is_empty(), "in docs/errors.md, but not in the code: {stale:?}");
}

#[test]
fn every_finding_of_the_doctor_is_documented_and_no_other() {
    let root = root();
    let mut made = BTreeSet::new();
    for file in rust_files(&root.join("service/src/doctor")).iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = fs::read_to_string(file).expect("readable");
        for call in ["Check::warn(", "Check::fail("] {
            // The topic is the first text, the code the second; some hand on the code of an error.
            let code = |rest: &str| match rest.split('"').collect::<Vec<_>>()[..] {
                [_, _, comma, code, ..] if comma.trim() == "," => Some(code.to_owned()),
                _ => None,
            };
            let codes = text.split(call).skip(1).filter_map(code);
            made.extend(codes.filter(|name| is_finding(name)));
        }
    }
    let docs = fs::read_to_string(root.join("docs/errors.md")).expect("docs/errors.md exists");
    let section = docs.split("## Findings of the doctor").nth(1).expect("errors.md lists findings");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(str::to_owned).collect();
    assert_eq!(made, documented);
}

#[test]
fn layers_import_downwards_only() {
    let source = root().join("service/src");
    let mut faults = Vec::new();
    for (layer, above) in LAYERS {
        for file in rust_files(&source.join(layer)) {
            let text = fs::read_to_string(&file).expect("readable");
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for other in above {
                if code.contains(&format!("crate::{other}::")) {
                    faults.push(format!("{} imports {other}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn only_the_named_top_level_folders_exist() {
    let allowed = ["service", "client-sdk", "sync-rules", "deploy", "migrations", "benches", "tests", "docs"];
    for entry in fs::read_dir(root()).expect("readable") {
        let entry = entry.expect("readable");
        let name = entry.file_name().into_string().expect("plain names");
        if entry.path().is_dir() && !name.starts_with('.') && name != "target" && name != "kairos-data" {
            assert!(allowed.contains(&name.as_str()), "{name} is not one of {allowed:?}");
        }
    }
}
