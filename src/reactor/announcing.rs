//! The loop's side of announcing: the announcer, and the threads that read an index for it.

mod sweep;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Waker};

use self::sweep::{IndexChunk, Sweep};
use super::tokens::Source;
use crate::config::{Config, Families, NetworkConfig};
use crate::library::catalogue::live::{Added, Relisted};
use crate::library::catalogue::overlay::Snapshot;
use crate::metrics::trackers::Trackers;
use crate::net::changes::NetworkChanges;
use crate::timers::Time;
use crate::torrent::catalogue::Torrent;
use crate::torrent::id::TorrentId;
use crate::tracker::access::NamedHost;
use crate::tracker::announce::Identity;
use crate::tracker::announcer::{Announcer, AnnouncerConfig, Limits};
use crate::tracker::family::{Family, PerFamily};
use crate::tracker::shard::Shard;
use crate::tracker::url::TrackerUrl;
use crate::wire::message::{InfoHash, PeerId};

/// Announces the torrents of this process, unless trackers are turned off.
pub(super) struct Announcing {
    announcer: Option<Announcer>,
    waker: Arc<Waker>,
    /// The torrents that this machine announces; all if none.
    shard: Option<Shard>,
    /// Torrents are announced to their own trackers.
    uses_own_lists: bool,
    sweep: Option<Sweep>,
    /// More of an index may have been read than one turn takes.
    has_more: bool,
    /// Tells when trackers that failed may answer again.
    network: Option<NetworkChanges>,
    /// Addresses that announces and dialled connections come from.
    sources: PerFamily<Option<IpAddr>>,
}

impl Announcing {
    /// Announces nothing yet. Peers connect to `port`.
    pub(super) fn new(
        config: &Config,
        registry: &Registry,
        waker: Arc<Waker>,
        peer_id: PeerId,
        port: u16,
    ) -> io::Result<Self> {
        let sources = sources(&config.network);
        let mut access = config.trackers.access.clone();
        // What replaces the trackers of all torrents is allowed by that.
        let replacement = config.trackers.override_url.as_deref();
        let replacement = replacement.and_then(|url| TrackerUrl::parse(url).ok());
        access
            .named
            .extend(replacement.map(|url| NamedHost::of(&url.site)));
        let announcer_config = AnnouncerConfig {
            identity: Identity {
                peer_id,
                key: fastrand::u32(..),
                port: config.trackers.announce_port.unwrap_or(port),
                ip: config.trackers.announce_ip,
            },
            sources,
            max_per_second: config.trackers.max_announce_rate,
            override_with: (config.trackers.override_url.clone()).map(|url| Arc::from([vec![url]])),
            access,
            dialled: config.trackers.connect.clone(),
            certificates: config.trackers.certificates.clone(),
            limits: Limits::default(),
        };
        let token = |number| Source::Tracker(number).token();
        let announcer = (!config.trackers.disabled).then(|| {
            let waker = Arc::clone(&waker);
            Announcer::new(announcer_config, registry, token, waker, Time::default())
        });
        let announcer = announcer.transpose()?;
        let network = announcer.as_ref().and_then(|_| watch_network(registry));
        Ok(Self {
            announcer,
            waker,
            shard: config.trackers.shard,
            uses_own_lists: config.trackers.override_url.is_none(),
            sweep: None,
            has_more: false,
            network,
            sources,
        })
    }

    /// Begins to announce the torrents of an index, whose ids are those of their records. Threads read
    /// it: torrents that are added or removed meanwhile may come before or after.
    pub(super) fn add_index(&mut self, snapshot: &Snapshot) {
        let Some(announcer) = &mut self.announcer else {
            return;
        };
        match Sweep::start(snapshot, self.shard, self.uses_own_lists, &self.waker) {
            Ok(sweep) => {
                announcer.begin_index();
                self.sweep = Some(sweep);
            }
            Err(error) => log::error!("torrents are not announced: {error}"),
        }
    }

