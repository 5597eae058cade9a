//! One connection to an HTTP tracker, with TLS or without, and the requests that are on it.
//!
//! Owns the stream and the order of answers. It must not know what an answer means for a torrent,
//! nor whether another connection may be opened.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::announce::Request;
use super::family::Family;
use super::lists::TrackerId;
use super::response::{Reader, Response, ResponseError};
use super::url::{Scheme, Site};
use crate::net;
use crate::timers::Time;

/// Bytes read in one turn, so that a tracker that never stops starves nobody.
const BUDGET_BYTES: usize = 128 * 1024;

/// Why a connection has ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum End {
    /// By the tracker, between two responses or before the first.
    #[error("the connection was closed")]
    Closed,
    /// By the system or the network.
    #[error("{0}")]
    Io(io::Error),
    /// What came makes no sense.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// A response to nothing.
    #[error("a response came without a request")]
    Unasked,
    /// No connection, or no whole response, in time.
    #[error("no answer in time")]
    TimedOut,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) tracker: TrackerId,
    pub(super) family: Family,
    /// That of the tracker's target when it was opened.
    pub(super) generation: u32,
    /// What has not been answered, in the order sent.
    pub(super) in_flight: VecDeque<Request>,
    /// How many may be on it at the same time.
    pub(super) depth: usize,
    /// Requests may follow each other without waiting for the end of a batch.
    pub(super) proven: bool,
    /// The most that were on it at the same time since it last carried none.
    pub(super) batch: usize,
    /// Responses that have come.
    pub(super) answered: u32,
    /// The last of them said that the connection ends.
    pub(super) closing: bool,
    /// It is not only asked for: a connection that was refused is no fault of its request.
    pub(super) connected: bool,
    /// A part of the batch has been answered.
    answering: bool,
    /// When a request was put on it last.
    pub(super) pushed_at: Time,
    /// When the last response came.
    pub(super) answered_at: Time,
    /// When it has waited for too long.
    pub(super) deadline: Time,
    pub(super) stream: TcpStream,
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Whether it is in the list of those with something to do.
    pub(super) listed: bool,
    tls: Option<Box<ClientConnection>>,
    out: Vec<u8>,
    sent: usize,
    reader: Reader,
}

/// Whether reading is to go on.
#[derive(Debug)]
pub(super) enum Progress {
    /// Nothing more has come.
    Blocked,
    /// More may be there: in the next turn.
    More,
    /// It is of no more use.
    Ended(End),
}

impl Connection {
    /// Begins to connect.
    ///
    /// # Errors
    /// Those of the socket, and of a host name that no certificate can have.
    pub(super) fn open(
        site: &Site,
        source: IpAddr,
        address: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
    ) -> io::Result<Self> {
        let tls = match (site.scheme, tls) {
            (Scheme::Https, Some(config)) => {
                let name = ServerName::try_from(site.host.to_string())
                    .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
                let connection = ClientConnection::new(Arc::clone(config), name)
                    .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
                Some(Box::new(connection))
            }
            (Scheme::Https, None) => return Err(ErrorKind::Unsupported.into()),
            _ => None,
        };
        let stream = net::connect(source, address)?;
        // Do not delay a request in the hope of more to send with it.
        stream.set_nodelay(true)?;
        Ok(Self {
            tracker: TrackerId::MIN,
            family: Family::V4,
            generation: 0,
            in_flight: VecDeque::new(),
            depth: 1,
            proven: false,
            batch: 0,
            answering: false,
            pushed_at: Time::default(),
            answered: 0,
            closing: false,
            connected: false,
            answered_at: Time::default(),
            deadline: Time::default(),
            stream,
            readable: false,
            writable: false,
            listed: false,
            tls,
            out: Vec::new(),
            sent: 0,
            reader: Reader::default(),
        })
    }

    /// Whether it has been connected just now.
    pub(super) fn connects(&mut self) -> bool {
        let before = self.connected;
        self.connected = before || (self.writable && self.stream.peer_addr().is_ok());
        self.connected != before
    }

    /// Whether another request may be put on it.
    pub(super) fn has_room(&self) -> bool {
        let gathers = self.proven || !self.answering;
        !self.closing && gathers && self.in_flight.len() < self.depth
    }

    /// Puts a request on it, whose bytes `write` appends.
    pub(super) fn push(&mut self, request: Request, now: Time, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.out);
        self.in_flight.push_back(request);
        self.batch = self.batch.max(self.in_flight.len());
        self.pushed_at = now;
    }

    /// How large the batch was, when all of it has been answered.
    pub(super) fn whole_batch(&mut self) -> Option<usize> {
        let whole = self.in_flight.is_empty();
        whole.then(|| std::mem::take(&mut self.batch))
    }

    /// Sends what waits, as far as the socket takes it.
    ///
    /// # Errors
    /// Why the connection is of no more use.
    pub(super) fn send(&mut self) -> Result<(), End> {
        let outcome = self.write_all();
        match outcome {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Ok(())
            }
            Err(error) => Err(End::Io(error)),
        }
    }

    fn write_all(&mut self) -> io::Result<()> {
        while self.writable && self.sent < self.out.len() {
            let rest = self.out.get(self.sent..).unwrap_or_default();
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

    /// Reads what has come, and answers which requests it answers.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        answers: &mut Vec<(Request, Response)>,
    ) -> Progress {
        let mut budget = BUDGET_BYTES;
        while self.readable {
            if budget == 0 {
                return Progress::More;
            }
            match self.read(buffer, &mut budget) {
                Ok(0) => return Progress::Ended(self.finish(answers)),
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if let Err(end) = self.take(bytes, answers) {
                        return Progress::Ended(end);
                    }
                }
                // Without a budget the socket may still have some.
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = budget == 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Progress::Ended(End::Io(error)),
            }
        }
        Progress::Blocked
    }

    /// Plain bytes; none when the tracker has closed. What comes from the socket is taken off the
    /// budget.
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
            bytes = bytes.get(used..).unwrap_or_default();
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
        let request = self.in_flight.pop_front().ok_or(End::Unasked)?;
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

    /// The tracker has closed: that may end a response.
    fn finish(&mut self, answers: &mut Vec<(Request, Response)>) -> End {
        match self.reader.finish() {
            Ok(Some(response)) => match self.answer(response, answers) {
                Err(end) => end,
                Ok(()) => End::Closed,
            },
            Ok(None) => End::Closed,
            Err(error) => End::Response(error),
        }
    }

    /// Whether sending or reading may go on now.
    pub(super) fn is_ready(&self) -> bool {
        let waits =
            self.sent < self.out.len() || self.tls.as_ref().is_some_and(|tls| tls.wants_write());
        self.readable || (self.writable && waits)
    }
}

/// Plain bytes of TLS; none when the other side has closed. `WouldBlock` when the stream has no more,
/// or the budget has not: much may come that holds no plain byte.
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
            // Many servers end without saying so; responses have a length of their own.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
            outcome => return outcome,
        }
        if *budget == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        *budget = budget.saturating_sub(tls.read_tls(stream)?);
        let processed = tls.process_new_packets();
        // The handshake goes on, or the other side is told what was wrong.
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
