//! What members that were refused tell each other.

use super::{Engine, FrameError, patience::Accusing};
use crate::{
    Epoch, Moment, NodeId,
    membership::{Accusation, Identity},
};
use p2p_proto::v1::{self, gossip_message::Kind};

impl Engine {
    pub(super) fn send_accusations(&mut self) {
        while let Some((to, accusation)) = self.membership.next_accusation() {
            self.send(to.node.clone(), to.address, Kind::Accusation(message(&accusation)));
        }
    }

    pub(super) fn receive_accusation(
        &mut self,
        now: Moment,
        peer: &NodeId,
        message: &v1::Accusation,
    ) -> Result<(), FrameError> {
        let node: NodeId = message.node_id.parse()?;
        // Only a life that is known can be accused, at the address that is known.
        let known = self.membership.get(&node).map(|(life, _)| life.clone());
        let (epoch, generation) = (Epoch(message.epoch), message.generation);
        let named = |life: &Identity| {
            (life.epoch, life.generation, life.instance) == (epoch, generation, message.instance)
        };
        let (Some(life), Ok(incarnation)) = (known.filter(named), u16::try_from(message.incarnation)) else {
            return Ok(());
        };
        match self.patience.accuses(now, peer, &node, self.membership.active_count()) {
            Accusing::Heard => self.membership.accused(now, peer, &Accusation { life, incarnation }),
            Accusing::Again => {}
            Accusing::TooMany => {
                return Err(FrameError::Flood { peer: peer.clone(), what: "accusations" });
            }
        }
        Ok(())
    }
}

fn message(accusation: &Accusation) -> v1::Accusation {
    let life = &accusation.life;
    v1::Accusation {
        node_id: life.node.to_string(),
        epoch: life.epoch.0,
        generation: life.generation,
        instance: life.instance,
        incarnation: accusation.incarnation.into(),
    }
}
