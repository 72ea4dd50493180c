//! What an operation says: encoding, decoding with every limit checked, and the mark by which its maker knows it again.

use prost::Message as _;

use super::message::MessageId;
use super::text::{FileName, Text};
use super::transfer::{MAX_FILE, TransferFailure, TransferId, TransferState};
use crate::identity::OnionAddress;
use crate::wire::messenger_proto as proto;

/// The longest encoded content: a text with room for its framing.
pub(super) const MAX_CONTENT: usize = super::text::MAX_TEXT + 1024;
/// The length of a mark, in bytes.
pub(super) const MARK_LEN: usize = 16;

/// An operation's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// By its maker's clock, in milliseconds since 1970.
    pub(super) millis: u64,
    pub(super) what: What,
}

/// What an operation does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Text(Text),
    Offer(Offered),
    /// A transfer ended at its maker's side.
    End {
        transfer: TransferId,
        outcome: Outcome,
    },
}

/// A file that is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) transfer: TransferId,
    pub(super) name: FileName,
    pub(super) size: u64,
    pub(super) root: [u8; 32],
}

/// How a transfer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Done,
    Declined,
    Cancelled,
    Failed(TransferFailure),
}

impl Outcome {
    pub(super) fn state(self) -> TransferState {
        match self {
            Self::Done => TransferState::Done,
            Self::Declined => TransferState::Declined,
            Self::Cancelled => TransferState::Cancelled,
            Self::Failed(reason) => TransferState::Failed(reason),
        }
    }
}

impl Content {
    pub(super) fn encode(&self) -> Vec<u8> {
        let what = match &self.what {
            What::Text(text) => proto::content::What::Text(text.as_str().to_owned()),
            What::Offer(Offered { transfer, name, size, root }) => proto::content::What::Offer(proto::FileOffer {
                transfer: transfer.0.to_vec().into(),
                name: name.as_str().to_owned(),
                size: *size,
                root: root.to_vec().into(),
            }),
            What::End { transfer, outcome } => proto::content::What::End(proto::FileEnd {
                transfer: transfer.0.to_vec().into(),
                outcome: encode_outcome(*outcome).into(),
            }),
        };
        proto::Content { millis: self.millis, what: Some(what) }.encode_to_vec()
    }

    /// Reads a content and checks everything in it. `Ok(None)` is one of a kind that this version does not know, which is
    /// kept and not shown.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        if bytes.len() > MAX_CONTENT {
            return Err(Malformed);
        }
        let content = proto::Content::decode(bytes).map_err(|_| Malformed)?;
        let what = match content.what {
            None => return Ok(None),
            Some(proto::content::What::Text(text)) => What::Text(Text::new(&text).map_err(|_| Malformed)?),
            Some(proto::content::What::Offer(offer)) => {
                if offer.size > MAX_FILE {
                    return Err(Malformed);
                }
                What::Offer(Offered {
                    transfer: TransferId(array(&offer.transfer)?),
                    name: FileName::new(&offer.name).map_err(|_| Malformed)?,
                    size: offer.size,
                    root: array(&offer.root)?,
                })
            }
            Some(proto::content::What::End(end)) => match decode_outcome(end.outcome()) {
                Some(outcome) => What::End { transfer: TransferId(array(&end.transfer)?), outcome },
                None => return Ok(None),
            },
        };
        Ok(Some(Self { millis: content.millis, what }))
    }
}

/// Bytes that are no content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// The mark of what was written to `contact`: whoever does not hold the key can neither make nor move one.
pub(super) fn mark(key: &[u8; 32], contact: &OnionAddress, id: MessageId, content: &[u8]) -> [u8; MARK_LEN] {
    let mut hasher = blake3::Hasher::new_keyed(key);
    hasher.update(b"HCP/1 mark\0").update(contact.public_key()).update(&id.0).update(content);
    let mut mark = [0; MARK_LEN];
    hasher.finalize_xof().fill(&mut mark);
    mark
}

pub(super) fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Malformed> {
    bytes.try_into().map_err(|_| Malformed)
}

