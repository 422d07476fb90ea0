//! Links that fall silent: in both directions, in one, again and again; and that heal.

use std::time::{Duration, Instant};

use comity_tests::cut::{Backend, Link};
use comity_tests::wait;

use crate::lab::{ALL, BERLIN, Ended, Lab, NEWYORK, PARIS};

/// Within what time a healed federation must be whole: a dial that was just put off for as long as dials ever are, one
/// that is lost, and room for a busy machine.
const HEALED_WITHIN: Duration = Duration::from_secs(60);

fn link() -> Link {
    Link::delayed(Duration::from_millis(10))
}

/// Frankfurt falls silent (it is Berlin here): calls that must stay in the EU go to Paris. When Paris is gone too they are
/// told that nobody can be reached, and New York, which could run them, does not.
pub(crate) fn what_is_cut_off_is_replaced_where_the_law_allows(backend: Backend) -> String {
    let lab = Lab::start(backend, 3, link());
    lab.network.isolate(BERLIN);
    let began = Instant::now();
    let doubtful = lab.calls_end_at(PARIS, 3, NEWYORK, "at-once", &["DE", "FR"]);
    let over = began.elapsed();
    lab.wait_for_peers(NEWYORK, 1);
    assert_eq!(lab.calls_end_at(PARIS, 3, NEWYORK, "known", &["DE", "FR"]), 0, "the silence is known");
    assert_eq!(lab.call(NEWYORK, "german", &["DE"]), Ended::Unreachable);

    // Who is cut off serves its own.
    assert_eq!(lab.call(BERLIN, "own", &["DE"]), Ended::Done);
    assert_eq!(lab.ran("own"), [BERLIN]);

    lab.network.isolate(PARIS);
    lab.wait_for_peers(NEWYORK, 0);
    let nobody = lab.call(NEWYORK, "nobody", &["EU"]);
    assert_eq!(nobody, Ended::Unreachable);
    assert_eq!(lab.servers[NEWYORK].journal(), Vec::<String>::new(), "the EU's calls stay there");
    let rejected = lab.node(NEWYORK).route("journal", &["--allow-loc", "EU"])["rejected"].clone();
    assert_eq!(rejected[0]["code"], "location_not_allowed", "{rejected:#}");
    assert_eq!(
        lab.call(NEWYORK, "elsewhere", &["JP"]),
        Ended::Denied(vec!["location_not_allowed".into(); 3])
    );
    for id in ["german", "nobody", "elsewhere"] {
        assert_eq!(lab.ran(id), Vec::<usize>::new(), "{id}");
    }
    lab.nothing_ran_twice();
    format!("three calls failed over within {over:?}, {doubtful} in doubt")
}

/// A site is cut off, learns something that the others do not, and comes back.
pub(crate) fn healed_halves_agree_again_and_calls_go_back(backend: Backend) -> String {
    let lab = Lab::start(backend, 4, link());
    lab.network.isolate(BERLIN);
    for (site, peers) in [(BERLIN, 0), (PARIS, 1), (NEWYORK, 1)] {
        lab.wait_for_peers(site, peers);
    }
    let late = lab.server("late");
    lab.node(BERLIN).edit_in_server(&late.server("late", &["noise"]));
    lab.node(BERLIN).wait_for_tools(&["noise"]);
    assert!(!lab.node(NEWYORK).tool_names().contains(&"noise".to_owned()), "nobody told it");

    lab.network.heal();
    let began = Instant::now();
    lab.wait_until_whole();
    for site in ALL {
        lab.node(site).wait_for_tools(&["noise"]);
    }
    let took = began.elapsed();
    assert!(took <= HEALED_WITHIN, "whole only after {took:?}");
    assert_eq!(lab.call(NEWYORK, "back", &["DE"]), Ended::Done);
    assert_eq!(lab.ran("back"), [BERLIN]);
    lab.node(NEWYORK).json(&["call", "noise"]);
    assert_eq!(late.calls(), ["noise"]);
    lab.nothing_ran_twice();
    format!("whole {took:?} after the cut was mended")
}

