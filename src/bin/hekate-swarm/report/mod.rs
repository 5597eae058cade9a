//! The report at the end of a run.
//!
//! Owns the arithmetic from what was measured to what is reported, as text and as JSON. GB are 10^9
//! bytes of content; processor time is that of the whole process in user and in system mode.

mod json;
mod text;

use crate::measure::Measure;
use crate::seeder::Sample;

pub(crate) use json::json;
pub(crate) use text::text;

/// What is seen from outside at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Process {
    pub(crate) seeder: Option<Sample>,
    pub(crate) socket_bytes: u64,
    pub(crate) own_cpu_seconds: f64,
    /// Of all processors and processes.
    pub(crate) busy_seconds: f64,
}

/// All that a run has found.
pub(crate) struct Outcome {
    pub(crate) measure: Measure,
    pub(crate) window_us: u64,
    /// Before the first leecher, and at the window's begin and end.
    pub(crate) before: Process,
    pub(crate) begin: Process,
    pub(crate) end: Process,
    pub(crate) most_anonymous_bytes: u64,
    pub(crate) most_socket_bytes: u64,
    pub(crate) most_connected: usize,
    /// Bytes in the window for each leecher that was there throughout.
    pub(crate) shares: Vec<u64>,
    /// Of those that ask, at the end: connected, unchoked, served.
    pub(crate) standing: (usize, usize, usize),
    pub(crate) connected: usize,
    pub(crate) torrents: usize,
}

impl Outcome {
    fn seconds(&self) -> f64 {
        float(self.window_us) / 1e6
    }

    fn gigabytes(&self) -> f64 {
        float(self.measure.counts.window_bytes) / 1e9
    }

    /// GB in each second, of those that read as fast as they can and of all.
    fn rates(&self) -> (f64, f64) {
        let active = float(self.measure.counts.window_active_bytes) / 1e9;
        (active / self.seconds(), self.gigabytes() / self.seconds())
    }

    /// The seeder's processor time in the window: user, system.
    fn cpu(&self) -> Option<(f64, f64)> {
        let (begin, end) = (self.begin.seeder?, self.end.seeder?);
        Some((
            end.user_seconds - begin.user_seconds,
            end.system_seconds - begin.system_seconds,
        ))
    }

    fn own_cpu(&self) -> f64 {
        self.end.own_cpu_seconds - self.begin.own_cpu_seconds
    }

    /// Processors that others kept busy in the window: above a few percent the throughput and the
    /// latency are not the seeder's.
    fn others(&self) -> Option<f64> {
        let (user, system) = self.cpu()?;
        let busy = self.end.busy_seconds - self.begin.busy_seconds;
        Some((busy - user - system - self.own_cpu()).max(0.0) / self.seconds())
    }

    fn per_gigabyte(&self, seconds: f64) -> Option<f64> {
        (self.measure.counts.window_bytes > 0).then(|| seconds / self.gigabytes())
    }

    /// Memory of the seeder's own that came with the leechers, for each that was connected.
    fn bytes_per_peer(&self) -> Option<f64> {
        let before = self.before.seeder?.anonymous_bytes;
        let more = self.most_anonymous_bytes.saturating_sub(before);
        (self.most_connected > 0).then(|| float(more) / float(self.most_connected as u64))
    }
}

#[expect(clippy::cast_precision_loss, reason = "reported with a few digits")]
fn float(value: u64) -> f64 {
    value as f64
}
