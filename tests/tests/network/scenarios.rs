//! What is tried. Each scenario has a network and a federation of its own, and returns a word on what it saw.

mod calls;
mod cuts;
mod places;

use comity_tests::cut::Backend;

/// One scenario.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Panics when something does not hold.
    pub(crate) run: fn(Backend) -> String,
}

macro_rules! scenarios {
    ($($module:ident::$name:ident),* $(,)?) => {
        &[$(Scenario { name: stringify!($name), run: $module::$name }),*]
    };
}

/// All of them, the longest first.
pub(crate) const SCENARIOS: &[Scenario] = scenarios![
    cuts::a_flapping_edge_serves_its_own_and_loses_nothing,
    cuts::a_cut_in_one_direction_is_a_cut,
    cuts::what_is_cut_off_is_replaced_where_the_law_allows,
    cuts::healed_halves_agree_again_and_calls_go_back,
    calls::progress_arrives_whole_and_in_order_over_a_bad_line,
    calls::a_node_killed_in_a_call_leaves_it_in_doubt_and_comes_back_as_itself,
    places::a_node_that_moves_is_found_again,
    places::three_distant_sites_agree_and_serve_a_call,
];
