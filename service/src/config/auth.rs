//! The section `client_auth`: whose tokens are accepted.

use super::{
    AuthSettings, Setting, SourceSettings,
    error::{ConfigError, Place, Problem},
    introspection::{introspection, keep_for},
    parse::Context,
    section::{Section, missing},
    yaml::Node,
};
use crate::{
    auth::{
        AuthConfig, KeyOrigin, KeySource, LIFETIME_MAX, TokenRules,
        address::{AddressRange, AddressRules},
        introspection::Introspection,
        jwks::{InvalidKey, Jwk, Key},
        preset,
    },
    postgres::SourceConfig,
};

/// Takes the section. `source` says which Supabase project it is, if it is one.
pub(super) fn auth(
    context: &mut Context<'_>,
    root: &mut Section,
    source: &SourceConfig,
) -> Result<(AuthConfig, AuthSettings), ConfigError> {
    let whole = root.place_of("client_auth").unwrap_or_else(|| context.whole.clone());
    let mut section = root.section("client_auth")?;
    let general = Rules::take(&mut section, &whole)?;
    let mut sources = Sources::default();
    given(&mut section, &general, &mut sources)?;
    fetched(&mut section, &general, &mut sources)?;
    supabase(context, &mut section, &whole, source, &mut sources)?;
    presets(&mut section, &general, &mut sources)?;
    if let Some(node) = section.take("introspection") {
        sources.ask(node.setting(), introspection(node)?);
    }
    let addresses = addresses(&mut section)?;
    if sources.found.is_empty() && sources.asked.is_empty() {
        context.warnings.push(
            "client_auth has no keys: every client is refused; add jwks, jwks_uri, introspection or a preset (`kairos-sync auth keygen` \
             makes one)"
                .to_owned(),
        );
    }
    if sources.found.iter().any(|source| source.rules.audience.is_empty()) {
        context.warnings.push("client_auth.audience is empty: every client is refused; add one".to_owned());
    }
    for uri in sources.found.iter().filter_map(|source| insecure(&source.keys)) {
        context.warnings.push(format!(
            "{uri} has no TLS: whoever is on the way can give keys of their own; use https:// outside of a private network"
        ));
    }
    for url in sources.asked.iter().map(|introspection| introspection.url.text()).filter(|url| is_insecure(url)) {
        context.warnings.push(format!(
            "{url} has no TLS: whoever is on the way sees tokens; use https:// outside of a private network"
        ));
    }
    let settings = AuthSettings {
        whole: Setting { key: "client_auth".to_owned(), place: whole },
        sources: sources.settings,
        introspections: sources.asked_settings,
    };
    Ok((AuthConfig { sources: sources.found, introspections: sources.asked, addresses }, settings))
}

/// Keys from an address without TLS that is not on this host.
fn insecure(keys: &KeyOrigin) -> Option<&str> {
    let KeyOrigin::Fetched(uri) = keys else { return None };
    is_insecure(uri).then_some(uri)
}

/// Whether an address is without TLS and not on this host.
fn is_insecure(uri: &str) -> bool {
    let Some(rest) = uri.strip_prefix("http://") else { return false };
    let host = rest.split(['/', ':']).next().unwrap_or_default();
    host != "localhost" && !host.starts_with("127.") && !rest.starts_with("[::1]")
}

/// Sources and who is asked, each with its settings.
#[derive(Default)]
struct Sources {
    found: Vec<KeySource>,
    settings: Vec<SourceSettings>,
    asked: Vec<Introspection>,
    asked_settings: Vec<Setting>,
}

impl Sources {
    fn push(&mut self, source: KeySource, settings: SourceSettings) {
        self.found.push(source);
        self.settings.push(settings);
    }

    fn ask(&mut self, setting: Setting, introspection: Introspection) {
        self.asked.push(introspection);
        self.asked_settings.push(setting);
    }
}

/// What tokens must say where a source does not know better.
struct Rules {
    audience: Vec<String>,
    issuer: Vec<String>,
    audience_setting: Setting,
    issuer_setting: Setting,
}

impl Rules {
    fn take(section: &mut Section, whole: &Place) -> Result<Self, ConfigError> {
        let setting = |section: &Section, key| Setting {
            place: section.place_of(key).unwrap_or_else(|| whole.clone()),
            key: format!("client_auth.{key}"),
        };
        let (audience_setting, issuer_setting) = (setting(section, "audience"), setting(section, "issuer"));
        let audience = names(section, "audience")?.unwrap_or_default();
        let issuer = names(section, "issuer")?.unwrap_or_default();
        Ok(Self { audience, issuer, audience_setting, issuer_setting })
    }

    fn rules(&self) -> TokenRules {
        TokenRules { audience: self.audience.clone(), issuer: self.issuer.clone(), lifetime_max: LIFETIME_MAX }
    }

