//! How enums and timestamps of `p2p.v1` read in the JSON that people and scripts see: short lower-case
//! words and RFC 3339, as the contracts of `/cluster/nodes` and `p2pctl -o json` fix them.

use crate::v1::{CircuitState, Idempotency, JoinTokenState, MemberState, ServiceState, StreamingKind};

impl MemberState {
    /// `alive`, `suspect`, `down` or `left`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Down => "down",
            Self::Left => "left",
        }
    }
}

impl StreamingKind {
    /// `unary`, `server_streaming`, `client_streaming` or `bidi_streaming`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Unary => "unary",
            Self::Server => "server_streaming",
            Self::Client => "client_streaming",
            Self::Bidi => "bidi_streaming",
        }
    }
}

impl Idempotency {
    /// `unknown`, `no_side_effects` or `idempotent`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NoSideEffects => "no_side_effects",
            Self::Idempotent => "idempotent",
        }
    }
}

impl ServiceState {
    /// `serving`, `draining`, `disabled` or `not_serving`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::NotServing => "not_serving",
        }
    }
}

impl CircuitState {
    /// `closed`, `open`, `half_open`, or `none` where there is no circuit.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "none",
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl JoinTokenState {
    /// `valid`, `used`, `expired` or `revoked`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unspecified => "unknown",
            Self::Valid => "valid",
            Self::Used => "used",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

macro_rules! word_module {
    ($module:ident, $enum:ty, $unknown:expr) => {
        pub(crate) mod $module {
            pub(crate) fn serialize<S: serde::Serializer>(value: &i32, to: S) -> Result<S::Ok, S::Error> {
                // A value from a newer release reads as unknown.
                to.serialize_str(<$enum>::try_from(*value).unwrap_or($unknown).word())
            }
        }
    };
}

word_module!(member_state, crate::v1::MemberState, crate::v1::MemberState::Unspecified);
word_module!(streaming_kind, crate::v1::StreamingKind, crate::v1::StreamingKind::Unspecified);
word_module!(idempotency, crate::v1::Idempotency, crate::v1::Idempotency::Unknown);
word_module!(service_state, crate::v1::ServiceState, crate::v1::ServiceState::Unspecified);
word_module!(circuit_state, crate::v1::CircuitState, crate::v1::CircuitState::Unspecified);
word_module!(join_token_state, crate::v1::JoinTokenState, crate::v1::JoinTokenState::Unspecified);

pub(crate) mod timestamp {
    use prost_types::Timestamp;

    pub(crate) fn serialize<S: serde::Serializer>(
        value: &Option<Timestamp>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(time) => to.serialize_some(&time.to_string()),
            None => to.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::v1::{MemberState, NodeInfo};

    #[test]
    fn a_node_reads_as_the_contract_says() {
        let node = NodeInfo {
            node_id: "worker-1".into(),
            role: "worker".into(),
            state: MemberState::Alive.into(),
            addresses: vec!["127.0.0.1:8002".into()],
            labels: [("rack".to_owned(), "b".to_owned())].into(),
            epoch: 7,
            version: "0.1.0".into(),
            last_change: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
            ..NodeInfo::default()
        };
        let json = serde_json::to_string(&node).expect("serializes");
        assert_eq!(
            json,
            r#"{"node_id":"worker-1","role":"worker","state":"alive","addresses":["127.0.0.1:8002"],"zone":"","labels":{"rack":"b"},"epoch":7,"version":"0.1.0","services":[],"rtt_ms":null,"last_change":"2026-01-01T00:00:00Z","cert_expires_at":null}"#
        );
    }
}
