//! The status listener's sockets, on the loop.
//!
//! Owns its connections: few, short, and with a deadline, so that whoever looks at the daemon
//! cannot hold it up. One that asks too slowly makes room for the next. It must not know what is
//! answered.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Waker};
use socket2::{Domain, Socket};

use super::reload::wake;
use super::report::Answer;
use super::tokens::{MAX_STATUS_CLIENTS, Source};
use super::{Reactor, RunError};
use crate::config::{DEFAULT_STATUS, StatusAddress, StatusConfig, StatusListen};
use crate::daemon::identity::Owner;
use crate::daemon::socket;
use crate::library::catalogue::listing::{Listing, Page};
use crate::library::index::IndexError;
use crate::status::http::{self, Hosts, MAX_REQUEST_BYTES, Parsed};
use crate::timers::Time;

/// How long a whole exchange may take.
const EXCHANGE_MS: u64 = 10_000;

/// Bytes behind a request that are read before its connection is closed, in all: more than any client
/// sends that has not seen its answer yet. Who goes on is cut off, or the loop would read for ever.
const BEHIND_MAX_BYTES: usize = 64 * 1024;

/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = MAX_STATUS_CLIENTS;

/// Pages that are read at the same time; each is a thread that may wait for a disk.
const READING_MAX: usize = 4;

enum Listener {
    Tcp(TcpListener),
    /// With the path of its socket, which is removed at the end when it is ours.
    Unix(UnixListener, Option<PathBuf>),
}

/// The listener and those who ask.
pub(super) struct StatusServer {
    listener: Listener,
    hosts: Hosts,
    /// More may be waiting: a latch that only `WouldBlock` clears.
    readable: bool,
    clients: [Option<Client>; MAX_STATUS_CLIENTS],
    /// How many have come.
    came: u64,
    /// Pages that are being read.
    reading: Vec<Reading>,
}

/// A page that a thread reads for a client.
struct Reading {
    /// See [`Client::number`].
    client: u64,
    page: Receiver<Result<Page, IndexError>>,
}

struct Client {
    /// How many had come with it: the least is the oldest.
    number: u64,
    stream: Stream,
    received: Vec<u8>,
    answer: Vec<u8>,
    sent: usize,
    /// Bytes that came behind its request.
    behind: usize,
    until: Time,
    /// An event has come for it.
    ready: bool,
    /// Its answer is being read.
    waits: bool,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn with<T>(&mut self, act: impl FnOnce(&mut dyn ReadWrite) -> T) -> T {
        match self {
            Self::Tcp(stream) => act(stream),
            Self::Unix(stream) => act(stream),
        }
    }

