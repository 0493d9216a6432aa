//! Names in an expression: what they may mean where it stands.

use serde_json::{Map, Value};

use crate::{
    expression::{Expr, Function, json_path},
    request::RequestContext,
    syntax::{Ast, SqlFault},
    value::SqlValue,
};

/// A fact of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RequestInput {
    /// The user of the token: `sub`.
    UserId,
    /// The whole token as JSON text.
    Token,
    /// A member of the token's `parameters`.
    TokenParameter(String),
    /// A claim the rules name: a member of `parameters`, else of the token itself.
    Claim(String),
    /// All client parameters as JSON text: not authenticated.
    Parameters,
    /// One client parameter: not authenticated.
    Parameter(String),
}

impl RequestInput {
    pub(crate) fn is_authenticated(&self) -> bool {
        !matches!(self, Self::Parameters | Self::Parameter(_))
    }

    pub(crate) fn value(&self, request: &RequestContext) -> SqlValue {
        let column =
            |map: &Map<String, Value>, name: &str| map.get(name).map_or(SqlValue::Null, SqlValue::from_json_column);
        match self {
            Self::UserId => column(&request.token, "sub"),
            Self::Token => SqlValue::Text(Value::Object(request.token.clone()).to_string()),
            Self::TokenParameter(name) => match request.token.get("parameters") {
                Some(Value::Object(parameters)) => column(parameters, name),
                _ => SqlValue::Null,
            },
            Self::Claim(name) => match Self::TokenParameter(name.clone()).value(request) {
                SqlValue::Null => column(&request.token, name),
                value => value,
            },
            Self::Parameters => SqlValue::Text(Value::Object(request.parameters.clone()).to_string()),
            Self::Parameter(name) => column(&request.parameters, name),
        }
    }
}

/// A fact of the request, if the name or call is one. `token_parameters.x`, `request.user_id()`, `auth.parameter('x')`…
pub(crate) fn request_input(ast: &Ast) -> Option<RequestInput> {
    match ast {
        Ast::Column(Some(table), name) if table == "token_parameters" => Some(match name.as_str() {
            "user_id" => RequestInput::UserId,
            _ => RequestInput::TokenParameter(name.clone()),
        }),
        Ast::Column(Some(table), name) if table == "user_parameters" => Some(RequestInput::Parameter(name.clone())),
        Ast::Call(name, arguments) => match (name.as_str(), arguments.as_slice()) {
            ("request.user_id" | "auth.user_id", []) => Some(RequestInput::UserId),
            ("request.jwt" | "auth.parameters", []) => Some(RequestInput::Token),
            ("request.parameters", []) => Some(RequestInput::Parameters),
            ("request.parameter", [Ast::Literal(SqlValue::Text(name))]) => Some(RequestInput::Parameter(name.clone())),
            ("auth.parameter", [Ast::Literal(SqlValue::Text(name))]) => Some(RequestInput::Claim(name.clone())),
            _ => None,
        },
        _ => None,
    }
}

/// Compiles an expression. `input` decides what names and calls are; `None` leaves the call to the functions.
pub(crate) fn compile<I>(
    ast: &Ast,
    fixed_json: bool,
    input: &impl Fn(&Ast) -> Result<Option<I>, SqlFault>,
) -> Result<Expr<I>, SqlFault> {
    if let Some(input) = input(ast)? {
        return Ok(Expr::Input(input));
    }
    let inner = |ast: &Ast| compile(ast, fixed_json, input);
    let apply = |function, arguments: &[&Ast]| -> Result<Expr<I>, SqlFault> {
        Ok(Expr::Apply(function, arguments.iter().map(|argument| inner(argument)).collect::<Result<_, _>>()?))
    };
    match ast {
        Ast::Literal(value) => Ok(Expr::Const(value.clone())),
        Ast::Column(table, name) => {
            let name = table.as_ref().map_or(name.clone(), |table| format!("{table}.{name}"));
            Err(SqlFault::new("undefined_reference", format!("`{name}` is not known here")))
        }
        Ast::Placeholder(name) => {
            Err(SqlFault::new("unsupported_expression", format!("the placeholder `:{name}` is not known here")))
        }
        Ast::Call(name, arguments) => {
            let Some((function, count)) = Function::by_name(name) else {
                return Err(SqlFault::new("unknown_function", format!("there is no function `{name}`")));
            };
            if arguments.len() != count {
                return Err(SqlFault::new("argument_count", format!("`{name}` takes {count} arguments")));
            }
            apply(function, &arguments.iter().collect::<Vec<_>>())
        }
        Ast::Binary(op, left, right) => apply(Function::Binary(*op), &[left, right]),
        Ast::Not(value) => apply(Function::Not, &[value]),
        Ast::IsNull(value) => apply(Function::IsNull, &[value]),
        Ast::In(left, right) => apply(Function::In, &[left, right]),
        Ast::InSelect(..) => Err(SqlFault::new("subquery_position", "a subquery cannot stand here")),
        Ast::Json { left, key, text } => {
            apply(Function::Json { path: json_path(key, fixed_json), as_value: *text }, &[left])
        }
        Ast::Cast(value, to) => apply(Function::Cast(*to), &[value]),
    }
}
