//! The OpenAPI document, compared with what the service does.

use super::*;

const SCHEMAS: &str = "#/components/schemas/";

/// The document as the service serves it.
struct Document(Value);

impl Document {
    async fn of(service: &TestService) -> Self {
        let answer = service.client.get(service.url("/api/openapi.json")).send().await.unwrap();
        Self(answer.json().await.unwrap())
    }

    /// What a reference stands for.
    fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        value.get("$ref").map_or(value, |name| {
            let name = name.as_str().unwrap().strip_prefix('#').unwrap();
            self.0.pointer(name).unwrap_or_else(|| panic!("{name} is not there"))
        })
    }

    /// Paths, methods and operations.
    fn operations(&self) -> impl Iterator<Item = (&str, &str, &Value)> {
        let paths = self.0["paths"].as_object().unwrap().iter();
        paths.flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
        })
    }

    /// What of a value its schema does not allow. Knows the words of JSON Schema that the document uses, and no others.
    fn faults(&self, schema: &Value, value: &Value, at: &str) -> Vec<String> {
        let words = schema.as_object().unwrap_or_else(|| panic!("{at}: {schema}"));
        let mut faults = Vec::new();
        for (word, rule) in words {
            let number = || rule.as_f64().unwrap();
            let size = value.as_object().map_or(0.0, |object| f64::from(u32::try_from(object.len()).unwrap()));
            let holds = match word.as_str() {
                "description" | "examples" | "default" | "format" => true,
                "$ref" => {
                    faults.extend(self.faults(self.resolve(schema), value, at));
                    true
                }
                "type" => rule.as_array().unwrap_or(&vec![rule.clone()]).iter().any(|kind| is_of(value, kind)),
                "enum" => rule.as_array().unwrap().contains(value),
                "pattern" => {
                    assert_eq!(rule, "^[0-9]+$", "the only one that is known here");
                    value
                        .as_str()
                        .is_some_and(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
                }
                "minimum" => value.as_f64().is_none_or(|value| value >= number()),
                "maximum" => value.as_f64().is_none_or(|value| value <= number()),
                "minProperties" => size >= number(),
                "maxProperties" => size <= number(),
                "required" => {
                    let missing = |name: &&Value| value.is_object() && value.get(name.as_str().unwrap()).is_none();
                    !rule.as_array().unwrap().iter().any(|name| missing(&name))
                }
                "anyOf" => rule.as_array().unwrap().iter().any(|one| self.faults(one, value, at).is_empty()),
                "items" => {
                    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                        faults.extend(self.faults(rule, item, &format!("{at}[{index}]")));
                    }
                    true
                }
                "properties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        let rule = rule.get(name);
                        faults.extend(
                            rule.into_iter().flat_map(|rule| self.faults(rule, value, &format!("{at}.{name}"))),
                        );
                    }
                    true
                }
                "additionalProperties" => {
                    for (name, value) in value.as_object().into_iter().flatten() {
                        match schema["properties"].get(name) {
                            None if rule == &json!(false) => faults.push(format!("{at}.{name} is not known")),
                            None => faults.extend(self.faults(rule, value, &format!("{at}.{name}"))),
                            Some(_) => {}
                        }
                    }
                    true
                }
                word => panic!("{at}: {word} is not known here"),
            };
            if !holds {
                faults.push(format!("{at}: {value} is against {word} {rule}"));
            }
        }
        faults
    }

    /// A body that the document allows, and its type.
    fn bodies(&self, operation: &Value) -> Vec<(String, String)> {
        let Some(body) = operation.get("requestBody") else { return vec![(String::new(), String::new())] };
        let mut bodies = Vec::new();
        for (kind, media) in body["content"].as_object().unwrap() {
            let schema = self.resolve(&media["schema"]);
            let text = |example: &Value| example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            match schema.get("examples") {
                Some(examples) => {
                    bodies.extend(examples.as_array().unwrap().iter().map(|one| (kind.clone(), text(one))));
                }
                None => bodies.push((kind.clone(), "bucket_definitions: {}".to_owned())),
            }
        }
        bodies
    }
}

fn is_of(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        kind => panic!("{kind} is no type"),
    }
}

