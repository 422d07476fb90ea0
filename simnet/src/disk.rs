//! What a node keeps over a restart. As in the real node records go to the store one group at a time, and a crash can
//! come between a record's being handed over and its being durable.

use std::collections::BTreeMap;
use std::sync::Arc;

use comity_protocol::advert::Sequence;
use comity_protocol::ids::{NodeId, OrgName};
use comity_protocol::mesh::{MeshRecord, Restored};
use comity_protocol::rng::Rng;

use crate::scenario::DiskFate;

#[derive(Clone, Debug, Default)]
struct Kept {
    own: Sequence,
    sequences: BTreeMap<NodeId, Sequence>,
    adverts: BTreeMap<NodeId, Arc<[u8]>>,
    roots: BTreeMap<OrgName, Vec<u8>>,
}

/// One node's disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    durable: Kept,
    group: Vec<MeshRecord>,
    waiting: Vec<MeshRecord>,
}

impl Disk {
    /// A record is handed over.
    pub(crate) fn write(&mut self, record: MeshRecord) {
        self.waiting.push(record);
    }

    /// Begins the next group, if there is one and none is under way.
    pub(crate) fn begin_group(&mut self) -> bool {
        let begin = self.group.is_empty() && !self.waiting.is_empty();
        if begin {
            self.group = core::mem::take(&mut self.waiting);
        }
        begin
    }

    /// The group is durable; the own sequence among it.
    pub(crate) fn end_group(&mut self) -> Option<Sequence> {
        let group = core::mem::take(&mut self.group);
        let own = group.iter().rev().find_map(|record| match record {
            MeshRecord::OwnSequence(sequence) => Some(*sequence),
            _ => None,
        });
        group.into_iter().for_each(|record| self.durable.keep(record));
        own
    }

    /// The node has crashed.
    pub(crate) fn crash(&mut self, fate: DiskFate, rng: &mut Rng) {
        let under_way: Vec<_> = self.group.drain(..).chain(self.waiting.drain(..)).collect();
        match fate {
            // The store had got to somewhere in the middle.
            DiskFate::Kept => {
                let written = rng.below(under_way.len() + 1);
                under_way.into_iter().take(written).for_each(|record| self.durable.keep(record));
            }
            DiskFate::RolledBack => {}
            DiskFate::Lost => self.durable = Kept::default(),
        }
    }

    /// What a node that starts finds.
    pub(crate) fn restored(&self) -> Restored {
        Restored {
            own: self.durable.own,
            sequences: self.durable.sequences.clone(),
            adverts: self.durable.adverts.values().map(|bytes| bytes.to_vec()).collect(),
        }
    }

    /// The chains of roots that were kept.
    pub(crate) fn roots(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.durable.roots.values()
    }

    /// The sequences that are durable.
    pub(crate) fn sequences(&self) -> &BTreeMap<NodeId, Sequence> {
        &self.durable.sequences
    }
}

impl Kept {
    fn keep(&mut self, record: MeshRecord) {
        match record {
            MeshRecord::OwnSequence(sequence) => self.own = sequence,
            MeshRecord::Advert { node, sequence, bytes } => {
                self.sequences.insert(node, sequence);
                self.adverts.insert(node, bytes);
            }
            MeshRecord::Forget(node) => {
                self.adverts.remove(&node);
            }
            MeshRecord::Roots { org, bytes } => {
                self.roots.insert(org, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(seq: u64) -> MeshRecord {
        MeshRecord::OwnSequence(Sequence { epoch: 1, seq })
    }

    #[test]
    fn a_power_cut_takes_what_was_not_durable_and_a_new_disk_everything() {
        let mut disk = Disk::default();
        disk.write(own(1));
        assert!(disk.begin_group() && !disk.begin_group());
        assert_eq!(disk.end_group(), Some(Sequence { epoch: 1, seq: 1 }));
        disk.write(own(2));
        assert!(disk.begin_group());
        disk.write(own(3));
        disk.crash(DiskFate::RolledBack, &mut Rng::new(1));
        assert_eq!(disk.restored().own.seq, 1);
        disk.crash(DiskFate::Lost, &mut Rng::new(1));
        assert_eq!(disk.restored().own, Sequence::default());
    }

    #[test]
    fn a_killed_process_leaves_a_first_part_of_what_it_wrote() {
        let left = |seed| {
            let mut disk = Disk::default();
            (1..=3).for_each(|seq| disk.write(own(seq)));
            disk.crash(DiskFate::Kept, &mut Rng::new(seed));
            disk.restored().own.seq
        };
        let seen: std::collections::BTreeSet<u64> = (0..50).map(left).collect();
        assert_eq!(seen, [0, 1, 2, 3].into());
    }
}
