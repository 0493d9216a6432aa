//! The section `traces`.

use reqwest::Url;

use super::{DEFAULT_SERVICE_NAME, error::ConfigError, section::Section};
use crate::traces::TracesConfig;

/// Where traces go, if anywhere; a binary in which they `are_built_in` may be asked for it.
pub(super) fn traces(root: &mut Section, are_built_in: bool) -> Result<Option<TracesConfig>, ConfigError> {
    let mut section = root.section("traces")?;
    let service_name = section.text("service_name")?.unwrap_or_else(|| DEFAULT_SERVICE_NAME.to_owned());
    let Some(node) = section.take("endpoint") else { return Ok(None) };
    if !are_built_in {
        let refusal = "asks for traces, which this binary was built without: build it with `cargo build --features otlp`, \
                       or remove the setting";
        return Err(node.invalid(refusal));
    }
    let invalid = node.invalid("must be the address of a collector, like http://127.0.0.1:4318");
    let is_http = |url: &Url| matches!(url.scheme(), "http" | "https") && url.query().is_none();
    let endpoint = Url::parse(&node.into_text()?).ok().filter(is_http).ok_or(invalid)?;
    Ok(Some(TracesConfig { endpoint, service_name }))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::config::{check, yaml};

    fn read(
        text: &str,
        environment: &[(&'static str, &'static str)],
        are_built_in: bool,
    ) -> Result<Option<TracesConfig>, String> {
        let environment: HashMap<&str, &str> = environment.iter().copied().collect();
        let root = yaml::parse(text, &"kairos.yaml".into(), &environment).unwrap();
        let root = check::settings(root, &environment, &mut Vec::new()).unwrap();
        traces(&mut root.into_section().unwrap(), are_built_in).map_err(|error| error.to_string())
    }

    #[test]
    fn traces_go_nowhere_unless_somebody_says_where() {
        assert_eq!(read("{}", &[("OTEL_SERVICE_NAME", "shop")], false), Ok(None));
        let found = read("traces: {endpoint: 'http://127.0.0.1:4318/'}", &[], true).unwrap().unwrap();
        assert_eq!((found.endpoint.as_str(), &*found.service_name), ("http://127.0.0.1:4318/", "kairos-sync"));
        let usual = [("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector.example/otlp"), ("OTEL_SERVICE_NAME", "shop")];
        let found = read("{}", &usual, true).unwrap().unwrap();
        assert_eq!((found.endpoint.as_str(), &*found.service_name), ("https://collector.example/otlp", "shop"));
    }

    #[test]
    fn an_address_that_is_none_is_refused() {
        for address in ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://collector/?a=b"] {
            let refused = read(&format!("traces:\n  endpoint: '{address}'"), &[], true).unwrap_err();
            let expected =
                "kairos.yaml:2:3: `traces.endpoint` must be the address of a collector, like http://127.0.0.1:4318";
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn a_binary_without_traces_refuses_to_be_asked_for_them() {
        let refused = read("traces:\n  endpoint: http://127.0.0.1:4318", &[], false).unwrap_err();
        let expected = "kairos.yaml:2:3: `traces.endpoint` asks for traces, which this binary was built without: build it \
                        with `cargo build --features otlp`, or remove the setting";
        assert_eq!(refused, expected);
        let variable = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
        let refused = read("{}", &variable, false).unwrap_err();
        assert!(refused.starts_with("environment: `OTEL_EXPORTER_OTLP_ENDPOINT` asks for traces"), "{refused}");
    }
}
