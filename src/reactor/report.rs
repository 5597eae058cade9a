//! What can be asked about the loop: a snapshot, its torrents, its peers.
//!
//! Owns gathering the figures, and the answers of the status listener. It must not know how these
//! travel.

use std::time::{Duration, UNIX_EPOCH};

use super::Reactor;
use super::activity::Active;
use super::connection::Connection;
use crate::metrics::{Peers, Phase, Snapshot, prometheus};
use crate::status::http::{self, Request, Status};
use crate::status::json::{array, object, string};
use crate::status::{self, report};
use crate::sys;
use crate::torrent::catalogue::Torrent;

/// Entries in one answer when nothing is said.
const LIMIT: usize = 100;

/// Entries in one answer at most: some hundred KiB, which the loop writes in less than a
/// millisecond.
const LIMIT_MAX: usize = 1000;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl Reactor {
    /// Everything at this moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        let shared = &self.shared;
        let (connected, named) = (self.connections.len() as u64, shared.activity.peers());
        let unchoked = shared.choker.unchoked() as u64;
        let waiting = shared.choker.waiting() as u64;
        let started = self.started_at.duration_since(UNIX_EPOCH);
        Snapshot {
            phase: self.phase(),
            started_unix_s: started.unwrap_or(Duration::ZERO).as_secs(),
            up_ms: shared.now.0,
            counters: shared.counters.clone(),
            storage: shared.storage.counters(),
            bad_pieces: shared.storage.bad_pieces().take(LIMIT).collect(),
            library: self.library,
            active_torrents: shared.activity.torrents(),
            peers: Peers {
                handshaking: connected.saturating_sub(named),
                choked: named.saturating_sub(unchoked + waiting),
                waiting,
                unchoked,
            },
            peers_max: self.max_peers as u64,
            slots: shared.choker.config().max_unchoked as u64,
            late_faults: sys::major_faults()
                .unwrap_or(0)
                .saturating_sub(self.faults_before),
            rate_bytes: shared.history.rate_bytes(),
            trackers: shared.announcing.figures(shared.now),
        }
    }

    /// What is going on.
    pub(super) fn phase(&self) -> Phase {
        match (self.stop_until, self.listeners.is_empty()) {
            (Some(_), _) => Phase::Stopping,
            (None, true) => Phase::Starting,
            (None, false) => Phase::Serving,
        }
    }

    /// The whole answer to a request.
    pub(super) fn answer(&self, request: &Request) -> Vec<u8> {
        let ok = |kind: &str, body: &str| http::answer(Status::Ok, kind, body);
        match request.path.as_str() {
            "/" => ok("text/html; charset=utf-8", status::PAGE),
            "/status.css" => ok("text/css; charset=utf-8", status::STYLE),
            "/status.js" => ok("text/javascript; charset=utf-8", status::SCRIPT),
            "/metrics" => ok(prometheus::CONTENT_TYPE, &prometheus::text(self.snapshot())),
            "/status.json" => ok(JSON, &report::json(&self.snapshot())),
            "/status.txt" => ok(TEXT, &report::text(&self.snapshot())),
            "/history.json" => ok(JSON, &report::history(self.shared.history.seconds())),
            // The loop turns, or this would not be answered.
            "/healthz" => ok(TEXT, "ok\n"),
            "/readyz" => {
                let phase = self.phase();
                let status = match phase {
                    Phase::Serving => Status::Ok,
                    Phase::Starting | Phase::Stopping => Status::ServiceUnavailable,
                };
                http::answer(status, TEXT, &format!("{}\n", phase.as_str()))
            }
            "/torrents" => match self.torrents(request) {
                Ok(body) => ok(JSON, &body),
                Err(status) => http::refusal(status),
            },
            "/peers" => match self.peers(request) {
                Ok(body) => ok(JSON, &body),
                Err(status) => http::refusal(status),
            },
            _ => http::refusal(Status::NotFound),
        }
    }

    /// The torrents that are sent the most. All of them would have to be read from disk, which the
    /// loop does not do.
    fn torrents(&self, request: &Request) -> Result<String, Status> {
        let limit = match request.query("busiest") {
            Some(limit) => limit.parse().map_err(|_| Status::BadRequest)?,
            None => limit(request)?,
        };
        let activity = &self.shared.activity;
        let busiest = activity.busiest(self.shared.now, LIMIT_MAX.min(limit));
        let torrents = busiest
            .iter()
            .map(|active| self.torrent(&active.torrent, active));
        Ok(object([("torrents", array(torrents))]))
    }

    fn torrent(&self, torrent: &Torrent, active: &Active) -> String {
        let rate = active.rate_bytes(self.shared.now);
        object([
            ("info_hash", string(&torrent.info_hash.to_string())),
            ("name", string(&torrent.name())),
            ("bytes", torrent.shape.total_length.to_string()),
            ("peers", active.peers.to_string()),
            ("payload_bytes", active.sent_bytes.to_string()),
            ("payload_bytes_per_second", rate.to_string()),
        ])
    }

    /// The connections from a place on; `next` is where the following ones begin.
    fn peers(&self, request: &Request) -> Result<String, Status> {
        let from = match request.query("from") {
            Some(from) => from.parse().map_err(|_| Status::BadRequest)?,
            None => 0,
        };
        let capacity = self.connections.capacity();
        let to = limit(request)?.saturating_add(from).min(capacity);
        let found = (from..to).filter_map(|place| self.connections.get(place));
        let peers = array(found.map(|connection| self.peer(connection)));
        let next = match to < capacity {
            true => to.to_string(),
            false => "null".to_owned(),
        };
        Ok(object([("peers", peers), ("next", next)]))
    }

    fn peer(&self, connection: &Connection) -> String {
        let peer = &connection.peer;
        let state = match (connection.place, peer.is_choked(), peer.is_interested()) {
            (None, _, _) => "handshaking",
            (_, false, _) => "unchoked",
            (_, true, true) => "waiting",
            (_, true, false) => "choked",
        };
        let torrent = connection.torrent.as_ref();
        let info_hash = torrent.map_or_else(
            || "null".to_owned(),
            |torrent| string(&torrent.info_hash.to_string()),
        );
        let seconds = self.shared.now.since(connection.accepted_at) / 1000;
        object([
            ("address", string(&connection.address.to_string())),
            ("info_hash", info_hash),
            ("state", string(state)),
            ("requests_queued", peer.queue_length().to_string()),
            ("payload_bytes", connection.sent_bytes.to_string()),
            ("connected_seconds", seconds.to_string()),
        ])
    }
}

fn limit(request: &Request) -> Result<usize, Status> {
    match request.query("limit").map(str::parse::<usize>) {
        Some(Ok(limit)) => Ok(limit.clamp(1, LIMIT_MAX)),
        Some(Err(_)) => Err(Status::BadRequest),
        None => Ok(LIMIT),
    }
}
