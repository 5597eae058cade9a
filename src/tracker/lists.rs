//! The lists of trackers that torrents have, each kept once, and the trackers that they name.
//!
//! A tracker is a site: URLs that differ only in their path share connections and a rate limit.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::{Index, IndexMut};
use std::sync::Arc;

use slab::Slab;

use super::access::{Access, Unusable};
use super::url::{Site, masked};

/// Different trackers of one process. A library has tens, or hundreds when it was gathered from
/// everywhere; each costs some hundred bytes and, at times, a connection. Also the trackers of one
/// list, which are counted in 16 bits: they may differ in the path only.
///
/// Torrents of strangers can name as many with made-up hosts, so as many again are kept for hosts that an
/// operator has named.
pub const MAX_TRACKERS: usize = 10_000;

/// A tracker: a row of [`TrackerLists::sites`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TrackerId(pub(super) u32);

/// A row for each tracker. An id comes only from such a table, and no tracker is removed, so that
/// access cannot fail: an id of another process's trackers is a defect and panics.
#[derive(Debug)]
pub struct PerTracker<T>(Vec<T>);

impl<T> Default for PerTracker<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> PerTracker<T> {
    /// Adds the row of the next tracker, and returns its id.
    pub(super) fn push(&mut self, row: T) -> TrackerId {
        let id = u32::try_from(self.0.len());
        self.0.push(row);
        TrackerId(id.expect("trackers are bounded by MAX_TRACKERS"))
    }

    /// How many trackers there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Every id, ascending.
    pub(super) fn ids(&self) -> impl Iterator<Item = TrackerId> + use<T> {
        (0..).map(TrackerId).take(self.0.len())
    }

    /// Every row with its id.
    pub(super) fn iter(&self) -> impl Iterator<Item = (TrackerId, &T)> {
        self.ids().zip(&self.0)
    }

    /// Every row.
    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut()
    }
}

impl<T> Index<TrackerId> for PerTracker<T> {
    type Output = T;

    fn index(&self, id: TrackerId) -> &T {
        self.0.get(id.0 as usize).expect("a tracker has a row")
    }
}

impl<T> IndexMut<TrackerId> for PerTracker<T> {
    fn index_mut(&mut self, id: TrackerId) -> &mut T {
        self.0.get_mut(id.0 as usize).expect("a tracker has a row")
    }
}

/// A list of trackers, which torrents share. Ids are used again after the last torrent is gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ListId(pub(super) u32);

/// One tracker of a list.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ListedTracker {
    /// Which tracker.
    pub tracker: TrackerId,
    /// Path and query at this tracker.
    pub path: Arc<str>,
}

#[derive(Debug)]
struct TrackerList {
    tiers: Arc<[Vec<String>]>,
    trackers: Box<[ListedTracker]>,
    /// Torrents that have it.
    users: u32,
}

/// Why a URL of a list is not used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SkippedUrl {
    /// Nothing is announced to it.
    Unusable {
        /// What may be shown of it, see [`masked`].
        url: String,
        /// Why not.
        why: Unusable,
    },
    /// There are [`MAX_TRACKERS`] already.
    TooMany,
}

/// Every list, and every tracker that a list or a redirect names.
#[derive(Debug, Default)]
pub struct TrackerLists {
    lists: Slab<TrackerList>,
    by_tiers: HashMap<Arc<[Vec<String>]>, ListId>,
    sites: PerTracker<Site>,
    by_site: HashMap<Site, TrackerId>,
    /// Trackers that no list names: a redirect leads there.
    unlisted: BTreeSet<TrackerId>,
    /// How often lists without a tracker are held.
    unannounced: u64,
}

