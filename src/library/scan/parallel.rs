//! Work on all cores, with the results in the order of the items and a bound on how many are under way.

use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, Builder};

/// Results that may wait for an earlier one, for each thread. One slow item then keeps the others
/// busy for a while, and memory stays bounded.
const AHEAD_FOR_EACH_THREAD: usize = 16;

/// The threads that this machine has a core for.
#[must_use]
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Does `work` on every item with this many threads of these builders, each with its own worker, and
/// hands the results to `take` in the order of the items. The items are made by one more thread, the
/// first. Ends early when `take` breaks. When the system allows fewer threads, those do the work.
///
/// # Errors
/// Those of clone(2), when not even one thread of each kind can be started. Nothing is taken then.
///
/// # Panics
/// When a worker does, after the others have ended.
pub fn in_order<T, R, W>(
    threads: usize,
    mut builder: impl FnMut() -> Builder,
    items: impl Iterator<Item = T> + Send,
    worker: impl Fn() -> W + Sync,
    mut take: impl FnMut(R) -> ControlFlow<()>,
) -> io::Result<()>
where
    T: Send,
    R: Send,
    W: FnMut(T) -> R,
{
    let threads = threads.max(1);
    let ahead = threads * AHEAD_FOR_EACH_THREAD;
    let (jobs, queue) = sync_channel::<(T, SyncSender<R>)>(ahead);
    let (order, results) = sync_channel::<Receiver<R>>(ahead);
    let queue = Mutex::new(queue);
    thread::scope(|scope| {
        builder().spawn_scoped(scope, move || {
            for item in items {
                let (sender, receiver) = sync_channel(1);
                if order.send(receiver).is_err() || jobs.send((item, sender)).is_err() {
                    break;
                }
            }
        })?;
        for started in 0..threads {
            let thread = builder().spawn_scoped(scope, || {
                let mut work = worker();
                let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                while let Ok((item, sender)) = next() {
                    // Nobody may be waiting any more.
                    let _ = sender.send(work(item));
                }
            });
            match thread {
                Ok(_) => {}
                Err(error) if started == 0 => {
                    // The thread that makes items must not wait for room for more.
                    drop(results);
                    return Err(error);
                }
                Err(error) => {
                    log::warn!("working with {started} of {threads} threads: {error}");
                    break;
                }
            }
        }
        for result in results {
            let Ok(result) = result.recv() else { break };
            if take(result).is_break() {
                break;
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for threads in [0, 1, 4] {
            let mut taken = Vec::new();
            in_order(
                threads,
                Builder::new,
                0..10_000_u64,
                || |item| item * 2,
                |result| {
                    taken.push(result);
                    ControlFlow::Continue(())
                },
            )
            .unwrap();
            assert!(taken.into_iter().eq((0..10_000).map(|item| item * 2)));
        }
    }

    #[test]
    fn each_thread_has_a_worker_of_its_own() {
        let made = Mutex::new(0);
        in_order(
            3,
            Builder::new,
            0..100,
            || {
                *made.lock().unwrap() += 1;
                |item: u32| item
            },
            |_| ControlFlow::Continue(()),
        )
        .unwrap();
        assert_eq!(*made.lock().unwrap(), 3);
    }

    #[test]
    fn a_worker_that_panics_ends_the_run_and_nobody_waits_for_it() {
        for threads in [1, 3] {
            let mut taken = 0;
            let run = std::panic::AssertUnwindSafe(|| {
                in_order(
                    threads,
                    Builder::new,
                    0..100_000,
                    || |item: u32| assert!(item != 500, "on purpose"),
                    |()| {
                        taken += 1;
                        ControlFlow::Continue(())
                    },
                )
            });
            assert!(std::panic::catch_unwind(run).is_err());
            assert_eq!(taken, 500);
        }
    }

    /// Runs 1,000 items on 4 threads, of which the system starts so many, with that of the items.
    fn run_with_threads_at_most(at_most: usize) -> (io::Result<()>, u32) {
        let mut asked = 0;
        let mut taken = 0;
        let builder = || {
            asked += 1;
            match asked <= at_most {
                true => Builder::new(),
                // More than the address space holds.
                false => Builder::new().stack_size(1 << 50),
            }
        };
        let take = |()| {
            taken += 1;
            ControlFlow::Continue(())
        };
        let run = in_order(4, builder, 0..1_000, || |_| (), take);
        (run, taken)
    }

    #[test]
    fn the_threads_that_can_be_started_do_the_work() {
        for at_most in [2, 4, 5] {
            let (run, taken) = run_with_threads_at_most(at_most);
            run.unwrap();
            assert_eq!(taken, 1_000);
        }
    }

    #[test]
    fn a_run_without_threads_is_an_error() {
        for at_most in [0, 1] {
            let (run, taken) = run_with_threads_at_most(at_most);
            assert!(run.is_err());
            assert_eq!(taken, 0);
        }
    }

    #[test]
    fn items_are_not_made_far_ahead_and_breaking_ends_the_run() {
        let made = Mutex::new(0_usize);
        let items = std::iter::from_fn(|| {
            *made.lock().unwrap() += 1;
            Some(())
        });
        let mut taken = 0;
        in_order(
            2,
            Builder::new,
            items,
            || |()| (),
            |()| {
                taken += 1;
                match taken {
                    5 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            },
        )
        .unwrap();
        assert_eq!(taken, 5);
        assert!(*made.lock().unwrap() <= 5 + 2 + 2 * 2 * AHEAD_FOR_EACH_THREAD);
    }
}
