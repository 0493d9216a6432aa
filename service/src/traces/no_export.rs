//! A binary without the feature `otlp` sends nothing; its configuration refuses to ask for it.

use std::future::{Ready, ready};

use axum::http::HeaderMap;
use tracing::{Span, Subscriber};

use super::{TracesConfig, TracesError, TracesLayer};

/// Nothing.
#[derive(Debug)]
pub struct Export;

impl Export {
    /// Does nothing.
    ///
    /// # Errors
    /// None.
    pub fn begin(_: Option<&TracesConfig>) -> Result<Self, TracesError> {
        Ok(Self)
    }

    /// What takes spans: nothing.
    pub fn layer<S: Subscriber>(&self) -> Option<TracesLayer<S>> {
        None
    }

    /// Does nothing.
    pub fn end(self) -> Ready<()> {
        ready(())
    }
}

/// Does nothing.
pub(crate) fn join_caller(_: &Span, _: &HeaderMap) {}
