//! Threads for everything that may block: bounded pools, one-shot jobs and long-lived threads.
//!
//! Owns how threads are named and started, how many jobs wait, what a panic does, and how long work
//! that failed is not tried again. The library
//! starts three kinds itself: its own thread, whose panic ends the loop with an error, that
//! of a refresh, which it joins, and the scoped ones of a parallel scan. The commands that show
//! progress have scoped ones too.
//!
//! A `Pool` starts threads when jobs come and lets them leave when none do. Jobs wait in lanes, one
//! for each disk or name. Lanes take turns, and none may keep all threads: a disk that is slow, or
//! hangs, must not delay one that is not. A job that needs several disks goes from lane to lane.
//!
//! The panic of a job's work is contained: the outcome is an error. A long-lived thread cannot answer
//! one, so its panic ends the process, as that of the loop does, and the service manager restarts it.
//! The panic hook of [`crate::logging`] reports both, on standard error and in the log file.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::io;
use std::mem;
use std::num::NonZeroUsize;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use lru::LruCache;
use mio::Waker;
use thiserror::Error;

use crate::metrics::Histogram;
use crate::sys;
use crate::timers::Time;

/// The exit code after a panic, that of a Rust program whose main thread has panicked.
const EXIT_PANIC: i32 = 101;

/// How long a thread without work stays: longer than the gaps in a busy minute, and short enough
/// that a night without peers costs no thread.
const IDLE: Duration = Duration::from_secs(1);

/// How long something that failed is not tried again, so that no peer can make a disk seek at will.
/// Unit: milliseconds.
pub const FAILED_RETRY_MS: u64 = 2_000;

/// How many disks may hang, each with all the threads that a pool has for one, before the others have one
/// thread each. A thread that waits costs some 20 KiB.
pub(crate) const DISKS: usize = 4;

/// Most failures of one kind that are remembered, in some 400 KiB. If more fail at once, as when a disk
/// is gone, the first are tried again sooner.
const FAILURES_MAX: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// What failed less than [`FAILED_RETRY_MS`] ago.
pub(crate) struct Failures<K: Hash + Eq>(LruCache<K, Time>);

impl<K: Hash + Eq> Default for Failures<K> {
    fn default() -> Self {
        Failures(LruCache::sparse(FAILURES_MAX))
    }
}

impl<K: Hash + Eq> Failures<K> {
    pub(crate) fn add(&mut self, key: K, now: Time) {
        self.0.put(key, now);
    }

    pub(crate) fn contains(&self, key: &K, now: Time) -> bool {
        let failed_at = self.0.peek(key);
        failed_at.is_some_and(|at| now.since(*at) < FAILED_RETRY_MS)
    }

    pub(crate) fn remove(&mut self, key: &K) {
        self.0.pop(key);
    }
}

/// A pool's queue is at its bound. The same job may be submitted again later.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("too many jobs are queued")]
pub struct QueueFull;

/// A job has panicked, which is a defect; the log has the reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("the job panicked, a defect of hekate")]
pub(crate) struct Panicked;

/// Starts a thread that lives as long as it has something to do. The system lists it as `hekate-` and
/// the name; a name has at most eight bytes. A panic of `work` ends the process.
///
/// # Errors
/// Those of clone(2), at a limit of processes for example. Then `work` is dropped.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    start(name, move || {
        if contained(work).is_err() {
            process::exit(EXIT_PANIC);
        }
    })
}

/// Does work whose panic is an error.
pub(crate) fn contained<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| Panicked)
}

fn start(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let thread = thread::Builder::new().name(format!("hekate-{name}"));
    thread.spawn(work).map(drop)
}

/// The answer that a job of [`once`] will give.
pub(crate) struct Pending<T>(Receiver<T>);

impl<T> Pending<T> {
    /// Takes the answer; `None` until it is there.
    pub(crate) fn poll(&self) -> Option<Result<T, Panicked>> {
        match self.0.try_recv() {
            Ok(answer) => Some(Ok(answer)),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(Panicked)),
        }
    }
}

