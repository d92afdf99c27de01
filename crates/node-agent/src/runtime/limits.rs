//! What a pod's process may take: by the kernel where a cgroup can be had, else by its shim, which
//! looks often, stops a process that is ahead of its share, and kills one that holds too much.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use super::process::{Memory, Process};

/// Limits of one container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Anonymous and shared memory, bytes.
    pub(crate) memory_bytes: Option<u64>,
    /// Thousandths of a core.
    pub(crate) cpu_millis: Option<u64>,
    /// How many cores it can use at once, as far as it is known: how fast it can get ahead.
    pub(crate) parallelism: Option<u16>,
    /// The container's cgroup, when the kernel keeps the limits.
    pub(crate) cgroup: Option<PathBuf>,
}

/// The cgroup under which those of containers are made.
#[derive(Debug, Clone)]
pub(crate) struct Cgroups {
    base: PathBuf,
}

const MOUNT: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 2] = ["cpu", "memory"];
const PERIOD_MICROS: u64 = 100_000;

impl Cgroups {
    /// This process's own cgroup, when it is version 2 and was delegated: the agent moves into a
    /// group below it, because a group with controllers may hold no process of its own.
    ///
    /// # Errors
    /// Why the kernel cannot keep the limits here.
    pub(crate) fn of_this_process() -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .ok_or_else(|| io::Error::other("there is no cgroup of version 2"))?;
        // A restarted agent may find itself where its predecessor had moved.
        let parts: Vec<&str> = own.split('/').collect();
        let own = match parts.split_last() {
            Some((&AGENT, above)) => above.join("/"),
            _ => own.to_owned(),
        };
        Self::prepare(&Path::new(MOUNT).join(own), std::process::id())
    }

    fn prepare(base: &Path, agent: u32) -> io::Result<Self> {
        let offered = fs::read_to_string(base.join("cgroup.controllers"))?;
        let offered: Vec<&str> = offered.split_ascii_whitespace().collect();
        if let Some(missing) = CONTROLLERS.iter().find(|name| !offered.contains(name)) {
            return Err(io::Error::other(format!("the controller `{missing}` is not offered")));
        }
        let own = base.join(AGENT);
        fs::create_dir_all(&own)?;
        fs::write(own.join("cgroup.procs"), agent.to_string())?;
        fs::write(base.join("cgroup.subtree_control"), "+cpu +memory")?;
        Ok(Self { base: base.to_owned() })
    }

    /// The group of one container.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.base.join(format!("pod-{name}"))
    }

    /// Makes the group of one container.
    pub(crate) fn create(&self, name: &str, limits: &Limits) -> io::Result<PathBuf> {
        let path = self.path(name);
        fs::create_dir_all(&path)?;
        if let Some(bytes) = limits.memory_bytes {
            fs::write(path.join("memory.max"), bytes.to_string())?;
            // Where there is no swap, there is no such file.
            let _ = fs::write(path.join("memory.swap.max"), "0");
        }
        if let Some(millis) = limits.cpu_millis {
            // The kernel takes no quota below a millisecond.
            let quota = (millis * PERIOD_MICROS / 1000).max(1000);
            fs::write(path.join("cpu.max"), format!("{quota} {PERIOD_MICROS}"))?;
        }
        Ok(path)
    }
}

const AGENT: &str = "agent";

/// Puts a process into a container's cgroup.
pub(crate) fn enter(cgroup: &Path, pid: u32) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string())
}

/// Whether the kernel has killed a process of this group for its memory.
pub(crate) fn was_out_of_memory(cgroup: &Path) -> bool {
    let events = fs::read_to_string(cgroup.join("memory.events")).unwrap_or_default();
    let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    killed.and_then(|count| count.trim().parse::<u64>().ok()).is_some_and(|count| count > 0)
}

/// Removes the group of a container that has ended.
pub(crate) fn remove(cgroup: &Path) {
    if let Err(error) = fs::remove_dir(cgroup)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::debug!(%error, cgroup = %cgroup.display(), "Cgroup was not removed");
    }
}

/// What the shim must do to keep the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Fine,
    /// Let it wait.
    Pause,
    /// Let it go on.
    Resume,
    /// It holds more memory than it may: how much.
    TooMuchMemory(u64),
}

