//! `compose.yaml`, as Docker Compose itself reads it.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use super::programs::{kit, program, run};

/// Values for all that `.env.example` leaves empty: each differs, so that none can stand for another.
pub(super) fn filled_in() -> String {
    let example = fs::read_to_string(kit().join(".env.example")).expect("readable");
    let fill = |line: &str| match line.strip_suffix('=') {
        Some("KAIROS_SITE") => "KAIROS_SITE=:80".to_owned(),
        Some("POCKETBASE_ADMIN_EMAIL") => "POCKETBASE_ADMIN_EMAIL=root@example.com".to_owned(),
        Some(name) => format!("{line}{}0123456789", name.to_lowercase().replace('_', "")),
        None => line.to_owned(),
    };
    example.lines().map(|line| fill(line) + "\n").collect()
}

fn command(environment: &str) -> (TempDir, Command) {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("env");
    fs::write(&file, environment).expect("writable");
    let mut command = program("docker-compose");
    // What a user has set must not fill a gap.
    command.env_clear().env("HOME", folder.path()).args(["--profile", "*", "--env-file"]).arg(file);
    command.arg("--file").arg(kit().join("compose.yaml")).args(["config", "--format", "json"]);
    (folder, command)
}

/// What it says with this `.env`, which it refuses.
pub(super) fn refusal(environment: &str) -> String {
    let (_folder, mut command) = command(environment);
    let Output { status, stderr, .. } = command.output().expect("it runs");
    assert!(!status.success(), "it takes {environment}");
    String::from_utf8_lossy(&stderr).into_owned()
}

/// The file with everything filled in.
pub(super) struct Compose(Value);

impl Compose {
    pub(super) fn read() -> Self {
        let (_folder, mut command) = command(&filled_in());
        Self(serde_json::from_str(&run(&mut command)).expect("JSON"))
    }

    /// Its services by name.
    pub(super) fn services(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0["services"].as_object().expect("services").iter().map(|(name, service)| (name.as_str(), service))
    }

    /// A list of words such as `command` or `entrypoint`. What is written `$$` is `$` to the container.
    pub(super) fn words(&self, service: &str, key: &str) -> Vec<String> {
        let list = self.0["services"][service][key].as_array().unwrap_or_else(|| panic!("{service} has no {key}"));
        list.iter().map(|word| word.as_str().expect("text").replace("$$", "$")).collect()
    }

    /// The environment of a service.
    pub(super) fn environment(&self, service: &str) -> Vec<(String, String)> {
        let environment = self.0["services"][service]["environment"].as_object().expect("an environment");
        let text = |value: &Value| value.as_str().expect("text").replace("$$", "$");
        environment.iter().map(|(name, value)| (name.clone(), text(value))).collect()
    }

    /// One variable of a service.
    pub(super) fn variable(&self, service: &str, name: &str) -> String {
        let found = self.environment(service).into_iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("{service} has no {name}")).1
    }

    /// Files and folders of the kit that containers get, with where.
    pub(super) fn mounts(&self) -> Vec<(PathBuf, String)> {
        let mounts = self.services().flat_map(|(_, service)| service["volumes"].as_array().into_iter().flatten());
        let bound = mounts.filter(|mount| mount["type"] == "bind");
        let text = |mount: &Value, key: &str| mount[key].as_str().expect("text").to_owned();
        bound.map(|mount| (PathBuf::from(text(mount, "source")), text(mount, "target"))).collect()
    }
}
