//! A reload: the configuration and the library are read again by a thread, then taken up at once.
//!
//! Owns that thread and what becomes of its answer. A configuration or an index that is wrong
//! changes nothing. It must not know how either is read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

use mio::Waker;

use super::report::library_size;
use super::shared::choker_config;
use super::{Reactor, mark};
use crate::config::Config;
use crate::config::file::{Configured, Sources};
use crate::library::index::Index;
use crate::library::served::Library;
use crate::logging;
use crate::metrics::LibrarySize;
use crate::peer::PeerKey;
use crate::peer::close::CloseReason;
use crate::rate::TokenBucket;
use crate::torrent::catalogue::{Catalogue, Refusal, Torrent, rescan};

/// A reload that is under way.
pub(super) struct Reload {
    answer: Receiver<Result<Reloaded, String>>,
    /// Another was asked for meanwhile: what is read now may be old.
    again: bool,
}

/// What was read.
struct Reloaded {
    configured: Configured,
    library: Library,
    refusals: Vec<Refusal>,
    size: LibrarySize,
    changes: Changes,
}

/// How the new library differs from the old, found out by the thread.
#[derive(Default)]
struct Changes {
    added: Vec<Arc<Torrent>>,
    removed: Vec<u32>,
}

impl Changes {
    fn between(old: &Catalogue, new: &Catalogue) -> Self {
        let lacks = |catalogue: &Catalogue, torrent: &Torrent| {
            let known = catalogue.find(&torrent.info_hash);
            known.is_none_or(|known| known.id != torrent.id)
        };
        let added = new.iter().filter(|torrent| lacks(old, torrent));
        let removed = old.iter().filter(|torrent| lacks(new, torrent));
        Self {
            added: added.cloned().collect(),
            removed: removed.map(|torrent| torrent.id).collect(),
        }
    }
}

/// What is read anew: the kind of library needs a restart to change.
enum Origin {
    Catalogue(Arc<Catalogue>),
    Index(PathBuf),
}

impl Reactor {
    /// Starts a reload, or remembers that another is to follow the one under way.
    pub(super) fn begin_reload(&mut self) {
        if let Some(reload) = &mut self.reload {
            reload.again = true;
            return;
        }
        let Some((sources, running)) = &self.service.configuration else {
            return;
        };
        let origin = match (self.shared.library.catalogue(), &running.config.index) {
            (Some(catalogue), _) => Origin::Catalogue(Arc::clone(catalogue)),
            (None, Some(path)) => Origin::Index(path.clone()),
            (None, None) => return,
        };
        log::info!("reloading");
        let sources = sources.clone();
        let (sender, answer) = mpsc::channel();
        let waker = Arc::clone(&self.waker);
        let work = move || {
            // The loop may have ended meanwhile.
            let _ = sender.send(read(&sources, &origin));
            drop(sender);
            wake(&waker);
        };
        match thread::Builder::new()
            .name("hekate-reload".to_owned())
            .spawn(work)
        {
            Ok(_) => {
                let again = false;
                self.reload = Some(Reload { answer, again });
            }
            Err(error) => log::error!("not reloaded: {error}"),
        }
    }

    /// Takes up what a reload has read.
    pub(super) fn finish_reload(&mut self) {
        let Some(reload) = &self.reload else { return };
        let (answer, again) = (reload.answer.try_recv(), reload.again);
        match answer {
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => log::error!("not reloaded: the reader has failed"),
            Ok(Err(error)) => log::error!("not reloaded, the old configuration holds: {error}"),
            Ok(Ok(reloaded)) => self.take_up(reloaded),
        }
        self.reload = None;
        if again {
            self.begin_reload();
        }
    }

    fn take_up(&mut self, reloaded: Reloaded) {
        let Reloaded {
            configured,
            library,
            refusals,
            changes,
            size,
        } = reloaded;
        if let Some((_, running)) = &mut self.service.configuration {
            for name in configured.needs_restart(running) {
                log::warn!("{name} has changed: only a restart takes it up");
            }
            // What only a restart takes up goes on as it was, and is said again next time.
            running.take_up(&configured);
        }
        self.configure(&configured.config);
        let now = self.shared.now;
        for torrent in changes.removed {
            self.shared.announcing.remove(torrent, now);
        }
        for torrent in &changes.added {
            self.shared.announcing.add(torrent, now);
        }
        for refusal in &refusals {
            log::warn!(target: logging::EACH_COUNTS, "refused: {refusal}");
        }
        let (before, after) = (self.shared.library.torrents(), library.torrents());
        self.library = size;
        self.replace_library(library);
        let refused = refusals.len();
        log::info!("reloaded: {after} torrents, {before} before, {refused} refused");
    }

    /// Takes up the values that may change while peers are served.
    fn configure(&mut self, config: &Config) {
        if let Some(logging) = &self.service.logging {
            logging.set_filter(&config.log);
        }
        self.max_peers = config.peers_within(self.descriptors);
        self.max_peers_per_ip = config.max_peers_per_ip.unwrap_or(usize::MAX);
        self.shared.choker.configure(choker_config(config));
        self.shared.bucket = TokenBucket::new(config.max_rate, self.shared.now);
    }

    fn replace_library(&mut self, library: Library) {
        let library = library.following(&self.shared.library);
        let old = std::mem::replace(&mut self.shared.library, library);
        for (index, connection) in &mut self.connections {
            let (Some(torrent), Ok(index)) = (&connection.torrent, u32::try_from(index)) else {
                continue;
            };
            if !self.shared.library.has(torrent) && !connection.latches.closing {
                let generation = connection.generation;
                let key = PeerKey { index, generation };
                mark(
                    &mut self.closing,
                    connection,
                    key,
                    CloseReason::TorrentRemoved,
                );
            }
        }
        // Millions of torrents take their time to be forgotten. Without a thread, the loop takes it.
        let _ = thread::Builder::new().spawn(move || drop(old));
    }
}

fn read(sources: &Sources, origin: &Origin) -> Result<Reloaded, String> {
    let configured = sources.load().map_err(|error| error.to_string())?;
    let Config { dirs, content, .. } = &configured.config;
    let (library, refusals, changes) = match origin {
        Origin::Catalogue(_) if dirs.is_empty() => {
            return Err("an index in place of directories needs a restart".to_owned());
        }
        Origin::Catalogue(previous) => {
            let (catalogue, refusals) = rescan(previous, dirs, content.as_deref());
            let changes = Changes::between(previous, &catalogue);
            (
                Library::of_catalogue(Arc::new(catalogue)),
                refusals,
                changes,
            )
        }
        Origin::Index(path) => {
            let library = open_index(path, content.clone())?;
            (library, Vec::new(), Changes::default())
        }
    };
    let size = library_size(&library, refusals.len());
    Ok(Reloaded {
        size,
        configured,
        library,
        refusals,
        changes,
    })
}

fn open_index(path: &Path, content: Option<PathBuf>) -> Result<Library, String> {
    let index = Index::open(path).map_err(|error| error.to_string())?;
    Ok(Library::of_index(index, content))
}

fn wake(waker: &Waker) {
    if let Err(error) = waker.wake() {
        log::error!("cannot wake the loop: {error}");
    }
}