/// Runs one job on a thread of its own and wakes the loop when it has ended. The caller bounds how
/// many there are at a time.
///
/// # Errors
/// As [`spawn`].
pub(crate) fn once<T: Send + 'static>(
    name: &str,
    waker: &Arc<Waker>,
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Pending<T>> {
    let (sender, answer) = sync_channel(1);
    let waker = Arc::clone(waker);
    start(name, move || {
        if let Ok(answer) = contained(job) {
            // The loop may have ended meanwhile.
            let _ = sender.send(answer);
        }
        drop(sender);
        wake(&waker);
    })?;
    Ok(Pending(answer))
}

/// Wakes the loop from another thread.
pub(crate) fn wake(waker: &Waker) {
    if let Err(error) = waker.wake() {
        log::error!("cannot wake the loop: {error}");
    }
}

/// What a job of a [`Pool`] comes to.
pub(crate) enum Step<L, T> {
    /// It has ended, with an outcome or without.
    Done(Option<T>),
    /// It goes on in another lane, whose turn it waits for.
    Goes(L, Work<L, T>),
}

/// The work of a job, or what is left of it. An error means that its lane has no room: then it must end.
pub(crate) type Work<L, T> = Box<dyn FnOnce(Result<(), QueueFull>) -> Step<L, T> + Send>;

/// Something to do that may block.
struct Job<L, T> {
    work: Work<L, T>,
    queued_at: Instant,
}

/// A pool of threads whose jobs have outcomes of one type. `L` names a lane. Dropped, it forgets the
/// jobs that wait and lets its threads leave; it waits for none, since one may hang on a disk for ever.
pub(crate) struct Pool<L, T>(Arc<Shared<L, T>>);

/// What kind of threads a pool has.
#[derive(Clone, Copy)]
pub(crate) struct PoolConfig {
    /// What one is called; the system lists it as `hekate-` and this.
    pub(crate) role: &'static str,
    /// How many there are at most, apart from those of `spare`.
    pub(crate) threads_max: usize,
    /// How many work for one lane at most.
    pub(crate) lane_threads_max: usize,
    /// Whether a lane of which no job is under way gets a thread beyond `threads_max`, and one with no
    /// job waiting gets room beyond `queued_max`. Then no lane waits for another, whatever number of them
    /// hangs; peers must not be able to make lanes.
    pub(crate) spare: bool,
    /// How many jobs wait at most.
    pub(crate) queued_max: usize,
    /// How long one without work stays.
    pub(crate) idle: Duration,
    /// How much less of a busy processor they ask for than the loop: 0 to 19.
    pub(crate) niceness: i32,
}

impl PoolConfig {
    /// Threads of the loop's priority, which stay for [`IDLE`]. A lane may have three quarters of them.
    pub(crate) fn new(role: &'static str, threads_max: usize, queued_max: usize) -> Self {
        PoolConfig {
            role,
            threads_max,
            lane_threads_max: threads_max - threads_max / 4,
            spare: false,
            queued_max,
            idle: IDLE,
            niceness: 0,
        }
    }

    /// The same for disks: so many threads for one, [`DISKS`] times as many in all, and never none for
    /// one of them.
    pub(crate) fn for_disks(role: &'static str, threads: usize, queued_max: usize) -> Self {
        PoolConfig {
            threads_max: threads * DISKS,
            lane_threads_max: threads,
            spare: true,
            ..Self::new(role, threads, queued_max)
        }
    }
}

/// How much there is to do, and how long it took.
pub(crate) struct Load {
    pub(crate) queued: u64,
    pub(crate) threads: u64,
    pub(crate) durations: Histogram,
}

struct Shared<L, T> {
    queue: Mutex<Queue<L, T>>,
    /// A job has come, or the pool is closed.
    ready: Condvar,
    outcomes: Mutex<Vec<T>>,
    waker: Arc<Waker>,
    config: PoolConfig,
}

struct Queue<L, T> {
    lanes: BTreeMap<L, Lane<L, T>>,
    /// The lane whose turn it was.
    turn: Option<L>,
    queued: usize,
    /// Of these, those that their lanes have threads for.
    runnable: usize,
    threads: usize,
    busy_threads: usize,
    /// How long jobs took, from being queued to their end.
    durations: Histogram,
    /// The last attempt to start a thread has failed, and the log has said so.
    no_thread: bool,
    closed: bool,
}