    /// Another index replaces the one that was added. It adds and removes no torrents, and has the ids
    /// in use.
    pub(super) fn replace_index(&mut self, snapshot: Snapshot) {
        if let Some(sweep) = &self.sweep {
            sweep.replace(snapshot);
        }
    }

    /// Begins to announce a torrent that is not in the index.
    pub(super) fn add(&mut self, added: &Added, now: Time) {
        if let Some(announcer) = self.announcer_of(&added.info_hash) {
            announcer.add(added.id, added.info_hash, &added.announce, now);
        }
    }

    /// Announces a torrent to other trackers than before.
    pub(super) fn relist(&mut self, relisted: &Relisted, now: Time) {
        if let Some(announcer) = self.announcer_of(&relisted.info_hash) {
            announcer.relist(relisted.id, relisted.info_hash, &relisted.announce, now);
        }
    }

    /// Ends announcing a torrent.
    pub(super) fn remove(&mut self, torrent: TorrentId, info_hash: InfoHash, now: Time) {
        if let Some(announcer) = self.announcer_of(&info_hash) {
            announcer.remove(torrent, info_hash, now);
        }
    }

    /// The first peer of a torrent has connected.
    pub(super) fn joined(&mut self, torrent: &Torrent, now: Time) {
        if let Some(announcer) = self.announcer_of(&torrent.info_hash) {
            announcer.joined(torrent.id, torrent.info_hash, now);
        }
    }

    /// The last peer of a torrent has disconnected.
    pub(super) fn left(&mut self, torrent: &Torrent) {
        if let Some(announcer) = self.announcer_of(&torrent.info_hash) {
            announcer.left(torrent.id);
        }
    }

    /// Bytes of a torrent were sent to one of its peers.
    pub(super) fn uploaded(&mut self, torrent: &Torrent, bytes: u64) {
        if let Some(announcer) = self.announcer_of(&torrent.info_hash) {
            announcer.uploaded(torrent.id, bytes);
        }
    }

    /// The announcer, if this machine announces the torrent.
    fn announcer_of(&mut self, info_hash: &InfoHash) -> Option<&mut Announcer> {
        let is_ours = self.shard.is_none_or(|shard| shard.has(info_hash));
        self.announcer.as_mut().filter(|_| is_ours)
    }

    /// A socket to a tracker is ready.
    pub(super) fn handle_event(&mut self, number: usize, event: &Event) {
        if let Some(announcer) = &mut self.announcer {
            announcer.handle_event(number, event);
        }
    }

    /// Does everything that is due.
    pub(super) fn turn(&mut self, now: Time) {
        let Some(announcer) = &mut self.announcer else {
            return;
        };
        let Some(sweep) = &mut self.sweep else {
            announcer.turn(now);
            return;
        };
        let chunk = sweep.chunk();
        self.has_more = chunk.is_some();
        match chunk {
            Some(IndexChunk::List(number, announce, torrent)) => {
                announcer.add_list(number, &announce, torrent, now);
            }
            Some(IndexChunk::Torrents(torrents)) => announcer.add_indexed(&torrents, now),
            Some(IndexChunk::End) => announcer.end_index(),
            None => {}
        }
        while let Some(hashes) = sweep.answer() {
            announcer.learn(&hashes, now);
        }
        announcer.turn(now);
        while sweep.has_room() {
            let torrents = announcer.unread(sweep::BATCH);
            if torrents.is_empty() {
                break;
            }
            if let Some(hashes) = sweep.ask(torrents) {
                announcer.learn(&hashes, now);
            }
        }
    }

    /// When to call [`Self::turn`], unless an event comes first. Time 0 is at once.
    pub(super) fn poll_at(&self) -> Option<Time> {
        if self.has_more {
            return Some(Time::default());
        }
        self.announcer.as_ref()?.poll_at()
    }

    /// Takes the peers that trackers have named, to be dialled.
    pub(super) fn take_peers(&mut self) -> Vec<(InfoHash, SocketAddr)> {
        let announcer = self.announcer.as_mut();
        announcer.map_or_else(Vec::new, Announcer::take_peers)
    }

