//! Path prefixes as a tree of path elements.

use super::HashMap;

/// Values by prefix.
#[derive(Debug)]
pub(super) struct PathTree<T> {
    nodes: Vec<Node<T>>,
}

#[derive(Debug)]
struct Node<T> {
    /// The prefix, without a trailing slash.
    prefix: String,
    children: HashMap<Vec<u8>, usize>,
    values: Vec<T>,
    /// The nearest node above that has values.
    above: Option<usize>,
}

impl<T> Default for PathTree<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::new(String::new())] }
    }
}

impl<T> Node<T> {
    fn new(prefix: String) -> Self {
        // The standard hasher is keyed at random: paths come from the network.
        Self { prefix, children: HashMap::default(), values: Vec::new(), above: None }
    }
}

impl<T> PathTree<T> {
    /// The values of a prefix; a trailing slash does not count.
    pub(super) fn entry(&mut self, prefix: &str) -> &mut Vec<T> {
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
        let mut at = 0;
        for element in prefix.split('/').skip(1) {
            at = match self.nodes[at].children.get(element.as_bytes()) {
                Some(&child) => child,
                None => {
                    let child = self.nodes.len();
                    let prefix = format!("{}/{element}", self.nodes[at].prefix);
                    self.nodes.push(Node::new(prefix));
                    self.nodes[at].children.insert(element.as_bytes().to_vec(), child);
                    child
                }
            };
        }
        &mut self.nodes[at].values
    }

    /// Calls `f` with the values of every prefix, and links each prefix to the next shorter one that has values.
    pub(super) fn for_each(&mut self, f: impl Fn(&mut Vec<T>)) {
        let mut pending = vec![(0, None)];
        while let Some((at, above)) = pending.pop() {
            let node = &mut self.nodes[at];
            f(&mut node.values);
            node.above = above;
            let below = if node.values.is_empty() { above } else { Some(at) };
            pending.extend(node.children.values().map(|&child| (child, below)));
        }
    }

    /// Every prefix that has values, in no order.
    pub(super) fn all(&self) -> impl Iterator<Item = (&str, &[T])> {
        let filled = self.nodes.iter().filter(|node| !node.values.is_empty());
        filled.map(|node| (node.prefix.as_str(), node.values.as_slice()))
    }

    /// The prefixes of `path` by whole elements, the longest first, until `f` returns something.
    pub(super) fn find<'t, R>(&'t self, path: &[u8], mut f: impl FnMut(&'t str, &'t [T]) -> Option<R>) -> Option<R> {
        let mut at = 0;
        let mut rest = path.strip_prefix(b"/");
        while let Some(path) = rest {
            let node = &self.nodes[at];
            if node.children.is_empty() {
                break;
            }
            let end = memchr::memchr(b'/', path);
            let element = &path[..end.unwrap_or(path.len())];
            let Some(&child) = node.children.get(element) else { break };
            at = child;
            rest = end.map(|end| &path[end + 1..]);
        }
        let mut next = if self.nodes[at].values.is_empty() { self.nodes[at].above } else { Some(at) };
        while let Some(at) = next {
            let node = &self.nodes[at];
            if let Some(found) = f(&node.prefix, &node.values) {
                return Some(found);
            }
            next = node.above;
        }
        None
    }
}