/// Keeps the limits of one process where no cgroup does.
#[derive(Debug)]
pub(crate) struct Meter {
    memory_bytes: Option<u64>,
    next_look: Instant,
    bucket: Option<Bucket>,
}

impl Meter {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        let by_kernel = limits.cgroup.is_some();
        Self {
            memory_bytes: limits.memory_bytes.filter(|_| !by_kernel),
            next_look: now,
            bucket: limits
                .cpu_millis
                .filter(|_| !by_kernel)
                .map(|millis| Bucket::new(millis, limits.parallelism, now)),
        }
    }

    /// Looks at the process; to be asked again at [`Meter::next`].
    pub(crate) fn look(&mut self, process: &Process, now: Instant) -> Verdict {
        if let Some(limit) = self.memory_bytes
            && now >= self.next_look
        {
            let used = Memory::of(process.pid).map_or(0, |memory| memory.limited);
            if used > limit {
                return Verdict::TooMuchMemory(used);
            }
            self.next_look = now + if used > limit / 2 { LOOK_OFTEN } else { LOOK };
        }
        match &mut self.bucket {
            Some(bucket) => match process.cpu() {
                Ok(used) => bucket.update(used, now),
                // It has ended; that is noticed elsewhere.
                Err(_) => Verdict::Fine,
            },
            None => Verdict::Fine,
        }
    }

    /// When to look again; `None` when there is nothing to look for.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        let memory = self.memory_bytes.map(|_| self.next_look);
        let cpu = self.bucket.as_ref().map(|bucket| now + bucket.wait());
        memory.into_iter().chain(cpu).min()
    }
}

/// How often memory is looked at: reading it costs 20 microseconds.
const LOOK: Duration = Duration::from_millis(250);
const LOOK_OFTEN: Duration = Duration::from_millis(100);

/// Processor time that may be used, filled at the pace of the limit. Debts are kept, so that the
/// mean holds however late a look is.
#[derive(Debug)]
struct Bucket {
    cores: f64,
    seconds: f64,
    used: Duration,
    at: Instant,
    paused: bool,
    idle: bool,
    /// How many cores it can use at once: the fastest that this can be emptied.
    parallel: f64,
}

// Half a second of saved-up time lets a burst through, and exceeds the limit over any 10 s by 5 %.
const SAVED: f64 = 0.5;

// What an idle process may get ahead before it is looked at again, as time at its share: with what
// is saved up, 20 % of ten seconds.
const UNSEEN: f64 = 1.5;

// Time is told in hundredths of a second: to resume with less would only pause again.
const RESUME_WITH: f64 = 0.01;

