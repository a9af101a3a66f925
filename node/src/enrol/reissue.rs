//! A coordinator's own CA, issued anew by the holder of the root: when its time runs out, and when another root
//! issues.
//!
//! The coordinator proves its CA by a certificate that this has just issued. What it gets is the same key under
//! the same name again, so there is nothing to gain by asking in somebody else's name: the eviction of the
//! coordinator bans the new certificate as it did the old one.

use super::{Enrolment, coordinator::blocking};
use crate::{
    error::{Fault, Reason},
    identity::{
        Anchors, IdentityStore, UnixTime,
        authority::{self, OwnCa},
        ca_key_of, coordinator_of,
        rotation::reissue_own,
        trust::Usage,
    },
    peer::PeerPool,
};
use p2p_core::{NodeId, Role, SpiffeId, gossip::View};
use p2p_proto::v1::{MemberState, ReissueCaRequest, enrollment_service_client::EnrollmentServiceClient};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::watch;

/// Pause between two looks at the CA when nothing happens.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// Pause after a failed try.
const RETRY: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

impl Enrolment {
    /// Issues the CA of `coordinator` anew. `proof` is a chain whose leaf that CA has issued for it.
    ///
    /// # Errors
    ///
    /// [`Reason::Denied`] for a proof that is none, [`Reason::Precondition`] where no root's key is.
    pub async fn reissue_ca(
        self: &Arc<Self>,
        coordinator: SpiffeId,
        proof: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let this = self.clone();
        blocking(move || this.reissue_now(&coordinator, &proof, UnixTime::now())).await?
    }

    fn reissue_now(
        &self,
        coordinator: &SpiffeId,
        proof: &[Vec<u8>],
        now: UnixTime,
    ) -> Result<Vec<Vec<u8>>, Fault> {
        let denied =
            |why: String| Fault::new(Reason::Denied, format!("this proves no CA of {coordinator}: {why}"));
        let identity = self.identity();
        let peer =
            identity.trust().verify(proof, Usage::Server, now).map_err(|error| denied(error.to_string()))?;
        // Nothing beside the two: a path through another CA would prove nothing of this one.
        if proof.len() != 2 {
            return Err(denied("a proof is a certificate and the CA that issued it".to_owned()));
        }
        let own = proof.get(1).filter(|der| coordinator_of(der).as_ref() == Some(&coordinator.name));
        let key = own.and_then(|der| ca_key_of(der));
        // The path that was verified leads through it.
        let proven = peer.vouchers.contains(&coordinator.name);
        let key =
            key.filter(|_| proven && peer.spiffe == *coordinator && coordinator.role == Role::Coordinator);
        let key = key.ok_or_else(|| denied("it is another's".to_owned()))?;
        let ca = self.issuing_ca(now)?;
        let issued = ca.certify_coordinator(identity.cluster_id(), &coordinator.name, &key, now);
        let issued = issued.map_err(|error| Fault::new(Reason::Precondition, error.to_string()))?;
        tracing::info!(member = %coordinator.name, "issued the CA of a coordinator anew");
        Ok(std::iter::once(&issued).chain(ca.chain()).map(|der| der.to_vec()).collect())
    }
}

/// Keeps this coordinator's own CA in time and below the root that issues. At other nodes it does nothing.
#[derive(Clone, Debug)]
pub struct CaKeeper {
    /// This node's certificates.
    pub identity: Arc<IdentityStore>,
    /// The trust bundle in force.
    pub anchors: Arc<Anchors>,
    /// Connections to other nodes.
    pub pool: Arc<PeerPool>,
    /// The cluster as this node sees it.
    pub view: watch::Receiver<Arc<View>>,
}

impl CaKeeper {
    /// Runs for ever.
    pub async fn run(self) {
        let mut trust = self.anchors.subscribe();
        let this = Arc::new(self);
        loop {
            let pause = match this.clone().keep().await {
                Ok(()) => LOOK,
                Err(error) => {
                    tracing::warn!(error, "this coordinator's own CA could not be issued anew; trying again");
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = trust.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    async fn keep(self: Arc<Self>) -> Result<(), String> {
        let text = |fault: Fault| fault.to_string();
        let this = self.clone();
        let Some(own) = blocking(move || this.wanted(UnixTime::now())).await.map_err(text)?? else {
            return Ok(());
        };
        let mut last = "no other coordinator is alive".to_owned();
        for (node, address) in self.coordinators() {
            match self.ask(&node, address, own.proof().to_vec()).await {
                Ok(chain) => {
                    let this = self.clone();
                    let install = move || this.install(&own, &chain, UnixTime::now());
                    return blocking(install).await.map_err(text)?;
                }
                Err(why) => last = format!("{node}: {why}"),
            }
        }
        Err(last)
    }

    /// Our own CA with a proof of it, if it should be issued anew.
    fn wanted(&self, now: UnixTime) -> Result<Option<OwnCa>, String> {
        let identity = self.identity.current();
        let own =
            OwnCa::load(self.identity.files(), identity.spiffe(), now).map_err(|error| error.to_string())?;
        Ok(own.filter(|own| {
            own.is_old(now) || self.anchors.bundle().is_some_and(|bundle| own.is_below_another(&bundle, now))
        }))
    }

    fn coordinators(&self) -> Vec<(NodeId, SocketAddr)> {
        let own = self.identity.current().spiffe().name.clone();
        let view = self.view.borrow();
        let others = view.members.iter().filter(|(node, member)| {
            **node != own && member.role() == Role::Coordinator && member.state == MemberState::Alive
        });
        others.filter_map(|(node, member)| Some((node.clone(), member.address?))).collect()
    }

    async fn ask(
        &self,
        node: &NodeId,
        address: SocketAddr,
        proof: Vec<Vec<u8>>,
    ) -> Result<Vec<Vec<u8>>, String> {
        let connection = self.pool.get(node, address).await.map_err(|error| error.to_string())?;
        let origin = http::Uri::builder().scheme("https").authority(address.to_string()).path_and_query("/");
        let origin = origin.build().map_err(|error| error.to_string())?;
        let mut client = EnrollmentServiceClient::with_origin(connection, origin);
        let request = ReissueCaRequest { proof: proof.into_iter().map(Into::into).collect() };
        let answer = tokio::time::timeout(CALL_TIMEOUT, client.reissue_ca(request)).await;
        let answer = answer.map_err(|_elapsed| "no answer in time".to_owned())?;
        let answer = answer.map_err(|status| status.message().to_owned())?.into_inner();
        Ok(answer.ca_certificate_chain.into_iter().map(Vec::from).collect())
    }

    /// Checks and writes the CA's new certificate; then our own, if it has to follow.
    fn install(&self, own: &OwnCa, chain: &[Vec<u8>], now: UnixTime) -> Result<(), String> {
        let (files, identity) = (self.identity.files(), self.identity.current());
        authority::install(files, own, chain, &identity.trust(), now).map_err(|error| error.to_string())?;
        tracing::info!("this coordinator's own CA was issued anew");
        let Some(bundle) = self.anchors.bundle() else { return Ok(()) };
        if reissue_own(files, &identity, &bundle, now).map_err(|error| error.to_string())? {
            self.identity.reload(now).map_err(|error| error.to_string())?;
            self.anchors.touch();
        }
        Ok(())
    }
}
