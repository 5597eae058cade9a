//! The permanent redirects of one tracker, by path.
//!
//! Owns the redirects of a tracker that were said to be permanent: few of them, and for an hour. A
//! redirect is that of one path, since a path may be one user's, and what it gives away is a key. It
//! must not know who follows a redirect, nor how.

use std::collections::VecDeque;

use super::url::TrackerUrl;
use crate::timers::Time;

/// Redirects in a row, as browsers bound them only more strictly: trackers need one.
pub(super) const MAX_REDIRECTS: u32 = 5;

/// A redirect is forgotten after an hour, so that one that was a mistake does not last.
pub(super) const REDIRECT_MS: u64 = 60 * 60 * 1000;

/// Paths of one tracker that are remembered, those used last. A public tracker has one path, a
/// private one has one for each user, of whom a library has few. Where each torrent has a path of its
/// own, each announce is redirected anew, so that a library of millions takes no more memory.
const MAX_PATHS: usize = 16;

#[derive(Debug)]
struct Redirect {
    path: Box<str>,
    to: TrackerUrl,
    since: Time,
}

/// The redirects of one tracker.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    /// The one used last is at the end.
    all: VecDeque<Redirect>,
}

impl Redirects {
    /// Whether nothing is remembered.
    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What a path has become.
    pub(super) fn find(&mut self, path: &str, now: Time) -> Option<&TrackerUrl> {
        let redirect = self.take(path)?;
        if now.since(redirect.since) >= REDIRECT_MS {
            return None;
        }
        self.all.push_back(redirect);
        self.all.back().map(|redirect| &redirect.to)
    }

    /// A path has become another URL.
    pub(super) fn remember(&mut self, path: &str, to: TrackerUrl, now: Time) {
        self.take(path);
        if self.all.len() >= MAX_PATHS {
            self.all.pop_front();
        }
        self.all.push_back(Redirect {
            path: path.into(),
            to,
            since: now,
        });
    }

    /// What a path has become is of no use.
    pub(super) fn forget(&mut self, path: &str) {
        self.take(path);
    }

    fn take(&mut self, path: &str) -> Option<Redirect> {
        let place = (self.all.iter()).position(|redirect| &*redirect.path == path)?;
        self.all.remove(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> TrackerUrl {
        TrackerUrl::parse(text).unwrap()
    }

    #[test]
    fn a_redirect_is_that_of_one_path_and_holds_for_an_hour() {
        let mut redirects = Redirects::default();
        redirects.remember("/one", url("https://b/new"), Time(5));
        assert_eq!(redirects.find("/other", Time(5)), None);
        let last = Time(5 + REDIRECT_MS - 1);
        assert_eq!(redirects.find("/one", last), Some(&url("https://b/new")));
        assert_eq!(redirects.find("/one", last.after(1)), None);
        assert!(redirects.all.is_empty());
    }

    #[test]
    fn a_newer_redirect_takes_the_place_of_an_older_one() {
        let mut redirects = Redirects::default();
        redirects.remember("/one", url("https://b/"), Time(0));
        redirects.remember("/one", url("https://c/"), Time(1));
        assert_eq!(redirects.find("/one", Time(1)), Some(&url("https://c/")));
        redirects.forget("/one");
        assert_eq!(redirects.find("/one", Time(1)), None);
    }

    #[test]
    fn remembered_paths_are_those_used_last_and_bounded() {
        let mut redirects = Redirects::default();
        redirects.remember("/used", url("https://b/"), Time(0));
        for number in 0..1000 {
            redirects.remember(&format!("/{number}"), url("https://b/"), Time(0));
            assert!(redirects.find("/used", Time(0)).is_some());
        }
        assert_eq!(redirects.all.len(), MAX_PATHS);
        assert!(redirects.find("/999", Time(0)).is_some());
        assert!(redirects.find("/900", Time(0)).is_none());
    }
}
