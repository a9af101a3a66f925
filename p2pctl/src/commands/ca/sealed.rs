//! Bytes under a passphrase: an age file (age-encryption.org/v1, armored) with a scrypt stanza.

use super::passphrase::Passphrase;
use crate::error::Failure;
use age::{DecryptError, scrypt};

/// scrypt's cost as a power of two: about half a second and 128 MiB.
const WORK_FACTOR: u8 = 17;
/// Highest cost that is accepted when a file is opened.
const MAX_WORK_FACTOR: u8 = 20;

const ARMOR: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
const MAGIC: &[u8] = b"age-encryption.org/v1";

/// Encrypts.
pub(super) fn seal(bytes: &[u8], passphrase: &Passphrase) -> Result<String, Failure> {
    seal_with(bytes, passphrase, WORK_FACTOR)
}

fn seal_with(bytes: &[u8], passphrase: &Passphrase, work_factor: u8) -> Result<String, Failure> {
    let mut recipient = scrypt::Recipient::new(passphrase.secret());
    recipient.set_work_factor(work_factor);
    age::encrypt_and_armor(&recipient, bytes)
        .map_err(|error| Failure::other(format!("the backup could not be encrypted: {error}")))
}

/// Whether it looks like an age file at all, before anybody is asked for a passphrase.
pub(super) fn check(sealed: &[u8]) -> Result<(), Failure> {
    let trimmed = sealed.trim_ascii_start();
    if trimmed.starts_with(ARMOR) || trimmed.starts_with(MAGIC) {
        return Ok(());
    }
    Err(Failure::other("not an age file, and so no backup that `p2pctl ca backup` made"))
}

/// Decrypts.
pub(super) fn open(sealed: &[u8], passphrase: &Passphrase) -> Result<Vec<u8>, Failure> {
    check(sealed)?;
    let mut identity = scrypt::Identity::new(passphrase.secret());
    identity.set_max_work_factor(MAX_WORK_FACTOR);
    #[expect(clippy::wildcard_enum_match_arm, reason = "foreign, non-exhaustive enum")]
    age::decrypt(&identity, sealed.trim_ascii_start()).map_err(|error| match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => Failure::denied(
            "the passphrase is not this backup's (or the first lines of the file are damaged)",
        ),
        DecryptError::NoMatchingKeys => {
            Failure::other("an age file, but not under a passphrase: `p2pctl ca backup` did not make it")
        }
        _ => Failure::other("the backup is damaged or cut short; use another copy"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(text).expect("long enough")
    }

    #[test]
    fn what_was_sealed_opens_with_its_passphrase_only() {
        let right = passphrase("correct horse battery");
        let text = seal_with(b"key", &right, 4).expect("sealed");
        assert!(text.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
        assert_eq!(open(text.as_bytes(), &right).expect("opens"), b"key");
        let wrong = open(text.as_bytes(), &passphrase("wrong horse battery")).expect_err("refused");
        assert!(wrong.message.starts_with("the passphrase is not this backup's"), "{wrong:?}");
        assert_eq!(wrong.exit.number(), 4);
    }

    #[test]
    fn what_cannot_be_opened_says_why() {
        let right = passphrase("correct horse battery");
        let text = seal_with(&[7; 300], &right, 4).expect("sealed");
        let lines: Vec<&str> = text.lines().collect();
        let cut = lines[..lines.len() - 3].join("\n");
        let mut flipped = text.clone().into_bytes();
        let at = flipped.len() - 100;
        flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
        let key = age::x25519::Identity::generate().to_public();
        let by_key = age::encrypt_and_armor(&key, b"x").expect("sealed");
        let costly = text_with_work_factor_63();
        for (bytes, says) in [
            (&b""[..], "not an age file"),
            (b"-----BEGIN CERTIFICATE-----\n", "not an age file"),
            (cut.as_bytes(), "damaged or cut short"),
            (&flipped, "damaged or cut short"),
            (&text.as_bytes()[..60], "damaged or cut short"),
            (by_key.as_bytes(), "not under a passphrase"),
            (costly.as_bytes(), "damaged or cut short"),
        ] {
            let failure = open(bytes, &right).expect_err("refused");
            assert!(failure.message.contains(says), "{says}: {}", failure.message);
        }
    }

    /// A header that asks for more work than the universe has time for.
    fn text_with_work_factor_63() -> String {
        "age-encryption.org/v1\n-> scrypt AAAAAAAAAAAAAAAAAAAAAA 63\n\
         AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n\
         --- AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n0123456789abcdef0123456789abcdef"
            .to_owned()
    }
}
