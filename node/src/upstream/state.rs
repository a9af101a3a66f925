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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn spec() -> Spec {
        Spec {
            name: "shop.Stock".parse().expect("a name"),
            url: "https://localhost:8443".parse().expect("a URL"),
            descriptors: Some(Bytes::from_static(b"\x0a\x00")),
            health: HealthCheck::Tcp,
            health_interval: Duration::from_millis(250),
            max_concurrent: NonZeroU32::new(7),
            ca_pem: Some(Bytes::from_static(b"pem")),
        }
    }

    fn file(directory: &StateDirectory) -> ServiceFile {
        ServiceFile::load(directory, &"service_state.json".parse().expect("a name")).expect("readable")
    }

    #[test]
    fn a_registration_reads_back_as_it_was_and_what_newer_releases_add_stays() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(home.path()).expect("opened");
        let registration = StoredRegistration::new(&spec(), "admin".to_owned(), Some(Duration::from_secs(9)));
        let service = StoredService {
            state: ServiceState::Draining.word().to_owned(),
            registration: Some(registration),
            ..StoredService::default()
        };
        file(&directory)
            .change(|stored| drop(stored.services.insert("shop.Stock".to_owned(), service)))
            .expect("kept");
        let path = directory.path().join("service_state.json");
        let text = fs::read_to_string(&path).expect("there");
        let newer = text.replace("\"state\":", "\"weight\": 3,\n\"state\":");
        fs::write(&path, newer).expect("written");

        let mut again = file(&directory);
        let service = &again.stored.services["shop.Stock"];
        assert_eq!(state_of(&service.state), ServiceState::Draining);
        let registration = service.registration.as_ref().expect("registered");
        let read = registration.spec("shop.Stock".parse().expect("a name")).expect("whole");
        assert_eq!(format!("{read:?}"), format!("{:?}", spec()));
        assert_eq!((registration.lease_seconds, registration.registered_by.as_str()), (9, "admin"));
        again.change(|_| {}).expect("kept");
        assert!(fs::read_to_string(&path).expect("there").contains("\"weight\": 3"));
    }

    #[test]
    fn what_cannot_be_an_upstream_is_not_started_and_a_damaged_file_is_moved_aside() {
        let name = || "shop.Stock".parse::<ServiceName>().expect("a name");
        let whole = StoredRegistration::new(&spec(), String::new(), None);
        for broken in [
            StoredRegistration { upstream: "nowhere".to_owned(), ..whole.clone() },
            StoredRegistration { descriptors: "no base64".to_owned(), ..whole.clone() },
            StoredRegistration { ca_pem: "?".to_owned(), ..whole.clone() },
        ] {
            assert!(broken.spec(name()).is_none(), "{broken:?}");
        }
        assert!(whole.spec(name()).is_some());
        let home = tempfile::tempdir().expect("a directory");
        let directory = StateDirectory::open(home.path()).expect("opened");
        fs::write(directory.path().join("service_state.json"), "{\"version\": 1, \"services\": 3}")
            .expect("written");
        assert!(file(&directory).stored.services.is_empty());
        let names = fs::read_dir(directory.path()).expect("listed");
        let aside = names
            .filter_map(Result::ok)
            .any(|entry| entry.file_name().to_string_lossy().starts_with("service_state.json.corrupt-"));
        assert!(aside, "the damaged file is kept");
    }
}
