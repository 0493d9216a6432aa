//! What of a client's `Accept` and `Accept-Encoding` is answered.

use axum::http::{HeaderMap, HeaderName, header};

use crate::sync::{Compression, LineForm};

/// The content type of BSON streams. SDKs compare it for equality: nothing may be added.
pub(super) const BSON_STREAM: &str = "application/vnd.powersync.bson-stream";
/// The content type of JSON streams.
pub(super) const NDJSON: &str = "application/x-ndjson";

/// BSON only where the client likes it better; JSON in every other case, also for clients that accept neither.
fn is_bson_preferred(headers: &HeaderMap) -> bool {
    let json = [NDJSON, "application/*", "*/*"];
    let bson = [BSON_STREAM, "application/*", "*/*"];
    quality(headers, &header::ACCEPT, &bson) > quality(headers, &header::ACCEPT, &json)
}

/// How the lines of a stream are written.
pub(super) fn line_form(headers: &HeaderMap, raw_data: bool) -> LineForm {
    if is_bson_preferred(headers) {
        LineForm::Bson
    } else if raw_data {
        LineForm::Json
    } else {
        LineForm::NestedJson
    }
}

/// The compression the client likes best; of equals zstd before gzip before none.
pub(super) fn compression(headers: &HeaderMap) -> Compression {
    let quality_of = |name: &str| quality(headers, &header::ACCEPT_ENCODING, &[name, "*"]);
    let identity = if headers.contains_key(header::ACCEPT_ENCODING) { quality_of("identity") } else { 1 };
    let (zstd, gzip) = (quality_of("zstd"), quality_of("gzip"));
    if zstd > 0 && zstd >= gzip && zstd >= identity {
        Compression::Zstd
    } else if gzip > 0 && gzip >= identity {
        Compression::Gzip
    } else {
        Compression::Identity
    }
}

/// How much the client likes the first of these names that it mentions, in thousandths. Zero: not at all.
fn quality(headers: &HeaderMap, header: &HeaderName, names: &[&str]) -> u16 {
    let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
    let mentioned: Vec<_> = values.flat_map(|value| value.split(',')).map(preference).collect();
    let of = |name: &&str| mentioned.iter().find(|(mentioned, _)| mentioned.eq_ignore_ascii_case(name));
    names.iter().find_map(of).map_or(0, |(_, quality)| *quality)
}

/// One element of a list: `name; parameter=value; q=0.5`. Other parameters do not matter here.
fn preference(element: &str) -> (&str, u16) {
    let mut parts = element.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default();
    let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    (name, quality.map_or(1000, thousandths))
}

/// A number from 0 to 1 with at most three decimals (RFC 9110, 12.4.2). What is none counts as nothing.
fn thousandths(text: &str) -> u16 {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    if whole == "1" {
        return 1000;
    }
    let is_number = whole == "0" && fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { format!("{fraction:0<3}").parse().unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: HeaderName, value: Option<&str>) -> HeaderMap {
        value.map(|value| (name, value.parse().unwrap())).into_iter().collect()
    }

    #[test]
    fn bson_is_sent_to_those_who_like_it_better() {
        for (accept, is_bson) in [
            (None, false),
            (Some("*/*"), false),
            (Some("application/*"), false),
            (Some("application/json"), false),
            (Some("application/x-ndjson"), false),
            (Some("application/vnd.powersync.bson-stream"), true),
            (Some("application/vnd.powersync.bson-stream;q=0.9,application/x-ndjson;q=0.8"), true),
            (Some("application/vnd.powersync.bson-stream;q=0.8,application/x-ndjson;q=0.9"), false),
            (Some("application/vnd.powersync.bson-stream, application/x-ndjson"), false),
            (Some("application/vnd.powersync.bson-stream, */*;q=0.1"), true),
            (Some("Application/Vnd.PowerSync.Bson-Stream ; Q=0.5"), true),
            (Some("application/vnd.powersync.bson-stream;q=0"), false),
            (Some(",;q=,;;"), false),
        ] {
            assert_eq!(is_bson_preferred(&headers(header::ACCEPT, accept)), is_bson, "{accept:?}");
        }
    }

    #[test]
    fn the_best_liked_compression_is_chosen() {
        for (accept, expect) in [
            (None, Compression::Identity),
            (Some(""), Compression::Identity),
            (Some("identity"), Compression::Identity),
            (Some("br, deflate"), Compression::Identity),
            (Some("gzip, deflate, br"), Compression::Gzip),
            (Some("gzip, deflate, br, zstd"), Compression::Zstd),
            (Some("zstd;q=0.1, gzip"), Compression::Gzip),
            (Some("*"), Compression::Zstd),
            (Some("*;q=0"), Compression::Identity),
            (Some("identity, gzip;q=0.5"), Compression::Identity),
            (Some("gzip;q=0, zstd;q=0.001"), Compression::Zstd),
            (Some("GZIP"), Compression::Gzip),
            (Some("gzip;q=2"), Compression::Identity),
        ] {
            assert_eq!(compression(&headers(header::ACCEPT_ENCODING, accept)), expect, "{accept:?}");
        }
    }
}
