//! A proxy that passes answers on later.
//!
//! Owns its threads. It must not know what passes.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// Listens on a port of the system's choice.
pub(crate) fn start(upstream: SocketAddr, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let far = TcpStream::connect(upstream).unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (asking, answering) = (near.try_clone().unwrap(), far.try_clone().unwrap());
            thread::spawn(move || pass(asking, far, Duration::ZERO));
            thread::spawn(move || pass(answering, near, delay));
        }
    });
    address
}

/// Passes bytes on, each as much later as the others.
fn pass(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let (sender, parts) = mpsc::channel::<(Instant, Vec<u8>)>();
    let writer = thread::spawn(move || {
        for (at, part) in parts {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            if part.is_empty() || to.write_all(&part).is_err() {
                break;
            }
        }
        to.shutdown(Shutdown::Write).ok();
    });
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).unwrap_or(0);
        let part = buffer[..length].to_vec();
        if sender.send((Instant::now() + delay, part)).is_err() || length == 0 {
            break;
        }
    }
    drop(sender);
    writer.join().ok();
}
