//! Torrents of an index in the schedule, under a virtual clock, case by case and at random.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::{BURST, TERMS, V4, announce, ended, finish, hash, schedule, turn};
use crate::rate::RateLimiter;
use crate::tracker::announce::{Event, Terms};
use crate::tracker::lists::{ListId, TrackerId};
use crate::tracker::queue::LEAD_MS;
use crate::tracker::runs::RUN_IDS;
use crate::tracker::schedule::Outcome;
use crate::tracker::schedule::*;

/// A second after the start: what was due at the start is late, and not spread over its second.
const LATER: Time = Time(1000);

/// A schedule with torrents of an index, none of whose info-hashes have been read.
fn with_index(count: u32) -> Schedule {
    let (mut schedule, list) = schedule(&["udp://a:1"]);
    schedule.begin_index();
    for number in 0..count.div_ceil(64) {
        let members = (count - number * 64).min(64);
        schedule.add_indexed(run(number, members, list), Time(0));
    }
    schedule.end_index();
    schedule
}

/// The first torrents of a run.
fn run(number: u32, count: u32, list: ListId) -> Vec<(TorrentId, ListId)> {
    let ids = number * RUN_IDS..number * RUN_IDS + count;
    ids.map(|id| (TorrentId(id), list)).collect()
}

/// Reads the info-hashes that are wanted.
fn read(schedule: &mut Schedule) -> Vec<u32> {
    let unread = schedule.unread(usize::MAX);
    for torrent in &unread {
        schedule.learn(*torrent, Some(hash(torrent.0)));
    }
    unread.into_iter().map(|torrent| torrent.0).collect()
}

/// Announces whatever is due of an index.
fn sweep(schedule: &mut Schedule, now: Time) -> Vec<(u32, Event)> {
    let mut announced = turn(schedule, now);
    while !read(schedule).is_empty() {
        announced.extend(turn(schedule, now));
    }
    announced
}

#[test]
fn an_index_is_announced_in_order_and_nothing_is_kept_of_it() {
    let mut schedule = with_index(1000);
    assert_eq!(
        (schedule.torrents(), schedule.members(TrackerId(0))),
        (1000, 1000)
    );
    assert_eq!(announce(&mut schedule, TrackerId(0), LATER), None);
    assert_eq!(
        schedule.poll_at(TrackerId(0), LATER),
        None,
        "nobody waits but for a read"
    );
    let announced = sweep(&mut schedule, LATER);
    assert!(
        announced
            .iter()
            .copied()
            .eq((0..1000).map(|torrent| (torrent, Event::Started)))
    );
    assert_eq!(schedule.torrents.records(), 0);
    // Each comes again at its interval, and its info-hash is read before.
    let mut again = Vec::new();
    let mut now = LATER;
    while again.len() < 1000 {
        let next = schedule.poll_at(TrackerId(0), now).unwrap();
        assert!(next.0 < 1_802_000);
        now = next;
        again.extend(turn(&mut schedule, now));
        read(&mut schedule);
    }
    again.sort_unstable_by_key(|(torrent, _)| *torrent);
    assert!(
        again
            .iter()
            .copied()
            .eq((0..1000).map(|torrent| (torrent, Event::None)))
    );
}

#[test]
fn info_hashes_are_read_ahead_and_the_announce_is_in_time() {
    let mut schedule = with_index(1);
    sweep(&mut schedule, LATER);
    let ahead = schedule.poll_at(TrackerId(0), LATER).unwrap();
    assert_eq!(turn(&mut schedule, ahead), []);
    assert_eq!(read(&mut schedule), [0]);
    let due = schedule.poll_at(TrackerId(0), ahead).unwrap();
    assert_eq!(due, ahead.after(LEAD_MS));
    assert_eq!(turn(&mut schedule, Time(due.0 - 1)), []);
    assert_eq!(turn(&mut schedule, due), [(0, Event::None)]);
}

#[test]
fn a_peer_that_comes_while_the_info_hash_is_read_ends_the_wait() {
    let mut schedule = with_index(1);
    assert_eq!(announce(&mut schedule, TrackerId(0), LATER), None);
    assert_eq!(
        schedule.poll_at(TrackerId(0), LATER),
        None,
        "nobody waits but for a read"
    );
    // Whoever looked at the tracker in vain has to be event, since the read will not.
    assert!(schedule.joined(TorrentId(0), hash(0), LATER).is_some());
    assert_eq!(schedule.learn(TorrentId(0), Some(hash(0))), None);
    assert!(schedule.poll_at(TrackerId(0), LATER).unwrap() <= LATER);
    assert!(announce(&mut schedule, TrackerId(0), LATER).is_some());
}

