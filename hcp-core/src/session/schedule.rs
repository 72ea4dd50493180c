//! Whose turn it is to send: CONTROL before LIVE before BULK, and none starves.

/// How many classes there are: one for each [`Priority`](super::Priority), in its order.
pub(super) const CLASSES: usize = 3;
/// Bytes that may go past a waiting class before one frame of it goes: two full batches, so that under load from above
/// each lower class still gets about a tenth.
const PATIENCE: usize = 2 * 65_536;

/// Counts what went past each class while it waited.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    passed: [usize; CLASSES],
}

impl Schedule {
    /// The class whose turn it is among those that have something to send.
    pub(super) fn turn(&self, ready: [bool; CLASSES]) -> Option<usize> {
        let impatient = (1..CLASSES).rev().find(|class| ready[*class] && self.passed[*class] >= PATIENCE);
        impatient.or_else(|| ready.iter().position(|ready| *ready))
    }

    /// Notes that `class` sent `length` bytes while `ready` had something to send.
    pub(super) fn sent(&mut self, class: usize, length: usize, ready: [bool; CLASSES]) {
        self.passed[class] = 0;
        for (passed, ready) in self.passed.iter_mut().zip(ready).skip(class + 1) {
            *passed = if ready { *passed + length } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_classes_go_first_and_none_starves() {
        let mut schedule = Schedule::default();
        let mut sent = [0; CLASSES];
        for _ in 0..9_000 {
            let class = schedule.turn([true; CLASSES]).unwrap();
            schedule.sent(class, 16_384, [true; CLASSES]);
            sent[class] += 1;
        }
        assert!(sent[0] > 6_000, "{sent:?}");
        assert!(sent[1] >= 850 && sent[2] >= 850, "{sent:?}");
        assert_eq!(Schedule::default().turn([false, true, true]), Some(1));
        assert_eq!(Schedule::default().turn([false; CLASSES]), None);
    }
}
