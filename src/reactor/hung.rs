//! Disks that hang: which they are, since when, and the lines of the log about them.

use std::collections::{BTreeMap, BTreeSet};

use super::shared::Process;
use crate::disks::{Disk, HUNG_AFTER};
use crate::timers::Time;

/// How often disks are examined while anything waits for one.
const EXAMINE_MS: u64 = 1_000;

/// The disks that hang.
#[derive(Default)]
pub(super) struct HungDisks {
    since: BTreeMap<Disk, Time>,
    examine_at: Option<Time>,
}

impl HungDisks {
    /// Finds out which disks hang, if it is time. Waits for none of them.
    pub(super) fn run_due(&mut self, process: &Process, now: Time) {
        if self.examine_at.is_none_or(|at| at > now) {
            return;
        }
        self.examine_at = None;
        let mut hung = process.storage.stuck_disks(HUNG_AFTER);
        hung.append(&mut process.loads.stuck_disks(HUNG_AFTER));
        let visited = process.disks.visited().into_iter();
        hung.extend(visited.filter_map(|(disk, waited)| (waited >= HUNG_AFTER).then_some(disk)));
        self.set(&hung, now);
    }

    /// When the disks are to be examined; `None` while nothing waits for any.
    pub(super) fn poll_at(&mut self, process: &Process, now: Time) -> Option<Time> {
        let is_wanted = || {
            !self.since.is_empty()
                || process.storage.waits_for_disks()
                || process.loads.waits_for_disks()
                || !process.disks.visited().is_empty()
        };
        if self.examine_at.is_none() && is_wanted() {
            self.examine_at = Some(now.after(EXAMINE_MS));
        }
        self.examine_at
    }

    fn set(&mut self, hung: &BTreeSet<Disk>, now: Time) {
        self.since.retain(|disk, since| {
            let stays = hung.contains(disk);
            if !stays {
                let seconds = now.since(*since) / 1000;
                log::warn!("the disk at {disk} answers again, after {seconds} s");
            }
            stays
        });
        for disk in hung {
            self.since.entry(disk.clone()).or_insert_with(|| {
                log::error!(
                    "the disk at {disk} hangs: what is on it is not served until it answers"
                );
                let already_ms = u64::try_from(HUNG_AFTER.as_millis()).expect("it is short");
                Time(now.0.saturating_sub(already_ms))
            });
        }
    }

    /// Those that hang, each with seconds since then.
    pub(super) fn seconds(&self, now: Time) -> Vec<(String, u64)> {
        let since = self.since.iter();
        since
            .map(|(disk, since)| (disk.to_string(), now.since(*since) / 1000))
            .collect()
    }
}
