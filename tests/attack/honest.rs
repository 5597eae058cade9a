//! Honest peers beside the attackers: each arrives, says what clients say, and downloads.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::attacks::Target;
use crate::crowd::bound_socket;
use crate::leecher::{FAST_AND_EXTENDED, handshake, interested, message, request};

const BLOCK: u32 = 16 * 1024;
/// Who stays downloads at this rate at most, so that fifty of them leave a processor to the others.
const BYTES_PER_SECOND: f64 = 1e6;

/// How an honest peer was served.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// From the first packet to the first byte of a block, or why there was none.
    pub(crate) first_byte: Result<Duration, Failure>,
    /// How long it was connected and how long unchoked, from `counted_from` on.
    pub(crate) connected: Duration,
    pub(crate) unchoked: Duration,
    pub(crate) bytes: u64,
    /// Connections that the seeder has closed after the first block.
    pub(crate) lost: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Failure {
    /// Refused, or closed before it got a block.
    Refused,
    /// Nothing within its patience.
    Late,
}

/// When an honest peer comes and goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visit {
    /// How long it waits for its first block.
    pub(crate) patience: Duration,
    /// It downloads until then; it leaves after the first block when that is over.
    pub(crate) until: Instant,
    /// Slots are counted from here.
    pub(crate) counted_from: Instant,
}

/// One honest peer from its arrival until it leaves.
pub(crate) fn visit(source: IpAddr, seeder: SocketAddr, target: &Target, visit: Visit) -> Outcome {
    let begun = Instant::now();
    let mut outcome = Outcome {
        first_byte: Err(Failure::Late),
        unchoked: Duration::ZERO,
        connected: Duration::ZERO,
        bytes: 0,
        lost: 0,
    };
    let first_end = begun + visit.patience;
    let mut end = first_end;
    loop {
        let mut connection = Connection::new(target, begun, visit.counted_from);
        let ended = connection.run(source, seeder, end, visit.until, &mut outcome);
        connection.choked(&mut outcome);
        outcome.connected += connection.connected();
        match ended {
            Err(error) if !is_late(&error) => {
                if outcome.first_byte.is_err() {
                    outcome.first_byte = Err(Failure::Refused);
                    break;
                }
                outcome.lost += 1;
                std::thread::sleep(Duration::from_millis(200));
            }
            _ => break,
        }
        end = visit.until;
        if Instant::now() >= visit.until {
            break;
        }
    }
    outcome
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

struct Connection<'a> {
    target: &'a Target,
    begun: Instant,
    counted_from: Instant,
    /// Pieces that the seeder shows; `None` once it has shown all.
    shown: Option<Vec<u32>>,
    connected_at: Option<Instant>,
    unchoked_at: Option<Instant>,
    in_flight: u32,
}

impl Connection<'_> {
    fn new(target: &Target, begun: Instant, counted_from: Instant) -> Connection<'_> {
        Connection {
            target,
            begun,
            counted_from,
            shown: Some(Vec::new()),
            connected_at: None,
            unchoked_at: None,
            in_flight: 0,
        }
    }

    /// Downloads until `until`, or until the first block when that is later. `end` is the end of its
    /// patience: a read that lasts longer is an error.
    fn run(
        &mut self,
        source: IpAddr,
        seeder: SocketAddr,
        end: Instant,
        until: Instant,
        outcome: &mut Outcome,
    ) -> io::Result<()> {
        let mut stream = connect(source, seeder, end)?;
        let hello = handshake(
            FAST_AND_EXTENDED,
            self.target.info_hash,
            b"-HN0000-abcdefghijkl",
        );
        stream.write_all(&hello)?;
        let mut theirs = [0; 68];
        read_exact(&mut stream, &mut theirs, end)?;
        self.connected_at = Some(Instant::now());
        // What a client says after the handshake: BEP 10, BEP 6, BEP 3.
        let opening = [
            message(20, b"\0d1:md11:ut_metadatai1e6:ut_pexi2eee"),
            message(15, &[]),
            interested(),
        ];
        stream.write_all(&opening.concat())?;
        let mut body = Vec::new();
        let started = Instant::now();
        let mut taken = 0.0;
        loop {
            let end = if outcome.first_byte.is_ok() {
                until
            } else {
                end
            };
            let mut length = [0; 4];
            read_exact(&mut stream, &mut length, end)?;
            let length = u32::from_be_bytes(length) as usize;
            if length == 0 {
                continue;
            }
            let mut id = [0];
            read_exact(&mut stream, &mut id, end)?;
            if id[0] == 7 && outcome.first_byte.is_err() {
                let mut first = [0; 9];
                read_exact(&mut stream, &mut first, end)?;
                outcome.first_byte = Ok(self.begun.elapsed());
                body.resize(length - 10, 0);
            } else {
                body.resize(length - 1, 0);
            }
            read_exact(&mut stream, &mut body, end)?;
            match (id[0], body.as_slice()) {
                (0, _) => {
                    self.choked(outcome);
                    self.in_flight = 0;
                }
                (1, _) => self.unchoked_at = Some(Instant::now()),
                (4, index) => {
                    let index = u32::from_be_bytes(index.try_into().map_err(io::Error::other)?);
                    self.shown.get_or_insert_default().push(index);
                }
                (5 | 14, _) => self.shown = None,
                (7, _) => {
                    outcome.bytes += length as u64 - 9;
                    taken += length as f64;
                    self.in_flight = self.in_flight.saturating_sub(1);
                    if Instant::now() >= until {
                        return Ok(());
                    }
                    let due = started + Duration::from_secs_f64(taken / BYTES_PER_SECOND);
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                }
                (16, _) => self.in_flight = self.in_flight.saturating_sub(1),
                _ => {}
            }
            self.ask(&mut stream)?;
        }
    }

    /// Keeps a few requests in flight while it is unchoked and knows of a piece.
    fn ask(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        let wanted = match self.in_flight {
            0..=4 => 8 - self.in_flight,
            _ => 0,
        };
        if self.unchoked_at.is_none() || wanted == 0 {
            return Ok(());
        }
        let mut bytes = Vec::new();
        for _ in 0..wanted {
            let index = match &self.shown {
                None => fastrand::u32(..self.target.pieces),
                Some(shown) => match fastrand::choice(shown) {
                    Some(index) => *index,
                    None => return Ok(()),
                },
            };
            bytes.extend(request(index, fastrand::u32(..16) * BLOCK, BLOCK));
        }
        self.in_flight += wanted;
        stream.write_all(&bytes)
    }

    fn connected(&self) -> Duration {
        self.connected_at
            .map_or(Duration::ZERO, |since| self.counted(since))
    }

    /// From `since` to now, without what is before slots are counted.
    fn counted(&self, since: Instant) -> Duration {
        Instant::now().saturating_duration_since(since.max(self.counted_from))
    }

    /// The slot is lost, or the connection.
    fn choked(&mut self, outcome: &mut Outcome) {
        if let Some(since) = self.unchoked_at.take() {
            outcome.unchoked += self.counted(since);
        }
    }
}

fn connect(source: IpAddr, seeder: SocketAddr, end: Instant) -> io::Result<TcpStream> {
    let socket = bound_socket(source)?;
    socket.connect_timeout(&seeder.into(), left(end)?)?;
    let stream: TcpStream = socket.into();
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left(end)?))?;
    Ok(stream)
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(ErrorKind::TimedOut.into());
    }
    Ok(left)
}

fn read_exact(stream: &mut TcpStream, mut bytes: &mut [u8], end: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(bytes)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => bytes = &mut bytes[count..],
        }
    }
    Ok(())
}
