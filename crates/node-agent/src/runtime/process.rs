//! Processes as `/proc` shows them: who they are, what they use, and how to signal the right one.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    time::Duration,
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks from boot to its start.
    start: u64,
    /// Which boot that was.
    boot: String,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        Ok(Self { pid, start: Stat::of(pid)?.start, boot: boot()? })
    }

    /// A descriptor of it, unless it is gone.
    pub(crate) fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        // First the descriptor, then the look: from here on the number cannot pass to another.
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        let stat = Stat::of(self.pid).ok()?;
        let alive = !stat.ended && stat.start == self.start && boot().ok()? == self.boot;
        alive.then_some(descriptor)
    }

    /// Sends a signal; false when the process is gone.
    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.open().is_some_and(|process| pidfd_send_signal(process.as_fd(), signal).is_ok())
    }

    /// Processor time, of all its threads.
    pub(crate) fn cpu(&self) -> io::Result<Duration> {
        let stat = Stat::of(self.pid)?;
        if stat.start != self.start {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(stat.cpu)
    }
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

/// What `/proc/PID/stat` says, as far as it matters here.
struct Stat {
    start: u64,
    cpu: Duration,
    /// It has ended, and waits for its parent to ask how.
    ended: bool,
}

impl Stat {
    fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, brackets too.
        let fields: Vec<&str> =
            text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let ended = matches!(*fields.first()?, "Z" | "X" | "x");
        let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
        // proc(5): fields 14, 15 and 22, counted from the one behind the name, which is 3.
        let ticks = number(11)? + number(12)?;
        let cpu = Duration::from_millis(ticks * (1000 / TICKS_PER_SECOND));
        Some(Self { start: number(19)?, cpu, ended })
    }
}

// USER_HZ, which is the same on every processor that Linux runs on today.
const TICKS_PER_SECOND: u64 = 100;

/// Resident memory of a process, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Anonymous and shared memory: what cannot be had again from a file.
    pub(crate) limited: u64,
    /// All of it.
    pub(crate) resident: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn parse(text: &str) -> Option<Self> {
        let kib = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        let limited = kib("RssAnon:")? + kib("RssShmem:")?;
        Some(Self { limited: limited << 10, resident: (limited + kib("RssFile:")?) << 10 })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_not_by_its_number() {
        let mut child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let process = Process::of(child.id()).unwrap();
        assert!(process.open().is_some());
        let recycled = Process { start: process.start - 1, ..process.clone() };
        assert!(recycled.open().is_none());
        let other_boot = Process { boot: "another".into(), ..process.clone() };
        assert!(other_boot.open().is_none());
        assert!(!other_boot.signal(Signal::KILL));
        assert!(process.signal(Signal::KILL));
        assert!(!child.wait().unwrap().success());
        assert!(process.open().is_none());
    }

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let text = "7 (a) R 1 (b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0 20 0 1 0 4711 1 1";
        let stat = Stat::parse(text).unwrap();
        assert_eq!((stat.start, stat.cpu, stat.ended), (4711, Duration::from_millis(1750), false));
        let zombie = Stat::parse("7 (a) Z 1 2 3 4 5 6 7 8 9 10 0 0 0 0 20 0 1 0 4711 1").unwrap();
        assert!(zombie.ended);
        assert!(Stat::parse("7 (a").is_none());
    }

    #[test]
    fn memory_of_this_process_is_found() {
        let block = std::hint::black_box(vec![1_u8; 32 << 20]);
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(memory.limited >= block.len() as u64 && memory.resident > memory.limited);
        assert!(Memory::parse("Name: kthreadd\n").is_none());
    }
}
