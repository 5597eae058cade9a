//! The figures of trackers, and warnings that do not repeat themselves.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use crate::metrics::trackers::{MAX_NAMED, TrackerFigures, TrackerState, TrackerSums, Trackers};
use crate::timers::Time;
use crate::tracker::access::{Refusal, Unusable};
use crate::tracker::lists::{PerTracker, TrackerId};
use crate::tracker::schedule::Schedule;
use crate::tracker::url::Site;
use crate::wire::message::InfoHash;

/// A tracker that is announced to this much too late is worth a line in the log.
const LATE_S: u64 = 300;

/// A tracker is warned about no more often than this.
const WARN_MS: u64 = 10 * 60 * 1000;

/// URLs that cannot be used and are remembered: a library names some dozen, a hostile one any number.
const MAX_UNUSABLE: usize = 1000;

/// Those of them that the status names.
const UNUSABLE_SHOWN: usize = 20;

/// One tracker.
#[derive(Debug)]
struct Row {
    site: Site,
    /// The first torrent that named it, unless a redirect did.
    torrent: Option<InfoHash>,
    /// Requests, and how they ended.
    sums: TrackerSums,
    /// The last warning, and its time.
    trouble: Option<(String, Time)>,
    warned_at: Option<Time>,
    late_warned_at: Option<Time>,
}

impl Row {
    fn new(site: &Site, torrent: Option<InfoHash>) -> Self {
        Self {
            site: site.clone(),
            torrent,
            sums: TrackerSums::default(),
            trouble: None,
            warned_at: None,
            late_warned_at: None,
        }
    }
}

/// The figures of all trackers.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: PerTracker<Row>,
    /// The sums of all rows, those of replaced trackers included.
    total: TrackerSums,
    /// Trackers that are shown by name.
    named: Vec<TrackerId>,
    /// Trackers that were considered for a name, and those among them that no torrent names.
    considered: (usize, usize),
    /// Torrents, lateness and requests of the others when they were last summed up.
    others: TrackerSums,
    /// URLs to which nothing is announced, as they may be shown, why not, and the first torrent with each.
    unusable: BTreeMap<String, (Unusable, InfoHash)>,
}

impl Report {
    /// Adds the next tracker.
    pub(super) fn add(&mut self, site: &Site, torrent: Option<InfoHash>) {
        self.rows.push(Row::new(site, torrent));
    }

    /// A tracker is at another site from now on.
    pub(super) fn replace(&mut self, tracker: TrackerId, site: &Site) {
        self.rows[tracker] = Row::new(site, None);
    }

    /// The site under which a tracker is shown.
    pub(super) fn site(&self, tracker: TrackerId) -> &Site {
        &self.rows[tracker].site
    }

    /// Counts something that has happened at a tracker.
    pub(super) fn count(&mut self, tracker: TrackerId, figure: fn(&mut TrackerSums) -> &mut u64) {
        *figure(&mut self.total) += 1;
        *figure(&mut self.rows[tracker].sums) += 1;
    }

    /// Logs what is wrong with a tracker, as a warning once in [`WARN_MS`].
    pub(super) fn warn(&mut self, tracker: TrackerId, what: fmt::Arguments<'_>, now: Time) {
        let row = &mut self.rows[tracker];
        row.trouble = Some((what.to_string(), now));
        if is_due(row.warned_at, now) {
            row.warned_at = Some(now);
            log::warn!("tracker {}: {what}", row.site);
        } else {
            log::debug!("tracker {}: {what}", row.site);
        }
    }

    /// Logs why a tracker rests, and for how long. The status says that with its state, since it may be
    /// woken before.
    pub(super) fn warn_of_rest(&mut self, tracker: TrackerId, why: &str, wait_s: u64, now: Time) {
        self.warn(tracker, format_args!("{why}; retrying in {wait_s} s"), now);
        self.rows[tracker].trouble = Some((why.to_owned(), now));
    }

    /// Logs why nothing is announced to a URL of a torrent. That is said once for each server.
    pub(super) fn unusable(&mut self, url: String, why: Unusable, torrent: InfoHash) {
        let is_new = self.unusable.len() < MAX_UNUSABLE && !self.unusable.contains_key(&url);
        if !is_new {
            log::debug!("{torrent}: tracker {url} {why}");
            return;
        }
        match &why {
            Unusable::Invalid(why) => log::warn!("{torrent}: tracker {url} cannot be used: {why}"),
            Unusable::Refused(why) => log::warn!("{torrent}: tracker {url} is not allowed: {why}"),
        }
        self.unusable.insert(url, (why, torrent));
    }

