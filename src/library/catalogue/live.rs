//! The library's thread, as the loop sees it: requests go to a mailbox, updates come back.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::sync::{Arc, OnceLock};
use std::thread;

use super::messages::{Mailbox, Outbox};
pub use super::messages::{NewSnapshot, Update};
pub use super::overlay::{Added, Change, Relisted, Removed};
pub use super::source::{EACH_COUNTS, Settings, Source};
use super::worker;
use crate::disks::Disks;
use crate::library::scan::build::Progress;

/// Paths that wait to be examined because a peer asked for their torrent. Beyond that, a peer has to
/// ask again.
const EXAMINE_MAX: usize = 1024;

/// Updates that wait for the loop. The library's thread waits for room.
const UPDATES_WAITING: usize = 4;

/// The library's thread.
pub struct Live {
    mailbox: Mailbox,
    updates: Receiver<Update>,
    /// Of the first index, once it is being made.
    indexing: Arc<OnceLock<Progress>>,
}

impl Live {
    /// Starts the thread `hekate-library`. It calls `wake` after each update, and when it ends. Torrents are
    /// found by their obfuscated hashes if `is_encrypted`.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start(
        settings: Settings,
        disks: Disks,
        is_encrypted: bool,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        Self::spawn(wake, move |mailbox, indexing, outbox| {
            // The only error is that the loop has ended.
            let _ = worker::run(settings, disks, is_encrypted, &indexing, &mailbox, outbox);
        })
    }

    fn spawn(
        wake: impl Fn() + Send + 'static,
        run: impl FnOnce(Mailbox, Arc<OnceLock<Progress>>, Outbox) + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, updates) = sync_channel(UPDATES_WAITING);
        let outbox = Outbox::new(sender, wake);
        let live = Live {
            mailbox: Mailbox::default(),
            updates,
            indexing: Arc::default(),
        };
        let (mailbox, indexing) = (live.mailbox.clone(), Arc::clone(&live.indexing));
        let thread = thread::Builder::new().name("hekate-library".to_owned());
        thread.spawn(move || run(mailbox, indexing, outbox))?;
        Ok(live)
    }

    /// The next update, if there is one. Never blocks.
    ///
    /// The thread ends after [`Update::Failed`], or when the loop does. If it has ended otherwise, it
    /// has panicked, which is a failure too: the loop would serve a library that nobody updates.
    pub fn update(&self) -> Option<Update> {
        match self.updates.try_recv() {
            Ok(update) => Some(update),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Update::Failed(
                "the library's thread panicked, a defect of hekate".to_owned(),
            )),
        }
    }

    /// Metainfo files in the first index so far; `None` unless it is or was being made.
    #[must_use]
    pub fn indexed_files(&self) -> Option<u64> {
        let progress = self.indexing.get()?;
        Some(progress.files.load(Relaxed))
    }

    /// Asks for a scan of everything. Never blocks.
    pub fn refresh(&self, settings: Settings) {
        self.mailbox.post(|mail| mail.refresh = Some(settings));
    }

    /// Asks for a metainfo file to be examined, because its torrent could not be loaded. Never
    /// blocks.
    pub fn examine(&self, path: &Path) {
        self.mailbox.post(|mail| {
            if mail.examine.len() < EXAMINE_MAX {
                mail.examine.push(path.to_path_buf());
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_panic_of_the_thread_wakes_the_loop_and_is_a_failure() {
        let (woken, wakes) = mpsc::channel();
        let wake = move || woken.send(()).unwrap();
        let live = Live::spawn(wake, |_, _, _outbox| panic!("on purpose")).unwrap();
        wakes.recv().unwrap();
        let Some(Update::Failed(message)) = live.update() else {
            panic!("the loop goes on");
        };
        assert!(message.contains("a defect of hekate"));
    }
}
