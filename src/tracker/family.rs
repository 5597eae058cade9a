//! The two address families: a tracker knows a peer by one address of each (BEP 7).

use std::net::IpAddr;
use std::ops::{Index, IndexMut};

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, IPv4 first.
    pub const ALL: [Family; 2] = [Family::V4, Family::V6];

    /// The family of an address.
    #[must_use]
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Family::V4,
            IpAddr::V6(_) => Family::V6,
        }
    }
}

/// One value for each family.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PerFamily<T> {
    v4: T,
    v6: T,
}

impl<T> PerFamily<T> {
    /// Both values, IPv4 first.
    pub fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        [&self.v4, &self.v6].into_iter()
    }

    /// Both values, IPv4 first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        [&mut self.v4, &mut self.v6].into_iter()
    }
}

impl<T> From<[T; 2]> for PerFamily<T> {
    fn from([v4, v6]: [T; 2]) -> Self {
        Self { v4, v6 }
    }
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}
