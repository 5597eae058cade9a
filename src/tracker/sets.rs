//! The lists of trackers that torrents have, each kept once.
//!
//! Owns which trackers a list means and the path of each URL. A tracker is a site: URLs that differ
//! in their path alone share connections and a pace. It must not know what is announced there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::url::{Site, TrackerUrl, UrlError};

/// Different trackers of one process. A library has tens, or hundreds when it was gathered from
/// everywhere; each costs some hundred bytes and, at times, a connection.
pub const MAX_TRACKERS: usize = 10_000;

/// One tracker of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Its number in [`Sets::sites`].
    pub tracker: u32,
    /// Path and query there.
    pub path: Arc<str>,
}

#[derive(Debug)]
struct Set {
    announce: Arc<[Vec<String>]>,
    targets: Box<[Target]>,
    /// Torrents that have it.
    users: u32,
}

/// Why a URL of a list was passed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Skipped {
    /// It is no URL of a tracker.
    Url(UrlError),
    /// There are [`MAX_TRACKERS`] already.
    TooMany,
}

/// Every list, and every tracker that one of them names.
#[derive(Debug, Default)]
pub struct Sets {
    sets: Vec<Option<Set>>,
    free: Vec<u32>,
    known: HashMap<Arc<[Vec<String>]>, u32>,
    sites: Vec<Site>,
    by_site: HashMap<Site, u32>,
    /// Trackers that no list has named, but a redirect.
    guests: BTreeSet<u32>,
}

impl Sets {
    /// The number of a list. A new one is read, and URLs that name no tracker are told to `skipped`.
    /// It is forgotten when the last torrent that holds it releases it.
    pub fn intern(&mut self, announce: &Arc<[Vec<String>]>, skipped: &mut Vec<Skipped>) -> u32 {
        if let Some(&set) = self.known.get(announce) {
            return set;
        }
        let mut targets: Vec<Target> = Vec::new();
        for text in announce.iter().flatten() {
            match TrackerUrl::parse(text) {
                Ok(url) => match self.tracker(url.site) {
                    Some(tracker) => {
                        self.guests.remove(&tracker);
                        let path = Arc::from(&*url.path);
                        let target = Target { tracker, path };
                        if !targets.contains(&target) {
                            targets.push(target);
                        }
                    }
                    None => skipped.push(Skipped::TooMany),
                },
                Err(error) => skipped.push(Skipped::Url(error)),
            }
        }
        let set = Set {
            announce: Arc::clone(announce),
            targets: targets.into(),
            users: 0,
        };
        let number = self.free.pop().unwrap_or_else(|| {
            self.sets.push(None);
            u32::try_from(self.sets.len() - 1).unwrap_or(u32::MAX)
        });
        if let Some(place) = self.sets.get_mut(number as usize) {
            *place = Some(set);
        }
        self.known.insert(Arc::clone(announce), number);
        number
    }

    fn tracker(&mut self, site: Site) -> Option<u32> {
        if let Some(&tracker) = self.by_site.get(&site) {
            return Some(tracker);
        }
        if self.sites.len() >= MAX_TRACKERS {
            return None;
        }
        let tracker = u32::try_from(self.sites.len()).ok()?;
        self.sites.push(site.clone());
        self.by_site.insert(site, tracker);
        Some(tracker)
    }

    /// The number of a site, if it is a tracker.
    #[must_use]
    pub fn find(&self, site: &Site) -> Option<u32> {
        self.by_site.get(site).copied()
    }

    /// A number for a site that no list names. `None` when there are [`MAX_TRACKERS`].
    pub fn add_guest(&mut self, site: &Site) -> Option<u32> {
        let is_new = self.find(site).is_none();
        let tracker = self.tracker(site.clone())?;
        if is_new {
            self.guests.insert(tracker);
        }
        Some(tracker)
    }

    /// Gives the number of such a site to another, which has none.
    pub fn replace_guest(&mut self, tracker: u32, site: &Site) {
        if let Some(place) = self.sites.get_mut(tracker as usize)
            && self.guests.contains(&tracker)
        {
            self.by_site.remove(place);
            *place = site.clone();
            self.by_site.insert(site.clone(), tracker);
        }
    }

    /// Whether no list has named a tracker.
    #[must_use]
    pub fn is_guest(&self, tracker: u32) -> bool {
        self.guests.contains(&tracker)
    }

    /// How many trackers no list has named.
    #[must_use]
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Every tracker, by its number.
    pub fn sites(&self) -> &[Site] {
        &self.sites
    }

