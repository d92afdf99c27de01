//! What a fresh instance per request costs: calls to one actor, kept and fresh instances
//! interleaved, medians in milliseconds.
//!
//! ```text
//! cargo run --release -p host --example isolation -- model.wasm picture.jpg [rounds]
//! ```

#![expect(clippy::print_stdout, reason = "a program for people")]

use std::{
    env,
    error::Error,
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use claims::{Policy, Timestamp, verify};
use host::{Actor, Host, Isolation, LoadOptions, provider::ActorService};

type Failure = Box<dyn Error + Send + Sync>;

const LONG: Duration = Duration::from_secs(30);

fn main() -> Result<(), Failure> {
    let args: Vec<String> = env::args().collect();
    let [_, module, picture, rest @ ..] = &args[..] else {
        return Err("isolation MODULE PICTURE [ROUNDS]".into());
    };
    let rounds = rest.first().map_or(Ok(50), |text| text.parse::<usize>())?;
    let mut policy = Policy::at(Timestamp::from(std::time::SystemTime::now()));
    policy.dangerously_allow_unsigned = true;
    let module = fs::read(module)?;
    if let Ok(claims) = claims::authentic_claims(&module) {
        policy.trusted_issuers.insert(claims.issuer);
    }
    let module = verify(module, &policy)?;
    let request = wire::Request {
        method: "PUT".into(),
        path: "/".into(),
        body: fs::read(picture)?,
        ..wire::Request::default()
    };
    let request = wire::encode(&request)?;
    let health = wire::encode(&wire::HealthRequest { placeholder: true })?;

    let cache = tempfile::tempdir()?;
    let memory_bytes = LoadOptions::default().memory_bytes;
    let builder = || Host::builder().cache_dir(cache.path());
    let hosts = [
        ("pooled", Isolation::Pooled, builder().build()?),
        ("request, kept pages", Isolation::Request, builder().pool(1, memory_bytes).build()?),
        ("request, mapped anew", Isolation::Request, builder().build()?),
    ];
    let mut actors = Vec::new();
    for (name, isolation, host) in &hosts {
        let options = LoadOptions { isolation: *isolation, ..LoadOptions::default() };
        let actor = host.load(module.clone(), &options)?;
        actor.wait_ready(LONG)?;
        actors.push((*name, actor, Vec::new(), Vec::new()));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for _ in 0..rounds {
        for (_, actor, pictures, healths) in &mut actors {
            // The first of each finds caches as the others left them.
            for _ in 0..2 {
                call(&runtime, actor, wire::OP_HANDLE_REQUEST, &request)?;
            }
            for _ in 0..3 {
                pictures.push(call(&runtime, actor, wire::OP_HANDLE_REQUEST, &request)?);
            }
            for _ in 0..3 {
                healths.push(call(&runtime, actor, wire::OP_HEALTH_REQUEST, &health)?);
            }
        }
    }
    println!("| instances | a picture, ms | a health request, ms |\n|---|---|---|");
    for (name, _, pictures, healths) in &mut actors {
        println!("| {name} | {:.3} | {:.3} |", median(pictures), median(healths));
    }
    Ok(())
}

fn call(
    runtime: &tokio::runtime::Runtime,
    actor: &Arc<Actor>,
    operation: &str,
    message: &[u8],
) -> Result<f64, Failure> {
    let begin = Instant::now();
    runtime.block_on(actor.call(operation, message.to_vec(), begin + LONG))?;
    Ok(begin.elapsed().as_secs_f64() * 1e3)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
