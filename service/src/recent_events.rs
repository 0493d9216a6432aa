//! Warnings and errors of the log, the newest of each kind: for operators who look at the status page and not at the log.
//!
//! What is told is what the log has, which has no row value and no secret. Only our own events are kept: what libraries
//! write is in the log alone.

use std::{
    collections::VecDeque,
    fmt::{self, Debug, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Kinds that are kept; those that happened longest ago are forgotten first.
const KIND_COUNT_MAX: usize = 100;
/// Longer messages are cut.
const MESSAGE_CHARS_MAX: usize = 500;
/// What modules of ours are named like.
const OWN_TARGET: &str = "kairos_sync";

/// A warning or an error, and how often it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecentEvent {
    /// An error; otherwise a warning.
    pub is_error: bool,
    /// Its code, if it has one.
    pub code: Option<String>,
    /// What was logged last.
    pub message: String,
    /// How often it happened since `first_at`.
    pub count: u64,
    /// When it happened for the first time.
    pub first_at: SystemTime,
    /// When it happened last.
    pub last_at: SystemTime,
}

/// The newest warnings and errors. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct RecentEvents {
    /// By when they happened last, oldest first. Held for a look or an insertion.
    kinds: Arc<Mutex<VecDeque<(Kind, RecentEvent)>>>,
}

/// Events are of one kind if the same line of code tells of the same code.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kind {
    callsite: Identifier,
    code: Option<String>,
}

impl RecentEvents {
    /// What happened, newest first.
    pub fn list(&self) -> Vec<RecentEvent> {
        self.lock().iter().rev().map(|(_, event)| event.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(Kind, RecentEvent)>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happened(&self, kind: Kind, is_error: bool, message: String, now: SystemTime) {
        let mut kinds = self.lock();
        let known = kinds.iter().position(|(known, _)| *known == kind).and_then(|index| kinds.remove(index));
        let (count, first_at) = known.map_or((0, now), |(_, event)| (event.count, event.first_at));
        if kinds.len() >= KIND_COUNT_MAX {
            kinds.pop_front();
        }
        let code = kind.code.clone();
        kinds.push_back((kind, RecentEvent { is_error, code, message, count: count + 1, first_at, last_at: now }));
    }
}

impl<S: Subscriber> Layer<S> for RecentEvents {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        if *metadata.level() > Level::WARN || !metadata.target().starts_with(OWN_TARGET) {
            return;
        }
        let mut told = Told::default();
        event.record(&mut told);
        let kind = Kind { callsite: metadata.callsite(), code: told.code.take() };
        self.happened(kind, *metadata.level() == Level::ERROR, told.into_message(), SystemTime::now());
    }
}

/// What an event says.
#[derive(Default)]
struct Told {
    code: Option<String>,
    message: String,
    error: String,
}

impl Told {
    fn into_message(self) -> String {
        let Self { mut message, error, .. } = self;
        if !error.is_empty() {
            let colon = if message.is_empty() { "" } else { ": " };
            // A string takes all.
            let _ = write!(message, "{colon}{error}");
        }
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(end);
            message.push('…');
        }
        message
    }

    fn place_of(&mut self, field: &Field) -> Option<&mut String> {
        match field.name() {
            "message" => Some(&mut self.message),
            "error" => Some(&mut self.error),
            "code" => Some(self.code.get_or_insert_default()),
            _ => None,
        }
    }
}

impl Visit for Told {
    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(place) = self.place_of(field) {
            value.clone_into(place);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if let Some(place) = self.place_of(field) {
            *place = fmt::format(format_args!("{value:?}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::{Registry, layer::SubscriberExt};

    use super::*;

    fn told_of(log: impl FnOnce()) -> Vec<RecentEvent> {
        let events = RecentEvents::default();
        tracing::subscriber::with_default(Registry::default().with(events.clone()), log);
        events.list()
    }

    #[test]
    fn events_of_a_kind_are_counted_and_the_newest_comes_first() {
        let fail = |code: &str, port: u16| tracing::error!(code, port, error = %format!("port {port}"), "not reached");
        let told = told_of(|| {
            tracing::info!(code = "X-1", "nothing to worry about");
            fail("X-1", 1);
            tracing::warn!("slow");
            fail("X-2", 2);
            fail("X-1", 3);
        });
        let seen: Vec<_> = told
            .iter()
            .map(|event| (event.is_error, event.code.as_deref(), event.message.as_str(), event.count))
            .collect();
        assert_eq!(
            seen,
            [
                (true, Some("X-1"), "not reached: port 3", 2),
                (true, Some("X-2"), "not reached: port 2", 1),
                (false, None, "slow", 1)
            ]
        );
        assert!(told[0].first_at <= told[0].last_at);
    }

    #[test]
    fn kinds_and_messages_have_bounds_and_others_are_not_told() {
        let told = told_of(|| {
            tracing::warn!(target: "another_library", "what it likes");
            for number in 0..=KIND_COUNT_MAX {
                tracing::warn!(code = format!("X-{number}"), "{}", "ä".repeat(2 * MESSAGE_CHARS_MAX));
            }
        });
        assert_eq!(told.len(), KIND_COUNT_MAX);
        assert_eq!(told.last().and_then(|event| event.code.as_deref()), Some("X-1"), "the oldest is forgotten");
        assert_eq!(told[0].message.chars().count(), MESSAGE_CHARS_MAX + 1);
    }
}
