//! Dropping privileges, in the order that works: the user first, then capabilities and the sandbox.
//!
//! Owns that each step says in one line at the start whether it was taken. It must not know what
//! was opened before.

use std::sync::Arc;

use thiserror::Error;

use super::identity::{IdentityError, Plan};
use super::sandbox::{Places, Strength};
use crate::config::Config;
use crate::logging::Logging;

/// Why the daemon must not go on.
#[derive(Debug, Error)]
pub enum RightsError {
    /// It is not who it should be.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its log cannot be opened as that user.
    #[error("log: {0}")]
    Log(std::io::Error),
}

/// Becomes the planned user, opens its log, and enters the sandbox. Answers what may be reached, when
/// not everything may. There must not be a thread yet.
///
/// # Errors
/// A [`RightsError`]. What the kernel does not have is no error: it is said.
pub fn give_up(
    config: &Config,
    plan: Plan,
    logging: &Logging,
    places: impl FnOnce() -> Places,
) -> Result<Option<Arc<Places>>, RightsError> {
    let changes = plan.changes();
    let now = plan.assume()?;
    if let Some(path) = config.log.file.as_deref().filter(|_| changes) {
        logging.set_file(path).map_err(RightsError::Log)?;
    }
    match now.is_root() {
        true => log::warn!("running as {now}; use --user to drop privileges"),
        false => log::info!("running as {now}"),
    }
    let forbidden = config.daemon.no_new_privs && forbid_new_privileges();
    if !config.daemon.landlock {
        log::info!("sandbox: disabled by the configuration");
        return Ok(None);
    }
    if !forbidden && !now.is_root() {
        log::warn!("sandbox: not active: it needs no_new_privs");
        return Ok(None);
    }
    let places = places();
    if !enter(&places) {
        return Ok(None);
    }
    for place in &places.cannot_come {
        let place = place.display();
        log::warn!(
            "a disk mounted at {place} later will be outside the sandbox, which cannot allow the \
             directory around it: restart after mounting, or use --no-landlock"
        );
    }
    Ok(Some(Arc::new(places)))
}

fn forbid_new_privileges() -> bool {
    match rustix::thread::set_no_new_privs(true) {
        Ok(()) => true,
        Err(error) => {
            log::warn!("no_new_privs: {error}");
            false
        }
    }
}

fn enter(places: &Places) -> bool {
    match places.enter() {
        Ok(Strength::Whole) => {
            log::info!("sandbox: active (Landlock)");
            true
        }
        Ok(Strength::Part) => {
            log::info!(
                "sandbox: active, but this kernel's Landlock does not support all of the rules"
            );
            true
        }
        Ok(Strength::Nothing) => {
            log::warn!("sandbox: not active: this kernel has no Landlock");
            false
        }
        Err(error) => {
            log::warn!("sandbox: not active: {error}");
            false
        }
    }
}
