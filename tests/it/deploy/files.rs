//! The kit's files, by the tools they are for.

use std::{collections::BTreeSet, fs};

use serde_json::json;

use super::{
    compose::{Compose, filled_in, refusal},
    programs::{kit, program, run},
};
use crate::tidy::{root, rust_files};

#[test]
fn a_variable_that_is_not_set_is_named_with_what_to_do() {
    let refused = refusal("");
    for name in ["KAIROS_SITE", "POSTGRES_PASSWORD", "KAIROS_REPLICATION_PASSWORD", "KAIROS_SERVICE_PASSWORD"] {
        let expected = format!("required variable {name} is missing a value: set it in .env, as .env.example says");
        assert!(refused.contains(&expected), "{refused}");
    }
    // An empty one is none.
    let without = filled_in().replace("POCKETBASE_ADMIN_PASSWORD=", "OTHER=") + "POCKETBASE_ADMIN_PASSWORD=\n";
    assert!(refusal(&without).contains("required variable POCKETBASE_ADMIN_PASSWORD is missing a value"));
}

#[test]
fn every_variable_is_in_the_example_and_no_other() {
    let compose = fs::read_to_string(kit().join("compose.yaml")).expect("readable");
    let example = fs::read_to_string(kit().join(".env.example")).expect("readable");
    let names = compose.split("${").skip(1).map(|rest| rest.split([':', '}']).next().expect("a name"));
    let used: BTreeSet<&str> = names.collect();
    let is_name = |word: &&str| used.contains(word) || word.starts_with("KAIROS_") || word.ends_with("_PASSWORD");
    let words = example.split(|char: char| !(char.is_ascii_uppercase() || char == '_'));
    let told: BTreeSet<&str> = words.filter(is_name).collect();
    assert_eq!(used, told);
    for line in example.lines().filter(|line| line.contains("PASSWORD=") || line.contains("TOKEN=")) {
        assert!(line.ends_with('='), "a default secret: {line}");
    }
}

/// What a container can do to its host and to others.
#[test]
fn every_container_is_confined() {
    let compose = Compose::read();
    for (name, service) in compose.services() {
        assert_eq!(service["read_only"], json!(true), "{name}");
        assert_eq!(service["cap_drop"], json!(["ALL"]), "{name}");
        assert_eq!(service["security_opt"], json!(["no-new-privileges:true"]), "{name}");
        assert!(service["mem_limit"].is_string() && service["pids_limit"].is_number(), "{name} has no bounds");
        assert!(service["restart"].is_string() && service["logging"]["options"]["max-size"].is_string(), "{name}");
        // Caddy's volumes belong to root in its image.
        assert_eq!(service["user"].is_string(), name != "caddy", "{name}");
        assert_eq!(service["cap_add"].is_null(), name != "caddy", "{name}");
        let image = service["image"].as_str().expect("an image");
        assert!(image.contains(':') && !image.ends_with(":latest"), "{name}: {image} is not pinned");
        for port in service["ports"].as_array().into_iter().flatten() {
            let is_local = port["host_ip"] == "127.0.0.1";
            assert!(is_local || ["caddy", "mosquitto"].contains(&name), "{name} can be reached from outside");
        }
    }
    let bounds = compose.services().map(|(_, service)| service["mem_limit"].as_str().expect("bytes"));
    let all: u64 = bounds.map(|bytes| bytes.parse::<u64>().expect("a number")).sum();
    assert!(all <= 1600 << 20, "{all} bytes: that is no Raspberry Pi of 2 GB any more");
}

#[test]
fn every_mounted_file_is_there() {
    for (source, target) in Compose::read().mounts() {
        assert!(source.exists(), "{} for {target}", source.display());
    }
}

#[test]
fn the_images_are_built_as_hadolint_likes_it() {
    run(program("hadolint").arg(kit().join("Dockerfile")).arg(kit().join("pocketbase/Dockerfile")));
}

