//! Asking a running daemon, for `hekate status`.
//!
//! Owns one blocking request. It must not know what the answer means.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::config::StatusAddress;

/// How long the daemon may take: it answers within a turn of its loop.
const PATIENCE: Duration = Duration::from_secs(10);

/// The body of the answer to a GET.
///
/// # Errors
/// When nobody answers, or with something else than 200.
pub fn fetch(address: &StatusAddress, path: &str) -> io::Result<String> {
    let answer = match address {
        StatusAddress::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            converse(stream, path)?
        }
        StatusAddress::Unix(socket) => {
            let stream = UnixStream::connect(socket)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            converse(stream, path)?
        }
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head.strip_prefix("HTTP/1.1 200 ") {
        Some(_) => Ok(body.to_owned()),
        None => Err(io::Error::other(format!(
            "it answers {:?}",
            head.lines().next().unwrap_or_default()
        ))),
    }
}

fn converse(mut stream: impl Read + Write, path: &str) -> io::Result<String> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
