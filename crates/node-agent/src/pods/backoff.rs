//! Waiting longer after each failure: for restarts and for pulls.

use std::time::Duration;

/// The first wait, and the longest: the kubelet's numbers.
pub(crate) const FIRST: Duration = Duration::from_secs(10);
/// See [`FIRST`].
pub(crate) const LONGEST: Duration = Duration::from_secs(300);
/// A run that lasted this long clears what was before it.
pub(crate) const RESET_AFTER: Duration = Duration::from_secs(600);

/// Doubles from 10 s to 300 s.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// For pulls: the first failure waits 10 s.
    pub(crate) fn for_pulls() -> Self {
        Backoff { next: FIRST }
    }

    /// For restarts: the first one is immediate, the second waits 10 s, as with the kubelet.
    pub(crate) fn for_restarts() -> Self {
        Backoff { next: Duration::ZERO }
    }

    /// How long to wait now; the next wait is twice as long.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = if wait.is_zero() { FIRST } else { (wait * 2).min(LONGEST) };
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_minutes() {
        let seconds = |mut backoff: Backoff| -> Vec<u64> {
            (0..8).map(|_| backoff.wait().as_secs()).collect()
        };
        assert_eq!(seconds(Backoff::for_pulls()), [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(seconds(Backoff::for_restarts()), [0, 10, 20, 40, 80, 160, 300, 300]);
    }
}
