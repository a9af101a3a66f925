//! Every lie that a token can tell.

mod issuer;

use super::{signers::Chain, *};
use crate::{
    identity::{Ca, LeafRequest, Trust, UnixTime, Validity, pem},
    telemetry::Metrics,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use p2p_core::ClusterId;
use rcgen::PublicKeyData as _;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

/// When these tests happen, Unix seconds.
const NOW_SECONDS: u64 = 1_800_000_000;
pub(crate) const NOW: UnixTime = at(NOW_SECONDS);

const fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

/// A CA, a token signer that it certified, and a node that knows both.
pub(crate) struct Coordinator {
    ca: Ca,
    pub(crate) trust: Arc<Trust>,
    key: rcgen::KeyPair,
    chain: Chain,
    kid: String,
    issuer: String,
    cluster: String,
    pub(crate) verifier: Verifier,
}

fn certify(ca: &Ca, spiffe: &str, key: &rcgen::KeyPair) -> Chain {
    let request = LeafRequest {
        spiffe: spiffe.parse().expect("an id"),
        sans: Vec::new(),
        grant: None,
        vouchers: Vec::new(),
        validity: Validity::days(NOW, 90).expect("days"),
    };
    vec![ca.certify(&request, &key.subject_public_key_info()).expect("issued").to_vec()]
}

impl Coordinator {
    pub(crate) fn new(cluster: &str, name: &str) -> Self {
        Self::with_key(cluster, name, &rcgen::PKCS_ED25519)
    }

    fn with_key(cluster: &str, name: &str, algorithm: &'static rcgen::SignatureAlgorithm) -> Self {
        let id: ClusterId = cluster.parse().expect("an id");
        let ca = Ca::generate(&id, Validity::days(NOW, 365).expect("days")).expect("a CA");
        let root = pem::certificates(ca.cert_pem().as_bytes()).expect("a certificate");
        let trust = Arc::new(Trust::new(id, root).expect("a root"));
        let key = rcgen::KeyPair::generate_for(algorithm).expect("a key");
        let chain = certify(&ca, &format!("spiffe://{cluster}/token-signer/{name}"), &key);
        let verifier = Verifier::new(Signers::default(), Box::new(|_| None), &Metrics::default());
        assert!(verifier.signers().restore(std::slice::from_ref(&chain), &trust, NOW));
        let kid = VerifyingKey::from_spki(&key.subject_public_key_info()).expect("fits").kid().to_owned();
        let issuer = format!("spiffe://{cluster}/coordinator/{name}");
        Self { ca, trust, key, chain, kid, issuer, cluster: cluster.to_owned(), verifier }
    }

    fn claims(&self, subject: &str, scope: &str) -> Value {
        json!({
            "iss": self.issuer, "sub": subject, "aud": self.cluster, "scope": scope, "jti": "0a1b",
            "iat": NOW_SECONDS, "exp": NOW_SECONDS + 3600,
        })
    }

    fn header(&self) -> Value {
        json!({"alg": "EdDSA", "typ": TYPE, "kid": self.kid})
    }

    /// A genuine token.
    pub(crate) fn token(&self, subject: &str, scope: &str) -> String {
        self.sign(&self.header().to_string(), &self.claims(subject, scope).to_string())
    }

    /// The given texts, signed with the signer's key.
    fn sign(&self, header: &str, claims: &str) -> String {
        sign_with(&EncodingKey::from_ed_der(&self.key.serialize_der()), Algorithm::EdDSA, header, claims)
    }

    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims("ci", "*");
        claims[name] = value;
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    fn with_header(&self, name: &str, value: Value) -> String {
        let mut header = self.header();
        header[name] = value;
        self.sign(&header.to_string(), &self.claims("ci", "*").to_string())
    }

    fn word(&self, token: &str) -> &'static str {
        self.verifier.verify(token, NOW).expect_err("refused").word()
    }
}

fn sign_with(key: &EncodingKey, algorithm: Algorithm, header: &str, claims: &str) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), key, algorithm).expect("signed");
    format!("{signed}.{signature}")
}

#[test]
fn a_genuine_token_says_who_until_when_and_what() {
    let c = Coordinator::new("shop", "c1");
    let token =
        c.verifier.verify(&c.token("ci", "shop.* p2p.v1.SystemService/GetInfo"), NOW).expect("genuine");
    assert_eq!((token.subject().as_str(), &*token.holder.jti), ("ci", "0a1b"));
    assert_eq!((token.issued_at, token.expires_at), (NOW_SECONDS, NOW_SECONDS + 3600));
    assert_eq!((token.signer.as_str(), &*token.kid), ("c1", c.kid.as_str()));
    assert!(token.scope.matches("shop.Orders/Get"));
}

