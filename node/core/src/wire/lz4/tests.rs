//! That blocks are those of every other LZ4 library, and that no bytes do harm.

use super::{BlockError, compress, decompress};
use proptest::prelude::*;

fn unhex(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().map(|digit| u8::try_from(digit.to_digit(16).expect("a digit")).expect("small")).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// What compresses: few different bytes, and stretches that come again.
fn any_text() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(0_u8..4, 0..400),
        (any::<u8>(), 0_usize..2_000).prop_map(|(byte, count)| vec![byte; count]),
    ];
    prop::collection::vec((piece, 1_usize..6), 0..8)
        .prop_map(|pieces| pieces.into_iter().flat_map(|(piece, times)| piece.repeat(times)).collect())
}

/// Made by liblz4 1.9.4: `LZ4_compress_default`, and at the third of `LZ4_compress_HC` at level 12 too.
#[test]
fn blocks_of_the_reference_library_are_read() {
    let nodes: String = (0..12).map(|index| format!("node-{index}.example:8443;")).collect();
    let cases = [
        (String::new(), "00"),
        ("hello".to_owned(), "5068656c6c6f"),
        ("a".repeat(300), "1f610100ff14506161616161"),
        ("abcdefgh".repeat(8) + "the end, then", "8f6162636465666768080025d074686520656e642c207468656e"),
        (
            nodes.clone(),
            "f1056e6f64652d302e6578616d706c653a383434333b14001f311400001f321400001f331400001f341400001f\
             351400001f361400001f371400001f381400001f391400001f31c9000206ca0050383434333b",
        ),
        (
            nodes,
            "f1056e6f64652d302e6578616d706c653a383434333b14002e312e14002e322e14002e332e14002e342e14002e\
             352e14002e362e14002e372e14002e382e14001f39b400010fc9000206ca0050383434333b",
        ),
    ];
    for (text, block) in cases {
        assert_eq!(decompress(&unhex(block), text.len()).as_deref(), Ok(text.as_bytes()));
    }
}

#[test]
fn what_is_no_block_is_told_by_what_is_wrong() {
    let cases: [(&[u8], usize, BlockError); 6] = [
        // Five literals, of which four are there.
        (b"\x50hell", 5, BlockError::Malformed),
        // A length that goes on beyond the end.
        (&[0xf0, 0xff], 300, BlockError::Malformed),
        // Half an offset, and one that points before the start.
        (&[0x10, b'a', 1], 9, BlockError::Malformed),
        (&[0x10, b'a', 2, 0, 0x00], 5, BlockError::Malformed),
        (b"\x50hello", 4, BlockError::Longer { said: 4 }),
        (b"\x50hello", 6, BlockError::Shorter { said: 6, holds: 5 }),
    ];
    for (block, said, error) in cases {
        assert_eq!(decompress(block, said), Err(error), "{block:?} as {said}");
    }
}

#[test]
fn a_long_run_costs_few_bytes() {
    let run = vec![7; 1_000_000];
    let block = compress(&run);
    assert!(block.len() < 4_000, "{}", block.len());
    assert_eq!(decompress(&block, run.len()), Ok(run));
}

proptest! {
    #[test]
    fn what_is_compressed_comes_back(text in any_text()) {
        let block = compress(&text);
        prop_assert_eq!(decompress(&block, text.len()), Ok(text));
    }

    #[test]
    fn a_block_cut_off_anywhere_is_refused(text in any_text(), at in any::<prop::sample::Index>()) {
        let block = compress(&text);
        prop_assert!(decompress(&block[..at.index(block.len())], text.len()).is_err());
    }

    #[test]
    fn a_wrong_length_is_refused(text in any_text(), said in 0_usize..100_000) {
        prop_assume!(said != text.len());
        prop_assert!(decompress(&compress(&text), said).is_err());
    }

    #[test]
    fn flipped_bits_do_no_harm(
        text in any_text(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..4),
    ) {
        let mut block = compress(&text);
        for (at, bit) in flips {
            let at = at.index(block.len());
            block[at] ^= 1 << bit;
        }
        if let Ok(read) = decompress(&block, text.len()) {
            prop_assert_eq!(read.len(), text.len());
        }
    }

    #[test]
    fn noise_does_no_harm(block in prop::collection::vec(any::<u8>(), 0..600), said in 0_usize..5_000) {
        if let Ok(read) = decompress(&block, said) {
            prop_assert_eq!(read.len(), said);
        }
    }
}
