//! The status page.

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::asset::{Asset, Handling};
use crate::api::ApiError;

/// Nothing but what comes from here. Trusted types: no text ever becomes markup.
const HANDLING: Handling = Handling {
    policy: "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
             trusted-types 'none'",
    // A newer release must not run on older files.
    cache: "no-cache",
};

const PAGE: Asset = Asset { name: "page.html", content: include_bytes!("admin/page.html") };

/// What the page loads.
const FILES: &[Asset] = &[
    Asset { name: "page.css", content: include_bytes!("admin/page.css") },
    Asset { name: "icon.svg", content: include_bytes!("admin/icon.svg") },
    Asset { name: "page.js", content: include_bytes!("admin/page.js") },
    Asset { name: "api.js", content: include_bytes!("admin/api.js") },
    Asset { name: "connections.js", content: include_bytes!("admin/connections.js") },
    Asset { name: "dom.js", content: include_bytes!("admin/dom.js") },
    Asset { name: "events.js", content: include_bytes!("admin/events.js") },
    Asset { name: "explanation.js", content: include_bytes!("admin/explanation.js") },
    Asset { name: "format.js", content: include_bytes!("admin/format.js") },
    Asset { name: "lookup.js", content: include_bytes!("admin/lookup.js") },
    Asset { name: "replication.js", content: include_bytes!("admin/replication.js") },
    Asset { name: "rules.js", content: include_bytes!("admin/rules.js") },
    Asset { name: "store.js", content: include_bytes!("admin/store.js") },
];

/// Its links are relative to the folder.
pub(super) async fn to_page() -> Response {
    (StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "admin/")]).into_response()
}

pub(super) async fn page() -> Response {
    PAGE.answer(HANDLING)
}

pub(super) async fn file(Path(name): Path<String>) -> Result<Response, ApiError> {
    Asset::find(FILES, &name).map(|file| file.answer(HANDLING)).ok_or_else(ApiError::not_found)
}
