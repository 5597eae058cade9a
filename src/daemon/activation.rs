//! Sockets that a service manager has opened: the protocol of `sd_listen_fds(3)`.

use std::env;
use std::io;

use socket2::{Domain, Socket, Type};
use thiserror::Error;

use crate::sys::process;

/// The prefix of the name of the status socket; all other sockets are for peers.
const STATUS: &str = "status";

/// Listening sockets.
#[derive(Debug, Default)]
pub struct Passed {
    /// For peers. If there is one, no configured address is listened on.
    pub peers: Vec<Socket>,
    /// For the status.
    pub status: Option<Socket>,
}

/// What is wrong with a socket that was passed.
#[derive(Debug, Error)]
pub enum PassedError {
    /// The descriptors are not open.
    #[error("cannot take the sockets passed by the service manager: {0}")]
    Absent(#[from] io::Error),
    /// A socket cannot be used.
    #[error("the passed socket {name:?} {fault}")]
    Unfit {
        /// Its name in `LISTEN_FDNAMES`.
        name: String,
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl Passed {
    /// Takes the sockets that `LISTEN_FDS` counts, if `LISTEN_PID` is this process. To be called
    /// before any file is opened.
    ///
    /// # Errors
    /// A [`PassedError`].
    pub fn take() -> Result<Self, PassedError> {
        let variable = |name| env::var(name).ok()?.parse::<usize>().ok();
        let own = usize::try_from(std::process::id()).ok();
        let count = match (variable("LISTEN_PID"), variable("LISTEN_FDS")) {
            (Some(pid), Some(count)) if Some(pid) == own => count,
            _ => return Ok(Self::default()),
        };
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let sockets = process::take_passed_descriptors(count)?;
        let sockets = sockets.into_iter().map(Socket::from);
        Self::sort(sockets.zip(names.split(':').chain(std::iter::repeat(""))))
    }

    fn sort<'a>(sockets: impl Iterator<Item = (Socket, &'a str)>) -> Result<Self, PassedError> {
        let mut passed = Self::default();
        for (socket, name) in sockets {
            let is_status = name.starts_with(STATUS);
            let unfit = |fault| PassedError::Unfit {
                name: name.to_owned(),
                fault,
            };
            check(&socket, is_status).map_err(unfit)?;
            socket.set_nonblocking(true)?;
            match (is_status, &passed.status) {
                (false, _) => passed.peers.push(socket),
                (true, None) => passed.status = Some(socket),
                (true, Some(_)) => return Err(unfit("is a second one for the status")),
            }
        }
        Ok(passed)
    }
}

fn check(socket: &Socket, is_status: bool) -> Result<(), &'static str> {
    if !socket.r#type().is_ok_and(|found| found == Type::STREAM) {
        return Err("is not a stream socket");
    }
    if !socket.is_listener().unwrap_or(false) {
        return Err("does not listen");
    }
    let address = socket.local_addr().map_err(|_| "has no address")?;
    match address.domain() {
        Domain::IPV4 | Domain::IPV6 => Ok(()),
        Domain::UNIX if is_status => Ok(()),
        _ => Err("is of an unsupported address family"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::unix::net::UnixListener;

    fn sorted(sockets: Vec<(Socket, &str)>) -> Result<Passed, String> {
        Passed::sort(sockets.into_iter()).map_err(|error| error.to_string())
    }

    fn listener() -> Socket {
        TcpListener::bind("127.0.0.1:0").unwrap().into()
    }

    #[test]
    fn sockets_are_for_peers_unless_they_are_called_status() {
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("s")).unwrap();
        let given = vec![
            (listener(), "hekate.socket"),
            (unix.into(), "status"),
            (listener(), ""),
        ];
        let passed = sorted(given).unwrap();
        assert_eq!((passed.peers.len(), passed.status.is_some()), (2, true));
    }

    #[test]
    fn what_is_no_listening_socket_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(directory.path().join("s")).unwrap();
        let accepting = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(accepting.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        for (socket, fault) in [
            (Socket::from(udp), "is not a stream socket"),
            (stream.into(), "does not listen"),
            (unix.into(), "is of an unsupported address family"),
        ] {
            let expected = format!("the passed socket \"peers\" {fault}");
            assert_eq!(sorted(vec![(socket, "peers")]).unwrap_err(), expected);
        }
        let two = vec![(listener(), "status"), (listener(), "status")];
        assert!(
            sorted(two)
                .unwrap_err()
                .ends_with("a second one for the status")
        );
    }
}
