//! Scripted trackers by HTTP and UDP, in threads of the test.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// No thread outlives its test by more than this.
const PATIENCE: Duration = Duration::from_secs(30);

/// An HTTP server.
pub(crate) struct Http {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

/// One connection to it.
pub(crate) struct Visitor {
    stream: TcpStream,
    received: Vec<u8>,
    requests: Arc<AtomicUsize>,
}

impl Http {
    /// Calls `serve` for each connection, in a thread of its own.
    pub(crate) fn new(serve: impl Fn(&mut Visitor) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&requests);
        let serve = Arc::new(serve);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut visitor = Visitor {
                    stream,
                    received: Vec::new(),
                    requests: Arc::clone(&counted),
                };
                let serve = Arc::clone(&serve);
                thread::spawn(move || serve(&mut visitor));
            }
        });
        Self { address, requests }
    }

    /// Answers every request of every connection with the same bytes.
    pub(crate) fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |visitor| while visitor.request().is_some() && visitor.say(&answer) {})
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/announce", self.address)
    }

    /// How many requests have come.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Visitor {
    /// The next request, up to the empty line; `None` at the end of the connection.
    pub(crate) fn request(&mut self) -> Option<String> {
        loop {
            let end = self
                .received
                .windows(4)
                .position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let request = self.received.drain(..end + 4).collect();
                self.requests.fetch_add(1, Ordering::SeqCst);
                return String::from_utf8(request).ok();
            }
            let mut part = [0; 4096];
            match self.stream.read(&mut part) {
                Ok(length) if length > 0 => self.received.extend_from_slice(&part[..length]),
                _ => return None,
            }
        }
    }

    /// Whether the bytes could be sent.
    pub(crate) fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Waits until the other side has closed.
    pub(crate) fn wait(&mut self) {
        while self.request().is_some() {}
    }
}

/// A response with a length.
pub(crate) fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The response of a tracker that accepts everything.
pub(crate) fn accepted() -> String {
    ok("d8:intervali1800e5:peers0:e")
}

/// A UDP server.
pub(crate) struct Udp {
    pub(crate) address: SocketAddr,
    packets: Arc<AtomicUsize>,
}

impl Udp {
    /// Calls `answer` for each packet, which sends what it likes by the socket.
    pub(crate) fn new(
        mut answer: impl FnMut(&UdpSocket, SocketAddr, &[u8]) + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let packets = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&packets);
        thread::spawn(move || {
            let mut packet = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                counted.fetch_add(1, Ordering::SeqCst);
                answer(&socket, from, &packet[..length]);
            }
        });
        Self { address, packets }
    }

    pub(crate) fn url(&self) -> String {
        format!("udp://{}/announce", self.address)
    }

    /// How many packets have come.
    pub(crate) fn packets(&self) -> usize {
        self.packets.load(Ordering::SeqCst)
    }
}

/// Whether a packet asks for a connection.
pub(crate) fn is_connect(packet: &[u8]) -> bool {
    packet.len() == 16
}

/// The honest answer to a packet.
pub(crate) fn honest(packet: &[u8], interval: i32) -> Vec<u8> {
    let transaction = &packet[12..16];
    if is_connect(packet) {
        [&[0; 4], transaction, b"connects"].concat()
    } else {
        [&[0, 0, 0, 1], transaction, &interval.to_be_bytes(), &[0; 8]].concat()
    }
}
