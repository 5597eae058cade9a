//! Timed work of the swarm: arrivals, replacements, time-outs, allowances of slow readers, phases.

use super::{KEEP_ALIVE_US, Phase, Swarm};
use crate::address;
use crate::cli::Load;
use crate::connection::Connection;
use crate::leecher::{Class, Leecher, Plan};
use crate::measure::Ending;
use crate::picker::Picker;
use mio::net::TcpStream;
use mio::{Interest, Token};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;

/// How long a seeder may take to answer the handshake.
const HANDSHAKE_TIME_US: u64 = 10_000_000;
/// Between two allowances of the slow readers.
const SLOW_EVERY_US: u64 = 50_000;
/// A slow reader accumulates at most this much time.
const SLOW_BURST_US: u64 = 1_000_000;
/// How many random slots are tried to find a leecher to replace.
const CHURN_TRIES: usize = 64;

impl Swarm<'_> {
    /// Runs what is due now.
    pub(super) fn tick(&mut self, now_us: u64) {
        for class in self.crowd.arriving(now_us) {
            self.start(class);
        }
        for _ in 0..self.crowd.leaving(now_us) {
            self.replace_one();
        }
        self.feed_slow(now_us);
        if now_us >= self.next_check_us {
            self.next_check_us = now_us + 1_000_000;
            self.give_up(now_us);
        }
        if now_us >= self.next_keep_alive_us {
            self.next_keep_alive_us = now_us + KEEP_ALIVE_US;
            self.keep_alive();
        }
        self.advance(now_us);
    }

    fn advance(&mut self, now_us: u64) {
        let gone = self.connections.is_empty() && self.crowd.exhausted();
        self.phase = match self.phase {
            Phase::Arriving if self.crowd.complete() => {
                Phase::WarmUp(now_us + self.options.warm_up * 1_000_000)
            }
            Phase::WarmUp(until_us) if now_us >= until_us => {
                self.measure.window = true;
                self.window_since_us = now_us;
                Phase::Window(now_us + self.options.seconds * 1_000_000)
            }
            Phase::Window(until_us) if now_us >= until_us || gone => {
                self.measure.window = false;
                Phase::Over
            }
            phase => phase,
        };
    }

    fn start(&mut self, class: Class) {
        self.measure.counts.started += 1;
        if let Err(problem) = self.connect(class) {
            let refused = problem.kind() == io::ErrorKind::ConnectionRefused;
            self.measure.ended(if refused {
                Ending::Refused
            } else {
                Ending::NoSocket
            });
        }
    }

    fn connect(&mut self, class: Class) -> io::Result<()> {
        let number = self.measure.counts.started - 1;
        let options = self.options;
        let torrent = self.library.choose(self.random.f64());
        let target = self.library.target(torrent);
        let target = target.ok_or_else(|| io::Error::other("no torrent"))?;
        let mut peer_id = *b"-HS0100-000000000000";
        for (byte, digit) in peer_id
            .iter_mut()
            .rev()
            .zip(format!("{number:012}").bytes().rev())
        {
            *byte = digit;
        }
        let plan = Plan {
            class,
            torrent,
            info_hash: target.info_hash,
            peer_id,
            pipeline: usize::from(options.pipeline),
            refill: usize::from(options.refill.min(options.pipeline)),
            fast: !options.no_fast,
            leave: options.leave,
        };
        let picker = Picker::new(
            target.shape,
            options.block,
            options.order,
            self.random.u64(..),
        );
        let leecher = Leecher::new(plan, picker, self.now_us());
        let buffer = options.stalled_buffer.filter(|_| class == Class::Stalled);
        let mut connection =
            Connection::new(open(options, number, buffer)?, leecher, options.encryption);
        if class == Class::Slow {
            connection.allowance_bytes = 0;
        }
        let entry = self.connections.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(entry.key());
        self.poll
            .registry()
            .register(&mut connection.socket, token, interest)?;
        entry.insert(connection);
        Ok(())
    }

    /// Replaces a downloading leecher by a new one.
    fn replace_one(&mut self) {
        let slots = self.connections.capacity().max(1);
        for _ in 0..CHURN_TRIES {
            let key = self.random.usize(..slots);
            let connection = self.connections.get(key);
            if connection.is_some_and(|found| found.leecher.plan.class == Class::Active) {
                self.end(key, Ending::Replaced);
                break;
            }
        }
        self.start(Class::Active);
    }

    fn feed_slow(&mut self, now_us: u64) {
        let elapsed_us = now_us - self.slow_since_us;
        let allowance = self.options.slow_rate * elapsed_us / 1_000_000;
        if self.options.slow == 0 || elapsed_us < SLOW_EVERY_US {
            return;
        }
        self.slow_since_us = now_us;
        let most = (self.options.slow_rate * SLOW_BURST_US / 1_000_000).max(1);
        let mut due = Vec::new();
        for (key, connection) in &mut self.connections {
            if connection.leecher.plan.class == Class::Slow {
                connection.allowance_bytes = (connection.allowance_bytes + allowance).min(most);
                due.push(key);
            }
        }
        for key in due {
            self.receive(key);
        }
    }

    /// Closes connections whose handshake was not answered in time.
    fn give_up(&mut self, now_us: u64) {
        let late: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, connection)| {
                let leecher = &connection.leecher;
                !leecher.shaken() && leecher.started_us() + HANDSHAKE_TIME_US < now_us
            })
            .map(|(key, _)| key)
            .collect();
        for key in late {
            self.end(key, Ending::TimedOut);
        }
    }

    fn keep_alive(&mut self) {
        let keys: Vec<usize> = self.connections.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.serve(key, |connection, _| {
                if connection.leecher.shaken() {
                    connection.keep_alive()
                } else {
                    Ok(())
                }
            });
        }
    }
}

/// A connecting socket, from its own loopback address if the seeder is on the loopback.
fn open(options: &Load, number: u64, buffer: Option<usize>) -> io::Result<TcpStream> {
    let domain = Domain::for_address(options.address);
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(source) = address::source(options.first_address + number, options.address) {
        socket.bind(&source.into())?;
    }
    match socket.connect(&options.address.into()) {
        Err(problem) if problem.raw_os_error() != Some(libc::EINPROGRESS) => Err(problem),
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}
