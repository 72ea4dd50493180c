//! Arbitrary bytes as frames.

use super::{Decoder, Frame, FrameError, FrameKind};

/// However the input is cut, the same frames come out of it, up to the same error; and they are what they are encoded to.
///
/// The first byte says where it is cut.
pub(crate) fn frames(data: &[u8]) {
    let Some((cut, bytes)) = data.split_first() else { return };
    let (whole, end) = decoded([bytes]);
    let (in_pieces, end_in_pieces) = decoded(bytes.chunks(usize::from(*cut) + 1));
    assert_eq!((&in_pieces, end_in_pieces), (&whole, end));
    let mut encoded = Vec::new();
    // Of an optional frame the payload is gone.
    let known: Vec<Frame> = whole.into_iter().filter(|frame| !matches!(frame.kind, FrameKind::Optional(_))).collect();
    known.iter().for_each(|frame| frame.encode(&mut encoded));
    assert_eq!(encoded.len(), known.iter().map(Frame::encoded_len).sum::<usize>());
    assert!(encoded.len() <= bytes.len());
    assert_eq!(decoded([encoded.as_slice()]), (known, None));
}

fn decoded<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Frame>, Option<FrameError>) {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    for piece in pieces {
        let mut piece = piece;
        loop {
            match decoder.next(&mut piece) {
                Ok(Some(frame)) => frames.push(frame.into_frame()),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}
