//! How long verifying a token takes: the first time against the bare library call, and from the cache.

use anyhow::Context as _;
use clap::Args;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use p2p_node::{
    identity::{Ca, Trust, UnixTime, Validity, pem},
    telemetry::Metrics,
    token::{Signers, Verifier},
};
use rcgen::PublicKeyData as _;
use serde::Deserialize;
use std::{
    hint::black_box,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

/// Arguments of `bench token`.
#[derive(Debug, Args)]
pub(crate) struct TokenArgs {
    /// Verifications in each round
    #[arg(long, default_value_t = 20_000)]
    count: u32,
    /// Rounds; the fastest counts
    #[arg(long, default_value_t = 5)]
    rounds: u32,
}

/// What the bare call reads.
#[derive(Deserialize)]
#[expect(dead_code, reason = "read, as any user of the library would")]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    exp: u64,
    iat: u64,
    jti: String,
    scope: String,
}

/// The time of one `work`, each round over all tokens after `prepare`.
fn fastest(rounds: u32, tokens: &[String], prepare: impl Fn(), work: impl Fn(&str)) -> Duration {
    let count = u32::try_from(tokens.len()).unwrap_or(u32::MAX).max(1);
    let round = |_| {
        prepare();
        let started = Instant::now();
        for token in tokens {
            work(token);
        }
        started.elapsed() / count
    };
    (0..rounds).map(round).min().unwrap_or_default()
}

pub(crate) fn run(args: &TokenArgs) -> anyhow::Result<()> {
    let now = UnixTime::now();
    let cluster = "bench".parse()?;
    let ca = Ca::generate(&cluster, Validity::days(now, 365)?)?;
    let trust = Arc::new(Trust::new(cluster, pem::certificates(ca.cert_pem().as_bytes())?)?);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let request = p2p_node::identity::LeafRequest {
        spiffe: "spiffe://bench/token-signer/c1".parse()?,
        sans: Vec::new(),
        grant: None,
        vouchers: Vec::new(),
        validity: Validity::days(now, 90)?,
    };
    let chain = vec![ca.certify(&request, &key.subject_public_key_info())?.to_vec()];
    let verifier = Verifier::new(Signers::default(), Box::new(|_| None), &Metrics::default());
    verifier.signers().restore(&[chain], &trust, now);
    let kid = verifier.signers().all().first().context("a signer")?.key.kid().to_owned();

    let claims = |number: u32| {
        serde_json::json!({
            "iss": "spiffe://bench/coordinator/c1", "sub": "ci", "aud": "bench", "jti": format!("{number:032x}"),
            "iat": now.as_secs(), "exp": now.as_secs() + 3600, "scope": "shop.* p2p.v1.SystemService/GetInfo",
        })
    };
    let mut header = jsonwebtoken::Header::new(Algorithm::EdDSA);
    header.typ = Some("at+jwt".to_owned());
    header.kid = Some(kid);
    let signing = jsonwebtoken::EncodingKey::from_ed_der(&key.serialize_der());
    let sign = |number| jsonwebtoken::encode(&header, &claims(number), &signing);
    let tokens: Vec<String> = (0..args.count).map(sign).collect::<Result<_, _>>()?;

    let bare_key = DecodingKey::from_ed_der(key.public_key_raw());
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["bench"]);
    validation.set_issuer(&["spiffe://bench/coordinator/c1"]);
    validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
    let bare = |token: &str| {
        let decoded = decode::<Claims>(black_box(token), &bare_key, &validation);
        assert!(black_box(decoded).is_ok());
    };
    let ours = |token: &str| assert!(black_box(verifier.verify(black_box(token), now)).is_ok());
    let bare = fastest(args.rounds, &tokens, || {}, bare);
    let first = fastest(args.rounds, &tokens, || verifier.forget(), ours);
    // All of them fit the cache, and are there now.
    let cached = fastest(args.rounds, &tokens, || {}, ours);
    let ratio = first.as_secs_f64() / bare.as_secs_f64();
    let result = serde_json::json!({
        "bare_ns": bare.as_nanos(), "first_ns": first.as_nanos(), "first_to_bare": ratio,
        "cached_ns": cached.as_nanos(), "bytes": tokens.first().map_or(0, String::len),
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}
