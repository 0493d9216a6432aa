//! The package by itself: its own tests in Node.js, and its size.

use std::path::Path;

use kairos_tests::driver::node;
use tokio::process::Command;

use crate::tidy::root;

/// Runs tests of `client-sdk/web/test` and shows what they print.
pub(super) async fn node_tests(pattern: &str, environment: &[(&str, &Path)]) {
    let mut command = Command::new(node());
    command
        .args(["--test", "--test-reporter=spec", &format!("test/{pattern}")])
        .current_dir(root().join("client-sdk/web"));
    command.envs(environment.iter().copied()).kill_on_drop(true);
    let output = command.output().await.expect("Node.js runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("{text}");
}

#[tokio::test]
async fn the_tests_of_the_package_pass() {
    node_tests("*.test.mjs", &[]).await;
}
