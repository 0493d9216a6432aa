//! The demo's live page: what a mirror on the wall would show, changing as Postgres changes.

use std::{convert::Infallible, io, sync::Arc};

use axum::{
    Router,
    response::{
        Html, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::{net::TcpListener, sync::watch};

const PAGE: &str = include_str!("page.html");

/// What the page shows. Sent whole whenever something changed; it is small.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Mirror {
    /// Whose habits.
    pub user: String,
    /// The device's sync status.
    pub state: String,
    /// Today's habits.
    pub habits: Vec<TodaysHabit>,
    /// Names and values about the service.
    pub facts: Vec<(String, String)>,
    /// A command to try.
    pub hint: String,
}

/// A habit and whether it was completed today.
#[derive(Debug, Clone, Serialize)]
pub struct TodaysHabit {
    /// Row id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Completed today.
    pub done: bool,
    /// When, for people.
    pub at: String,
}

/// Serves the page until `mirror`'s sender is gone.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, mirror: watch::Receiver<Arc<Mirror>>) -> io::Result<()> {
    let mut until_gone = mirror.clone();
    let router = Router::new()
        .route("/", get(async || Html(PAGE)))
        .route("/events", get(async move || Sse::new(events(mirror)).keep_alive(KeepAlive::default())));
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { while until_gone.changed().await.is_ok() {} })
        .await
}

/// The present state first, then each later one; a slow reader skips states in between.
fn events(mut mirror: watch::Receiver<Arc<Mirror>>) -> impl Stream<Item = Result<Event, Infallible>> {
    mirror.mark_changed();
    stream::unfold(mirror, async |mut mirror| {
        mirror.changed().await.ok()?;
        let state = Arc::clone(&mirror.borrow_and_update());
        let event = Event::default().json_data(&*state).unwrap_or_else(|_| Event::default().comment("unprintable"));
        Some((Ok(event), mirror))
    })
}
