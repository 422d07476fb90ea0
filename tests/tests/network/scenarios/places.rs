//! Sites that are far away, and one that moves.

use std::time::{Duration, Instant};

use comity_tests::cut::{Backend, Link};

use crate::lab::{BERLIN, Ended, Lab, NEWYORK, PARIS};

/// 40 ms each way between any two.
pub(crate) fn three_distant_sites_agree_and_serve_a_call(backend: Backend) -> String {
    let delay = Duration::from_millis(40);
    let lab = Lab::start(backend, 1, Link::delayed(delay));
    for (number, (place, site)) in [("DE", BERLIN), ("FR", PARIS), ("DE", BERLIN)].into_iter().enumerate() {
        let id = format!("far-{number}");
        let began = Instant::now();
        assert_eq!(lab.call(NEWYORK, &id, &[place]), Ended::Done);
        let took = began.elapsed();
        assert!(took >= 2 * delay, "it took {took:?}: the network did not delay it");
        assert_eq!(lab.ran(&id), [site]);
    }
    // Its own server is nearer.
    assert_eq!(lab.call(NEWYORK, "near", &["US"]), Ended::Done);
    assert_eq!(lab.ran("near"), [NEWYORK]);
    let figures = lab.network.figures();
    assert!(figures.carried() > 100, "{figures:?}");
    format!("{} packets carried", figures.carried())
}

/// The node that the others dial first stops, and starts at another address, where nobody expects it. It has nobody's
/// address in its file: it finds the others by what it remembers, and they find it by what it then tells.
pub(crate) fn a_node_that_moves_is_found_again(backend: Backend) -> String {
    let mut lab = Lab::start(backend, 2, Link::delayed(Duration::from_millis(10)));
    let before = lab.network.addresses(BERLIN, &lab.trio.berlin.id);
    assert_eq!(lab.node_mut(BERLIN).stop().code(), Some(0));
    let Lab { network, trio, .. } = &mut lab;
    network.move_away(BERLIN, &trio.berlin);
    let after = lab.network.addresses(BERLIN, &lab.trio.berlin.id);
    assert!(before.iter().all(|address| !after.contains(address)), "{before:?} {after:?}");
    let began = Instant::now();
    lab.node_mut(BERLIN).start();
    lab.wait_until_whole();
    let took = began.elapsed();
    assert_eq!(lab.call(NEWYORK, "moved", &["DE"]), Ended::Done);
    assert_eq!(lab.ran("moved"), [BERLIN]);

    // Its peer was away meanwhile, and dials the new address by itself: the file still names the old one.
    lab.node_mut(NEWYORK).kill();
    lab.node_mut(NEWYORK).start();
    lab.wait_until_whole();
    assert_eq!(lab.call(NEWYORK, "moved-too", &["DE"]), Ended::Done);
    assert_eq!(lab.ran("moved-too"), [BERLIN]);
    lab.nothing_ran_twice();
    format!("whole {took:?} after its start")
}
