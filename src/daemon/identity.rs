//! Switching from root to another user, and verifying that root cannot be regained.

use std::ffi::CString;
use std::fmt;
use std::io;

use nix::unistd::{self, Gid, Group, ResGid, ResUid, Uid, User};
use rustix::io::Errno;
use rustix::thread::{self, CapabilitySet, CapabilitySets};
use thiserror::Error;

use crate::config::UserName;

const NO_CAPABILITIES: CapabilitySets = CapabilitySets {
    effective: CapabilitySet::empty(),
    permitted: CapabilitySet::empty(),
    inheritable: CapabilitySet::empty(),
};

/// Why the daemon cannot run as the configured user.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// No user has this name or number.
    #[error("no such user: {0:?}")]
    NoUser(String),
    /// No group has this name or number.
    #[error("no such group: {0:?}")]
    NoGroup(String),
    /// The number of no user in the database, without a group.
    #[error("user {0} is not in the user database, so its group is unknown: use USER:GROUP")]
    GroupUnknown(u32),
    /// Only root can switch users.
    #[error("only root can become user {0:?}")]
    NotRoot(String),
    /// A system call failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// The privileges can be regained.
    #[error("privileges were dropped, but {0}")]
    NotDropped(&'static str),
}

/// The user to switch to, if any.
pub struct Plan(Option<Account>);

/// A user and its group.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Account {
    /// `None` for a user without a record in the database.
    name: Option<CString>,
    user: Uid,
    group: Gid,
}

/// The owner of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
}

/// The effective user and group of the daemon.
pub struct Now {
    user: Uid,
    group: Gid,
}

/// Looks up the user to switch to. Changes nothing yet.
///
/// # Errors
/// An [`IdentityError`] if the user is unknown, or this process may not switch to it.
pub fn plan(wanted: Option<&UserName>) -> Result<Plan, IdentityError> {
    let Some(wanted) = wanted else {
        return Ok(Plan(None));
    };
    let account = find(wanted)?;
    if account.is_ours()? && !account.user.is_root() {
        return Ok(Plan(None));
    }
    match unistd::geteuid().is_root() {
        true => Ok(Plan(Some(account))),
        false => Err(IdentityError::NotRoot(wanted.user.clone())),
    }
}

fn find(wanted: &UserName) -> Result<Account, IdentityError> {
    let id = wanted.user.parse().ok().map(Uid::from_raw);
    let named = record(User::from_name(&wanted.user))?;
    let found = match (named, id) {
        (None, Some(id)) => record(User::from_uid(id))?,
        (named, _) => named,
    };
    let group = match &wanted.group {
        None => None,
        Some(name) => {
            let found = record(Group::from_name(name))?.map(|group| group.gid);
            let group = found.or_else(|| name.parse().ok().map(Gid::from_raw));
            Some(group.ok_or_else(|| IdentityError::NoGroup(name.clone()))?)
        }
    };
    match (found, id, group) {
        (Some(user), _, group) => Ok(Account {
            name: CString::new(user.name).ok(),
            user: user.uid,
            group: group.unwrap_or(user.gid),
        }),
        (None, Some(user), Some(group)) => Ok(Account {
            name: None,
            user,
            group,
        }),
        (None, Some(id), None) => Err(IdentityError::GroupUnknown(id.as_raw())),
        (None, None, _) => Err(IdentityError::NoUser(wanted.user.clone())),
    }
}

/// A record of the user database. Some systems answer ENOENT or ESRCH when there is none.
fn record<T>(found: nix::Result<Option<T>>) -> Result<Option<T>, IdentityError> {
    match found {
        Err(nix::Error::ENOENT | nix::Error::ESRCH) => Ok(None),
        found => found.map_err(system("the user database")),
    }
}

impl Account {
    /// Returns true if the process has the real, effective and saved ids of this account.
    fn is_ours(&self) -> Result<bool, IdentityError> {
        let (user, group) = (self.user, self.group);
        let users = unistd::getresuid().map_err(system("the ids of the process"))?;
        let groups = unistd::getresgid().map_err(system("the ids of the process"))?;
        let wanted_users = ResUid {
            real: user,
            effective: user,
            saved: user,
        };
        let wanted_groups = ResGid {
            real: group,
            effective: group,
            saved: group,
        };
        Ok(users == wanted_users && groups == wanted_groups)
    }

