//! What is known of providers that many use: where their keys are, and what their tokens say. Pure.
//!
//! `docs/auth.md` says where the facts come from.

use std::time::Duration;

use reqwest::Method;

use super::{
    introspection::{AnswerRules, CACHE_DEFAULT, Introspection, TIMEOUT_DEFAULT, Template},
    source::{KeyOrigin, KeySource, LIFETIME_MAX, TokenRules},
};

/// Supabase lets sessions live for a week at most; some minutes are added for slow clocks, as the PowerSync service does.
const SUPABASE_LIFETIME_MAX: Duration = Duration::from_mins(7 * 24 * 60 + 20);
/// Firebase's keys as JSON Web Keys; there are also certificates elsewhere.
const FIREBASE_KEYS: &str = "https://www.googleapis.com/service_accounts/v1/jwk/securetoken@system.gserviceaccount.com";
/// In the tokens of Supabase's users, not in those of its API keys.
const SUPABASE_AUDIENCE: &str = "authenticated";

/// A realm of Keycloak below `url`, which has no slash at its end. `audience` is what its mappers put into tokens.
pub fn keycloak(url: &str, realm: &str, audience: Vec<String>) -> KeySource {
    let issuer = format!("{url}/realms/{realm}");
    fetched(format!("{issuer}/protocol/openid-connect/certs"), issuer, audience, LIFETIME_MAX)
}

/// A project of Firebase Authentication.
pub fn firebase(project_id: &str) -> KeySource {
    let issuer = format!("https://securetoken.google.com/{project_id}");
    fetched(FIREBASE_KEYS.to_owned(), issuer, vec![project_id.to_owned()], LIFETIME_MAX)
}

/// A tenant of Auth0, by its domain. `audience` is the identifier of the API that tokens are asked for.
pub fn auth0(domain: &str, audience: Vec<String>) -> KeySource {
    let issuer = format!("https://{domain}/");
    fetched(format!("{issuer}.well-known/jwks.json"), issuer, audience, LIFETIME_MAX)
}

/// A project of Supabase with signing keys, by its URL without a slash at its end.
pub fn supabase(url: &str) -> KeySource {
    let issuer = format!("{url}/auth/v1");
    let keys = format!("{issuer}/.well-known/jwks.json");
    fetched(keys, issuer, vec![SUPABASE_AUDIENCE.to_owned()], SUPABASE_LIFETIME_MAX)
}

/// What tokens of any Supabase project must say, whatever its address is.
pub fn supabase_rules() -> TokenRules {
    let audience = vec![SUPABASE_AUDIENCE.to_owned()];
    TokenRules { audience, issuer: Vec::new(), lifetime_max: SUPABASE_LIFETIME_MAX }
}

/// A collection of users of PocketBase, by its URL without a slash at its end. Its tokens are signed with a secret of each
/// user, which it gives to nobody.
pub fn pocketbase(url: &str, collection: &str) -> Introspection {
    let claims = ["email", "username", "verified"];
    // It would answer with a fresh token as well, which nobody here needs.
    let fields = "record.id,record.email,record.username,record.verified";
    Introspection {
        url: Template::new(format!("{url}/api/collections/{collection}/auth-refresh?fields={fields}")),
        method: Method::POST,
        header: Some(("Authorization".to_owned(), Template::new("{token}"))),
        body: None,
        answer: AnswerRules {
            subject: "/record/id".to_owned(),
            active: None,
            claims: claims.map(|name| (name.to_owned(), format!("/record/{name}"))).to_vec(),
        },
        keep_for: CACHE_DEFAULT,
        timeout: TIMEOUT_DEFAULT,
    }
}

fn fetched(uri: String, issuer: String, audience: Vec<String>, lifetime_max: Duration) -> KeySource {
    KeySource { keys: KeyOrigin::Fetched(uri), rules: TokenRules { audience, issuer: vec![issuer], lifetime_max } }
}
