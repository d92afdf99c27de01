//! What the machine has and uses, read from /proc, the agent's cgroup and the file system. The
//! agent's cgroup counts, as the pods run inside it: in a container of 4 GiB the node has 4 GiB.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The kernel counts processor time in hundredths of a second for programs, whatever its own tick.
const TICKS_PER_SECOND: u64 = 100;

/// The machine could not be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadingError {
    /// A file is missing or unreadable.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file says something else than expected.
    #[error("{path} has no `{what}`")]
    Form {
        /// Which.
        path: String,
        /// What was looked for.
        what: &'static str,
    },
}

/// One look at the machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    /// Thousandths of a core that the agent and its pods may use.
    pub cpu_millis: u64,
    /// Processor time used since the machine started, all cores.
    pub cpu_used: Duration,
    /// Memory that the agent and its pods may use, bytes.
    pub memory_bytes: u64,
    /// What of it can still be had.
    pub memory_available_bytes: u64,
    /// Size of the file system that holds the state folder, bytes.
    pub disk_bytes: u64,
    /// What of it can still be had.
    pub disk_available_bytes: u64,
    /// How many files it can hold; 0 when it does not count them.
    pub inodes: u64,
    /// How many more.
    pub inodes_free: u64,
    /// How many threads there can be.
    pub threads_max: u64,
    /// How many there are.
    pub threads: u64,
}

impl Readings {
    /// Memory in use that cannot be dropped at once, bytes.
    pub fn working_set_bytes(&self) -> u64 {
        self.memory_bytes.saturating_sub(self.memory_available_bytes)
    }
}

/// Where to look.
#[derive(Debug, Clone)]
pub struct Machine {
    proc: PathBuf,
    cgroup: PathBuf,
    state_dir: PathBuf,
}

impl Machine {
    /// This machine, with pods' state in `state_dir`.
    pub fn here(state_dir: &Path) -> Self {
        Machine {
            proc: "/proc".into(),
            cgroup: "/sys/fs/cgroup".into(),
            state_dir: state_dir.to_owned(),
        }
    }

    /// Looks at everything.
    ///
    /// # Errors
    /// [`ReadingError`].
    pub fn read(&self) -> Result<Readings, ReadingError> {
        let groups = self.groups();
        let memory = self.memory()?;
        let (memory_bytes, memory_available_bytes) = groups
            .iter()
            .filter_map(|group| group_memory(group))
            .fold(memory, |(total, available), (limit, left)| {
                (total.min(limit), available.min(left))
            });
        let cores = self.cores()?;
        let cpu_millis = groups
            .iter()
            .filter_map(|group| group_cpu(group))
            .fold(cores.saturating_mul(1000), u64::min);
        let disk = rustix::fs::statvfs(&self.state_dir).map_err(|error| ReadingError::File {
            path: self.state_dir.display().to_string(),
            source: error.into(),
        })?;
        let (threads, threads_max) = groups
            .iter()
            .filter_map(|group| Some((number(group, "pids.current")?, number(group, "pids.max")?)))
            .fold(self.threads()?, |kernel, group| {
                // Whichever is nearer to its limit.
                let left = |(used, max): (u64, u64)| max.saturating_sub(used);
                if left(group) < left(kernel) { group } else { kernel }
            });
        Ok(Readings {
            cpu_millis,
            cpu_used: self.cpu_used()?,
            memory_bytes,
            memory_available_bytes: memory_available_bytes.min(memory_bytes),
            disk_bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
            disk_available_bytes: disk.f_bavail.saturating_mul(disk.f_frsize),
            inodes: disk.f_files,
            inodes_free: disk.f_favail,
            threads_max,
            threads,
        })
    }

    /// The agent's cgroup (v2) and those around it, innermost first; empty without any.
    fn groups(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string(self.proc.join("self/cgroup")).unwrap_or_default();
        let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else {
            return Vec::new();
        };
        Path::new(path)
            .ancestors()
            .map(|path| self.cgroup.join(path))
            .filter(|path| path.starts_with(&self.cgroup) && path.is_dir())
            .collect()
    }

    fn file(&self, name: &str) -> Result<(String, String), ReadingError> {
        let path = self.proc.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok((text, path.display().to_string())),
            Err(source) => Err(ReadingError::File { path: path.display().to_string(), source }),
        }
    }

    /// Total and available, bytes.
    fn memory(&self) -> Result<(u64, u64), ReadingError> {
        let (text, path) = self.file("meminfo")?;
        let field = |name: &'static str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok())
                .map(|kibibytes| kibibytes.saturating_mul(1024))
                .ok_or_else(|| ReadingError::Form { path: path.clone(), what: name })
        };
        Ok((field("MemTotal")?, field("MemAvailable")?))
    }

    fn cores(&self) -> Result<u64, ReadingError> {
        let (text, path) = self.file("stat")?;
        let cores = text
            .lines()
            .filter(|line| {
                line.strip_prefix("cpu")
                    .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
            })
            .count();
        // Fewer when the agent is bound to some of them.
        let bound =
            rustix::thread::sched_getaffinity(None).map_or(cores, |set| set.count() as usize);
        match cores.min(bound) {
            0 => Err(ReadingError::Form { path, what: "cpu0" }),
            cores => Ok(cores as u64),
        }
    }

    fn cpu_used(&self) -> Result<Duration, ReadingError> {
        let (text, path) = self.file("stat")?;
        let all = text
            .lines()
            .find_map(|line| line.strip_prefix("cpu "))
            .ok_or(ReadingError::Form { path, what: "cpu" })?;
        // user nice system idle iowait irq softirq; guests' time is within user, and what follows
        // was other machines'.
        let ticks: u64 = all
            .split_ascii_whitespace()
            .take(7)
            .enumerate()
            .filter(|(index, _)| !matches!(index, 3 | 4))
            .filter_map(|(_, ticks)| ticks.parse::<u64>().ok())
            .fold(0, u64::saturating_add);
        Ok(Duration::from_millis(ticks.saturating_mul(1000 / TICKS_PER_SECOND)))
    }

    /// Threads that there are, and can be.
    fn threads(&self) -> Result<(u64, u64), ReadingError> {
        let (text, path) = self.file("loadavg")?;
        let threads = text
            .split_ascii_whitespace()
            .nth(3)
            .and_then(|field| field.split_once('/')?.1.parse().ok())
            .ok_or(ReadingError::Form { path, what: "running/all" })?;
        let limit = |name| {
            let (text, path) = self.file(name)?;
            text.trim().parse::<u64>().map_err(|_| ReadingError::Form { path, what: "number" })
        };
        Ok((threads, limit("sys/kernel/pid_max")?.min(limit("sys/kernel/threads-max")?)))
    }
}

