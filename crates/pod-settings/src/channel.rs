//! One message over a Unix socket: a JSON value of any size, and descriptors.
//!
//! The JSON travels in a sealed memory file, the first of the descriptors, because a socket's
//! buffer holds less than the longest environment.

use std::{
    fs::File,
    io::{self, IoSlice, IoSliceMut, Write as _},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::fs::FileExt as _,
};

use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
    },
};
use serde::{Serialize, de::DeserializeOwned};

/// Most descriptors in one message, the JSON included; the kernel takes 253.
pub const MAX_DESCRIPTORS: usize = 64;

/// Longest JSON, bytes: etcd holds no pod as long as this.
pub const MAX_JSON_BYTES: u64 = 8 << 20;

/// A message could not be sent or received.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The system refused.
    #[error("the message could not be passed on")]
    Io(#[from] io::Error),
    /// It is no JSON of the form that was expected.
    #[error("the message is malformed")]
    Json(#[source] serde_json::Error),
    /// Nobody sent anything.
    #[error("there is no message: this command is started by the node agent")]
    Absent,
    /// More descriptors or text than a message may have.
    #[error("the message is too large")]
    TooLarge,
}

/// Two ends of a new channel, closed on exec.
///
/// # Errors
/// When the system has no sockets left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Sends `message` and `descriptors`. The receiver need not exist yet: they wait in the socket.
///
/// # Errors
/// [`ChannelError`].
pub fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let json = serde_json::to_vec(message).map_err(ChannelError::Json)?;
    if descriptors.len() >= MAX_DESCRIPTORS || json.len() as u64 > MAX_JSON_BYTES {
        return Err(ChannelError::TooLarge);
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut file = File::from(memfd_create("settings", flags).map_err(io::Error::from)?);
    file.write_all(&json)?;
    let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
    let mut all = vec![file.as_fd()];
    all.extend_from_slice(descriptors);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&all)) {
        return Err(ChannelError::TooLarge);
    }
    sendmsg(socket, &[IoSlice::new(MARK)], &mut control, SendFlags::NOSIGNAL)
        .map_err(io::Error::from)?;
    Ok(())
}

/// Receives what [`send`] sent; waits for it. The descriptors are closed on exec.
///
/// # Errors
/// [`ChannelError`].
pub fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<(T, Vec<OwnedFd>), ChannelError> {
    let mut mark = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        recvmsg(socket, &mut [IoSliceMut::new(&mut mark)], &mut control, RecvFlags::CMSG_CLOEXEC)
            .map_err(|error| match error {
            // Standard input is something else: a person typed this command.
            rustix::io::Errno::NOTSOCK => ChannelError::Absent,
            error => ChannelError::Io(error.into()),
        })?;
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.bytes == 0 || descriptors.is_empty() {
        return Err(ChannelError::Absent);
    }
    let file = File::from(descriptors.remove(0));
    let size = file.metadata()?.len();
    if size > MAX_JSON_BYTES {
        return Err(ChannelError::TooLarge);
    }
    // The offset is shared with the sender, who stands at the end.
    let mut json = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_exact_at(&mut json, 0)?;
    Ok((serde_json::from_slice(&json).map_err(ChannelError::Json)?, descriptors))
}

/// Writes one value as a line.
///
/// # Errors
/// When the other end is gone.
pub fn send_line(socket: impl AsFd, value: &impl Serialize) -> Result<(), ChannelError> {
    let mut line = serde_json::to_vec(value).map_err(ChannelError::Json)?;
    line.push(b'\n');
    let mut rest = line.as_slice();
    while !rest.is_empty() {
        let sent =
            rustix::net::send(&socket, rest, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        rest = &rest[sent..];
    }
    Ok(())
}

/// Lines that come in pieces; what is longer than [`MAX_LINE_BYTES`] is dropped.
#[derive(Debug, Default)]
pub struct Lines {
    partial: Vec<u8>,
}

/// Longest line of the answers, bytes.
pub const MAX_LINE_BYTES: usize = 64 << 10;

impl Lines {
    /// Takes what there is to read (of a flood, a part), and gives the values of the lines that are
    /// whole; those that cannot be understood are left out.
    ///
    /// # Errors
    /// When reading fails; `WouldBlock` is none.
    pub fn read<T: DeserializeOwned>(&mut self, mut from: impl io::Read) -> io::Result<Vec<T>> {
        let mut buffer = [0; 4096];
        for _ in 0..2 * MAX_LINE_BYTES / buffer.len() {
            match from.by_ref().read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.partial.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.partial.len() > MAX_LINE_BYTES {
                self.partial.clear();
            }
        }
        let mut values = Vec::new();
        while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.partial.drain(..=end).collect();
            values.extend(serde_json::from_slice(&line).ok());
        }
        Ok(values)
    }
}

const MARK: &[u8] = b"m";

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn a_message_and_its_descriptors_arrive() {
        let (ours, theirs) = pair().unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        let long = "x".repeat(3 << 20);
        send(&ours, &long, &[writer.as_fd()]).unwrap();
        drop(writer);
        let (text, mut descriptors) = receive::<String>(&theirs).unwrap();
        assert_eq!((text.len(), descriptors.len()), (long.len(), 1));
        File::from(descriptors.remove(0)).write_all(b"through").unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "through");
    }

    #[test]
    fn without_a_sender_there_is_no_message() {
        let (ours, theirs) = pair().unwrap();
        drop(ours);
        assert!(matches!(receive::<String>(&theirs), Err(ChannelError::Absent)));
        let file = File::open("/dev/null").unwrap();
        assert!(matches!(receive::<String>(&file), Err(ChannelError::Absent)));
    }

    #[test]
    fn what_is_too_large_is_refused_and_what_is_malformed_too() {
        let (ours, theirs) = pair().unwrap();
        let many = vec![ours.as_fd(); MAX_DESCRIPTORS];
        assert!(matches!(send(&ours, &1, &many), Err(ChannelError::TooLarge)));
        let long = "x".repeat(MAX_JSON_BYTES as usize);
        assert!(matches!(send(&ours, &long, &[]), Err(ChannelError::TooLarge)));
        send(&ours, &"text", &[]).unwrap();
        assert!(matches!(receive::<u8>(&theirs), Err(ChannelError::Json(_))));
    }

    #[test]
    fn lines_come_whole_although_they_are_read_in_pieces() {
        let mut lines = Lines::default();
        assert_eq!(lines.read::<u8>(&b"1\n2"[..]).unwrap(), [1]);
        assert_eq!(lines.read::<u8>(&b"3\nnonsense\n4\n"[..]).unwrap(), [23, 4]);
        let flood = vec![b'1'; 2 * MAX_LINE_BYTES];
        assert!(lines.read::<u8>(flood.as_slice()).unwrap().is_empty());
    }
}
