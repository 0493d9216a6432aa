//! The commands of the binary, each ending in an exit code.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use kairos_sync_rules::{Compiled, Severity};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    config::{Config, ProcessEnvironment},
    demo::{self, DemoOptions},
    migrate::{self, Migrations},
    server,
};

/// `serve`: runs the service until SIGTERM or Ctrl-C.
pub async fn serve(config: Option<&Path>) -> ExitCode {
    let Some(config) = load_config(config) else { return ExitCode::FAILURE };
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        wait_for_end_signal().await;
        tracing::info!("stopping");
        let _ = stop.send(true);
    });
    finish(server::run(config, stopped).await.map_err(|error| (error.code(), server::chain(&error))))
}

/// Completes at SIGTERM or Ctrl-C.
pub(crate) async fn wait_for_end_signal() {
    let mut terminate = signal(SignalKind::terminate()).expect("signals can be listened to at start");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals can be listened to at start");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn finish(result: Result<(), (&'static str, String)>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            eprintln!("error {code}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn load_config(path: Option<&Path>) -> Option<Config> {
    match Config::load(path, &ProcessEnvironment) {
        Ok(config) => {
            for warning in &config.warnings {
                tracing::warn!("{warning}");
            }
            Some(config)
        }
        Err(error) => {
            eprintln!("error {}: {error}", error.code());
            None
        }
    }
}

/// `migrate`: prepares the source database through the configured replication connection.
pub async fn migrate(config: Option<&Path>) -> ExitCode {
    let Some(config) = load_config(config) else { return ExitCode::FAILURE };
    let mut client = match config.source.connect().await {
        Ok(client) => client,
        Err(error) => return finish(Err((error.code(), server::chain(&error)))),
    };
    match migrate::migrate(&mut client, Migrations::Service).await {
        Ok(applied) if applied.files.is_empty() => {
            println!("nothing to do: the database is prepared");
            ExitCode::SUCCESS
        }
        Ok(applied) => {
            println!("applied: {}", applied.files.join(", "));
            ExitCode::SUCCESS
        }
        Err(error) => finish(Err((error.code(), server::chain(&error)))),
    }
}

/// `rules check`: prints what is wrong in a rules file.
pub fn check_rules(file: &PathBuf, json: bool) -> ExitCode {
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) => return finish(Err(("CONF-0203", format!("cannot read {}: {error}", file.display())))),
    };
    let Compiled { plan, diagnostics } = kairos_sync_rules::compile(&text, "public");
    let mut out = std::io::stdout().lock();
    // A reader that went away does not change the verdict.
    let _ = if json {
        writeln!(out, "{}", serde_json::to_string(&diagnostics).unwrap_or_default())
    } else {
        diagnostics
            .iter()
            .try_for_each(|diagnostic| writeln!(out, "{}", diagnostic.render(&file.display().to_string(), &text)))
    };
    let fatal_count = diagnostics.iter().filter(|diagnostic| diagnostic.severity == Severity::Fatal).count();
    if !json {
        let _ = match &plan {
            Some(plan) => {
                writeln!(out, "{}: can be deployed; reads {} tables", file.display(), plan.source_tables().len())
            }
            None => writeln!(out, "{}: cannot be deployed, {fatal_count} errors", file.display()),
        };
    }
    if plan.is_some() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `demo`: plays the main job.
pub async fn demo(options: DemoOptions) -> ExitCode {
    match demo::run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => finish(Err((error.code(), server::chain(&error)))),
    }
}
