//! The macro behind the table of keys, and the reader that turns given values into typed ones.

use super::{
    error::{ConfigError, Problem},
    setting::Setting,
    sources::Sources,
};

/// Makes, from one table, the struct [`Config`](super::Config), the list `KEYS`, and `Parsed`: the same
/// fields, each present only if its value is valid.
///
/// One entry is its documentation, then `name: Type = "default as YAML", at start;`. `or path` after the default names
/// the function that finds the value when none is given. The last words, `at start` or `at reload`, say when a value takes
/// effect.
macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $name:ident: $type:ty = $default:literal $(or $derive:path)?, at $when:ident;
    )+) => {
        /// A valid configuration, every default filled in.
        #[derive(Clone, Debug)]
        pub struct Config {
            $( $(#[doc = $doc])+ pub $name: $type, )+
            /// Who gave the keys their values; those that have their default are missing.
            given: std::collections::BTreeMap<&'static str, $crate::config::GivenBy>,
        }

        pub(super) const KEYS: &[$crate::config::Key] = &[$( $crate::config::Key {
            name: stringify!($name),
            default: $default,
            expected: <$type as $crate::config::setting::Setting>::EXPECTED,
            doc: concat!($($doc),+).trim_ascii_start(),
            takes_effect: $crate::config::table::settings!(@when $when),
        } ),+];

        impl Config {
            /// The keys whose values differ from those in `other`, in the order of the table.
            pub fn differences(&self, other: &Self) -> Vec<&'static $crate::config::Key> {
                let same = [$( self.$name == other.$name ),+];
                KEYS.iter().zip(same).filter(|(_, same)| !same).map(|(key, _)| key).collect()
            }

            /// Takes over what a running node can: the values of `other` of every key that takes effect at a reload.
            pub fn take_over(&mut self, other: Self) {
                let mut other = other;
                let this = self;
                $( $crate::config::table::settings!(@take $when this other $name); )+
            }

            /// Every key with its value, as YAML that reads as this value, in the order of the table.
            pub fn values(&self) -> Vec<(&'static $crate::config::Key, serde_yaml::Value)> {
                let values = [$( $crate::config::setting::Setting::show(&self.$name) ),+];
                KEYS.iter().zip(values).collect()
            }

            /// Who gave `key` its value.
            pub fn given_by(&self, key: &$crate::config::Key) -> $crate::config::GivenBy {
                self.given.get(key.name).copied().unwrap_or_default()
            }
        }

        /// A configuration of which parts may be missing because they are wrong.
        #[derive(Debug, Default)]
        pub(super) struct Parsed {
            $( pub(super) $name: Option<$type>, )+
        }

        impl Parsed {
            /// Reads every key; what is wrong goes to the reader's errors.
            pub(super) fn read(reader: &mut $crate::config::table::Reader<'_>) -> Self {
                let mut parsed = Self::default();
                $( parsed.$name = $crate::config::table::settings!(@read reader parsed $name $default $($derive)?); )+
                parsed
            }

            /// The configuration, if no part is missing.
            pub(super) fn complete(self, sources: &$crate::config::sources::Sources) -> Option<Config> {
                let given = sources.given().collect();
                Some(Config { $( $name: self.$name?, )+ given })
            }
        }
    };
    (@when start) => { $crate::config::TakesEffect::AtStart };
    (@when reload) => { $crate::config::TakesEffect::AtReload };
    (@take start $this:ident $other:ident $name:ident) => {};
    (@take reload $this:ident $other:ident $name:ident) => {
        $this.$name = $other.$name;
        match $other.given.remove(stringify!($name)) {
            Some(by) => $this.given.insert(stringify!($name), by),
            None => $this.given.remove(stringify!($name)),
        };
    };
    (@read $reader:ident $parsed:ident $name:ident $default:literal) => {
        $reader.setting(stringify!($name), $default)
    };
    (@read $reader:ident $parsed:ident $name:ident $default:literal $derive:path) => {
        $reader.setting_or(stringify!($name), |host_name| $derive(&$parsed, host_name))
    };
}
pub(super) use settings;

/// What a default that is found at start comes to: nothing when it hangs on a key that is itself wrong.
pub(super) type Derived<T> = Result<Option<T>, String>;

/// The last word of the sources on one key.
enum Given<T> {
    Nothing,
    Valid(T),
    Wrong,
}

/// Reads typed settings and collects what is wrong with them.
pub(super) struct Reader<'a> {
    sources: &'a Sources,
    host_name: &'a str,
    pub(super) errors: Vec<ConfigError>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources, host_name: &'a str) -> Self {
        Self { sources, host_name, errors: Vec::new() }
    }

    /// The value of `key`, or its default.
    pub(super) fn setting<T: Setting>(&mut self, key: &'static str, default: &str) -> Option<T> {
        match self.given(key) {
            Given::Valid(value) => Some(value),
            Given::Wrong => None,
            Given::Nothing => {
                let value = serde_yaml::from_str(default).unwrap_or_default();
                T::read(&value).ok().or_else(|| {
                    self.refuse(key, Problem::Rule(format!("the built-in default {default:?} is not valid")))
                })
            }
        }
    }

    /// The value of `key`, or the one that `derive` finds from this host's name.
    pub(super) fn setting_or<T: Setting>(
        &mut self,
        key: &'static str,
        derive: impl FnOnce(&str) -> Derived<T>,
    ) -> Option<T> {
        match self.given(key) {
            Given::Valid(value) => Some(value),
            Given::Wrong => None,
            Given::Nothing => {
                derive(self.host_name).unwrap_or_else(|why| self.refuse(key, Problem::Rule(why)))
            }
        }
    }

    fn refuse<T>(&mut self, key: &'static str, problem: Problem) -> Option<T> {
        self.errors.push(ConfigError {
            origin: self.sources.origin(key),
            key: Some(key.to_owned()),
            problem,
        });
        None
    }

    /// Reads every value that the sources give `key`; the last one counts.
    fn given<T: Setting>(&mut self, key: &'static str) -> Given<T> {
        let mut last = Given::Nothing;
        for value in self.sources.values(key) {
            if value.value.is_null() {
                last = Given::Nothing;
                continue;
            }
            last = match T::read(&value.value) {
                Ok(setting) => Given::Valid(setting),
                Err(wrong) => {
                    let problem =
                        Problem::Value { found: wrong.found, why: wrong.why, expected: T::EXPECTED };
                    self.errors.push(ConfigError {
                        origin: value.origin.clone(),
                        key: Some(key.to_owned()),
                        problem,
                    });
                    Given::Wrong
                }
            };
        }
        last
    }
}
