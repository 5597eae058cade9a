//! The sockets of the status listener.
//!
//! Requests come out of [`StatusServer::poll`], answers go back by [`StatusServer::respond`]. Clients
//! are few and short-lived, and each has a deadline, so they cannot hold up the daemon. When all slots
//! are taken, the oldest client makes room for the next.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Socket};
use thiserror::Error;

use super::http::{self, Hosts, Parsed, Request};
use crate::config::{DEFAULT_STATUS, StatusAddress, StatusConfig, StatusListen};
use crate::daemon::identity::Owner;
use crate::daemon::socket;
use crate::timers::Time;

/// Clients at the same time: a few people and their monitoring.
pub const MAX_CLIENTS: usize = 16;

/// The longest exchange.
const EXCHANGE_MS: u64 = 10_000;

/// Most bytes after a request that are read before its connection is closed: more than any client
/// sends before it sees the response. The bound keeps a client from making the loop read for ever.
const DRAINED_MAX_BYTES: usize = 64 * 1024;

/// The status listener cannot be opened where the configuration says.
#[derive(Debug, Error)]
#[error("cannot serve the status at {address}: {error}")]
pub struct StatusError {
    address: String,
    error: io::Error,
}

/// The id of a client, from its request to its response. Ids are not reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct ClientId(u64);

/// The listener and its clients.
pub struct StatusServer {
    listener: Socket,
    /// The path of a Unix socket that we created: it is removed at the end.
    path: Option<PathBuf>,
    hosts: Hosts,
    /// More clients may be waiting: a latch that only `WouldBlock` clears.
    is_acceptable: bool,
    clients: [Option<Client>; MAX_CLIENTS],
    next_id: ClientId,
    /// The log has named a host that is not accepted.
    is_host_said: bool,
}

struct Client {
    id: ClientId,
    stream: Socket,
    state: ClientState,
    /// It is sent no body.
    is_head: bool,
    deadline: Time,
    /// There was an event, or a response to send: a latch that `WouldBlock` clears.
    is_ready: bool,
}

enum ClientState {
    /// Its request is being read.
    Receiving(Vec<u8>),
    /// Its request is complete, and its response is awaited.
    Awaiting,
    Sending {
        answer: Vec<u8>,
        sent: usize,
    },
    /// Closing a socket with unread bytes would reset the connection before the response arrives.
    Draining {
        bytes: usize,
    },
}

impl StatusServer {
    /// Listens at the configured address; a socket that was passed to the process takes precedence.
    /// If another program has the default address, there is no status. A Unix socket that root creates
    /// is given to `owner`.
    ///
    /// # Errors
    /// When the configured address cannot be listened on.
    pub fn open(
        config: &StatusConfig,
        passed: Option<Socket>,
        owner: Option<Owner>,
    ) -> Result<Option<Self>, StatusError> {
        if let Some(socket) = passed {
            return Ok(Some(Self::new(socket, None, &config.hosts)));
        }
        let default = StatusAddress::Tcp(DEFAULT_STATUS);
        let address = match &config.listen {
            StatusListen::Off => return Ok(None),
            StatusListen::Default => &default,
            StatusListen::At(address) => address,
        };
        let path = match address {
            StatusAddress::Unix(path) => Some(path.clone()),
            StatusAddress::Tcp(_) => None,
        };
        match bind(address, owner) {
            Ok(listener) => Ok(Some(Self::new(listener, path, &config.hosts))),
            Err(error) if config.listen == StatusListen::Default => {
                log::warn!("no status page: {address}: {error}");
                Ok(None)
            }
            Err(error) => Err(StatusError {
                address: address.to_string(),
                error,
            }),
        }
    }

    fn new(listener: Socket, path: Option<PathBuf>, names: &[String]) -> Self {
        let address = listener.local_addr();
        let hosts = Hosts {
            names: names.to_vec(),
            any: address.is_ok_and(|address| address.domain() == Domain::UNIX),
        };
        Self {
            listener,
            path,
            hosts,
            is_acceptable: true,
            clients: [const { None }; MAX_CLIENTS],
            next_id: ClientId(0),
            is_host_said: false,
        }
    }

