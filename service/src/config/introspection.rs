//! The section `client_auth.introspection`: who is asked about tokens that no key is for.

use std::time::Duration;

use reqwest::{Method, Url, header::HeaderName};

use super::{
    auth::check_uri,
    error::ConfigError,
    section::Section,
    yaml::{Node, Value},
};
use crate::auth::introspection::{AnswerRules, CACHE_DEFAULT, Introspection, TIMEOUT_DEFAULT, Template};

/// How the token is sent where nothing else is said.
const HEADER_DEFAULT: (&str, &str) = ("Authorization", "Bearer {token}");

/// Takes the section.
pub(super) fn introspection(node: Node) -> Result<Introspection, ConfigError> {
    let setting = node.setting();
    let mut section = node.into_section()?;
    let Some(url) = section.take("url") else {
        return Err(setting.invalid("needs `url`, like https://auth.example.com/introspect"));
    };
    let url = url_template(&url)?;
    let body = section.text("body")?.map(Template::new);
    let given = section.take("header").map(|node| header(&node)).transpose()?;
    let is_sent = url.has_token() || body.as_ref().is_some_and(Template::has_token);
    let header = match given {
        None if !is_sent => Some((HEADER_DEFAULT.0.to_owned(), Template::new(HEADER_DEFAULT.1))),
        Some((_, ref value)) if !is_sent && !value.has_token() => {
            return Err(setting.invalid("must have {token} in `header`, `body` or `url`"));
        }
        given => given,
    };
    let method = method(&mut section, body.is_some())?;
    let answer = answer(&mut section)?;
    let keep_for = keep_for(&mut section)?;
    let timeout = section.number("timeout_seconds")?;
    let timeout = timeout.map_or(TIMEOUT_DEFAULT, Duration::from_secs);
    Ok(Introspection { url, method, header, body, answer, keep_for, timeout })
}

/// `cache_seconds`: for how long a yes is believed.
pub(super) fn keep_for(section: &mut Section) -> Result<Duration, ConfigError> {
    Ok(section.number("cache_seconds")?.map_or(CACHE_DEFAULT, Duration::from_secs))
}

fn url_template(node: &Node) -> Result<Template, ConfigError> {
    let template = Template::new(node.clone().into_text()?);
    let with = |token| template.fill_encoded(token);
    check_uri(&with("a")).map_err(|expected| node.invalid(expected))?;
    // Else a token would choose who is asked.
    let origin = |token| with(token).parse::<Url>().map(|url| url.origin());
    if origin("a") != origin("b") {
        return Err(node.invalid("must have {token} in its path or query only"));
    }
    Ok(template)
}

fn method(section: &mut Section, has_body: bool) -> Result<Method, ConfigError> {
    let Some(node) = section.take("method") else {
        return Ok(if has_body { Method::POST } else { Method::GET });
    };
    match node.clone().into_text()?.as_str() {
        "GET" if has_body => Err(node.invalid("must be POST where there is a `body`")),
        "GET" => Ok(Method::GET),
        _ => Ok(Method::POST),
    }
}

/// `Name: value`, as in a request.
fn header(node: &Node) -> Result<(String, Template), ConfigError> {
    let text = node.clone().into_text()?;
    let (name, value) = text.split_once(':').unwrap_or_default();
    let value = Template::new(value.trim());
    let is_valid = name.parse::<HeaderName>().is_ok() && value.is_header_value();
    if is_valid {
        Ok((name.to_owned(), value))
    } else {
        Err(node.invalid("must be like `Authorization: Bearer {token}`"))
    }
}

fn answer(section: &mut Section) -> Result<AnswerRules, ConfigError> {
    let subject = section.take("subject").map_or_else(|| Ok("/sub".to_owned()), |node| pointer(&node))?;
    let active = section.take("active").map(|node| pointer(&node)).transpose()?;
    let claims = match section.take("claims") {
        Some(Node { value: Value::Map(entries), .. }) => entries.into_iter().map(claim).collect::<Result<_, _>>()?,
        _ => Vec::new(),
    };
    Ok(AnswerRules { subject, active, claims })
}

fn claim((name, node): (String, Node)) -> Result<(String, String), ConfigError> {
    if name == "sub" {
        return Err(node.invalid("is what `subject` says: remove it"));
    }
    Ok((name, pointer(&node)?))
}

fn pointer(node: &Node) -> Result<String, ConfigError> {
    let pointer = node.clone().into_text()?;
    if pointer.starts_with('/') { Ok(pointer) } else { Err(node.invalid("must be a JSON pointer, like /record/id")) }
}

#[cfg(test)]
#[path = "introspection_tests.rs"]
mod tests;
