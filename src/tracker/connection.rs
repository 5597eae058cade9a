//! One connection to an HTTP tracker, with TLS or without, and the requests that are on it.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::event::Event as Readiness;
use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::request::{Request, RouteId};
use super::response::{Reader, Response, ResponseError};
use super::tls;
use super::url::{Scheme, Site};
use crate::net;
use crate::timers::Time;

/// Bytes read in one turn, so that a tracker that never stops does not starve others.
const BUDGET_BYTES: usize = 128 * 1024;

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// The tracker closed it, between two responses or before the first.
    #[error("the connection was closed")]
    Closed,
    /// An error of the socket or of TLS.
    #[error("{}", tls::words(.0))]
    Io(io::Error),
    /// The response is malformed.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// More responses than requests.
    #[error("a response came without a request")]
    Unrequested,
    /// No connection, or no whole response, in time.
    #[error("no answer in time")]
    TimedOut,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) route: RouteId,
    pub(super) site: Site,
    /// Requests that are not answered, in the order sent.
    pub(super) in_flight: VecDeque<Request>,
    /// The most requests that may be on it at the same time.
    pub(super) depth: usize,
    /// The most requests that were on it at the same time since it last carried none.
    pub(super) batch: usize,
    /// Responses that have come.
    pub(super) answered: u32,
    /// The last of them announced that the connection ends.
    pub(super) closing: bool,
    /// The connection is made. Before that, its end is not the fault of a request.
    pub(super) is_connected: bool,
    /// A part of the batch has been answered.
    answering: bool,
    /// When a request was last put on it.
    pub(super) pushed_at: Time,
    /// When the last response came.
    pub(super) answered_at: Time,
    /// It is closed then, unless something happens on it.
    pub(super) deadline: Time,
    /// The socket, to be registered.
    pub(super) stream: TcpStream,
    readable: bool,
    writable: bool,
    tls: Option<Box<ClientConnection>>,
    /// Where the bytes of a request are appended, before [`Self::push`].
    pub(super) out: Vec<u8>,
    sent: usize,
    reader: Reader,
}

impl Connection {
    /// Begins to connect.
    ///
    /// # Errors
    /// Those of the socket, and of a host name that no certificate can have.
    pub(super) fn open(
        route: RouteId,
        site: &Site,
        source: IpAddr,
        address: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let tls = if site.scheme == Scheme::Https {
            let config = tls.ok_or(ErrorKind::Unsupported)?;
            let name = ServerName::try_from(site.host.to_string()).map_err(io::Error::other)?;
            let connection = ClientConnection::new(Arc::clone(config), name);
            Some(Box::new(connection.map_err(io::Error::other)?))
        } else {
            None
        };
        let stream = net::connect(source, address)?;
        // Do not delay a request in the hope of more to send with it.
        stream.set_nodelay(true)?;
        Ok(Self {
            route,
            site: site.clone(),
            in_flight: VecDeque::new(),
            depth: 1,
            batch: 0,
            answered: 0,
            closing: false,
            is_connected: false,
            answering: false,
            pushed_at: Time::default(),
            answered_at: Time::default(),
            deadline: Time::default(),
            stream,
            readable: false,
            writable: false,
            tls,
            out: Vec::new(),
            sent: 0,
            reader: Reader::default(),
        })
    }

    /// The socket is ready.
    pub(super) fn handle_event(&mut self, event: &Readiness) {
        self.readable |= event.is_readable() || event.is_read_closed() || event.is_error();
        self.writable |= event.is_writable() || event.is_write_closed() || event.is_error();
    }

    /// Returns true if it has been connected just now.
    pub(super) fn connects(&mut self) -> bool {
        let before = self.is_connected;
        self.is_connected = before || (self.writable && self.stream.peer_addr().is_ok());
        self.is_connected != before
    }

    /// Returns true if another request may be put on it. `is_proven`: it does not have to wait for the
    /// end of a batch.
    pub(super) fn has_room(&self, is_proven: bool) -> bool {
        let gathers = is_proven || !self.answering;
        !self.closing && gathers && self.in_flight.len() < self.depth
    }

    /// Puts a request on it, whose bytes were appended.
    pub(super) fn push(&mut self, request: Request, now: Time) {
        self.in_flight.push_back(request);
        self.batch = self.batch.max(self.in_flight.len());
        self.pushed_at = now;
    }

