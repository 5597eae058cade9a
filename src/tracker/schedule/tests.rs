//! The schedule under a virtual clock: trackers are the tests themselves.

use std::collections::HashMap;
use std::sync::Arc;

use super::*;
use crate::tracker::blocks::{Lists, Stretch};
use crate::tracker::pace::Pace;

const V4: Family = Family::V4;
const V6: Family = Family::V6;

const TERMS: Terms = Terms {
    interval_s: 1800,
    min_interval_s: 900,
};

fn hash(torrent: u32) -> InfoHash {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&torrent.to_be_bytes());
    InfoHash(bytes)
}

fn schedule(urls: &[&str]) -> (Schedule, u32) {
    let mut schedule = Schedule::default();
    let urls = urls.iter().map(|url| (*url).to_owned()).collect();
    let set = schedule.sets().intern(&Arc::from([urls]), &mut Vec::new());
    (schedule, set)
}

fn with_torrents(count: u32) -> Schedule {
    let (mut schedule, set) = schedule(&["udp://a:1"]);
    for torrent in 0..count {
        schedule.add(torrent, hash(torrent), set, Time(0));
    }
    schedule
}

/// Takes an entry and begins its announce by IPv4. Which torrent, and what it says.
fn announce(schedule: &mut Schedule, tracker: u32, now: Time) -> Option<(u32, u32, Event)> {
    let entry = schedule.take(tracker, now)?;
    let begun = schedule.begin(entry, V4).map(|due| due.announce);
    schedule.dispatched(tracker, entry);
    let announce = begun?;
    let bytes = announce.info_hash.0;
    let torrent = u32::from_be_bytes(*bytes.first_chunk().unwrap());
    Some((entry, torrent, announce.event))
}

fn ended(family: Family, told: Event, outcome: Outcome) -> Ended {
    Ended {
        family,
        told,
        outcome,
    }
}

fn finish(schedule: &mut Schedule, entry: u32, told: Event, outcome: Outcome, now: Time) {
    let chance = entry.wrapping_mul(0x85eb_ca6b) ^ 0x27d4_eb2f_u32.wrapping_mul(seconds(now));
    schedule.finish(0, entry, ended(V4, told, outcome), now, chance);
}

/// Announces whatever is due, and has it accepted at once. Which torrents.
fn turn(schedule: &mut Schedule, now: Time) -> Vec<(u32, Event)> {
    let mut announced = Vec::new();
    while let Some((entry, torrent, event)) = announce(schedule, 0, now) {
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
        let next = schedule.next(0, Time(last)).unwrap().0;
        let waited = (next - last) / 1000;
        assert!((1600..=1800).contains(&waited), "{waited}");
        assert_eq!(turn(&mut schedule, Time(next - 1)), []);
        assert_eq!(turn(&mut schedule, Time(next)), [(0, Event::None)]);
        last = next;
    }
}

