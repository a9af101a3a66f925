//! Making a block: greedy, with one hash table of where each four bytes were last seen.

use super::{LAST_LITERALS, LONG, MATCH_MARGIN, MIN_MATCH};

/// Entries of the hash table, as a power of two: the fewest, and the most.
const TABLE_BITS: (u32, u32) = (8, 14);
/// After 2^this many positions without a match, the search takes one byte more at a time.
const PATIENCE: u32 = 6;

/// `input` as one block.
pub(in crate::wire) fn compress(input: &[u8]) -> Vec<u8> {
    let mut block = Vec::with_capacity(input.len() / 2 + 16);
    let mut table = Table::for_input(input.len());
    let (mut anchor, mut at, mut misses) = (0, 0, 1_usize << PATIENCE);
    let last_start = input.len().saturating_sub(MATCH_MARGIN);
    while at < last_start {
        let Some(offset) = table.swap(input, at) else {
            at += misses >> PATIENCE;
            misses += 1;
            continue;
        };
        let back = usize::from(offset);
        // What agrees may begin before the four bytes that were found.
        let start = at - common_before(&input[anchor..at], &input[..at - back]);
        let end = at + MIN_MATCH + common(input, at + MIN_MATCH - back, at + MIN_MATCH);
        push_sequence(&mut block, &input[anchor..start], Some((offset, end - start)));
        anchor = end;
        // One position within the match keeps runs findable.
        if anchor - 2 < last_start {
            table.swap(input, anchor - 2);
        }
        (at, misses) = (anchor, 1 << PATIENCE);
    }
    push_sequence(&mut block, &input[anchor..], None);
    block
}

/// How many bytes agree at the ends of the two.
fn common_before(literals: &[u8], earlier: &[u8]) -> usize {
    literals.iter().rev().zip(earlier.iter().rev()).take_while(|(a, b)| a == b).count()
}

/// How many bytes agree from `earlier` and `later` on, short of the last literals.
fn common(input: &[u8], earlier: usize, later: usize) -> usize {
    let end = input.len() - LAST_LITERALS;
    let (first, second) = (&input[earlier..], &input[later..end]);
    let words = first.chunks_exact(8).zip(second.chunks_exact(8)).take_while(|(a, b)| a == b).count() * 8;
    let rest = first[words..].iter().zip(&second[words..]).take_while(|(a, b)| a == b).count();
    words + rest
}

fn push_sequence(block: &mut Vec<u8>, literals: &[u8], copy: Option<(u16, usize)>) {
    let extra = copy.map_or(0, |(_, length)| length - MIN_MATCH);
    block.push(half(literals.len()) << 4 | half(extra));
    push_length(block, literals.len());
    block.extend_from_slice(literals);
    if let Some((offset, _)) = copy {
        block.extend_from_slice(&offset.to_le_bytes());
        push_length(block, extra);
    }
}

fn half(length: usize) -> u8 {
    length.min(LONG) as u8
}

/// What of `length` does not fit into half of a token.
fn push_length(block: &mut Vec<u8>, length: usize) {
    const FULL: usize = u8::MAX as usize;
    if let Some(rest) = length.checked_sub(LONG) {
        block.extend(std::iter::repeat_n(u8::MAX, rest / FULL));
        block.push((rest % FULL) as u8);
    }
}

/// Where four bytes with a given hash were last seen.
struct Table {
    positions: Vec<u32>,
    shift: u32,
}

/// No position yet.
const NOWHERE: u32 = u32::MAX;

impl Table {
    fn for_input(length: usize) -> Self {
        let bits = length.max(1).ilog2().clamp(TABLE_BITS.0, TABLE_BITS.1);
        Self { positions: vec![NOWHERE; 1 << bits], shift: u32::BITS - bits }
    }

    /// Notes `at` and tells how far back the same four bytes were seen, if that is near enough for a match.
    fn swap(&mut self, input: &[u8], at: usize) -> Option<u16> {
        let four = *input.get(at..)?.first_chunk::<MIN_MATCH>()?;
        // Knuth's multiplicative hash: 2^32 divided by the golden ratio.
        let hash = u32::from_le_bytes(four).wrapping_mul(2_654_435_761) >> self.shift;
        let slot = self.positions.get_mut(hash as usize)?;
        let earlier = std::mem::replace(slot, u32::try_from(at).unwrap_or(NOWHERE));
        let earlier = (earlier != NOWHERE).then_some(earlier as usize)?;
        let same = input.get(earlier..)?.first_chunk::<MIN_MATCH>()? == &four;
        u16::try_from(at - earlier).ok().filter(|_| same)
    }
}
