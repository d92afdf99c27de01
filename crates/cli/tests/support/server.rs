//! `graphlet run` as a process of its own, followed by its log.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Answer, SOON, User, get, until};

/// A running server; dropping it kills it.
pub struct Server {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    events: Vec<Value>,
    // What is not JSON: the last words of a process that failed.
    text: String,
    ended: bool,
}

impl Server {
    /// Starts a server on free ports and waits until it is ready.
    #[track_caller]
    pub fn start(user: &User, arguments: &str) -> Self {
        let server = Self::begin(user, &format!("{arguments} --listen 127.0.0.1:0"));
        server.event("Ready");
        server
    }

    /// Starts a server without waiting.
    pub fn begin(user: &User, arguments: &str) -> Self {
        Self::spawn(user.command(&format!("run {arguments}")))
    }

    /// Starts a prepared `graphlet run`; its admin port is any free one.
    pub fn spawn(mut command: Command) -> Self {
        command.args(["--admin", "127.0.0.1:0", "--log-format", "json"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Arc::<Log>::default();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let reader = {
            let log = Arc::clone(&log);
            thread::spawn(move || {
                for line in stderr.lines() {
                    let line = line.unwrap();
                    let mut lines = log.lines.lock().unwrap();
                    match serde_json::from_str(&line) {
                        Ok(event) => lines.events.push(event),
                        Err(_) => lines.text.push_str(&(line + "\n")),
                    }
                    log.changed.notify_all();
                }
                log.lines.lock().unwrap().ended = true;
                log.changed.notify_all();
            })
        };
        Server { child, log, reader: Some(reader) }
    }

    /// Waits for an event of the log.
    #[track_caller]
    pub fn event_where(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let begin = Instant::now();
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(event) = lines.events.iter().find(|event| wanted(event)) {
                return event.clone();
            }
            let left = SOON.saturating_sub(begin.elapsed());
            if lines.ended || left.is_zero() {
                let (events, text) = (&lines.events, &lines.text);
                panic!("no {what:?} (ended: {}) in {events:#?}\n{text}", lines.ended);
            }
            lines = self.log.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// Waits for the first event with this message.
    #[track_caller]
    pub fn event(&self, message: &str) -> Value {
        self.event_where(message, |event| event["message"] == message)
    }

    /// Messages of the events so far.
    pub fn messages(&self) -> Vec<String> {
        let lines = self.log.lines.lock().unwrap();
        lines.events.iter().map(|e| e["message"].as_str().unwrap().to_owned()).collect()
    }

    /// Where the first actor is served.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        address(&self.event("Ready"))
    }

    /// Where an actor of several is served.
    #[track_caller]
    pub fn address_of(&self, actor: &str) -> SocketAddr {
        address(&self.event_where(actor, |event| {
            event["message"] == "Actor served over HTTP" && event["actor.name"] == actor
        }))
    }

    #[track_caller]
    pub fn admin(&self, path: &str) -> Answer {
        get(address(&self.event("Admin port open")), path)
    }

    /// A metric's value: the sum of the series that carry all of these labels.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let answer = self.admin("/metrics");
        assert_eq!(answer.status, 200);
        let labels: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
        answer
            .text()
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(series, _)| series.split('{').next() == Some(name))
            .filter(|(series, _)| labels.iter().all(|label| series.contains(label)))
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .sum()
    }

    /// Waits until so many instances are in a state.
    #[track_caller]
    pub fn until_instances(&self, state: &str, count: u32) {
        until(&format!("{count} instances {state}"), || {
            let found = self.metric("graphlet_instances", &[("state", state)]);
            (found == f64::from(count)).then_some(())
        });
    }

    /// What the process has computed so far, in steps of 10 ms: unlike what a clock says, it does
    /// not grow with what else the machine does.
    pub fn computed(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        // The numbers begin behind the name; user's and system's ticks are the 14th and 15th.
        let numbers = stat.rsplit_once(')').unwrap().1.split_whitespace();
        let ticks = numbers.skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap());
        Duration::from_millis(ticks.sum::<u64>() * 10)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end: exit code, and what was said on stderr outside the log.
    #[track_caller]
    pub fn ends(mut self) -> (i32, String) {
        let status = until("the end of the process", || self.child.try_wait().unwrap());
        self.reader.take().unwrap().join().unwrap();
        let text = self.log.lines.lock().unwrap().text.clone();
        (status.code().unwrap_or_else(|| panic!("{status}: {text}")), text)
    }

    /// Asks it to stop and asserts that it does so well.
    #[track_caller]
    pub fn stop(self) {
        self.signal(Signal::TERM);
        assert_eq!(self.ends(), (0, String::new()));
    }
}

fn address(event: &Value) -> SocketAddr {
    event["address"].as_str().unwrap().parse().unwrap()
}

impl Drop for Server {
    fn drop(&mut self) {
        // Only what still runs: a test that failed halfway.
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
