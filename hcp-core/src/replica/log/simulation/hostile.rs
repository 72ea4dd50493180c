//! What members that lie do.

use super::disk::Disk;
use super::plan::Plan;
use super::{Checked, World};
use crate::replica::log::message::Message;

/// What liars keep in mind, and what the world does of faults.
#[derive(Debug)]
pub(super) struct Liar {
    pub(super) victims: Vec<usize>,
    pub(super) backup: Option<(usize, Disk)>,
}

impl Liar {
    pub(super) fn new(_plan: &Plan) -> Self {
        Self { victims: Vec::new(), backup: None }
    }
}

impl World {
    pub(super) fn twist(&mut self, _from: usize, _to: usize, message: Message) -> Vec<Message> {
        vec![message]
    }

    pub(super) fn overhear(&mut self, _from: usize, _to: usize, _message: &Message) {}

    pub(super) fn lie(&mut self) -> Checked {
        Ok(())
    }
}
