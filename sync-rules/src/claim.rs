//! Values of a request: what a token and the client's parameters say.

use serde_json::{Map, Value};

use crate::{
    definition::{Claim, ClaimKind, RequestInput},
    json::Json,
    request::RequestContext,
    value::SqlValue,
};

impl RequestInput {
    /// The value in a request.
    pub(crate) fn read(&self, request: &RequestContext, subscription: Option<&Map<String, Value>>) -> SqlValue {
        match self {
            Self::UserId => request.token.get("sub").map_or(SqlValue::Null, |sub| Json::from_request(sub).to_sql()),
            Self::Token => object(&request.token),
            Self::Parameters => object(&request.parameters),
            Self::ParameterColumns => {
                let columns = request.parameters.iter().map(|(name, value)| (name.clone(), column(Some(value)).into()));
                SqlValue::Text(Json::object(columns.collect()).to_text())
            }
            Self::Subscription => subscription.map_or(SqlValue::Null, object),
            Self::SubscriptionOrEmpty => subscription.map_or_else(|| object(&Map::new()), object),
            Self::TokenParameter(name) if name == "user_id" => column(request.token.get("sub")),
            Self::TokenParameter(name) => column(member(request.token.get("parameters"), name)),
            Self::UserParameter(name) => column(request.parameters.get(name)),
        }
    }
}

fn object(members: &Map<String, Value>) -> SqlValue {
    let members = members.iter().map(|(name, value)| (name.clone(), Json::from_request(value))).collect();
    SqlValue::Text(Json::object(members).to_text())
}

fn member<'a>(value: Option<&'a Value>, name: &str) -> Option<&'a Value> {
    value?.as_object()?.get(name)
}

/// A member as a column: unlike in JSON text, an integral number is an integer.
fn column(value: Option<&Value>) -> SqlValue {
    match value {
        None => SqlValue::Null,
        Some(Value::Number(number)) => number
            .as_f64()
            .map_or(SqlValue::Null, |number| integral(number).map_or(SqlValue::Real(number), SqlValue::Integer)),
        Some(value) => Json::from_request(value).to_sql(),
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the range is checked before")]
fn integral(number: f64) -> Option<i128> {
    const LIMIT: f64 = 1e37;
    (number.fract() == 0.0 && number.abs() < LIMIT).then_some(number as i128)
}

impl Claim {
    /// The claim's value in a token, or why there is none.
    pub(crate) fn read(&self, token: &Map<String, Value>) -> Result<SqlValue, String> {
        let name = &self.name;
        let claim = match name.as_str() {
            "user_id" => token.get("sub"),
            _ => member(token.get("parameters"), name).or_else(|| token.get(name)),
        };
        let claim = claim.filter(|claim| !claim.is_null());
        let claim = claim.ok_or_else(|| format!("the token has no claim for the parameter `{name}`"))?;
        self.kind
            .convert(claim)
            .ok_or_else(|| format!("the token's claim for the parameter `{name}` is not of type {}", self.kind.name()))
    }
}

impl ClaimKind {
    const fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
        }
    }

    fn convert(self, claim: &Value) -> Option<SqlValue> {
        match (self, claim) {
            (Self::String, Value::String(text)) => Some(SqlValue::Text(text.clone())),
            (Self::String, Value::Number(_)) => {
                column(Some(claim)).text().map(|text| SqlValue::Text(text.into_owned()))
            }
            (Self::Integer, Value::Number(number)) => integral(number.as_f64()?).map(SqlValue::Integer),
            (Self::Integer, Value::String(text)) => text.parse().ok().map(SqlValue::Integer),
            (Self::Number, Value::Number(_)) => Some(column(Some(claim))),
            (Self::Number, Value::String(text)) => {
                text.parse().ok().filter(|number: &f64| number.is_finite()).map(SqlValue::Real)
            }
            (Self::Boolean, Value::Bool(value)) => Some((*value).into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(name: &str, kind: ClaimKind, token: &Value) -> Result<SqlValue, String> {
        Claim { name: name.to_owned(), kind }.read(token.as_object().unwrap())
    }

    #[test]
    fn user_id_is_the_subject_whatever_else_the_token_says() {
        let token = json!({"sub": "u1", "user_id": "u2", "parameters": {"user_id": "u3"}});
        assert_eq!(read("user_id", ClaimKind::String, &token), Ok(SqlValue::Text("u1".to_owned())));
        assert!(read("user_id", ClaimKind::String, &json!({"user_id": "u2"})).is_err());
    }

    #[test]
    fn parameters_of_the_token_come_before_its_claims() {
        let token = json!({"team": 1, "parameters": {"team": 2}, "org": "7"});
        assert_eq!(read("team", ClaimKind::Integer, &token), Ok(SqlValue::Integer(2)));
        assert_eq!(read("org", ClaimKind::Integer, &token), Ok(SqlValue::Integer(7)));
    }

    #[test]
    fn a_claim_of_another_type_is_refused_without_its_value() {
        let error = read("team", ClaimKind::Integer, &json!({"team": "secret"})).unwrap_err();
        assert!(error.contains("integer") && !error.contains("secret"), "{error}");
        assert!(read("team", ClaimKind::String, &json!({"team": null})).is_err());
        assert!(read("team", ClaimKind::Boolean, &json!({"team": 1})).is_err());
    }
}
