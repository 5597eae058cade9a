//! The watched directories as a tree of names.
//!
//! A directory has a node for each path that leads to it through symlinks; they share one watch. A node
//! costs 28 bytes, its name and two more, and an entry in the table of watches. The tree makes no
//! system calls.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{OsStr, OsString};
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Names a node. The id of a removed node is used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct NodeId(u32);

impl NodeId {
    fn index(self) -> usize {
        self.0 as usize
    }
}

/// No node.
const NONE: NodeId = NodeId(u32::MAX);

/// The names of removed nodes are dropped once they take this many bytes, and half of all.
const GARBAGE_BYTES: usize = 64 * 1024;

#[derive(Clone, Copy)]
struct Node {
    parent: NodeId,
    child: NodeId,
    next: NodeId,
    previous: NodeId,
    /// Another node of the same watch.
    twin: NodeId,
    watch: i32,
    /// Where the name is in `names`: its length in two bytes, then its bytes.
    name: u32,
}

/// All nodes.
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// The first removed node; `next` leads to the others.
    free: NodeId,
    length: usize,
    bound: usize,
    names: Vec<u8>,
    garbage: usize,
    /// The first node of each watch.
    by_watch: HashMap<i32, NodeId>,
    /// The nodes that are symlinks: the kernel reports no event for these.
    links: HashMap<(NodeId, OsString), NodeId>,
}

