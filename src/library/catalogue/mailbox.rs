//! The requests to the library's thread, gathered until it takes them.
//!
//! Posting never blocks for longer than another post: the loop posts here, and so does the thread
//! that reads the kernel's events, which must not wait or events are lost.

use std::mem;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::source::Settings;
use crate::library::watch::Changes;

/// Paths that wait to be examined because a peer asked for their torrent. Beyond that, a peer has to
/// ask again.
const EXAMINE_MAX: usize = 1024;

/// Requests.
#[derive(Default)]
pub(super) struct Mail {
    /// Scan everything, with these settings from then on.
    pub(super) refresh: Option<Settings>,
    /// Examine these metainfo files.
    pub(super) examine: Vec<PathBuf>,
    /// Examine these changes on disk.
    pub(super) changes: Changes,
    /// The refresh under way has ended.
    pub(super) refresh_ended: bool,
}

impl Mail {
    /// Adds a metainfo file to be examined, unless too many wait.
    pub(super) fn examine(&mut self, path: PathBuf) {
        if self.examine.len() < EXAMINE_MAX {
            self.examine.push(path);
        }
    }

    fn is_empty(&self) -> bool {
        let Mail {
            refresh,
            examine,
            changes,
            refresh_ended,
        } = self;
        refresh.is_none() && examine.is_empty() && changes.is_empty() && !refresh_ended
    }
}

/// The mailbox of the library's thread.
#[derive(Clone, Default)]
pub(super) struct Mailbox(Arc<(Mutex<Mail>, Condvar)>);

impl Mailbox {
    /// Adds a request, and wakes the thread.
    pub(super) fn post(&self, add: impl FnOnce(&mut Mail)) {
        let (mail, posted) = &*self.0;
        // A panic while adding leaves nothing half done that matters.
        add(&mut mail.lock().unwrap_or_else(PoisonError::into_inner));
        posted.notify_one();
    }

    /// Takes all requests. Waits at most this long for one.
    pub(super) fn wait(&self, timeout: Duration) -> Mail {
        let (mail, posted) = &*self.0;
        let mail = mail.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = posted.wait_timeout_while(mail, timeout, |mail| mail.is_empty());
        let (mut mail, _) = waited.unwrap_or_else(PoisonError::into_inner);
        mem::take(&mut *mail)
    }
}