#[test]
fn a_peer_that_leaves_while_the_info_hash_is_read_delays_no_announce() {
    for is_read_before in [None, Some(true), Some(false)] {
        let mut schedule = with_index(1);
        assert_eq!(announce(&mut schedule, TrackerId(0), LATER), None);
        if is_read_before == Some(true) {
            assert_eq!(read(&mut schedule), [0]);
        }
        schedule.joined(TorrentId(0), hash(0), LATER);
        schedule.left(TorrentId(0));
        if is_read_before == Some(false) {
            assert_eq!(read(&mut schedule), [0]);
        }
        assert_eq!(schedule.poll_at(TrackerId(0), LATER), Some(Time(0)));
        assert_eq!(turn(&mut schedule, LATER), [(0, Event::Started)]);
        assert_eq!(schedule.torrents.records(), 0);
    }
}

#[test]
fn a_peer_that_leaves_shortly_before_an_announce_delays_no_announce() {
    for ahead_ms in [0, 1, LEAD_MS, LEAD_MS + 1] {
        let mut schedule = with_index(1);
        sweep(&mut schedule, LATER);
        schedule.joined(TorrentId(0), hash(0), LATER);
        let due = schedule.poll_at(TrackerId(0), LATER).unwrap();
        let before = Time(due.0 - ahead_ms);
        // The entry is prefetched since it is due soon, and then the peer leaves.
        assert_eq!(schedule.take(TrackerId(0), before).is_some(), ahead_ms == 0);
        schedule.left(TorrentId(0));
        if ahead_ms > 0 {
            assert_eq!(sweep(&mut schedule, due), [(0, Event::None)]);
        }
    }
}

#[test]
fn neighbours_in_an_index_are_read_together_in_every_round() {
    let terms = Terms {
        interval_s: 60,
        min_interval_s: 45,
    };
    let mut schedule = with_index(60_000);
    let mut pace = RateLimiter::new(Some(1200), BURST, Time(0));
    let mut random = fastrand::Rng::with_seed(12);
    let mut in_second = vec![0_u32; 1200];
    let (mut reads, mut wanted) = (0, 0);
    for tick in 0..(1200 * 50) {
        let now = LATER.after(tick * 20);
        while pace.available(now) > 0
            && let Some((entry, _, event)) = announce(&mut schedule, TrackerId(0), now)
        {
            pace.take(1);
            let ended = ended(V4, event, Outcome::Accepted(terms));
            schedule.finish(TrackerId(0), entry, ended, now, random.u32(..));
            in_second[usize::try_from(tick / 50).unwrap()] += 1;
        }
        let mut unread = read(&mut schedule);
        if tick / 50 >= 1000 && !unread.is_empty() {
            unread.sort_unstable();
            let gaps = unread.windows(2).filter(|pair| pair[1] - pair[0] > 80);
            reads += 1 + gaps.count();
            wanted += unread.len();
        }
    }
    // A batch of these has twenty; scattered ones would be read one by one.
    assert!(wanted / reads > 6, "{wanted} info-hashes in {reads} reads");
    let late = &in_second[900..];
    assert!(
        late.iter().all(|count| (500..=1250).contains(count)),
        "{late:?}"
    );
}

#[test]
fn few_info_hashes_are_held_at_a_time() {
    let mut schedule = with_index(50_000);
    let mut most = 0;
    let mut announced = 0;
    while announced < 50_000 {
        announced += turn(&mut schedule, LATER).len();
        assert!(schedule.torrents.records() <= 4096);
        most = most.max(read(&mut schedule).len());
    }
    assert_eq!(most, 4096, "a fast tracker is not held up by reads");
}

#[test]
fn single_torrents_do_not_wait_for_an_index() {
    let mut schedule = with_index(10_000);
    turn(&mut schedule, LATER);
    let list = schedule.list_of(TorrentId(0)).unwrap();
    schedule.add(TorrentId(20_000), hash(20_000), list, LATER);
    schedule.joined(TorrentId(9000), hash(9000), LATER);
    assert_eq!(
        turn(&mut schedule, LATER),
        [(9000, Event::Started), (20_000, Event::Started)]
    );
}

#[test]
fn a_torrent_whose_info_hash_cannot_be_read_is_retried_and_delays_no_other() {
    let mut schedule = with_index(3);
    turn(&mut schedule, LATER);
    assert_eq!(schedule.unread(usize::MAX), [0, 1, 2].map(TorrentId));
    schedule.learn(TorrentId(0), Some(hash(0)));
    schedule.learn(TorrentId(1), None);
    schedule.learn(TorrentId(2), Some(hash(2)));
    assert_eq!(
        turn(&mut schedule, LATER),
        [(0, Event::Started), (2, Event::Started)]
    );
    assert_eq!(
        schedule.poll_at(TrackerId(0), LATER),
        Some(Time(301_000 - LEAD_MS))
    );
    assert_eq!(sweep(&mut schedule, Time(302_000)), [(1, Event::Started)]);
}

