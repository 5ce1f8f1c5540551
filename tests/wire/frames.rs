//! Frames of messages between two Rust routers: what is written is read, and what was bent on the way is refused or is a frame of its own.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use vlmessaging::Addr;
use vlmessaging::wire::{Block, Envelope, Failed, Header, How, Mood, Receipt, encode, read_frame, write_frame};

use crate::run::run;

fn receipt() -> impl Strategy<Value = Receipt> {
    let failed = (any::<u32>(), 1_u64..9, any::<bool>()).prop_map(|(from, count, is_unread)| {
        let how = if is_unread { How::Unread } else { How::Reported };
        Failed { from: from.into(), upto: u64::from(from) + count, how }
    });
    let beyond = (any::<u32>(), 1_u64..9).prop_map(|(from, count)| (from.into(), u64::from(from) + count));
    let numbers = (number(), number(), number(), number());
    (numbers, vec(beyond, 0..4), vec(failed, 0..4)).prop_map(|(numbers, beyond, failed)| {
        let (session, version, accepted, settled) = numbers;
        Receipt { session, version, accepted, settled, beyond, failed }
    })
}

/// Small ones, and those of any width that a frame can hold.
fn number() -> impl Strategy<Value = u64> {
    (any::<u64>(), 1_u32..64).prop_map(|(number, shift)| number >> shift)
}

fn header() -> impl Strategy<Value = Header> {
    let numbers = (number(), number(), number(), number(), number());
    (numbers, any::<(bool, bool, bool)>(), vec(receipt(), 0..4)).prop_map(
        |(numbers, (closing, hushed, patient), receipts)| {
            let (from, to, session, heard, first) = numbers;
            Header {
                from,
                to,
                session,
                heard,
                mood: Mood { closing, hushed, patient },
                first,
                receipts: receipts.into(),
            }
        },
    )
}

fn message() -> impl Strategy<Value = Envelope> {
    let addr = (0_u64..3, 0_u64..1 << 40).prop_map(|(router, number)| match router {
        0 => Addr::local(number),
        _ => Addr::at(format!("ipc:///tmp/router_{router}").as_str().into(), number),
    });
    let ids = (prop::option::of(0..i64::MAX), prop::option::of(0..i64::MAX));
    (addr.clone(), addr, "[A-Zäß_]{0,12}", ids, "\\PC{0,40}", vec(any::<i64>(), 0..3)).prop_map(
        |(from, to, subject, (id, reply_to), text, numbers)| Envelope {
            from,
            to,
            subject: subject.as_str().into(),
            id,
            reply_to,
            contents: encode(&(text, numbers)).unwrap(),
            meta: encode(&BTreeMap::<String, i64>::new()).unwrap(),
        },
    )
}

fn block(messages: &[Envelope]) -> Block {
    let mut block = Block::default();
    for message in messages {
        block.push(message, None);
    }
    block
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_is_read_as_it_was_written(header in header(), messages in vec(message(), 0..6)) {
        let frame = write_frame(&header, &block(&messages));
        let (read, bodies) = read_frame(&frame).unwrap();
        prop_assert_eq!(read, header);
        let bodies: Vec<_> = bodies.iter().map(Result::unwrap).collect();
        prop_assert_eq!(bodies, messages);
    }

    #[test]
    fn a_frame_that_was_cut_off_has_no_other_messages(header in header(), messages in vec(message(), 1..4), cut in any::<prop::sample::Index>()) {
        let frame = write_frame(&header, &block(&messages));
        if let Ok((read, bodies)) = read_frame(&frame.slice(..cut.index(frame.len()))) {
            prop_assert_eq!(read, header);
            prop_assert!(bodies.is_empty());
        }
    }

    #[test]
    fn a_bent_frame_is_refused_or_a_frame_of_its_own(
        header in header(), messages in vec(message(), 0..4), changes in vec(any::<(prop::sample::Index, u8, u8)>(), 1..6),
    ) {
        let mut frame = write_frame(&header, &block(&messages)).to_vec();
        for (place, byte, how) in changes {
            let at = place.index(frame.len());
            match how % 4 {
                0 => frame[at] = byte,
                1 => frame[at] ^= 1 << (byte % 8),
                2 => frame.insert(at, byte),
                _ => drop(frame.drain(at..(at + usize::from(byte % 8)).min(frame.len() - 1).max(at))),
            }
        }
        // What is let in is written so that it reads the same.
        run(&frame);
    }
}
