//! The answers of the status listener: a snapshot of the loop, its torrents, its peers.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::{Registry, Waker};
use serde_json::{Value, json};

use super::activity::Active;
use super::connection::Connection;
use super::connections::Connections;
use super::hung::HungDisks;
use super::shared::Shared;
use super::tokens::Source;
use crate::library::catalogue::listing::{Listing, Page};
use crate::library::index::IndexError;
use crate::metrics::{LibrarySize, Peers, Phase, Snapshot, prometheus};
use crate::status::http::{self, Request, Status};
use crate::status::server::{ClientId, StatusServer};
use crate::status::{self, report};
use crate::sys;
use crate::timers::Time;
use crate::torrent::catalogue::Torrent;
use crate::torrent::printable::{Printable, visible_json};
use crate::wire::message::InfoHash;
use crate::workers::{self, Pending};

/// Entries in one answer when the request names no limit.
const LIMIT: usize = 100;

/// The most entries in one answer: some hundred KiB, which the loop writes in less than a millisecond.
const LIMIT_MAX: usize = 1000;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// Pages of torrents that are read at the same time, each by a thread.
const LISTINGS_MAX: usize = 4;

/// A page of torrents that a thread reads for a client.
struct PendingListing {
    client: ClientId,
    page: Pending<Result<Page, IndexError>>,
}

impl PendingListing {
    fn start(client: ClientId, listing: Listing, waker: &Arc<Waker>) -> io::Result<Self> {
        let page = workers::once("listing", waker, move || listing.read())?;
        Ok(Self { client, page })
    }
}

/// The status listener, and the pages that are being read for its clients.
pub(super) struct StatusService {
    server: StatusServer,
    listings: Vec<PendingListing>,
}

impl StatusService {
    /// A service that answers no client before it is registered.
    pub(super) fn new(server: StatusServer) -> Self {
        Self {
            server,
            listings: Vec::new(),
        }
    }

    /// Begins to listen.
    pub(super) fn register(&mut self, registry: &Registry) -> io::Result<()> {
        self.server.register(registry, Source::Status.token())
    }

    /// A client waits to be accepted.
    pub(super) fn listener_ready(&mut self) {
        self.server.listener_ready();
    }

    /// The client in this slot may be read from or written to.
    pub(super) fn client_ready(&mut self, slot: usize) {
        self.server.client_ready(slot);
    }

    /// When [`StatusService::serve`] has something to do without an event.
    pub(super) fn poll_at(&self) -> Option<Time> {
        self.server.poll_at()
    }

    /// Accepts clients and answers their requests. Threads that read a page wake the loop by `waker`.
    pub(super) fn serve(&mut self, registry: &Registry, waker: &Arc<Waker>, report: &Report<'_>) {
        let now = report.shared.now;
        let token = |slot| Source::StatusClient(slot).token();
        self.server.accept(registry, token, now);
        self.finish_listings(report);
        while let Some((client, request)) = self.server.poll(now) {
            if let Some(answer) = self.answer(client, &request, waker, report) {
                self.server.respond(client, answer);
            }
        }
    }

    /// Answers the clients whose page has been read.
    fn finish_listings(&mut self, report: &Report<'_>) {
        let mut at = 0;
        while let Some(pending) = self.listings.get(at) {
            let Some(read) = pending.page.poll() else {
                at += 1;
                continue;
            };
            let read = read.map(|read| read.map_err(|error| error.to_string()));
            let answer = match read.unwrap_or_else(|panicked| Err(panicked.to_string())) {
                Ok(page) => report.listed(&page),
                Err(error) => {
                    log::error!("cannot list torrents: {error}");
                    http::refusal(Status::INTERNAL_SERVER_ERROR)
                }
            };
            let client = self.listings.swap_remove(at).client;
            self.server.respond(client, answer);
        }
    }

    /// The answer to a request; `None` while a page of torrents is being read for it.
    fn answer(
        &mut self,
        client: ClientId,
        request: &Request,
        waker: &Arc<Waker>,
        report: &Report<'_>,
    ) -> Option<Vec<u8>> {
        if request.path != "/torrents" || request.query("busiest").is_some() {
            return Some(report.answer(request));
        }
        let listing = match report.list(request) {
            Ok(listing) => listing,
            Err(status) => return Some(http::refusal(status)),
        };
        if self.listings.len() >= LISTINGS_MAX {
            return Some(http::refusal(Status::SERVICE_UNAVAILABLE));
        }
        match PendingListing::start(client, listing, waker) {
            Ok(pending) => {
                self.listings.push(pending);
                None
            }
            Err(error) => {
                log::error!("cannot list torrents: {error}");
                Some(http::refusal(Status::SERVICE_UNAVAILABLE))
            }
        }
    }
}

/// A view of the loop, from which answers are made.
pub(super) struct Report<'a> {
    pub(super) connections: &'a Connections,
    pub(super) shared: &'a Shared,
    pub(super) phase: Phase,
    /// Files that the first scan has read so far.
    pub(super) indexed_files: Option<u64>,
    pub(super) library: LibrarySize,
    pub(super) hung: &'a HungDisks,
    pub(super) started_at: SystemTime,
    /// Major page faults of this thread before it was the loop's.
    pub(super) faults_before: u64,
}

