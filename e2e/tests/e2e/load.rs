//! HTTP as a hurried client speaks it: each request a new connection, no retry, every failure
//! kept.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
};

use crate::wait::{SOON, until};

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Head, lower case.
    pub head: String,
    /// Body as text.
    pub body: String,
}

impl Answer {
    /// The label in the answer of a picture.
    pub fn label(&self) -> Result<String> {
        if self.status != 200 {
            bail!("status {}: {}", self.status, self.body.trim());
        }
        serde_json::from_str(&self.body).with_context(|| format!("not a label: {}", self.body))
    }
}

/// `PUT /` with a picture.
pub async fn classify(address: SocketAddr, picture: &[u8]) -> Result<Answer> {
    send(address, "PUT", "/", picture).await
}

/// One request on a connection of its own.
pub async fn send(address: SocketAddr, method: &str, path: &str, body: &[u8]) -> Result<Answer> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.context("connect")?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        // One write, so that a refusal before the body is read cannot be mistaken for a fault.
        let message = [head.as_bytes(), body].concat();
        stream.write_all(&message).await.context("write")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.context("read")?;
        parse(&answer)
    };
    tokio::time::timeout(Duration::from_secs(15), exchange).await.context("no answer in 15 s")?
}

fn parse(bytes: &[u8]) -> Result<Answer> {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        bail!("{} bytes and no complete head", bytes.len());
    };
    let status = head
        .split_whitespace()
        .nth(1)
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("no status in {head:?}"))?;
    let head = head.to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .and_then(|length| length.trim().parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        bail!("the body has {} bytes, not {length:?}", body.len());
    }
    Ok(Answer { status, head, body: body.to_owned() })
}

/// Clients at work.
pub struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
    report: Arc<Mutex<Report>>,
}

/// What clients have seen.
#[derive(Debug, Default, Clone)]
pub struct Report {
    /// Answers by label.
    pub labels: BTreeMap<String, usize>,
    /// Failures: when, and what.
    pub failures: Vec<String>,
    /// The longest answer.
    pub slowest: Duration,
}

impl Report {
    /// Right answers.
    pub fn answered(&self) -> usize {
        self.labels.values().sum()
    }

    /// # Errors
    /// When a request failed, or fewer than `least` were answered.
    pub fn flawless(&self, least: usize) -> Result<()> {
        if !self.failures.is_empty() {
            bail!("{self}");
        }
        if self.answered() < least {
            bail!("only {} requests were answered, which shows little", self.answered());
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{} answered {:?}, {} failed, slowest {} ms",
            self.answered(),
            self.labels,
            self.failures.len(),
            self.slowest.as_millis()
        )?;
        for failure in self.failures.iter().take(5) {
            write!(out, "; {failure}")?;
        }
        Ok(())
    }
}

impl Load {
    /// `clients` of them, each sending the picture, waiting for the answer, then for `pause`.
    pub fn start(address: SocketAddr, picture: &[u8], clients: usize, pause: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let report = Arc::new(Mutex::new(Report::default()));
        let began = Instant::now();
        let picture: Arc<[u8]> = picture.into();
        let mut running = JoinSet::new();
        for _ in 0..clients {
            let (report, picture, stopped) = (report.clone(), picture.clone(), stopped.clone());
            running.spawn(async move {
                while !*stopped.borrow() {
                    let asked = Instant::now();
                    let answer = classify(address, &picture).await.and_then(|it| it.label());
                    {
                        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
                        report.slowest = report.slowest.max(asked.elapsed());
                        match answer {
                            Ok(label) => *report.labels.entry(label).or_default() += 1,
                            Err(error) => report.failures.push(format!(
                                "at {:.1} s after {} ms: {error:#}",
                                began.elapsed().as_secs_f64(),
                                asked.elapsed().as_millis()
                            )),
                        }
                    }
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { stop, clients: running, report }
    }

    /// What they have seen until now.
    pub fn so_far(&self) -> Report {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes on until that many were answered, on a slow machine for longer than a scenario takes.
    ///
    /// # Errors
    /// When that takes too long.
    pub async fn answered(&self, least: usize) -> Result<()> {
        until("requests answered", SOON, async || {
            let report = self.so_far();
            if report.answered() < least {
                bail!("{report}");
            }
            Ok(())
        })
        .await
    }

    /// Lets the last requests end.
    pub async fn stop(mut self) -> Report {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        self.so_far()
    }
}
