//! How long a picture takes in a component under `wasmtime-wasi-http`, which is what
//! `wasmtime serve` is made of, beside any other server of the same model, such as `graphlet run`:
//!
//! ```text
//! cargo run -p component-program --example latency -- TIMES PICTURE WHAT...
//! ```
//!
//! WHAT is a component's file or the address of a server. They are asked in turns, each request
//! over a connection of its own, and a fresh instance answers each request to a component: made
//! once by the engine's ordinary allocator, once by its pool of instances.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an example, with the tests' helpers"
)]

#[path = "../tests/server/mod.rs"]
mod server;

use std::{
    env, fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use server::{Server, send};
use wasmtime::{
    Config, Engine, Error, InstanceAllocationStrategy, PoolingAllocationConfig, Result,
};

/// Who is asked, and how long each answer took.
struct Asked {
    name: String,
    address: SocketAddr,
    times: Vec<Duration>,
}

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [times, picture, whom @ ..] = &arguments[..] else {
        return Err(Error::msg("usage: latency TIMES PICTURE COMPONENT|HOST:PORT..."));
    };
    let times: u32 = times.parse()?;
    let picture = fs::read(picture)?;
    let mut servers = Vec::new();
    let mut asked = Vec::new();
    for who in whom {
        if let Ok(address) = who.parse() {
            asked.push(Asked { name: who.clone(), address, times: Vec::new() });
            continue;
        }
        for (how, engine) in [("", Engine::default()), (", pooled", pooled()?)] {
            let server = Server::start(&engine, fs::read(who)?)?;
            let name = format!("{who}{how}");
            asked.push(Asked { name, address: server.address(), times: Vec::new() });
            servers.push(server);
        }
    }
    // The first answers find cold caches.
    for turn in 0..times.saturating_add(3) {
        for who in &mut asked {
            let begun = Instant::now();
            let answer = send(who.address, "PUT", "/picture", &[], &picture);
            let answer = answer.ok_or_else(|| Error::msg(format!("{}: no answer", who.name)))?;
            if answer.status != 200 {
                return Err(Error::msg(format!("{}: status {}", who.name, answer.status)));
            }
            if turn >= 3 {
                who.times.push(begun.elapsed());
            } else if turn == 0 {
                println!("{}: {}", who.name, answer.json());
            }
        }
    }
    for who in &mut asked {
        who.times.sort();
        if let Some(least) = who.times.first() {
            let median = who.times[who.times.len() / 2];
            let ms = |time: Duration| time.as_secs_f64() * 1e3;
            println!("{}: median {:.2} ms, least {:.2} ms", who.name, ms(median), ms(*least));
        }
    }
    Ok(())
}

/// As `wasmtime serve` allocates: room for instances that is kept and wiped.
fn pooled() -> Result<Engine> {
    let mut pool = PoolingAllocationConfig::default();
    pool.total_memories(4).total_core_instances(16).total_component_instances(4);
    pool.total_tables(16).linear_memory_keep_resident(16 << 20);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    Engine::new(&config)
}
