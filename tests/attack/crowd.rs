//! The attackers: hundreds of connections on one thread, which say what an attack says.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hekate::rate::{Burst, RateLimiter};
use hekate::timers::Time;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use crate::attacks::{Attack, Reads, Target};
use crate::frames::{CHOKE, Frames, UNCHOKE};

/// What all attackers together send in a second at most: a line of 400 Mbit/s. An attacker has a
/// machine of his own; here he has half of the seeder's.
const SENT_BYTES_PER_SECOND: u64 = 50_000_000;
/// Connections that are opened in a second at most, as from a machine that scans.
const CONNECTS_PER_SECOND: u64 = 2_000;
/// Small ones, of the same line.
const SENT_DATAGRAMS_PER_SECOND: u64 = 200_000;
/// A place that was lost is tried again so soon.
const RECONNECT_AFTER: Duration = Duration::from_millis(50);
/// So much of a flood is sent to one before the next one's turn, and read at once.
const STEP_BYTES: usize = 16 * 1024;
/// Who does not read leaves no more than this in his own kernel: the seeder's has the rest.
const UNREAD_BYTES: usize = 4096;
/// What the seeder does not take is not piled up further.
const PENDING_BYTES: usize = 1 << 20;
const SLOW_READ_INTERVAL: Duration = Duration::from_millis(500);
const TICK: Duration = Duration::from_millis(5);

/// What the crowd has done so far. Read while it runs.
#[derive(Default)]
pub(crate) struct Stats {
    /// Connected at this moment, whatever the seeder thinks of them.
    pub(crate) connected: AtomicU64,
    /// Times that a connection was established.
    pub(crate) connects: AtomicU64,
    /// Times that the seeder has closed one.
    pub(crate) closed: AtomicU64,
    pub(crate) sent_bytes: AtomicU64,
    pub(crate) received_bytes: AtomicU64,
}

struct Attacker {
    source: IpAddr,
    seeder: SocketAddr,
    stream: Option<TcpStream>,
    since: Instant,
    frames: Frames,
    writable: bool,
    readable: bool,
    /// When one that reads slowly reads again.
    next_read: Instant,
    /// What is to be sent, and how far it is.
    pending: Vec<u8>,
    written: usize,
    flood_at: usize,
    next_again: Instant,
    /// When a closed one comes again.
    reconnect_at: Instant,
}

/// What a crowd may have saved up.
const BURST: Burst = Burst {
    ms: 100,
    min_units: 1,
};

/// The attack that goes on, and what all attackers share.
struct Crowd<'a> {
    attack: &'a Attack,
    target: &'a Target,
    flood: Vec<u8>,
    connects: RateLimiter,
    line: RateLimiter,
    /// Milliseconds since the attack began.
    time: Time,
    stats: &'a Stats,
}

