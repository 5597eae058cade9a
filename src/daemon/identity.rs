//! Switching from root to another user for good.
//!
//! Owns finding the user, becoming it, and making sure that there is no way back. It must not know
//! what has to be had before.

use std::fmt;
use std::io;

use thiserror::Error;

use crate::config::UserName;
use crate::sys::process::{self, User};

/// Why the daemon cannot be who it should be.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// Nobody is called so.
    #[error("no such user: {0:?}")]
    NoUser(String),
    /// No group is called so.
    #[error("no such group: {0:?}")]
    NoGroup(String),
    /// A number that nobody has, without a group.
    #[error("user {0} is not in the user database, so its group is unknown: use USER:GROUP")]
    GroupUnknown(u32),
    /// Only root can become somebody else.
    #[error("only root can become user {0:?}")]
    NotRoot(String),
    /// The system says no.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// It was not for good.
    #[error("privileges were dropped, but {0}")]
    WayBack(&'static str),
}

/// Who to become.
pub struct Plan(Option<User>);

/// Whose a file is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The number of the user.
    pub user: u32,
    /// The number of the group.
    pub group: u32,
}

/// Who the daemon is now.
pub struct Now {
    user: u32,
    group: u32,
}

/// Finds out who to become. Nothing is changed yet.
///
/// # Errors
/// An [`IdentityError`] when the user is unknown, or cannot be become.
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
    let number = wanted.user.parse().ok();
    let found = process::user_by_name(&wanted.user).map_err(unknown)?;
    let found = match (found, number) {
        (None, Some(number)) => process::user_by_id(number).map_err(unknown)?,
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
    match (found, number, group) {
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
    /// Whether the daemon will be somebody else.
    #[must_use]
    pub fn changes(&self) -> bool {
        self.0.is_some()
    }

    /// Whose that must be what root makes before and the daemon is to be reached by.
    #[must_use]
    pub fn owner(&self) -> Option<Owner> {
        self.0.as_ref().map(|user| Owner {
            user: user.id,
            group: user.group,
        })
    }

    /// Becomes that user, and gives up every capability; root that stays root keeps its own. There
    /// must not be a thread yet.
    ///
    /// # Errors
    /// An [`IdentityError`]; the process must not go on then.
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
            return Err(IdentityError::WayBack("not all of them"));
        }
        let ([_, user, _], [_, group, _]) = (now.users, now.groups);
        if user != 0 {
            // Where there is none, a service manager may have forbidden the call that gives them up.
            if process::has_capabilities().map_err(capabilities)? {
                process::drop_capabilities().map_err(capabilities)?;
            }
            if process::has_capabilities().map_err(capabilities)? {
                return Err(IdentityError::WayBack("capabilities are left"));
            }
            if process::can_become_root() {
                return Err(IdentityError::WayBack("they can be got back"));
            }
        }
        Ok(Now { user, group })
    }
}

impl Now {
    /// Whether the daemon is root, with what root may do.
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
    fn who_is_not_known_is_named() {
        let told = |user, group| find(&wanted(user, group)).unwrap_err().to_string();
        assert_eq!(told("nobody here", None), r#"no such user: "nobody here""#);
        assert_eq!(told("root", Some("none?")), r#"no such group: "none?""#);
        assert!(told("3999999999", None).contains("USER:GROUP"));
    }
}
