//! Round trips, every split and every truncation of the input, and what a decoder refuses.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const KINDS: [FrameKind; 12] = [
    FrameKind::Hello,
    FrameKind::Proof,
    FrameKind::Join,
    FrameKind::Open,
    FrameKind::Data,
    FrameKind::Bulk,
    FrameKind::Credit,
    FrameKind::Reset,
    FrameKind::Ping,
    FrameKind::Pong,
    FrameKind::Drain,
    FrameKind::Close,
];

fn any_frame(random: &mut StdRng) -> Frame {
    let kind = KINDS[random.random_range(0..KINDS.len())];
    let (least, most) = kind.payload_limits();
    let place = if kind == FrameKind::Bulk { PLACE_LEN } else { 0 };
    let most = if random.random_ratio(1, 4) { most } else { most.min(least + 40) };
    let length = random.random_range(least..=most) - place;
    let flags: Vec<u8> = (0..=u8::MAX).filter(|flags| kind.allows(*flags, length + place)).collect();
    Frame {
        kind,
        flags: flags[random.random_range(0..flags.len())],
        stream: if kind.may_name(0) { 0 } else { random.random_range(1..=u32::MAX) },
        place: if place > 0 { random.random() } else { 0 },
        payload: (0..length).map(|_| random.random::<u8>()).collect(),
    }
}

fn all_of(decoder: &mut Decoder, mut input: &[u8]) -> Result<Vec<Frame>, FrameError> {
    std::iter::from_fn(|| decoder.next(&mut input).transpose()).map(|frame| frame.map(Received::into_frame)).collect()
}

fn first_of(decoder: &mut Decoder, mut input: &[u8]) -> Result<Option<Frame>, FrameError> {
    decoder.next(&mut input).map(|frame| frame.map(Received::into_frame))
}

fn header(kind: u8, flags: u8, stream: u32, length: u32) -> Vec<u8> {
    [&[kind, flags][..], &stream.to_be_bytes(), &length.to_be_bytes()].concat()
}

#[test]
fn frames_come_back_as_they_went_with_padding_between_them() {
    let seed: u64 = rand::random();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..200 {
        let frames: Vec<Frame> = (0..random.random_range(1..8)).map(|_| any_frame(&mut random)).collect();
        let mut bytes = Vec::new();
        for frame in &frames {
            let before = bytes.len();
            frame.encode(&mut bytes);
            assert_eq!(bytes.len() - before, frame.encoded_len(), "seed {seed}");
            bytes.resize(bytes.len() + random.random_range(0..40), 0);
        }
        let (mut decoder, mut seen, mut rest) = (Decoder::default(), Vec::new(), &bytes[..]);
        while !rest.is_empty() {
            let (part, after) = rest.split_at(random.random_range(1..=rest.len().min(20_000)));
            seen.extend(all_of(&mut decoder, part).unwrap());
            rest = after;
        }
        assert_eq!(seen, frames, "seed {seed}");
    }
}

#[test]
fn frames_survive_every_split_and_wait_at_every_truncation() {
    let frames = [
        Frame::new(FrameKind::Data, FLAG_MORE, 7, Bytes::from_static(b"hello")),
        Frame::new(FrameKind::Ping, 0, 0, Bytes::from_static(b"12345678")),
        Frame { kind: FrameKind::Bulk, flags: FLAG_MORE, stream: 8, place: 1 << 40, payload: Bytes::from_static(b"x") },
        Frame::new(FrameKind::Data, FLAG_FIN, u32::MAX, Bytes::new()),
    ];
    let (mut all, mut ends) = (vec![0; 3], Vec::new());
    for frame in &frames {
        frame.encode(&mut all);
        ends.push(all.len());
        all.extend_from_slice(&[0; 9]);
    }
    for split in 0..=all.len() {
        let mut decoder = Decoder::default();
        let mut seen = all_of(&mut decoder, &all[..split]).unwrap();
        assert_eq!(seen.len(), ends.iter().filter(|end| **end <= split).count(), "truncated at {split}");
        seen.extend(all_of(&mut decoder, &all[split..]).unwrap());
        assert_eq!(seen, frames, "split at {split}");
    }
}

