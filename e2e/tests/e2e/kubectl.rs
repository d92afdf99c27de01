//! The real `kubectl`, as a person uses it.

use std::{process::Stdio, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{io::AsyncWriteExt, process::Command};

/// What a command printed.
#[derive(Debug)]
pub struct Output {
    /// Whether it ended with 0.
    pub ok: bool,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `kubectl ARGUMENTS` with `stdin`, and gives what it printed, however it ended.
pub async fn attempt(arguments: &[&str], stdin: &str) -> Result<Output> {
    run(Command::new("kubectl").args(arguments), stdin).await
}

/// Runs `kubectl ARGUMENTS` and gives its standard output.
///
/// # Errors
/// When it ends with another code than 0, with what it said.
pub async fn kubectl(arguments: &[&str]) -> Result<String> {
    let output = attempt(arguments, "").await?;
    if !output.ok {
        bail!("kubectl {}: {}", arguments.join(" "), output.stderr.trim());
    }
    Ok(output.stdout)
}

/// `kubectl get … -o json`.
pub async fn get(arguments: &[&str]) -> Result<Value> {
    let text = kubectl(&[&["get"], arguments, &["-o", "json"]].concat()).await?;
    Ok(serde_json::from_str(&text)?)
}

/// Applies objects; a field that the API server does not know is an error.
pub async fn apply(objects: &[Value]) -> Result<()> {
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let output = attempt(&["apply", "--validate=strict", "-f", "-"], &list.to_string()).await?;
    if !output.ok {
        bail!("kubectl apply: {}", output.stderr.trim());
    }
    Ok(())
}

/// Runs any command to its end, at most twenty minutes: the first build of a module compiles the
/// guest library, on a busy machine.
pub async fn run(command: &mut Command, stdin: &str) -> Result<Output> {
    let name = format!("{:?}", command.as_std());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| name.clone())?;
    if let Some(mut pipe) = child.stdin.take() {
        // A command that reads nothing may be gone already.
        let _ = pipe.write_all(stdin.as_bytes()).await;
    }
    let output = tokio::time::timeout(Duration::from_secs(1200), child.wait_with_output())
        .await
        .with_context(|| format!("{name} did not end"))??;
    Ok(Output {
        ok: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