    fn settings(&self, keys: Setting) -> SourceSettings {
        SourceSettings { keys, audience: self.audience_setting.clone(), issuer: self.issuer_setting.clone() }
    }
}

/// One name, or a list of names, none of them empty.
fn names(section: &mut Section, key: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
    let Some(node) = section.take(key) else { return Ok(None) };
    let names = node.clone().into_texts()?;
    // An empty issuer or audience would be one that a token can have by accident.
    if names.iter().any(String::is_empty) { Err(node.invalid("must not hold empty names")) } else { Ok(Some(names)) }
}

/// `jwks`: keys that stand in the configuration.
fn given(section: &mut Section, general: &Rules, sources: &mut Sources) -> Result<(), ConfigError> {
    let Some(node) = section.take("jwks") else { return Ok(()) };
    let setting = node.setting();
    let mut section = node.into_section()?;
    let list = section.take("keys").map(Node::into_list).transpose()?.unwrap_or_default();
    let key = |(position, node): (usize, Node)| {
        let jwk: Jwk = serde_json::from_value(node.to_json())
            .map_err(|_| node.invalid("is not a JSON Web Key: it needs `kty`, and text in all its members"))?;
        jwk.to_key(position).map_err(|error| key_error(&node, error))
    };
    let keys: Vec<Key> = list.into_iter().enumerate().map(key).collect::<Result<_, _>>()?;
    if !keys.is_empty() {
        let source = KeySource { keys: KeyOrigin::Given(keys), rules: general.rules() };
        sources.push(source, general.settings(setting));
    }
    Ok(())
}

fn key_error(node: &Node, error: InvalidKey) -> ConfigError {
    ConfigError { place: node.place.clone(), problem: Problem::Key { key: node.path.clone(), error } }
}

/// `jwks_uri`: where keys are published.
fn fetched(section: &mut Section, general: &Rules, sources: &mut Sources) -> Result<(), ConfigError> {
    let Some(node) = section.take("jwks_uri") else { return Ok(()) };
    let setting = node.setting();
    for uri in node.into_texts()? {
        check_uri(&uri).map_err(|expected| setting.invalid(expected))?;
        let source = KeySource { keys: KeyOrigin::Fetched(uri), rules: general.rules() };
        sources.push(source, general.settings(setting.clone()));
    }
    Ok(())
}

pub(super) fn check_uri(uri: &str) -> Result<(), &'static str> {
    if !uri.starts_with("https://") && !uri.starts_with("http://") {
        return Err("must begin with https:// or http://");
    }
    let parsed: reqwest::Url = uri.parse().map_err(|_| "must be an address like https://auth.example.com/keys")?;
    // The address is in logs and messages.
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Err("must not hold a user name or password");
    }
    Ok(())
}

/// `supabase: true`: the project that the source database belongs to.
fn supabase(
    context: &mut Context<'_>,
    section: &mut Section,
    whole: &Place,
    source: &SourceConfig,
    sources: &mut Sources,
) -> Result<(), ConfigError> {
    let (flag, secret) = (section.take("supabase"), section.take("supabase_jwt_secret"));
    let flag_setting =
        flag.as_ref().map_or_else(|| Setting { key: "client_auth".to_owned(), place: whole.clone() }, Node::setting);
    if !flag.map(Node::into_flag).transpose()?.unwrap_or_default() {
        if let Some(secret) = secret {
            let (place, path) = (&secret.place, &secret.path);
            context.warnings.push(format!("{place}: `{path}` is ignored: it needs `supabase: true` beside it"));
        }
        return Ok(());
    }
    let settings = |keys: &Setting| SourceSettings { keys: keys.clone(), audience: keys.clone(), issuer: keys.clone() };
    if let Some(secret) = secret {
        let setting = secret.setting();
        let key = Key::from_secret_text(&secret.clone().into_text()?)
            .map_err(|problem| key_error(&secret, InvalidKey { name: "of Supabase".to_owned(), problem }))?;
        let source = KeySource { keys: KeyOrigin::Given(vec![key]), rules: preset::supabase_rules() };
        sources.push(source, settings(&setting));
    }
    let reference = source.host.strip_prefix("db.").and_then(|rest| rest.strip_suffix(".supabase.co"));
    if let Some(reference) = reference {
        // Projects may have a domain of their own, which is then in their tokens: the issuer says nothing here.
        let KeySource { keys, .. } = preset::supabase(&format!("https://{reference}.supabase.co"));
        sources.push(KeySource { keys, rules: preset::supabase_rules() }, settings(&flag_setting));
    } else if sources.found.is_empty() {
        let place = &flag_setting.place;
        context.warnings.push(format!(
            "{place}: `client_auth.supabase` finds no project in the source's host name, which is not db.<ref>.supabase.co: \
             write `preset: {{ supabase: {{ url: https://<ref>.supabase.co }} }}` instead"
        ));
    }
    Ok(())
}

