//! What of upstreams survives a restart: registrations, and which services are drained or disabled. Every call blocks on
//! the disk.

use super::{
    descriptors::MAX_BYTES,
    spec::{MAX_CA_BYTES, Spec},
};
use crate::{
    config::{FileName, HealthCheck, UpstreamUrl, service::HEALTH_INTERVAL, service::HEALTH_INTERVALS},
    persist::{Loaded, PersistError, StateDirectory, StateFile},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use p2p_core::ServiceName;
use p2p_proto::v1::ServiceState;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

/// What the file holds.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Stored {
    #[serde(default)]
    pub(super) services: BTreeMap<String, StoredService>,
}

/// One service.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct StoredService {
    /// `serving` (or anything that this release does not know), `draining` or `disabled`.
    #[serde(default)]
    pub(super) state: String,
    /// Unless the configuration names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) registration: Option<StoredRegistration>,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub(super) unknown: Map<String, Value>,
}

/// What an admin registered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct StoredRegistration {
    pub(super) upstream: String,
    #[serde(default)]
    pub(super) registered_by: String,
    #[serde(default)]
    pub(super) lease_seconds: u64,
    #[serde(default)]
    health: String,
    #[serde(default)]
    health_interval_ms: u64,
    #[serde(default)]
    max_concurrent: u32,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    descriptors: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    ca_pem: String,
    #[serde(flatten)]
    unknown: Map<String, Value>,
}

impl StoredRegistration {
    pub(super) fn new(spec: &Spec, registered_by: String, lease: Option<Duration>) -> Self {
        let base64 = |bytes: &Option<Bytes>| bytes.as_ref().map(|bytes| STANDARD.encode(bytes));
        Self {
            upstream: spec.url.to_string(),
            registered_by,
            lease_seconds: lease.map_or(0, |lease| lease.as_secs()),
            health: spec.health.word().to_owned(),
            health_interval_ms: u64::try_from(spec.health_interval.as_millis()).unwrap_or(u64::MAX),
            max_concurrent: spec.max_concurrent.map_or(0, NonZeroU32::get),
            descriptors: base64(&spec.descriptors).unwrap_or_default(),
            ca_pem: base64(&spec.ca_pem).unwrap_or_default(),
            unknown: Map::new(),
        }
    }

    /// The upstream again; `None` if the file was changed by hand into what cannot be one.
    pub(super) fn spec(&self, name: ServiceName) -> Option<Spec> {
        let url: UpstreamUrl = self.upstream.parse().ok()?;
        let bytes = |text: &str, most: usize| match text {
            "" => Some(None),
            text => STANDARD
                .decode(text)
                .ok()
                .filter(|bytes| bytes.len() <= most)
                .map(|bytes| Some(Bytes::from(bytes))),
        };
        let interval = Duration::from_millis(self.health_interval_ms);
        Some(Spec {
            name,
            url,
            descriptors: bytes(&self.descriptors, MAX_BYTES)?,
            health: self.health.parse().unwrap_or(HealthCheck::Auto),
            health_interval: if HEALTH_INTERVALS.contains(&interval) { interval } else { HEALTH_INTERVAL },
            max_concurrent: NonZeroU32::new(self.max_concurrent),
            ca_pem: bytes(&self.ca_pem, MAX_CA_BYTES)?,
        })
    }
}

/// What was asked for, as the file has it.
pub(super) fn state_of(word: &str) -> ServiceState {
    [ServiceState::Draining, ServiceState::Disabled]
        .into_iter()
        .find(|state| state.word() == word)
        .unwrap_or(ServiceState::Serving)
}

/// The file, as it was read.
#[derive(Debug)]
pub struct ServiceFile {
    file: StateFile<Stored>,
    pub(super) stored: Stored,
}

impl ServiceFile {
    /// Reads the file, whose name can be configured.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read, or is damaged and cannot be moved aside.
    pub fn load(directory: &StateDirectory, name: &FileName) -> Result<Self, PersistError> {
        let (file, loaded) = StateFile::load(directory, name)?;
        let stored = match loaded {
            Loaded::Ok(stored) => stored,
            Loaded::Missing => Stored::default(),
            Loaded::Corrupt { moved_to } => {
                tracing::error!(
                    moved_to = %moved_to.display(),
                    "registered services were damaged and are lost; register them again"
                );
                Stored::default()
            }
        };
        Ok(Self { file, stored })
    }

    /// Lets `change` change what is kept, durably. Nothing is changed if the disk refuses.
    pub(super) fn change(&mut self, change: impl FnOnce(&mut Stored)) -> Result<(), PersistError> {
        let mut changed = self.stored.clone();
        change(&mut changed);
        self.file.save(&changed)?;
        self.stored = changed;
        Ok(())
    }
}