impl TrackerLists {
    /// The id of a list. A new one is parsed, and URLs that cannot be used or that `access` refuses are
    /// appended to `skipped`. It is forgotten when the last torrent that holds it releases it.
    pub fn intern(
        &mut self,
        tiers: &Arc<[Vec<String>]>,
        access: &Access,
        skipped: &mut Vec<SkippedUrl>,
    ) -> ListId {
        if let Some(&list) = self.by_tiers.get(tiers) {
            return list;
        }
        let mut trackers: Vec<ListedTracker> = Vec::new();
        let mut listed_before: HashSet<ListedTracker> = HashSet::new();
        // Empty texts are usual, and mean that there is none.
        let texts = tiers.iter().flatten();
        for text in texts.filter(|text| !text.trim().is_empty()) {
            if trackers.len() >= MAX_TRACKERS {
                skipped.push(SkippedUrl::TooMany);
                break;
            }
            match access.parse(text) {
                Ok(url) => match self.tracker(url.site, access) {
                    Some(tracker) => {
                        self.unlisted.remove(&tracker);
                        let path = Arc::from(&*url.path);
                        let listed = ListedTracker { tracker, path };
                        if listed_before.insert(listed.clone()) {
                            trackers.push(listed);
                        }
                    }
                    None => skipped.push(SkippedUrl::TooMany),
                },
                Err(why) => {
                    let url = masked(text);
                    skipped.push(SkippedUrl::Unusable { url, why });
                }
            }
        }
        let key = self.lists.insert(TrackerList {
            tiers: Arc::clone(tiers),
            trackers: trackers.into(),
            users: 0,
        });
        let list = ListId(u32::try_from(key).expect("there are fewer lists than torrents"));
        self.by_tiers.insert(Arc::clone(tiers), list);
        list
    }

    fn tracker(&mut self, site: Site, access: &Access) -> Option<TrackerId> {
        if let Some(&tracker) = self.by_site.get(&site) {
            return Some(tracker);
        }
        let most = match access.names(&site) {
            true => 2 * MAX_TRACKERS,
            false => MAX_TRACKERS,
        };
        if self.sites.len() >= most {
            return None;
        }
        let tracker = self.sites.push(site.clone());
        self.by_site.insert(site, tracker);
        Some(tracker)
    }

    /// The tracker at a site.
    #[must_use]
    pub fn find(&self, site: &Site) -> Option<TrackerId> {
        self.by_site.get(site).copied()
    }

    /// Adds a tracker that no list names. `None` when there are [`MAX_TRACKERS`].
    pub fn add_unlisted(&mut self, site: &Site, access: &Access) -> Option<TrackerId> {
        let is_new = self.find(site).is_none();
        let tracker = self.tracker(site.clone(), access)?;
        if is_new {
            self.unlisted.insert(tracker);
        }
        Some(tracker)
    }

    /// Gives the id of an unlisted tracker to another site, which has none.
    pub fn replace_unlisted(&mut self, tracker: TrackerId, site: &Site) {
        assert!(self.is_unlisted(tracker), "a list names this tracker");
        let before = std::mem::replace(&mut self.sites[tracker], site.clone());
        self.by_site.remove(&before);
        self.by_site.insert(site.clone(), tracker);
    }

    /// Returns true if no list has named a tracker.
    #[must_use]
    pub fn is_unlisted(&self, tracker: TrackerId) -> bool {
        self.unlisted.contains(&tracker)
    }

    /// How many trackers no list has named.
    #[must_use]
    pub fn unlisted_count(&self) -> usize {
        self.unlisted.len()
    }

    /// The site of every tracker.
    pub fn sites(&self) -> &PerTracker<Site> {
        &self.sites
    }

    /// The trackers of a list that is held, or was just interned.
    pub fn trackers(&self, list: ListId) -> &[ListedTracker] {
        let held = self.lists.get(list.0 as usize);
        &held.expect("a list is used while it is held").trackers
    }

    /// How many trackers a list has.
    pub(super) fn count(&self, list: ListId) -> u32 {
        u32::try_from(self.trackers(list).len())
            .expect("trackers are bounded by the length of a list")
    }

    fn held_mut(&mut self, list: ListId) -> &mut TrackerList {
        let held = self.lists.get_mut(list.0 as usize);
        held.expect("a list is used while it is held")
    }

