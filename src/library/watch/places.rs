//! The directories that are watched, and where each of them is.
//!
//! Owns the tree of their names: a watch has as many places as there are ways to its directory
//! through symlinks. It must not know the system that watches, and asks it nothing.
//!
//! A directory costs 28 bytes, its name and two more, and its entry in the table of watches.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The number of a place. It is given to another place once this one was removed.
pub(super) type Place = u32;

/// Stands for "no place".
const NONE: Place = Place::MAX;

/// Names of places that were removed are kept until they are this many bytes, and half of all.
const GARBAGE_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy)]
struct Node {
    parent: Place,
    child: Place,
    next: Place,
    previous: Place,
    /// Another place of the same watch.
    twin: Place,
    watch: i32,
    /// Where the length of the name stands, in two bytes, and then the name.
    name: u32,
}

/// All places.
pub(super) struct Places {
    nodes: Vec<Node>,
    /// Removed places, chained by `next`.
    free: Place,
    length: usize,
    bound: usize,
    names: Vec<u8>,
    garbage: usize,
    /// The first place of each watch.
    by_watch: HashMap<i32, Place>,
    /// The places that are symlinks, which no event of their own tells about.
    links: HashMap<(Place, OsString), Place>,
}

impl Places {
    /// None yet, and never more than `bound`.
    pub(super) fn new(bound: usize) -> Self {
        Places {
            nodes: Vec::new(),
            free: NONE,
            length: 0,
            bound: bound.min(NONE as usize),
            names: Vec::new(),
            garbage: 0,
            by_watch: HashMap::new(),
            links: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    fn node(&self, place: Place) -> Option<&Node> {
        self.nodes.get(place as usize)
    }

    fn node_mut(&mut self, place: Place) -> Option<&mut Node> {
        self.nodes.get_mut(place as usize)
    }

    /// Adds a place; without a parent its name is a whole path. `None` when the bound is reached.
    pub(super) fn add(
        &mut self,
        parent: Option<Place>,
        name: &OsStr,
        watch: i32,
        is_link: bool,
    ) -> Option<Place> {
        let start = u32::try_from(self.names.len()).ok()?;
        let length = u16::try_from(name.len()).ok()?;
        if self.length >= self.bound {
            return None;
        }
        self.names.extend(length.to_ne_bytes());
        self.names.extend(name.as_bytes());
        let parent = parent.unwrap_or(NONE);
        let next = self.node(parent).map_or(NONE, |node| node.child);
        let node = Node {
            parent,
            child: NONE,
            next,
            previous: NONE,
            twin: NONE,
            watch,
            name: start,
        };
        let place = self.put(node)?;
        if let Some(node) = self.node_mut(next) {
            node.previous = place;
        }
        if let Some(node) = self.node_mut(parent) {
            node.child = place;
        }
        let twin = self.by_watch.insert(watch, place).unwrap_or(NONE);
        if let Some(node) = self.node_mut(place) {
            node.twin = twin;
        }
        self.length += 1;
        if is_link {
            self.mark_link(place);
        }
        Some(place)
    }

    fn put(&mut self, node: Node) -> Option<Place> {
        let place = self.free;
        if let Some(free) = self.nodes.get_mut(place as usize) {
            self.free = free.next;
            *free = node;
            return Some(place);
        }
        let place = Place::try_from(self.nodes.len()).ok()?;
        self.nodes.push(node);
        Some(place)
    }

    /// The places of a watch.
    pub(super) fn of(&self, watch: i32) -> Vec<Place> {
        self.twins(watch).collect()
    }

    fn twins(&self, watch: i32) -> impl Iterator<Item = Place> {
        let first = self.by_watch.get(&watch).copied();
        iter::successors(first, |&place| {
            self.node(place)
                .map(|node| node.twin)
                .filter(|&twin| twin != NONE)
        })
    }

    pub(super) fn has_watch(&self, watch: i32) -> bool {
        self.by_watch.contains_key(&watch)
    }

    pub(super) fn watch(&self, place: Place) -> Option<i32> {
        self.node(place).map(|node| node.watch)
    }

    /// Where a place is below another, with its name.
    pub(super) fn parent(&self, place: Place) -> Option<(Place, &OsStr)> {
        let node = self.node(place).filter(|node| node.parent != NONE)?;
        Some((node.parent, self.name(node)))
    }

    /// The place of a watch that has this name below `parent`.
    pub(super) fn find(&self, parent: Place, name: &OsStr, watch: i32) -> Option<Place> {
        self.twins(watch)
            .find(|&place| self.parent(place) == Some((parent, name)))
    }

    /// The place of a name below `parent`, whatever its watch. It looks at all of them in turn.
    pub(super) fn child(&self, parent: Place, name: &OsStr) -> Option<Place> {
        let first = self.node(parent)?.child;
        let present = |place: Place| Some(place).filter(|&place| place != NONE);
        iter::successors(present(first), |&place| present(self.node(place)?.next))
            .find(|&place| self.node(place).is_some_and(|node| self.name(node) == name))
    }

    /// A place turned out to be a symlink.
    pub(super) fn mark_link(&mut self, place: Place) {
        if let Some((parent, name)) = self.parent(place) {
            self.links.insert((parent, name.to_owned()), place);
        }
    }

    /// The symlink of that name below `parent`.
    pub(super) fn link(&self, parent: Place, name: &OsStr) -> Option<Place> {
        if self.links.is_empty() {
            return None;
        }
        self.links.get(&(parent, name.to_owned())).copied()
    }

    /// How many symlinks the path of a place has.
    pub(super) fn links_in(&self, place: Place) -> usize {
        let mut links = 0;
        let mut place = Some(place).filter(|_| !self.links.is_empty());
        while let Some(below) = place
            && let Some((parent, name)) = self.parent(below)
        {
            links += usize::from(self.link(parent, name) == Some(below));
            place = Some(parent);
        }
        links
    }

    /// All symlinks, by where they are.
    pub(super) fn links(&self) -> impl Iterator<Item = (Place, &OsStr)> {
        self.links.keys().map(|(place, name)| (*place, &**name))
    }

    /// Whether a place, or one above it, has this watch: going there again would never end.
    pub(super) fn is_within(&self, place: Place, watch: i32) -> bool {
        self.above(place).any(|node| node.watch == watch)
    }

    /// A place and those above it.
    fn above(&self, place: Place) -> impl Iterator<Item = &Node> {
        iter::successors(self.node(place), |node| self.node(node.parent))
    }

    pub(super) fn path(&self, place: Place) -> PathBuf {
        let mut names: Vec<&OsStr> = self.above(place).map(|node| self.name(node)).collect();
        names.reverse();
        names.into_iter().collect()
    }

    fn name(&self, node: &Node) -> &OsStr {
        OsStr::from_bytes(name_at(&self.names, node.name).unwrap_or_default())
    }

    /// The place at a path below another.
    pub(super) fn at(&self, place: Place, relative: &Path) -> Option<Place> {
        relative
            .iter()
            .try_fold(place, |place, name| self.child(place, name))
    }

    /// Removes a place with all below it. Answers the watches that have no place any more.
    pub(super) fn remove(&mut self, place: Place) -> Vec<i32> {
        let Some(&Node {
            parent,
            next,
            previous,
            ..
        }) = self.node(place)
        else {
            return Vec::new();
        };
        if let Some(node) = self.node_mut(next) {
            node.previous = previous;
        }
        match self.node_mut(previous) {
            Some(node) => node.next = next,
            None => {
                if let Some(node) = self.node_mut(parent) {
                    node.child = next;
                }
            }
        }
        let mut leaving = vec![place];
        let mut useless = Vec::new();
        while let Some(place) = leaving.pop() {
            let Some(&node) = self.node(place) else {
                continue;
            };
            let mut child = node.child;
            while let Some(below) = self.node(child) {
                leaving.push(child);
                child = below.next;
            }
            if self.leave_watch(place, node.watch, node.twin) {
                useless.push(node.watch);
            }
            self.release(place, node);
        }
        self.tidy_names();
        useless
    }

    /// Takes a place from those of its watch; answers whether it was the last.
    fn leave_watch(&mut self, place: Place, watch: i32, twin: Place) -> bool {
        let before = self
            .twins(watch)
            .find(|&other| self.node(other).is_some_and(|node| node.twin == place));
        match before {
            Some(before) => {
                if let Some(node) = self.node_mut(before) {
                    node.twin = twin;
                }
                false
            }
            None if twin == NONE => {
                self.by_watch.remove(&watch);
                true
            }
            None => {
                self.by_watch.insert(watch, twin);
                false
            }
        }
    }

    fn release(&mut self, place: Place, node: Node) {
        let length = self.name(&node).len();
        self.garbage += length + size_of::<u16>();
        if !self.links.is_empty() {
            let key = (node.parent, self.name(&node).to_owned());
            if let Entry::Occupied(link) = self.links.entry(key)
                && *link.get() == place
            {
                link.remove();
            }
        }
        let free = self.free;
        if let Some(node) = self.node_mut(place) {
            // Its watch is none: a free place is at the end of no chain.
            (node.parent, node.child, node.twin) = (NONE, NONE, NONE);
            (node.next, node.watch, node.name) = (free, -1, 0);
        }
        self.free = place;
        self.length -= 1;
    }

    /// Forgets the names of removed places when they are most of all.
    fn tidy_names(&mut self) {
        if self.garbage < GARBAGE_BYTES || self.garbage * 2 < self.names.len() {
            return;
        }
        let mut names = Vec::with_capacity(self.names.len() - self.garbage);
        for node in self.nodes.iter_mut().filter(|node| node.watch >= 0) {
            let name = name_at(&self.names, node.name).unwrap_or_default();
            let (Ok(start), Ok(length)) = (u32::try_from(names.len()), u16::try_from(name.len()))
            else {
                continue;
            };
            node.name = start;
            names.extend(length.to_ne_bytes());
            names.extend(name);
        }
        self.names = names;
        self.garbage = 0;
    }
}

/// The name that stands at `start`.
fn name_at(names: &[u8], start: u32) -> Option<&[u8]> {
    let (length, rest) = names.get(start as usize..)?.split_first_chunk()?;
    rest.get(..usize::from(u16::from_ne_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn a_place_is_found_by_its_watch_and_its_path() {
        let mut places = Places::new(10);
        let root = places.add(None, name("/r"), 1, false).unwrap();
        let a = places.add(Some(root), name("a"), 2, false).unwrap();
        let b = places.add(Some(a), name("b"), 3, false).unwrap();
        assert_eq!(places.path(b), Path::new("/r/a/b"));
        assert_eq!(places.of(3), [b]);
        assert_eq!(places.find(a, name("b"), 3), Some(b));
        assert_eq!(places.find(a, name("c"), 3), None);
        assert_eq!(places.child(root, name("a")), Some(a));
        assert_eq!(places.at(root, Path::new("a/b")), Some(b));
        assert_eq!(places.at(root, Path::new("")), Some(root));
        assert_eq!(places.at(root, Path::new("b")), None);
        assert!(places.is_within(b, 1) && places.is_within(b, 3));
        assert!(!places.is_within(a, 3));
        assert_eq!(places.len(), 3);
    }

    #[test]
    fn what_is_below_goes_too_and_a_watch_with_its_last_place() {
        let mut places = Places::new(10);
        let root = places.add(None, name("/r"), 1, false).unwrap();
        let a = places.add(Some(root), name("a"), 2, false).unwrap();
        let other = places.add(Some(root), name("o"), 4, false).unwrap();
        let link = places.add(Some(root), name("l"), 2, true).unwrap();
        let below = places.add(Some(a), name("b"), 3, false).unwrap();
        places.add(Some(link), name("b"), 3, false).unwrap();
        assert_eq!(places.of(2), [link, a]);
        assert_eq!(places.link(root, name("l")), Some(link));
        assert_eq!(places.links().count(), 1);
        assert!(places.remove(a).is_empty());
        assert_eq!(places.of(2), [link]);
        assert_eq!(places.path(places.of(3)[0]), Path::new("/r/l/b"));
        assert!(!places.of(3).contains(&below));
        assert_eq!(places.child(root, name("o")), Some(other));
        let mut gone = places.remove(link);
        gone.sort_unstable();
        assert_eq!(gone, [2, 3]);
        assert_eq!(places.link(root, name("l")), None);
        assert!(!places.has_watch(2) && places.has_watch(4));
        assert_eq!(places.len(), 2);
    }

    #[test]
    fn there_are_never_more_than_the_bound() {
        let mut places = Places::new(2);
        let root = places.add(None, name("/r"), 1, false).unwrap();
        let a = places.add(Some(root), name("a"), 2, false).unwrap();
        assert_eq!(places.add(Some(root), name("b"), 3, false), None);
        assert!(!places.has_watch(3));
        places.remove(a);
        assert!(places.add(Some(root), name("b"), 3, false).is_some());
        assert_eq!(places.nodes.len(), 2);
    }

    /// Thousands of random changes, compared with the plain paths of each watch.
    #[test]
    fn a_random_tree_is_the_same_as_a_plain_one() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut places = Places::new(10_000);
        let root = places.add(None, name("/r"), 0, false).unwrap();
        let mut plain: Vec<(PathBuf, Place, i32)> = vec![("/r".into(), root, 0)];
        for step in 1..20_000 {
            let (path, place, _) = plain[random.usize(..plain.len())].clone();
            if plain.len() < 1000 || random.u8(..10) < 5 {
                // The length makes names fill their garbage.
                let name = format!("{step}-{}", "x".repeat(random.usize(..40)));
                let is_link = random.bool();
                let added = places.add(Some(place), name.as_ref(), step, is_link);
                plain.push((path.join(name), added.unwrap(), step));
            } else if place != root {
                let mut gone = places.remove(place);
                let mut expected = Vec::new();
                plain.retain(|(other, _, watch)| {
                    let stays = !other.starts_with(&path);
                    if !stays {
                        expected.push(*watch);
                    }
                    stays
                });
                gone.sort_unstable();
                expected.sort_unstable();
                assert_eq!(gone, expected);
            }
        }
        assert_eq!(places.len(), plain.len());
        for (path, place, watch) in plain {
            assert_eq!(places.path(place), path);
            assert_eq!(places.of(watch), [place]);
        }
        assert!(places.garbage < places.names.len());
    }
}