/// `preset`: providers of which the rest is known.
fn presets(section: &mut Section, general: &Rules, sources: &mut Sources) -> Result<(), ConfigError> {
    let mut presets = section.section("preset")?;
    if let Some(node) = presets.take("keycloak") {
        let mut preset = Preset::new(node)?;
        let (url, realm) = (preset.url()?, preset.word("realm", "write the realm's name")?);
        let remedy = "write what an audience mapper of Keycloak adds to tokens, or `account`, which is in most";
        let (audience, setting) = preset.audience(general, "client_auth.preset.keycloak.audience", remedy)?;
        preset.finish(preset::keycloak(&url, &realm, audience), setting, sources);
    }
    if let Some(node) = presets.take("firebase") {
        let mut preset = Preset::new(node)?;
        let project_id = preset.word("project_id", "write the project's id, as in its settings")?;
        let setting = preset.setting.clone();
        preset.finish(preset::firebase(&project_id), setting, sources);
    }
    if let Some(node) = presets.take("auth0") {
        let mut preset = Preset::new(node)?;
        let domain = preset.word("domain", "write the tenant's domain, like example.eu.auth0.com")?;
        let remedy = "write the identifier of the API that the app asks tokens for";
        let (audience, setting) = preset.audience(general, "client_auth.preset.auth0.audience", remedy)?;
        preset.finish(preset::auth0(&domain, audience), setting, sources);
    }
    if let Some(node) = presets.take("supabase") {
        let mut preset = Preset::new(node)?;
        let url = preset.url()?;
        let setting = preset.setting.clone();
        preset.finish(preset::supabase(&url), setting, sources);
    }
    if let Some(node) = presets.take("pocketbase") {
        let mut preset = Preset::new(node)?;
        let (url, collection) = (preset.url()?, preset.word("collection", "write the users' collection, like users")?);
        let keep_for = keep_for(&mut preset.section)?;
        sources.ask(preset.setting, Introspection { keep_for, ..preset::pocketbase(&url, &collection) });
    }
    Ok(())
}

/// One provider's settings.
struct Preset {
    section: Section,
    setting: Setting,
}

impl Preset {
    fn new(node: Node) -> Result<Self, ConfigError> {
        Ok(Self { setting: node.setting(), section: node.into_section()? })
    }

    /// A setting that becomes part of an address.
    fn word(&mut self, key: &'static str, remedy: &'static str) -> Result<String, ConfigError> {
        let Some(node) = self.section.take(key) else {
            return Err(self.setting.invalid(format!("needs `{key}`: {remedy}")));
        };
        let word = node.clone().into_text()?;
        let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
        if word.is_empty() || !word.bytes().all(is_word) {
            return Err(node.invalid(format!("must be one word without slashes and blanks: {remedy}")));
        }
        Ok(word)
    }

    /// The provider's address, without a slash at its end.
    fn url(&mut self) -> Result<String, ConfigError> {
        let Some(node) = self.section.take("url") else {
            return Err(self.setting.invalid("needs `url`, like https://auth.example.com"));
        };
        let url = node.clone().into_text()?;
        check_uri(&url).map_err(|expected| node.invalid(expected))?;
        if url.contains(['?', '#']) {
            return Err(node.invalid("must have nothing behind the path"));
        }
        Ok(url.trim_end_matches('/').to_owned())
    }

    /// What stands in the preset, else what stands beside it.
    fn audience(
        &mut self,
        general: &Rules,
        key: &'static str,
        remedy: &'static str,
    ) -> Result<(Vec<String>, Setting), ConfigError> {
        let place = self.section.place_of("audience");
        if let Some(names) = names(&mut self.section, "audience")? {
            let place = place.unwrap_or_else(|| self.setting.place.clone());
            return Ok((names, Setting { key: key.to_owned(), place }));
        }
        if general.audience.is_empty() {
            return Err(missing(self.setting.place.clone(), key, remedy));
        }
        Ok((general.audience.clone(), general.audience_setting.clone()))
    }

    fn finish(self, source: KeySource, audience: Setting, sources: &mut Sources) {
        let settings = SourceSettings { keys: self.setting.clone(), audience, issuer: self.setting };
        sources.push(source, settings);
    }
}

/// `jwks_reject_ip_ranges` and `block_local_jwks`: where keys must not be fetched from.
fn addresses(section: &mut Section) -> Result<AddressRules, ConfigError> {
    let mut rules = AddressRules::default();
    if section.flag("block_local_jwks")?.unwrap_or_default() {
        (rules.local, rules.ipv6) = (true, true);
    }
    let Some(node) = section.take("jwks_reject_ip_ranges") else { return Ok(rules) };
    for text in node.clone().into_texts()? {
        match text.parse::<AddressRange>() {
            Ok(range) => rules.ranges.push(range),
            Err(()) if text == "local" => rules.local = true,
            Err(()) => return Err(node.invalid("must hold ranges like 10.0.0.0/8, single addresses, or `local`")),
        }
    }
    Ok(rules)
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
