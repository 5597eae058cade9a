//! The schedule under a virtual clock: trackers are the tests themselves.

mod indexed;

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::rate::{Burst, RateLimiter};

const V4: Family = Family::V4;
const V6: Family = Family::V6;

/// What a tracker may be sent at once.
const BURST: Burst = Burst {
    ms: 10,
    min_units: 1,
};

const TERMS: Terms = Terms {
    interval_s: 1800,
    min_interval_s: 900,
};

fn hash(torrent: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&torrent.to_be_bytes());
    InfoHash(bytes)
}

fn schedule(urls: &[&str]) -> (Schedule, ListId) {
    let mut schedule = Schedule::default();
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    let list = schedule.intern(&Arc::from([urls]), &Access::default(), &mut Vec::new());
    (schedule, list)
}

fn with_torrents(count: u32) -> Schedule {
    let (mut schedule, list) = schedule(&["udp://a:1"]);
    for torrent in 0..count {
        schedule.add(TorrentId(torrent), hash(torrent), list, Time(0));
    }
    schedule
}

/// Takes an entry and begins its announce by IPv4. Which torrent, and what it says.
fn announce(
    schedule: &mut Schedule,
    tracker: TrackerId,
    now: Time,
) -> Option<(EntryId, u32, Event)> {
    let entry = schedule.take(tracker, now)?;
    let begun = schedule.begin(entry, V4).map(|due| due.announce);
    schedule.dispatched(tracker, entry);
    let announce = begun?;
    let bytes = announce.info_hash.0;
    let torrent = u32::from_be_bytes(*bytes.first_chunk().unwrap());
    Some((entry, torrent, announce.event))
}

fn ended(family: Family, event: Event, outcome: Outcome) -> Ended {
    Ended {
        family,
        event,
        outcome,
    }
}

fn finish(schedule: &mut Schedule, entry: EntryId, event: Event, outcome: Outcome, now: Time) {
    let chance = entry.0.wrapping_mul(0x85eb_ca6b) ^ 0x27d4_eb2f_u32.wrapping_mul(seconds(now));
    schedule.finish(TrackerId(0), entry, ended(V4, event, outcome), now, chance);
}

/// Announces whatever is due, and has it accepted at once. Which torrents.
fn turn(schedule: &mut Schedule, now: Time) -> Vec<(u32, Event)> {
    let mut announced = Vec::new();
    while let Some((entry, torrent, event)) = announce(schedule, TrackerId(0), now) {
        finish(schedule, entry, event, Outcome::Accepted(TERMS), now);
        announced.push((torrent, event));
    }
    announced
}

#[test]
fn a_torrent_starts_once_and_is_announced_at_the_interval() {
    let mut schedule = with_torrents(1);
    assert_eq!(turn(&mut schedule, Time(5)), [(0, Event::Started)]);
    let mut last = 0;
    for _ in 0..10 {
        let next = schedule.poll_at(TrackerId(0), Time(last)).unwrap().0;
        let waited = (next - last) / 1000;
        assert!((1600..=1800).contains(&waited), "{waited}");
        assert_eq!(turn(&mut schedule, Time(next - 1)), []);
        assert_eq!(turn(&mut schedule, Time(next)), [(0, Event::None)]);
        last = next;
    }
}

#[test]
fn another_seed_is_one_beside_us_who_count_once_for_each_family() {
    let mut schedule = with_torrents(2);
    schedule.joined(TorrentId(0), hash(0), Time(0));
    for torrent in [0, 1] {
        let entry = schedule.take(TrackerId(0), Time(5)).unwrap();
        for family in [V4, V6] {
            schedule.begin(entry, family).unwrap();
        }
        schedule.dispatched(TrackerId(0), entry);
        for (family, seeds, has_other) in [(V4, 2, false), (V6, 3, true), (V6, 2, false)] {
            let with_peers = schedule.count_seeds(entry, seeds);
            assert_eq!(with_peers.is_some(), has_other && torrent == 0);
            assert_eq!(schedule.has_other_seed(TorrentId(torrent)), has_other);
            if seeds == 2 {
                let accepted = ended(family, Event::Started, Outcome::Accepted(TERMS));
                schedule.finish(TrackerId(0), entry, accepted, Time(5), 0);
            }
        }
    }
    assert!(!schedule.has_other_seed(TorrentId(2)), "it is unknown");
}

