//! Contexts: named sets of what to connect with, kept in `$XDG_CONFIG_HOME/p2pctl/config.yaml`, and what holds where
//! a command line names nothing.
//!
//! ```text
//! flags ─► environment ─► the current context ─► the socket of this host's node ─► 127.0.0.1:8001
//! ```

use crate::{cli::GlobalOptions, error::Failure, files, output::Output};
use p2p_core::suggest::nearest;
use serde::{Deserialize, Serialize};
use serde_yaml::Value;
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, Read as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

/// Where a node's `listen_socket` is looked for.
const SOCKET: &str = "/run/p2p/node.sock";
/// Longest file, in bytes.
const MAX_LEN: u64 = 1024 * 1024;
const HEADER: &str = "# What p2pctl connects with; `p2pctl context use NAME` chooses one of them.\n";

/// What to connect with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Context {
    pub(crate) name: String,
    /// As `--endpoint` takes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<PathBuf>,
    /// What another release has written.
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
}

/// All contexts of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Contexts {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    #[serde(default)]
    pub(crate) contexts: Vec<Context>,
    #[serde(flatten)]
    other: BTreeMap<String, Value>,
    #[serde(skip)]
    path: PathBuf,
}

/// `$XDG_CONFIG_HOME/p2pctl/config.yaml`, below `~/.config` if that is not set; nowhere for who has no home.
fn path() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    home.map(|home| home.join("p2pctl/config.yaml"))
}

impl Contexts {
    /// The user's contexts; none if nothing was ever written.
    pub(crate) fn load() -> Result<Self, Failure> {
        path().map_or_else(|| Ok(Self::default()), Self::read)
    }

    fn read(path: PathBuf) -> Result<Self, Failure> {
        let mut text = String::new();
        match File::open(&path).and_then(|file| file.take(MAX_LEN).read_to_string(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Self { path, ..Self::default() });
            }
            Err(error) => return Err(Failure::usage(format!("cannot read {}: {error}", path.display()))),
            Ok(_) => {}
        }
        // Comments only are nothing.
        let read = serde_yaml::from_str::<Option<Self>>(&text).map_err(|error| {
            Failure::usage(format!("{} holds no contexts: {error}", path.display()))
                .hint("Mend it, or remove it to start afresh")
        })?;
        Ok(Self { path, ..read.unwrap_or_default() })
    }

    /// Keeps them.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let failed = |why: String| Failure::other(format!("cannot write {}: {why}", self.path.display()));
        let yaml = serde_yaml::to_string(self).map_err(|error| failed(error.to_string()))?;
        let write = || {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
            // A link stays one.
            let target = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
            files::replace(&target, &format!("{HEADER}{yaml}"), fs::metadata(&target).ok().as_ref())
        };
        write().map_err(|error: io::Error| failed(error.to_string()))
    }

    /// The context of this name.
    pub(crate) fn find(&self, name: &str) -> Result<&Context, Failure> {
        let found = self.contexts.iter().find(|context| context.name == name);
        found.ok_or_else(|| {
            let failure = Failure::not_found(format!("there is no context {name:?}"));
            match nearest(name, self.contexts.iter().map(|context| context.name.as_str())) {
                Some(nearest) => failure.hint(&format!("Did you mean {nearest}?")),
                None => failure.hint("`p2pctl context list` shows what there is"),
            }
        })
    }

    /// The current one.
    pub(crate) fn current(&self) -> Result<Option<&Context>, Failure> {
        self.current.as_deref().map(|name| self.find(name)).transpose()
    }

    /// Adds `new`, or renews the one of its name; what `new` leaves open stays. It becomes current only if none is.
    fn add(&mut self, new: Context) -> bool {
        let current = *self.current.get_or_insert_with(|| new.name.clone()) == new.name;
        match self.contexts.iter_mut().find(|known| known.name == new.name) {
            Some(known) => {
                known.endpoint = new.endpoint.or_else(|| known.endpoint.take());
                (known.ca, known.cert, known.key) = (new.ca, new.cert, new.key);
            }
            None => self.contexts.push(new),
        }
        current
    }
}

impl Context {
    /// The admin of a cluster whose certificates lie in `directory`; of nothing if they do not.
    pub(crate) fn of_admin(name: &str, endpoint: Option<String>, directory: &Path) -> Option<Self> {
        let file = |name: &str| fs::canonicalize(directory.join(name)).ok();
        Some(Self {
            name: name.to_owned(),
            endpoint,
            ca: Some(file("ca_cert.pem")?),
            cert: Some(file("admin_cert.pem")?),
            key: Some(file("admin_key.pem")?),
            other: BTreeMap::new(),
        })
    }

