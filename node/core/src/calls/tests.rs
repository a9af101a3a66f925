use super::*;
use proptest::prelude::*;

fn part(head: bool, body: usize, end: bool) -> Part {
    Part { head, body, end }
}

#[test]
fn an_answer_has_one_head_and_one_end_and_keeps_to_its_credit() {
    let mut asked = Asked::default();
    let call = asked.open("caller");
    assert_eq!(asked.answered(call, part(true, CHUNK_MAX, false)), Ok(Arrival::More(&mut "caller")));
    for _ in 0..3 {
        assert_eq!(asked.answered(call, part(false, CHUNK_MAX, false)), Ok(Arrival::More(&mut "caller")));
    }
    assert!(asked.taken(call, PART_MIN));
    assert_eq!(asked.answered(call, part(false, 10, false)), Ok(Arrival::More(&mut "caller")));
    assert_eq!(asked.answered(call, part(false, 0, true)), Ok(Arrival::Last("caller")));
    assert!(asked.is_empty() && !asked.taken(call, 1) && !asked.forget(call));
    assert_eq!(asked.answered(call, part(false, 0, true)), Ok(Arrival::Nobody), "it has ended");
}

#[test]
fn who_breaks_a_rule_of_answers_is_found_out() {
    let open = || {
        let mut asked = Asked::default();
        (asked.open(()), asked)
    };
    let (call, mut asked) = open();
    assert_eq!(asked.answered(call + 1, part(true, 0, true)), Err(Violation::UnknownCall));
    assert_eq!(asked.answered(0, part(true, 0, true)), Err(Violation::UnknownCall));
    assert_eq!(asked.refused(call + 1), Err(Violation::UnknownCall));
    assert_eq!(asked.answered(call, part(true, CHUNK_MAX + 1, false)), Err(Violation::Chunk));
    assert_eq!(asked.answered(call, part(false, 1, false)), Err(Violation::Head));
    let (call, mut asked) = open();
    assert_eq!(asked.answered(call, part(false, 0, false)), Err(Violation::Empty));
    assert!(asked.answered(call, part(true, 0, false)).is_ok());
    assert_eq!(asked.answered(call, part(true, 0, false)), Err(Violation::Head));
    assert_eq!(asked.refused(call), Err(Violation::Head), "too late to refuse");
    let (call, mut asked) = open();
    assert!(asked.answered(call, part(true, CHUNK_MAX, false)).is_ok());
    for _ in 0..3 {
        assert!(asked.answered(call, part(false, CHUNK_MAX, false)).is_ok());
    }
    assert_eq!(asked.answered(call, part(false, 1, true)), Err(Violation::OverCredit));
}

#[test]
fn calls_are_taken_up_to_a_number_and_their_own_numbers_rise() {
    let mut served = Served::new(2);
    for number in [1, 5] {
        assert_eq!(served.admit(number), Ok(true));
        served.begin(number, "call");
    }
    assert_eq!(served.admit(5), Err(Violation::NumberReused));
    assert_eq!(served.admit(6), Ok(false), "there is no room");
    assert_eq!(served.get(7).map(|found| found.copied()), Err(Violation::UnknownCall));
    assert_eq!(served.get(0).map(|found| found.copied()), Err(Violation::UnknownCall));
    assert_eq!(served.cancelled(6), Ok(None), "it was refused");
    assert_eq!(served.cancelled(5), Ok(Some("call")));
    assert_eq!((served.cancelled(5), served.get(5).map(|found| found.copied())), (Ok(None), Ok(None)));
    assert_eq!(served.admit(7), Ok(false), "until what answers it has ended");
    assert!(!served.end(5) && served.end(1) && served.is_empty());
    assert_eq!(served.admit(8), Ok(true));
}

proptest! {
    /// Whatever is sent, taken and granted: what waits at the caller never exceeds the credit, and nothing that an honest
    /// sender does is a violation.
    #[test]
    fn an_honest_sender_never_exceeds_the_credit(steps in proptest::collection::vec((any::<bool>(), 0_u32..200_000), 0..200)) {
        let (mut sender, mut receiver, mut waiting) = (Window::default(), Window::default(), 0_u32);
        for (sends, amount) in steps {
            if sends {
                let sent = sender.take(amount as usize);
                prop_assert!(sent <= amount as usize && receiver.received(sent).is_ok());
                prop_assert!(sent > 0 || amount == 0 || waiting > CREDIT - PART_MIN, "only what waits holds it up");
                waiting += cost(sent);
            } else {
                let taken = amount.min(waiting);
                waiting -= taken;
                prop_assert!(receiver.grant(taken).is_ok() && sender.grant(taken).is_ok());
            }
            prop_assert!(waiting <= CREDIT);
            prop_assert_eq!(sender, receiver);
        }
    }

    /// Frames in any order about any calls never panic, end a call at most once, and reach only calls in flight.
    #[test]
    fn any_frames_leave_the_books_in_order(
        frames in proptest::collection::vec((0_u64..12, 0_u8..6, any::<bool>(), 0_usize..40_000, any::<bool>()), 0..100),
    ) {
        let (mut asked, mut served) = (Asked::default(), Served::new(3));
        let mut open = std::collections::BTreeSet::new();
        // Whether the peer waits for them.
        let mut taken = std::collections::BTreeMap::new();
        for (number, kind, head, body, end) in frames {
            match kind {
                0 => {
                    let number = asked.open(0_u64);
                    prop_assert!(open.insert(number));
                }
                1 => match asked.answered(number, part(head, body, end)) {
                    Ok(Arrival::More(_)) => prop_assert!(!end && open.contains(&number)),
                    Ok(Arrival::Last(_)) => prop_assert!(end && open.remove(&number)),
                    Ok(Arrival::Nobody) => prop_assert!(!open.contains(&number)),
                    // The stream ends.
                    Err(_) => return Ok(()),
                },
                2 => prop_assert_eq!(asked.forget(number), open.remove(&number)),
                3 => match served.admit(number) {
                    Ok(room) => {
                        prop_assert_eq!(room, taken.len() < 3);
                        if room {
                            served.begin(number, ());
                            taken.insert(number, true);
                        }
                    }
                    Err(_) => return Ok(()),
                },
                4 => match served.cancelled(number) {
                    Ok(call) => {
                        let waits = taken.get_mut(&number).map(std::mem::take);
                        prop_assert_eq!(call.is_some(), waits == Some(true));
                    }
                    Err(_) => return Ok(()),
                },
                _ => prop_assert_eq!(served.end(number), taken.remove(&number) == Some(true)),
            }
            prop_assert_eq!((asked.is_empty(), served.is_empty()), (open.is_empty(), taken.is_empty()));
        }
        prop_assert_eq!((asked.drain().count(), served.drain().count()), (open.len(), taken.values().filter(|waits| **waits).count()));
    }
}