impl Tree {
    /// An empty tree of at most `bound` nodes.
    pub(super) fn new(bound: usize) -> Self {
        Tree {
            nodes: Vec::new(),
            free: NONE,
            length: 0,
            bound: bound.min(NONE.index()),
            names: Vec::new(),
            garbage: 0,
            by_watch: HashMap::new(),
            links: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// `None` for [`NONE`].
    fn node(&self, id: NodeId) -> Option<&Node> {
        let node = self.nodes.get(id.index());
        assert!(node.is_some() || id == NONE, "no node has this id");
        node
    }

    /// `None` for [`NONE`].
    fn node_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        let node = self.nodes.get_mut(id.index());
        assert!(node.is_some() || id == NONE, "no node has this id");
        node
    }

    /// Adds a node; without a parent its name is a whole path. `None` when the bound is reached.
    pub(super) fn add(
        &mut self,
        parent: Option<NodeId>,
        name: &OsStr,
        watch: i32,
        is_link: bool,
    ) -> Option<NodeId> {
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
        let id = self.put(node)?;
        if let Some(node) = self.node_mut(next) {
            node.previous = id;
        }
        if let Some(node) = self.node_mut(parent) {
            node.child = id;
        }
        let twin = self.by_watch.insert(watch, id).unwrap_or(NONE);
        if let Some(node) = self.node_mut(id) {
            node.twin = twin;
        }
        self.length += 1;
        if is_link {
            self.mark_link(id);
        }
        Some(id)
    }

    fn put(&mut self, node: Node) -> Option<NodeId> {
        let id = self.free;
        if let Some(free) = self.node_mut(id) {
            let next = std::mem::replace(free, node).next;
            self.free = next;
            return Some(id);
        }
        let id = NodeId(u32::try_from(self.nodes.len()).ok()?);
        self.nodes.push(node);
        Some(id)
    }

    /// The nodes of a watch.
    pub(super) fn of(&self, watch: i32) -> Vec<NodeId> {
        self.twins(watch).collect()
    }

    fn twins(&self, watch: i32) -> impl Iterator<Item = NodeId> {
        let first = self.by_watch.get(&watch).copied();
        iter::successors(first, |&id| {
            self.node(id)
                .map(|node| node.twin)
                .filter(|&twin| twin != NONE)
        })
    }

    pub(super) fn has_watch(&self, watch: i32) -> bool {
        self.by_watch.contains_key(&watch)
    }

    pub(super) fn watch(&self, id: NodeId) -> Option<i32> {
        self.node(id).map(|node| node.watch)
    }

    /// The parent of a node, and the node's name.
    pub(super) fn parent(&self, id: NodeId) -> Option<(NodeId, &OsStr)> {
        let node = self.node(id).filter(|node| node.parent != NONE)?;
        Some((node.parent, self.name(node)))
    }

    /// The node of a watch with this name below `parent`.
    pub(super) fn find(&self, parent: NodeId, name: &OsStr, watch: i32) -> Option<NodeId> {
        self.twins(watch)
            .find(|&id| self.parent(id) == Some((parent, name)))
    }

    /// The node with this name below `parent`, whatever its watch. Searches all children.
    pub(super) fn child(&self, parent: NodeId, name: &OsStr) -> Option<NodeId> {
        let first = self.node(parent)?.child;
        let present = |id: NodeId| Some(id).filter(|&id| id != NONE);
        iter::successors(present(first), |&id| present(self.node(id)?.next))
            .find(|&id| self.node(id).is_some_and(|node| self.name(node) == name))
    }

    /// Records that a node is a symlink.
    pub(super) fn mark_link(&mut self, id: NodeId) {
        if let Some((parent, name)) = self.parent(id) {
            self.links.insert((parent, name.to_owned()), id);
        }
    }

    /// The symlink with this name below `parent`.
    pub(super) fn link(&self, parent: NodeId, name: &OsStr) -> Option<NodeId> {
        if self.links.is_empty() {
            return None;
        }
        self.links.get(&(parent, name.to_owned())).copied()
    }

    /// How many symlinks are in the path of a node.
    pub(super) fn links_in(&self, id: NodeId) -> usize {
        let mut links = 0;
        let mut id = Some(id).filter(|_| !self.links.is_empty());
        while let Some(below) = id
            && let Some((parent, name)) = self.parent(below)
        {
            links += usize::from(self.link(parent, name) == Some(below));
            id = Some(parent);
        }
        links
    }

    /// All symlinks, each as its parent and its name.
    pub(super) fn links(&self) -> impl Iterator<Item = (NodeId, &OsStr)> {
        self.links.keys().map(|(id, name)| (*id, &**name))
    }

    /// Returns true if a node or an ancestor has this watch: following it again would never end.
    pub(super) fn is_within(&self, id: NodeId, watch: i32) -> bool {
        self.above(id).any(|node| node.watch == watch)
    }

    /// A node and its ancestors.
    fn above(&self, id: NodeId) -> impl Iterator<Item = &Node> {
        iter::successors(self.node(id), |node| self.node(node.parent))
    }

    pub(super) fn path(&self, id: NodeId) -> PathBuf {
        let mut names: Vec<&OsStr> = self.above(id).map(|node| self.name(node)).collect();
        names.reverse();
        names.into_iter().collect()
    }

    fn name(&self, node: &Node) -> &OsStr {
        OsStr::from_bytes(name_at(&self.names, node.name))
    }

    /// The node at a path relative to another.
    pub(super) fn at(&self, id: NodeId, relative: &Path) -> Option<NodeId> {
        relative
            .iter()
            .try_fold(id, |id, name| self.child(id, name))
    }

    /// Removes a node with everything below it. Returns the watches that have no node left.
    pub(super) fn remove(&mut self, id: NodeId) -> Vec<i32> {
        let Some(&Node {
            parent,
            next,
            previous,
            ..
        }) = self.node(id)
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
        let mut leaving = vec![id];
        let mut useless = Vec::new();
        while let Some(id) = leaving.pop() {
            let node = *self.node(id).expect("a child is a node");
            let mut child = node.child;
            while let Some(below) = self.node(child) {
                leaving.push(child);
                child = below.next;
            }
            if self.leave_watch(id, node.watch, node.twin) {
                useless.push(node.watch);
            }
            self.release(id, node);
        }
        self.tidy_names();
        useless
    }

    /// Takes a node from those of its watch. Returns true if it was the last.
    fn leave_watch(&mut self, id: NodeId, watch: i32, twin: NodeId) -> bool {
        let before = self
            .twins(watch)
            .find(|&other| self.node(other).is_some_and(|node| node.twin == id));
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

    fn release(&mut self, id: NodeId, node: Node) {
        let length = self.name(&node).len();
        self.garbage += length + size_of::<u16>();
        if !self.links.is_empty() {
            let key = (node.parent, self.name(&node).to_owned());
            if let Entry::Occupied(link) = self.links.entry(key)
                && *link.get() == id
            {
                link.remove();
            }
        }
        let free = self.free;
        if let Some(node) = self.node_mut(id) {
            // Its watch is none: a free id is at the end of no chain.
            (node.parent, node.child, node.twin) = (NONE, NONE, NONE);
            (node.next, node.watch, node.name) = (free, -1, 0);
        }
        self.free = id;
        self.length -= 1;
    }

    /// Drops the names of removed nodes once they are most of all.
    fn tidy_names(&mut self) {
        if self.garbage < GARBAGE_BYTES || self.garbage * 2 < self.names.len() {
            return;
        }
        let mut names = Vec::with_capacity(self.names.len() - self.garbage);
        for node in self.nodes.iter_mut().filter(|node| node.watch >= 0) {
            let name = name_at(&self.names, node.name);
            let length = u16::try_from(name.len()).expect("it was stored with 16 bits");
            node.name = u32::try_from(names.len()).expect("there are fewer bytes than before");
            names.extend(length.to_ne_bytes());
            names.extend(name);
        }
        self.names = names;
        self.garbage = 0;
    }
}

/// The name that stands at `start`.
fn name_at(names: &[u8], start: u32) -> &[u8] {
    let rest = names.get(start as usize..);
    let (length, rest) = rest
        .and_then(|rest| rest.split_first_chunk())
        .expect("each node has a name");
    let name = rest.get(..usize::from(u16::from_ne_bytes(*length)));
    name.expect("each name is whole")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    #[test]
    fn a_node_is_found_by_its_watch_and_its_path() {
        let mut tree = Tree::new(10);
        let root = tree.add(None, name("/r"), 1, false).unwrap();
        let a = tree.add(Some(root), name("a"), 2, false).unwrap();
        let b = tree.add(Some(a), name("b"), 3, false).unwrap();
        assert_eq!(tree.path(b), Path::new("/r/a/b"));
        assert_eq!(tree.of(3), [b]);
        assert_eq!(tree.find(a, name("b"), 3), Some(b));
        assert_eq!(tree.find(a, name("c"), 3), None);
        assert_eq!(tree.child(root, name("a")), Some(a));
        assert_eq!(tree.at(root, Path::new("a/b")), Some(b));
        assert_eq!(tree.at(root, Path::new("")), Some(root));
        assert_eq!(tree.at(root, Path::new("b")), None);
        assert!(tree.is_within(b, 1) && tree.is_within(b, 3));
        assert!(!tree.is_within(a, 3));
        assert_eq!(tree.len(), 3);
    }

    #[test]
    fn a_node_goes_with_its_children_and_a_watch_with_its_last_node() {
        let mut tree = Tree::new(10);
        let root = tree.add(None, name("/r"), 1, false).unwrap();
        let a = tree.add(Some(root), name("a"), 2, false).unwrap();
        let other = tree.add(Some(root), name("o"), 4, false).unwrap();
        let link = tree.add(Some(root), name("l"), 2, true).unwrap();
        let below = tree.add(Some(a), name("b"), 3, false).unwrap();
        tree.add(Some(link), name("b"), 3, false).unwrap();
        assert_eq!(tree.of(2), [link, a]);
        assert_eq!(tree.link(root, name("l")), Some(link));
        assert_eq!(tree.links().count(), 1);
        assert!(tree.remove(a).is_empty());
        assert_eq!(tree.of(2), [link]);
        assert_eq!(tree.path(tree.of(3)[0]), Path::new("/r/l/b"));
        assert!(!tree.of(3).contains(&below));
        assert_eq!(tree.child(root, name("o")), Some(other));
        let mut gone = tree.remove(link);
        gone.sort_unstable();
        assert_eq!(gone, [2, 3]);
        assert_eq!(tree.link(root, name("l")), None);
        assert!(!tree.has_watch(2) && tree.has_watch(4));
        assert_eq!(tree.len(), 2);
    }

    #[test]
    fn the_number_of_nodes_is_bounded() {
        let mut tree = Tree::new(2);
        let root = tree.add(None, name("/r"), 1, false).unwrap();
        let a = tree.add(Some(root), name("a"), 2, false).unwrap();
        assert_eq!(tree.add(Some(root), name("b"), 3, false), None);
        assert!(!tree.has_watch(3));
        tree.remove(a);
        assert!(tree.add(Some(root), name("b"), 3, false).is_some());
        assert_eq!(tree.nodes.len(), 2);
    }

    /// Thousands of random changes, compared with the plain paths of each watch.
    #[test]
    fn a_random_tree_is_the_same_as_a_plain_one() {
        let mut random = fastrand::Rng::with_seed(11);
        let mut tree = Tree::new(10_000);
        let root = tree.add(None, name("/r"), 0, false).unwrap();
        let mut plain: Vec<(PathBuf, NodeId, i32)> = vec![("/r".into(), root, 0)];
        for step in 1..20_000 {
            let (path, id, _) = plain[random.usize(..plain.len())].clone();
            if plain.len() < 1000 || random.u8(..10) < 5 {
                // The length makes names fill their garbage.
                let name = format!("{step}-{}", "x".repeat(random.usize(..40)));
                let is_link = random.bool();
                let added = tree.add(Some(id), name.as_ref(), step, is_link);
                plain.push((path.join(name), added.unwrap(), step));
            } else if id != root {
                let mut gone = tree.remove(id);
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
        assert_eq!(tree.len(), plain.len());
        for (path, id, watch) in plain {
            assert_eq!(tree.path(id), path);
            assert_eq!(tree.of(watch), [id]);
        }
        assert!(tree.garbage < tree.names.len());
    }
}
