//! The local socket: the same stack without TLS, for users of this host, whom the system names by their user ids.
//!
//! | user | counts as |
//! |---|---|
//! | root, or the user that the node runs as, at a coordinator | an admin of the cluster: it could read the CA's key |
//! | the same at a worker | the node itself, and may also register services there: it could read the node's key |
//! | anybody else | nobody, but for rules of `access` that name `uid:N` |

use crate::{
    auth::{Connection, LocalUser},
    identity::IdentityStore,
};
use p2p_core::{NodeId, Principal, Role, SpiffeId};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
        net::UnixStream as StdUnixStream,
    },
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{UnixListener, UnixStream},
};

/// Who may open the socket: its owner and group. What they may do is another question.
const MODE: u32 = 0o660;

/// The socket of a node; its file is removed when this is dropped.
#[derive(Debug)]
pub struct LocalSocket {
    pub(super) listener: UnixListener,
    path: PathBuf,
}

impl LocalSocket {
    /// Listens at `path`. A socket that nobody listens at any more is replaced.
    ///
    /// # Errors
    ///
    /// When something else is there, a process listens there, or the directory cannot be written.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Ok(there) = fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is no socket",
                ));
            }
            if StdUnixStream::connect(path).is_ok() {
                return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"));
            }
        }
        Ok(Self { listener: bind_with_mode(path)?, path: path.to_owned() })
    }
}

/// Binds where nobody else gets in, and moves the socket to `path`, in place of one that is dead, once it has its rights:
/// from bind on it takes connections of whom the umask lets.
fn bind_with_mode(path: &Path) -> io::Result<UnixListener> {
    let private = path.with_file_name(format!(".{:08x}", rand::random::<u32>()));
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let made = private.join("s");
    let bound = UnixListener::bind(&made).and_then(|listener| {
        fs::set_permissions(&made, fs::Permissions::from_mode(MODE))?;
        fs::rename(&made, path)?;
        Ok(listener)
    });
    fs::remove_dir_all(&private)?;
    bound
}

impl Drop for LocalSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, path = %self.path.display(), "the local socket's file is not removed");
        }
    }
}

/// What callers over the socket are counted by where an address is asked for.
pub(super) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Who is at the other end of a connection.
pub(super) fn connection_of(stream: &UnixStream, identity: &IdentityStore) -> io::Result<Connection> {
    let uid = stream.peer_cred()?.uid();
    let own = identity.current().spiffe().clone();
    let (principal, operator) = principal_of(uid, rustix::process::geteuid().as_raw(), &own);
    Ok(Connection::new(ADDRESS, principal).of_user(LocalUser { uid, operator }))
}

/// Whom the user `uid` counts as at the node `own`, which runs as `own_uid`; and whether it operates the node.
fn principal_of(uid: u32, own_uid: u32, own: &SpiffeId) -> (Principal, bool) {
    if uid != 0 && uid != own_uid {
        return (Principal::Anonymous, false);
    }
    let name: Option<NodeId> = format!("uid-{uid}").parse().ok();
    match (own.role, name) {
        (Role::Coordinator, Some(name)) => {
            (Principal::Certificate(SpiffeId::new(own.cluster.clone(), Role::Admin, name)), true)
        }
        (Role::Coordinator | Role::Worker | Role::Admin | Role::TokenSigner, _) => {
            (Principal::Certificate(own.clone()), true)
        }
    }
}

/// A stream of which the first bytes were read; it gives them again.
#[derive(Debug)]
pub(super) struct Reread<S> {
    first: Vec<u8>,
    stream: S,
}

impl<S: AsyncRead + Unpin> Reread<S> {
    /// Reads `length` bytes ahead, or what there is before the end.
    pub(super) async fn ahead(mut stream: S, length: usize) -> io::Result<Self> {
        let mut first = vec![0; length];
        let mut read = 0;
        while read < length {
            match stream.read(&mut first[read..]).await? {
                0 => break,
                more => read += more,
            }
        }
        first.truncate(read);
        Ok(Self { first, stream })
    }

    pub(super) fn first(&self) -> &[u8] {
        &self.first
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reread<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.first.is_empty() {
            return Pin::new(&mut this.stream).poll_read(context, buf);
        }
        let length = this.first.len().min(buf.remaining());
        buf.put_slice(&this.first[..length]);
        this.first.drain(..length);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reread<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, data)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    fn who(uid: u32, own: &str) -> (String, bool) {
        let (principal, operator) = principal_of(uid, 990, &own.parse().expect("an id"));
        (principal.to_string(), operator)
    }

    #[test]
    fn root_and_the_nodes_own_user_count_as_what_they_could_read_the_keys_of() {
        let (coordinator, worker) = ("spiffe://shop/coordinator/c1", "spiffe://shop/worker/w1");
        assert_eq!(who(0, coordinator), ("spiffe://shop/admin/uid-0".to_owned(), true));
        assert_eq!(who(990, coordinator), ("spiffe://shop/admin/uid-990".to_owned(), true));
        assert_eq!(who(0, worker), (worker.to_owned(), true));
        assert_eq!(who(1000, coordinator), ("anonymous".to_owned(), false));
        assert_eq!(who(1000, worker), ("anonymous".to_owned(), false));
    }

    #[tokio::test]
    async fn a_socket_of_a_dead_process_is_replaced_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));
        assert!(path.exists(), "the dead leave their socket behind");
        let socket = LocalSocket::bind(&path).expect("replaced");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, MODE);
        let error = LocalSocket::bind(&path).expect_err("taken").to_string();
        assert!(error.contains("another process listens"), "{error}");
        drop(socket);
        assert!(!path.exists());
        fs::write(&path, "notes").expect("written");
        assert!(LocalSocket::bind(&path).expect_err("refused").to_string().contains("no socket"));
        assert_eq!(fs::read_to_string(&path).expect("kept"), "notes");
    }

    #[tokio::test]
    async fn at_no_moment_has_the_socket_other_rights() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.sock");
        let (watched, done) = (path.clone(), Arc::new(AtomicBool::new(false)));
        let ended = done.clone();
        let watch = std::thread::spawn(move || {
            let mut seen = BTreeSet::new();
            while !ended.load(Ordering::Relaxed) {
                seen.extend(fs::symlink_metadata(&watched).map(|file| file.permissions().mode() & 0o777));
            }
            seen
        });
        for _ in 0..500 {
            drop(LocalSocket::bind(&path).expect("bound"));
        }
        let _last = LocalSocket::bind(&path).expect("bound");
        let left: Vec<_> = fs::read_dir(directory.path()).expect("a list").collect();
        assert_eq!(left.len(), 1, "{left:?}");
        done.store(true, Ordering::Relaxed);
        let seen = watch.join().expect("no panic");
        assert!(seen.iter().all(|mode| *mode == MODE), "{seen:?} is not {MODE}");
    }

    #[tokio::test]
    async fn what_is_read_ahead_is_read_again() {
        let mut stream = Reread::ahead(&b"PRI * HTTP/2.0"[..], 3).await.expect("read");
        assert_eq!(stream.first(), b"PRI");
        let mut all = String::new();
        stream.read_to_string(&mut all).await.expect("read");
        assert_eq!(all, "PRI * HTTP/2.0");
        assert_eq!(Reread::ahead(&b"x"[..], 3).await.expect("read").first(), b"x");
    }
}
