//! Dropping privileges, in the order that works: the user first, then capabilities and the sandbox.
//!
//! Each step logs one line at the start that says whether it was taken.

use std::sync::Arc;

use landlock::RulesetStatus;
use thiserror::Error;

use super::identity::{IdentityError, Plan};
use super::sandbox::AllowedPaths;
use crate::config::Config;
use crate::logging::Logging;

/// Why the daemon must not continue.
#[derive(Debug, Error)]
pub enum RightsError {
    /// It could not become the configured user.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Its log cannot be opened as that user.
    #[error("log: {0}")]
    Log(std::io::Error),
}

/// Becomes the planned user, opens its log, and enters the sandbox. Returns the paths that the sandbox
/// allows; `None` without a sandbox. No thread may be running yet.
///
/// # Errors
/// A [`RightsError`]. A feature that the kernel lacks is logged and is no error.
pub fn give_up(
    config: &Config,
    plan: Plan,
    logging: &Logging,
    allowed: impl FnOnce() -> AllowedPaths,
) -> Result<Option<Arc<AllowedPaths>>, RightsError> {
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
    let allowed = allowed();
    if !enter(&allowed) {
        return Ok(None);
    }
    for mount_point in &allowed.fixed_mounts {
        let mount_point = mount_point.display();
        log::warn!(
            "a disk mounted at {mount_point} later will be outside the sandbox, which cannot allow the \
             directory around it: restart after mounting, or use --no-landlock"
        );
    }
    Ok(Some(Arc::new(allowed)))
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

fn enter(allowed: &AllowedPaths) -> bool {
    match allowed.enter() {
        Ok(RulesetStatus::FullyEnforced) => {
            log::info!("sandbox: active (Landlock)");
            true
        }
        Ok(RulesetStatus::PartiallyEnforced) => {
            log::info!(
                "sandbox: active, but this kernel's Landlock does not support all of the rules"
            );
            true
        }
        Ok(RulesetStatus::NotEnforced) => {
            log::warn!("sandbox: not active: this kernel has no Landlock");
            false
        }
        Err(error) => {
            log::warn!("sandbox: not active: {error}");
            false
        }
    }
}
