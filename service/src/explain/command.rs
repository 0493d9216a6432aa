//! `kairos-sync explain`: asks a running service, and prints what it answers.

use std::io::{self, Write};

use kairos_sync_protocol::request::StreamSubscription;
use serde_json::{Map, Value};

use super::{
    answer::{Answer, Question, Subscribed},
    text::text_of,
};
use crate::{
    admin_client::{AdminArguments, AdminClient, AdminClientError},
    client_command::{object, subscription},
};

/// Where questions go.
pub(crate) const PATH: &str = "/api/admin/v1/explain";

const EXAMPLES: &str = "\
Examples:
  Which buckets has anna, and why?
    kairos-sync explain --user anna
  Why is this row not on her device?
    kairos-sync explain --user anna --table todos --id 5
  The same, for a token with other claims and a stream she would subscribe to
    kairos-sync explain --user anna --claims '{\"role\":\"staff\"}' --stream 'board={\"board\":\"b1\"}' --table cards --id k1
  A row whose key has two columns
    kairos-sync explain --user anna --table members --id '{\"org\":\"o1\",\"user_id\":\"anna\"}'

Without --claims, --parameters and --stream it is explained what the user's newest connected device has asked for.
Exit code: 0: there is an answer; 1: the service refuses; 2: it could not be found out.";

/// Say why a user has these buckets, and why a row is on the user's devices or not. Asks a running service; the answer
/// has values of rows in it.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct ExplainArguments {
    /// The user: `sub` of the token.
    #[arg(long)]
    user: String,
    /// A table, as the source or as devices have it.
    #[arg(long, requires = "id")]
    table: Option<String>,
    /// The key of a row in it, as Postgres prints it; a JSON object where it has several columns.
    #[arg(long, requires = "table")]
    id: Option<String>,
    /// Other claims of the token, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    claims: Option<Map<String, Value>>,
    /// Parameters of the client, as a JSON object.
    #[arg(long, value_name = "JSON", value_parser = object)]
    parameters: Option<Map<String, Value>>,
    /// Subscribe to this stream, with these parameters. May be repeated.
    #[arg(long = "stream", value_name = "NAME[=JSON]", value_parser = subscription)]
    streams: Vec<StreamSubscription>,
    /// Explain what the device with this client id has asked for.
    #[arg(long, value_name = "ID", conflicts_with_all = ["claims", "parameters", "streams"])]
    client: Option<String>,
    /// List buckets after this one.
    #[arg(long, value_name = "NAME")]
    buckets_after: Option<String>,
    /// List at most so many buckets, from 0 to 1000.
    #[arg(long, value_name = "COUNT")]
    bucket_limit: Option<usize>,
    #[command(flatten)]
    service: AdminArguments,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
}

impl ExplainArguments {
    fn question(&self) -> Question {
        let subscribed = |subscription: &StreamSubscription| Subscribed {
            stream: subscription.stream.clone(),
            parameters: subscription.parameters.clone(),
        };
        let subscriptions: Vec<_> = self.streams.iter().map(subscribed).collect();
        Question {
            user_id: self.user.clone(),
            claims: self.claims.clone(),
            parameters: self.parameters.clone(),
            subscriptions: (!subscriptions.is_empty()).then_some(subscriptions),
            client_id: self.client.clone(),
            table: self.table.clone(),
            id: self.id.as_deref().map(id),
            buckets_after: self.buckets_after.clone(),
            bucket_limit: self.bucket_limit,
        }
    }

    /// Asks and prints.
    ///
    /// # Errors
    /// [`AdminClientError`].
    pub async fn run(&self) -> Result<(), AdminClientError> {
        let client = AdminClient::new(&self.service)?;
        let printed = if self.json {
            let answer: Value = client.post(PATH, &self.question()).await?;
            format!("{answer}\n")
        } else {
            text_of(&client.post::<Answer>(PATH, &self.question()).await?)
        };
        // A reader that went away has seen what it wanted.
        let _ = io::stdout().lock().write_all(printed.as_bytes());
        Ok(())
    }
}

/// An object is the key's columns; everything else is a value as it stands.
fn id(text: &str) -> Value {
    let object = serde_json::from_str(text).ok().filter(Value::is_object);
    object.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_text_unless_it_is_an_object() {
        assert_eq!(id("5"), Value::String("5".to_owned()));
        assert_eq!(id("{\"a\":1}")["a"], 1);
        assert_eq!(id("{a}"), Value::String("{a}".to_owned()));
    }
}
