//! The commands of the binary, each ending in an exit code.

use std::{
    io::{self, BufRead, Read, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use kairos_sync_rules::eval_case;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    api::openapi,
    client_command::{self, ClientArguments},
    config::{Config, DEFAULT_PORT, ProcessEnvironment},
    copy_bars::CopyBars,
    demo::{self, DemoOptions},
    doctor::{self, DoctorOptions},
    explain::ExplainArguments,
    migrate_command::MigrateArguments,
    recent_events::RecentEvents,
    replication::ReplicationStatus,
    rules_check::{self, CheckOptions},
    rules_explain,
    rules_plan::PlanError,
    server,
    service_status::{self, StatusOptions},
    teardown::TeardownArguments,
    traces::Export,
};

/// Longest line `rules eval` reads, its end not counted: rules and rows for a test, with room to spare.
const CASE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How often bars of copies are drawn.
const BARS_INTERVAL: Duration = Duration::from_millis(250);

/// Begins to send traces, if the configuration says where to. Complains if that cannot be.
pub fn begin_traces(config: &Config) -> Option<Export> {
    let begun = Export::begin(config.traces.as_ref()).map_err(|error| (error.code(), error.to_string()));
    begun.map_err(|refusal| finish(Err(refusal))).ok()
}

/// `serve`: runs the service until SIGTERM or Ctrl-C. Draws bars while tables are copied, if any are given; `events` is what
/// the log had of warnings and errors, and `traces` are sent until the end.
pub async fn serve(config: Config, bars: Option<CopyBars>, events: RecentEvents, traces: Export) -> ExitCode {
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let status = Arc::new(ReplicationStatus::default());
    let drawing = bars.map(|bars| tokio::spawn(draw_copies(bars, Arc::clone(&status))));
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        wait_for_end_signal().await;
        tracing::info!("stopping");
        let _ = stop.send(true);
    });
    let ended = server::run(config, status, events, stopped).await;
    if let Some(drawing) = drawing {
        drawing.abort();
    }
    traces.end().await;
    finish(ended.map_err(|error| (error.code(), server::chain(&error))))
}

/// Runs until it is aborted.
async fn draw_copies(mut bars: CopyBars, status: Arc<ReplicationStatus>) {
    loop {
        let now = status.snapshot();
        bars.show(&now.copies, now.rebuild.as_ref());
        tokio::time::sleep(BARS_INTERVAL).await;
    }
}

/// What `status` is to say, and of which service.
#[derive(Debug)]
pub struct StatusCommand {
    /// Where the service answers; `None`: on this host, at the configured port.
    pub url: Option<String>,
    /// The configuration file; `None`: as the service finds it.
    pub config: Option<PathBuf>,
    /// Print the answer as JSON.
    pub json: bool,
    /// Go on until all tables are copied.
    pub watch: bool,
    /// Whether clients can sync decides on the exit code.
    pub ready: bool,
}

/// `status`: prints how a running service is. Exits with 0 if replication reports no error, 1 if it does, 2 if the
/// service does not answer.
pub async fn status(StatusCommand { url, config, json, watch, ready }: StatusCommand) -> ExitCode {
    let config = config.as_deref();
    let url = match url {
        Some(url) => url,
        None => match Config::load(config, &ProcessEnvironment) {
            Ok(config) => format!("http://127.0.0.1:{}", config.port),
            // Whoever asks may have no configuration at hand.
            Err(_) if config.is_none() => format!("http://127.0.0.1:{DEFAULT_PORT}"),
            Err(error) => {
                finish(Err((error.code(), error.to_string())));
                return ExitCode::from(2);
            }
        },
    };
    match service_status::run(&StatusOptions { url, json, watch, ready }).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            finish(Err((error.code(), server::chain(&error))));
            ExitCode::from(2)
        }
    }
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

/// What the service is configured with. Complains if it cannot be read.
pub fn load_config(path: Option<&Path>) -> Option<Config> {
    let loaded = Config::load(path, &ProcessEnvironment).map_err(|error| (error.code(), error.to_string()));
    loaded.map_err(|refusal| finish(Err(refusal))).ok()
}

/// `migrate`: prepares the source database.
pub async fn migrate(arguments: &MigrateArguments) -> ExitCode {
    let said = arguments.run().await.map(|said| print!("{said}"));
    finish(said.map_err(|error| (error.code(), server::chain(&error))))
}

/// `teardown`: takes what a service leaves in its source. Prints what that is.
pub async fn teardown(arguments: &TeardownArguments) -> ExitCode {
    let said = arguments.run().await.map(|said| print!("{said}"));
    finish(said.map_err(|error| (error.code(), server::chain(&error))))
}

/// `rules check`: prints what is wrong in a rules file, and in the database it is meant for. Exits with 0 if the rules
/// can be deployed, 1 if not, 2 if that could not be found out.
pub async fn check_rules(options: &CheckOptions) -> ExitCode {
    match rules_check::run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            finish(Err((error.code(), server::chain(&error))));
            ExitCode::from(2)
        }
    }
}

/// `doctor`: prints what the source has and lacks. Exits with 0 if the service can run, 1 if not, 2 if that could not be
/// found out.
pub async fn doctor(options: &DoctorOptions) -> ExitCode {
    match doctor::run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            finish(Err((error.code(), server::chain(&error))));
            ExitCode::from(2)
        }
    }
}

/// `client`: syncs into a file and looks at it. Exits with 0 if all is well, 1 if the service refuses or something differs,
/// 2 if that could not be found out.
pub async fn client(arguments: &ClientArguments) -> ExitCode {
    match client_command::run(arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let is_refusal = error.is_refusal();
            finish(Err((error.code(), server::chain(&error))));
            ExitCode::from(if is_refusal { 1 } else { 2 })
        }
    }
}