/// The path with the examples of its parameters in it.
fn with_examples(document: &Document, path: &str, operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let in_path = parameters.map(|one| document.resolve(one)).filter(|one| one["in"] == "path");
    in_path.fold(path.to_owned(), |path, one| {
        path.replace(&format!("{{{}}}", one["name"].as_str().unwrap()), one["example"].as_str().unwrap())
    })
}

/// The token that an operation asks for.
fn proof(operation: &Value) -> Option<String> {
    let [security] = &operation["security"].as_array().unwrap()[..] else { return None };
    let token = if security.get("operator").is_some() { ADMIN_TOKEN.to_owned() } else { token("ann") };
    Some(format!("Bearer {token}"))
}

fn request(service: &TestService, path: &str, method: &str, kind: &str, body: &str) -> RequestBuilder {
    let method = method.to_uppercase().parse().unwrap();
    let request = service.client.request(method, service.url(path)).timeout(DEADLINE);
    if body.is_empty() { request } else { request.header("content-type", kind).body(body.to_owned()) }
}

#[tokio::test]
async fn the_command_prints_what_is_served_and_examples_are_what_schemas_allow() {
    let document = Document::of(&start().await).await;
    assert_eq!(document.0, crate::api::openapi::document());
    let mut example_count = 0;
    for (name, schema) in document.0["components"]["schemas"].as_object().unwrap() {
        for example in schema.get("examples").and_then(Value::as_array).into_iter().flatten() {
            let reference = json!({"$ref": format!("{SCHEMAS}{name}")});
            assert_eq!(document.faults(&reference, example, name), [""; 0]);
            example_count += 1;
        }
    }
    assert!(example_count > 20, "{example_count} examples");
    let error = json!({"$ref": format!("{SCHEMAS}Error")});
    assert_eq!(document.faults(&error, &json!({"error": {"code": 7, "status": 1}}), "").len(), 2, "faults are found");
    let mut names: Vec<_> = document.operations().map(|(.., operation)| operation["operationId"].to_string()).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "each operation has a name of its own");
}

#[tokio::test]
async fn every_operation_is_there_and_answers_as_described() {
    let document = Document::of(&start().await).await;
    let mut done_count = 0;
    for (path, method, operation) in document.operations().filter(|(.., operation)| answers_json(operation)) {
        for (kind, body) in document.bodies(operation) {
            let service = start().await;
            service.commit(1, &[("ann", "a1")]);
            let path = with_examples(&document, path, operation);
            let mut request = request(&service, &path, method, &kind, &body);
            if let Some(proof) = proof(operation) {
                request = request.header("authorization", proof);
            }
            let mut response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let responses = &operation["responses"];
            let described = responses.get(status.to_string());
            // Without a source, what asks it fails, and nothing else.
            assert!(described.is_some() || status == 503, "{method} {path} {body}: {status}");
            done_count += usize::from(described.is_some());
            let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
            // Of a stream the first line.
            let answer: Value = if kind.contains("ndjson") {
                let lines = response.chunk().await.unwrap().expect("a line");
                serde_json::from_slice(lines.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
            } else {
                response.json().await.unwrap()
            };
            let schema = &document.resolve(described.unwrap_or(&responses["default"]))["content"][&kind]["schema"];
            assert_eq!(document.faults(schema, &answer, &path), [""; 0], "{method} {path}: {answer}");
        }
    }
    assert!(done_count >= 20, "{done_count} operations were done");
}

fn answers_json(operation: &Value) -> bool {
    let content = operation["responses"]["200"]["content"].as_object();
    content.is_some_and(|content| content.keys().any(|kind| kind.contains("json")))
}

#[tokio::test]
async fn who_may_is_as_described() {
    let service = start().await;
    let document = Document::of(&service).await;
    for (path, method, operation) in document.operations() {
        let path = with_examples(&document, path, operation);
        let request = request(&service, &path, method, "application/json", "{}");
        // Also asks for the WebSocket where there is one.
        let request = request.header("connection", "upgrade").header("upgrade", "websocket");
        let request =
            request.header("sec-websocket-version", "13").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let status = request.send().await.unwrap().status().as_u16();
        match proof(operation) {
            Some(_) => assert_eq!(status, 401, "{method} {path}"),
            None => assert!([101, 200, 400].contains(&status), "{method} {path}: {status}"),
        }
    }
}