/// Attacks until `stop`, with a connection from each of `sources`.
pub(crate) fn attack(
    attack: &Attack,
    target: &Target,
    seeder: impl Fn(IpAddr) -> SocketAddr,
    sources: &[IpAddr],
    stop: &AtomicBool,
    stats: &Stats,
) -> io::Result<()> {
    if attack.datagrams {
        return flood_datagrams(attack, target, seeder, sources, stop, stats);
    }
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1024);
    let mut attackers: Vec<Attacker> = sources
        .iter()
        .map(|source| Attacker::new(*source, seeder(*source)))
        .collect();
    let mut crowd = Crowd {
        attack,
        target,
        flood: (attack.flood)(target),
        connects: RateLimiter::new(Some(CONNECTS_PER_SECOND), BURST, Time(0)),
        line: RateLimiter::new(Some(SENT_BYTES_PER_SECOND), BURST, Time(0)),
        time: Time(0),
        stats,
    };
    let mut buffer = vec![0; 256 * 1024];
    let mut first = 0;
    let began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        poll.poll(&mut events, Some(TICK))?;
        let now = Instant::now();
        for event in &events {
            let attacker = &mut attackers[event.token().0];
            attacker.writable |= event.is_writable();
            let alive = match attack.reads {
                Reads::All => attacker.read(&mut buffer, &crowd),
                Reads::Slowly(_) => {
                    attacker.readable |= event.is_readable();
                    !event.is_error()
                }
                Reads::Nothing => !event.is_read_closed() && !event.is_error(),
            };
            if attacker.stream.is_some() && !alive {
                stats.closed.fetch_add(1, Ordering::Relaxed);
                attacker.disconnect(now, stats);
            }
        }
        crowd.time = Time((now - began).as_millis() as u64);
        // Each turn begins with another one, so that the line is shared.
        first = (first + 1) % sources.len().max(1);
        for number in (first..sources.len()).chain(0..first) {
            let attacker = &mut attackers[number];
            if attacker.stream.is_some() {
                attacker.advance(&mut crowd, now, &mut buffer);
            } else if now >= attacker.reconnect_at && crowd.connects.available(crowd.time) > 0 {
                crowd.connects.take(1);
                attacker.connect(&crowd, now, poll.registry(), Token(number))?;
            }
        }
    }
    Ok(())
}