#[test]
fn the_configurations_of_the_proxies_are_formatted_and_valid() {
    let file = kit().join("proxy/Caddyfile");
    let text = fs::read_to_string(&file).expect("readable");
    assert_eq!(run(program("caddy").arg("fmt").arg(&file)), text);
    for tls in ["public", "internal"] {
        let mut command = program("caddy");
        command.args(["adapt", "--config"]).arg(&file).env("KAIROS_SITE", "kairos.example.org").env("KAIROS_TLS", tls);
        let adapted = run(command.env("KAIROS_SYNC", "a:1").env("POCKETBASE", "b:1"));
        assert_eq!(adapted.contains("\"module\":\"internal\""), tls == "internal", "{adapted}");
    }
}

/// Only where systemd is: it checks what it knows.
#[test]
fn the_unit_is_confined() {
    let unit = kit().join("systemd/kairos-sync.service");
    let Ok(output) =
        std::process::Command::new("systemd-analyze").args(["security", "--offline=true"]).arg(&unit).output()
    else {
        println!("skipped: there is no systemd-analyze");
        return;
    };
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if printed.is_empty() {
        println!("skipped: systemd-analyze cannot do that here: {}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let last = printed.lines().last().expect("a line");
    let level = last.split(": ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a level");
    assert!(level.parse::<f64>().expect("a number") < 2.0, "{last}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("Unknown"), "{output:?}");
}

/// Whether `.dockerignore` lets a path into the build of the image: what it names after `!`, and what lies below.
fn is_in_context(path: &std::path::Path) -> bool {
    let text = fs::read_to_string(root().join(".dockerignore")).expect("readable");
    let relative = path.strip_prefix(root()).expect("in the repository");
    text.lines().filter_map(|line| line.strip_prefix('!')).any(|kept| relative.starts_with(kept))
}

#[test]
fn the_image_is_built_from_all_that_it_needs() {
    for folder in ["service", "service/protocol", "sync-rules", "client-sdk"] {
        for file in rust_files(&root().join(folder).join("src")) {
            let text = fs::read_to_string(&file).expect("readable");
            let included = text.split("include_str!(\"").skip(1).chain(text.split("include_bytes!(\"").skip(1));
            for name in included.filter_map(|rest| rest.split('"').next()) {
                let path = file.parent().expect("a folder").join(name).canonicalize().expect("it is there");
                assert!(is_in_context(&path), "{} includes {name}, which .dockerignore leaves out", file.display());
            }
        }
    }
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let members = manifest.lines().find(|line| line.starts_with("members")).expect("members");
    for member in members.split('"').skip(1).step_by(2) {
        assert!(is_in_context(&root().join(member).join("Cargo.toml")), "{member} is left out");
    }
    for copied in ["Cargo.lock", "rust-toolchain.toml", "LICENSE", "migrations", "tests/pocketbase/requirements.txt"] {
        assert!(is_in_context(&root().join(copied)), "{copied} is left out");
    }
}

/// As GitHub names a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase().replace(|char: char| !(char.is_alphanumeric() || " -_".contains(char)), "");
    kept.trim().replace(' ', "-")
}

#[test]
fn links_in_the_guides_lead_somewhere() {
    for guide in ["deploy.md", "metrics.md", "runbook.md"] {
        let text = fs::read_to_string(root().join("docs").join(guide)).expect("readable");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://")) {
            let (file, section) = link.split_once('#').unwrap_or((link, ""));
            let path = root().join("docs").join(if file.is_empty() { guide } else { file });
            assert!(path.exists(), "{guide}: {link}");
            if !section.is_empty() {
                let target = fs::read_to_string(&path).expect("readable");
                let mut headings = target.lines().filter(|line| line.starts_with('#'));
                assert!(headings.any(|line| anchor(line.trim_start_matches('#')) == section), "{guide}: {link}");
            }
        }
    }
}
