//! Waiting for a condition, never for a time.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Asks every 200 ms until `condition` gives a value. It says in `Err` what it sees instead; the
/// last such sentence becomes the error when `within` has passed.
pub async fn until<T, F, C>(what: &str, within: Duration, mut condition: C) -> Result<T>
where
    C: FnMut() -> F,
    F: Future<Output = Result<T>>,
{
    let began = Instant::now();
    loop {
        match condition().await {
            Ok(value) => return Ok(value),
            Err(seen) if began.elapsed() > within => {
                bail!("{what}: not within {} s; last: {seen:#}", within.as_secs());
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// `until` with what most waits here need, on a machine that does other things too.
pub const SOON: Duration = Duration::from_secs(120);
