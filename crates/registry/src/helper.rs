//! The credentials of a user of docker: `config.json`, and the credential helpers that it names.
//! Never for what comes from a cluster: a helper is a program.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::credentials::{Credentials, CredentialsError, DockerConfig, Login, parse};

impl Credentials {
    /// What docker's `config.json` has for a registry, asking the credential helper that it
    /// names (`credHelpers`, `credsStore`). A file that is not there makes anonymous.
    ///
    /// # Errors
    /// [`CredentialsError`]: the file cannot be understood, or a helper does not serve.
    pub fn of_docker_user(config: &Path, registry: &str) -> Result<Self, CredentialsError> {
        let json = match fs::read(config) {
            Ok(json) => Zeroizing::new(json),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::anonymous()),
            Err(error) => {
                return Err(CredentialsError::Malformed {
                    reason: format!("{}: {error}", config.display()),
                });
            }
        };
        let mut credentials = Self::from_docker_config(&json)?;
        let settings: DockerConfig = parse(&json)?;
        let key = server_key(registry);
        let named = [registry, key].iter().find_map(|name| settings.cred_helpers.get(*name));
        // A helper for this registry decides alone; the general one fills what is missing.
        let needed = named.is_some() || settings.mentions(registry);
        let helper = match (named, &settings.creds_store) {
            (Some(helper), _) => helper,
            (None, Some(store)) if credentials.for_repository(registry, "").is_empty() => store,
            _ => return Ok(credentials),
        };
        match ask(helper, key, HELPER_TIME) {
            Ok(Some(login)) => credentials.put_first(registry, login),
            Ok(None) => {}
            Err(reason) if needed => {
                let (registry, helper) = (registry.to_owned(), helper.clone());
                return Err(CredentialsError::Helper { registry, helper, reason });
            }
            // A store that never held anything for this registry, such as another system's.
            Err(reason) => tracing::debug!(helper, reason, "Credential store does not serve"),
        }
        Ok(credentials)
    }
}

/// Under which name docker keeps a registry's login.
fn server_key(registry: &str) -> &str {
    if registry == "docker.io" { "https://index.docker.io/v1/" } else { registry }
}

/// Runs `docker-credential-NAME get`; `None` when it has nothing.
fn ask(name: &str, server: &str, patience: Duration) -> Result<Option<Login>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || !name.chars().all(plain) {
        return Err("its name is no program's".into());
    }
    let mut helper = Command::new(format!("docker-credential-{name}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| error.to_string())?;
    let talked = talk(&mut helper, server, patience);
    // After its answer it has nothing more to do; without one it gets no more time.
    if talked.is_err() {
        let _ = helper.kill();
    }
    let status = helper.wait().map_err(|error| error.to_string())?;
    let answer = talked?;
    if !status.success() {
        // How helpers say that they have nothing.
        return match answer.to_ascii_lowercase().contains("credentials not found") {
            true => Ok(None),
            false => Err(format!("it ends with {status}")),
        };
    }
    let Answer { username, secret } =
        serde_json::from_str(&answer).map_err(|_| "its answer is not what helpers answer")?;
    let secret = Zeroizing::new(secret);
    Ok(Some(match username.as_str() {
        "<token>" => Login::Identity { user: String::new(), token: secret },
        _ => Login::Basic { user: username, password: secret },
    }))
}

fn talk(helper: &mut Child, server: &str, patience: Duration) -> Result<Zeroizing<String>, String> {
    let (Some(mut stdin), Some(stdout)) = (helper.stdin.take(), helper.stdout.take()) else {
        return Err("it has no input or output".into());
    };
    // One that does not read has the answer ready, or fails by itself.
    let _ = stdin.write_all(server.as_bytes());
    drop(stdin);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut answer = Zeroizing::new(String::new());
        let read = stdout.take(ANSWER_BYTES).read_to_string(&mut answer);
        // Nobody waits any more when it took too long.
        let _ = sender.send(read.map(|_| answer));
    });
    match receiver.recv_timeout(patience) {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it did not answer within {} s", patience.as_secs_f32())),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Some ask their user for a password or a touch.
const HELPER_TIME: Duration = Duration::from_secs(60);
const ANSWER_BYTES: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_there_makes_anonymous_and_one_that_is_nonsense_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        assert!(Credentials::of_docker_user(&path, "r.example").unwrap().is_empty());
        fs::write(&path, "{").unwrap();
        assert!(Credentials::of_docker_user(&path, "r.example").is_err());
    }

    #[test]
    fn a_helper_that_is_not_there_matters_to_the_registries_that_need_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let json = r#"{"credHelpers": {"a.example": "graphlet-test-none"},
            "credsStore": "graphlet-test-none",
            "auths": {"b.example": {}, "c.example": {"auth": "dTpw"}}}"#;
        fs::write(&path, json).unwrap();
        for registry in ["a.example", "b.example"] {
            let error = Credentials::of_docker_user(&path, registry).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("docker-credential-graphlet-test-none"), "{text}");
            assert!(text.contains(registry), "{text}");
        }
        let of = |registry: &str| {
            let credentials = Credentials::of_docker_user(&path, registry).unwrap();
            credentials.for_repository(registry, "x").len()
        };
        assert_eq!((of("c.example"), of("d.example")), (1, 0));
    }

    #[test]
    fn names_of_helpers_are_names_of_programs() {
        for name in ["", "../x", "a/b", "a b", "a\0"] {
            assert!(ask(name, "r.example", HELPER_TIME).is_err(), "{name:?}");
        }
    }
}
