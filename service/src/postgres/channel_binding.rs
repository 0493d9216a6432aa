//! What ties a SCRAM exchange to the TLS connection it is made on: a hash of the server's certificate, the
//! `tls-server-end-point` of RFC 5929. Whoever stands between with another certificate, however trusted, is refused by
//! the server.
//!
//! Pure.

use sha2::{Digest, Sha256, Sha384, Sha512};

/// DER of the object identifiers of signature algorithms, by the hash they use.
const SHA_384: [&[u8]; 2] = [b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", b"\x2a\x86\x48\xce\x3d\x04\x03\x03"];
const SHA_512: [&[u8]; 2] = [b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", b"\x2a\x86\x48\xce\x3d\x04\x03\x04"];
/// SHA-256 itself, and weaker hashes, in the place of which it is used.
const SHA_256: [&[u8]; 5] = [
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b",
    b"\x2a\x86\x48\xce\x3d\x04\x03\x02",
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04",
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05",
    b"\x2a\x86\x48\xce\x3d\x04\x01",
];

/// What DER calls a sequence, and an object identifier.
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// The binding to a server with this certificate; `None` where its signature has no hash of its own, as with Ed25519,
/// for which none is defined.
pub(super) fn tls_server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = signature_algorithm(certificate)?;
    if SHA_256.contains(&algorithm) {
        Some(Sha256::digest(certificate).to_vec())
    } else if SHA_384.contains(&algorithm) {
        Some(Sha384::digest(certificate).to_vec())
    } else if SHA_512.contains(&algorithm) {
        Some(Sha512::digest(certificate).to_vec())
    } else {
        None
    }
}

/// A certificate is a sequence of what is signed, the algorithm and the signature; an algorithm begins with its name.
fn signature_algorithm(certificate: &[u8]) -> Option<&[u8]> {
    let (parts, _) = element(SEQUENCE, certificate)?;
    let (_signed, rest) = element(SEQUENCE, parts)?;
    let (algorithm, _signature) = element(SEQUENCE, rest)?;
    element(OBJECT_IDENTIFIER, algorithm).map(|(name, _)| name)
}

/// The contents of the element of this kind at the front, and what comes behind it.
fn element(kind: u8, bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<2>()?;
    if head[0] != kind {
        return None;
    }
    // A length above 127 is written in further bytes, of which the first tells the number.
    let (length, rest) = match usize::from(head[1]) {
        short @ ..0x80 => (short, rest),
        long => {
            let (digits, rest) = rest.split_at_checked(long & 0x7F).filter(|(digits, _)| digits.len() <= 4)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sequence(parts: &[&[u8]]) -> Vec<u8> {
        let contents = parts.concat();
        let length = u16::try_from(contents.len()).expect("short").to_be_bytes();
        [&[SEQUENCE, 0x82][..], &length, &contents].concat()
    }

    fn signed_with(algorithm: &[u8]) -> Vec<u8> {
        let name = [&[OBJECT_IDENTIFIER, u8::try_from(algorithm.len()).expect("short")][..], algorithm].concat();
        sequence(&[&sequence(&[&[0x02; 300]]), &sequence(&[&name]), b"\x03\x01\0"])
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        let length = |algorithm: &[u8]| tls_server_end_point(&signed_with(algorithm)).map(|hash| hash.len());
        assert!(SHA_256.iter().all(|algorithm| length(algorithm) == Some(32)));
        assert!(SHA_384.iter().all(|algorithm| length(algorithm) == Some(48)));
        assert!(SHA_512.iter().all(|algorithm| length(algorithm) == Some(64)));
        assert_eq!(length(b"\x2b\x65\x70"), None, "Ed25519");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes: Vec<u8>, place in 0..400_usize, byte: u8) {
            let _ = tls_server_end_point(&bytes);
            let mut certificate = signed_with(SHA_256[0]);
            if let Some(old) = certificate.get_mut(place) {
                *old = byte;
            }
            let _ = tls_server_end_point(&certificate);
            let _ = tls_server_end_point(&certificate[..place.min(certificate.len())]);
        }
    }
}
