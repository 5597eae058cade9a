//! The answers of the status listener: a snapshot of the loop, its torrents, its peers.

use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use mio::Waker;
use serde_json::{Value, json};

use super::Reactor;
use super::activity::Active;
use super::connection::Connection;
use super::tokens::Source;
use crate::library::catalogue::listing::{Listing, Page};
use crate::library::index::IndexError;
use crate::metrics::{Peers, Phase, Snapshot, prometheus};
use crate::status::http::{self, Request, Status};
use crate::status::server::ClientId;
use crate::status::{self, report};
use crate::sys;
use crate::torrent::catalogue::Torrent;
use crate::wire::message::InfoHash;
use crate::workers::{self, Pending};

/// Entries in one answer when nothing is said.
const LIMIT: usize = 100;

/// Entries in one answer at most: some hundred KiB, which the loop writes in less than a
/// millisecond.
const LIMIT_MAX: usize = 1000;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Pages of torrents that are read at the same time; each is a thread that may wait for a disk.
const LISTINGS_MAX: usize = 4;

/// A page of torrents that a thread reads for a client of the status.
pub(super) struct PendingListing {
    client: ClientId,
    page: Pending<Result<Page, IndexError>>,
}

impl PendingListing {
    fn start(client: ClientId, listing: Listing, waker: &Arc<Waker>) -> io::Result<Self> {
        let page = workers::once("listing", waker, move || listing.read())?;
        Ok(Self { client, page })
    }
}

impl Reactor {
    /// Accepts the status listener's clients and answers their requests.
    pub(super) fn serve_status(&mut self) {
        let now = self.shared.now;
        let Some(server) = &mut self.status else {
            return;
        };
        let token = |slot| Source::StatusClient(slot).token();
        server.accept(self.poll.registry(), token, now);
        self.finish_listings();
        while let Some((client, request)) = self.status.as_mut().and_then(|server| server.poll(now))
        {
            if let Some(answer) = self.answer(client, &request) {
                self.respond(client, answer);
            }
        }
    }

    fn respond(&mut self, client: ClientId, answer: Vec<u8>) {
        let server = self.status.as_mut();
        server
            .expect("a request came from the server")
            .respond(client, answer);
    }

    /// Answers the clients whose page has been read.
    fn finish_listings(&mut self) {
        let mut at = 0;
        while let Some(pending) = self.listings.get(at) {
            let Some(read) = pending.page.poll() else {
                at += 1;
                continue;
            };
            let read = read.map(|read| read.map_err(|error| error.to_string()));
            let answer = match read.unwrap_or_else(|panicked| Err(panicked.to_string())) {
                Ok(page) => self.listed(&page),
                Err(error) => {
                    log::error!("cannot list torrents: {error}");
                    http::refusal(Status::InternalServerError)
                }
            };
            let client = self.listings.swap_remove(at).client;
            self.respond(client, answer);
        }
    }

    /// Everything at this moment.
    pub(super) fn snapshot(&self) -> Snapshot {
        let shared = &self.shared;
        let mut storage = shared.storage.counters();
        shared.loads.add_to(&mut storage);
        let (connected, named) = (self.connections.len() as u64, shared.activity.peers());
        let unchoked = shared.choker.unchoked() as u64;
        let waiting = shared.choker.waiting() as u64;
        let started = self.started_at.duration_since(UNIX_EPOCH);
        Snapshot {
            phase: self.phase(),
            indexed_files: self.indexed_files(),
            started_unix_s: started.unwrap_or(Duration::ZERO).as_secs(),
            up_ms: shared.now.0,
            counters: shared.counters.clone(),
            storage,
            bad_pieces: shared.storage.bad_pieces().take(LIMIT).collect(),
            library: self.library,
            active_torrents: shared.activity.torrents(),
            peers: Peers {
                handshaking: connected.saturating_sub(named),
                choked: named.saturating_sub(unchoked + waiting),
                waiting,
                unchoked,
            },
            peers_max: self.connections.max as u64,
            slots: shared.choker.config().max_unchoked as u64,
            late_faults: sys::major_faults()
                .unwrap_or(0)
                .saturating_sub(self.faults_before),
            rate_bytes: shared.history.rate_bytes(),
            minutes_bytes: shared.history.minutes(),
            peak_bytes: shared.history.peak_bytes(),
            trackers: shared.announcing.figures(shared.now),
        }
    }

