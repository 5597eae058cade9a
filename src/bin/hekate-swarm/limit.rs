//! `hekate-swarm limit`: how fast one core can send piece messages over loopback TCP.
//!
//! The ceiling for a seeder: there are no requests, no choice of peers, no check whether content is
//! resident. One thread writes mapped blocks behind constant headers to connections in turn, another
//! discards them.

use crate::cli::Limit;
use crate::seeder;
use hekate::sys::{self, Mapping, Slice};
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use slab::Slab;
use std::fs::File;
use std::io::{self, Error, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 16384;
const HEADER_BYTES: usize = 13;
const MESSAGE_BYTES: usize = HEADER_BYTES + BLOCK_BYTES;
/// The header of a piece message with a block of 16 KiB; the position of the block does not matter.
const HEADER: [u8; HEADER_BYTES] = [0, 0, 0x40, 9, 7, 0, 0, 0, 0, 0, 0, 0, 0];
/// Consecutive blocks, like those of a piece.
const PIECE_BLOCKS: u64 = 16;
/// Size of the content that is made when none is given: larger than processor caches, small enough for
/// any machine.
const MADE_BYTES: u64 = 512 << 20;
/// Blocks written to one connection before the next, as a seeder would.
const TURN_BLOCKS: usize = 16;
/// Discarded with one call.
const DISCARD_BYTES: usize = 1 << 20;
const WAIT: Duration = Duration::from_millis(50);
const THREAD_STAT: &str = "/proc/thread-self/stat";

/// The result of one batch size.
pub(crate) struct Ceiling {
    batch: usize,
    gb_per_second: f64,
    sender_seconds_per_gb: f64,
    sender_share: f64,
    receiver_share: f64,
}

/// Measures each batch size for the given time.
pub(crate) fn run(options: &Limit) -> io::Result<Vec<Ceiling>> {
    let file = match &options.file {
        Some(path) => File::open(path)?,
        None => made()?,
    };
    let length = file.metadata()?.len();
    if length < PIECE_BLOCKS * BLOCK_BYTES as u64 {
        return Err(Error::other("the file is shorter than a piece"));
    }
    let mapping = sys::map(&file, length)?;
    mapping.populate(0..length)?;
    let content = Content {
        mapping,
        pieces: length / (PIECE_BLOCKS * BLOCK_BYTES as u64),
    };
    options
        .batches
        .iter()
        .map(|batch| ceiling(options, &content, (*batch).clamp(1, sys::MAX_SLICES / 2)))
        .collect()
}

/// What is sent.
struct Content {
    mapping: Mapping,
    pieces: u64,
}

impl Content {
    /// The first block of some piece.
    fn piece(&self, random: &mut fastrand::Rng) -> u64 {
        random.u64(..self.pieces) * PIECE_BLOCKS
    }

    /// A block without its first bytes; blocks behind the last piece wrap to the first.
    fn block(&self, block: u64, skipped: usize) -> Slice<'_> {
        let block = block % (self.pieces * PIECE_BLOCKS);
        Slice::Mapped {
            mapping: &self.mapping,
            offset: block * BLOCK_BYTES as u64 + skipped as u64,
            length: BLOCK_BYTES - skipped,
        }
    }
}

/// The results for programs.
pub(crate) fn json(ceilings: &[Ceiling]) -> Value {
    ceilings
        .iter()
        .map(|ceiling| {
            json!({
                "batch": ceiling.batch,
                "gb_per_second": ceiling.gb_per_second,
                "cpu_seconds_per_gb": ceiling.sender_seconds_per_gb,
                "sender_share": ceiling.sender_share,
                "receiver_share": ceiling.receiver_share,
            })
        })
        .collect()
}

/// The results for people.
pub(crate) fn text(ceilings: &[Ceiling]) -> String {
    let mut text = "blocks per call   cpu-s/GB     GB/s   sender   receiver\n".to_owned();
    for ceiling in ceilings {
        text += &format!(
            "{:15}   {:8.3} {:8.2}   {:4.0} %     {:4.0} %\n",
            ceiling.batch,
            ceiling.sender_seconds_per_gb,
            ceiling.gb_per_second,
            ceiling.sender_share * 100.0,
            ceiling.receiver_share * 100.0
        );
    }
    text
}

/// A file without a name, filled with random bytes.
fn made() -> io::Result<File> {
    let name = format!("hekate-swarm-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let mut options = File::options();
    let mut file = options
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    let mut random = fastrand::Rng::with_seed(1);
    let mut part = vec![0; 1 << 20];
    for _ in 0..MADE_BYTES >> 20 {
        random.fill(&mut part);
        file.write_all(&part)?;
    }
    Ok(file)
}

fn ceiling(options: &Limit, content: &Content, batch: usize) -> io::Result<Ceiling> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..options.connections.max(1) {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        far.push(TcpStream::from_std(stream));
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        near.push(TcpStream::from_std(stream));
    }
    let duration = Duration::from_secs(options.seconds.max(1));
    let (receiver_cpu, sender_cpu) = (options.cpu, options.sender_cpu);
    let (sent, received) = thread::scope(|scope| {
        let receiver = scope.spawn(move || on(receiver_cpu, || receive(far)));
        // The sockets go with the sender, which ends the receiver.
        let sender = scope.spawn(move || on(sender_cpu, || send(near, content, batch, duration)));
        (sender.join(), receiver.join())
    });
    let gone = |_| Error::other("a thread of the measurement panicked");
    let (bytes, sender_seconds, seconds) = sent.map_err(gone)??;
    let (_, receiver_seconds, _) = received.map_err(gone)??;
    #[expect(clippy::cast_precision_loss, reason = "reported with a few digits")]
    let gigabytes = bytes as f64 * (BLOCK_BYTES as f64 / MESSAGE_BYTES as f64) / 1e9;
    Ok(Ceiling {
        batch,
        gb_per_second: gigabytes / seconds,
        sender_seconds_per_gb: sender_seconds / gigabytes,
        sender_share: sender_seconds / seconds,
        receiver_share: receiver_seconds / seconds,
    })
}

