//! The comparison: what of the core a binding has, what it lacks with a reason, and what is wrong.

use std::collections::BTreeMap;

use super::binding::Binding;
use super::core_api::ApiItem;

/// Why a binding lacks something, by path in the core.
pub(crate) type Reasons = BTreeMap<String, String>;

/// What came of a comparison.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) covered: usize,
    pub(crate) excused: usize,
    /// One line for each thing that must be put right.
    pub(crate) problems: Vec<String>,
}

/// Reads a `parity.toml`: core paths and reasons, nothing else.
pub(crate) fn parse_reasons(text: &str) -> Result<Reasons, String> {
    toml::from_str(text).map_err(|error| error.to_string())
}

/// Compares a binding with the core.
///
/// The reason of a module or type counts for everything below it. It is stale when the binding has the item itself, or,
/// for a module, all that is in it.
pub(crate) fn compare(core: &[ApiItem], binding: &Binding, reasons: &Reasons) -> Report {
    let mut report = Report::default();
    for item in core {
        let key = item.key();
        let is_excused = reasons.keys().any(|reason| is_at_or_below(&key, reason));
        match (binding.has(item), is_excused) {
            (true, _) => report.covered += 1,
            (false, true) => report.excused += 1,
            (false, false) => {
                let features: Vec<&str> = item.features.iter().map(String::as_str).collect();
                let gate =
                    if features.is_empty() { String::new() } else { format!(" (feature {})", features.join(", ")) };
                report.problems.push(format!("missing without a reason: {key}{gate}"));
            }
        }
    }
    for (key, reason) in reasons {
        if reason.split_whitespace().count() < 3 {
            report.problems.push(format!("the reason for {key} has fewer than three words"));
        }
        let mut named = core.iter().filter(|item| item.key() == *key).peekable();
        let is_stale = match named.peek() {
            Some(_) => named.all(|item| binding.has(item)),
            None => {
                let mut below = core.iter().filter(|item| is_at_or_below(&item.key(), key)).peekable();
                if below.peek().is_none() {
                    report.problems.push(format!("a reason for what the core does not have: {key}"));
                    continue;
                }
                below.all(|item| binding.has(item))
            }
        };
        if is_stale {
            report.problems.push(format!("a stale reason, the binding has it: {key}"));
        }
    }
    report
}

fn is_at_or_below(key: &str, above: &str) -> bool {
    key.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}