impl Report<'_> {
    /// Everything at this moment.
    fn snapshot(&self) -> Snapshot {
        let shared = &self.shared;
        let mut storage = shared.process.storage.counters();
        shared.process.loads.add_to(&mut storage);
        let connected = self.connections.len() as u64;
        let named = shared.process.activity.peers();
        let unchoked = shared.choker.unchoked() as u64;
        let waiting = shared.choker.waiting() as u64;
        let started = self.started_at.duration_since(UNIX_EPOCH);
        Snapshot {
            phase: self.phase,
            indexed_files: self.indexed_files,
            started_unix_s: started.unwrap_or(Duration::ZERO).as_secs(),
            up_ms: shared.now.0,
            counters: shared.counters.clone(),
            storage,
            bad_pieces: shared.process.storage.bad_pieces().take(LIMIT).collect(),
            hung_disks: self.hung.seconds(shared.now),
            library: self.library,
            active_torrents: shared.process.activity.torrents(),
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
            rate_bytes: shared.process.history.rate_bytes(),
            minutes_bytes: shared.process.history.minutes(),
            peak_bytes: shared.process.history.peak_bytes(),
            trackers: shared.process.announcing.figures(shared.now),
        }
    }

    fn answer(&self, request: &Request) -> Vec<u8> {
        let ok = |kind: &str, body: &str| http::answer(Status::OK, kind, body);
        match request.path.as_str() {
            "/" => ok("text/html; charset=utf-8", status::PAGE),
            "/status.css" => ok("text/css; charset=utf-8", status::STYLE),
            "/status.js" => ok("text/javascript; charset=utf-8", status::SCRIPT),
            "/metrics" => ok(
                prometheus::CONTENT_TYPE,
                &prometheus::text(&self.snapshot()),
            ),
            "/status.json" => ok_json(&report::json(&self.snapshot())),
            "/status.txt" => ok(TEXT, &report::text(&self.snapshot())),
            "/history.json" => ok_json(&report::history(self.shared.process.history.seconds())),
            // An answer shows that the loop turns.
            "/healthz" => ok(TEXT, "ok\n"),
            "/readyz" => {
                let status = match self.phase {
                    Phase::Serving => Status::OK,
                    Phase::Starting | Phase::Indexing | Phase::Stopping => {
                        Status::SERVICE_UNAVAILABLE
                    }
                };
                http::answer(status, TEXT, &format!("{}\n", self.phase.as_str()))
            }
            "/torrents" => match self.busiest(request) {
                Ok(busiest) => ok_json(&self.busiest_json(&busiest)),
                Err(status) => http::refusal(status),
            },
            "/torrents.txt" => match self.busiest(request) {
                Ok(busiest) => ok(TEXT, &self.busiest_text(&busiest)),
                Err(status) => http::refusal(status),
            },
            "/peers" => match self.peers(request) {
                Ok(body) => ok_json(&body),
                Err(status) => http::refusal(status),
            },
            _ => http::refusal(Status::NOT_FOUND),
        }
    }

    /// The page of torrents that is requested, which a thread reads from disk.
    fn list(&self, request: &Request) -> Result<Listing, Status> {
        let after = match request.query("after") {
            Some(hex) => Some(InfoHash::from_hex(hex).ok_or(Status::BAD_REQUEST)?),
            None => None,
        };
        let listing = self.shared.process.library.list(after, limit(request)?);
        listing.ok_or(Status::SERVICE_UNAVAILABLE)
    }

    /// The answer with a page that was read.
    fn listed(&self, page: &Page) -> Vec<u8> {
        let activity = &self.shared.process.activity;
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
        ok_json(&body.to_string())
    }

    /// The torrents that are sent the most.
    fn busiest(&self, request: &Request) -> Result<Vec<&Active>, Status> {
        let limit = request.query("busiest").unwrap_or_default().parse();
        let limit: usize = limit.map_err(|_| Status::BAD_REQUEST)?;
        let activity = &self.shared.process.activity;
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
            "name": Printable(torrent.name().as_bytes()).to_string(),
            "bytes": torrent.shape.total_length,
            "peers": active.peers,
            "payload_bytes": active.sent_bytes,
            "payload_bytes_per_second": active.rate_bytes(self.shared.now),
        })
    }

    /// Connections from a slot of the slab on; `next` is where the following ones begin.
    fn peers(&self, request: &Request) -> Result<String, Status> {
        let from = match request.query("from") {
            Some(from) => from.parse().map_err(|_| Status::BAD_REQUEST)?,
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

fn ok_json(body: &str) -> Vec<u8> {
    http::answer(Status::OK, JSON, &visible_json(body))
}

fn limit(request: &Request) -> Result<usize, Status> {
    match request.query("limit").map(str::parse::<usize>) {
        Some(Ok(limit)) => Ok(limit.clamp(1, LIMIT_MAX)),
        Some(Err(_)) => Err(Status::BAD_REQUEST),
        None => Ok(LIMIT),
    }
}
