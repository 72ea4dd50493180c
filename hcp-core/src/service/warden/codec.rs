//! What a node and a warden say to each other, one message each.

use zeroize::Zeroizing;

use crate::identity::OnionAddress;
use crate::identity::fields::Fields;
use crate::owner::Grant;
use crate::session::MAX_MESSAGE;

/// What a node asks: what comes after the grant with this serial, for the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) service: OnionAddress,
    /// 0 when it holds none.
    pub(super) above: u64,
}

/// What a warden answers.
#[derive(PartialEq, Eq)]
pub(super) enum Answer {
    /// Unverified.
    Grant(Zeroizing<Vec<u8>>),
    /// Nothing now, and when there will be, in Unix seconds.
    Nothing { next: Option<u64> },
    /// There never was anything for this node.
    Unknown,
    /// Busy.
    Later,
}

impl Question {
    pub(super) fn encode(self) -> Vec<u8> {
        let mut out = vec![LAYOUT];
        out.extend_from_slice(self.service.public_key());
        out.extend_from_slice(&self.above.to_be_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::new(bytes);
        fields.u8().filter(|layout| *layout == LAYOUT)?;
        let question = Self { service: fields.address()?, above: fields.u64()? };
        fields.end().map(|()| question)
    }
}

impl Answer {
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Grant(grant) => [&[GRANT], grant.as_slice()].concat(),
            Self::Nothing { next } => [&[NOTHING][..], &next.unwrap_or(0).to_be_bytes()].concat(),
            Self::Unknown => vec![UNKNOWN],
            Self::Later => vec![LATER],
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        match (*kind, rest.len()) {
            (GRANT, 1..=Grant::MAX_LEN) => Some(Self::Grant(Zeroizing::new(rest.to_vec()))),
            (NOTHING, 8) => {
                let next = u64::from_be_bytes(rest.try_into().ok()?);
                Some(Self::Nothing { next: (next > 0).then_some(next) })
            }
            (UNKNOWN, 0) => Some(Self::Unknown),
            (LATER, 0) => Some(Self::Later),
            _ => None,
        }
    }
}

const LAYOUT: u8 = 1;
const GRANT: u8 = 0;
const NOTHING: u8 = 1;
const UNKNOWN: u8 = 2;
const LATER: u8 = 3;

/// The longest grant fits into a message, behind its kind.
const _: () = assert!(Grant::MAX_LEN < MAX_MESSAGE);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    #[test]
    fn what_is_said_is_understood_and_nothing_else() {
        let service = Identity::from_seed(&[1; 32]).address();
        let question = Question { service, above: 0x0102 };
        let bytes = question.encode();
        // Section 18 of docs/protocol.md.
        assert_eq!(bytes, [&[1][..], service.public_key(), &[0, 0, 0, 0, 0, 0, 1, 2]].concat());
        assert_eq!(Question::decode(&bytes), Some(question));
        let other_layout = [&[2], &bytes[1..]].concat();
        let no_key = [&[1][..], &[0; 32], &[0; 8]].concat();
        for wrong in [&bytes[..40], &[&bytes[..], &[0]].concat(), &other_layout, &no_key, &[]] {
            assert_eq!(Question::decode(wrong), None, "{wrong:?}");
        }

        let grant = |len| Answer::Grant(Zeroizing::new(vec![7; len]));
        let answers = [
            (grant(2), vec![0, 7, 7]),
            (Answer::Nothing { next: None }, vec![1, 0, 0, 0, 0, 0, 0, 0, 0]),
            (Answer::Nothing { next: Some(258) }, vec![1, 0, 0, 0, 0, 0, 0, 1, 2]),
            (Answer::Unknown, vec![2]),
            (Answer::Later, vec![3]),
        ];
        for (answer, bytes) in answers {
            assert_eq!(answer.encode(), bytes);
            assert!(Answer::decode(&bytes) == Some(answer), "{bytes:?}");
        }
        assert!(Answer::decode(&grant(Grant::MAX_LEN).encode()).is_some());
        let too_long = grant(Grant::MAX_LEN + 1).encode();
        for wrong in [&[][..], &[0], &too_long, &[1, 0], &[1; 10], &[2, 0], &[3, 0], &[4]] {
            assert!(Answer::decode(wrong).is_none(), "{:?} …", wrong.first());
        }
    }
}
