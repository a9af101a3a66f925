use super::*;
use proptest::prelude::*;

fn compressed(lz4: &'static [u8], uncompressed_length: u32) -> GossipFrame {
    GossipFrame { payload: Bytes::new(), lz4: Bytes::from_static(lz4), uncompressed_length }
}

#[test]
fn only_what_is_larger_than_the_threshold_is_compressed() {
    let forms = |length: usize, threshold| {
        let frame = seal(Bytes::from(vec![b'a'; length]), threshold);
        (!frame.payload.is_empty(), !frame.lz4.is_empty(), frame.uncompressed_length)
    };
    assert_eq!(forms(1024, Some(1024)), (true, false, 0), "as large as the threshold");
    assert_eq!(forms(1025, Some(1024)), (false, true, 1025));
    assert_eq!(forms(100_000, None), (true, false, 0), "without compression");
    assert_eq!(forms(0, Some(0)), (false, false, 0), "nothing");
}

#[test]
fn what_does_not_shrink_is_sent_as_it_is() {
    // Every byte once: no four of them come again.
    let message: Bytes = (0..=255).collect();
    assert_eq!(seal(message.clone(), Some(16)), GossipFrame { payload: message, ..GossipFrame::default() });
}

#[test]
fn a_message_that_no_receiver_takes_is_not_hidden_in_a_small_frame() {
    let largest = seal(Bytes::from(vec![0; MAX_FRAME]), Some(0));
    assert!(largest.encoded_len() < MAX_FRAME / 200);
    assert_eq!(open(largest).map(|message| message.len()), Ok(MAX_FRAME));
    let larger = seal(Bytes::from(vec![0; MAX_FRAME + 1]), Some(0));
    assert_eq!((larger.payload.len(), larger.lz4.len()), (MAX_FRAME + 1, 0));
}

#[test]
fn every_lie_is_named_and_counted() {
    let both = GossipFrame { payload: Bytes::from_static(b"ab"), ..compressed(b"\x50hello", 5) };
    let plain_with_length = GossipFrame { payload: Bytes::from_static(b"ab"), ..compressed(b"", 5) };
    let cases = [
        (both, "envelope", "the frame holds 2 bytes as they are, 6 compressed, and says that those are 5"),
        (
            plain_with_length,
            "envelope",
            "the frame holds 2 bytes as they are, 0 compressed, and says that those are 5",
        ),
        (
            compressed(b"", 5),
            "envelope",
            "the frame holds 0 bytes as they are, 0 compressed, and says that those are 5",
        ),
        (
            compressed(b"\x50hello", 4_194_305),
            "bomb",
            "the frame says that its message has 4194305 bytes, at most 4194304 are taken",
        ),
        (
            compressed(b"\x50hello", u32::MAX),
            "bomb",
            "the frame says that its message has 4294967295 bytes, at most 4194304 are taken",
        ),
        (
            compressed(b"\x50hello", 1531),
            "bomb",
            "the frame says that 6 compressed bytes hold 1531, more than 255 times as many",
        ),
        (
            compressed(b"\x50hello", 1530),
            "length",
            "the LZ4 block holds 5 bytes, not the 1530 that it is said to",
        ),
        (
            compressed(b"\x50hello", 4),
            "length",
            "the LZ4 block holds more than the 4 bytes that it is said to",
        ),
        (
            compressed(b"\x50hello", 0),
            "length",
            "the LZ4 block holds more than the 0 bytes that it is said to",
        ),
        (compressed(b"\x50hell", 5), "lz4", "the bytes are no LZ4 block"),
        (compressed(b"\x10a\x09\x00\x00", 5), "lz4", "the bytes are no LZ4 block"),
    ];
    for (frame, reason, sentence) in cases {
        let error = open(frame).expect_err("refused");
        assert_eq!((error.reason(), error.to_string().as_str()), (reason, sentence));
    }
}

/// The most that a block can hold: each 255 in it stands for 255 bytes of one match.
#[test]
fn no_honest_block_reaches_the_ratio_cap() {
    for length in [16, 300, 70_000, MAX_FRAME] {
        let frame = seal(Bytes::from(vec![0; length]), Some(0));
        assert!(frame.lz4.len() * MAX_RATIO > length, "{length} in {}", frame.lz4.len());
        assert_eq!(open(frame).map(|message| message.len()), Ok(length));
    }
}

proptest! {
    #[test]
    fn every_message_comes_back(
        piece in prop::collection::vec(any::<u8>(), 0..300),
        times in 1_usize..50,
        threshold in prop::option::of(0_usize..4_096),
    ) {
        let message = Bytes::from(piece.repeat(times));
        let frame = seal(message.clone(), threshold);
        prop_assert!(frame.payload.is_empty() || frame.lz4.is_empty());
        let plain = GossipFrame { payload: message.clone(), ..GossipFrame::default() };
        prop_assert!(frame.encoded_len() <= plain.encoded_len());
        let travelled = GossipFrame::decode(&*frame.encode_to_vec()).expect("a frame");
        prop_assert_eq!(open(travelled), Ok(message));
    }

    #[test]
    fn frames_of_noise_do_no_harm(
        payload in prop::collection::vec(any::<u8>(), 0..4),
        lz4 in prop::collection::vec(any::<u8>(), 0..300),
        said in prop_oneof![0_u32..3_000, any::<u32>()],
    ) {
        let frame = GossipFrame { payload: payload.into(), lz4: lz4.into(), uncompressed_length: said };
        let limit = frame.payload.len().max(frame.lz4.len() * MAX_RATIO).min(MAX_FRAME);
        if let Ok(message) = open(frame) {
            prop_assert!(message.len() <= limit);
        }
    }

    #[test]
    fn bytes_of_noise_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        if let Ok(frame) = GossipFrame::decode(&*bytes) {
            let limit = bytes.len() * MAX_RATIO;
            prop_assert!(open(frame).map_or(0, |message| message.len()) <= limit);
        }
    }
}
