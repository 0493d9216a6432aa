//! Keys made for tests, and tokens signed with them. They protect nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};

const RSA: &str = "-----BEGIN PRIVATE KEY-----
MIIEvgIBADANBgkqhkiG9w0BAQEFAASCBKgwggSkAgEAAoIBAQCPd39XMumQDAw9
KNq88U8Fma+1gtJY8IW6CIc9WQ9Ger0xp0ewgPMYBLFIjdM18vLBK2tva9lWdkVT
mRGxaGijFPLzovnyzPYSurmzjQDY+u5hnufanJ1qAdY0izURYd9TJlkATaj02H9F
HZAQA1LNFC0VUhiTBz2kc86N+zTeVUEpArQXwC/3IOzMSznYp+CqRfRjyoVwU9XX
KbkIEu55QMuYQgWndPid66NMc/0zqfe9A2c7hqEkRPeihiILp7YQmLErDYwK15L9
/9WBJKUlyW+852TO6yDceJCjtstOSVnUMQoMcB8krJBuoGgh8BhWvsq6eZvhFxpk
x5ZdmNj3AgMBAAECggEAP9HfJkmiJ6+MVDqTz4Ai8HFU/hAjhWf9fOulSY+QIYCh
H/DzjZtXSGRx/r4EalfYUEEB6k9WH8W+Ajmx6rLw9Tbw+puRx8YQYvWIfUxox50c
pPV82z1XMxx9DuOsKD7bCxCgf+eMFNsoBnVnrA/mag8jHPxnrSQH8luH05YfhxVI
Hw5cMG7WD5bLPe2uMknNksDo6C9M+e5PooLHPyPi/DkGJSIeDbNDIMEjsuN7f1yC
vqRUVOY8B9BiXPuA6McnziaaR5q68MvyiILYQR1MjKjloi9XuFfVe5AWVp9ufqFe
jnDk06GYjQC3NZi4Ql/YjQda0fqqhD5Pd/fEOKDkIQKBgQDH29lUJuoBglc5gwNK
lErDcq/oqbjsswIRz/AUQOPM+unbC0tW8uzTMnPCEUklutxC3T+Oy9/AOriC54Fn
EHG7IPT08Xzb4EgYFDhjuTyKHzQvRvkWkudTFJG+f72+jvkS+Gt41ox+hiXfPT4k
wnD68tMUGrv4xgJ1kPlTCQsYIQKBgQC3xGniDWABYQk7rmVoRn4/GBoC4ig04hVX
pQN+IhSfu/BhwnpOIdc1WBzEd+Z5Fcvmrd7AQV7Wx0o38cqzjwyLu93zQRYL4noz
WzgIkgZ7fI2i0S8xxfKw5FWRrTOdRmdAPBwVyrUpHKWXTI/efq6FMEDotD/JTey9
mu7Mu8vuFwKBgQCyC5lA7qnpTkSGZ8C24AT6uWEc1JZ5x79APw6R/Hz0T1OmYBlu
DFwOihO1/9A6XI18w72raNScW7OkarlNJ8kp++I9lCS3fMa9LMZPkOXt5n6G36No
CNcrnFd6bjKLYLNjwwt7Syc+UCPNDLIf7VjZNxnz/x0WMtBeDBkRcC0CAQKBgQCc
H1RNZkuQIF51w74HjwwmklVW6ch61TCIm3qSKGYZJtQcWdsKkhmCCm+2Qp8dc/Uc
7850y5TFJ97YFKW/UuK3vE3eIgeW5TwocXDzZwv20WSLVOihgqiiu/oun1VgYrXJ
jsfVg7fRS7MrDTKVNk8SfGJI0Qn3/ioJE52ZdlrU1QKBgESRPUrH6SIpsZPN5PvN
2u5B0LOnLxxhVTvczKYpRkvIVBpy6L7zA3GZeRWdOR3+8lmDi9bvsJ1sGDt69kW+
ORZMygf+ygETvjgobuLLhg1bpkyDZkIt4JxR3fZURN6B99n4Lgixv+fsKoMl1Lsa
57a5/7YBUeNQcGDy6cVWFiEr
-----END PRIVATE KEY-----";
const EC: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgcuEJIynOSerIpZhm
z5+ayGLzMANUpleZqWGNvnSXR5ChRANCAATUEEQwV3u3KH1K0wNM2853+2qc41z8
mgN7AesSf7q9gwjQ5BpfBcNmLnuhO/SkGN6+Rm1+w+bFGTmuOrW+pGFP
-----END PRIVATE KEY-----";
const ED: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIPp2CR7VgJXIIl0SB89o23j+/6OskLjtdB5H6rpuDLOs
-----END PRIVATE KEY-----";
pub(crate) const SECRET: &[u8] = b"a shared secret of more than thirty-two bytes";

pub(crate) fn rsa() -> EncodingKey {
    EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap()
}

pub(crate) fn ec() -> EncodingKey {
    EncodingKey::from_ec_pem(EC.as_bytes()).unwrap()
}

pub(crate) fn ed() -> EncodingKey {
    EncodingKey::from_ed_pem(ED.as_bytes()).unwrap()
}

pub(crate) fn secret() -> EncodingKey {
    EncodingKey::from_secret(SECRET)
}

fn public_jwk(key: &EncodingKey, algorithm: Algorithm, kid: &str) -> Value {
    let mut jwk = serde_json::to_value(Jwk::from_encoding_key(key, algorithm).unwrap()).unwrap();
    jwk["kid"] = json!(kid);
    jwk.as_object_mut().unwrap().remove("alg");
    jwk
}

pub(crate) fn rsa_jwk() -> Value {
    public_jwk(&rsa(), Algorithm::RS256, "rsa")
}

pub(crate) fn ec_jwk() -> Value {
    public_jwk(&ec(), Algorithm::ES256, "ec")
}

pub(crate) fn secret_jwk() -> Value {
    json!({"kty": "oct", "alg": "HS256", "kid": "secret", "k": BASE64_URL_SAFE_NO_PAD.encode(SECRET)})
}

/// Not derived from the private key: the signing library does not export this kind.
pub(crate) fn ed_jwk() -> Value {
    json!({"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": "YNWcSpItAEkQnCzxw0LPRcl-cOXOxebW6jIaHlHKwec"})
}

pub(crate) fn seconds_since_epoch(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Claims that are accepted with audience `test`.
pub(crate) fn claims(user_id: &str) -> Value {
    let now = SystemTime::now();
    json!({
        "sub": user_id,
        "aud": "test",
        "iat": seconds_since_epoch(now),
        "exp": seconds_since_epoch(now + Duration::from_mins(5)),
    })
}

pub(crate) fn sign(claims: &Value, algorithm: Algorithm, kid: Option<&str>, key: &EncodingKey) -> String {
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(algorithm) };
    jsonwebtoken::encode(&header, claims, key).unwrap()
}
