//! The watched directories as a tree of names.
//!
//! A directory has a node for each path that leads to it through symlinks; they share one watch. A node
//! costs about a hundred bytes, a tenth of what the kernel needs for its watch. The tree makes no system
//! calls.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::iter;
use std::path::{Path, PathBuf};

use slab::Slab;

/// Names a node. The id of a removed node is used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct NodeId(u32);

impl NodeId {
    const MIN: NodeId = NodeId(0);
    const MAX: NodeId = NodeId(u32::MAX);

    fn index(self) -> usize {
        self.0 as usize
    }
}

struct Node {
    parent: Option<NodeId>,
    watch: i32,
    /// The kernel reports no events of a directory for the symlink that leads to it.
    is_link: bool,
    name: Box<OsStr>,
}

/// All nodes.
pub(super) struct Tree {
    nodes: Slab<Node>,
    bound: usize,
    /// Each node that has a parent, after its parent.
    children: BTreeSet<(NodeId, NodeId)>,
    by_watch: BTreeSet<(i32, NodeId)>,
    /// The nodes that are symlinks, by parent and name.
    links: HashMap<(NodeId, OsString), NodeId>,
}

impl Tree {
    /// An empty tree of at most `bound` nodes.
    pub(super) fn new(bound: usize) -> Self {
        Tree {
            nodes: Slab::new(),
            bound: bound.min(NodeId::MAX.index()),
            children: BTreeSet::new(),
            by_watch: BTreeSet::new(),
            links: HashMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes
            .get(id.index())
            .expect("a node is not removed while it is in use")
    }

    /// Adds a node; without a parent its name is a whole path. `None` when the bound is reached.
    pub(super) fn add(
        &mut self,
        parent: Option<NodeId>,
        name: &OsStr,
        watch: i32,
        is_link: bool,
    ) -> Option<NodeId> {
        if self.len() >= self.bound {
            return None;
        }
        let index = self.nodes.insert(Node {
            parent,
            watch,
            is_link: false,
            name: name.into(),
        });
        let id = NodeId(u32::try_from(index).expect("the bound has 32 bits"));
        self.children.extend(parent.map(|parent| (parent, id)));
        self.by_watch.insert((watch, id));
        if is_link {
            self.mark_link(id);
        }
        Some(id)
    }

    /// The nodes of a watch.
    pub(super) fn of(&self, watch: i32) -> Vec<NodeId> {
        self.twins(watch).collect()
    }

    fn twins(&self, watch: i32) -> impl Iterator<Item = NodeId> {
        let nodes = self
            .by_watch
            .range((watch, NodeId::MIN)..=(watch, NodeId::MAX));
        nodes.map(|(_, id)| *id)
    }

    fn children(&self, parent: NodeId) -> impl Iterator<Item = NodeId> {
        let nodes = self
            .children
            .range((parent, NodeId::MIN)..=(parent, NodeId::MAX));
        nodes.map(|(_, id)| *id)
    }

    pub(super) fn has_watch(&self, watch: i32) -> bool {
        self.twins(watch).next().is_some()
    }

    pub(super) fn watch(&self, id: NodeId) -> i32 {
        self.node(id).watch
    }

    /// The parent of a node, and the node's name.
    pub(super) fn parent(&self, id: NodeId) -> Option<(NodeId, &OsStr)> {
        let node = self.node(id);
        Some((node.parent?, &node.name))
    }

    /// The node of a watch with this name below `parent`.
    pub(super) fn find(&self, parent: NodeId, name: &OsStr, watch: i32) -> Option<NodeId> {
        self.twins(watch)
            .find(|&id| self.parent(id) == Some((parent, name)))
    }

    /// The node with this name below `parent`, whatever its watch. Searches all children.
    pub(super) fn child(&self, parent: NodeId, name: &OsStr) -> Option<NodeId> {
        self.children(parent)
            .find(|&id| &*self.node(id).name == name)
    }

    /// Records that a node is a symlink.
    pub(super) fn mark_link(&mut self, id: NodeId) {
        let node = self
            .nodes
            .get_mut(id.index())
            .expect("it was just found or added");
        if let Some(parent) = node.parent {
            node.is_link = true;
            self.links.insert((parent, node.name.to_os_string()), id);
        }
    }

    pub(super) fn is_link(&self, id: NodeId) -> bool {
        self.node(id).is_link
    }

    /// The symlink with this name below `parent`.
    pub(super) fn link(&self, parent: NodeId, name: &OsStr) -> Option<NodeId> {
        self.links.get(&(parent, name.to_owned())).copied()
    }

    /// How many symlinks are in the path of a node.
    pub(super) fn links_in(&self, id: NodeId) -> usize {
        self.above(id).filter(|node| node.is_link).count()
    }

    /// All symlinks, each as its parent and its name.
    pub(super) fn links(&self) -> Vec<(NodeId, OsString)> {
        self.links.keys().cloned().collect()
    }

    /// Returns true if a node or an ancestor has this watch: following it again would never end.
    pub(super) fn is_within(&self, id: NodeId, watch: i32) -> bool {
        self.above(id).any(|node| node.watch == watch)
    }

    /// A node and its ancestors.
    fn above(&self, id: NodeId) -> impl Iterator<Item = &Node> {
        let parent = |node: &&Node| node.parent.map(|parent| self.node(parent));
        iter::successors(Some(self.node(id)), parent)
    }

    pub(super) fn path(&self, id: NodeId) -> PathBuf {
        let mut names: Vec<&OsStr> = self.above(id).map(|node| &*node.name).collect();
        names.reverse();
        names.into_iter().collect()
    }

    /// The node at a path relative to another.
    pub(super) fn at(&self, id: NodeId, relative: &Path) -> Option<NodeId> {
        let mut names = relative.iter();
        names.try_fold(id, |id, name| self.child(id, name))
    }

    /// Removes a node with everything below it. Returns the watches that have no node left.
    pub(super) fn remove(&mut self, id: NodeId) -> Vec<i32> {
        let (mut leaving, mut useless) = (vec![id], Vec::new());
        while let Some(id) = leaving.pop() {
            leaving.extend(self.children(id));
            let Node {
                parent,
                watch,
                is_link,
                name,
            } = self.nodes.remove(id.index());
            if let Some(parent) = parent {
                self.children.remove(&(parent, id));
                if is_link {
                    self.links.remove(&(parent, name.into_os_string()));
                }
            }
            self.by_watch.remove(&(watch, id));
            if !self.has_watch(watch) {
                useless.push(watch);
            }
        }
        useless
    }
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
        assert_eq!(tree.of(2), [a, link]);
        assert_eq!(tree.link(root, name("l")), Some(link));
        assert_eq!(tree.links(), [(root, "l".into())]);
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
                let name = format!("{step}");
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
        assert_eq!(tree.children.len(), tree.len() - 1);
        assert_eq!(tree.by_watch.len(), tree.len());
    }
}