#[test]
fn a_p256_signer_works_with_es256_only() {
    let c = Coordinator::with_key("shop", "c1", &rcgen::PKCS_ECDSA_P256_SHA256);
    let key = EncodingKey::from_ec_der(&c.key.serialize_der());
    let header = json!({"alg": "ES256", "typ": TYPE, "kid": c.kid}).to_string();
    let claims = c.claims("ci", "*").to_string();
    assert!(c.verifier.verify(&sign_with(&key, Algorithm::ES256, &header, &claims), NOW).is_ok());
    let confused = json!({"alg": "EdDSA", "typ": TYPE, "kid": c.kid}).to_string();
    assert_eq!(c.word(&sign_with(&key, Algorithm::ES256, &confused, &claims)), "algorithm");
}

#[test]
fn no_algorithm_but_the_keys_own_is_accepted() {
    let c = Coordinator::new("shop", "c1");
    let claims = c.claims("ci", "*").to_string();
    for alg in ["none", "None", "", "RS256", "ES384", "ES256"] {
        assert_eq!(c.word(&c.with_header("alg", json!(alg))), "algorithm", "{alg}");
    }
    // The public key as the secret of an HMAC.
    let public = c.key.subject_public_key_info();
    let header = json!({"alg": "HS256", "typ": TYPE, "kid": c.kid}).to_string();
    for secret in [public.as_slice(), &public[12..]] {
        let token = sign_with(&EncodingKey::from_secret(secret), Algorithm::HS256, &header, &claims);
        assert_eq!(c.word(&token), "algorithm");
    }
    // No signature at all.
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(c.header().to_string()), URL_SAFE_NO_PAD.encode(claims));
    assert_eq!(c.word(&unsigned), "signature");
}

#[test]
fn the_kid_is_only_ever_looked_up() {
    let c = Coordinator::new("shop", "c1");
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "' OR '1'='1",
        "x'; DROP TABLE keys; --",
        "http://attacker.example/key",
        "file:///proc/self/environ",
        "",
        &c.kid.to_uppercase(),
    ] {
        assert_eq!(c.word(&c.with_header("kid", json!(kid))), "unknown_key", "{kid}");
    }
    let header = json!({"alg": "EdDSA", "typ": TYPE}).to_string();
    assert_eq!(c.word(&c.sign(&header, &c.claims("ci", "*").to_string())), "unknown_key");
    for field in ["jku", "x5u", "jwk", "x5c", "crit", "b64"] {
        assert_eq!(c.word(&c.with_header(field, json!("x"))), "malformed", "{field}");
    }
}

#[test]
fn only_access_tokens_are_access_tokens() {
    let c = Coordinator::new("shop", "c1");
    for typ in ["JWT", "at+jwt2", "application/at+jwt", "AT+JWT"] {
        assert_eq!(c.word(&c.with_header("typ", json!(typ))), "type", "{typ}");
    }
    let header = json!({"alg": "EdDSA", "kid": c.kid}).to_string();
    assert_eq!(c.word(&c.sign(&header, &c.claims("ci", "*").to_string())), "type");
}

#[test]
fn every_claim_must_be_there_and_be_right() {
    let c = Coordinator::new("shop", "c1");
    for name in ["iss", "sub", "aud", "exp", "iat", "jti", "scope"] {
        let mut claims = c.claims("ci", "*");
        claims.as_object_mut().expect("an object").remove(name);
        assert_eq!(c.word(&c.sign(&c.header().to_string(), &claims.to_string())), "missing_claim", "{name}");
    }
    for (name, value, word) in [
        ("iss", json!("spiffe://shop/coordinator/c2"), "issuer"),
        ("iss", json!("spiffe://shop/worker/c1"), "issuer"),
        ("aud", json!("bank"), "audience"),
        ("aud", json!(["shop", "bank"]), "malformed"),
        ("sub", json!("spiffe://shop/admin/alice"), "subject"),
        ("sub", json!("a b"), "subject"),
        ("sub", json!(7), "malformed"),
        ("scope", json!("p2p.*"), "scope"),
        ("scope", json!(""), "scope"),
        ("jti", json!(""), "malformed"),
        ("jti", json!("x".repeat(65)), "malformed"),
        ("exp", json!(NOW_SECONDS - 61), "malformed"),
        ("exp", json!("tomorrow"), "malformed"),
        ("exp", json!(-1), "malformed"),
    ] {
        assert_eq!(c.word(&c.with_claim(name, value.clone())), word, "{name}: {value}");
    }
}

#[test]
fn time_is_judged_with_a_minute_and_clocks_two_minutes_apart_are_survived() {
    let c = Coordinator::new("shop", "c1");
    let mut claims = c.claims("ci", "*");
    claims["iat"] = json!(NOW_SECONDS - 7200);
    let ended = |exp: u64| {
        let mut claims = claims.clone();
        claims["exp"] = json!(exp);
        c.verifier
            .verify(&c.sign(&c.header().to_string(), &claims.to_string()), NOW)
            .map_err(|error| error.word())
    };
    assert!(ended(NOW_SECONDS - 60).is_ok());
    assert_eq!(ended(NOW_SECONDS - 61), Err("expired"));
    assert_eq!(c.word(&c.with_claim("nbf", json!(NOW_SECONDS + 61))), "not_yet_valid");
    assert!(c.verifier.verify(&c.with_claim("nbf", json!(NOW_SECONDS + 60)), NOW).is_ok());
    // The coordinator's clock is two minutes ahead of this node's, or behind.
    assert!(c.verifier.verify(&c.with_claim("iat", json!(NOW_SECONDS + 120)), NOW).is_ok());
    assert!(c.verifier.verify(&c.with_claim("iat", json!(NOW_SECONDS - 120)), NOW).is_ok());
    assert_eq!(c.word(&c.with_claim("iat", json!(NOW_SECONDS + 301))), "not_yet_valid");
}

