//! The order in which variables that refer to each other can be resolved.

/// Groups of nodes, each after all that it refers to. A group of more than one, or of one that refers to itself, is a circle.
/// `targets[n]` are the nodes that `n` refers to; only those that `roots` lead to are there. Takes time in proportion to
/// nodes and references, and no more stack for a longer chain (Tarjan, 1972: strongly connected components).
pub(super) fn groups(targets: &[Vec<usize>], roots: impl IntoIterator<Item = usize>) -> Vec<Vec<usize>> {
    let mut search = Search {
        targets,
        seen: vec![None; targets.len()],
        lowest: vec![0; targets.len()],
        is_open: vec![false; targets.len()],
        open: Vec::new(),
        count: 0,
        groups: Vec::new(),
    };
    for root in roots {
        if search.seen[root].is_none() {
            search.visit(root);
        }
    }
    search.groups
}

struct Search<'a> {
    targets: &'a [Vec<usize>],
    /// How many were seen before.
    seen: Vec<Option<usize>>,
    /// The earliest seen of the open ones that can be reached.
    lowest: Vec<usize>,
    /// Of no group yet.
    is_open: Vec<bool>,
    open: Vec<usize>,
    count: usize,
    groups: Vec<Vec<usize>>,
}

impl Search<'_> {
    fn visit(&mut self, root: usize) {
        // Node, and which of its targets is next.
        let mut path = vec![(root, 0)];
        self.enter(root);
        while let Some((node, next)) = path.last_mut() {
            let node = *node;
            if let Some(&target) = self.targets[node].get(*next) {
                *next += 1;
                match self.seen[target] {
                    None => {
                        self.enter(target);
                        path.push((target, 0));
                    }
                    Some(seen) if self.is_open[target] => self.lowest[node] = self.lowest[node].min(seen),
                    Some(_) => {}
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                self.lowest[*parent] = self.lowest[*parent].min(self.lowest[node]);
            }
            if self.seen[node] == Some(self.lowest[node]) {
                self.close(node);
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.seen[node] = Some(self.count);
        self.lowest[node] = self.count;
        self.count += 1;
        self.is_open[node] = true;
        self.open.push(node);
    }

    /// All that was opened since the node, and is open still, is of its group.
    fn close(&mut self, node: usize) {
        let from = self.open.iter().rposition(|open| *open == node).unwrap_or(0);
        let group = self.open.split_off(from);
        for member in &group {
            self.is_open[*member] = false;
        }
        self.groups.push(group);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorted(targets: &[Vec<usize>]) -> Vec<Vec<usize>> {
        let mut groups = groups(targets, 0..targets.len());
        for group in &mut groups {
            group.sort_unstable();
        }
        groups
    }

    #[test]
    fn circles_are_groups_and_come_after_what_they_refer_to() {
        assert_eq!(sorted(&[vec![1], vec![2], vec![]]), [[2], [1], [0]]);
        assert_eq!(sorted(&[vec![1], vec![0, 2], vec![2], vec![0]]), [vec![2], vec![0, 1], vec![3]]);
        // Between two circles, and in none.
        assert_eq!(sorted(&[vec![0, 1], vec![2], vec![2]]), [[2], [1], [0]]);
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let chain: Vec<_> = (1..=200_000).map(|next| if next < 200_000 { vec![next] } else { Vec::new() }).collect();
        assert_eq!(groups(&chain, 0..1).len(), 200_000);
    }

    proptest! {
        #[test]
        fn every_node_is_in_one_group_after_what_it_refers_to(targets in prop::collection::vec(prop::collection::vec(0_usize..12, 0..4), 12)) {
            let groups = sorted(&targets);
            let mut group_of = vec![None; targets.len()];
            for (index, group) in groups.iter().enumerate() {
                for node in group {
                    prop_assert_eq!(group_of[*node].replace(index), None);
                }
            }
            for (node, targets) in targets.iter().enumerate() {
                prop_assert!(targets.iter().all(|target| group_of[*target] <= group_of[node]));
            }
        }
    }
}