    /// Keeps it for later, and says what was written. That it could not be kept is no failure of the verb. Returns whether
    /// it is the current one, if it was kept.
    pub(crate) fn remember(self, output: &Output) -> Option<bool> {
        let path = path()?;
        let name = self.name.clone();
        // The directory may not be there yet; then nobody else has written a context either.
        let _lock = files::lock(&path);
        let kept = Contexts::read(path).and_then(|mut contexts| {
            let before = contexts.clone();
            let current = contexts.add(self);
            if contexts != before {
                contexts.save()?;
            }
            Ok((current, contexts != before, contexts))
        });
        match kept {
            Ok((current, false, _)) => Some(current),
            Ok((true, true, contexts)) => {
                output.note(&format!(
                    "Context {name} is current: p2pctl connects with it where no flag says otherwise ({}).",
                    contexts.path.display()
                ));
                Some(true)
            }
            Ok((false, true, contexts)) => {
                output.note(&format!(
                    "Context {name} is written to {}; {} stays current, `p2pctl context use {name}` changes that.",
                    contexts.path.display(),
                    contexts.current.unwrap_or_default()
                ));
                Some(false)
            }
            Err(failure) => {
                output.note(&format!("No context was written: {}", failure.message));
                None
            }
        }
    }
}

/// Fills in what flags and environment leave open. `shows_token`: whether a token, if there is one, is shown to the node.
pub(crate) fn complete(global: &mut GlobalOptions, shows_token: bool) -> Result<(), Failure> {
    let contexts = Contexts::load()?;
    let context = match &global.context {
        Some(name) => Some(contexts.find(name)?),
        None => contexts.current()?,
    };
    let Some(context) = context else {
        socket(global, shows_token);
        return Ok(());
    };
    // Without TLS nobody asks for certificates.
    if global.endpoint_given && global.endpoint.is_plain() {
        return Ok(());
    }
    if !global.endpoint_given
        && let Some(endpoint) = &context.endpoint
    {
        global.endpoint = endpoint.parse().map_err(|why| {
            Failure::usage(format!("context {}: {why}", context.name))
                .hint(&format!("Mend it in {}", contexts.path.display()))
        })?;
        global.endpoint_of = Some(context.name.clone());
    }
    // Who names another CA or other evidence does not want the context's.
    let evidence = global.cert.is_some() || global.key.is_some() || (shows_token && global.token.is_some());
    if !evidence && global.ca.is_none() {
        (global.cert, global.key) = (context.cert.clone(), context.key.clone());
    }
    if global.ca.is_none() {
        global.ca.clone_from(&context.ca);
    }
    Ok(())
}

/// Who names neither a node, nor a CA, nor evidence, speaks to the node of this host over its socket, if it may.
fn socket(global: &mut GlobalOptions, shows_token: bool) {
    let evidence = global.ca.is_some() || global.cert.is_some() || (shows_token && global.token.is_some());
    let named = global.endpoint_given || evidence;
    if !named && std::os::unix::net::UnixStream::connect(SOCKET).is_ok() {
        global.endpoint = format!("unix:{SOCKET}").parse().expect("a socket's path is an endpoint");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(name: &str) -> Context {
        Context { name: name.to_owned(), ca: Some(format!("/{name}.pem").into()), ..Context::default() }
    }

    #[test]
    fn the_first_one_becomes_current_and_no_other_takes_its_place() {
        let mut contexts = Contexts::default();
        assert!(contexts.add(context("shop")));
        assert!(!contexts.add(context("dev")));
        assert_eq!(contexts.current().expect("known").expect("some").name, "shop");
    }

    #[test]
    fn one_that_is_renewed_keeps_what_is_not_said_anew() {
        let mut contexts = Contexts::default();
        contexts.add(Context { endpoint: Some("10.0.0.5:8001".to_owned()), ..context("shop") });
        contexts.add(Context { ca: Some("/new.pem".into()), ..context("shop") });
        let shop = contexts.find("shop").expect("there");
        assert_eq!(shop.endpoint.as_deref(), Some("10.0.0.5:8001"));
        assert_eq!((contexts.contexts.len(), shop.ca.as_deref()), (1, Some(Path::new("/new.pem"))));
    }

    #[test]
    fn what_is_written_is_read_and_what_is_unknown_is_kept() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("deep/er/config.yaml");
        let mut contexts = Contexts::read(path.clone()).expect("nothing yet");
        contexts.add(context("shop"));
        contexts.save().expect("written");
        let text = fs::read_to_string(&path).expect("there");
        fs::write(
            &path,
            text.replace("contexts:", "later: 1\ncontexts:").replace("- name", "- new: x\n  name"),
        )
        .expect("ours");
        let mut again = Contexts::read(path.clone()).expect("readable");
        assert_eq!(again.find("shop").expect("there").ca, Some("/shop.pem".into()));
        again.add(context("dev"));
        again.save().expect("written");
        let text = fs::read_to_string(&path).expect("there");
        assert!(text.contains("later: 1") && text.contains("new: x"), "{text}");
        fs::write(&path, "contexts: 5").expect("ours");
        let failure = Contexts::read(path).expect_err("broken");
        assert!(failure.message.contains("holds no contexts"), "{failure:?}");
    }
}
