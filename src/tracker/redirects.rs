//! Redirects of HTTP trackers: what is remembered, and which requests are redirected.
//!
//! A request goes where its own path leads, and no other does. Its *origin* is the tracker in whose
//! queue it is, its *target* the one that it was redirected to.

use std::collections::VecDeque;

use super::lists::{PerTracker, TrackerId, TrackerLists};
use super::request::{RedirectTarget, Request};
use super::url::{Site, TrackerUrl};
use crate::timers::Time;

/// Redirects in a row that are followed. Browsers allow more; trackers need one.
pub(super) const MAX_REDIRECTS: u32 = 5;

/// A redirect is forgotten after an hour, so that one that was a mistake does not last.
pub(super) const REDIRECT_MS: u64 = 60 * 60 * 1000;

/// Paths of one tracker that are remembered, those used last. A public tracker has one path, a
/// private one has one for each user, of whom a library has few. Where each torrent has a path of its
/// own, each announce is redirected, so that a library of millions takes no more memory.
const MAX_PATHS: usize = 16;

/// Requests of one origin that are redirected at the same time: as many as one connection carries. The
/// others wait, so that a slow target does not hold a whole library.
pub(super) const MAX_REDIRECTED: usize = 128;

/// Redirected requests of all trackers. Each holds a path of up to two kilobytes, so these are eight
/// megabytes where every tracker is hostile.
pub(super) const MAX_REDIRECTED_IN_ALL: usize = 4096;

/// Targets of one origin that no torrent names. One is usual, a service with several machines names a
/// few. A target without requests gives way to the next one.
pub(super) const MAX_TARGETS: usize = 8;

/// Which tracker stands for the site that a redirect leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TargetChoice {
    /// This one, which is at the site already.
    Known(TrackerId),
    /// A new one is to be added.
    Add,
    /// This one, which no request is at, is to be moved to the site.
    Replace(TrackerId),
}

#[derive(Debug)]
struct Redirect {
    path: Box<str>,
    to: TrackerUrl,
    since: Time,
}

/// What is known of one tracker.
#[derive(Debug, Default)]
struct Row {
    /// Permanent redirects by path. The one used last is at the end.
    permanent: VecDeque<Redirect>,
    /// Requests of its queue that are redirected, and requests that are redirected to it.
    redirected: usize,
    received: usize,
    /// Targets that no torrent names. The one used last is at the end.
    targets: Vec<TrackerId>,
}

impl Row {
    fn take(&mut self, path: &str) -> Option<Redirect> {
        let mut paths = self.permanent.iter();
        let index = paths.position(|redirect| &*redirect.path == path)?;
        self.permanent.remove(index)
    }
}

/// The redirects of every tracker.
#[derive(Debug, Default)]
pub(super) struct Redirects {
    rows: PerTracker<Row>,
    /// Redirected requests of all trackers.
    redirected: usize,
}

impl Redirects {
    /// Adds the next tracker.
    pub(super) fn add(&mut self) {
        self.rows.push(Row::default());
    }

    /// A tracker without redirected requests is at another site from now on.
    pub(super) fn replace(&mut self, tracker: TrackerId) {
        let row = &mut self.rows[tracker];
        assert!(row.redirected == 0 && row.received == 0, "it has requests");
        *row = Row::default();
    }

    /// Where a path of a tracker permanently leads.
    pub(super) fn find(
        &mut self,
        tracker: TrackerId,
        path: &str,
        now: Time,
    ) -> Option<&TrackerUrl> {
        let row = &mut self.rows[tracker];
        let redirect = row.take(path)?;
        if now.since(redirect.since) >= REDIRECT_MS {
            return None;
        }
        row.permanent.push_back(redirect);
        row.permanent.back().map(|redirect| &redirect.to)
    }

    /// Remembers where a path of a tracker permanently leads.
    pub(super) fn remember(&mut self, tracker: TrackerId, path: &str, to: TrackerUrl, now: Time) {
        let row = &mut self.rows[tracker];
        row.take(path);
        if row.permanent.len() >= MAX_PATHS {
            row.permanent.pop_front();
        }
        row.permanent.push_back(Redirect {
            path: path.into(),
            to,
            since: now,
        });
    }

    /// Forgets where a path of a tracker leads.
    pub(super) fn forget(&mut self, tracker: TrackerId, path: &str) {
        self.rows[tracker].take(path);
    }

