use super::*;

const GOOD: &str = r#"
name = "good"
[[orgs]]
name = "a.example"
[[sites]]
name = "berlin"
org = "a.example"
nodes = "2..4"
processing_locations = ["DE"]
[[sites]]
name = "austin"
org = "a.example"
processing_locations = ["US"]
[[tools]]
name = "crm/search"
sites = ["berlin", "austin"]
[[calls]]
name = "eu"
tool = "crm/search"
constraints = { allow_locations = ["EU"] }
"#;

/// Asserts that `text` has a mistake on `line` whose text holds `part`.
#[track_caller]
fn check(text: &str, line: usize, part: &str) {
    let mistakes = Scenario::parse(text).expect_err("it has a mistake");
    let told = mistakes.to_string();
    let found =
        mistakes.list.iter().any(|mistake| mistake.line == line && mistake.to_string().contains(part));
    assert!(found, "no `{part}` on line {line} in:\n{told}");
}

#[test]
fn what_is_not_said_has_a_default() {
    let scenario = Scenario::parse(GOOD).unwrap();
    assert_eq!(scenario.nodes_max(), 5);
    assert_eq!(scenario.sites[1].seeds, [0]);
    assert_eq!(scenario.network.loss, Share::NONE);
    assert!(scenario.orgs[0].pins.contains(&scenario.orgs[0].name));
}

#[test]
fn a_mistake_is_named_with_its_line_and_the_near_miss() {
    for (from, to, line, part) in [
        ("nodes = ", "node = ", 8, "did you mean `nodes`?"),
        ("nodes = \"2..4\"", "nodes = \"4..2\"", 8, "ends before it begins"),
        ("nodes = \"2..4\"", "nodes = 0", 8, "out of range"),
        ("nodes = \"2..4\"", "nodes = 2.5", 8, "is a float"),
        ("org = \"a.example\"\nnodes", "org = \"b.example\"\nnodes", 7, "did you mean `a.example`?"),
        ("[\"DE\"]", "[\"Germany\"]", 9, "ISO 3166-1"),
        ("[\"DE\"]", "[\"UK\"]", 9, "the United Kingdom is GB"),
        ("tool = \"crm/search\"", "tool = \"crm/serach\"", 19, "did you mean `crm/search`?"),
        ("name = \"crm/search\"", "name = \"search\"", 15, "server/tool"),
        ("\"berlin\", \"austin\"", "\"berlin\", \"autsin\"", 16, "did you mean `austin`?"),
        ("\"berlin\", \"austin\"", "\"berlin\", \"x\"", 16, "known: berlin, austin"),
        ("allow_locations", "allow_location", 20, "did you mean `allow_locations`?"),
        ("[\"EU\"]", "[\"EU\", \"XX\"]", 20, "neither an ISO 3166-1"),
        ("name = \"austin\"", "name = \"berlin\"", 11, "named twice"),
        ("[[orgs]]", "[orgs]", 3, "list of tables"),
        ("[[calls]]", "[[cals]]", 17, "did you mean `calls`?"),
        ("name = \"good\"\n", "", 1, "is missing"),
        ("name = \"good\"", "name = good", 2, "TOML"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        check(&GOOD.replacen(from, to, 1), line, part);
    }
}

#[test]
fn faults_are_read_as_strictly() {
    for (fault, line, part) in [
        ("kind = \"partiton\"", 22, "did you mean `partition`?"),
        ("kind = \"partition\"", 21, "cuts everybody off from nobody"),
        ("kind = \"crash\"\ndisk = \"rolled-back\"", 23, "did you mean `rolled_back`?"),
        ("kind = \"crash\"\nat = \"2h\"", 23, "after the phase of faults"),
        ("kind = \"crash\"\nnodes = 50", 23, "more nodes than the 5"),
        ("kind = \"crash\"\nevery = \"1s\"", 23, "unknown key"),
        ("kind = \"flap\"\nfor_good = true", 23, "does not go with this kind"),
        ("kind = \"byzantine\"\nacts = [\"forge\", \"repaly\"]", 23, "did you mean `replay`?"),
        ("kind = \"degrade\"\nloss = \"120%\"", 23, "more than all"),
        ("at = \"5s\"", 21, "is missing"),
    ] {
        check(&format!("{GOOD}[[faults]]\n{fault}\n"), line, part);
    }
}

#[test]
fn what_cannot_be_met_is_said_to_be_so() {
    for (expect, line, part) in [
        ("calls = \"eu\"\nsites = [\"austin\"]", 23, "cannot be met: only berlin may lawfully run"),
        ("calls = \"eu\"\nduring = \"5h..6h\"", 23, "cannot be met"),
        ("calls = \"eu\"\nduring = \"5s..5s\"", 23, "is empty"),
        ("calls = \"us\"", 22, "known: eu"),
        ("calls = \"eu\"\noutcome = \"answred\"", 23, "did you mean `answered`?"),
    ] {
        check(&format!("{GOOD}[[expect]]\n{expect}\n"), line, part);
    }
    let nowhere = GOOD.replace("[\"EU\"]", "[\"CH\"]");
    check(&format!("{nowhere}[[expect]]\ncalls = \"eu\"\n"), 21, "no site may lawfully run");
}

#[test]
fn all_mistakes_are_told_at_once_and_there_is_a_bound() {
    let text = GOOD.replace("nodes", "node").replace("tool = ", "tol = ");
    assert!(Scenario::parse(&text).unwrap_err().list.len() >= 3);
    let many: String = (0..500).map(|n| format!("key{n} = 1\n")).collect();
    let mistakes = Scenario::parse(&many).unwrap_err();
    assert!(mistakes.list.len() == mistake::MISTAKES_MAX && mistakes.omitted > 300);
    assert!(Scenario::parse(&" ".repeat(SCENARIO_BYTES_MAX + 1)).is_err());
}