    /// Registers the listener. Logs its address.
    ///
    /// # Errors
    /// Those of epoll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let address = self.listener.local_addr()?;
        let path = || address.as_pathname().unwrap_or(Path::new("")).to_owned();
        let address =
            (address.as_socket()).map_or_else(|| StatusAddress::Unix(path()), StatusAddress::Tcp);
        log::info!("status at {address}");
        registry.register(
            &mut SourceFd(&self.listener.as_raw_fd()),
            token,
            Interest::READABLE,
        )
    }

    /// Clients may be waiting to be accepted.
    pub fn listener_ready(&mut self) {
        self.is_acceptable = true;
    }

    /// The socket of the client in this slot is readable or writable.
    pub fn client_ready(&mut self, slot: usize) {
        if let Some(Some(client)) = self.clients.get_mut(slot) {
            client.is_ready = true;
        }
    }

    /// When the first deadline of a client is.
    pub fn poll_at(&self) -> Option<Time> {
        let clients = self.clients.iter().flatten();
        clients.map(|client| client.deadline).min()
    }

    /// Accepts the clients that wait, at most [`MAX_CLIENTS`]. `token` names a slot.
    pub fn accept(&mut self, registry: &Registry, token: fn(usize) -> Token, now: Time) {
        for _ in 0..MAX_CLIENTS {
            if !self.is_acceptable {
                return;
            }
            match self.listener.accept() {
                Ok((stream, _)) => self.admit(stream, registry, token, now),
                // Also without free descriptors; the next event tries again.
                Err(_) => self.is_acceptable = false,
            }
        }
    }

    /// Gives a client a slot: a free one, or that of the oldest client.
    fn admit(&mut self, stream: Socket, registry: &Registry, token: fn(usize) -> Token, now: Time) {
        let slots = self.clients.iter_mut().enumerate();
        let id = |client: &Option<Client>| client.as_ref().map(|client| client.id);
        let oldest = slots.min_by_key(|(_, client)| id(client));
        let (slot, client) = oldest.expect("there are slots");
        let interest = Interest::READABLE | Interest::WRITABLE;
        let source = stream.as_raw_fd();
        let watched = stream
            .set_nonblocking(true)
            .and_then(|()| registry.register(&mut SourceFd(&source), token(slot), interest));
        // A client that cannot be watched is dropped, which closes it.
        if watched.is_ok() {
            *client = Some(Client {
                id: self.next_id,
                stream,
                state: ClientState::Receiving(Vec::new()),
                is_head: false,
                deadline: now.after(EXCHANGE_MS),
                is_ready: true,
            });
            self.next_id.0 += 1;
        }
    }

    /// Reads and writes as far as sockets allow, and closes clients whose deadline has passed.
    /// Returns a request to be answered; to be called again until there is none.
    pub fn poll(&mut self, now: Time) -> Option<(ClientId, Request)> {
        for slot in &mut self.clients {
            let Some(client) = slot else { continue };
            if now >= client.deadline {
                *slot = None;
                continue;
            }
            if !std::mem::take(&mut client.is_ready) {
                continue;
            }
            let mut advance = client.advance(&self.hosts);
            if let Advance::Misdirected(host) = advance {
                if !std::mem::replace(&mut self.is_host_said, true) {
                    log::warn!("a request for the host {host} is refused: --status-host allows it");
                }
                advance = client.advance(&self.hosts);
            }
            match advance {
                Advance::Blocked => {}
                Advance::Closed | Advance::Misdirected(_) => *slot = None,
                Advance::Request(request) => return Some((client.id, request)),
            }
        }
        None
    }

    /// Answers a request. The answer of a client that has gone is dropped.
    pub fn respond(&mut self, id: ClientId, answer: Vec<u8>) {
        let mut clients = self.clients.iter_mut().flatten();
        if let Some(client) = clients.find(|client| client.id == id) {
            client.send(answer);
            client.is_ready = true;
        }
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // The directory may be one that this process may not write to any more.
            let _ = fs::remove_file(path);
        }
    }
}

fn bind(address: &StatusAddress, owner: Option<Owner>) -> io::Result<Socket> {
    match address {
        StatusAddress::Tcp(address) => {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(listener.into())
        }
        StatusAddress::Unix(path) => {
            remove_stale(path)?;
            socket::listen(path, owner)
        }
    }
}

/// The state of a client after reading and writing.
enum Advance {
    /// It waits for an event or for its response.
    Blocked,
    /// Its request is complete.
    Request(Request),
    /// Its request named this host, which is not accepted. The answer is to be sent.
    Misdirected(String),
    /// The exchange is over.
    Closed,
}

impl Client {
    /// Reads and writes until the socket would block.
    fn advance(&mut self, hosts: &Hosts) -> Advance {
        loop {
            match self.step(hosts) {
                Ok(None) => {}
                Ok(Some(advance)) => return advance,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Advance::Blocked,
                Err(_) => return Advance::Closed,
            }
        }
    }

    /// Sends an answer from now on.
    fn send(&mut self, mut answer: Vec<u8>) {
        if self.is_head {
            http::cut_body(&mut answer);
        }
        self.state = ClientState::Sending { answer, sent: 0 };
    }

    /// One read or write. Returns `None` if another may follow.
    fn step(&mut self, hosts: &Hosts) -> io::Result<Option<Advance>> {
        let mut buffer = [0; 4096];
        match &mut self.state {
            ClientState::Receiving(received) => {
                let length = self.stream.read(&mut buffer)?;
                if length == 0 {
                    return Ok(Some(Advance::Closed));
                }
                received.extend(buffer.iter().take(length));
                self.is_head = received.starts_with(b"HEAD ");
                let answer = match http::parse(received, hosts) {
                    Parsed::Incomplete => return Ok(None),
                    Parsed::Refused(status) => http::refusal(status),
                    Parsed::Misdirected(host) => {
                        self.send(http::misdirected(&host));
                        return Ok(Some(Advance::Misdirected(host)));
                    }
                    Parsed::Request(request) => {
                        self.state = ClientState::Awaiting;
                        return Ok(Some(Advance::Request(request)));
                    }
                };
                self.send(answer);
            }
            ClientState::Awaiting => return Ok(Some(Advance::Blocked)),
            ClientState::Sending { answer, sent } => {
                let rest = answer.get(*sent..).expect("no more is sent than there is");
                match self.stream.write(rest)? {
                    0 => return Ok(Some(Advance::Closed)),
                    length => *sent += length,
                }
                if *sent == answer.len() {
                    self.stream.shutdown(Shutdown::Write)?;
                    self.state = ClientState::Draining { bytes: 0 };
                }
            }
            ClientState::Draining { bytes } => match self.stream.read(&mut buffer)? {
                0 => return Ok(Some(Advance::Closed)),
                _ if *bytes >= DRAINED_MAX_BYTES => return Ok(Some(Advance::Closed)),
                length => *bytes += length,
            },
        }
        Ok(None)
    }
}

/// Removes a socket that no process listens on, left by one that was killed.
fn remove_stale(path: &Path) -> io::Result<()> {
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}