#[test]
fn a_library_that_starts_at_once_is_soon_spread_over_the_interval() {
    let count = 18_000;
    let mut schedule = with_torrents(count);
    let mut pace = RateLimiter::new(Some(100), BURST, Time(0));
    let mut last: HashMap<u32, u64> = HashMap::new();
    let mut in_minute = vec![0_u32; 240];
    for tick in 0..(240 * 60 * 100) {
        let now = Time(tick * 10);
        while pace.available(now) > 0 {
            let Some((entry, torrent, event)) = announce(&mut schedule, TrackerId(0), now) else {
                break;
            };
            pace.take(1);
            finish(&mut schedule, entry, event, Outcome::Accepted(TERMS), now);
            if let Some(before) = last.insert(torrent, now.0) {
                let waited = (now.0 - before) / 1000;
                assert!((900..=1801).contains(&waited), "{waited} s at {now:?}");
            }
            in_minute[usize::try_from(now.0 / 60_000).unwrap()] += 1;
        }
    }
    assert_eq!(last.len(), count as usize);
    // An even sweep is 600 a minute; the cap is 6000, and the first three minutes use it.
    assert!(
        in_minute[..3].iter().all(|count| *count > 5900),
        "{in_minute:?}"
    );
    let late = &in_minute[150..];
    assert!(
        late.iter().all(|count| (300..=850).contains(count)),
        "{late:?}"
    );
}

#[test]
fn announces_of_a_second_are_spread_over_it() {
    let mut schedule = with_torrents(100);
    while let Some((entry, _, event)) = announce(&mut schedule, TrackerId(0), Time(0)) {
        let terms = Terms {
            interval_s: 60,
            min_interval_s: 60,
        };
        schedule.finish(
            TrackerId(0),
            entry,
            ended(V4, event, Outcome::Accepted(terms)),
            Time(0),
            0,
        );
    }
    let taken = [0, 250, 500, 999].map(|ms| turn(&mut schedule, Time(60_000 + ms)).len());
    assert_eq!(taken, [1, 25, 25, 49]);
    assert_eq!(schedule.lateness_s(TrackerId(0), Time(60_999)), 0);
}

#[test]
fn torrents_with_peers_go_before_new_ones_and_those_before_the_rest() {
    let (mut schedule, list) = schedule(&["udp://a:1"]);
    schedule.add(TorrentId(0), hash(0), list, Time(0));
    schedule.add(TorrentId(1), hash(1), list, Time(0));
    turn(&mut schedule, Time(0));
    let late = Time(4_000_000);
    for torrent in [2, 3, 4] {
        schedule.add(TorrentId(torrent), hash(torrent), list, late);
    }
    schedule.joined(TorrentId(3), hash(3), late);
    schedule.joined(TorrentId(0), hash(0), late);
    let order: Vec<u32> = turn(&mut schedule, late)
        .iter()
        .map(|(torrent, _)| *torrent)
        .collect();
    assert_eq!(order, [0, 3, 2, 4, 1]);
    // Peers alone are no reason to announce before it is due.
    schedule.joined(TorrentId(1), hash(1), late);
    assert_eq!(turn(&mut schedule, late.after(60_000)), []);
}

#[test]
fn lateness_is_that_of_the_torrent_that_waits_longest() {
    let mut schedule = with_torrents(2);
    assert_eq!(schedule.lateness_s(TrackerId(0), Time(30_000)), 30);
    turn(&mut schedule, Time(30_000));
    assert_eq!(schedule.lateness_s(TrackerId(0), Time(900_000)), 0);
    let late = schedule.lateness_s(TrackerId(0), Time(3_630_000));
    assert!((1800..=2000).contains(&late), "{late}");
}

