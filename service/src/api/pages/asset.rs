//! A file of a page, as it is answered.

use axum::{
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};

/// A file in the binary.
#[derive(Debug)]
pub(super) struct Asset {
    pub(super) name: &'static str,
    pub(super) content: &'static [u8],
}

/// What a page may load, and how long its files are kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Handling {
    /// `Content-Security-Policy`.
    pub(super) policy: &'static str,
    /// `Cache-Control`.
    pub(super) cache: &'static str,
}

impl Asset {
    /// The one of this name.
    pub(super) fn find(assets: &'static [Self], name: &str) -> Option<&'static Self> {
        assets.iter().find(|asset| asset.name == name)
    }

    /// As an answer.
    pub(super) fn answer(&self, Handling { policy, cache }: Handling) -> Response {
        let headers: [(HeaderName, &'static str); 6] = [
            (header::CONTENT_TYPE, content_type(self.name)),
            (header::CONTENT_SECURITY_POLICY, policy),
            (header::CACHE_CONTROL, cache),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ];
        let mut response = self.content.into_response();
        for (name, value) in headers {
            response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "html" => "text/html; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "txt" => "text/plain; charset=utf-8",
        "svg" => "image/svg+xml",
        "wasm" => "application/wasm",
        "webmanifest" => "application/manifest+json",
        "json" => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_names() {
        for (name, kind) in [
            ("page.html", "text/html; charset=utf-8"),
            ("app-1a2b.js", "text/javascript; charset=utf-8"),
            ("sqlite.min.wasm", "application/wasm"),
            ("LICENSE", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), kind);
        }
    }
}
