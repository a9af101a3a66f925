//! Signed manifests: made from the records of this node, and opened when they come from others.

use super::{Keyring, MAX_OWNER_BYTES, MAX_RECORD_BYTES, MAX_RECORDS, SIGNATURE_CONTEXT, Signer};
use crate::{ClusterId, Epoch, NodeId, ServiceName, grant::may_provide};
use bytes::Bytes;
use p2p_proto::v1::{self, NodeRecord, OwnerState, Record, RecordKind, ServiceRecord};
use prost::Message;
use std::{collections::BTreeMap, sync::Arc};

/// Why a state of an owner was refused. The store is unchanged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not decodable, or without something that must be there.
    #[error("malformed: {0}")]
    Malformed(&'static str),
    /// The manifest belongs to another cluster.
    #[error("the manifest of {owner:?} belongs to cluster {theirs:?}, this is {ours}")]
    Cluster {
        /// Whose manifest.
        owner: String,
        /// Its cluster.
        theirs: String,
        /// Our cluster.
        ours: ClusterId,
    },
    /// The certificate names somebody else than the manifest.
    #[error("the manifest of {owner} is signed by {signer}")]
    Owner {
        /// Whom the manifest names.
        owner: NodeId,
        /// Whom the certificate names.
        signer: String,
    },
    /// Certificate or signature do not hold.
    #[error("the manifest of {owner} is not to be trusted: {why}")]
    Untrusted {
        /// Whom the manifest names.
        owner: NodeId,
        /// What does not hold.
        why: String,
    },
    /// A record is missing, or is not the one that the manifest lists.
    #[error("the records of {owner} are not those of its manifest")]
    Records {
        /// Whose.
        owner: NodeId,
    },
    /// A cap was hit.
    #[error("the state of {owner:?} is too large: {what}")]
    TooLarge {
        /// Whose.
        owner: String,
        /// Which cap.
        what: &'static str,
    },
    /// The owner is banned from the cluster.
    #[error("{owner} is evicted")]
    Evicted {
        /// Whose state.
        owner: NodeId,
    },
    /// A worker's certificate signed it, for a node that is known as a coordinator.
    #[error("{owner} is a coordinator, and a worker's certificate signed a state in its name")]
    Role {
        /// Whose state.
        owner: NodeId,
    },
    /// The epoch lies more than 24 h ahead of our clock.
    #[error("the epoch of {owner} lies more than 24 h ahead of this node's clock")]
    EpochAhead {
        /// Whose.
        owner: NodeId,
    },
    /// The store is full.
    #[error("the record store is full ({what}); {owner} cannot be added")]
    Full {
        /// Whose.
        owner: NodeId,
        /// Which cap.
        what: &'static str,
    },
}

impl Refusal {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Cluster { .. } => "cluster",
            Self::Owner { .. } => "owner",
            Self::Untrusted { .. } => "untrusted",
            Self::Records { .. } => "records",
            Self::TooLarge { .. } => "too_large",
            Self::Evicted { .. } => "evicted",
            Self::Role { .. } => "role",
            Self::EpochAhead { .. } => "epoch_ahead",
            Self::Full { .. } => "full",
        }
    }
}

/// The heading of an owner's state, decoded but not yet verified.
#[derive(Debug, Clone)]
pub struct Heading {
    /// Whose.
    pub owner: NodeId,
    /// The owner's start.
    pub epoch: Epoch,
    /// Number of this state within the start.
    pub sequence: u64,
}

/// The same fields of a [`v1::Manifest`], without its entries and without a copy: most states that come are known
/// already.
#[derive(Clone, PartialEq, Message)]
struct RawHeading {
    #[prost(bytes = "bytes", tag = "1")]
    cluster_id: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    owner: Bytes,
    #[prost(uint64, tag = "3")]
    epoch: u64,
    #[prost(uint64, tag = "4")]
    sequence: u64,
}

/// A state that was verified, and its records as they were read.
#[derive(Debug, Clone)]
pub struct Opened {
    /// As signed.
    pub state: Arc<OwnerState>,
    /// Decoded.
    pub view: Arc<RecordView>,
}

/// The records of an owner, decoded and, for others than this node, verified.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordView {
    /// The owner's node record.
    pub node: NodeRecord,
    /// Services it may provide, by name. Those outside the grant are left out.
    pub services: BTreeMap<ServiceName, Arc<ServiceRecord>>,
    /// Names of services that were left out because the certificate does not grant them.
    pub not_granted: Vec<String>,
    /// Who signed.
    pub signer: Signer,
}

/// What this node publishes about itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnRecords {
    /// The node record. Its certificate chain decides which key must sign.
    pub node: NodeRecord,
    /// One record per service.
    pub services: Vec<ServiceRecord>,
}

impl OwnRecords {
    /// Signs these records as the state number `sequence` of `owner`'s start `epoch`.
    pub fn seal(
        &self,
        cluster: &ClusterId,
        owner: &NodeId,
        epoch: Epoch,
        sequence: u64,
        keyring: &dyn Keyring,
    ) -> OwnerState {
        let mut records = vec![Record {
            kind: RecordKind::Node.into(),
            name: owner.to_string(),
            body: self.node.encode_to_vec().into(),
        }];
        records.extend(self.services.iter().map(|service| Record {
            kind: RecordKind::Service.into(),
            name: service.name.clone(),
            body: service.encode_to_vec().into(),
        }));
        let entries = records
            .iter()
            .map(|record| v1::ManifestEntry {
                kind: record.kind,
                name: record.name.clone(),
                hash: Bytes::copy_from_slice(&keyring.digest(&record.body)),
            })
            .collect();
        let manifest = v1::Manifest {
            cluster_id: cluster.to_string(),
            owner: owner.to_string(),
            epoch: epoch.0,
            sequence,
            entries,
        }
        .encode_to_vec();
        let signature = keyring.sign(&signed_bytes(&manifest)).into();
        OwnerState { manifest: manifest.into(), signature, records }
    }
}

