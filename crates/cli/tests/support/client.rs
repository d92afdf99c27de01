//! HTTP by hand, so that nothing between a test and the socket repairs anything.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
};

use serde_json::Value;

use super::SOON;

/// One response as it came over the wire.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key == name);
        let first = found.next();
        assert!(found.next().is_none(), "{name} is repeated: {self:?}");
        first.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The label of a 200.
    #[track_caller]
    pub fn label(&self) -> String {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json().as_str().unwrap().to_owned()
    }

    /// Status and stable code of an error; checks the shape on the way.
    #[track_caller]
    pub fn error(&self) -> (u16, String) {
        let error = self.json();
        let sentence = error["error"].as_str().unwrap_or_default();
        assert!(self.status >= 400 && !sentence.is_empty(), "{} {error}", self.status);
        (self.status, error["code"].as_str().unwrap().to_owned())
    }
}

/// A connection.
pub struct Client {
    pub stream: TcpStream,
    held: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    pub fn try_connect(address: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, SOON)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        Ok(Self { stream, held: Vec::new() })
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// False when the connection has ended.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.held.extend_from_slice(&buffer[..count]);
                count > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing arrived: {error}"),
        }
    }

    /// The next response, read by its own Content-Length; `None` when the connection ended before
    /// its first byte.
    pub fn try_receive(&mut self, to_head: bool) -> Option<Answer> {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill() {
                assert!(self.held.is_empty(), "cut: {:?}", String::from_utf8_lossy(&self.held));
                return None;
            }
        };
        let head = String::from_utf8(self.held.drain(..end).collect()).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
        let status = status.split(' ').next().unwrap().parse().unwrap();
        let headers: Vec<_> = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Answer { status, headers, body: Vec::new() };
        if status != 204 && !to_head {
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            while self.held.len() < length {
                assert!(self.fill(), "the body was cut");
            }
            answer.body = self.held.drain(..length).collect();
        }
        Some(answer)
    }

    #[track_caller]
    pub fn receive(&mut self) -> Answer {
        self.try_receive(false).expect("the connection ended without an answer")
    }

    /// The rest of what the server sends until it closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.held)
    }

    #[track_caller]
    pub fn exchange(&mut self, bytes: impl AsRef<[u8]>) -> Answer {
        self.send(bytes);
        self.receive()
    }
}

/// The bytes of a request with a Content-Length.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    [head.as_bytes(), body].concat()
}

/// `curl -T picture address/target`.
#[track_caller]
pub fn put(address: SocketAddr, target: &str, body: &[u8]) -> Answer {
    Client::connect(address).exchange(request("PUT", target, &[], body))
}

/// `curl address/target`.
#[track_caller]
pub fn get(address: SocketAddr, target: &str) -> Answer {
    Client::connect(address)
        .exchange(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n"))
}