    /// What is going on.
    pub(super) fn phase(&self) -> Phase {
        match (self.stop_until, self.listeners.is_empty()) {
            (Some(_), _) => Phase::Stopping,
            (None, true) if self.indexed_files().is_some() => Phase::Indexing,
            (None, true) => Phase::Starting,
            (None, false) => Phase::Serving,
        }
    }

    /// How far the first index is.
    pub(super) fn indexed_files(&self) -> Option<u64> {
        let live = self.live.as_ref().filter(|_| self.listeners.is_empty());
        live?.indexed_files()
    }

    /// The answer to a request; `None` while a page of torrents is being read for it.
    fn answer(&mut self, client: ClientId, request: &Request) -> Option<Vec<u8>> {
        if request.path != "/torrents" || request.query("busiest").is_some() {
            return Some(self.whole_answer(request));
        }
        match self.list(request) {
            Ok(_) if self.listings.len() >= LISTINGS_MAX => {
                Some(http::refusal(Status::ServiceUnavailable))
            }
            Ok(listing) => match PendingListing::start(client, listing, &self.waker) {
                Ok(pending) => {
                    self.listings.push(pending);
                    None
                }
                Err(error) => {
                    log::error!("cannot list torrents: {error}");
                    Some(http::refusal(Status::ServiceUnavailable))
                }
            },
            Err(status) => Some(http::refusal(status)),
        }
    }

    fn whole_answer(&self, request: &Request) -> Vec<u8> {
        let ok = |kind: &str, body: &str| http::answer(Status::Ok, kind, body);
        match request.path.as_str() {
            "/" => ok("text/html; charset=utf-8", status::PAGE),
            "/status.css" => ok("text/css; charset=utf-8", status::STYLE),
            "/status.js" => ok("text/javascript; charset=utf-8", status::SCRIPT),
            "/metrics" => ok(
                prometheus::CONTENT_TYPE,
                &prometheus::text(&self.snapshot()),
            ),
            "/status.json" => ok(JSON, &report::json(&self.snapshot())),
            "/status.txt" => ok(TEXT, &report::text(&self.snapshot())),
            "/history.json" => ok(JSON, &report::history(self.shared.history.seconds())),
            // The loop turns, or this would not be answered.
            "/healthz" => ok(TEXT, "ok\n"),
            "/readyz" => {
                let phase = self.phase();
                let status = match phase {
                    Phase::Serving => Status::Ok,
                    Phase::Starting | Phase::Indexing | Phase::Stopping => {
                        Status::ServiceUnavailable
                    }
                };
                http::answer(status, TEXT, &format!("{}\n", phase.as_str()))
            }
            "/torrents" => match self.busiest(request) {
                Ok(busiest) => ok(JSON, &self.busiest_json(&busiest)),
                Err(status) => http::refusal(status),
            },
            "/torrents.txt" => match self.busiest(request) {
                Ok(busiest) => ok(TEXT, &self.busiest_text(&busiest)),
                Err(status) => http::refusal(status),
            },
            "/peers" => match self.peers(request) {
                Ok(body) => ok(JSON, &body),
                Err(status) => http::refusal(status),
            },
            _ => http::refusal(Status::NotFound),
        }
    }

    /// The page of torrents that is asked for, which has to be read from disk.
    fn list(&self, request: &Request) -> Result<Listing, Status> {
        let after = match request.query("after") {
            Some(hex) => Some(InfoHash::from_hex(hex).ok_or(Status::BadRequest)?),
            None => None,
        };
        let listing = self.shared.library.list(after, limit(request)?);
        listing.ok_or(Status::ServiceUnavailable)
    }