#[test]
fn refuses_a_length_beyond_its_kind_before_the_payload_arrives() {
    for kind in KINDS {
        let (least, limit) = kind.payload_limits();
        let stream = u32::from(!kind.may_name(0));
        for (length, good) in [(limit, true), (limit + 1, false), (u32::MAX as usize, false)] {
            let mut decoder = Decoder::default();
            let error = FrameError::TooLong { length: length as u64, limit };
            let seen = first_of(&mut decoder, &header(kind.byte(), 0, stream, length as u32));
            assert_eq!(seen.err(), (!good).then_some(error), "{kind:?}");
            let room = decoder.partial.map_or(0, |partial| partial.payload.capacity());
            assert!(room <= ROOM_AHEAD, "little room is made on a header's word");
        }
        if least > 0 {
            let mut decoder = Decoder::default();
            assert_eq!(
                first_of(&mut decoder, &header(kind.byte(), 0, stream, least as u32 - 1)),
                Err(FrameError::TooShort { length: least - 1, least }),
                "{kind:?}"
            );
        }
    }
}

#[test]
fn refuses_unknown_kinds_and_flags_and_wrong_streams() {
    for kind in 13..128 {
        let mut decoder = Decoder::default();
        assert_eq!(first_of(&mut decoder, &header(kind, 0, 0, 0)), Err(FrameError::UnknownKind(kind)));
    }
    for kind in KINDS {
        let stream = u32::from(!kind.may_name(0));
        for flags in 0..=u8::MAX {
            let mut decoder = Decoder::default();
            let seen = first_of(&mut decoder, &header(kind.byte(), flags, stream, kind.payload_limits().0 as u32));
            let most = if matches!(kind, FrameKind::Data | FrameKind::Bulk) { FLAG_FIN } else { 0 };
            assert_eq!(seen.err(), (flags > most).then_some(FrameError::Flags(flags)), "{kind:?} {flags}");
        }
        let mut decoder = Decoder::default();
        assert_eq!(
            first_of(&mut decoder, &header(kind.byte(), 0, 1 - stream, 0)),
            Err(FrameError::Stream(1 - stream)),
            "{kind:?}"
        );
    }
}

#[test]
fn the_end_of_a_stream_with_content_or_with_more_to_come_is_refused_by_its_header() {
    for (kind, nothing) in [(FrameKind::Data, 0), (FrameKind::Bulk, PLACE_LEN as u32)] {
        for (flags, length) in [(FLAG_FIN, nothing + 1), (FLAG_FIN | FLAG_MORE, nothing), (FLAG_FIN | FLAG_MORE, 100)] {
            let mut decoder = Decoder::default();
            let seen = first_of(&mut decoder, &header(kind.byte(), flags, 1, length));
            assert_eq!(seen, Err(FrameError::Flags(flags)), "{kind:?} {flags} {length}");
        }
    }
}

#[test]
fn optional_frames_are_skipped_in_any_split_and_never_buffered() {
    let next = Frame::new(FrameKind::Ping, 0, 0, Bytes::from_static(b"\0\0\0\0\0\0\0\x01"));
    let mut bytes = header(200, 0xff, 0, 65_536);
    bytes.extend((0..65_536_u32).map(|i| i as u8));
    next.encode(&mut bytes);
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    for part in bytes.chunks(1_000) {
        seen.extend(all_of(&mut decoder, part).unwrap());
        assert!(decoder.partial.is_none());
    }
    assert_eq!(seen, [Frame::new(FrameKind::Optional(200), 0xff, 0, Bytes::new()), next]);
    let mut decoder = Decoder::default();
    assert_eq!(
        first_of(&mut decoder, &header(128, 0, 0, 65_537)),
        Err(FrameError::TooLong { length: 65_537, limit: 65_536 })
    );
}