    /// Returns true if a tracker has counted another complete peer of a torrent when it answered last.
    pub(super) fn has_other_seed(&self, torrent: TorrentId) -> bool {
        let announcer = self.announcer.as_ref();
        announcer.is_some_and(|announcer| announcer.has_other_seed(torrent))
    }

    /// Takes the torrents with peers of which a tracker has counted another complete peer.
    pub(super) fn take_seeded(&mut self) -> Vec<TorrentId> {
        let announcer = self.announcer.as_mut();
        announcer.map_or_else(Vec::new, Announcer::take_seeded)
    }

    /// The address that connections are dialled from, unless that family is not served.
    pub(super) fn source(&self, is_v6: bool) -> Option<IpAddr> {
        let family = if is_v6 { Family::V6 } else { Family::V4 };
        self.sources[family]
    }

    /// Trackers that failed may answer again.
    pub(super) fn wake(&mut self, now: Time) {
        if let Some(announcer) = &mut self.announcer {
            announcer.wake(now);
        }
    }

    /// Addresses or routes of the machine have changed.
    pub(super) fn network_changed(&mut self, now: Time) {
        if let Some(network) = &mut self.network
            && network.have_come()
        {
            self.wake(now);
        }
    }

    /// The figures of the trackers.
    pub(super) fn figures(&self, now: Time) -> Trackers {
        let announcer = self.announcer.as_ref();
        announcer.map_or_else(Trackers::default, |announcer| announcer.figures(now))
    }

    /// Announces nothing but `stopped` from now on.
    pub(super) fn shutdown(&mut self, now: Time) {
        if let Some(announcer) = &mut self.announcer {
            announcer.shutdown(now);
        }
    }

    /// Returns true if the shutdown is over.
    pub(super) fn is_done(&self) -> bool {
        self.announcer.as_ref().is_none_or(Announcer::is_done)
    }
}

/// Watches addresses and routes, if that is allowed.
fn watch_network(registry: &Registry) -> Option<NetworkChanges> {
    let opened = NetworkChanges::open().and_then(|network| {
        let token = Source::Network.token();
        registry.register(
            &mut SourceFd(&network.as_raw_fd()),
            token,
            Interest::READABLE,
        )?;
        Ok(network)
    });
    let report = |error| log::info!("new addresses and routes are not noticed: {error}");
    opened.map_err(report).ok()
}

/// The addresses that announces come from: trackers give the address that they see to peers.
fn sources(config: &NetworkConfig) -> PerFamily<Option<IpAddr>> {
    let any = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let is_served = |address: &IpAddr| match config.families {
        Families::Both => true,
        Families::V4 => address.is_ipv4(),
        Families::V6 => address.is_ipv6(),
    };
    let pick = |unspecified: IpAddr| {
        let mut bound = config.bind.iter().copied();
        let bound = bound.find(|address| address.is_ipv4() == unspecified.is_ipv4());
        let unbound = config.bind.is_empty().then_some(unspecified);
        bound.or(unbound).filter(is_served)
    };
    any.map(pick).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(families: Families, bind: &[&str]) -> [Option<String>; 2] {
        let config = NetworkConfig {
            families,
            bind: bind
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
            ..NetworkConfig::default()
        };
        let sources = sources(&config);
        Family::ALL.map(|family| sources[family].map(|source| source.to_string()))
    }

    #[test]
    fn announces_come_from_where_peers_connect() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(shown(Families::Both, &[]), [some("0.0.0.0"), some("::")]);
        assert_eq!(shown(Families::V4, &[]), [some("0.0.0.0"), None]);
        assert_eq!(shown(Families::V6, &[]), [None, some("::")]);
        assert_eq!(
            shown(Families::Both, &["10.0.0.1"]),
            [some("10.0.0.1"), None]
        );
        let bound = ["::1", "10.0.0.1", "10.0.0.2"];
        assert_eq!(
            shown(Families::Both, &bound),
            [some("10.0.0.1"), some("::1")]
        );
        assert_eq!(shown(Families::V6, &bound), [None, some("::1")]);
    }
}
