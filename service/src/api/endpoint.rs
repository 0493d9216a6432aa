//! A path with a method: what answers it, and what is said of it. The router and the OpenAPI document are both made of
//! these.

use axum::{
    Router,
    handler::Handler,
    routing::{MethodRouter, get, post},
};

use super::ApiState;

/// One of the API.
pub(super) struct Endpoint {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) access: Access,
    /// Names of parameters in the query.
    pub(super) query: &'static [&'static str],
    pub(super) body: Option<Body>,
    pub(super) answer: Answer,
    handler: MethodRouter<ApiState>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
}

/// Who may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Anybody,
    User,
    Operator,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Body {
    /// JSON of this schema.
    Json(&'static str),
    /// Rules as YAML, or as JSON with them in `content`.
    Rules,
}

/// What is answered where nothing fails. Names are those of schemas.
#[derive(Debug, Clone, Copy)]
pub(super) enum Answer {
    /// In `data`.
    Data(&'static str),
    /// A list in `data`.
    List(&'static str),
    /// As it is.
    Plain(&'static str),
    /// As it is, with status 400 where the answer is no.
    Verdict(&'static str),
    Text,
    /// A page for people.
    Page,
    /// What a page loads.
    File,
    /// Another path.
    Elsewhere,
    /// A line after the other.
    Lines(&'static str),
    WebSocket,
}

impl Method {
    /// As in the document.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
        }
    }
}

impl Endpoint {
    pub(super) fn get<T: 'static>(
        path: &'static str,
        handler: impl Handler<T, ApiState>,
        access: Access,
        summary: &'static str,
        answer: Answer,
    ) -> Self {
        Self { method: Method::Get, path, summary, access, query: &[], body: None, answer, handler: get(handler) }
    }

    pub(super) fn post<T: 'static>(
        path: &'static str,
        handler: impl Handler<T, ApiState>,
        access: Access,
        summary: &'static str,
        answer: Answer,
    ) -> Self {
        Self { method: Method::Post, path, summary, access, query: &[], body: None, answer, handler: post(handler) }
    }

    /// The same with parameters in the query.
    pub(super) fn query(self, names: &'static [&'static str]) -> Self {
        Self { query: names, ..self }
    }

    /// The same with a body.
    pub(super) fn takes(self, body: Body) -> Self {
        Self { body: Some(body), ..self }
    }
}

/// A router of these.
pub(super) fn routes(endpoints: Vec<Endpoint>) -> Router<ApiState> {
    endpoints.into_iter().fold(Router::new(), |router, endpoint| router.route(endpoint.path, endpoint.handler))
}