    fn end_writing(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// What is left to do for a client.
enum Progress {
    /// Nothing until an event comes.
    Waits,
    /// Its request is here.
    Asks(Parsed),
    /// It is done.
    Gone,
}

impl StatusServer {
    /// Listens.
    fn bind(address: &StatusAddress, names: &[String], owner: Option<Owner>) -> io::Result<Self> {
        let listener = match address {
            StatusAddress::Tcp(address) => Listener::Tcp(TcpListener::bind(*address)?),
            StatusAddress::Unix(path) => {
                remove_stale(path)?;
                let listener = UnixListener::from_std(socket::listen(path, owner)?);
                Listener::Unix(listener, Some(path.clone()))
            }
        };
        Ok(Self::new(listener, names))
    }

    /// Takes over a socket that listens already.
    fn adopt(socket: Socket, names: &[String]) -> io::Result<Self> {
        let is_unix = socket.local_addr()?.domain() == Domain::UNIX;
        let listener = match is_unix {
            true => Listener::Unix(UnixListener::from_std(OwnedFd::from(socket).into()), None),
            false => Listener::Tcp(TcpListener::from_std(socket.into())),
        };
        Ok(Self::new(listener, names))
    }

    fn new(listener: Listener, names: &[String]) -> Self {
        let hosts = Hosts {
            names: names.to_vec(),
            any: matches!(listener, Listener::Unix(..)),
        };
        Self {
            listener,
            hosts,
            readable: true,
            clients: [const { None }; MAX_STATUS_CLIENTS],
            came: 0,
            reading: Vec::new(),
        }
    }

    /// Has the loop told of events. Logs the address.
    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        log::info!("status at {}", self.address()?);
        let token = Source::Status.token();
        match &mut self.listener {
            Listener::Tcp(listener) => registry.register(listener, token, Interest::READABLE),
            Listener::Unix(listener, _) => registry.register(listener, token, Interest::READABLE),
        }
    }

    fn address(&self) -> io::Result<StatusAddress> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().map(StatusAddress::Tcp),
            Listener::Unix(listener, _) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().unwrap_or(Path::new(""));
                Ok(StatusAddress::Unix(path.to_owned()))
            }
        }
    }

    /// Somebody knocks.
    pub(super) fn knocked(&mut self) {
        self.readable = true;
    }

    /// Something has happened to this client.
    pub(super) fn touched(&mut self, number: usize) {
        if let Some(Some(client)) = self.clients.get_mut(number) {
            client.ready = true;
        }
    }

    /// When the first client is late.
    pub(super) fn next(&self) -> Option<Time> {
        self.clients
            .iter()
            .flatten()
            .map(|client| client.until)
            .min()
    }

    fn accept(&mut self, registry: &Registry, now: Time) {
        for _ in 0..ACCEPTS_PER_TURN {
            if !self.readable {
                return;
            }
            let accepted = match &self.listener {
                Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
                Listener::Unix(listener, _) => {
                    listener.accept().map(|(stream, _)| Stream::Unix(stream))
                }
            };
            match accepted {
                Ok(stream) => self.admit(stream, registry, now),
                // Without descriptors nobody can look; the next knock tries again.
                Err(_) => self.readable = false,
            }
        }
    }

    /// Gives a connection a place: a free one, or that of whoever has had the longest time.
    fn admit(&mut self, mut stream: Stream, registry: &Registry, now: Time) {
        self.came += 1;
        let came = |(_, client): &(usize, &Option<Client>)| {
            let client = client.as_ref();
            client.map_or(0, |client| client.number)
        };
        let places = self.clients.iter().enumerate();
        let place = places.min_by_key(came).map_or(0, |(place, _)| place);
        let token = Source::StatusClient(place).token();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = match &mut stream {
            Stream::Tcp(stream) => registry.register(stream, token, interest),
            Stream::Unix(stream) => registry.register(stream, token, interest),
        };
        if let (Ok(()), Some(place)) = (registered, self.clients.get_mut(place)) {
            *place = Some(Client {
                number: self.came,
                stream,
                received: Vec::new(),
                answer: Vec::new(),
                sent: 0,
                behind: 0,
                until: now.after(EXCHANGE_MS),
                ready: true,
                waits: false,
            });
        }
    }
}

impl Reading {
    /// Starts a thread. When there can be none, its end of the channel is gone.
    fn start(client: u64, listing: Listing, waker: Arc<Waker>) -> Self {
        let (sender, page) = sync_channel(1);
        let work = move || {
            // The loop may have ended meanwhile.
            let _ = sender.send(listing.read());
            drop(sender);
            wake(&waker);
        };
        let thread = thread::Builder::new().name("hekate-listing".to_owned());
        if let Err(error) = thread.spawn(work) {
            log::error!("cannot list torrents: {error}");
        }
        Reading { client, page }
    }
}

impl StatusServer {
    /// Answers those whose page has been read.
    fn hand_out(&mut self, show: impl Fn(&Page) -> Vec<u8>) {
        let clients = &mut self.clients;
        self.reading.retain(|reading| {
            let answer = match reading.page.try_recv() {
                Err(TryRecvError::Empty) => return true,
                Ok(Ok(page)) => show(&page),
                Ok(Err(error)) => {
                    log::error!("cannot list torrents: {error}");
                    http::refusal(http::Status::InternalServerError)
                }
                Err(TryRecvError::Disconnected) => http::refusal(http::Status::InternalServerError),
            };
            let mut clients = clients.iter_mut().flatten();
            if let Some(client) = clients.find(|client| client.number == reading.client) {
                client.answer = answer;
                client.waits = false;
                client.ready = true;
            }
            false
        });
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        if let Listener::Unix(_, Some(path)) = &self.listener {
            // The directory may be one that this process may not write to any more.
            let _ = fs::remove_file(path);
        }
    }
}

