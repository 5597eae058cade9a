//! The report at the end of a run.
//!
//! The figures that text and JSON share. GB are 10^9 bytes of content; processor time is that of the
//! whole process in user and in system mode.

mod json;
mod text;

use crate::measure::Measure;
use crate::seeder::Sample;

pub(crate) use json::json;
pub(crate) use text::text;

/// Figures of the seeder and the machine at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Process {
    pub(crate) seeder: Option<Sample>,
    pub(crate) socket_bytes: u64,
    pub(crate) own_cpu_seconds: f64,
    /// Of all processors and processes.
    pub(crate) busy_seconds: f64,
}

/// The results of a run.
pub(crate) struct Outcome {
    pub(crate) measure: Measure,
    pub(crate) window_us: u64,
    /// Before the first leecher, and at the start and end of the window.
    pub(crate) before: Process,
    pub(crate) begin: Process,
    pub(crate) end: Process,
    pub(crate) most_anonymous_bytes: u64,
    pub(crate) most_socket_bytes: u64,
    pub(crate) most_connected: usize,
    /// Bytes in the window for each leecher that was connected throughout.
    pub(crate) shares: Vec<u64>,
    /// Of the downloading leechers, at the end: connected, unchoked, served.
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

    /// GB per second, of active leechers and of all.
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

    /// Processors used by other processes in the window: above a few percent, throughput and latency
    /// are not those of the seeder.
    fn others(&self) -> Option<f64> {
        let (user, system) = self.cpu()?;
        let busy = self.end.busy_seconds - self.begin.busy_seconds;
        Some((busy - user - system - self.own_cpu()).max(0.0) / self.seconds())
    }

    fn per_gigabyte(&self, seconds: f64) -> Option<f64> {
        (self.measure.counts.window_bytes > 0).then(|| seconds / self.gigabytes())
    }

    /// Growth of the seeder's anonymous memory per connected leecher.
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
