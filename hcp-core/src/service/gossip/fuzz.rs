//! Arbitrary bytes as a message.
