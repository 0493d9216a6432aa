//! Text with a place for the token. Pure.

use std::fmt::Write;

use reqwest::header::HeaderValue;

use crate::secret::Secret;

/// Where the token goes.
const PLACE: &str = "{token}";

/// Text in which `{token}` stands for the token. The text may hold a secret, and is not printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Secret);

impl Template {
    /// From text, with or without a place for the token.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Secret::new(text))
    }

    /// Whether it has a place for the token.
    pub fn has_token(&self) -> bool {
        self.text().contains(PLACE)
    }

    /// The text with its place still empty; mind where it goes.
    pub fn text(&self) -> &str {
        self.0.reveal()
    }

    /// Whether it can stand in a header.
    pub fn is_header_value(&self) -> bool {
        HeaderValue::from_str(self.text()).is_ok()
    }

    /// With the token as it is.
    pub(super) fn fill(&self, token: &str) -> String {
        self.text().replace(PLACE, token)
    }

    /// With the token percent-encoded, so that it stays one part of an address or a form.
    pub fn fill_encoded(&self, token: &str) -> String {
        let mut encoded = String::with_capacity(token.len());
        for byte in token.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(byte.into());
            } else {
                // Writing to a text does not fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        self.text().replace(PLACE, &encoded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_cannot_leave_its_place_in_an_address() {
        let template = Template::new("https://id.example/check/{token}?once");
        assert!(template.has_token() && !Template::new("https://id.example/{tok}").has_token());
        assert_eq!(template.fill_encoded("a.b-c_d~1"), "https://id.example/check/a.b-c_d~1?once");
        assert_eq!(
            template.fill_encoded("a/../b?c=d&e#f%2fä{token}"),
            "https://id.example/check/a%2F..%2Fb%3Fc%3Dd%26e%23f%252f%C3%A4%7Btoken%7D?once"
        );
        assert_eq!(Template::new("Bearer {token}").fill("a/b="), "Bearer a/b=");
    }

    #[test]
    fn its_text_is_not_printed() {
        assert!(!format!("{:?}", Template::new("Basic c2VjcmV0")).contains("c2VjcmV0"));
    }
}
