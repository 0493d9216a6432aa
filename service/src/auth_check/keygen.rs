//! A fresh shared secret, and the configuration that accepts what is signed with it.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use rand::Rng;

/// As many as SHA-256 has: more add nothing.
const SECRET_BYTES: usize = 32;

/// The lines for the configuration.
pub(super) fn keygen() -> String {
    let mut secret = [0_u8; SECRET_BYTES];
    rand::rng().fill_bytes(&mut secret);
    let key = BASE64_URL_SAFE_NO_PAD.encode(secret);
    format!(
        "# For kairos.yaml. Keep the secret out of version control: `k: !env KAIROS_JWT_SECRET` takes it from the environment.\n\
         # Sign tokens with HS256, the header's kid `kairos-1`, and these bytes; `k` is their base64url.\n\
         # Claims: sub (the user's id), aud \"kairos\", iat, exp.\n\
         client_auth:\n  audience: [kairos]\n  jwks:\n    keys:\n      - {{ kty: oct, alg: HS256, kid: kairos-1, k: \"{key}\" }}\n"
    )
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, path::Path};

    use super::*;
    use crate::config::Config;

    #[test]
    fn what_is_printed_is_a_valid_section_and_new_each_time() {
        let text = format!(
            "{}replication: {{connections: [{{uri: postgresql://a@b/c}}]}}\nsync_config: {{content: ''}}\n",
            keygen()
        );
        let environment: HashMap<&str, &str> = HashMap::new();
        let config = Config::parse(&text, Path::new("kairos.yaml"), &environment).unwrap();
        assert_eq!((config.auth.sources.len(), config.warnings), (1, vec![]));
        assert_ne!(keygen(), keygen());
    }
}