    /// Returns true if the queue of a tracker has to wait for redirected requests. While no target is
    /// known to answer, the first request finds that out.
    pub(super) fn is_full(&self, tracker: TrackerId, is_up: bool) -> bool {
        self.rows[tracker].redirected >= if is_up { MAX_REDIRECTED } else { 1 }
    }

    /// Returns true if a request is redirected to a tracker.
    pub(super) fn has_requests(&self, target: TrackerId) -> bool {
        self.rows[target].received > 0
    }

    /// Sends a request, which is not redirected yet, to a target.
    ///
    /// # Errors
    /// Gives it back when too many requests are redirected.
    pub(super) fn begin(
        &mut self,
        mut request: Request,
        target: RedirectTarget,
    ) -> Result<Request, Request> {
        assert!(request.redirect.is_none(), "its redirect has not ended");
        if self.redirected >= MAX_REDIRECTED_IN_ALL {
            return Err(request);
        }
        self.redirected += 1;
        self.rows[request.origin.tracker].redirected += 1;
        self.rows[target.tracker].received += 1;
        request.redirect = Some(Box::new(target));
        Ok(request)
    }

    /// Ends the redirect of a request, if it has one.
    pub(super) fn end(&mut self, mut request: Request) -> Request {
        if let Some(target) = request.redirect.take() {
            self.redirected -= 1;
            self.rows[request.origin.tracker].redirected -= 1;
            self.rows[target.tracker].received -= 1;
        }
        request
    }

    /// Chooses the tracker for a site that the redirects of `origin` lead to. `None` if there are too
    /// many.
    pub(super) fn choose_target(
        &mut self,
        origin: TrackerId,
        site: &Site,
        lists: &TrackerLists,
    ) -> Option<TargetChoice> {
        let known = lists.find(site);
        let targets = &mut self.rows[origin].targets;
        if let Some(target) = known {
            if let Some(index) = targets.iter().position(|other| *other == target) {
                targets.remove(index);
                targets.push(target);
            }
            return Some(TargetChoice::Known(target));
        }
        targets.retain(|target| lists.is_unlisted(*target));
        if targets.len() < MAX_TARGETS {
            return Some(TargetChoice::Add);
        }
        let mut targets = self.rows[origin].targets.iter();
        let idle = targets.find(|target| !self.has_requests(**target))?;
        Some(TargetChoice::Replace(*idle))
    }

    /// A tracker was added, or replaced, for redirects of `origin`.
    pub(super) fn add_target(&mut self, origin: TrackerId, target: TrackerId) {
        let targets = &mut self.rows[origin].targets;
        targets.retain(|other| *other != target);
        targets.push(target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: TrackerId = TrackerId(0);

    fn url(text: &str) -> TrackerUrl {
        TrackerUrl::parse(text).unwrap()
    }

    fn redirects() -> Redirects {
        let mut redirects = Redirects::default();
        redirects.add();
        redirects
    }

    #[test]
    fn a_redirect_is_that_of_one_path_and_holds_for_an_hour() {
        let mut redirects = redirects();
        redirects.remember(A, "/one", url("https://b/new"), Time(5));
        assert_eq!(redirects.find(A, "/other", Time(5)), None);
        let last = Time(5 + REDIRECT_MS - 1);
        assert_eq!(redirects.find(A, "/one", last), Some(&url("https://b/new")));
        assert_eq!(redirects.find(A, "/one", last.after(1)), None);
        assert!(redirects.rows[A].permanent.is_empty());
    }

    #[test]
    fn a_newer_redirect_replaces_an_older_one() {
        let mut redirects = redirects();
        redirects.remember(A, "/one", url("https://b/"), Time(0));
        redirects.remember(A, "/one", url("https://c/"), Time(1));
        assert_eq!(redirects.find(A, "/one", Time(1)), Some(&url("https://c/")));
        redirects.forget(A, "/one");
        assert_eq!(redirects.find(A, "/one", Time(1)), None);
    }

    #[test]
    fn remembered_paths_are_those_used_last_and_bounded() {
        let mut redirects = redirects();
        redirects.remember(A, "/used", url("https://b/"), Time(0));
        for number in 0..1000 {
            redirects.remember(A, &format!("/{number}"), url("https://b/"), Time(0));
            assert!(redirects.find(A, "/used", Time(0)).is_some());
        }
        assert_eq!(redirects.rows[A].permanent.len(), MAX_PATHS);
        assert!(redirects.find(A, "/999", Time(0)).is_some());
        assert!(redirects.find(A, "/900", Time(0)).is_none());
    }
}
