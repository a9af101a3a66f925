//! Numbers that stand for ids in this process: maps by them, and one copy of what is read again and again.
//!
//! A node of a large cluster reads the same few thousand ids and lives with every packet. Comparing them by text means
//! a look at other memory each time, and a copy of each an allocation.

use crate::NodeId;
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    sync::{Arc, LazyLock},
};

/// Most values that one [`Shared`] remembers; then it begins anew.
const SHARED_MAX: usize = 16_384;

/// A number that stands for an id in this process: SipHash under a random key, so that nobody can make two ids share one.
pub(crate) fn tag_of(text: &str) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one(text)
}

/// A map by node. Its order differs from run to run: never go through it where order can be seen.
pub(crate) type ByNode<V> = HashMap<NodeId, V, BuildHasherDefault<TagHasher>>;

/// Takes a tag, which is a hash already, as it is.
#[derive(Default)]
pub(crate) struct TagHasher(u64);

impl Hasher for TagHasher {
    fn write(&mut self, bytes: &[u8]) {
        debug_assert!(false, "only tags are hashed, not {bytes:?}");
    }

    fn write_u64(&mut self, tag: u64) {
        self.0 = tag;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// One copy of each value, found by a tag.
pub(crate) struct Shared<T: ?Sized>(HashMap<u64, Arc<T>, BuildHasherDefault<TagHasher>>);

impl<T: ?Sized> Shared<T> {
    pub(crate) fn new() -> Self {
        Self(HashMap::default())
    }

    /// The copy under `tag` if it is the `same`, else the one that is made now.
    pub(crate) fn get(
        &mut self,
        tag: u64,
        same: impl FnOnce(&T) -> bool,
        make: impl FnOnce() -> Arc<T>,
    ) -> Arc<T> {
        if let Some(known) = self.0.get(&tag).filter(|known| same(known)) {
            return known.clone();
        }
        if self.0.len() >= SHARED_MAX {
            self.0.clear();
        }
        let made = make();
        self.0.insert(tag, made.clone());
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_twice_is_kept_once_and_the_memory_is_bounded() {
        let mut shared = Shared::<str>::new();
        let mut read = |text: &str| shared.get(tag_of(text), |known| known == text, || text.into());
        assert!(Arc::ptr_eq(&read("n1"), &read("n1")));
        for number in 0..3 * SHARED_MAX {
            assert_eq!(&*read(&number.to_string()), number.to_string());
        }
        assert!(shared.0.len() <= SHARED_MAX);
    }

    #[test]
    fn another_value_under_one_tag_replaces_the_first() {
        let mut shared = Shared::<str>::new();
        let mut read = |text: &str| shared.get(7, |known| known == text, || text.into());
        assert_eq!((&*read("a"), &*read("b"), &*read("a")), ("a", "b", "a"));
    }
}