#[test]
fn each_family_is_started_for_itself() {
    let mut schedule = with_torrents(1);
    let entry = schedule.take(TrackerId(0), Time(0)).unwrap();
    for family in Family::ALL {
        let due = schedule.begin(entry, family).unwrap();
        assert_eq!(due.announce.event, Event::Started);
    }
    schedule.dispatched(TrackerId(0), entry);
    schedule.finish(
        TrackerId(0),
        entry,
        ended(V6, Event::Started, Outcome::Failed),
        Time(0),
        0,
    );
    assert_eq!(schedule.take(TrackerId(0), Time(0)), None);
    schedule.finish(
        TrackerId(0),
        entry,
        ended(V4, Event::Started, Outcome::Accepted(TERMS)),
        Time(0),
        0,
    );
    // The failure of one family does not bring the next announce of the other forward.
    assert_eq!(
        schedule.poll_at(TrackerId(0), Time(0)),
        Some(Time(1_800_000))
    );
    let entry = schedule.take(TrackerId(0), Time(1_800_000)).unwrap();
    let event = |family| schedule.due(entry, family).unwrap().announce.event;
    assert_eq!((event(V4), event(V6)), (Event::None, Event::Started));
}

#[test]
fn a_removed_torrent_is_stopped_where_it_was_started() {
    let (mut schedule, list) = schedule(&["udp://a:1", "udp://b:1", "udp://c:1"]);
    schedule.add(TorrentId(7), hash(7), list, Time(0));
    turn(&mut schedule, Time(0));
    let (busy, _, busy_event) = announce(&mut schedule, TrackerId(1), Time(0)).unwrap();
    schedule.remove(TorrentId(7), hash(7));
    assert_eq!(announce(&mut schedule, TrackerId(2), Time(0)), None);
    let (entry, torrent, event) = announce(&mut schedule, TrackerId(0), Time(0)).unwrap();
    assert_eq!((torrent, event), (7, Event::Stopped));
    // One attempt is enough.
    finish(&mut schedule, entry, event, Outcome::Failed, Time(0));
    assert_eq!(announce(&mut schedule, TrackerId(0), Time(0)), None);
    // The announce that was under way is followed by `stopped`.
    schedule.finish(
        TrackerId(1),
        busy,
        ended(V4, busy_event, Outcome::Accepted(TERMS)),
        Time(0),
        0,
    );
    let (entry, _, event) = announce(&mut schedule, TrackerId(1), Time(0)).unwrap();
    assert_eq!((event, schedule.torrents()), (Event::Stopped, 1));
    schedule.finish(
        TrackerId(1),
        entry,
        ended(V4, event, Outcome::Accepted(TERMS)),
        Time(0),
        0,
    );
    assert_eq!(schedule.torrents(), 0);
    let members: Vec<u32> = (0..3)
        .map(|tracker| schedule.members(TrackerId(tracker)))
        .collect();
    assert_eq!(members, [0, 0, 0]);
}

#[test]
fn a_torrent_that_is_replaced_is_stopped_only_where_the_new_one_is_not() {
    let (mut schedule, list) = schedule(&["udp://a:1", "udp://b:1", "udp://c:1"]);
    schedule.add(TorrentId(7), hash(7), list, Time(0));
    for tracker in [0, 1].map(TrackerId) {
        let (entry, _, event) = announce(&mut schedule, tracker, Time(0)).unwrap();
        let ended = ended(V4, event, Outcome::Accepted(TERMS));
        schedule.finish(tracker, entry, ended, Time(0), 0);
    }
    let (busy, _, event) = announce(&mut schedule, TrackerId(2), Time(0)).unwrap();
    schedule.remove(TorrentId(7), hash(7));
    let urls = ["udp://b:1", "udp://c:1"].map(str::to_owned).to_vec();
    let new = schedule.intern(&Arc::from([urls]), &Access::default(), &mut Vec::new());
    schedule.add(TorrentId(8), hash(7), new, Time(0));
    schedule.finish(
        TrackerId(2),
        busy,
        ended(V4, event, Outcome::Accepted(TERMS)),
        Time(0),
        0,
    );
    let mut said = Vec::new();
    for tracker in (0..3).map(TrackerId) {
        while let Some((entry, _, event)) = announce(&mut schedule, tracker, Time(0)) {
            said.push((tracker, event));
            let ended = ended(V4, event, Outcome::Accepted(TERMS));
            schedule.finish(tracker, entry, ended, Time(0), 0);
        }
    }
    let expected = [
        (TrackerId(0), Event::Stopped),
        (TrackerId(1), Event::Started),
        (TrackerId(2), Event::Started),
    ];
    assert_eq!((said.as_slice(), schedule.torrents()), (&expected[..], 1));
}

