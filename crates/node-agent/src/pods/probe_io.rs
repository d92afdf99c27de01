//! Probes on real sockets.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::seams::{Later, ProbeAction, Prober};

/// Carries probes out on real sockets.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SocketProber;

impl Prober for SocketProber {
    fn probe<'a>(
        &'a self,
        action: &'a ProbeAction,
        timeout: Duration,
    ) -> Later<'a, Result<(), String>> {
        Box::pin(async move {
            let work = async {
                match action {
                    ProbeAction::Tcp { address } => connect(*address).await.map(drop),
                    ProbeAction::Http { address, path, headers } => {
                        http_get(*address, path, headers).await
                    }
                }
            };
            match tokio::time::timeout(timeout, work).await {
                Ok(result) => result,
                Err(_) => Err(format!("no answer within {} s", timeout.as_secs_f32())),
            }
        })
    }
}

async fn connect(address: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("dial tcp {address}: {error}"))
}

async fn http_get(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
) -> Result<(), String> {
    let request = request(address, path, headers)?;
    let failed = |error: hyper::Error| format!("Get \"http://{address}{path}\": {error}");
    let io = TokioIo::new(connect(address).await?);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(failed)?;
    // The connection lives as long as this probe; the body is not read.
    let (status, ()) = {
        let answer = sender.send_request(request);
        tokio::pin!(connection);
        tokio::pin!(answer);
        tokio::select! {
            answer = &mut answer => (answer.map_err(failed)?.status(), ()),
            ended = &mut connection => {
                ended.map_err(failed)?;
                (answer.await.map_err(failed)?.status(), ())
            }
        }
    };
    // What the kubelet counts as success, and says otherwise.
    if (200..400).contains(&status.as_u16()) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
    }
}

fn request(
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<Empty<Bytes>>, String> {
    let slash = if path.starts_with('/') { "" } else { "/" };
    let mut request = Request::get(format!("{slash}{path}"));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let given = |name: header::HeaderName| {
        headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name.as_str()))
    };
    for (name, value) in [
        (header::HOST, address.to_string()),
        (header::USER_AGENT, concat!("kube-probe/graphlet-", env!("CARGO_PKG_VERSION")).into()),
        (header::ACCEPT, "*/*".into()),
        (header::CONNECTION, "close".into()),
    ] {
        if !given(name.clone()) {
            request = request.header(name, value);
        }
    }
    request.body(Empty::new()).map_err(|error| format!("the probe cannot be sent: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    async fn server(answer: &'static str) -> (SocketAddr, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.expect("a byte"));
            }
            stream.write_all(answer.as_bytes()).await.expect("written");
            String::from_utf8(request).expect("text")
        });
        (address, task)
    }

    async fn get(address: SocketAddr, timeout: Duration) -> Result<(), String> {
        let headers = vec![("X-Probe".to_owned(), "1".to_owned())];
        let action = ProbeAction::Http { address, path: "/ready?x=1".into(), headers };
        SocketProber.probe(&action, timeout).await
    }

    #[tokio::test]
    async fn answers_from_200_to_399_are_successes() {
        for (status, good) in
            [("200 OK", true), ("302 Found", true), ("404 Not Found", false), ("503 Busy", false)]
        {
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok").leak();
            let (address, task) = server(answer).await;
            let result = get(address, Duration::from_secs(60)).await;
            assert_eq!(result.is_ok(), good, "{status}: {result:?}");
            if !good {
                let code = &status[..3];
                assert_eq!(result, Err(format!("HTTP probe failed with statuscode: {code}")));
            }
            let request = task.await.expect("a request").to_lowercase();
            assert!(request.starts_with("get /ready?x=1 http/1.1\r\n"), "{request}");
            for line in [
                "x-probe: 1",
                "connection: close",
                "user-agent: kube-probe/",
                &format!("host: {address}"),
            ] {
                assert!(request.contains(line), "no {line:?} in {request}");
            }
        }
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_fails_after_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let error = get(address, Duration::from_millis(50)).await.expect_err("no answer");
        assert!(error.contains("no answer within"), "{error}");
    }

    #[tokio::test]
    async fn a_closed_port_refuses_both_kinds() {
        // Where no other test listens, and no connection begins: the port stays closed.
        let listener = TcpListener::bind("127.0.0.3:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let tcp = ProbeAction::Tcp { address };
        assert_eq!(SocketProber.probe(&tcp, Duration::from_secs(60)).await, Ok(()));
        drop(listener);
        assert!(SocketProber.probe(&tcp, Duration::from_secs(60)).await.is_err());
        assert!(get(address, Duration::from_secs(60)).await.is_err());
    }
}
