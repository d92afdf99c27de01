//! When memory, disk or threads run short: the thresholds, and how long a shortage is remembered.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::readings::Readings;

/// A shortage is said for this long after it was last seen, so that pods do not go to and fro.
const REMEMBERED: Duration = Duration::from_secs(60);

/// When there is too little left; the kubelet's own defaults where it has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thresholds {
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Of the state folder's file system, percent; and less than `disk_bytes`, too.
    pub disk_percent: u64,
    /// Of the state folder's file system, bytes; and less than `disk_percent`, too.
    pub disk_bytes: u64,
    /// Of its files, percent.
    pub inodes_percent: u64,
    /// Of the threads that there can be, percent.
    pub threads_percent: u64,
}

impl Default for Thresholds {
    fn default() -> Self {
        // memory.available<100Mi, nodefs.available<10%, nodefs.inodesFree<5%; the kubelet sets
        // none for threads. A tenth of a large disk is not little for modules of some megabytes
        // and logs of 50 MiB a pod, hence the bytes.
        Thresholds {
            memory_bytes: 100 << 20,
            disk_percent: 10,
            disk_bytes: 5 << 30,
            inodes_percent: 5,
            threads_percent: 5,
        }
    }
}

/// What is short now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shortage {
    /// Memory.
    pub memory: bool,
    /// Disk space, or files.
    pub disk: bool,
    /// Threads.
    pub threads: bool,
}

impl Thresholds {
    fn shortage(&self, now: &Readings) -> Shortage {
        let below = |left: u64, all: u64, percent: u64| {
            u128::from(left) * 100 < u128::from(all) * u128::from(percent)
        };
        Shortage {
            memory: now.memory_available_bytes < self.memory_bytes,
            disk: below(now.disk_available_bytes, now.disk_bytes, self.disk_percent)
                && now.disk_available_bytes < self.disk_bytes
                || below(now.inodes_free, now.inodes, self.inodes_percent),
            threads: below(
                now.threads_max.saturating_sub(now.threads),
                now.threads_max,
                self.threads_percent,
            ),
        }
    }
}

/// Shortages with their memory.
#[derive(Debug)]
pub struct Pressure {
    thresholds: Thresholds,
    seen: [Option<Instant>; 3],
}

impl Pressure {
    /// Nothing was short yet.
    pub fn new(thresholds: Thresholds) -> Self {
        Pressure { thresholds, seen: [None; 3] }
    }

    /// What is short by these readings, and what counts as short after them.
    pub fn observe(&mut self, readings: &Readings) -> (Shortage, Shortage) {
        let now = Instant::now();
        let shortage = self.thresholds.shortage(readings);
        let mut held = [shortage.memory, shortage.disk, shortage.threads];
        for (short, seen) in held.iter_mut().zip(&mut self.seen) {
            if *short {
                *seen = Some(now);
            }
            *short = seen.is_some_and(|seen| now.duration_since(seen) < REMEMBERED);
        }
        let [memory, disk, threads] = held;
        (shortage, Shortage { memory, disk, threads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plenty() -> Readings {
        Readings {
            cpu_millis: 4000,
            cpu_used: Duration::from_secs(1),
            memory_bytes: 8 << 30,
            memory_available_bytes: 4 << 30,
            disk_bytes: 100,
            disk_available_bytes: 50,
            inodes: 100,
            inodes_free: 50,
            threads_max: 1000,
            threads: 100,
        }
    }

    #[test]
    fn each_shortage_has_its_threshold() {
        let thresholds = Thresholds::default();
        assert_eq!(thresholds.shortage(&plenty()), Shortage::default());
        let short = |change: fn(&mut Readings)| {
            let mut readings = plenty();
            change(&mut readings);
            let Shortage { memory, disk, threads } = thresholds.shortage(&readings);
            (memory, disk, threads)
        };
        assert_eq!(short(|r| r.memory_available_bytes = (100 << 20) - 1), (true, false, false));
        assert_eq!(short(|r| r.disk_available_bytes = 9), (false, true, false));
        let large = |r: &mut Readings| (r.disk_bytes, r.disk_available_bytes) = (1 << 40, 6 << 30);
        assert_eq!(short(large), (false, false, false), "6 GiB are enough");
        assert_eq!(short(|r| r.inodes_free = 4), (false, true, false));
        assert_eq!(short(|r| r.threads = 951), (false, false, true));
        let uncounted = |r: &mut Readings| (r.inodes, r.inodes_free) = (0, 0);
        assert_eq!(short(uncounted), (false, false, false), "btrfs does not count files");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortage_is_remembered_for_a_minute() {
        let mut pressure = Pressure::new(Thresholds::default());
        let mut low = plenty();
        low.memory_available_bytes = 0;
        let (measured, held) = pressure.observe(&low);
        assert!(measured.memory && held.memory);
        tokio::time::advance(Duration::from_secs(59)).await;
        let (measured, held) = pressure.observe(&plenty());
        assert!(!measured.memory && held.memory);
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(pressure.observe(&plenty()), (Shortage::default(), Shortage::default()));
    }
}