impl Bucket {
    fn new(millis: u64, parallelism: Option<u16>, now: Instant) -> Self {
        let cores = (millis as f64 / 1000.0).max(0.001);
        let seconds = cores * SAVED;
        let machine = std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64);
        let parallel = parallelism.map_or(machine, |known| machine.min(known.max(1).into()));
        let (paused, idle) = (false, false);
        Self { cores, seconds, used: Duration::ZERO, at: now, paused, idle, parallel }
    }

    fn update(&mut self, used: Duration, now: Instant) -> Verdict {
        let spent = used.saturating_sub(self.used).as_secs_f64();
        let earned = now.saturating_duration_since(self.at).as_secs_f64() * self.cores;
        self.seconds = (self.seconds + earned - spent).min(self.cores * SAVED);
        self.idle = spent == 0.0;
        (self.used, self.at) = (used, now);
        match self.paused {
            false if self.seconds <= 0.0 => {
                self.paused = true;
                Verdict::Pause
            }
            true if self.seconds >= self.resume_with() => {
                self.paused = false;
                Verdict::Resume
            }
            _ => Verdict::Fine,
        }
    }

    fn resume_with(&self) -> f64 {
        RESUME_WITH.min(self.cores * SAVED)
    }

    fn wait(&self) -> Duration {
        if self.paused {
            let seconds = (self.resume_with() - self.seconds) / self.cores;
            return Duration::try_from_secs_f64(seconds.clamp(0.001, 1.0)).unwrap_or(LOOK);
        }
        if self.idle {
            let unseen = self.cores * UNSEEN / self.parallel;
            return Duration::try_from_secs_f64(unseen.clamp(0.01, 0.25)).unwrap_or(LOOK);
        }
        let until_empty = self.seconds / self.parallel;
        Duration::try_from_secs_f64(until_empty.clamp(0.005, 0.05)).unwrap_or(LOOK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a process that would use `cores` cores gets of 200m in 10 s.
    fn used_in_ten_seconds(cores: f64) -> f64 {
        let begin = Instant::now();
        let parallel = cores.ceil();
        // It is idle before it begins, when it is looked at least often.
        let mut bucket = Bucket { parallel, idle: true, ..Bucket::new(200, None, begin) };
        let (mut now, mut used, mut paused) = (begin, 0.0, false);
        while now < begin + Duration::from_secs(10) {
            let step = bucket.wait();
            if !paused {
                used += cores * step.as_secs_f64();
            }
            now += step;
            // Only hundredths are told.
            let told = Duration::from_millis((used * 100.0) as u64 * 10);
            match bucket.update(told, now) {
                Verdict::Pause => paused = true,
                Verdict::Resume => paused = false,
                _ => {}
            }
        }
        used
    }

    #[test]
    fn a_fifth_of_a_core_is_held_over_ten_seconds() {
        for cores in [0.3, 1.0, 4.0, 16.0] {
            let used = used_in_ten_seconds(cores);
            assert!((1.8..2.5).contains(&used), "{cores} cores: {used} s");
        }
        let frugal = used_in_ten_seconds(0.1);
        // The last look is a little after the ten seconds.
        assert!((frugal - 1.0).abs() < 0.05, "never paused: {frugal} s");
    }

    #[test]
    fn memory_is_looked_at_more_often_near_the_limit() {
        let process = Process::of(std::process::id()).unwrap();
        let used = Memory::of(process.pid).unwrap().limited;
        let now = Instant::now();
        for (limit, expected) in [(used * 100, LOOK), (used + (64 << 20), LOOK_OFTEN)] {
            let limits = Limits { memory_bytes: Some(limit), ..Limits::default() };
            let mut meter = Meter::new(&limits, now);
            assert_eq!(meter.look(&process, now), Verdict::Fine);
            if limit < used * 2 || expected == LOOK {
                assert_eq!(meter.next(now), Some(now + expected), "limit {limit}, used {used}");
            }
        }
        let limits = Limits { memory_bytes: Some(1), ..Limits::default() };
        let verdict = Meter::new(&limits, now).look(&process, now);
        assert!(matches!(verdict, Verdict::TooMuchMemory(used) if used > 1));
        let by_kernel = Limits { cgroup: Some("/sys".into()), cpu_millis: Some(1), ..limits };
        assert_eq!(Meter::new(&by_kernel, now).look(&process, now), Verdict::Fine);
    }

    #[test]
    fn a_cgroup_is_given_the_limits_and_tells_of_its_kills() {
        // A folder stands in for the kernel's: what is written to which file is ours.
        let base = tempfile::tempdir().unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        let missing = Cgroups::prepare(base.path(), 7).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        fs::write(base.path().join("cgroup.controllers"), "cpuset memory\n").unwrap();
        assert!(Cgroups::prepare(base.path(), 7).unwrap_err().to_string().contains("`cpu`"));
        fs::write(base.path().join("cgroup.controllers"), "cpuset cpu memory\n").unwrap();
        let cgroups = Cgroups::prepare(base.path(), 7).unwrap();
        assert_eq!(read(&base.path().join("agent/cgroup.procs")), "7");
        let limits =
            Limits { memory_bytes: Some(1 << 20), cpu_millis: Some(200), ..Limits::default() };
        let group = cgroups.create("x", &limits).unwrap();
        assert_eq!(read(&group.join("memory.max")), "1048576");
        assert_eq!(read(&group.join("cpu.max")), "20000 100000");
        enter(&group, 4711).unwrap();
        assert_eq!(read(&group.join("cgroup.procs")), "4711");
        assert!(!was_out_of_memory(&group));
        fs::write(group.join("memory.events"), "low 0\noom 2\noom_kill 1\n").unwrap();
        assert!(was_out_of_memory(&group));
    }
}