struct Lane<L, T> {
    jobs: VecDeque<Job<L, T>>,
    /// When each job under way began, the first first.
    under_way: VecDeque<Instant>,
    /// When the last one ended.
    ended: Option<Instant>,
}

impl<L: Ord + Clone + Send + 'static, T: Send + 'static> Pool<L, T> {
    /// A pool whose threads are started when there is work, and that wakes the loop by `waker`.
    pub(crate) fn new(waker: Arc<Waker>, config: PoolConfig) -> Self {
        Self(Arc::new(Shared {
            queue: Mutex::new(Queue {
                lanes: BTreeMap::new(),
                turn: None,
                queued: 0,
                runnable: 0,
                threads: 0,
                busy_threads: 0,
                durations: Histogram::default(),
                no_thread: false,
                closed: false,
            }),
            ready: Condvar::new(),
            outcomes: Mutex::default(),
            waker,
            config,
        }))
    }

    /// Queues a job. It contains the panics of its work, see [`contained`]. `lane` names what it will
    /// wait for, a disk for example. Never blocks.
    pub(crate) fn submit(
        &self,
        lane: &L,
        work: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Result<(), QueueFull> {
        self.submit_step(lane, move || Step::Done(work()))
    }

    /// Queues a job that may wait for more than one lane, one after the other.
    pub(crate) fn submit_step(
        &self,
        lane: &L,
        work: impl FnOnce() -> Step<L, T> + Send + 'static,
    ) -> Result<(), QueueFull> {
        let config = &self.0.config;
        let mut queue = self.0.queue();
        if !queue.has_room(lane, config) {
            return Err(QueueFull);
        }
        let job = Job {
            work: Box::new(|_| work()),
            queued_at: Instant::now(),
        };
        queue.push(lane.clone(), job, config);
        self.0.start_wanted_thread(&mut queue);
        if queue.threads == 0 {
            queue.withdraw(lane);
            return Err(QueueFull);
        }
        drop(queue);
        self.0.ready.notify_one();
        Ok(())
    }

    /// How much there is to do.
    pub(crate) fn load(&self) -> Load {
        let queue = self.0.queue();
        Load {
            queued: queue.queued as u64,
            threads: queue.threads as u64,
            durations: queue.durations,
        }
    }

    /// Whether a job is under way, or waits for that: its thread may not have begun.
    pub(crate) fn is_busy(&self) -> bool {
        let queue = self.0.queue();
        queue.busy_threads > 0 || queue.queued > 0
    }

    /// The lanes with a job that has been under way for so long, and of which none has ended since.
    pub(crate) fn stuck(&self, at_least: Duration) -> Vec<L> {
        let queue = self.0.queue();
        let is_long = |since: &Instant| since.elapsed() >= at_least;
        let stuck = queue.lanes.iter().filter(|(_, lane)| {
            lane.under_way.front().is_some_and(is_long) && lane.ended.as_ref().is_none_or(is_long)
        });
        stuck.map(|(number, _)| number.clone()).collect()
    }

    /// Takes what has come of the jobs so far.
    pub(crate) fn take_outcomes(&self) -> Vec<T> {
        mem::take(&mut *lock(&self.0.outcomes))
    }

    /// What wakes the loop.
    pub(crate) fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.0.waker)
    }

    /// Wakes the loop as a finished job would.
    pub(crate) fn wake(&self) {
        self.0.wake();
    }
}

impl<L, T> fmt::Debug for Pool<L, T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Pool({})", self.0.config.role)
    }
}

impl<L, T> Drop for Pool<L, T> {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        for lane in queue.lanes.values_mut() {
            lane.jobs.clear();
        }
        (queue.queued, queue.runnable) = (0, 0);
        drop(queue);
        self.0.ready.notify_all();
    }
}

impl<L, T> Shared<L, T> {
    fn queue(&self) -> MutexGuard<'_, Queue<L, T>> {
        lock(&self.queue)
    }

    fn publish(&self, outcome: T) {
        let mut outcomes = lock(&self.outcomes);
        outcomes.push(outcome);
        // The loop takes all of them at once, so that only the first must wake it.
        if outcomes.len() == 1 {
            self.wake();
        }
    }

    fn wake(&self) {
        wake(&self.waker);
    }
}

