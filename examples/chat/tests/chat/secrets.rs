//! Locked profiles.