/// New York hears Berlin and Berlin does not hear New York, then the other way about. Either way a call for both goes to
/// Paris, one for Berlin alone ends with an error in bounded time, and what was never accepted was never run.
pub(crate) fn a_cut_in_one_direction_is_a_cut(backend: Backend) -> String {
    let lab = Lab::start(backend, 5, link());
    let mut report = Vec::new();
    for (from, to) in [(NEWYORK, BERLIN), (BERLIN, NEWYORK)] {
        let name = format!("{from}-not-to-{to}");
        lab.network.cut_one_way(from, to);
        let alone = format!("{name}-alone");
        let ended = lab.call(NEWYORK, &alone, &["DE"]);
        match ended {
            Ended::Unreachable => assert_eq!(lab.ran(&alone), Vec::<usize>::new(), "{alone}"),
            Ended::InDoubt => assert!(lab.ran(&alone).len() <= 1, "{alone}"),
            other => panic!("{alone} ended as {other:?}"),
        }
        let doubtful = lab.calls_end_at(PARIS, 3, NEWYORK, &name, &["DE", "FR"]);
        lab.wait_for_peers(NEWYORK, 1);
        lab.wait_for_peers(BERLIN, 1);
        // Paris hears both: nobody is held dead who speaks.
        lab.wait_for_peers(PARIS, 2);
        lab.network.heal();
        let began = Instant::now();
        lab.wait_until_whole();
        let healed = began.elapsed();
        assert!(healed <= HEALED_WITHIN, "whole only after {healed:?}");
        let back = format!("{name}-back");
        assert_eq!(lab.call(NEWYORK, &back, &["DE"]), Ended::Done);
        assert_eq!(lab.ran(&back), [BERLIN]);
        report.push(format!("{name}: {doubtful} in doubt, whole after {healed:?}"));
    }
    lab.nothing_ran_twice();
    report.join("; ")
}

/// Paris is an edge site whose line comes and goes. It serves its own in each cut; others' calls for it end as done,
/// unreachable or in doubt; and what was answered was run once.
pub(crate) fn a_flapping_edge_serves_its_own_and_loses_nothing(backend: Backend) -> String {
    let lab = Lab::start(backend, 6, link());
    let (mut done, mut not_run, mut doubtful) = (0, 0, 0);
    for round in 0..4 {
        lab.network.isolate(PARIS);
        let own = format!("own-{round}");
        assert_eq!(lab.call(PARIS, &own, &["FR"]), Ended::Done, "its own tools are always there");
        assert_eq!(lab.ran(&own), [PARIS]);
        for number in 0..2 {
            // While it is cut off, and while it comes back.
            let id = format!("edge-{round}-{number}");
            let (ended, ran) = (lab.call(NEWYORK, &id, &["FR"]), lab.ran(&id));
            match ended {
                Ended::Done if ran == [PARIS] => done += 1,
                Ended::Unreachable if ran.is_empty() => not_run += 1,
                Ended::InDoubt if ran.len() <= 1 => doubtful += 1,
                other => panic!("{id} ended as {other:?} and ran at {ran:?}"),
            }
            // Whoever stays is served as ever.
            let german = format!("german-{round}-{number}");
            assert_eq!(lab.call(NEWYORK, &german, &["DE"]), Ended::Done);
            assert_eq!(lab.ran(&german), [BERLIN]);
            lab.network.heal();
        }
    }
    let began = Instant::now();
    lab.wait_until_whole();
    let took = began.elapsed();
    assert!(took <= HEALED_WITHIN, "whole only after {took:?}");
    wait::until("calls go to the edge again", || match lab.call(NEWYORK, "settled", &["FR"]) {
        Ended::Done => Ok(()),
        other => Err(other),
    });
    assert_eq!(lab.ran("settled"), [PARIS]);
    lab.nothing_ran_twice();
    format!(
        "of 8 calls to the edge {done} done, {not_run} unreachable, {doubtful} in doubt; whole after {took:?}"
    )
}
