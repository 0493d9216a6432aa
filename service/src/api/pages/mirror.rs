//! The mirror: a household's habits in a browser, which works offline. It is written in TypeScript (`client-sdk/web/mirror`);
//! its build lies in `mirror/`, so that the service is built without Node.js.

use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use super::asset::{Asset, Handling};
use crate::api::{ApiError, ApiState};

/// Its own files, WebAssembly, and whatever server people name: theirs may be another one.
const POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; style-src 'self'; \
                      img-src 'self'; manifest-src 'self'; connect-src 'self' http: https:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

/// Files whose name stays are asked for each time: they name those of the newest build.
const NEWEST: Handling = Handling { policy: POLICY, cache: "no-cache" };
/// Files of a build never change: it is named after their content.
const LASTING: Handling = Handling { policy: POLICY, cache: "public, max-age=31536000, immutable" };

/// Names the build.
pub(in crate::api) const BUILD: &str = include_str!("mirror/build.txt");

const PAGE: Asset = Asset { name: "page.html", content: include_bytes!("mirror/page.html") };

const FILES: &[Asset] = &[
    Asset { name: "icon.svg", content: include_bytes!("mirror/icon.svg") },
    Asset { name: "mirror.webmanifest", content: include_bytes!("mirror/mirror.webmanifest") },
    Asset { name: "sw.js", content: include_bytes!("mirror/sw.js") },
    Asset { name: "wa-sqlite-license.txt", content: include_bytes!("mirror/wa-sqlite-license.txt") },
];

const BUILD_FILES: &[Asset] = &[
    Asset { name: "app.js", content: include_bytes!("mirror/build/app.js") },
    Asset { name: "core.wasm", content: include_bytes!("mirror/build/core.wasm") },
    Asset { name: "page.css", content: include_bytes!("mirror/build/page.css") },
    Asset { name: "sqlite.js", content: include_bytes!("mirror/build/sqlite.js") },
    Asset { name: "wa-sqlite.wasm", content: include_bytes!("mirror/build/wa-sqlite.wasm") },
    Asset { name: "worker.js", content: include_bytes!("mirror/build/worker.js") },
];

/// Its links are relative to the folder.
pub(super) async fn to_page(State(state): State<ApiState>) -> Result<Response, ApiError> {
    is_served(&state)?;
    Ok((StatusCode::PERMANENT_REDIRECT, [(header::LOCATION, "mirror/")]).into_response())
}

pub(super) async fn page(State(state): State<ApiState>) -> Result<Response, ApiError> {
    is_served(&state)?;
    Ok(PAGE.answer(NEWEST))
}

pub(super) async fn file(State(state): State<ApiState>, Path(name): Path<String>) -> Result<Response, ApiError> {
    is_served(&state)?;
    Asset::find(FILES, &name).map(|file| file.answer(NEWEST)).ok_or_else(ApiError::not_found)
}

pub(super) async fn build_file(
    State(state): State<ApiState>,
    Path((build, name)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    is_served(&state)?;
    let file = Asset::find(BUILD_FILES, &name).filter(|_| build == BUILD);
    file.map(|file| file.answer(LASTING)).ok_or_else(ApiError::not_found)
}

fn is_served(state: &ApiState) -> Result<(), ApiError> {
    if state.parts.serves_mirror {
        return Ok(());
    }
    let details = "the mirror is served where the configuration has `mirror: true`".to_owned();
    Err(ApiError::not_found().with_details(details))
}