fn number(group: &Path, name: &str) -> Option<u64> {
    // "max" is no number: no limit.
    fs::read_to_string(group.join(name)).ok()?.trim().parse().ok()
}

/// The group's limit and what is left of it; page cache that can be dropped counts as left.
fn group_memory(group: &Path) -> Option<(u64, u64)> {
    let limit = number(group, "memory.max")?;
    let used = number(group, "memory.current")?;
    let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let droppable = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok())
        .unwrap_or(0);
    Some((limit, limit.saturating_sub(used.saturating_sub(droppable))))
}

/// Thousandths of a core that the group may use.
fn group_cpu(group: &Path) -> Option<u64> {
    let text = fs::read_to_string(group.join("cpu.max")).ok()?;
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (u64, u64) = (quota.parse().ok()?, period.parse().ok()?);
    quota.checked_mul(1000)?.checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("made");
        fs::write(path, text).expect("written");
    }

    fn machine(folder: &Path) -> Machine {
        let proc = folder.join("proc");
        write(&proc, "meminfo", "MemTotal:  8388608 kB\nMemFree: 1 kB\nMemAvailable: 4194304 kB\n");
        write(&proc, "stat", "cpu  100 20 30 9999 88 4 5 6 50 0\ncpu0 1 2\ncpu1 1 2\nintr 5\n");
        write(&proc, "loadavg", "0.1 0.2 0.3 2/345 6789\n");
        write(&proc, "sys/kernel/pid_max", "32768\n");
        write(&proc, "sys/kernel/threads-max", "1000\n");
        Machine { proc, cgroup: folder.join("cgroup"), state_dir: folder.to_owned() }
    }

    #[test]
    fn a_machine_without_limits_is_read_as_it_is() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let readings = machine(folder.path()).read().expect("readable");
        assert_eq!(readings.memory_bytes, 8 << 30);
        assert_eq!(readings.working_set_bytes(), 4 << 30);
        // 100 + 20 + 30 + 4 + 5 ticks; idle, waiting, stolen and guests' time do not count.
        assert_eq!(readings.cpu_used, Duration::from_millis(1590));
        assert!(matches!(readings.cpu_millis, 1000 | 2000), "{}", readings.cpu_millis);
        assert_eq!((readings.threads, readings.threads_max), (345, 1000));
        assert!(readings.disk_bytes > 0 && readings.disk_available_bytes <= readings.disk_bytes);
    }

    #[test]
    fn the_narrowest_cgroup_around_the_agent_is_what_the_node_has() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let machine = machine(folder.path());
        write(
            folder.path(),
            "proc/self/cgroup",
            "1:cpu:/x\n0::/system.slice/graphlet.service/agent\n",
        );
        let outer = "cgroup/system.slice/graphlet.service";
        write(folder.path(), &format!("{outer}/memory.max"), "1073741824\n");
        write(folder.path(), &format!("{outer}/memory.current"), "536870912\n");
        write(folder.path(), &format!("{outer}/memory.stat"), "anon 5\ninactive_file 268435456\n");
        write(folder.path(), &format!("{outer}/cpu.max"), "50000 100000\n");
        write(folder.path(), &format!("{outer}/pids.max"), "400\n");
        write(folder.path(), &format!("{outer}/pids.current"), "390\n");
        write(folder.path(), &format!("{outer}/agent/memory.max"), "max\n");
        write(folder.path(), &format!("{outer}/agent/cpu.max"), "max 100000\n");
        let readings = machine.read().expect("readable");
        assert_eq!(readings.memory_bytes, 1 << 30);
        assert_eq!(readings.memory_available_bytes, (512 + 256) << 20);
        assert_eq!(readings.cpu_millis, 500);
        assert_eq!((readings.threads, readings.threads_max), (390, 400));
    }

    #[test]
    fn a_path_in_the_cgroup_file_cannot_lead_out() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let machine = machine(folder.path());
        write(folder.path(), "cgroup/x", "");
        write(folder.path(), "proc/self/cgroup", "0::/../../other\n");
        assert!(machine.read().is_ok());
        write(folder.path(), "proc/self/cgroup", "0:://etc\n");
        assert!(machine.groups().iter().all(|path| path.starts_with(&machine.cgroup)));
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let machine = machine(folder.path());
        write(folder.path(), "proc/meminfo", "MemTotal: 5 kB\n");
        let error = machine.read().expect_err("refused").to_string();
        assert!(error.ends_with("meminfo has no `MemAvailable`"), "{error}");
        fs::remove_file(folder.path().join("proc/stat")).expect("removed");
        write(folder.path(), "proc/meminfo", "MemTotal: 5 kB\nMemAvailable: 4 kB\n");
        assert!(machine.read().expect_err("refused").to_string().contains("stat"));
    }
}
