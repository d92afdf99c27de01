//! What `push` and `pull` share: options of registries, docker's logins, a bar of bytes.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{IsTerminal as _, stderr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use registry::{Authority, Credentials, ModuleRef, RegistryOptions};

use crate::exit::{Hinted, Usage};

/// How registries are reached.
#[derive(Debug, clap::Args)]
pub struct RegistryArgs {
    /// Registry to speak to without TLS, as it is named in references; may be repeated. Those on
    /// this machine (localhost, 127.0.0.0/8) need no naming
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
    /// Certificate authorities, PEM, to trust besides the system's; may be repeated
    #[arg(long, value_name = "FILE")]
    registry_ca: Vec<PathBuf>,
}

impl RegistryArgs {
    /// As the library takes them.
    ///
    /// # Errors
    /// [`Usage`] when a file cannot be read or holds no certificate.
    pub fn options(&self) -> Result<RegistryOptions> {
        let mut authorities = Vec::new();
        for path in &self.registry_ca {
            let shown = path.display();
            let pem = fs::read(path).with_context(|| format!("cannot read {shown}"))?;
            let authority = Authority::from_pem(&pem);
            authorities.push(authority.map_err(|error| Usage::new(format!("{shown}: {error}")))?);
        }
        let plain_http: BTreeSet<String> = self.plain_http.iter().cloned().collect();
        Ok(RegistryOptions { plain_http, authorities, ..RegistryOptions::default() })
    }
}

/// Reads a reference.
///
/// # Errors
/// [`Usage`] when it is none.
pub fn parse_reference(text: &str) -> Result<ModuleRef> {
    text.parse().map_err(|error: registry::ReferenceError| {
        Usage::new(error).hint("names look like registry.example/models/digits:v1").into()
    })
}

/// The login that docker (`docker login`) keeps for some registries.
///
/// # Errors
/// What is wrong with docker's configuration.
pub fn credentials<'a>(hosts: impl IntoIterator<Item = &'a str>) -> Result<Credentials> {
    let mut credentials = Credentials::anonymous();
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let Some(folder) = set("DOCKER_CONFIG").or_else(|| Some(set("HOME")?.join(".docker"))) else {
        return Ok(credentials);
    };
    let config = folder.join("config.json");
    for host in hosts {
        let found = Credentials::of_docker_user(&config, host).map_err(|error| {
            let hint = "DOCKER_CONFIG=FOLDER uses the config.json of another folder";
            let error = anyhow::Error::new(error).context(config.display().to_string());
            Hinted::new(error, Some(hint.into()))
        })?;
        credentials.merge(found);
    }
    Ok(credentials)
}

/// Runs work with registries to its end, or until the user interrupts it; nothing half done is
/// left then.
///
/// # Errors
/// What the work says, or the interruption.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        tokio::select! {
            done = work => done,
            signal = tokio::signal::ctrl_c() => {
                signal.context("cannot wait for signals")?;
                bail!("interrupted")
            }
        }
    })
}

/// Bytes on their way, on a terminal.
pub struct Bar(Option<ProgressBar>);

impl Bar {
    /// A bar; `quiet` shows none.
    pub fn new(quiet: bool) -> Self {
        Bar((!quiet && stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new(0);
            let template = "{spinner} {msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        }))
    }

    /// What is being done.
    pub fn doing(&self, what: &'static str) {
        if let Some(bar) = &self.0 {
            bar.set_message(what);
        }
    }

    /// How far it is.
    pub fn at(&self, done: u64, total: u64) {
        if let Some(bar) = &self.0 {
            bar.set_length(total);
            bar.set_position(done);
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