#[test]
fn a_torrent_of_an_index_is_stopped_when_it_is_removed_in_any_state() {
    let mut schedule = with_index(200);
    sweep(&mut schedule, LATER);
    let first = schedule.poll_at(TrackerId(0), LATER).unwrap();
    turn(&mut schedule, first);
    let staged = schedule.unread(usize::MAX);
    let staged = staged.first().copied().unwrap();
    let waiting = (0..200)
        .map(TorrentId)
        .find(|torrent| *torrent != staged)
        .unwrap();
    for torrent in [staged, waiting] {
        schedule.remove(torrent, hash(torrent.0));
    }
    // The answer to the former question changes nothing.
    assert_eq!(schedule.learn(staged, None), None);
    let mut stopped = Vec::new();
    while let Some((entry, torrent, event)) =
        announce(&mut schedule, TrackerId(0), first.after(LEAD_MS))
    {
        if event == Event::Stopped {
            stopped.push(torrent);
        }
        let now = first.after(LEAD_MS);
        finish(&mut schedule, entry, event, Outcome::Accepted(TERMS), now);
        read(&mut schedule);
    }
    stopped.sort_unstable();
    let mut expected = [staged.0, waiting.0];
    expected.sort_unstable();
    assert_eq!(stopped, expected);
    assert_eq!(
        (schedule.torrents(), schedule.members(TrackerId(0))),
        (198, 198)
    );
}

#[test]
fn a_torrent_removed_before_the_index_is_added_is_not_announced() {
    let (mut schedule, list) = schedule(&["udp://a:1"]);
    schedule.begin_index();
    schedule.remove(TorrentId(5), hash(5));
    schedule.uploaded(TorrentId(6), 11);
    schedule.add_indexed(run(0, 8, list), Time(0));
    schedule.end_index();
    schedule.remove(TorrentId(5), hash(5));
    turn(&mut schedule, LATER);
    assert_eq!(read(&mut schedule), [0, 1, 2, 3, 4, 6, 7]);
    let mut uploaded = Vec::new();
    while let Some(entry) = schedule.take(TrackerId(0), LATER) {
        let due = schedule.begin(entry, V4).unwrap();
        uploaded.push(due.announce.uploaded);
        finish(
            &mut schedule,
            entry,
            Event::Started,
            Outcome::Accepted(TERMS),
            LATER,
        );
    }
    assert_eq!(uploaded, [0, 0, 0, 0, 0, 11, 0]);
}

#[test]
fn an_index_is_stopped_at_the_end_those_with_peers_first() {
    let mut schedule = with_index(300);
    sweep(&mut schedule, LATER);
    schedule.joined(TorrentId(250), hash(250), LATER);
    // Some are being read.
    let next = schedule.poll_at(TrackerId(0), LATER).unwrap();
    turn(&mut schedule, next);
    schedule.stop();
    schedule.left(TorrentId(250));
    let stopped = sweep(&mut schedule, next);
    assert_eq!(stopped[0], (250, Event::Stopped));
    assert_eq!(stopped.len(), 300);
    assert!(schedule.is_idle(TrackerId(0)));
}

/// Everything that can happen to torrents, and which of them each tracker knows as started.
struct Model {
    random: fastrand::Rng,
    schedule: Schedule,
    now: Time,
    /// The list of each torrent that is served.
    served: HashMap<u32, ListId>,
    /// Torrents that each tracker believes in.
    started: [HashSet<u32>; 3],
    in_flight: Vec<(TrackerId, EntryId, u32, Event)>,
    next_number: u32,
    next_run: u32,
}

/// The trackers of each list.
const LISTS: [&[u32]; 3] = [&[0], &[0, 1], &[1, 2]];

impl Model {
    fn new(seed: u64) -> Self {
        let mut schedule = Schedule::default();
        for trackers in LISTS {
            let urls = trackers.iter().map(|number| format!("udp://t{number}:1"));
            let list = schedule.intern(
                &Arc::from([urls.collect()]),
                &Access::default(),
                &mut Vec::new(),
            );
            schedule.lists_mut().hold(list);
        }
        schedule.begin_index();
        Self {
            random: fastrand::Rng::with_seed(seed),
            schedule,
            now: Time(0),
            served: HashMap::new(),
            started: Default::default(),
            in_flight: Vec::new(),
            next_number: 1000,
            next_run: 0,
        }
    }

