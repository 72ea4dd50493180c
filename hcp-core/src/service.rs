//! One onion address, many nodes: who lists whom, who publishes, who takes over from whom.
//!
//! Every node keeps introduction points of its own. The nodes tell each other of them ([`gossip`]), one of them uploads a
//! descriptor that lists them all, and when a node falls silent the others list it no more and establish its points in its
//! place. Deciding all that is [`machine`]'s, which has neither I/O nor a clock nor randomness of its own and is simulated
//! with seeds (`simulation`); the numbers stand in [`tuning`].

pub(crate) mod gossip;
pub(crate) mod machine;
pub(crate) mod roster;
#[cfg(test)]
mod simulation;
pub(crate) mod tuning;