    /// The size of the batch, if all of it has been answered.
    pub(super) fn whole_batch(&mut self) -> Option<usize> {
        let whole = self.in_flight.is_empty();
        whole.then(|| std::mem::take(&mut self.batch))
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// Why the connection has ended.
    pub(super) fn send(&mut self) -> Result<(), End> {
        match self.write_all() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(())
            }
            written => written.map_err(End::Io),
        }
    }

    fn write_all(&mut self) -> io::Result<()> {
        while self.writable && self.sent < self.out.len() {
            let rest = self.out.get(self.sent..);
            let rest = rest.expect("no more is sent than waits");
            let written = match &mut self.tls {
                None => match self.stream.write(rest) {
                    Err(error) if error.kind() == ErrorKind::Interrupted => 0,
                    outcome => outcome?,
                },
                Some(tls) => tls.writer().write(rest)?,
            };
            if written == 0 && self.tls.is_some() {
                // Its buffer is full until the socket takes some.
                break;
            }
            self.sent += written;
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        if let Some(tls) = &mut self.tls {
            while self.writable && tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
        Ok(())
    }

    /// Reads what has come, and appends each response with its request.
    ///
    /// # Errors
    /// Why the connection has ended.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        answers: &mut Vec<(Request, Response)>,
    ) -> Result<(), End> {
        let mut budget = BUDGET_BYTES;
        while self.readable && budget > 0 {
            match self.read(buffer, &mut budget) {
                Ok(0) => return self.finish(answers),
                Ok(length) => {
                    let bytes = buffer.get(..length);
                    self.take(bytes.expect("a read fits the buffer"), answers)?;
                }
                // Without a budget the socket may still have some.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = budget == 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(End::Io(error)),
            }
        }
        Ok(())
    }

    /// Reads plain bytes; none at the end. Bytes of the socket are taken off the budget.
    fn read(&mut self, buffer: &mut [u8], budget: &mut usize) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            let length = self.stream.read(buffer)?;
            *budget = budget.saturating_sub(length);
            return Ok(length);
        };
        decrypt(tls, &mut self.stream, &mut self.writable, buffer, budget)
    }

    fn take(
        &mut self,
        mut bytes: &[u8],
        answers: &mut Vec<(Request, Response)>,
    ) -> Result<(), End> {
        while !bytes.is_empty() {
            let (used, response) = self.reader.read(bytes)?;
            bytes = bytes.get(used..).expect("no more is used than there is");
            if let Some(response) = response {
                self.answer(response, answers)?;
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        response: Response,
        answers: &mut Vec<(Request, Response)>,
    ) -> Result<(), End> {
        let request = self.in_flight.pop_front().ok_or(End::Unrequested)?;
        self.answered += 1;
        self.answering = !self.in_flight.is_empty();
        self.closing = !response.keep_alive;
        answers.push((request, response));
        if self.closing {
            Err(End::Closed)
        } else {
            Ok(())
        }
    }

    /// The tracker has closed the connection, which may end a response.
    fn finish(&mut self, answers: &mut Vec<(Request, Response)>) -> Result<(), End> {
        if let Some(response) = self.reader.finish()? {
            self.answer(response, answers)?;
        }
        Err(End::Closed)
    }

    /// Returns true if sending or reading may go on now.
    pub(super) fn is_ready(&self) -> bool {
        let waits =
            self.sent < self.out.len() || self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        self.readable || (self.writable && waits)
    }
}

/// Reads plain bytes of TLS; none at the end. `WouldBlock` when the stream or the budget has no more:
/// much may come that holds no plain byte.
fn decrypt(
    tls: &mut ClientConnection,
    stream: &mut (impl Read + Write),
    writable: &mut bool,
    buffer: &mut [u8],
    budget: &mut usize,
) -> io::Result<usize> {
    loop {
        match tls.reader().read(buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // Many servers end without a close_notify; responses have a length of their own.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            outcome => return outcome,
        }
        if *budget == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        *budget = budget.saturating_sub(tls.read_tls(stream)?);
        let processed = tls.process_new_packets();
        // The handshake goes on, or an alert is sent.
        while *writable && tls.wants_write() {
            match tls.write_tls(stream) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => *writable = false,
                Err(error) => return Err(error),
            }
        }
        processed.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
    }
}

#[cfg(test)]
mod tests;