    /// The whole answer with a page that was read.
    fn listed(&self, page: &Page) -> Vec<u8> {
        let activity = &self.shared.activity;
        let torrents = page.torrents.iter().map(|listed| {
            let active = activity.find(listed.id);
            let rate = active.map_or(0, |active| active.rate_bytes(self.shared.now));
            json!({
                "info_hash": listed.info_hash.to_string(),
                "metainfo": listed.metainfo.to_string_lossy(),
                "peers": active.map_or(0, |active| active.peers),
                "payload_bytes": active.map_or(0, |active| active.sent_bytes),
                "payload_bytes_per_second": rate,
            })
        });
        let torrents: Vec<Value> = torrents.collect();
        let next = page.next.map(|next| next.to_string());
        let body = json!({ "torrents": torrents, "next": next });
        http::answer(Status::Ok, JSON, &body.to_string())
    }

    /// The torrents that are sent the most.
    fn busiest(&self, request: &Request) -> Result<Vec<&Active>, Status> {
        let limit = request.query("busiest").unwrap_or_default().parse();
        let limit: usize = limit.map_err(|_| Status::BadRequest)?;
        let activity = &self.shared.activity;
        Ok(activity.busiest(self.shared.now, LIMIT_MAX.min(limit)))
    }

    fn busiest_json(&self, busiest: &[&Active]) -> String {
        let torrents = busiest
            .iter()
            .map(|active| self.torrent(&active.torrent, active));
        let torrents: Vec<Value> = torrents.collect();
        json!({ "torrents": torrents }).to_string()
    }

    fn busiest_text(&self, busiest: &[&Active]) -> String {
        let lines = busiest.iter().map(|active| {
            report::busy_line(&report::Busy {
                info_hash: active.torrent.info_hash,
                name: &active.torrent.name(),
                peers: active.peers,
                payload_bytes: active.sent_bytes,
                rate_bytes: active.rate_bytes(self.shared.now),
            })
        });
        lines.collect()
    }

    fn torrent(&self, torrent: &Torrent, active: &Active) -> Value {
        json!({
            "info_hash": torrent.info_hash.to_string(),
            "name": torrent.name(),
            "bytes": torrent.shape.total_length,
            "peers": active.peers,
            "payload_bytes": active.sent_bytes,
            "payload_bytes_per_second": active.rate_bytes(self.shared.now),
        })
    }

    /// The connections from a place on; `next` is where the following ones begin.
    fn peers(&self, request: &Request) -> Result<String, Status> {
        let from = match request.query("from") {
            Some(from) => from.parse().map_err(|_| Status::BadRequest)?,
            None => 0,
        };
        let capacity = self.connections.capacity();
        let to = limit(request)?.saturating_add(from).min(capacity);
        let found = (from..to).filter_map(|index| self.connections.at(index));
        let peers: Vec<Value> = found.map(|connection| self.peer(connection)).collect();
        let next = (to < capacity).then_some(to);
        Ok(json!({ "peers": peers, "next": next }).to_string())
    }

    fn peer(&self, connection: &Connection) -> Value {
        let session = &connection.session;
        let torrent = connection.torrent.as_ref();
        let info_hash = torrent.map(|torrent| torrent.info_hash.to_string());
        let seconds = self.shared.now.since(connection.accepted_at) / 1000;
        json!({
            "address": connection.transport.address().to_string(),
            "info_hash": info_hash,
            "state": session.label(),
            "requests_queued": session.queue_length(),
            "payload_bytes": connection.sent_bytes,
            "connected_seconds": seconds,
        })
    }
}

fn limit(request: &Request) -> Result<usize, Status> {
    match request.query("limit").map(str::parse::<usize>) {
        Some(Ok(limit)) => Ok(limit.clamp(1, LIMIT_MAX)),
        Some(Err(_)) => Err(Status::BadRequest),
        None => Ok(LIMIT),
    }
}