/// Prints what a command of rules says, or why it does not. Exits with 1 if it was refused, 2 if nothing could be found out.
pub fn print_or_refuse(said: Result<String, PlanError>) -> ExitCode {
    match said {
        Ok(text) => {
            let _ = io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            finish(Err((error.code(), server::chain(&error))));
            ExitCode::from(if error.is_refusal() { 1 } else { 2 })
        }
    }
}

/// `explain`: asks a running service why a user has what. Exits with 0 if there is an answer, 1 if the service refuses, 2 if
/// it could not be found out.
pub async fn explain(arguments: &ExplainArguments) -> ExitCode {
    match arguments.run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let is_refusal = error.is_refusal();
            finish(Err((error.code(), server::chain(&error))));
            ExitCode::from(if is_refusal { 1 } else { 2 })
        }
    }
}

/// `rules explain`: prints what a rules file does.
pub fn explain_rules(file: &Path, json: bool) -> ExitCode {
    match rules_explain::explain(file, json) {
        Ok(Ok(text)) => {
            let _ = io::stdout().lock().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Err(findings)) => {
            let _ = io::stderr().lock().write_all(findings.as_bytes());
            ExitCode::FAILURE
        }
        Err(error) => {
            finish(Err((error.code(), server::chain(&error))));
            ExitCode::from(2)
        }
    }
}

/// `rules schema`: prints the JSON Schema of the rules file, for editors.
pub fn print_rules_schema() -> ExitCode {
    // A reader that went away has seen what it wanted.
    let _ = writeln!(std::io::stdout().lock(), "{:#}", kairos_sync_rules::json_schema());
    ExitCode::SUCCESS
}

/// `openapi`: prints what the HTTP API takes and answers, as an OpenAPI document.
pub fn print_openapi() -> ExitCode {
    // A reader that went away has seen what it wanted.
    let _ = writeln!(std::io::stdout().lock(), "{:#}", openapi::document());
    ExitCode::SUCCESS
}

/// `rules eval`: runs cases from stdin, a line each, and prints their results to stdout.
pub fn eval_rules() -> ExitCode {
    match eval_lines(&mut io::stdin().lock(), CASE_BYTES_MAX, &mut io::stdout().lock(), &mut io::stderr()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints a result per case, and a complaint per line that is none. Returns whether there was no complaint.
fn eval_lines(
    input: &mut impl BufRead,
    bytes_max: usize,
    out: &mut impl Write,
    complaints: &mut impl Write,
) -> io::Result<bool> {
    let mut is_complete = true;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        // One byte more, for the line's end.
        if input.by_ref().take(bytes_max as u64 + 1).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        if line.pop_if(|byte| *byte == b'\n').is_none() && line.len() > bytes_max {
            is_complete = false;
            writeln!(complaints, "error: line {number}: longer than {bytes_max} bytes")?;
            input.skip_until(b'\n')?;
            continue;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let result = match str::from_utf8(&line) {
            Ok(line) => eval_case::run(line).map_err(|error| error.to_string()),
            Err(_) => Err("not UTF-8".to_owned()),
        };
        match result {
            Ok(result) => writeln!(out, "{result}")?,
            Err(complaint) => {
                is_complete = false;
                writeln!(complaints, "error: line {number}: {complaint}")?;
            }
        }
    }
    Ok(is_complete)
}

/// `demo`: plays the main job.
pub async fn demo(options: DemoOptions) -> ExitCode {
    match demo::run(options).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => finish(Err((error.code(), server::chain(&error)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether all lines were cases, the ids of the results, and the complaints.
    fn eval(input: &[u8], bytes_max: usize) -> (bool, Vec<String>, String) {
        let (mut out, mut complaints) = (Vec::new(), Vec::new());
        let is_complete = eval_lines(&mut &*input, bytes_max, &mut out, &mut complaints).unwrap();
        let out = String::from_utf8(out).unwrap();
        let id =
            |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["id"].as_str().unwrap().to_owned();
        (is_complete, out.lines().map(id).collect(), String::from_utf8(complaints).unwrap())
    }

    #[test]
    fn each_case_has_a_result_and_blank_lines_have_none() {
        let input = b"{\"id\":\"b\",\"rules_yaml\":\"]\"}\n\n \r\n{\"id\":\"a\",\"rules_yaml\":\"\"}";
        assert_eq!(eval(input, 100), (true, vec!["b".to_owned(), "a".to_owned()], String::new()));
        assert_eq!(eval(b"", 100), (true, vec![], String::new()));
    }

    #[test]
    fn a_line_that_is_no_case_is_named_and_the_others_run() {
        let input = b"{\"id\":1}\n\xff\n{\"id\":\"a\",\"rules_yaml\":\"\"}\n";
        let (is_complete, ids, complaints) = eval(input, 100);
        assert_eq!((is_complete, ids), (false, vec!["a".to_owned()]));
        assert!(complaints.starts_with("error: line 1: not a case: "), "{complaints}");
        assert!(complaints.ends_with("error: line 2: not UTF-8\n"), "{complaints}");
    }

    #[test]
    fn a_line_beyond_the_limit_is_skipped_to_its_end() {
        let case = "{\"id\":\"a\",\"rules_yaml\":\"\"}";
        for end in ["", "\n"] {
            let input = format!("{}\n{case}{end}", "x".repeat(500));
            let (is_complete, ids, complaints) = eval(input.as_bytes(), case.len());
            assert_eq!((is_complete, ids), (false, vec!["a".to_owned()]), "a line of just the limit is read");
            assert_eq!(complaints, format!("error: line 1: longer than {} bytes\n", case.len()));
        }
    }
}
