//! The threads of the library. One set for the process, which is never taken down: apps open and close clients at will.

use std::sync::OnceLock;

use tokio::{runtime::Runtime, task::JoinHandle};

use crate::error::KairosError;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The runtime, made by the first call.
pub(crate) fn runtime() -> Result<&'static Runtime, KairosError> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let made = made.map_err(|error| KairosError::new("CLIENT-0105", &error.to_string()))?;
    Ok(RUNTIME.get_or_init(|| made))
}

/// Runs a call on the library's threads, whichever thread asks for it.
pub(crate) async fn on_runtime<T: Send + 'static>(
    call: impl Future<Output = Result<T, KairosError>> + Send + 'static,
) -> Result<T, KairosError> {
    let task: JoinHandle<_> = runtime()?.spawn(call);
    task.await.map_err(|error| KairosError::new("CLIENT-0105", &error.to_string()))?
}