    /// One more torrent has the list.
    pub fn hold(&mut self, list: ListId) {
        let held = self.held_mut(list);
        held.users += 1;
        self.unannounced += u64::from(held.trackers.is_empty());
    }

    /// How many torrents have a list without a tracker.
    #[must_use]
    pub fn unannounced(&self) -> u64 {
        self.unannounced
    }

    /// One torrent less has it. It is forgotten with the last one.
    pub fn release(&mut self, list: ListId) {
        let held = self.held_mut(list);
        held.users -= 1;
        let is_unused = held.users == 0;
        self.unannounced -= u64::from(held.trackers.is_empty());
        if is_unused {
            let forgotten = self.lists.remove(list.0 as usize);
            self.by_tiers.remove(&forgotten.tiers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::access::{AccessMode, Refusal};
    use crate::tracker::url::{TrackerUrl, UrlError};

    fn tiers(tiers: &[&[&str]]) -> Arc<[Vec<String>]> {
        let owned = |tier: &&[&str]| tier.iter().map(|url| (*url).to_owned()).collect();
        tiers.iter().map(owned).collect()
    }

    fn shown(lists: &TrackerLists, list: ListId) -> Vec<(u32, &str)> {
        let trackers = lists.trackers(list).iter();
        trackers
            .map(|listed| (listed.tracker.0, &*listed.path))
            .collect()
    }

    #[test]
    fn a_list_names_every_tracker_of_every_tier_once() {
        let mut lists = TrackerLists::default();
        let mut skipped = Vec::new();
        let tiers = tiers(&[
            &["http://a/announce", "wss://b", "HTTP://A:80/announce"],
            &["udp://c:1/announce", "", " ", "http://a/other"],
        ]);
        let list = lists.intern(&tiers, &Access::default(), &mut skipped);
        assert_eq!(
            shown(&lists, list),
            [(0, "/announce"), (1, "/announce"), (0, "/other")]
        );
        let url = "wss://b".to_owned();
        let why = UrlError::Scheme.into();
        assert_eq!(skipped, [SkippedUrl::Unusable { url, why }]);
        assert_eq!(lists.sites().len(), 2);
    }

    #[test]
    fn equal_lists_are_kept_once_and_forgotten_with_their_last_torrent() {
        let mut lists = TrackerLists::default();
        let mut skipped = Vec::new();
        let one = tiers(&[&["http://a/x"]]);
        let list = lists.intern(&one, &Access::default(), &mut skipped);
        lists.hold(list);
        assert_eq!(
            lists.intern(&tiers(&[&["http://a/x"]]), &Access::default(), &mut skipped),
            list
        );
        lists.hold(list);
        lists.release(list);
        assert_eq!(lists.intern(&one, &Access::default(), &mut skipped), list);
        lists.release(list);
        assert!(!lists.lists.contains(list.0 as usize));
        let other = lists.intern(&tiers(&[&["http://a/y"]]), &Access::default(), &mut skipped);
        assert_eq!((other, shown(&lists, other)), (list, vec![(0, "/y")]));
    }

    #[test]
    fn torrents_without_a_tracker_are_counted() {
        let mut lists = TrackerLists::default();
        let mut skipped = Vec::new();
        let none = lists.intern(&tiers(&[]), &Access::default(), &mut skipped);
        let unusable = lists.intern(
            &tiers(&[&["wss://a", ""]]),
            &Access::default(),
            &mut skipped,
        );
        let usable = lists.intern(
            &tiers(&[&["wss://a", "http://a"]]),
            &Access::default(),
            &mut skipped,
        );
        for list in [none, none, unusable, usable] {
            lists.hold(list);
        }
        assert_eq!(lists.unannounced(), 3);
        for (list, left) in [(none, 2), (usable, 2), (unusable, 1), (none, 0)] {
            lists.release(list);
            assert_eq!(lists.unannounced(), left);
        }
    }

    #[test]
    fn a_tracker_that_may_not_be_announced_to_is_none() {
        let access = Access {
            mode: AccessMode::List,
            named: vec!["a".parse().unwrap()],
        };
        let mut lists = TrackerLists::default();
        let mut skipped = Vec::new();
        let both = tiers(&[&["http://b/secret", "http://a/x"]]);
        let both = lists.intern(&both, &access, &mut skipped);
        let none = lists.intern(&tiers(&[&["http://b/secret"]]), &access, &mut skipped);
        assert_eq!(shown(&lists, both), [(0, "/x")]);
        assert_eq!((lists.trackers(none).len(), lists.sites().len()), (0, 1));
        let url = "http://b/…".to_owned();
        let why = Refusal::NotNamed.into();
        let refused = SkippedUrl::Unusable { url, why };
        assert_eq!(skipped, [refused.clone(), refused]);
    }

    #[test]
    fn the_id_of_a_site_that_no_list_names_is_reused_until_a_list_names_it() {
        let mut lists = TrackerLists::default();
        let site = |url: &str| TrackerUrl::parse(url).unwrap().site;
        let (a, b, c) = (site("http://a/"), site("http://b/"), site("http://c/"));
        lists.intern(
            &tiers(&[&["http://a/x"]]),
            &Access::default(),
            &mut Vec::new(),
        );
        assert_eq!(
            (
                lists.add_unlisted(&a, &Access::default()),
                lists.add_unlisted(&b, &Access::default())
            ),
            (Some(TrackerId(0)), Some(TrackerId(1)))
        );
        assert!(!lists.is_unlisted(TrackerId(0)) && lists.is_unlisted(TrackerId(1)));
        lists.replace_unlisted(TrackerId(1), &c);
        assert_eq!((lists.find(&b), lists.find(&c)), (None, Some(TrackerId(1))));
        lists.intern(
            &tiers(&[&["http://c/x"]]),
            &Access::default(),
            &mut Vec::new(),
        );
        assert_eq!(
            (lists.is_unlisted(TrackerId(1)), lists.unlisted_count()),
            (false, 0)
        );
        assert_eq!(lists.find(&c), Some(TrackerId(1)));
    }

    #[test]
    fn trackers_are_bounded() {
        let mut lists = TrackerLists::default();
        let mut skipped = Vec::new();
        let urls: Vec<String> = (0..=MAX_TRACKERS)
            .map(|n| format!("http://t{n}/"))
            .collect();
        let list = lists.intern(&Arc::from([urls]), &Access::default(), &mut skipped);
        assert_eq!(lists.trackers(list).len(), MAX_TRACKERS);
        assert_eq!(skipped, [SkippedUrl::TooMany]);
        let paths: Vec<String> = (0..2 * MAX_TRACKERS)
            .map(|n| format!("http://t0/{n}"))
            .collect();
        let list = lists.intern(&Arc::from([paths]), &Access::default(), &mut skipped);
        assert_eq!(lists.trackers(list).len(), MAX_TRACKERS);
        assert_eq!(skipped.len(), 2);
    }

    #[test]
    fn made_up_hosts_take_no_place_of_those_that_are_named() {
        let access = Access {
            mode: AccessMode::Any,
            named: vec![".mine".parse().unwrap()],
        };
        let mut lists = TrackerLists::default();
        let mut skipped = Vec::new();
        let urls: Vec<String> = (0..MAX_TRACKERS).map(|n| format!("http://t{n}/")).collect();
        lists.intern(&Arc::from([urls]), &access, &mut skipped);
        assert!(skipped.is_empty());
        let both = tiers(&[&["http://other/", "http://is.mine/"]]);
        let list = lists.intern(&both, &access, &mut skipped);
        assert_eq!(lists.trackers(list).len(), 1);
        assert_eq!(skipped, [SkippedUrl::TooMany]);
        // A domain that is named has any number of hosts.
        let hosts = (0..MAX_TRACKERS).map(|n| format!("http://t{n}.mine/"));
        let list = lists.intern(&Arc::from([hosts.collect()]), &access, &mut skipped);
        assert_eq!(lists.trackers(list).len(), MAX_TRACKERS - 1);
        assert_eq!(skipped.len(), 2);
    }
}
