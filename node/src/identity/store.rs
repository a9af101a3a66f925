//! The identity in force, replaced as a whole.

use super::{
    bans::Bans,
    error::IdentityError,
    local::{Expected, Identity, IdentityFiles},
};
use arc_swap::ArcSwap;
use rustls_pki_types::UnixTime;
use std::sync::Arc;

/// What a reload did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// The files say what is in force already; TLS sessions stay resumable.
    Unchanged,
    /// New handshakes and signatures use the new identity. Running connections are left alone.
    Replaced,
}

/// This node's [`Identity`], which changes while it runs.
///
/// Take [`current`](Self::current) anew for each handshake or signature; what was taken stays whole.
#[derive(Debug)]
pub struct IdentityStore {
    current: ArcSwap<Identity>,
    files: IdentityFiles,
    expected: Expected,
    bans: Bans,
}

impl IdentityStore {
    /// Loads the identity; fails as [`Identity::load`] does.
    pub fn load(files: IdentityFiles, expected: Expected, now: UnixTime) -> Result<Self, IdentityError> {
        let bans = Bans::default();
        let identity = Identity::load_with(&files, &expected, bans.clone(), now)?;
        // A running node cannot move to another cluster.
        let expected = Expected { cluster_id: Some(identity.cluster_id().clone()), ..expected };
        Ok(Self { current: ArcSwap::from_pointee(identity), files, expected, bans })
    }

    /// The identity in force.
    pub fn current(&self) -> Arc<Identity> {
        self.current.load_full()
    }

    /// Who is evicted; whoever learns of evictions fills it. It survives reloads.
    pub fn bans(&self) -> &Bans {
        &self.bans
    }

    /// Where it is read from.
    pub fn files(&self) -> &IdentityFiles {
        &self.files
    }

    /// Reads and checks the files anew. All or nothing: on error the identity in force stays.
    pub fn reload(&self, now: UnixTime) -> Result<Reloaded, IdentityError> {
        Ok(match self.fresh(now)? {
            None => Reloaded::Unchanged,
            Some(fresh) => {
                self.current.store(Arc::new(fresh));
                Reloaded::Replaced
            }
        })
    }

    /// What [`Self::reload`] would do.
    pub fn preview(&self, now: UnixTime) -> Result<Reloaded, IdentityError> {
        Ok(if self.fresh(now)?.is_some() { Reloaded::Replaced } else { Reloaded::Unchanged })
    }

    /// The identity of the files, if it is another than the one in force.
    fn fresh(&self, now: UnixTime) -> Result<Option<Identity>, IdentityError> {
        let fresh = Identity::load_with(&self.files, &self.expected, self.bans.clone(), now)?;
        Ok((!fresh.is_same_as(&self.current.load())).then_some(fresh))
    }
}