/// Bytes moved, processor seconds, seconds.
type Work = (u64, f64, f64);

/// Runs `work` on one processor and measures it.
fn on(cpu: Option<usize>, work: impl FnOnce() -> io::Result<u64>) -> io::Result<Work> {
    if let Some(cpu) = cpu {
        seeder::bind_to(cpu)?;
    }
    let (start, before) = (Instant::now(), seeder::cpu_seconds(THREAD_STAT)?);
    let bytes = work()?;
    let after = seeder::cpu_seconds(THREAD_STAT)?;
    let seconds = (after.0 - before.0) + (after.1 - before.1);
    Ok((bytes, seconds, start.elapsed().as_secs_f64()))
}

/// One connection and its position in an endless sequence of messages.
struct Stream {
    stream: TcpStream,
    block: u64,
    /// Bytes of the next message that are written already.
    sent: usize,
}

fn send(
    streams: Vec<TcpStream>,
    content: &Content,
    batch: usize,
    duration: Duration,
) -> io::Result<u64> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut connections: Vec<Stream> = streams
        .into_iter()
        .map(|stream| Stream {
            stream,
            block: content.piece(&mut random),
            sent: 0,
        })
        .collect();
    let mut poll = Poll::new()?;
    for (number, connection) in connections.iter_mut().enumerate() {
        let registry = poll.registry();
        registry.register(&mut connection.stream, Token(number), Interest::WRITABLE)?;
    }
    let mut events = Events::with_capacity(1024);
    let (start, mut bytes) = (Instant::now(), 0);
    let (mut ready, mut next) = (Vec::new(), Vec::new());
    while start.elapsed() < duration {
        let wait = if ready.is_empty() {
            WAIT
        } else {
            Duration::ZERO
        };
        poll.poll(&mut events, Some(wait))?;
        ready.extend(events.iter().map(|event| event.token().0));
        for number in ready.drain(..) {
            if let Some(connection) = connections.get_mut(number)
                && connection.turn(content, batch, &mut random, &mut bytes)?
            {
                next.push(number);
            }
        }
        std::mem::swap(&mut ready, &mut next);
    }
    Ok(bytes)
}

impl Stream {
    /// Writes up to one turn's blocks. Returns false when the socket takes no more.
    fn turn(
        &mut self,
        content: &Content,
        batch: usize,
        random: &mut fastrand::Rng,
        bytes: &mut u64,
    ) -> io::Result<bool> {
        for _ in 0..TURN_BLOCKS.div_ceil(batch) {
            let mut slices = Vec::with_capacity(2 * batch);
            let mut skip = self.sent;
            for block in self.block..self.block + batch as u64 {
                slices.push(Slice::Bytes(HEADER.get(skip..).unwrap_or_default()));
                let skipped = skip.saturating_sub(HEADER_BYTES);
                slices.push(content.block(block, skipped));
                skip = 0;
            }
            let wanted = batch * MESSAGE_BYTES - self.sent;
            let taken = match sys::writev(self.stream.as_fd(), &slices) {
                Ok(taken) => taken,
                Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(problem) => return Err(problem),
            };
            *bytes += taken as u64;
            self.advance(taken, content, random);
            if taken < wanted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Advances by `bytes`; after the last block of a piece comes the first of another.
    fn advance(&mut self, taken: usize, content: &Content, random: &mut fastrand::Rng) {
        let total = self.sent + taken;
        self.sent = total % MESSAGE_BYTES;
        for _ in 0..total / MESSAGE_BYTES {
            self.block += 1;
            if self.block.is_multiple_of(PIECE_BLOCKS) {
                self.block = content.piece(random);
            }
        }
    }
}

/// Discards until every connection is closed.
fn receive(streams: Vec<TcpStream>) -> io::Result<u64> {
    let mut poll = Poll::new()?;
    let mut open: Slab<TcpStream> = Slab::with_capacity(streams.len());
    for mut stream in streams {
        let entry = open.vacant_entry();
        let registry = poll.registry();
        registry.register(&mut stream, Token(entry.key()), Interest::READABLE)?;
        entry.insert(stream);
    }
    let mut events = Events::with_capacity(1024);
    let mut bytes = 0;
    while !open.is_empty() {
        poll.poll(&mut events, None)?;
        for event in &events {
            let Token(key) = event.token();
            while let Some(stream) = open.get(key) {
                match sys::recv_discard(stream.as_fd(), DISCARD_BYTES) {
                    Ok(0) => drop(open.remove(key)),
                    Ok(taken) => bytes += taken as u64,
                    Err(problem) if problem.kind() == io::ErrorKind::WouldBlock => break,
                    Err(problem) => return Err(problem),
                }
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_size_is_measured() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("content");
        std::fs::write(&file, vec![1; 1 << 20]).unwrap();
        let ceilings = run(&Limit {
            file: Some(file),
            connections: 3,
            seconds: 1,
            batches: vec![1, 16],
            cpu: None,
            sender_cpu: None,
            json: None,
        })
        .unwrap();
        assert_eq!(ceilings.len(), 2);
        assert!(ceilings.iter().all(|ceiling| ceiling.gb_per_second > 0.0));
        assert_eq!(text(&ceilings).lines().count(), 3);
        assert_eq!(json(&ceilings)[1]["batch"], 16);
    }
}