/// Sends the flood as datagrams until `stop`, from each of `sources` in turn. What comes back is
/// counted and is no more than what an attacker could have sent to somebody else in our name.
fn flood_datagrams(
    attack: &Attack,
    target: &Target,
    seeder: impl Fn(IpAddr) -> SocketAddr,
    sources: &[IpAddr],
    stop: &AtomicBool,
    stats: &Stats,
) -> io::Result<()> {
    let datagram = (attack.flood)(target);
    let sockets: Vec<UdpSocket> = sources
        .iter()
        .map(|source| {
            let socket = UdpSocket::bind(SocketAddr::new(*source, 0))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        })
        .collect::<io::Result<_>>()?;
    let mut line = RateLimiter::new(Some(SENT_DATAGRAMS_PER_SECOND), BURST, Time(0));
    let began = Instant::now();
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        for (socket, source) in sockets.iter().zip(sources) {
            while line.available(Time(began.elapsed().as_millis() as u64)) == 0 {
                std::thread::sleep(TICK);
            }
            line.take(1);
            if let Ok(count) = socket.send_to(&datagram, seeder(*source)) {
                stats.sent_bytes.fetch_add(count as u64, Ordering::Relaxed);
            }
            while let Ok(count) = socket.recv(&mut buffer) {
                let received = &stats.received_bytes;
                received.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

/// A socket of one source, which is not connected yet.
pub(crate) fn bound_socket(source: IpAddr) -> io::Result<Socket> {
    let address = SocketAddr::new(source, 0);
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn open_socket(source: IpAddr, seeder: SocketAddr, reads: Reads) -> io::Result<TcpStream> {
    let socket = bound_socket(source)?;
    socket.set_nonblocking(true)?;
    if reads != Reads::All {
        socket.set_recv_buffer_size(UNREAD_BYTES)?;
    }
    match socket.connect(&seeder.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}

impl Attacker {
    fn new(source: IpAddr, seeder: SocketAddr) -> Attacker {
        let now = Instant::now();
        Attacker {
            source,
            seeder,
            stream: None,
            since: now,
            frames: Frames::new(),
            writable: false,
            readable: false,
            next_read: now,
            pending: Vec::new(),
            written: 0,
            flood_at: 0,
            next_again: now,
            reconnect_at: now,
        }
    }

    fn connect(
        &mut self,
        crowd: &Crowd,
        now: Instant,
        registry: &Registry,
        token: Token,
    ) -> io::Result<()> {
        let mut fresh = Attacker::new(self.source, self.seeder);
        match open_socket(self.source, self.seeder, crowd.attack.reads) {
            Ok(mut stream) => {
                let both = Interest::READABLE | Interest::WRITABLE;
                registry.register(&mut stream, token, both)?;
                fresh.stream = Some(stream);
                fresh.pending = (crowd.attack.opening)(crowd.target);
                if let Some((interval, _)) = crowd.attack.again {
                    fresh.next_again = now + interval;
                }
                crowd.stats.connects.fetch_add(1, Ordering::Relaxed);
                crowd.stats.connected.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => fresh.reconnect_at = now + RECONNECT_AFTER,
        }
        *self = fresh;
        Ok(())
    }

    fn advance(&mut self, crowd: &mut Crowd, now: Instant, buffer: &mut [u8]) {
        let stays = crowd.attack.stays;
        if stays.is_some_and(|stay| now - self.since >= stay) {
            return self.disconnect(now, crowd.stats);
        }
        if let Some((interval, what)) = crowd.attack.again
            && now >= self.next_again
        {
            self.next_again = now + interval;
            if self.pending.len() < PENDING_BYTES {
                self.pending.extend(what(crowd.target));
            }
        }
        if let Reads::Slowly(bytes) = crowd.attack.reads
            && self.readable
            && now >= self.next_read
        {
            self.next_read = now + SLOW_READ_INTERVAL;
            let bytes = f64::from(bytes) * SLOW_READ_INTERVAL.as_secs_f64();
            if !self.read(&mut buffer[..bytes as usize], crowd) {
                crowd.stats.closed.fetch_add(1, Ordering::Relaxed);
                return self.disconnect(now, crowd.stats);
            }
        }
        self.write(crowd, now);
    }

    fn disconnect(&mut self, now: Instant, stats: &Stats) {
        self.stream = None;
        self.reconnect_at = now + RECONNECT_AFTER;
        stats.connected.fetch_sub(1, Ordering::Relaxed);
    }

    /// False when the seeder has closed.
    fn read(&mut self, buffer: &mut [u8], crowd: &Crowd) -> bool {
        let Some(stream) = &mut self.stream else {
            return true;
        };
        loop {
            match stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => {
                    let received = &crowd.stats.received_bytes;
                    received.fetch_add(count as u64, Ordering::Relaxed);
                    let mut unchoked = false;
                    self.frames.read(&buffer[..count], |id| match id {
                        UNCHOKE => unchoked = true,
                        CHOKE => unchoked = false,
                        _ => {}
                    });
                    if unchoked {
                        self.pending
                            .extend((crowd.attack.when_unchoked)(crowd.target));
                    }
                    if crowd.attack.reads != Reads::All {
                        return true;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.readable = false;
                    return true;
                }
                Err(error) if error.kind() == ErrorKind::NotConnected => return true,
                Err(_) => return false,
            }
        }
    }

    fn write(&mut self, crowd: &mut Crowd, now: Instant) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        if !self.writable || crowd.line.available(crowd.time) == 0 {
            return;
        }
        let mut step = STEP_BYTES;
        while step > 0 {
            let flooding = self.written == self.pending.len();
            let bytes = if flooding {
                &crowd.flood[self.flood_at..]
            } else {
                &self.pending[self.written..]
            };
            let bytes = &bytes[..bytes.len().min(step)];
            if bytes.is_empty() {
                return;
            }
            match stream.write(bytes) {
                Ok(count) => {
                    crowd.line.take(count as u64);
                    step -= count;
                    let sent = &crowd.stats.sent_bytes;
                    sent.fetch_add(count as u64, Ordering::Relaxed);
                    if flooding {
                        self.flood_at = (self.flood_at + count) % crowd.flood.len();
                    } else {
                        self.written += count;
                        if self.written == self.pending.len() {
                            self.pending.clear();
                            self.written = 0;
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    return;
                }
                Err(_) => {
                    crowd.stats.closed.fetch_add(1, Ordering::Relaxed);
                    return self.disconnect(now, crowd.stats);
                }
            }
        }
    }
}
