//! The package by itself: its own tests in Node.js, and its size.

use std::{fs, path::Path};

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

/// What the examples have of the app around them.
const AROUND: &str = "
declare const endpoint: string;
declare const userId: string;
declare function fetchToken(): Promise<string>;
declare function tokenFor(reason: 'start' | 'expiring' | 'refused'): Promise<string>;
declare const indicator: HTMLElement & { show(label: string, message?: string): void };
declare function show(rows: unknown[]): void;
declare function showHabits(rows: unknown[]): void;
";

/// The blocks of a page in TypeScript.
fn examples(page: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).expect("readable");
    let blocks = text.split("```ts\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default().to_owned());
    blocks.collect()
}

async fn run(command: &mut Command) {
    let output = command.kill_on_drop(true).output().await.expect("it starts");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn the_packed_package_is_whole_and_the_examples_are_of_it() {
    let package = root().join("client-sdk/web");
    let app = tempfile::tempdir().expect("a folder");
    let installed = app.path().join("node_modules/@kairos-sync/web");
    fs::create_dir_all(&installed).expect("writable");
    let pack = ["pack", "--ignore-scripts", "--silent", "--pack-destination"];
    run(Command::new("npm").args(pack).arg(app.path()).current_dir(&package)).await;
    let mut files = fs::read_dir(app.path()).expect("readable").map(|file| file.expect("a file").path());
    let packed = files.find(|file| file.extension().is_some_and(|end| end == "tgz")).expect("a package");
    run(Command::new("tar").arg("-xzf").arg(packed).args(["--strip-components=1", "-C"]).arg(&installed)).await;
    for file in ["index.js", "worker.js", "sqlite.js", "core.wasm", "wa-sqlite.wasm", "LICENSE", "sqlite.LICENSE"] {
        assert!(installed.join("dist").join(file).is_file(), "{file}");
    }
    assert!(!installed.join("src").exists() && !installed.join("node_modules").exists());

    let examples = [examples("client-sdk/web/README.md"), examples("docs/web-client.md")].concat();
    assert_eq!(examples.len(), 2);
    for (number, example) in examples.iter().enumerate() {
        fs::write(app.path().join(format!("app-{number}.ts")), example).expect("writable");
    }
    fs::write(app.path().join("around.d.ts"), AROUND).expect("writable");
    let settings = r#"{"compilerOptions": {"target": "ES2022", "module": "ESNext", "moduleResolution": "Bundler",
        "lib": ["ES2022", "DOM"], "types": [], "strict": true, "noEmit": true}, "include": ["*.ts"]}"#;
    fs::write(app.path().join("tsconfig.json"), settings).expect("writable");
    let compiler = package.join("node_modules/typescript/bin/tsc");
    run(Command::new(node()).arg(compiler).args(["-p", "."]).current_dir(app.path())).await;
}