fn signed_bytes(manifest: &[u8]) -> Vec<u8> {
    [SIGNATURE_CONTEXT, manifest].concat()
}

/// Size of a state as the caps count it.
pub(super) fn weight(state: &OwnerState) -> usize {
    state.manifest.len()
        + state.signature.len()
        + state.records.iter().map(|record| record.name.len() + record.body.len()).sum::<usize>()
}

impl Heading {
    /// Reads who and how new a state is, without verifying anything: enough to drop what is already known.
    pub fn peek(state: &OwnerState, cluster: &ClusterId) -> Result<Self, Refusal> {
        if state.manifest.len() > MAX_OWNER_BYTES {
            return Err(Refusal::TooLarge { owner: String::new(), what: "manifest" });
        }
        let raw = RawHeading::decode(state.manifest.clone()).map_err(|_| Refusal::Malformed("manifest"))?;
        let text = |bytes| str::from_utf8(bytes).map_err(|_| Refusal::Malformed("manifest"));
        let (theirs, owner) = (text(&raw.cluster_id)?, text(&raw.owner)?);
        if theirs != cluster.as_str() {
            let (owner, theirs, ours) = (owner.to_owned(), theirs.to_owned(), cluster.clone());
            return Err(Refusal::Cluster { owner, theirs, ours });
        }
        let owner: NodeId = owner.parse().map_err(|_| Refusal::Malformed("owner"))?;
        Ok(Self { owner, epoch: Epoch(raw.epoch), sequence: raw.sequence })
    }

    /// Verifies the whole state that this is the heading of, and decodes its records.
    pub fn open(&self, state: &OwnerState, keyring: &dyn Keyring) -> Result<RecordView, Refusal> {
        self.check_caps(state)?;
        self.check_hashes(state, keyring)?;
        let (node, services) = self.decode(state)?;
        let signer = keyring
            .verify(&node.certificate_chain, &signed_bytes(&state.manifest), &state.signature)
            .map_err(|why| Refusal::Untrusted { owner: self.owner.clone(), why })?;
        if signer.id.node() != Some(&self.owner) {
            return Err(Refusal::Owner { owner: self.owner.clone(), signer: signer.id.to_string() });
        }
        let mut view = RecordView { node, services: BTreeMap::new(), not_granted: Vec::new(), signer };
        for (name, service) in services {
            if may_provide(view.signer.grant.as_ref(), &name) {
                view.services.insert(name, Arc::new(service));
            } else {
                view.not_granted.push(service.name);
            }
        }
        Ok(view)
    }

    fn check_caps(&self, state: &OwnerState) -> Result<(), Refusal> {
        let too_large = |what| Err(Refusal::TooLarge { owner: self.owner.to_string(), what });
        if state.records.len() > MAX_RECORDS {
            return too_large("number of records");
        }
        if state.records.iter().any(|record| record.body.len() > MAX_RECORD_BYTES) {
            return too_large("one record");
        }
        if weight(state) > MAX_OWNER_BYTES {
            return too_large("all records together");
        }
        Ok(())
    }

    /// The records must be exactly those of the manifest, in its order.
    fn check_hashes(&self, state: &OwnerState, keyring: &dyn Keyring) -> Result<(), Refusal> {
        let manifest = v1::Manifest::decode(&*state.manifest).map_err(|_| Refusal::Malformed("manifest"))?;
        let same = manifest.entries.len() == state.records.len()
            && manifest.entries.iter().zip(&state.records).all(|(entry, record)| {
                entry.kind == record.kind
                    && entry.name == record.name
                    && *entry.hash == keyring.digest(&record.body)
            });
        if same { Ok(()) } else { Err(Refusal::Records { owner: self.owner.clone() }) }
    }

    /// Records of kinds that a newer release added are carried along and not looked into.
    fn decode(
        &self,
        state: &OwnerState,
    ) -> Result<(NodeRecord, BTreeMap<ServiceName, ServiceRecord>), Refusal> {
        let mut node = None;
        let mut services = BTreeMap::new();
        for record in &state.records {
            match RecordKind::try_from(record.kind) {
                Ok(RecordKind::Node) => {
                    let body =
                        NodeRecord::decode(&*record.body).map_err(|_| Refusal::Malformed("node record"))?;
                    if record.name != self.owner.as_str() || node.replace(body).is_some() {
                        return Err(Refusal::Malformed("node record"));
                    }
                }
                Ok(RecordKind::Service) => {
                    let body = ServiceRecord::decode(&*record.body)
                        .map_err(|_| Refusal::Malformed("service record"))?;
                    let name: ServiceName =
                        record.name.parse().map_err(|_| Refusal::Malformed("service name"))?;
                    if body.name != record.name || services.insert(name, body).is_some() {
                        return Err(Refusal::Malformed("service record"));
                    }
                }
                Ok(RecordKind::Unspecified) | Err(_) => {}
            }
        }
        Ok((node.ok_or(Refusal::Malformed("no node record"))?, services))
    }
}