    /// One thing that happens in the library.
    fn change(&mut self) {
        match self.random.u8(..3) {
            0 if self.next_run < 10 => {
                let members = self.random.u64(1..);
                let same = self.random.bool();
                let list = ListId(self.random.u32(..3));
                let number = self.next_run;
                let run: Vec<(TorrentId, ListId)> = (0..RUN_IDS)
                    .filter(|bit| members >> bit & 1 == 1)
                    .map(|bit| TorrentId(number * RUN_IDS + bit))
                    .map(|torrent| match same {
                        true => (torrent, list),
                        false => (torrent, ListId(self.random.u32(..3))),
                    })
                    .collect();
                let members = run.iter();
                self.served
                    .extend(members.map(|(torrent, list)| (torrent.0, *list)));
                self.schedule.add_indexed(run, self.now);
                self.next_run += 1;
            }
            1 => {
                let (torrent, list) = (self.next_number, ListId(self.random.u32(..3)));
                self.schedule
                    .add(TorrentId(torrent), hash(torrent), list, self.now);
                self.served.insert(torrent, list);
                self.next_number += 1;
            }
            _ if !self.served.is_empty() => self.touch(),
            _ => {}
        }
    }

    /// Something happens to a torrent that is served.
    fn touch(&mut self) {
        let mut numbers: Vec<u32> = self.served.keys().copied().collect();
        numbers.sort_unstable();
        let torrent = numbers[self.random.usize(..numbers.len())];
        match self.random.u8(..3) {
            0 => {
                self.schedule.remove(TorrentId(torrent), hash(torrent));
                self.served.remove(&torrent);
            }
            1 => {
                self.schedule
                    .joined(TorrentId(torrent), hash(torrent), self.now);
            }
            _ => self.schedule.left(TorrentId(torrent)),
        }
    }

    fn begin(&mut self, tracker: TrackerId, most: usize) {
        for _ in 0..most {
            let begun = announce(&mut self.schedule, tracker, self.now);
            let Some((entry, torrent, event)) = begun else {
                return;
            };
            self.in_flight.push((tracker, entry, torrent, event));
        }
    }

    fn end(&mut self, index: usize, outcome: Outcome) {
        let (tracker, entry, torrent, event) = self.in_flight.swap_remove(index);
        let started = &mut self.started[tracker.0 as usize];
        match (event, outcome) {
            (Event::Stopped, Outcome::Accepted(_) | Outcome::Failed) => {
                started.remove(&torrent);
            }
            (Event::Started, Outcome::Accepted(_)) => {
                assert!(started.insert(torrent), "{torrent} is started twice");
            }
            _ => {}
        }
        let (ended, chance) = (ended(V4, event, outcome), self.random.u32(..));
        self.schedule
            .finish(tracker, entry, ended, self.now, chance);
    }

    fn step(&mut self) {
        match self.random.u8(..10) {
            0..3 => self.change(),
            3 => self.now = self.now.after(self.random.u64(..120_000)),
            4 => {
                for torrent in self.schedule.unread(self.random.usize(..40)) {
                    let is_read = self.random.u8(..8) > 0;
                    self.schedule
                        .learn(torrent, is_read.then(|| hash(torrent.0)));
                }
            }
            5 | 6 => {
                let tracker = TrackerId(self.random.u32(..3));
                self.begin(tracker, 20);
            }
            _ if !self.in_flight.is_empty() => {
                let index = self.random.usize(..self.in_flight.len());
                let outcome = match self.random.u8(..8) {
                    0 => Outcome::Failed,
                    1 => Outcome::Returned,
                    _ => Outcome::Accepted(TERMS),
                };
                self.end(index, outcome);
            }
            _ => {}
        }
    }

    /// The torrents that a tracker should know as started.
    fn expected(&self, tracker: TrackerId) -> HashSet<u32> {
        let served = self.served.iter();
        let announced = served.filter(|(_, list)| LISTS[list.0 as usize].contains(&tracker.0));
        announced.map(|(torrent, _)| *torrent).collect()
    }

    /// Announces all that is due.
    fn finish_all(&mut self) {
        for _ in 0..1000 {
            self.now = self.now.after(20_000);
            read(&mut self.schedule);
            while !self.in_flight.is_empty() {
                self.end(0, Outcome::Accepted(TERMS));
            }
            for tracker in (0..3).map(TrackerId) {
                self.begin(tracker, usize::MAX);
            }
            if (0..3)
                .map(TrackerId)
                .all(|tracker| self.started[tracker.0 as usize] == self.expected(tracker))
            {
                return;
            }
        }
    }
}

/// Whatever happens in whichever order, in the end trackers know as started what is served.
#[test]
fn after_random_changes_trackers_know_exactly_what_is_served() {
    for seed in 0..60 {
        let mut model = Model::new(seed);
        (0..4000).for_each(|_| model.step());
        model.finish_all();
        for tracker in (0..3).map(TrackerId) {
            let expected = model.expected(tracker);
            assert_eq!(model.started[tracker.0 as usize], expected, "seed {seed}");
            assert_eq!(model.schedule.members(tracker) as usize, expected.len());
        }
        assert_eq!(model.schedule.torrents(), model.served.len());
    }
}