    /// Switches to the user and its groups for good. The C library does so in all threads.
    fn assume(&self) -> nix::Result<()> {
        let (user, group) = (self.user, self.group);
        match &self.name {
            Some(name) => unistd::initgroups(name, group)?,
            None => unistd::setgroups(&[group])?,
        }
        unistd::setresgid(group, group, group)?;
        unistd::setresuid(user, user, user)
    }
}

impl Plan {
    /// Returns true if the daemon will switch users.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.0.is_some()
    }

    /// The owner for sockets that are created before the switch.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.0.as_ref().map(|account| Owner {
            user: account.user.as_raw(),
            group: account.group.as_raw(),
        })
    }

    /// Switches to that user and drops every capability; a root that stays root keeps its own. No
    /// thread may be running yet.
    ///
    /// # Errors
    /// An [`IdentityError`]; the process must not continue then.
    pub fn assume(self) -> Result<Now, IdentityError> {
        if let Some(account) = &self.0 {
            empty_bounding_set().map_err(system("capabilities"))?;
            account.assume().map_err(system("switching to the user"))?;
            if !account.is_ours()? {
                return Err(IdentityError::NotDropped(
                    "the ids are not those of the user",
                ));
            }
        }
        let (user, group) = (unistd::geteuid(), unistd::getegid());
        if !user.is_root() {
            let has_some = || {
                let sets = thread::capabilities(None).map_err(system("capabilities"))?;
                Ok(sets != NO_CAPABILITIES)
            };
            // If there are none, a service manager may have forbidden the call that drops them.
            if has_some()? {
                thread::clear_ambient_capability_set()
                    .and_then(|()| thread::set_capabilities(None, NO_CAPABILITIES))
                    .map_err(system("capabilities"))?;
            }
            if has_some()? {
                return Err(IdentityError::NotDropped("capabilities are left"));
            }
            let root = Uid::from_raw(0);
            if unistd::setresuid(root, root, root).is_ok() {
                return Err(IdentityError::NotDropped("they can be regained"));
            }
        }
        Ok(Now { user, group })
    }
}

impl Now {
    /// Returns true if the daemon has the privileges of root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.user.is_root()
    }
}

impl fmt::Display for Now {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, group } = self;
        let found = User::from_uid(*user).ok().flatten();
        let name = found.map_or_else(|| "without a name".to_owned(), |user| user.name);
        let rights = match self.is_root() {
            true => "with the rights of root",
            false => "without capabilities",
        };
        write!(formatter, "user {name} ({user}), group {group}, {rights}")
    }
}

/// Removes every capability from the bounding set, so that no executed program can gain one.
fn empty_bounding_set() -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match thread::remove_capability_from_bounding_set(capability) {
            // The kernel has no capability of this number or above.
            Err(Errno::INVAL) => break,
            outcome => outcome?,
        }
    }
    Ok(())
}

fn system<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> IdentityError {
    move |error| IdentityError::System(what, error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(user: &str, group: Option<&str>) -> UserName {
        UserName {
            user: user.to_owned(),
            group: group.map(str::to_owned),
        }
    }

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let root = find(&wanted("root", None)).unwrap();
        assert_eq!((root.user.as_raw(), root.group.as_raw()), (0, 0));
        assert_eq!(find(&wanted("0", None)).unwrap(), root);
        let other = find(&wanted("root", Some("12345"))).unwrap();
        assert_eq!((other.user.as_raw(), other.group.as_raw()), (0, 12345));
        let nameless = find(&wanted("3999999999", Some("root"))).unwrap();
        assert_eq!(
            (nameless.name, nameless.user.as_raw()),
            (None, 3_999_999_999)
        );
    }

    #[test]
    fn an_unknown_user_or_group_is_named_in_the_error() {
        let error = |user, group| find(&wanted(user, group)).unwrap_err().to_string();
        assert_eq!(error("nobody here", None), r#"no such user: "nobody here""#);
        assert_eq!(error("root", Some("none?")), r#"no such group: "none?""#);
        assert!(error("3999999999", None).contains("USER:GROUP"));
    }
}
