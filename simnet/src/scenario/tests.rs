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

const BERLIN: &str = r#"
[node]
name = "berlin-1"
[org]
name = "a.example"
[site]
processing_locations = ["DE", "AT"]
operator_country = "DE"
[servers.crm]
command = "crm-mcp"
share = "federation"
approve = ["search", "update"]
read_only = ["search"]
class_max = 2
[servers.files]
url = "http://127.0.0.1:1/mcp"
share = "federation"
[servers.private]
command = "x"
[[trust.orgs]]
name = "b.example"
root = "blake3:0000000000000000000000000000000000000000000000000000000000000000"
[[trust.orgs]]
name = "elsewhere.example"
root = "blake3:0000000000000000000000000000000000000000000000000000000000000001"
[constraints]
allow_locations = ["EU"]
deadline = "1m30s"
[mcp]
listen = "127.0.0.1:7420"
"#;

const IMPORTING: &str = r#"
name = "imports"
[[orgs]]
name = "b.example"
[[sites]]
name = "paris"
org = "b.example"
processing_locations = ["FR"]
[[nodes]]
import = "berlin/comity.toml"
nodes = 2
tools = { files = ["read"] }
[[tools]]
name = "crm/search"
takes = "1s"
[[calls]]
name = "search"
tool = "crm/search"
constraints = { deny_operator_countries = ["US"] }
"#;

fn importing(text: &str, berlin: &str) -> Result<Scenario, Mistakes> {
    Scenario::parse_with(text, &|path| match path {
        "berlin/comity.toml" => Ok(berlin.to_owned()),
        other => Err(format!("cannot read {other}")),
    })
}

#[test]
fn a_real_nodes_file_is_a_site_with_all_that_it_says() {
    let scenario = importing(IMPORTING, BERLIN).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let orgs: Vec<&str> = scenario.orgs.iter().map(|org| org.name.as_str()).collect();
    assert_eq!(orgs, ["b.example", "a.example"]);
    let pins: Vec<&str> = scenario.orgs[1].pins.iter().map(|pin| pin.as_str()).collect();
    assert_eq!(pins, ["a.example", "b.example"], "who is not in the scenario has no part in it");
    let site = &scenario.sites[1];
    assert_eq!((site.name.as_str(), site.org, site.nodes), ("berlin-1", 1, Span::just(2)));
    assert_eq!((site.processing.len(), site.operator.map(|of| of.to_string())), (2, Some("DE".into())));
    let tools: Vec<_> =
        scenario.tools.iter().map(|tool| (tool.text(), tool.repeatable, tool.class_max.level())).collect();
    let expected = [("crm/search", true, 2), ("crm/update", false, 2), ("files/read", false, 3)];
    assert_eq!(tools, expected.map(|(name, repeatable, class)| (name.to_owned(), repeatable, class)));
    assert_eq!(
        (&scenario.tools[0].sites[..], scenario.tools[0].takes),
        (&[1][..], Span::just(Duration::from_secs(1)))
    );
    let demands = scenario.demands(&scenario.calls[0], 1);
    assert_eq!(demands.deadline_ms, Some(90_000));
    assert!(demands.allow_locations.is_some() && !demands.deny_operator_countries.is_empty());
    assert!(scenario.demands(&scenario.calls[0], 0).allow_locations.is_none(), "each site's own");
    let text = scenario.to_toml();
    assert_eq!(Scenario::parse(&text).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}")), scenario);
}

#[test]
fn what_is_wrong_with_an_import_is_named() {
    for (from, to, in_file, line, part) in [
        ("berlin/comity.toml", "berln/comity.toml", false, 10, "cannot read berln/comity.toml"),
        ("tools = { files", "tools = { filse", false, 12, "did you mean `files`?"),
        ("[\"read\"]", "\"read\"", false, 12, "is a string, not a list"),
        ("{ files = [\"read\"]", "{ crm = [\"delete\"]", false, 12, "its `approve` lets through"),
        ("nodes = 2", "site = \"paris\"", false, 9, "is the name of another site too"),
        ("nodes = 2", "org = \"b.example\"", false, 11, "the file says a.example"),
        ("nodes = 2", "node = 2", false, 11, "did you mean `nodes`?"),
        (
            "operator_country",
            "operator_contry",
            true,
            10,
            "berlin/comity.toml line 8: site.operator_contry: unknown key",
        ),
        ("name = \"a.example\"", "nme = \"a.example\"", true, 10, "line 5: org.nme: unknown key"),
        ("[org]\nname = \"a.example\"", "", true, 9, "has joined none"),
    ] {
        let (text, berlin) = match in_file {
            true => (IMPORTING.to_owned(), BERLIN.replacen(from, to, 1)),
            false => (IMPORTING.replacen(from, to, 1), BERLIN.to_owned()),
        };
        assert!(text != IMPORTING || berlin != BERLIN, "{from}");
        let mistakes = importing(&text, &berlin).expect_err(to);
        let found = mistakes.list.iter().any(|one| one.line == line && one.to_string().contains(part));
        assert!(found, "{to}: no `{part}` on line {line} in:\n{mistakes}");
    }
}

#[test]
fn imported_nodes_must_agree_where_the_simulator_knows_one_of_each() {
    let two = IMPORTING.to_owned() + "[[nodes]]\nimport = \"second.toml\"\n";
    for (from, to, part) in [
        ("class_max = 2", "class_max = 1", "offer crm/search with another"),
        ("elsewhere.example", "third.example", ""),
        ("name = \"b.example\"", "name = \"c.example\"", "pin different orgs"),
        ("[mcp]", "[mesh]\nname = \"other\"\n[mcp]", "are of several meshes"),
    ] {
        let second = BERLIN.replace("berlin-1", "berlin-2").replacen(from, to, 1);
        let read = Scenario::parse_with(&two, &|path| {
            Ok(if path == "second.toml" { second.clone() } else { BERLIN.to_owned() })
        });
        let told = read.err().map(|mistakes| mistakes.to_string()).unwrap_or_default();
        assert!(told.contains(part) && told.is_empty() == part.is_empty(), "{to}: {told}");
    }
}

#[test]
fn durations_may_have_several_units_and_no_other_order() {
    for (text, good) in
        [("1m30s", true), ("1s1m", false), ("1s1s", false), ("5", false), ("250us", true), ("1.5s", false)]
    {
        let scenario = GOOD.replace("constraints =", &format!("deadline = \"{text}\"\nconstraints ="));
        assert_eq!(Scenario::parse(&scenario).is_ok(), good, "{text}");
    }
}
