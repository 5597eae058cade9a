//! The figures of trackers are bounded, and their sums are complete.

use hekate::metrics::trackers::{MAX_NAMED, TrackerState};

use crate::driver::{Driver, config};
use crate::scripted::{Http, accepted};

#[test]
fn trackers_beyond_those_shown_are_summed_up() {
    const FURTHER: usize = 3;
    const POPULAR: u32 = 5;
    let trackers: Vec<Http> = (0..MAX_NAMED + FURTHER)
        .map(|_| Http::answering(accepted()))
        .collect();
    let mut driver = Driver::new(config());
    let mut next = 0;
    for (number, tracker) in trackers.iter().enumerate() {
        // The last one has the most torrents.
        let is_last = number + 1 == trackers.len();
        let torrents = if is_last { POPULAR } else { 1 };
        driver.add(next..next + torrents, &[&tracker.url()]);
        next += torrents;
    }
    driver.accepted(next.into());
    let now = driver.now();
    let figures = driver.announcer.figures(now);
    assert_eq!(figures.named.len(), MAX_NAMED);
    assert_eq!(figures.others, FURTHER as u64);
    let popular = &figures.named[0];
    assert_eq!(
        popular.site,
        format!("http://{}", trackers.last().unwrap().address)
    );
    assert_eq!(popular.host, "127.0.0.1");
    assert_eq!(popular.state, TrackerState::Up);
    assert_eq!(popular.sums.torrents, u64::from(POPULAR));
    assert_eq!(popular.sums.accepted, u64::from(POPULAR));
    assert_eq!(popular.trouble, None);
    assert_eq!(figures.other.accepted, FURTHER as u64);
    assert_eq!(figures.other.sent, FURTHER as u64);
    assert_eq!(figures.sum().accepted, u64::from(next));
    assert!(figures.other.connections <= FURTHER as u64);

    // What has to be looked for among them is looked for once in a while.
    driver.announcer.turn(now.after(60_000));
    let figures = driver.announcer.figures(now.after(60_000));
    assert_eq!(figures.other.torrents, FURTHER as u64);
    assert_eq!(figures.sum().torrents, u64::from(next));
}