#[test]
fn what_is_said_twice_is_refused_in_header_and_claims() {
    let c = Coordinator::new("shop", "c1");
    let (header, claims) = (c.header().to_string(), c.claims("ci", "shop.*").to_string());
    for (name, value) in [("sub", "\"root\""), ("scope", "\"*\""), ("exp", "9999999999"), ("aud", "\"shop\"")]
    {
        let twice = format!("{{\"{name}\":{value},{}", &claims[1..]);
        assert_eq!(c.word(&c.sign(&header, &twice)), "duplicate", "{name}");
    }
    for (name, value) in [("alg", "\"none\""), ("kid", "\"x\""), ("typ", "\"JWT\"")] {
        let twice = format!("{{\"{name}\":{value},{}", &header[1..]);
        assert_eq!(c.word(&c.sign(&twice, &claims)), "duplicate", "{name}");
    }
}

#[test]
fn what_is_no_token_is_refused_before_any_signature_is_computed() {
    let c = Coordinator::new("shop", "c1");
    let fine = c.token("ci", "*");
    for bad in ["", ".", "..", "a.b", "a.b.c.d", "a.b.c", "{}.{}.{}", "é.é.é"] {
        assert_eq!(c.word(bad), "malformed", "{bad:?}");
    }
    assert_eq!(c.word(&format!("{fine}.x")), "malformed");
    assert_eq!(c.word(&format!("{fine}=")), "signature");
    assert_eq!(c.word(&"x".repeat(MAX_TOKEN_BYTES + 1)), "too_large");
    let (signed, _) = fine.rsplit_once('.').expect("dots");
    assert_eq!(c.word(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64]))), "signature");
}

#[test]
fn tokens_of_another_cluster_or_key_are_refused() {
    let (ours, theirs) = (Coordinator::new("shop", "c1"), Coordinator::new("bank", "c1"));
    assert_eq!(ours.word(&theirs.token("ci", "*")), "unknown_key");
    // With our kid, but their key.
    let header = ours.header().to_string();
    assert_eq!(ours.word(&theirs.sign(&header, &ours.claims("ci", "*").to_string())), "signature");
}

#[test]
fn only_certified_token_signers_are_believed() {
    let c = Coordinator::new("shop", "c1");
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    // A worker's certificate, a coordinator's, an admin's; another cluster's signer; nothing.
    for spiffe in ["spiffe://shop/worker/w1", "spiffe://shop/coordinator/c1", "spiffe://shop/admin/a"] {
        let chain = certify(&c.ca, spiffe, &key);
        assert!(!c.verifier.signers().restore(&[chain], &c.trust, NOW), "{spiffe}");
    }
    let foreign = Coordinator::new("shop", "c1");
    assert!(!c.verifier.signers().restore(&[foreign.chain, vec![], vec![vec![1, 2, 3]]], &c.trust, NOW));
    assert_eq!(c.verifier.signers().all().len(), 1);
}

#[test]
fn a_key_ends_with_its_certificate_and_with_its_trust() {
    let c = Coordinator::new("shop", "c1");
    let token = c.with_claim("exp", json!(NOW_SECONDS + 100 * 86_400));
    assert!(c.verifier.verify(&token, NOW).is_ok());
    c.verifier.forget();
    let later = at(NOW_SECONDS + 91 * 86_400);
    assert_eq!(c.verifier.verify(&token, later).expect_err("refused").word(), "unknown_key");
    // Another CA takes over: what the old one certified is nothing any more.
    let other = Coordinator::new("shop", "c1");
    assert!(c.verifier.signers().restore(&[], &other.trust, NOW));
    c.verifier.forget();
    assert_eq!(c.word(&token), "unknown_key");
}

#[test]
fn what_was_verified_is_remembered_until_it_ends_or_is_forgotten() {
    let c = Coordinator::new("shop", "c1");
    let token = c.token("ci", "*");
    let first = c.verifier.verify(&token, NOW).expect("genuine");
    assert!(Arc::ptr_eq(&first, &c.verifier.verify(&token, NOW).expect("genuine")));
    c.verifier.forget();
    let anew = c.verifier.verify(&token, NOW).expect("genuine");
    assert!(!Arc::ptr_eq(&first, &anew));
    let late = at(NOW_SECONDS + 3600 + LEEWAY + 1);
    assert_eq!(c.verifier.verify(&token, late), Err(TokenRefusal::Expired));
}
