//! Names of trackers become addresses, on threads of their own: the system's resolver blocks.
//!
//! Owns the threads and what they are asked. They wake the loop and touch nothing else. It must not
//! know trackers beyond the number that a question is asked for.

use std::collections::VecDeque;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use mio::Waker;

/// Threads that may wait for a name server. One that is slow holds up a quarter of the names.
const MAX_THREADS: usize = 4;

/// A thread without a question leaves after this time.
const IDLE: Duration = Duration::from_secs(1);

/// Addresses kept of one name.
const MAX_ADDRESSES: usize = 16;

/// An answer.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) tracker: u32,
    /// That of the question.
    pub(super) generation: u32,
    pub(super) addresses: Result<Vec<IpAddr>, String>,
}

#[derive(Debug)]
struct Question {
    tracker: u32,
    generation: u32,
    host: Box<str>,
}

#[derive(Debug, Default)]
struct State {
    questions: VecDeque<Question>,
    answers: Vec<Resolved>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    asked: Condvar,
    waker: Arc<Waker>,
}

/// Asks for addresses.
#[derive(Debug)]
pub(super) struct Resolver(Arc<Shared>);

impl Resolver {
    /// Starts no thread yet.
    pub(super) fn new(waker: Arc<Waker>) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            asked: Condvar::new(),
            waker,
        }))
    }

    /// Asks for the addresses of a host. There is one question for each tracker at a time, so the
    /// queue is bounded by their number.
    pub(super) fn ask(&self, tracker: u32, generation: u32, host: &str) {
        let mut state = self.0.lock();
        state.questions.push_back(Question {
            tracker,
            generation,
            host: host.into(),
        });
        if state.idle < state.questions.len() && state.threads < MAX_THREADS {
            state.threads += 1;
            let shared = Arc::clone(&self.0);
            let name = "resolver".to_owned();
            if let Err(error) = thread::Builder::new()
                .name(name)
                .spawn(move || shared.work())
            {
                state.threads -= 1;
                log::warn!("cannot start a resolver thread: {error}");
                if state.threads == 0 {
                    let questions = std::mem::take(&mut state.questions);
                    let failed = questions.into_iter().map(|question| Resolved {
                        tracker: question.tracker,
                        generation: question.generation,
                        addresses: Err(error.to_string()),
                    });
                    state.answers.extend(failed);
                    self.0.waker.wake().ok();
                }
            }
        }
        drop(state);
        self.0.asked.notify_one();
    }

    /// Takes the answers that have come.
    pub(super) fn collect(&self) -> Vec<Resolved> {
        std::mem::take(&mut self.0.lock().answers)
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.questions.clear();
        drop(state);
        self.0.asked.notify_all();
    }
}

impl Shared {
    /// A thread that panicked left the state as it was between two steps.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some(question) = self.next() {
            let addresses = resolve(&question.host);
            self.lock().answers.push(Resolved {
                tracker: question.tracker,
                generation: question.generation,
                addresses,
            });
            // It fails only when the loop is gone.
            self.waker.wake().ok();
        }
    }

    /// Waits for a question. `None` when the thread is to leave.
    fn next(&self) -> Option<Question> {
        let mut state = self.lock();
        if state.questions.is_empty() && !state.closed {
            state.idle += 1;
            let unasked = |state: &mut State| state.questions.is_empty() && !state.closed;
            let waited = self.asked.wait_timeout_while(state, IDLE, unasked);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
        }
        let question = state.questions.pop_front();
        if question.is_none() {
            state.threads -= 1;
        }
        question
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

    /// Waits for as many answers, by the order of their trackers.
    fn answers(poll: &mut Poll, resolver: &Resolver, count: usize) -> Vec<Resolved> {
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
        let resolver = Resolver::new(Arc::new(waker));
        let hosts = ["127.0.0.1", "::1", "localhost", "no such name"];
        for (tracker, host) in (0..).zip(hosts) {
            resolver.ask(tracker, 7, host);
        }
        let answers = answers(&mut poll, &resolver, hosts.len());
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
        let resolver = Resolver::new(Arc::new(waker));
        for tracker in 0..100 {
            resolver.ask(tracker, 0, "127.0.0.1");
            assert!(resolver.0.lock().threads <= MAX_THREADS);
        }
    }
}
