//! How an input becomes another.

use rand::{Rng as _, RngExt as _, rngs::StdRng, seq::IndexedRandom as _};

/// Longest input, in bytes.
const MAX_LEN: usize = 8 * 1024;
/// Bytes at which lengths, varints and offsets turn.
const TURNING: [u8; 10] = [0, 1, 2, 4, 15, 16, 127, 128, 254, 255];

/// `input` after a few random changes; `corpus` gives pieces of others.
pub(crate) fn mutate(mut input: Vec<u8>, corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    for _ in 0..1 << rng.random_range(0..5_u32) {
        change(&mut input, corpus, rng);
    }
    input.truncate(MAX_LEN);
    input
}

fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut StdRng) {
    let at = rng.random_range(0..=input.len());
    let end = rng.random_range(at..=input.len().min(at + 64));
    match rng.random_range(0..8_u8) {
        0 => each(input, at, |byte| *byte ^= 1 << (rng.next_u32() % 8)),
        1 => each(input, at, |byte| *byte = TURNING.choose(rng).copied().unwrap_or_default()),
        2 => each(input, at, |byte| *byte = byte.wrapping_add(1)),
        3 => each(input, at, |byte| *byte = byte.wrapping_sub(1)),
        4 => drop(input.drain(at..end)),
        5 => {
            let piece = input[at..end].to_vec();
            let to = rng.random_range(0..=input.len());
            input.splice(to..to, piece);
        }
        6 => {
            let noise: Vec<u8> = (at..end).map(|_| rng.next_u32() as u8).collect();
            input.splice(at..at, noise);
        }
        _ => {
            let other = corpus.choose(rng).map_or(&[][..], Vec::as_slice);
            let from = rng.random_range(0..=other.len());
            let until = rng.random_range(from..=other.len().min(from + 256));
            input.splice(at..end, other[from..until].iter().copied());
        }
    }
}

/// Changes the byte at `at`, if there is one.
fn each(input: &mut [u8], at: usize, change: impl FnOnce(&mut u8)) {
    if let Some(byte) = input.get_mut(at) {
        change(byte);
    }
}
