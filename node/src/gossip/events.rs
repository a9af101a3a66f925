//! Events of the engine as log lines.

use p2p_core::gossip::Event;
use p2p_proto::v1::MemberState;

pub(super) fn log(event: &Event) {
    match event {
        Event::Member { node, from, to } => {
            let from = from.map_or("unknown", MemberState::word);
            tracing::info!(member = %node, from, to = to.word(), "member changed state");
        }
        Event::Evidence(evidence) => {
            let from = evidence.from.map_or("unknown", MemberState::word);
            let (member, to, reason) = (&evidence.node, evidence.to.word(), &evidence.reason);
            match evidence.to {
                MemberState::Suspect | MemberState::Down => {
                    tracing::info!(%member, from, to, %reason, "evidence about a member");
                }
                MemberState::Alive | MemberState::Left | MemberState::Unspecified => {
                    tracing::debug!(%member, from, to, %reason, "evidence about a member");
                }
            }
        }
        Event::Refused { from, refusal, again: false } => {
            tracing::warn!(peer.id = %from, error = %refusal, "records refused");
        }
        Event::Refused { from, refusal, again: true } => {
            tracing::debug!(peer.id = %from, error = %refusal, "records refused again");
        }
        Event::RevocationsRefused { from, refusal } => {
            tracing::warn!(peer.id = %from, error = %refusal, "revocations refused");
        }
        Event::RevocationsReissued => tracing::warn!(
            "others hold revocations of this coordinator that it does not know: its state was set back, and it has \
             signed its own once more"
        ),
        Event::Evicted => tracing::error!(
            "this node is evicted: the others refuse it until an admin runs `p2pctl cluster readmit` for it"
        ),
        Event::Readmitted => tracing::warn!("this node is evicted no longer"),
        Event::NotGranted { owner, services } => {
            tracing::warn!(member = %owner, ?services, "services hidden: the owner's certificate does not grant them");
        }
        Event::Renewed => {
            tracing::warn!("others had declared this node down; it has renewed its membership");
        }
        Event::EpochRaised { to } => {
            tracing::warn!(epoch = %to, "the cluster knows a later start of this node; took a higher epoch");
        }
        Event::DuplicateNode => tracing::error!(
            "another live node holds this node's id and certificate; give one of them a certificate of its own"
        ),
        Event::Overflow => tracing::error!("gossip queue overflowed; effects were dropped"),
    }
}
