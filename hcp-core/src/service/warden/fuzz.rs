//! Arbitrary bytes as what a node asks, and as what a warden answers.

use super::codec::{Answer, Question};
use crate::owner::Grant;

/// What is taken is to the byte what would be sent, and not longer than it may be.
pub(crate) fn message(data: &[u8]) {
    if let Some(question) = Question::decode(data) {
        assert_eq!(question.encode(), data);
    }
    if let Some(answer) = Answer::decode(data) {
        assert_eq!(answer.encode(), data);
        if let Answer::Grant(grant) = answer {
            assert!((1..=Grant::MAX_LEN).contains(&grant.len()));
        }
    }
}