impl<L: Ord + Clone + Send + 'static, T: Send + 'static> Shared<L, T> {
    /// Starts a thread if there is a job for one more.
    fn start_wanted_thread(self: &Arc<Self>, queue: &mut Queue<L, T>) {
        if !queue.wants_thread(&self.config) {
            return;
        }
        let shared = Arc::clone(self);
        let role = self.config.role;
        let started = spawn(role, move || {
            if let Err(error) = sys::set_niceness(shared.config.niceness) {
                log::debug!("{role} threads keep the default priority: {error}");
            }
            shared.work();
        });
        match started {
            Ok(()) => {
                queue.threads += 1;
                queue.no_thread = false;
            }
            Err(error) => {
                if !mem::replace(&mut queue.no_thread, true) {
                    log::warn!("cannot start a {role} thread: {error}");
                }
            }
        }
    }

    /// The life of a thread.
    fn work(self: &Arc<Self>) {
        while let Some((lane, job, began)) = self.next_job() {
            // What only the job still holds, a mapping perhaps, is dropped before the outcome is taken.
            let step = self.admitted((job.work)(Ok(())));
            let mut queue = self.queue();
            queue.finished(&lane, began, &self.config);
            match step {
                Step::Done(outcome) => {
                    queue.record(job.queued_at.elapsed());
                    drop(queue);
                    outcome
                        .into_iter()
                        .for_each(|outcome| self.publish(outcome));
                }
                Step::Goes(..) if queue.closed => {}
                Step::Goes(lane, work) => {
                    let queued_at = job.queued_at;
                    queue.push(lane, Job { work, queued_at }, &self.config);
                }
            }
        }
    }

    /// Ends a job that would go on in a lane without room. Otherwise jobs that leave one lane, and so make
    /// room there for others, would wait in the lane of a disk that hangs in any number.
    fn admitted(&self, step: Step<L, T>) -> Step<L, T> {
        match step {
            Step::Goes(lane, work) if !self.queue().has_room(&lane, &self.config) => {
                work(Err(QueueFull))
            }
            step => step,
        }
    }

    /// Waits for a job. `None` when none has come for long enough, or the pool is closed.
    fn next_job(self: &Arc<Self>) -> Option<(L, Job<L, T>, Instant)> {
        let mut queue = self.queue();
        let mut rested = false;
        loop {
            if let Some(taken) = queue.take(&self.config) {
                // This one may take long, and others may have come from other lanes since it was queued,
                // or could not go on until this thread had left their lane.
                self.start_wanted_thread(&mut queue);
                if queue.runnable > 0 && queue.busy_threads < queue.threads {
                    self.ready.notify_one();
                }
                return Some(taken);
            }
            if rested || queue.closed {
                queue.threads -= 1;
                return None;
            }
            let waited = self.ready.wait_timeout(queue, self.config.idle);
            let (guard, result) = waited.unwrap_or_else(PoisonError::into_inner);
            queue = guard;
            rested = result.timed_out();
        }
    }
}

impl<L: Ord + Clone, T> Queue<L, T> {
    /// Whether a job may be added to a lane: it leaves half of the room to those that are still to come.
    fn has_room(&self, lane: &L, config: &PoolConfig) -> bool {
        let waiting = self.lanes.get(lane).map_or(0, |lane| lane.jobs.len());
        let others = self.queued - waiting;
        let share = match config.spare {
            true => (config.queued_max.saturating_sub(others) / 2).max(1),
            false => config.queued_max.saturating_sub(others),
        };
        waiting < share
    }

    fn push(&mut self, lane: L, job: Job<L, T>, config: &PoolConfig) {
        let lane = self.lanes.entry(lane).or_insert_with(|| Lane {
            jobs: VecDeque::new(),
            under_way: VecDeque::new(),
            ended: None,
        });
        lane.jobs.push_back(job);
        self.queued += 1;
        self.runnable += usize::from(lane.jobs.len() <= lane.free_threads(config));
    }

    /// Takes back the job that was pushed last, for which there is no thread at all.
    fn withdraw(&mut self, lane: &L) {
        self.lanes.remove(lane);
        (self.queued, self.runnable) = (0, 0);
    }

