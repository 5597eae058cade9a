//! A reload: the configuration is read by a thread, then applied, and the library is rescanned.
//!
//! A wrong configuration changes nothing.

use std::path::PathBuf;

use super::Reactor;
use super::lifecycle::{Phase, max_peers};
use crate::config::file::{Configured, Sources};
use crate::config::{LimitsConfig, LiveConfig};
use crate::daemon::sandbox::AllowedPaths;
use crate::library::catalogue::live::Settings;
use crate::rate::{RateLimiter, UPLOAD_BURST};
use crate::workers::{self, Pending};

/// A reload that is under way.
pub(super) struct Reload {
    answer: Pending<Result<Reloaded, String>>,
    /// Another was requested meanwhile: what is read now may be old.
    again: bool,
    /// The service manager was notified of its beginning.
    is_announced: bool,
}

impl Reactor {
    /// Starts a reload, or remembers that another is to follow the one under way. There is none while
    /// stopping.
    pub(super) fn begin_reload(&mut self) {
        if self.control.is_stopping() {
            log::debug!("ignoring a reload while stopping");
            return;
        }
        // Whoever has mended a network says so like this.
        self.shared.process.announcing.wake(self.shared.now);
        if let Some(reload) = &mut self.control.reload {
            reload.again = true;
            return;
        }
        // A service manager takes the end of a reload as "peers are served", so before that it gets no
        // notification.
        let is_announced = matches!(self.control.phase, Phase::Serving);
        if is_announced {
            self.control.host.notifier.reloading();
        }
        if !self.spawn_reload(is_announced) && is_announced {
            self.control.host.notifier.ready();
        }
    }

    /// Starts the thread of a reload. Returns true if there is one.
    fn spawn_reload(&mut self, is_announced: bool) -> bool {
        let Some((sources, running)) = &self.control.host.configuration else {
            return false;
        };
        log::info!("reloading");
        let (sources, running) = (sources.clone(), running.clone());
        let allowed = self.control.host.allowed.clone();
        let work = move || read(&sources, &running, allowed.as_deref());
        match workers::once("reload", &self.waker, work) {
            Ok(answer) => {
                self.control.reload = Some(Reload {
                    answer,
                    again: false,
                    is_announced,
                });
                true
            }
            Err(error) => {
                log::error!("cannot reload: {error}");
                false
            }
        }
    }

    /// Applies what a reload has read. That ends it for the service manager: the rescan of a large
    /// library, which begins then, takes longer than a manager waits.
    pub(super) fn finish_reload(&mut self) {
        let Some(reload) = &self.control.reload else {
            return;
        };
        let (again, is_announced) = (reload.again, reload.is_announced);
        let Some(answer) = reload.answer.poll() else {
            return;
        };
        match answer {
            Err(error) => log::error!("reload failed: {error}"),
            Ok(Err(error)) => log::error!("reload failed, keeping the old configuration: {error}"),
            Ok(Ok(reloaded)) => self.apply_reload(reloaded),
        }
        self.control.reload = None;
        if is_announced {
            self.control.host.notifier.ready();
        }
        if again {
            self.begin_reload();
        }
    }

    fn apply_reload(&mut self, reloaded: Reloaded) {
        for name in reloaded.needs_restart {
            log::warn!("{name} has changed: restart to apply it");
        }
        let LiveConfig {
            library,
            limits,
            log_levels,
        } = reloaded.configured.config.live();
        if let Some(logging) = &self.control.host.logging {
            logging.set_filter(log_levels);
        }
        self.connections.max = max_peers(limits, self.control.descriptors);
        let LimitsConfig {
            choker,
            max_peers: _,
            max_peers_per_ip,
            max_rate,
            super_seeding,
            auto_slots,
        } = limits;
        self.connections.max_per_address = max_peers_per_ip.unwrap_or(usize::MAX);
        let mut choker = *choker;
        if *auto_slots && self.slots.is_some() {
            // The number that was found stays.
            choker.max_unchoked = self.shared.choker.config().max_unchoked;
        }
        self.shared.choker.configure(choker);
        self.slots = auto_slots.then(|| self.slots.take().unwrap_or_default());
        self.shared.process.super_seeding = *super_seeding;
        self.shared.process.bucket = RateLimiter::new(*max_rate, UPLOAD_BURST, self.shared.now);
        if let Some(live) = &self.control.live {
            live.refresh(Settings::from(library));
        }
        if let Some((_, running)) = &mut self.control.host.configuration {
            *running = reloaded.configured;
        }
    }
}

/// What a reload has read.
struct Reloaded {
    /// The running configuration with the live settings of what was read.
    configured: Configured,
    /// The settings that have changed and are not live.
    needs_restart: Vec<&'static str>,
}

fn read(
    sources: &Sources,
    running: &Configured,
    allowed: Option<&AllowedPaths>,
) -> Result<Reloaded, String> {
    let loaded = sources.load().map_err(|error| error.to_string())?;
    let configured = sources.merge(running, &loaded);
    let library = &configured.config.library;
    if library.dirs.is_empty() && library.index.is_none() {
        return Err("an index in place of directories needs a restart".to_owned());
    }
    let refused = |dir: &&PathBuf| allowed.is_some_and(|allowed| !allowed.may_read(dir));
    let content_for = library.content_for.iter().map(|(_, content)| content);
    let dirs = library.dirs.iter().chain(&library.content);
    for dir in dirs.chain(content_for).filter(refused) {
        let dir = dir.display();
        log::warn!("{dir} is outside the sandbox: restart to allow it");
    }
    Ok(Reloaded {
        needs_restart: loaded.needs_restart(running),
        configured,
    })
}