    /// Logs why a tracker is not announced to. Where a redirect leads is said of the tracker that redirects.
    pub(super) fn refuse(&mut self, tracker: TrackerId, why: Refusal, now: Time) {
        let row = &mut self.rows[tracker];
        row.trouble = Some((format!("not allowed: {why}"), now));
        if let Some(torrent) = row.torrent {
            log::warn!("{torrent}: tracker {} is not allowed: {why}", row.site);
        }
    }

    /// Logs that a tracker is behind, or no longer.
    pub(super) fn check_lateness(
        &mut self,
        tracker: TrackerId,
        late_s: u64,
        torrents: u32,
        now: Time,
    ) {
        let row = &mut self.rows[tracker];
        if late_s >= LATE_S {
            if is_due(row.late_warned_at, now) {
                row.late_warned_at = Some(now);
                log::warn!(
                    "tracker {}: announces are {late_s} s late ({torrents} torrents)",
                    row.site
                );
            }
        } else if row.late_warned_at.take().is_some() {
            log::info!("tracker {}: announces are on time again", row.site);
        }
    }

    /// Trackers that are shown by name.
    pub(super) fn named(&self) -> &[TrackerId] {
        &self.named
    }

    /// Names new trackers as long as fewer than [`MAX_NAMED`] are named: those with the most torrents
    /// first. A tracker stays named, or its figures would jump. One that only redirects lead to is not
    /// named: it changes, and what is announced there counts for the tracker that redirects.
    pub(super) fn name_trackers(&mut self, schedule: &Schedule) {
        let lists = schedule.lists();
        let count = (self.rows.len(), lists.unlisted_count());
        let free = MAX_NAMED - self.named.len();
        if std::mem::replace(&mut self.considered, count) == count || free == 0 {
            return;
        }
        let is_new =
            |tracker: &TrackerId| !self.named.contains(tracker) && !lists.is_unlisted(*tracker);
        let mut new: Vec<TrackerId> = self.rows.ids().filter(is_new).collect();
        new.sort_by_key(|tracker| Reverse(schedule.members(*tracker)));
        self.named.extend(new.into_iter().take(free));
    }

    /// Takes over the sums of the trackers that are not shown by name.
    pub(super) fn set_others(&mut self, others: TrackerSums) {
        self.others = others;
    }

    /// The figures of all trackers: of those that are shown by name, and of the others together.
    pub(super) fn figures(&self, named: Vec<TrackerFigures>, connections: u64) -> Trackers {
        let mut shown = TrackerSums::default();
        for tracker in &named {
            shown.add(&tracker.sums);
        }
        let all = &self.total;
        let reasons = self.unusable.values();
        let refused = reasons.filter(|(why, _)| matches!(why, Unusable::Refused(_)));
        let first = self.unusable.iter().take(UNUSABLE_SHOWN);
        let first = first.map(|(url, (why, torrent))| {
            let why = format!("{why}; the first torrent with it is {torrent}");
            (url.clone(), why)
        });
        Trackers {
            not_allowed: refused.count() as u64,
            unannounced: 0,
            unusable: self.unusable.len() as u64,
            unusable_first: first.collect(),
            others: (self.rows.len() - named.len()) as u64,
            other: TrackerSums {
                // A replaced tracker takes what it had sent along.
                sent: all.sent.saturating_sub(shown.sent),
                accepted: all.accepted.saturating_sub(shown.accepted),
                refused: all.refused.saturating_sub(shown.refused),
                failed: all.failed.saturating_sub(shown.failed),
                connections: connections.saturating_sub(shown.connections),
                ..self.others
            },
            named,
        }
    }

    /// The figures of a tracker that is shown by name: what was counted, and what is so now.
    pub(super) fn figures_of(
        &self,
        tracker: TrackerId,
        state: TrackerState,
        current: TrackerSums,
        now: Time,
    ) -> TrackerFigures {
        let row = &self.rows[tracker];
        let trouble = row.trouble.as_ref();
        let mut sums = current;
        sums.add(&row.sums);
        TrackerFigures {
            site: row.site.to_string(),
            host: row.site.host.to_string(),
            state,
            trouble: trouble.map(|(what, at)| (what.clone(), now.since(*at) / 1000)),
            sums,
        }
    }
}

fn is_due(before: Option<Time>, now: Time) -> bool {
    before.is_none_or(|before| now.since(before) >= WARN_MS)
}
