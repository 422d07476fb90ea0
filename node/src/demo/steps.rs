//! Every step, in the order in which they are played. Each stands on those before it.

mod abroad;
mod approved;
mod catalogue;
mod denied;
mod failover;
mod founded;
mod joined;
mod residency;
mod returned;

use super::step::Step;

/// The demo. A further step is a module with a `STEP`, and a line here.
pub(super) const STEPS: &[Step] = &[
    founded::STEP,
    joined::STEP,
    approved::STEP,
    catalogue::STEP,
    abroad::STEP,
    residency::STEP,
    denied::STEP,
    failover::STEP,
    returned::STEP,
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_step_has_a_name_of_its_own_and_something_to_say() {
        let names: BTreeSet<_> = STEPS.iter().map(|step| step.name).collect();
        assert_eq!(names.len(), STEPS.len());
        assert!(STEPS.iter().all(|step| !step.title.is_empty() && !step.about.is_empty()));
    }
}
