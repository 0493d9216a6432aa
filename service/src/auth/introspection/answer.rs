//! From an answer to a user. Pure.

use serde_json::{Map, Value};

use crate::{auth::jwt::user_id, unambiguous_json};

/// Where an answer says what. All are JSON pointers, such as `/record/id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerRules {
    /// The user: text that is not empty, or a number.
    pub subject: String,
    /// Must be `true`, where it is given.
    pub active: Option<String>,
    /// Claims by their names. One that an answer does not have is left out.
    pub claims: Vec<(String, String)>,
}

/// Who a token speaks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Identity {
    pub(super) user_id: String,
    /// `sub`, and what the configuration names.
    pub(super) claims: Map<String, Value>,
}

/// Why an answer is no yes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoIdentity {
    /// It says no.
    Inactive,
    /// It does not say what it must.
    Useless(String),
}

impl AnswerRules {
    /// # Errors
    /// [`NoIdentity`] unless it is a clear yes.
    pub(super) fn read(&self, body: &[u8]) -> Result<Identity, NoIdentity> {
        let answer: Value = unambiguous_json::from_slice(body)
            .map_err(|_| NoIdentity::Useless("it is not JSON, or has a member twice".to_owned()))?;
        if self.active.as_ref().is_some_and(|active| answer.pointer(active) != Some(&Value::Bool(true))) {
            return Err(NoIdentity::Inactive);
        }
        let subject = answer.pointer(&self.subject);
        let user_id = subject
            .and_then(user_id)
            .ok_or_else(|| NoIdentity::Useless(format!("it has neither text nor a number at {}", self.subject)))?;
        let named =
            self.claims.iter().filter_map(|(name, pointer)| Some((name.clone(), answer.pointer(pointer)?.clone())));
        let mut claims: Map<String, Value> = named.collect();
        if claims.get("parameters").is_some_and(|parameters| !parameters.is_object()) {
            return Err(NoIdentity::Useless("the claim `parameters` is not an object".to_owned()));
        }
        claims.insert("sub".to_owned(), subject.cloned().unwrap_or_default());
        Ok(Identity { user_id, claims })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rules() -> AnswerRules {
        let claims = [("email", "/record/email"), ("team", "/record/teams/0"), ("absent", "/none")];
        AnswerRules {
            subject: "/record/id".to_owned(),
            active: Some("/active".to_owned()),
            claims: claims.map(|(name, pointer)| (name.to_owned(), pointer.to_owned())).to_vec(),
        }
    }

    fn read(answer: &Value) -> Result<Identity, NoIdentity> {
        rules().read(answer.to_string().as_bytes())
    }

    #[test]
    fn only_named_parts_of_an_answer_become_claims() {
        let answer = json!({"active": true, "sub": "eve", "role": "admin", "token": "fresh",
            "record": {"id": "ann", "email": "ann@example.com", "teams": ["a", "b"], "verified": true}});
        let Identity { user_id, claims } = read(&answer).unwrap();
        assert_eq!(user_id, "ann");
        assert_eq!(Value::Object(claims), json!({"sub": "ann", "email": "ann@example.com", "team": "a"}));
        let number = read(&json!({"active": true, "record": {"id": 7}})).unwrap();
        assert_eq!((number.user_id.as_str(), &number.claims["sub"]), ("7", &json!(7)));
    }

    #[test]
    fn anything_but_a_clear_yes_is_no() {
        let record = json!({"id": "ann"});
        for active in [json!(false), json!("true"), json!(1), Value::Null] {
            assert_eq!(read(&json!({"active": active, "record": record})), Err(NoIdentity::Inactive), "{active}");
        }
        assert_eq!(read(&json!({"record": record})), Err(NoIdentity::Inactive));
        for id in [json!(""), Value::Null, json!(true), json!({}), json!(["ann"])] {
            let answer = read(&json!({"active": true, "record": {"id": id}}));
            assert!(matches!(answer, Err(NoIdentity::Useless(_))), "{id}");
        }
        for text in ["", "yes", "<html>", r#"{"active":true,"record":{"id":"ann","id":"eve"}}"#] {
            assert!(matches!(rules().read(text.as_bytes()), Err(NoIdentity::Useless(_))), "{text}");
        }
    }

    #[test]
    fn parameters_must_be_an_object() {
        let rules = AnswerRules {
            subject: "/id".to_owned(),
            active: None,
            claims: vec![("parameters".to_owned(), "/p".to_owned())],
        };
        assert!(matches!(rules.read(br#"{"id":"ann","p":"x"}"#), Err(NoIdentity::Useless(_))));
        assert_eq!(rules.read(br#"{"id":"ann","p":{"a":1}}"#).unwrap().claims["parameters"], json!({"a": 1}));
    }
}