    /// Whether there are jobs for more threads than there are.
    fn wants_thread(&self, config: &PoolConfig) -> bool {
        let free_threads = self.threads - self.busy_threads;
        if self.threads < config.threads_max {
            return self.runnable > free_threads;
        }
        let waits = |lane: &&Lane<L, T>| lane.under_way.is_empty() && !lane.jobs.is_empty();
        config.spare && self.lanes.values().filter(waits).count() > free_threads
    }

    /// The next job of the next lane that has one and may have another thread.
    fn take(&mut self, config: &PoolConfig) -> Option<(L, Job<L, T>, Instant)> {
        let is_below_max = self.busy_threads < config.threads_max;
        let may_go = |(_, lane): &(&L, &Lane<L, T>)| {
            let is_first = config.spare && lane.under_way.is_empty();
            let is_allowed = is_first || (is_below_max && lane.free_threads(config) > 0);
            is_allowed && !lane.jobs.is_empty()
        };
        let behind = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.lanes.range((behind, Bound::Unbounded)).find(may_go);
        let (number, _) = next.or_else(|| self.lanes.iter().find(may_go))?;
        let number = number.clone();
        let lane = self.lanes.get_mut(&number)?;
        let (job, now) = (lane.jobs.pop_front()?, Instant::now());
        lane.under_way.push_back(now);
        self.busy_threads += 1;
        self.queued -= 1;
        self.runnable -= 1;
        self.turn = Some(number.clone());
        Some((number, job, now))
    }

    /// A job of this lane has ended that began then. Lanes without jobs are removed, as disks come and
    /// go.
    fn finished(&mut self, number: &L, began: Instant, config: &PoolConfig) {
        let lane = self.lanes.get_mut(number);
        let lane = lane.expect("the lane of a job under way stays");
        let at = lane.under_way.iter().position(|other| *other == began);
        lane.under_way
            .remove(at.expect("a job that ends was taken before"));
        lane.ended = Some(Instant::now());
        self.busy_threads -= 1;
        // There is a thread for one more.
        self.runnable += usize::from(lane.jobs.len() >= lane.free_threads(config));
        if lane.under_way.is_empty() && lane.jobs.is_empty() {
            self.lanes.remove(number);
        }
    }

    fn record(&mut self, took: Duration) {
        let took_us = u64::try_from(took.as_micros());
        self.durations
            .record(took_us.expect("64 bits of microseconds do not end"));
    }
}

impl<L, T> Lane<L, T> {
    /// How many more of its jobs may be under way.
    fn free_threads(&self, config: &PoolConfig) -> usize {
        config.lane_threads_max.saturating_sub(self.under_way.len())
    }
}