impl Client {
    /// Goes on until the socket has nothing more, and answers what is to be done.
    fn proceed(&mut self, hosts: &Hosts) -> Progress {
        if self.answer.is_empty() {
            return self.listen(hosts);
        }
        let Self {
            stream,
            answer,
            sent,
            ..
        } = self;
        while let Some(rest) = answer.get(*sent..).filter(|rest| !rest.is_empty()) {
            match stream.with(|stream| stream.write(rest)) {
                Ok(0) => return Progress::Gone,
                Ok(bytes) => *sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Gone,
            }
            if *sent == answer.len() && stream.end_writing().is_err() {
                return Progress::Gone;
            }
        }
        self.await_end()
    }

    fn listen(&mut self, hosts: &Hosts) -> Progress {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.with(|stream| stream.read(&mut buffer)) {
                Ok(0) => return Progress::Gone,
                Ok(bytes) => {
                    let bytes = buffer.get(..bytes).unwrap_or_default();
                    self.received.extend_from_slice(bytes);
                    match http::parse(&self.received, hosts) {
                        Parsed::Incomplete if self.received.len() < MAX_REQUEST_BYTES => {}
                        parsed => return Progress::Asks(parsed),
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waits,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Progress::Gone,
            }
        }
    }

    /// Closing a socket with unread bytes in it would reset the connection under the answer.
    fn await_end(&mut self) -> Progress {
        let mut rest = [0; 4096];
        while self.behind < BEHIND_MAX_BYTES {
            match self.stream.with(|stream| stream.read(&mut rest)) {
                Ok(0) => return Progress::Gone,
                Ok(bytes) => self.behind += bytes,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Progress::Waits,
                Err(_) => return Progress::Gone,
            }
        }
        Progress::Gone
    }
}

impl Reactor {
    /// Takes and answers requests, and lets go of those who are late.
    pub(super) fn serve_status(&mut self) {
        let Some(mut server) = self.status.take() else {
            return;
        };
        let now = self.shared.now;
        server.accept(self.poll.registry(), now);
        server.hand_out(|page| self.listed(page));
        let StatusServer {
            clients,
            hosts,
            reading,
            ..
        } = &mut server;
        for place in clients {
            let Some(client) = place else { continue };
            let mut gone = now >= client.until;
            while !gone && !client.waits && std::mem::take(&mut client.ready) {
                match client.proceed(hosts) {
                    Progress::Waits => {}
                    Progress::Gone => gone = true,
                    Progress::Asks(parsed) => {
                        client.answer = match parsed {
                            Parsed::Request(request) => match self.answer(&request) {
                                Answer::Whole(answer) => answer,
                                Answer::List(_) if reading.len() >= READING_MAX => {
                                    http::refusal(http::Status::ServiceUnavailable)
                                }
                                Answer::List(listing) => {
                                    let waker = Arc::clone(&self.waker);
                                    reading.push(Reading::start(client.number, listing, waker));
                                    client.waits = true;
                                    continue;
                                }
                            },
                            Parsed::Refused(status) => http::refusal(status),
                            Parsed::Incomplete => http::refusal(http::Status::BadRequest),
                        };
                        client.ready = true;
                    }
                }
            }
            if gone {
                *place = None;
            }
        }
        self.status = Some(server);
    }
}

/// Listens where the configuration says. At the usual place another may be: then there is no status.
/// A socket that was passed takes the place of what the configuration says. One that root makes
/// becomes the owner's.
pub(super) fn bind(
    config: &StatusConfig,
    passed: Option<Socket>,
    owner: Option<Owner>,
) -> Result<Option<StatusServer>, RunError> {
    if let Some(socket) = passed {
        return Ok(Some(StatusServer::adopt(socket, &config.hosts)?));
    }
    let usual = StatusAddress::Tcp(DEFAULT_STATUS);
    let address = match &config.listen {
        StatusListen::Off => return Ok(None),
        StatusListen::Default => &usual,
        StatusListen::At(address) => address,
    };
    match StatusServer::bind(address, &config.hosts, owner) {
        Ok(server) => Ok(Some(server)),
        Err(error) if config.listen == StatusListen::Default => {
            log::warn!("no status page: {address}: {error}");
            Ok(None)
        }
        Err(error) => Err(RunError::Status(address.to_string(), error)),
    }
}

/// Removes a socket that nobody listens on, which a run that was killed has left.
fn remove_stale(path: &Path) -> io::Result<()> {
    match StdUnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        _ => Ok(()),
    }
}