#[test]
fn a_torrent_that_replaces_the_last_one_with_its_list_keeps_the_list() {
    let mut schedule = with_torrents(1);
    assert_eq!(turn(&mut schedule, Time(0)), [(0, Event::Started)]);
    schedule.remove(TorrentId(0), hash(0));
    let (_, list) = self::schedule(&["udp://a:1"]);
    schedule.add(TorrentId(1), hash(0), list, Time(0));
    assert_eq!(schedule.torrents(), 1);
    assert_eq!(turn(&mut schedule, Time(0)), [(0, Event::Started)]);
}

#[test]
fn a_stop_that_was_not_sent_is_sent_again() {
    let mut schedule = with_torrents(1);
    turn(&mut schedule, Time(0));
    schedule.remove(TorrentId(0), hash(0));
    for _ in 0..2 {
        let (entry, _, event) = announce(&mut schedule, TrackerId(0), Time(0)).unwrap();
        assert_eq!(event, Event::Stopped);
        finish(&mut schedule, entry, event, Outcome::Returned, Time(0));
    }
    // But not at a tracker that cannot be reached.
    let entry = schedule.take(TrackerId(0), Time(0)).unwrap();
    schedule.dispatched(TrackerId(0), entry);
    assert_eq!(schedule.torrents(), 0);
}

#[test]
fn at_the_end_everything_started_is_stopped_those_with_peers_first() {
    let mut schedule = with_torrents(5);
    for _ in 0..4 {
        let (entry, _, event) = announce(&mut schedule, TrackerId(0), Time(0)).unwrap();
        finish(
            &mut schedule,
            entry,
            event,
            Outcome::Accepted(TERMS),
            Time(0),
        );
    }
    schedule.joined(TorrentId(2), hash(2), Time(0));
    schedule.stop();
    let mut stopped = Vec::new();
    while let Some(entry) = schedule.take(TrackerId(0), Time(0)) {
        let begun = schedule.begin(entry, V4).map(|due| due.announce.event);
        stopped.extend(begun.map(|event| (schedule.torrent(entry).0.0, event)));
        schedule.dispatched(TrackerId(0), entry);
        if begun.is_some() {
            finish(
                &mut schedule,
                entry,
                Event::Stopped,
                Outcome::Accepted(TERMS),
                Time(0),
            );
        }
    }
    assert_eq!(stopped.remove(0), (2, Event::Stopped));
    stopped.sort_by_key(|(torrent, _)| *torrent);
    assert_eq!(stopped, [0, 1, 3].map(|torrent| (torrent, Event::Stopped)));
    assert_eq!(schedule.torrents(), 0);
}

#[test]
fn refused_and_failed_announces_are_retried_after_their_time() {
    for (outcome, due_s) in [
        (Outcome::Refused(Retry::After(600)), 600..=600),
        (Outcome::Refused(Retry::Unsaid), 1800..=1800),
        (Outcome::Refused(Retry::Never), 250_000_000..=300_000_000),
        (Outcome::Failed, 300..=375),
        (Outcome::Returned, 0..=0),
    ] {
        let mut schedule = with_torrents(1);
        let (entry, _, event) = announce(&mut schedule, TrackerId(0), Time(0)).unwrap();
        finish(&mut schedule, entry, event, outcome, Time(0));
        let next = schedule.poll_at(TrackerId(0), Time(0)).unwrap().0 / 1000;
        assert!(due_s.contains(&next), "{outcome:?}: {next}");
        let due = schedule.due(entry, V4).unwrap();
        assert_eq!(due.announce.event, Event::Started);
    }
}

#[test]
fn uploaded_bytes_are_announced() {
    let mut schedule = with_torrents(1);
    schedule.uploaded(TorrentId(0), 5);
    schedule.uploaded(TorrentId(0), 6);
    schedule.uploaded(TorrentId(1), 7);
    let entry = schedule.take(TrackerId(0), Time(0)).unwrap();
    assert_eq!(schedule.begin(entry, V4).unwrap().announce.uploaded, 11);
}