/// A panic while a lock was held leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll, Token};
    use std::collections::BTreeSet;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Instant;

    const QUEUED_MAX: usize = 100;

    /// Set in the process of a test that ends it.
    const ALONE: &str = "HEKATE_TEST_ALONE";

    /// No wait of a test takes longer, unless what is tested is broken.
    const DEADLINE: Duration = Duration::from_secs(20);

    /// Lets one task go for each message, and all of them when the sender is gone.
    type Gate = (Option<Sender<()>>, Arc<Mutex<Receiver<()>>>);

    struct Rig {
        poll: Poll,
        pool: Pool<u64, Result<u32, u32>>,
        begun: (Sender<u32>, Receiver<u32>),
        /// For each device a gate of its own.
        gates: BTreeMap<u64, Gate>,
    }

    impl Rig {
        fn new(threads_max: usize, idle: Duration) -> Self {
            let config = PoolConfig::new("test", threads_max, QUEUED_MAX);
            Self::of(PoolConfig { idle, ..config })
        }

        fn of(config: PoolConfig) -> Self {
            let poll = Poll::new().unwrap();
            let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
            Rig {
                pool: Pool::new(waker, config),
                poll,
                begun: channel(),
                gates: BTreeMap::new(),
            }
        }

        /// Submits a job that says it has begun, waits to be let go, and comes to its number.
        fn submit(&mut self, device: u64, number: u32) -> Result<(), QueueFull> {
            let (_, gate) = self.gates.entry(device).or_insert_with(|| {
                let (sender, receiver) = channel();
                (Some(sender), Arc::new(Mutex::new(receiver)))
            });
            let (begun, gate) = (self.begun.0.clone(), Arc::clone(gate));
            let work = move || {
                begun.send(number).unwrap();
                // An error means that the gate is open for good.
                let _ = lock(&gate).recv();
                assert_ne!(number, 13, "a panic on purpose");
                number
            };
            self.pool.submit(&device, move || {
                let outcome = contained(work).map_err(|Panicked| number);
                (outcome != Ok(0)).then_some(outcome)
            })
        }

        fn open(&mut self, device: u64) {
            self.gates.get_mut(&device).unwrap().0 = None;
        }

        fn begun(&self) -> u32 {
            self.begun.1.recv_timeout(DEADLINE).unwrap()
        }

        /// Waits, by the waker alone, until so many outcomes have come.
        fn outcomes(&mut self, count: usize) -> Vec<Result<u32, u32>> {
            self.until(|outcomes| outcomes.len() >= count)
        }

        fn until(
            &mut self,
            is_enough: impl Fn(&[Result<u32, u32>]) -> bool,
        ) -> Vec<Result<u32, u32>> {
            let (mut events, mut outcomes) = (Events::with_capacity(1), Vec::new());
            while !is_enough(&outcomes) {
                self.poll.poll(&mut events, Some(DEADLINE)).unwrap();
                assert!(!events.is_empty(), "woken before the deadline");
                outcomes.extend(self.pool.take_outcomes());
            }
            outcomes.sort_unstable();
            outcomes
        }
    }

    #[test]
    fn every_job_has_an_outcome_and_the_loop_is_woken() {
        let mut rig = Rig::new(3, IDLE);
        for number in 1..=10 {
            rig.submit(1, number).unwrap();
        }
        assert!(rig.pool.0.queue().queued > 0);
        rig.open(1);
        assert_eq!(rig.outcomes(10), (1..=10).map(Ok).collect::<Vec<_>>());
        assert!(rig.pool.0.queue().queued == 0);
    }

    #[test]
    fn a_panic_loses_neither_the_outcome_nor_the_thread() {
        let mut rig = Rig::new(1, IDLE);
        for number in 12..=14 {
            rig.submit(1, number).unwrap();
        }
        rig.open(1);
        assert_eq!(rig.outcomes(3), [Ok(12), Ok(14), Err(13)]);
        assert_eq!(rig.pool.0.queue().threads, 1);
    }

    /// Runs a test of this file again, in a process of its own that has the variable set.
    fn run_alone(test: &str) -> process::Output {
        process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("workers::tests::{test}"), "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap()
    }

    #[test]
    fn the_panic_of_a_thread_ends_the_process() {
        if std::env::var_os(ALONE).is_some() {
            spawn("test", || panic!("on purpose")).unwrap();
            thread::sleep(DEADLINE);
            process::exit(0);
        }
        let output = run_alone("the_panic_of_a_thread_ends_the_process");
        assert_eq!(output.status.code(), Some(EXIT_PANIC), "{output:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            said.contains("hekate-test") && said.contains("on purpose"),
            "{said}"
        );
    }

    #[test]
    fn systemd_restarts_the_daemon_after_a_panic() {
        let unit = include_str!("../dist/hekate.service");
        assert!(unit.lines().any(|line| line == "Restart=on-failure"));
        let prevented = unit
            .lines()
            .find_map(|line| line.strip_prefix("RestartPreventExitStatus="));
        let mut prevented = prevented.unwrap().split_whitespace();
        assert!(prevented.all(|code| code.parse() != Ok(EXIT_PANIC)));
    }

    #[test]
    fn a_job_of_its_own_thread_answers_and_its_panic_is_an_error() {
        let mut poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let mut answer = |job: fn() -> u32| {
            let pending = once("test", &waker, job).unwrap();
            let mut events = Events::with_capacity(1);
            poll.poll(&mut events, Some(DEADLINE)).unwrap();
            assert!(!events.is_empty(), "woken before the deadline");
            pending.poll().unwrap()
        };
        assert_eq!(answer(|| 7), Ok(7));
        assert_eq!(answer(|| panic!("on purpose")), Err(Panicked));
    }

    #[test]
    fn threads_are_started_on_demand_and_bounded() {
        let mut rig = Rig::new(2, IDLE);
        assert_eq!(rig.pool.0.queue().threads, 0);
        for number in 1..=3 {
            rig.submit(u64::from(number), number).unwrap();
        }
        assert_eq!(rig.pool.0.queue().threads, 2);
        let mut begun = [rig.begun(), rig.begun()];
        begun.sort_unstable();
        assert_eq!(begun, [1, 2]);
        assert_eq!(rig.pool.0.queue().queued, 1);
        for device in 1..=3 {
            rig.open(device);
        }
        rig.outcomes(3);
    }

    #[test]
    fn threads_leave_when_there_is_nothing_to_do() {
        let mut rig = Rig::new(4, Duration::from_millis(10));
        // The second time they are started again.
        for _ in 0..2 {
            for number in 1..=4 {
                rig.submit(1, number).unwrap();
            }
            rig.open(1);
            rig.outcomes(4);
            let deadline = Instant::now() + DEADLINE;
            while rig.pool.0.queue().threads > 0 {
                assert!(Instant::now() < deadline, "the threads stay");
                thread::yield_now();
            }
        }
    }

    #[test]
    fn a_device_that_hangs_leaves_threads_to_the_others() {
        let mut rig = Rig::new(4, IDLE);
        for number in 1..=10 {
            rig.submit(1, number).unwrap();
        }
        let mut begun = [rig.begun(), rig.begun(), rig.begun()];
        begun.sort_unstable();
        assert_eq!(begun, [1, 2, 3]);
        // The first device has its share; what is asked of another does not wait behind it.
        rig.submit(2, 20).unwrap();
        rig.submit(2, 21).unwrap();
        rig.open(2);
        assert_eq!(rig.outcomes(2), [Ok(20), Ok(21)]);
        rig.open(1);
        assert_eq!(rig.outcomes(10).len(), 10);
    }

    #[test]
    fn no_disk_waits_for_others_however_many_hang() {
        let mut rig = Rig::of(PoolConfig::for_disks("test", 2, QUEUED_MAX));
        let hung = 1..=u32::try_from(DISKS).unwrap() + 5;
        for device in hung.clone() {
            // Whatever room they leave to the others, they fill.
            while rig.submit(device.into(), device).is_ok() {}
        }
        let mut waiting: BTreeSet<u32> = hung.clone().collect();
        while !waiting.is_empty() {
            waiting.remove(&rig.begun());
        }
        assert!(rig.pool.0.queue().threads <= 2 * DISKS + 6);
        for number in [120, 121, 122] {
            rig.submit(100, number).unwrap();
            rig.open(100);
            assert_eq!(rig.outcomes(1), [Ok(number)]);
        }
        assert_eq!(rig.pool.stuck(Duration::ZERO).len(), DISKS + 5);
        assert!(rig.pool.stuck(DEADLINE).is_empty());
        hung.for_each(|device| rig.open(device.into()));
    }

    #[test]
    fn a_job_goes_from_lane_to_lane_and_leaves_the_first_to_others() {
        let mut rig = Rig::of(PoolConfig::for_disks("test", 1, QUEUED_MAX));
        let (hung, gate) = channel::<()>();
        let goes = |number: u32, lane: u64, wait: Option<Receiver<()>>| {
            move || {
                Step::Goes(
                    lane,
                    Box::new(move |_| {
                        let _ = wait.map(|gate| gate.recv());
                        Step::Done(Some(Ok(number)))
                    }) as Work<u64, Result<u32, u32>>,
                )
            }
        };
        rig.pool.submit_step(&1, goes(1, 2, Some(gate))).unwrap();
        rig.pool.submit_step(&1, goes(2, 2, None)).unwrap();
        rig.pool.submit_step(&1, goes(3, 3, None)).unwrap();
        assert_eq!(rig.outcomes(1), [Ok(3)]);
        drop(hung);
        assert_eq!(rig.outcomes(2), [Ok(1), Ok(2)]);
    }

    #[test]
    fn a_thread_that_is_free_takes_what_another_leaves_in_its_lane() {
        let config = PoolConfig::for_disks("test", 1, QUEUED_MAX);
        // Nothing happens because a thread has rested for long enough.
        let idle = 2 * DEADLINE;
        let mut rig = Rig::of(PoolConfig { idle, ..config });
        for device in [10, 11] {
            rig.submit(device, 1).unwrap();
            rig.begun();
        }
        [10, 11].into_iter().for_each(|device| rig.open(device));
        rig.outcomes(2);
        let (hung, gate) = channel::<()>();
        let (go, may_go) = channel();
        let leaves = move || {
            may_go.recv().unwrap();
            let hangs = move |_: Result<(), QueueFull>| {
                let _ = gate.recv();
                Step::Done(None)
            };
            Step::Goes(2, Box::new(hangs) as Work<u64, Result<u32, u32>>)
        };
        rig.pool.submit_step(&1, leaves).unwrap();
        rig.pool.submit(&1, || Some(Ok(5))).unwrap();
        // The other thread finds nothing to do meanwhile. If it is slower, this shows less.
        thread::sleep(Duration::from_millis(10));
        go.send(()).unwrap();
        assert_eq!(rig.outcomes(1), [Ok(5)]);
        drop(hung);
    }

    #[test]
    fn jobs_that_go_to_a_lane_without_room_end_there() {
        let mut rig = Rig::of(PoolConfig::for_disks("test", 1, QUEUED_MAX));
        rig.submit(2, 0).unwrap();
        rig.begun();
        let mut ended = 0;
        for number in 0..3 * u32::try_from(QUEUED_MAX).unwrap() {
            let goes = move || {
                let went = move |room: Result<(), QueueFull>| {
                    Step::Done(room.is_err().then_some(Err(number)))
                };
                Step::Goes(2, Box::new(went) as Work<u64, Result<u32, u32>>)
            };
            rig.pool.submit_step(&1, goes).unwrap();
            // The next one finds the first lane empty.
            rig.pool.submit(&1, move || Some(Ok(number))).unwrap();
            let outcomes = rig.until(|outcomes| outcomes.contains(&Ok(number)));
            ended += outcomes.iter().filter(|outcome| outcome.is_err()).count();
        }
        let queued = rig.pool.0.queue().queued;
        assert_eq!(queued + ended, 3 * QUEUED_MAX);
        // Half of what the job in the other lane, which may have begun, leaves.
        let half = QUEUED_MAX / 2;
        assert!(queued == half || queued == half - 1, "{queued}");
        rig.open(2);
    }

    #[test]
    fn devices_take_turns() {
        let mut rig = Rig::new(1, IDLE);
        rig.submit(1, 1).unwrap();
        assert_eq!(rig.begun(), 1);
        for number in [2, 3, 4] {
            rig.submit(1, number).unwrap();
        }
        for (device, number) in [(2, 20), (2, 21), (3, 30)] {
            rig.submit(device, number).unwrap();
        }
        for device in 1..=3 {
            rig.open(device);
        }
        rig.outcomes(7);
        let order: Vec<u32> = rig.begun.1.try_iter().collect();
        assert_eq!(order, [20, 30, 2, 21, 3, 4]);
        assert!(rig.pool.0.queue().lanes.len() <= 1, "only the last lane");
    }

    #[test]
    fn the_queue_is_bounded() {
        let mut rig = Rig::new(1, IDLE);
        assert!(!rig.pool.is_busy());
        rig.submit(1, 1).unwrap();
        assert!(rig.pool.is_busy(), "before a thread has begun");
        assert_eq!(rig.begun(), 1);
        for _ in 0..QUEUED_MAX {
            rig.submit(1, 0).unwrap();
        }
        assert_eq!(rig.submit(1, 2), Err(QueueFull));
        rig.open(1);
        assert_eq!(rig.outcomes(1), [Ok(1)]);
    }

    #[test]
    fn a_dropped_pool_forgets_its_jobs_and_waits_for_none() {
        let mut rig = Rig::new(1, IDLE);
        for number in 1..=3 {
            rig.submit(1, number).unwrap();
        }
        assert_eq!(rig.begun(), 1);
        let shared = Arc::downgrade(&rig.pool.0);
        drop(rig.pool);
        rig.gates.clear();
        let deadline = Instant::now() + DEADLINE;
        while shared.strong_count() > 0 {
            assert!(Instant::now() < deadline, "the thread stays");
            thread::yield_now();
        }
        assert_eq!(rig.begun.1.try_iter().count(), 0);
    }
}
