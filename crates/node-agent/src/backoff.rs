//! Waits between attempts: doubled up to a limit, and never the same on two nodes.

use std::time::Duration;

/// Doubling waits with jitter.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    next: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits from `first` up to `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Backoff { first, next: first, longest }
    }

    /// The next wait: between half and the whole of what is due, so that a thousand nodes that
    /// lost the API server at one moment do not all come back at one.
    pub fn next_wait(&mut self) -> Duration {
        let due = self.next;
        self.next = (due * 2).min(self.longest);
        due.mul_f64(0.5 + 0.5 * random_fraction())
    }

    /// Waits that long.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }

    /// After success: the next failure waits briefly again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// A number in `0.0..1.0`, good enough to spread load.
pub fn random_fraction() -> f64 {
    // Without entropy every node would do the same thing at the same time, which is all that is
    // lost.
    let bits = getrandom::u64().unwrap_or(u64::MAX / 2);
    (bits >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_again_after_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(8));
        for due in [1, 2, 4, 8, 8, 8] {
            let wait = backoff.next_wait().as_secs_f64();
            let due = f64::from(due);
            assert!((due / 2.0..=due).contains(&wait), "{wait} s where {due} s were due");
        }
        backoff.reset();
        assert!(backoff.next_wait() <= Duration::from_secs(1));
    }

    #[test]
    fn two_nodes_do_not_wait_equally_long() {
        let waits: Vec<_> = (0..8).map(|_| random_fraction()).collect();
        assert!(waits.iter().all(|wait| (0.0..1.0).contains(wait)));
        assert!(waits.windows(2).any(|pair| pair[0] != pair[1]));
    }
}