    /// The trackers of a list.
    pub fn trackers(&self, set: u32) -> &[Target] {
        match self.sets.get(set as usize) {
            Some(Some(set)) => &set.targets,
            _ => &[],
        }
    }

    /// The path at one tracker of a list.
    pub fn path(&self, set: u32, position: u32) -> Option<&str> {
        let target = self.trackers(set).get(position as usize)?;
        Some(&target.path)
    }

    /// One more torrent has the list.
    pub fn hold(&mut self, set: u32) {
        if let Some(Some(set)) = self.sets.get_mut(set as usize) {
            set.users += 1;
        }
    }

    /// One torrent less has it.
    pub fn release(&mut self, set: u32) {
        let Some(place) = self.sets.get_mut(set as usize) else {
            return;
        };
        if let Some(held) = place {
            held.users = held.users.saturating_sub(1);
            if held.users == 0 {
                self.known.remove(&held.announce);
                *place = None;
                self.free.push(set);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tiers: &[&[&str]]) -> Arc<[Vec<String>]> {
        let owned = |tier: &&[&str]| tier.iter().map(|url| (*url).to_owned()).collect();
        tiers.iter().map(owned).collect()
    }

    fn shown(sets: &Sets, set: u32) -> Vec<(u32, &str)> {
        let targets = sets.trackers(set).iter();
        targets
            .map(|target| (target.tracker, &*target.path))
            .collect()
    }

    #[test]
    fn a_list_names_every_tracker_of_every_tier_once() {
        let mut sets = Sets::default();
        let mut skipped = Vec::new();
        let tiers = list(&[
            &["http://a/announce", "wss://b", "HTTP://A:80/announce"],
            &["udp://c:1/announce", "http://a/other"],
        ]);
        let set = sets.intern(&tiers, &mut skipped);
        assert_eq!(
            shown(&sets, set),
            [(0, "/announce"), (1, "/announce"), (0, "/other")]
        );
        assert_eq!(skipped, [Skipped::Url(UrlError::Scheme)]);
        assert_eq!(sets.path(set, 2), Some("/other"));
        assert_eq!(sets.sites().len(), 2);
    }

    #[test]
    fn equal_lists_are_kept_once_and_forgotten_with_their_last_torrent() {
        let mut sets = Sets::default();
        let mut skipped = Vec::new();
        let one = list(&[&["http://a/x"]]);
        let set = sets.intern(&one, &mut skipped);
        sets.hold(set);
        assert_eq!(sets.intern(&list(&[&["http://a/x"]]), &mut skipped), set);
        sets.hold(set);
        sets.release(set);
        assert_eq!(sets.intern(&one, &mut skipped), set);
        sets.release(set);
        assert_eq!(shown(&sets, set), []);
        let other = sets.intern(&list(&[&["http://a/y"]]), &mut skipped);
        assert_eq!((other, shown(&sets, other)), (set, vec![(0, "/y")]));
    }

    #[test]
    fn a_site_that_no_list_names_gives_up_its_number_until_one_does() {
        let mut sets = Sets::default();
        let site = |url: &str| TrackerUrl::parse(url).unwrap().site;
        let (a, b, c) = (site("http://a/"), site("http://b/"), site("http://c/"));
        sets.intern(&list(&[&["http://a/x"]]), &mut Vec::new());
        assert_eq!((sets.add_guest(&a), sets.add_guest(&b)), (Some(0), Some(1)));
        assert!(!sets.is_guest(0) && sets.is_guest(1));
        sets.replace_guest(1, &c);
        assert_eq!((sets.find(&b), sets.find(&c)), (None, Some(1)));
        sets.intern(&list(&[&["http://c/x"]]), &mut Vec::new());
        assert_eq!((sets.is_guest(1), sets.guests()), (false, 0));
        sets.replace_guest(1, &b);
        assert_eq!(sets.find(&c), Some(1));
    }

    #[test]
    fn trackers_are_bounded() {
        let mut sets = Sets::default();
        let mut skipped = Vec::new();
        let urls: Vec<String> = (0..=MAX_TRACKERS)
            .map(|n| format!("http://t{n}/"))
            .collect();
        let set = sets.intern(&Arc::from([urls]), &mut skipped);
        assert_eq!(sets.trackers(set).len(), MAX_TRACKERS);
        assert_eq!(skipped, [Skipped::TooMany]);
    }
}
