//! Resolves the names of trackers on threads: the system's resolver blocks.
//!
//! Owns what is asked, and the certificates that the first HTTPS tracker needs, which are read from
//! the file system by the same threads. It does not know trackers beyond the number of a question.

use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use mio::Waker;
use rustls::ClientConfig;

use crate::workers::{Panicked, Pool, PoolConfig, contained};

use super::lists::TrackerId;
use super::tls;

/// Threads that may wait for a name server. One that is slow holds up a quarter of the names.
const MAX_THREADS: usize = 4;

/// Most names that wait. There is one question for each tracker at a time, and a library has a few
/// thousand trackers.
const QUESTIONS_MAX: usize = 16 * 1024;

/// Addresses kept of one name.
const MAX_ADDRESSES: usize = 16;

/// An answer.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) tracker: TrackerId,
    /// That of the question.
    pub(super) generation: u32,
    pub(super) addresses: Result<Vec<IpAddr>, String>,
    /// How TLS is spoken with it, when the question asked for that.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// Asks for addresses.
#[derive(Debug)]
pub(super) struct Resolver {
    pool: Pool<u32, Resolved>,
    /// Answers of questions that found no room.
    refused: Vec<Resolved>,
    /// The configuration for TLS, once a thread has read the certificates.
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
    certificates: Option<PathBuf>,
}

impl Resolver {
    /// Starts no thread yet. The certificates are trusted beside those of the system.
    pub(super) fn new(waker: Arc<Waker>, certificates: Option<PathBuf>) -> Self {
        let config = PoolConfig::new("resolver", MAX_THREADS, QUESTIONS_MAX);
        Self {
            pool: Pool::new(waker, config),
            refused: Vec::new(),
            tls: Arc::default(),
            certificates,
        }
    }

    /// Asks for the addresses of a host and, when `is_https`, for what TLS with it needs. Never
    /// blocks; there is always an answer.
    pub(super) fn ask(&mut self, tracker: TrackerId, generation: u32, host: &str, is_https: bool) {
        let answer = move |addresses, tls| Resolved {
            tracker,
            generation,
            addresses,
            tls,
        };
        let host = host.to_owned();
        let tls = is_https.then(|| (Arc::clone(&self.tls), self.certificates.clone()));
        // Each tracker has a lane: none waits behind another for longer than a thread is busy.
        let submitted = self.pool.submit(&tracker.0, move || {
            let work = || {
                let tls = tls.map(|(tls, certificates)| {
                    Arc::clone(tls.get_or_init(|| tls::client_config(certificates.as_deref())))
                });
                (resolve(&host), tls)
            };
            let (addresses, tls) = contained(work).unwrap_or_else(|Panicked| {
                let defect = "resolving it panicked, a defect of hekate";
                (Err(defect.to_owned()), None)
            });
            Some(answer(addresses, tls))
        });
        if let Err(error) = submitted {
            self.refused.push(answer(Err(error.to_string()), None));
            self.pool.wake();
        }
    }

    /// Takes the answers that have come.
    pub(super) fn collect(&mut self) -> Vec<Resolved> {
        let mut answers = self.pool.take_outcomes();
        answers.append(&mut self.refused);
        answers
    }
}

/// The addresses of a host, each once. An address is its own name and asks nobody.
fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?;
    let mut addresses: Vec<IpAddr> = Vec::new();
    for address in found {
        if addresses.len() < MAX_ADDRESSES && !addresses.contains(&address.ip()) {
            addresses.push(address.ip());
        }
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::time::Duration;

    /// Waits for as many answers, by the order of their trackers.
    fn answers(poll: &mut Poll, resolver: &mut Resolver, count: usize) -> Vec<Resolved> {
        let mut events = Events::with_capacity(4);
        let mut answers = Vec::new();
        while answers.len() < count {
            poll.poll(&mut events, Some(Duration::from_secs(60)))
                .unwrap();
            assert!(!events.is_empty(), "the resolver did not answer");
            answers.extend(resolver.collect());
        }
        answers.sort_by_key(|answer| answer.tracker);
        answers
    }

    #[test]
    fn names_are_resolved_and_the_loop_is_woken() {
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let mut resolver = Resolver::new(Arc::new(waker), None);
        let hosts = ["127.0.0.1", "::1", "localhost", "no such name"];
        for (tracker, host) in (0..).map(TrackerId).zip(hosts) {
            resolver.ask(tracker, 7, host, false);
        }
        let answers = answers(&mut poll, &mut resolver, hosts.len());
        assert!(answers.iter().all(|answer| answer.generation == 7));
        let literal = |text: &str| Ok(vec![text.parse().unwrap()]);
        assert_eq!(answers[0].addresses, literal("127.0.0.1"));
        assert_eq!(answers[1].addresses, literal("::1"));
        let local = answers[2].addresses.as_ref().unwrap();
        assert!(!local.is_empty() && local.iter().all(IpAddr::is_loopback));
        assert!(answers[3].addresses.is_err());
    }

    #[test]
    fn threads_are_bounded() {
        let poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let mut resolver = Resolver::new(Arc::new(waker), None);
        for tracker in 0..100 {
            resolver.ask(TrackerId(tracker), 0, "127.0.0.1", false);
            assert!(resolver.pool.load().threads <= MAX_THREADS as u64);
        }
    }

    #[test]
    fn the_certificates_are_read_by_a_thread_and_once() {
        let mut poll = Poll::new().unwrap();
        let waker = Waker::new(poll.registry(), Token(0)).unwrap();
        let mut resolver = Resolver::new(Arc::new(waker), None);
        for (tracker, is_https) in [(0, true), (1, false), (2, true)] {
            resolver.ask(TrackerId(tracker), 0, "127.0.0.1", is_https);
        }
        let answers = answers(&mut poll, &mut resolver, 3);
        let [first, plain, last] = [0, 1, 2].map(|number: usize| answers[number].tls.as_ref());
        assert!(Arc::ptr_eq(first.unwrap(), last.unwrap()));
        assert!(plain.is_none());
    }
}
