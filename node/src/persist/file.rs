//! One versioned JSON file.

use super::{PersistError, StateDirectory, disk};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    fs::{self, File},
    io::{self, Read},
    marker::PhantomData,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// Largest state file, in bytes. More is refused at save and taken for damage at load.
pub const MAX_FILE_LEN: u64 = 64 * 1024 * 1024;

/// The field that carries the format's version.
const VERSION_FIELD: &str = "version";
/// The version that this release writes. It rises only when a field changes its meaning.
const VERSION: u64 = 1;

/// What was found where a state file should be.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "state that was lost must be answered for"]
pub enum Loaded<T> {
    /// No file: the first start, or state that was never saved.
    Missing,
    /// The state.
    Ok(T),
    /// A file that is no such state. It was logged and moved aside; the state starts empty.
    Corrupt {
        /// Where the damaged file is now.
        moved_to: PathBuf,
    },
}

impl<T> Loaded<T> {
    /// The state, if there was one.
    pub fn ok(self) -> Option<T> {
        match self {
            Self::Ok(state) => Some(state),
            Self::Missing | Self::Corrupt { .. } => None,
        }
    }
}

/// A file `{"version": 1, ...}` that keeps a `T`, which must serialize as an object.
///
/// The fields at its top level that `T` does not know are written back at each save: the state of a newer
/// release survives an older one. What a `T` holds further down must see to that itself, with a flattened
/// map.
#[derive(Debug)]
pub struct StateFile<T> {
    directory: StateDirectory,
    name: PathBuf,
    unknown: Map<String, Value>,
    state: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned> StateFile<T> {
    /// Opens the file `name` in `directory` and reads what it holds.
    ///
    /// # Errors
    ///
    /// [`PersistError::Read`] when a file is there but the system does not let us read it, so that it may be
    /// whole; [`PersistError::MoveAside`] when it is damaged and stands in the way.
    pub fn load(
        directory: &StateDirectory,
        name: impl AsRef<Path>,
    ) -> Result<(Self, Loaded<T>), PersistError> {
        let name = name.as_ref().to_owned();
        let mut file = Self { directory: directory.clone(), name, unknown: Map::new(), state: PhantomData };
        let path = file.path();
        let contents =
            read_bounded(&path).map_err(|source| PersistError::Read { path: path.clone(), source })?;
        let decoded = match contents {
            Contents::Missing => return Ok((file, Loaded::Missing)),
            Contents::Bytes(bytes) => decode::<T>(&bytes),
            Contents::Unfit(why) => Err(why.to_owned()),
        };
        let loaded = match decoded {
            Ok((state, unknown)) => {
                file.unknown = unknown;
                Loaded::Ok(state)
            }
            Err(why) => Loaded::Corrupt { moved_to: file.move_aside(&why)? },
        };
        Ok((file, loaded))
    }

    /// Replaces what the file holds, durably once this returns.
    ///
    /// # Errors
    ///
    /// [`PersistError::Write`] when the disk refuses, [`PersistError::TooLarge`] above [`MAX_FILE_LEN`],
    /// [`PersistError::Encode`] when `state` is not an object.
    pub fn save(&self, state: &T) -> Result<(), PersistError> {
        let encode = |why: String| PersistError::Encode { path: self.path(), why };
        let known = to_object(state).map_err(encode)?;
        let mut fields = self.unknown.clone();
        fields.extend(known);
        let document = Document { version: VERSION, fields };
        let mut bytes = serde_json::to_vec_pretty(&document).map_err(|error| encode(error.to_string()))?;
        bytes.push(b'\n');
        let len = bytes.len() as u64;
        if len > MAX_FILE_LEN {
            return Err(PersistError::TooLarge { path: self.path(), len, limit: MAX_FILE_LEN });
        }
        self.directory.replace(&self.name, &bytes)
    }

    /// Where the file is.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join(&self.name)
    }

    fn move_aside(&self, why: &str) -> Result<PathBuf, PersistError> {
        move_aside(&self.directory, &self.name, why)
    }
}

/// Renames the damaged file `name` of `directory` to `<name>.corrupt-<time>`, and says so in the log.
pub(super) fn move_aside(
    directory: &StateDirectory,
    name: &Path,
    why: &str,
) -> Result<PathBuf, PersistError> {
    let path = directory.path().join(name);
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut moved_to = path.clone();
    for attempt in 0_u64.. {
        let mut aside = name.as_os_str().to_owned();
        aside.push(format!(".corrupt-{}", seconds.saturating_add(attempt)));
        moved_to = directory.path().join(aside);
        // Rename replaces silently: what was set aside in this very second must stay.
        if fs::symlink_metadata(&moved_to).is_err() {
            break;
        }
    }
    disk::rename(&path, &moved_to)
        .and_then(|()| directory.sync())
        .map_err(|source| PersistError::MoveAside { path: path.clone(), source })?;
    tracing::error!(
        file = %path.display(),
        moved_to = %moved_to.display(),
        reason = why,
        "a damaged state file was moved aside; its state is lost",
    );
    Ok(moved_to)
}

/// What is written: the version first, for people.
#[derive(Serialize)]
struct Document {
    version: u64,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

enum Contents {
    Missing,
    Bytes(Vec<u8>),
    Unfit(&'static str),
}

fn read_bounded(path: &Path) -> io::Result<Contents> {
    const TOO_LARGE: Contents = Contents::Unfit("it is larger than any state file");
    // Without following links, and before opening it: opening a pipe would wait for a writer.
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::Missing),
        metadata => metadata?,
    };
    if !metadata.is_file() {
        return Ok(Contents::Unfit("it is not a regular file"));
    }
    if metadata.len() > MAX_FILE_LEN {
        return Ok(TOO_LARGE);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE_LEN + 1).read_to_end(&mut bytes)?;
    Ok(if bytes.len() as u64 > MAX_FILE_LEN { TOO_LARGE } else { Contents::Bytes(bytes) })
}

/// The state, and the fields that it does not know.
fn decode<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<(T, Map<String, Value>), String> {
    let mut object: Map<String, Value> =
        serde_json::from_slice(bytes).map_err(|error| format!("it is not a JSON object: {error}"))?;
    // A newer version is welcome as long as the fields we know still read.
    match object.remove(VERSION_FIELD).as_ref().map(Value::as_u64) {
        Some(Some(1..)) => {}
        Some(None | Some(0)) => return Err("its version is not a positive whole number".to_owned()),
        None => return Err("it has no version".to_owned()),
    }
    let state: T = serde_json::from_value(Value::Object(object.clone()))
        .map_err(|error| format!("its fields do not fit: {error}"))?;
    for field in to_object(&state)?.keys() {
        object.remove(field);
    }
    Ok((state, object))
}

fn to_object<T: Serialize>(state: &T) -> Result<Map<String, Value>, String> {
    match serde_json::to_value(state) {
        Ok(Value::Object(object)) if object.contains_key(VERSION_FIELD) => {
            Err(format!("it has a field {VERSION_FIELD:?} of its own"))
        }
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err("it is not an object".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}
