//! Switching from root to another user, and verifying that root cannot be regained.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::config::UserName;
use crate::sys::process::{self, User};

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
pub struct Plan(Option<User>);

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
    user: u32,
    group: u32,
}

/// Looks up the user to switch to. Changes nothing yet.
///
/// # Errors
/// An [`IdentityError`] if the user is unknown, or this process may not switch to it.
pub fn plan(wanted: Option<&UserName>) -> Result<Plan, IdentityError> {
    let Some(wanted) = wanted else {
        return Ok(Plan(None));
    };
    let user = find(wanted)?;
    let now = process::identity().map_err(|error| system("who we are", error))?;
    if now.users == [user.id; 3] && now.groups == [user.group; 3] && user.id != 0 {
        return Ok(Plan(None));
    }
    match now.users {
        [_, 0, _] => Ok(Plan(Some(user))),
        _ => Err(IdentityError::NotRoot(wanted.user.clone())),
    }
}

fn find(wanted: &UserName) -> Result<User, IdentityError> {
    let unknown = |error| system("the user database", error);
    let id = wanted.user.parse().ok();
    let found = process::user_by_name(&wanted.user).map_err(unknown)?;
    let found = match (found, id) {
        (None, Some(id)) => process::user_by_id(id).map_err(unknown)?,
        (found, _) => found,
    };
    let group = match &wanted.group {
        None => None,
        Some(name) => {
            let found = process::group_by_name(name).map_err(unknown)?;
            let group = found.or_else(|| name.parse().ok());
            Some(group.ok_or_else(|| IdentityError::NoGroup(name.clone()))?)
        }
    };
    match (found, id, group) {
        (Some(user), _, group) => Ok(User {
            group: group.unwrap_or(user.group),
            ..user
        }),
        (None, Some(id), Some(group)) => Ok(User {
            name: None,
            id,
            group,
        }),
        (None, Some(id), None) => Err(IdentityError::GroupUnknown(id)),
        (None, None, _) => Err(IdentityError::NoUser(wanted.user.clone())),
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
        self.0.as_ref().map(|user| Owner {
            user: user.id,
            group: user.group,
        })
    }

    /// Switches to that user and drops every capability; a root that stays root keeps its own. No
    /// thread may be running yet.
    ///
    /// # Errors
    /// An [`IdentityError`]; the process must not continue then.
    pub fn assume(self) -> Result<Now, IdentityError> {
        let capabilities = |error| system("capabilities", error);
        if let Some(user) = &self.0 {
            process::empty_bounding_set().map_err(capabilities)?;
            process::become_user(user).map_err(|error| system("becoming the user", error))?;
        }
        let now = process::identity().map_err(|error| system("who we are", error))?;
        if let Some(user) = &self.0
            && (now.users != [user.id; 3] || now.groups != [user.group; 3])
        {
            return Err(IdentityError::NotDropped(
                "the ids are not those of the user",
            ));
        }
        let ([_, user, _], [_, group, _]) = (now.users, now.groups);
        if user != 0 {
            // If there are none, a service manager may have forbidden the call that drops them.
            if process::has_capabilities().map_err(capabilities)? {
                process::drop_capabilities().map_err(capabilities)?;
            }
            if process::has_capabilities().map_err(capabilities)? {
                return Err(IdentityError::NotDropped("capabilities are left"));
            }
            if process::can_become_root() {
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
        self.user == 0
    }
}

impl fmt::Display for Now {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, group } = self;
        let found = process::user_by_id(*user).ok().flatten();
        let name = found.and_then(|user| user.name);
        let name = name.and_then(|name| name.into_string().ok());
        let name = name.unwrap_or_else(|| "without a name".to_owned());
        let rights = match self.is_root() {
            true => "with the rights of root",
            false => "without capabilities",
        };
        write!(formatter, "user {name} ({user}), group {group}, {rights}")
    }
}

fn system(what: &'static str, error: io::Error) -> IdentityError {
    IdentityError::System(what, error)
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
        assert_eq!((root.id, root.group), (0, 0));
        assert_eq!(find(&wanted("0", None)).unwrap(), root);
        let other = find(&wanted("root", Some("12345"))).unwrap();
        assert_eq!((other.id, other.group), (0, 12345));
        let nameless = find(&wanted("3999999999", Some("root"))).unwrap();
        assert_eq!((nameless.name, nameless.id), (None, 3_999_999_999));
    }

    #[test]
    fn an_unknown_user_or_group_is_named_in_the_error() {
        let error = |user, group| find(&wanted(user, group)).unwrap_err().to_string();
        assert_eq!(error("nobody here", None), r#"no such user: "nobody here""#);
        assert_eq!(error("root", Some("none?")), r#"no such group: "none?""#);
        assert!(error("3999999999", None).contains("USER:GROUP"));
    }
}