#[test]
fn a_library_that_starts_at_once_is_soon_spread_over_the_interval() {
    let count = 18_000;
    let mut schedule = with_torrents(count);
    let mut pace = Pace::new(Some(100), Time(0));
    let mut last: HashMap<u32, u64> = HashMap::new();
    let mut in_minute = vec![0_u32; 240];
    for tick in 0..(240 * 60 * 100) {
        let now = Time(tick * 10);
        while pace.available(now) > 0 {
            let Some((entry, torrent, event)) = announce(&mut schedule, 0, now) else {
                break;
            };
            pace.take();
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
fn what_is_due_in_a_second_is_spread_over_it() {
    let mut schedule = with_torrents(100);
    while let Some((entry, _, event)) = announce(&mut schedule, 0, Time(0)) {
        let terms = Terms {
            interval_s: 60,
            min_interval_s: 60,
        };
        schedule.finish(
            0,
            entry,
            ended(V4, event, Outcome::Accepted(terms)),
            Time(0),
            0,
        );
    }
    let taken = [0, 250, 500, 999].map(|ms| turn(&mut schedule, Time(60_000 + ms)).len());
    assert_eq!(taken, [1, 25, 25, 49]);
    assert_eq!(schedule.lateness_s(0, Time(60_999)), 0);
}

#[test]
fn torrents_with_peers_go_before_new_ones_and_those_before_the_rest() {
    let (mut schedule, set) = schedule(&["udp://a:1"]);
    schedule.add(0, hash(0), set, Time(0));
    schedule.add(1, hash(1), set, Time(0));
    turn(&mut schedule, Time(0));
    let late = Time(4_000_000);
    for torrent in [2, 3, 4] {
        schedule.add(torrent, hash(torrent), set, late);
    }
    schedule.joined(3, hash(3), late);
    schedule.joined(0, hash(0), late);
    let order: Vec<u32> = turn(&mut schedule, late)
        .iter()
        .map(|(torrent, _)| *torrent)
        .collect();
    assert_eq!(order, [0, 3, 2, 4, 1]);
    // Peers alone are no reason to announce before it is due.
    schedule.joined(1, hash(1), late);
    assert_eq!(turn(&mut schedule, late.after(60_000)), []);
}

#[test]
fn lateness_is_that_of_the_torrent_that_waits_longest() {
    let mut schedule = with_torrents(2);
    assert_eq!(schedule.lateness_s(0, Time(30_000)), 30);
    turn(&mut schedule, Time(30_000));
    assert_eq!(schedule.lateness_s(0, Time(900_000)), 0);
    let late = schedule.lateness_s(0, Time(3_630_000));
    assert!((1800..=2000).contains(&late), "{late}");
}

#[test]
fn each_family_is_started_for_itself() {
    let mut schedule = with_torrents(1);
    let entry = schedule.take(0, Time(0)).unwrap();
    for family in Family::ALL {
        let due = schedule.begin(entry, family).unwrap();
        assert_eq!(due.announce.event, Event::Started);
    }
    schedule.dispatched(0, entry);
    schedule.finish(
        0,
        entry,
        ended(V6, Event::Started, Outcome::Failed),
        Time(0),
        0,
    );
    assert_eq!(schedule.take(0, Time(0)), None);
    schedule.finish(
        0,
        entry,
        ended(V4, Event::Started, Outcome::Accepted(TERMS)),
        Time(0),
        0,
    );
    // The failure of one family does not bring the next announce of the other forward.
    assert_eq!(schedule.next(0, Time(0)), Some(Time(1_800_000)));
    let entry = schedule.take(0, Time(1_800_000)).unwrap();
    let event = |family| schedule.due(entry, family).unwrap().announce.event;
    assert_eq!((event(V4), event(V6)), (Event::None, Event::Started));
}

#[test]
fn a_removed_torrent_is_stopped_where_it_was_started() {
    let (mut schedule, set) = schedule(&["udp://a:1", "udp://b:1", "udp://c:1"]);
    schedule.add(7, hash(7), set, Time(0));
    turn(&mut schedule, Time(0));
    let (busy, _, told) = announce(&mut schedule, 1, Time(0)).unwrap();
    schedule.remove(7, hash(7));
    assert_eq!(announce(&mut schedule, 2, Time(0)), None);
    let (entry, torrent, event) = announce(&mut schedule, 0, Time(0)).unwrap();
    assert_eq!((torrent, event), (7, Event::Stopped));
    // One attempt is enough.
    finish(&mut schedule, entry, event, Outcome::Failed, Time(0));
    assert_eq!(announce(&mut schedule, 0, Time(0)), None);
    // What was under way learns of it afterwards.
    schedule.finish(
        1,
        busy,
        ended(V4, told, Outcome::Accepted(TERMS)),
        Time(0),
        0,
    );
    let (entry, _, event) = announce(&mut schedule, 1, Time(0)).unwrap();
    assert_eq!((event, schedule.torrents()), (Event::Stopped, 1));
    schedule.finish(
        1,
        entry,
        ended(V4, event, Outcome::Accepted(TERMS)),
        Time(0),
        0,
    );
    assert_eq!(schedule.torrents(), 0);
    let members: Vec<u32> = (0..3).map(|tracker| schedule.members(tracker)).collect();
    assert_eq!(members, [0, 0, 0]);
}

#[test]
fn a_torrent_that_is_replaced_is_stopped_only_where_the_new_one_is_not() {
    let (mut schedule, set) = schedule(&["udp://a:1", "udp://b:1", "udp://c:1"]);
    schedule.add(7, hash(7), set, Time(0));
    for tracker in [0, 1] {
        let (entry, _, told) = announce(&mut schedule, tracker, Time(0)).unwrap();
        let ended = ended(V4, told, Outcome::Accepted(TERMS));
        schedule.finish(tracker, entry, ended, Time(0), 0);
    }
    let (busy, _, told) = announce(&mut schedule, 2, Time(0)).unwrap();
    schedule.remove(7, hash(7));
    let urls = ["udp://b:1", "udp://c:1"].map(str::to_owned).to_vec();
    let new = schedule.sets().intern(&Arc::from([urls]), &mut Vec::new());
    schedule.add(8, hash(7), new, Time(0));
    schedule.finish(
        2,
        busy,
        ended(V4, told, Outcome::Accepted(TERMS)),
        Time(0),
        0,
    );
    let mut said = Vec::new();
    for tracker in 0..3 {
        while let Some((entry, _, event)) = announce(&mut schedule, tracker, Time(0)) {
            said.push((tracker, event));
            let ended = ended(V4, event, Outcome::Accepted(TERMS));
            schedule.finish(tracker, entry, ended, Time(0), 0);
        }
    }
    let expected = [
        (0, Event::Stopped),
        (1, Event::Started),
        (2, Event::Started),
    ];
    assert_eq!((said.as_slice(), schedule.torrents()), (&expected[..], 1));
}

#[test]
fn a_stop_that_never_left_is_tried_again() {
    let mut schedule = with_torrents(1);
    turn(&mut schedule, Time(0));
    schedule.remove(0, hash(0));
    for _ in 0..2 {
        let (entry, _, event) = announce(&mut schedule, 0, Time(0)).unwrap();
        assert_eq!(event, Event::Stopped);
        finish(&mut schedule, entry, event, Outcome::Returned, Time(0));
    }
    // But not at a tracker that cannot be reached.
    let entry = schedule.take(0, Time(0)).unwrap();
    schedule.dispatched(0, entry);
    assert_eq!(schedule.torrents(), 0);
}

#[test]
fn at_the_end_everything_started_is_stopped_those_with_peers_first() {
    let mut schedule = with_torrents(5);
    for _ in 0..4 {
        let (entry, _, event) = announce(&mut schedule, 0, Time(0)).unwrap();
        finish(
            &mut schedule,
            entry,
            event,
            Outcome::Accepted(TERMS),
            Time(0),
        );
    }
    schedule.joined(2, hash(2), Time(0));
    schedule.stop([2].into_iter());
    let mut stopped = Vec::new();
    while let Some(entry) = schedule.take(0, Time(0)) {
        let begun = schedule.begin(entry, V4).map(|due| due.announce.event);
        stopped.extend(begun.map(|event| (schedule.torrent(entry).unwrap(), event)));
        schedule.dispatched(0, entry);
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
fn refusals_and_failures_come_again_when_they_may() {
    for (outcome, due_s) in [
        (Outcome::Refused(Retry::After(600)), 600..=600),
        (Outcome::Refused(Retry::Unsaid), 1800..=1800),
        (Outcome::Refused(Retry::Never), 500_000_000..=600_000_000),
        (Outcome::Failed, 300..=375),
        (Outcome::Returned, 0..=0),
    ] {
        let mut schedule = with_torrents(1);
        let (entry, _, event) = announce(&mut schedule, 0, Time(0)).unwrap();
        finish(&mut schedule, entry, event, outcome, Time(0));
        let next = schedule.next(0, Time(0)).unwrap().0 / 1000;
        assert!(due_s.contains(&next), "{outcome:?}: {next}");
        let due = schedule.due(entry, V4).unwrap();
        assert_eq!(due.announce.event, Event::Started);
    }
}

#[test]
fn what_was_uploaded_is_told() {
    let mut schedule = with_torrents(1);
    schedule.uploaded(0, 5);
    schedule.uploaded(0, 6);
    schedule.uploaded(1, 7);
    let entry = schedule.take(0, Time(0)).unwrap();
    assert_eq!(schedule.begin(entry, V4).unwrap().announce.uploaded, 11);
}

/// A second after the start: what was due at the start is late, and not spread over its second.
const LATER: Time = Time(1000);

/// A schedule with torrents of an index, none of whose info-hashes have been read.
fn with_index(count: u32) -> Schedule {
    let (mut schedule, set) = schedule(&["udp://a:1"]);
    schedule.begin_index();
    for block in 0..count.div_ceil(64) {
        let members = (count - block * 64).min(64);
        schedule.add_stretch(&stretch(block, members, set), Time(0));
    }
    schedule.end_index();
    schedule
}

/// The first numbers of a block.
fn stretch(block: u32, count: u32, set: u32) -> Stretch {
    Stretch {
        block,
        members: u64::MAX >> (64 - count),
        lists: Lists::Same(set),
    }
}

/// Reads the info-hashes that are wanted.
fn read(schedule: &mut Schedule) -> Vec<u32> {
    let unread = schedule.unread(usize::MAX);
    for torrent in &unread {
        schedule.learn(*torrent, Some(hash(*torrent)));
    }
    unread
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
    assert_eq!((schedule.torrents(), schedule.members(0)), (1000, 1000));
    assert_eq!(announce(&mut schedule, 0, LATER), None);
    assert_eq!(schedule.next(0, LATER), None, "nobody waits but for a read");
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
        let next = schedule.next(0, now).unwrap();
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
    let ahead = schedule.next(0, LATER).unwrap();
    assert_eq!(turn(&mut schedule, ahead), []);
    assert_eq!(read(&mut schedule), [0]);
    let due = schedule.next(0, ahead).unwrap();
    assert_eq!(due, ahead.after(LEAD_MS));
    assert_eq!(turn(&mut schedule, Time(due.0 - 1)), []);
    assert_eq!(turn(&mut schedule, due), [(0, Event::None)]);
}

#[test]
fn neighbours_in_an_index_are_read_together_in_every_round() {
    let terms = Terms {
        interval_s: 60,
        min_interval_s: 45,
    };
    let mut schedule = with_index(60_000);
    let mut pace = Pace::new(Some(1200), Time(0));
    let mut random = fastrand::Rng::with_seed(12);
    let mut in_second = vec![0_u32; 1200];
    let (mut reads, mut wanted) = (0, 0);
    for tick in 0..(1200 * 50) {
        let now = LATER.after(tick * 20);
        while pace.available(now) > 0
            && let Some((entry, _, event)) = announce(&mut schedule, 0, now)
        {
            pace.take();
            let ended = ended(V4, event, Outcome::Accepted(terms));
            schedule.finish(0, entry, ended, now, random.u32(..));
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
    let set = schedule.set_of(0).unwrap();
    schedule.add(20_000, hash(20_000), set, LATER);
    schedule.joined(9000, hash(9000), LATER);
    assert_eq!(
        turn(&mut schedule, LATER),
        [(9000, Event::Started), (20_000, Event::Started)]
    );
}

#[test]
fn what_cannot_be_read_is_tried_again_and_holds_nobody_up() {
    let mut schedule = with_index(3);
    turn(&mut schedule, LATER);
    assert_eq!(schedule.unread(usize::MAX), [0, 1, 2]);
    schedule.learn(0, Some(hash(0)));
    schedule.learn(1, None);
    schedule.learn(2, Some(hash(2)));
    assert_eq!(
        turn(&mut schedule, LATER),
        [(0, Event::Started), (2, Event::Started)]
    );
    assert_eq!(schedule.next(0, LATER), Some(Time(301_000 - LEAD_MS)));
    assert_eq!(sweep(&mut schedule, Time(302_000)), [(1, Event::Started)]);
}

#[test]
fn a_torrent_of_an_index_is_stopped_when_it_is_removed_whatever_it_is_at() {
    let mut schedule = with_index(200);
    sweep(&mut schedule, LATER);
    let first = schedule.next(0, LATER).unwrap();
    turn(&mut schedule, first);
    let staged = schedule.unread(usize::MAX);
    let staged = staged.first().copied().unwrap();
    let waiting = (0..200).find(|torrent| *torrent != staged).unwrap();
    for torrent in [staged, waiting] {
        schedule.remove(torrent, hash(torrent));
    }
    // The answer to what was asked before changes nothing.
    assert_eq!(schedule.learn(staged, None), None);
    let mut stopped = Vec::new();
    while let Some((entry, torrent, event)) = announce(&mut schedule, 0, first.after(LEAD_MS)) {
        if event == Event::Stopped {
            stopped.push(torrent);
        }
        let now = first.after(LEAD_MS);
        finish(&mut schedule, entry, event, Outcome::Accepted(TERMS), now);
        read(&mut schedule);
    }
    stopped.sort_unstable();
    let mut expected = [staged, waiting];
    expected.sort_unstable();
    assert_eq!(stopped, expected);
    assert_eq!((schedule.torrents(), schedule.members(0)), (198, 198));
}

#[test]
fn what_is_removed_before_the_index_has_come_is_not_announced() {
    let (mut schedule, set) = schedule(&["udp://a:1"]);
    schedule.begin_index();
    schedule.remove(5, hash(5));
    schedule.uploaded(6, 11);
    schedule.add_stretch(&stretch(0, 8, set), Time(0));
    schedule.end_index();
    schedule.remove(5, hash(5));
    turn(&mut schedule, LATER);
    assert_eq!(read(&mut schedule), [0, 1, 2, 3, 4, 6, 7]);
    let mut uploaded = Vec::new();
    while let Some(entry) = schedule.take(0, LATER) {
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
    schedule.joined(250, hash(250), LATER);
    // Some are being read.
    let next = schedule.next(0, LATER).unwrap();
    turn(&mut schedule, next);
    schedule.stop([250].into_iter());
    schedule.left(250);
    let stopped = sweep(&mut schedule, next);
    assert_eq!(stopped[0], (250, Event::Stopped));
    assert_eq!(stopped.len(), 300);
    assert!(schedule.is_idle(0));
}

/// Trackers are told of torrents, in any order and mixture of what can happen to these, and in the
/// end each knows just those that are served.
#[test]
fn whatever_happens_trackers_know_what_is_served() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut schedule = Schedule::default();
        let lists = [
            &["udp://a:1"][..],
            &["udp://a:1", "udp://b:1"],
            &["udp://b:1", "udp://c:1"],
        ];
        let sets = lists.map(|urls| {
            let urls = urls.iter().map(|url| (*url).to_owned()).collect();
            let set = schedule.sets().intern(&Arc::from([urls]), &mut Vec::new());
            schedule.sets().hold(set);
            set
        });
        let trackers = |set: u32| match set {
            0 => &[0_u32][..],
            1 => &[0, 1],
            _ => &[1, 2],
        };
        assert_eq!(sets, [0, 1, 2]);
        let mut served: HashMap<u32, u32> = HashMap::new();
        let mut known: [HashMap<u32, u32>; 3] = Default::default();
        let mut in_flight: Vec<(u32, u32, u32, Event)> = Vec::new();
        let (mut next_number, mut next_block, mut now) = (1000, 0, Time(0));
        schedule.begin_index();
        for step in 0..4000 {
            let settles = step > 3000;
            match random.u8(..10) {
                0 if !settles && next_block < 10 => {
                    let members = random.u64(1..);
                    let each = (0..members.count_ones()).map(|_| random.u32(..3)).collect();
                    let lists = match random.bool() {
                        true => Lists::Same(random.u32(..3)),
                        false => Lists::Each(each),
                    };
                    let stretch = Stretch {
                        block: next_block,
                        members,
                        lists,
                    };
                    served.extend(stretch.members());
                    schedule.add_stretch(&stretch, now);
                    next_block += 1;
                }
                1 if !settles => {
                    let set = random.u32(..3);
                    schedule.add(next_number, hash(next_number), set, now);
                    served.insert(next_number, set);
                    next_number += 1;
                }
                2 if !settles && !served.is_empty() => {
                    let mut numbers: Vec<u32> = served.keys().copied().collect();
                    numbers.sort_unstable();
                    let torrent = numbers[random.usize(..numbers.len())];
                    match random.u8(..3) {
                        0 => {
                            schedule.remove(torrent, hash(torrent));
                            served.remove(&torrent);
                        }
                        1 => schedule.joined(torrent, hash(torrent), now),
                        _ => schedule.left(torrent),
                    }
                }
                3 => now = now.after(random.u64(..120_000)),
                4 => {
                    for torrent in schedule.unread(random.usize(..40)) {
                        let read = settles || random.u8(..8) > 0;
                        schedule.learn(torrent, read.then(|| hash(torrent)));
                    }
                }
                5 | 6 => {
                    let tracker = random.u32(..3);
                    for _ in 0..20 {
                        let Some((entry, torrent, told)) = announce(&mut schedule, tracker, now)
                        else {
                            break;
                        };
                        in_flight.push((tracker, entry, torrent, told));
                    }
                }
                _ if !in_flight.is_empty() => {
                    let place = random.usize(..in_flight.len());
                    let (tracker, entry, torrent, told) = in_flight.swap_remove(place);
                    let outcome = match random.u8(..8) {
                        0 if !settles => Outcome::Failed,
                        1 => Outcome::Returned,
                        _ => Outcome::Accepted(TERMS),
                    };
                    let there = &mut known[tracker as usize];
                    match (told, outcome) {
                        (Event::Stopped, Outcome::Accepted(_) | Outcome::Failed) => {
                            there.remove(&torrent);
                        }
                        (Event::Started, Outcome::Accepted(_)) => {
                            assert_eq!(there.insert(torrent, 1), None, "started twice");
                        }
                        _ => {}
                    }
                    let ended = ended(V4, told, outcome);
                    schedule.finish(tracker, entry, ended, now, random.u32(..));
                }
                _ => {}
            }
        }
        // All is told that is still to be told.
        for _ in 0..20_000 {
            now = now.after(20_000);
            read(&mut schedule);
            for (tracker, entry, torrent, told) in in_flight.drain(..) {
                match told {
                    Event::Stopped => drop(known[tracker as usize].remove(&torrent)),
                    Event::Started => drop(known[tracker as usize].insert(torrent, 1)),
                    Event::None => {}
                }
                let ended = ended(V4, told, Outcome::Accepted(TERMS));
                schedule.finish(tracker, entry, ended, now, random.u32(..));
            }
            for tracker in 0..3 {
                while let Some((entry, torrent, told)) = announce(&mut schedule, tracker, now) {
                    in_flight.push((tracker, entry, torrent, told));
                }
            }
            let all_known = served.iter().all(|(torrent, set)| {
                let there = trackers(*set).iter();
                there
                    .clone()
                    .all(|tracker| known[*tracker as usize].contains_key(torrent))
            });
            let count: usize = served.values().map(|set| trackers(*set).len()).sum();
            if all_known && known.iter().map(HashMap::len).sum::<usize>() == count {
                break;
            }
        }
        for (tracker, there) in (0..).zip(&known) {
            let mut there: Vec<u32> = there.keys().copied().collect();
            let expected = served
                .iter()
                .filter(|(_, set)| trackers(**set).contains(&tracker));
            let mut expected: Vec<u32> = expected.map(|(torrent, _)| *torrent).collect();
            there.sort_unstable();
            expected.sort_unstable();
            assert_eq!(there, expected, "tracker {tracker}, seed {seed}");
            assert_eq!(schedule.members(tracker) as usize, expected.len());
        }
        assert_eq!(schedule.torrents(), served.len());
    }
}
