//! Rules about the metadata: one story on every node, and one controller per term.

use super::picture::Picture;
use super::{Judge, Violation, broken};
use crate::facts::Fact;
use chronik_core::ids::NodeId;
use chronik_core::metadata::Image;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Images that are kept to be compared; who is further behind than that is sent a snapshot, which is compared too.
const KEPT: u64 = 400;

/// At one index all nodes apply the same entry, and have the same image after it.
#[derive(Default)]
pub struct SameStory {
    entries: BTreeMap<u64, (u64, u64)>,
    images: BTreeMap<u64, Arc<Image>>,
}

impl Judge for SameStory {
    fn hear(&mut self, fact: &Fact, _: &Picture) -> Result<(), Violation> {
        match fact {
            Fact::Applied { node, index, term, content, image } => {
                let known = *self.entries.entry(*index).or_insert((*term, *content));
                if known != (*term, *content) {
                    return broken(
                        "one metadata log",
                        format!("n{node} applies {:?} at {index}, where {known:?} was applied", (term, content)),
                    );
                }
                self.compare(*node, *index, image)
            }
            Fact::Installed { node, index, image } => self.compare(*node, *index, image),
            _ => Ok(()),
        }
    }
}

impl SameStory {
    fn compare(&mut self, node: NodeId, index: u64, image: &Arc<Image>) -> Result<(), Violation> {
        let oldest = self.images.keys().next_back().map_or(0, |newest| newest.saturating_sub(KEPT));
        if index < oldest {
            return Ok(());
        }
        self.images = self.images.split_off(&oldest);
        let known = self.images.entry(index).or_insert_with(|| image.clone());
        if !Arc::ptr_eq(known, image) && !known.says_the_same_as(image) {
            return broken("one metadata image", format!("n{node} has another image at {index}"));
        }
        Ok(())
    }
}

/// In one term one process controls the cluster.
#[derive(Default)]
pub struct OneController {
    known: BTreeMap<u64, (NodeId, u64)>,
}

impl Judge for OneController {
    fn hear(&mut self, fact: &Fact, _: &Picture) -> Result<(), Violation> {
        let Fact::Controls { node, life, term } = fact else { return Ok(()) };
        let known = *self.known.entry(*term).or_insert((*node, *life));
        if known == (*node, *life) {
            return Ok(());
        }
        broken("one controller per term", format!("term {term} has {known:?} and {:?}", (node, life)))
    }
}