fn encode_outcome(outcome: Outcome) -> proto::file_end::Outcome {
    use proto::file_end::Outcome as Wire;
    match outcome {
        Outcome::Done => Wire::Done,
        Outcome::Declined => Wire::Declined,
        Outcome::Failed(TransferFailure::Mismatch) => Wire::Mismatch,
        Outcome::Failed(TransferFailure::SourceChanged) => Wire::SourceChanged,
        Outcome::Failed(TransferFailure::Disk) => Wire::Disk,
        Outcome::Cancelled | Outcome::Failed(TransferFailure::Removed) => Wire::Cancelled,
    }
}

fn decode_outcome(outcome: proto::file_end::Outcome) -> Option<Outcome> {
    use proto::file_end::Outcome as Wire;
    Some(match outcome {
        Wire::Unknown => return None,
        Wire::Done => Outcome::Done,
        Wire::Declined => Outcome::Declined,
        Wire::Cancelled => Outcome::Cancelled,
        Wire::Mismatch => Outcome::Failed(TransferFailure::Mismatch),
        Wire::SourceChanged => Outcome::Failed(TransferFailure::SourceChanged),
        Wire::Disk => Outcome::Failed(TransferFailure::Disk),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> What {
        What::Text(Text::new(text).unwrap())
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        let transfer = TransferId([3; 16]);
        let name = FileName::new("a.txt").unwrap();
        let offer = What::Offer(Offered { transfer, name, size: MAX_FILE, root: [9; 32] });
        let outcomes = [
            Outcome::Done,
            Outcome::Declined,
            Outcome::Cancelled,
            Outcome::Failed(TransferFailure::Mismatch),
            Outcome::Failed(TransferFailure::SourceChanged),
            Outcome::Failed(TransferFailure::Disk),
        ];
        let ends = outcomes.map(|outcome| What::End { transfer, outcome });
        for what in [text("hi\nthere"), offer].into_iter().chain(ends) {
            let content = Content { millis: 7, what };
            assert_eq!(Content::decode(&content.encode()), Ok(Some(content)));
        }
    }

    #[test]
    fn refuses_what_breaks_a_limit() {
        let long = proto::content::What::Text("x".repeat(super::super::text::MAX_TEXT + 1));
        let empty = proto::content::What::Text(" ".into());
        let offer = |transfer: usize, size, root: usize, name: &str| {
            proto::content::What::Offer(proto::FileOffer {
                transfer: vec![1; transfer].into(),
                name: name.into(),
                size,
                root: vec![2; root].into(),
            })
        };
        for what in [
            long,
            empty,
            offer(15, 1, 32, "a"),
            offer(16, MAX_FILE + 1, 32, "a"),
            offer(16, 1, 31, "a"),
            offer(16, 1, 32, &"x".repeat(256)),
        ] {
            let bytes = proto::Content { millis: 0, what: Some(what) }.encode_to_vec();
            assert_eq!(Content::decode(&bytes), Err(Malformed));
        }
        assert_eq!(Content::decode(&vec![0x0a; MAX_CONTENT + 1]), Err(Malformed));
        assert_eq!(Content::decode(&[]), Ok(None), "a kind of a later version");
    }

    #[test]
    fn a_mark_fits_one_content_to_one_contact() {
        let (a, b) = (address(1), address(2));
        let (id, other) = (MessageId([1; 16]), MessageId([2; 16]));
        let good = mark(&[7; 32], &a, id, b"x");
        assert_eq!(good, mark(&[7; 32], &a, id, b"x"));
        for bad in [mark(&[8; 32], &a, id, b"x"), mark(&[7; 32], &b, id, b"x"), mark(&[7; 32], &a, other, b"x")] {
            assert_ne!(good, bad);
        }
        assert_ne!(good, mark(&[7; 32], &a, id, b"y"));
    }

    fn address(seed: u8) -> OnionAddress {
        crate::identity::Identity::from_seed(&[seed; 32]).address()
    }
}
