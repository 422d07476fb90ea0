//! The timeline in a real browser: headless Chromium runs the page's script, and what it has drawn is looked at.
//!
//! `SIMNET_NO_BROWSER=1` leaves these tests out where there is no Chromium; `CHROMIUM` names another program.

use std::path::{Path, PathBuf};
use std::process::Command;

use comity_simnet::library;
use comity_simnet::report::html;
use comity_simnet::run::{Report, Source, run_recorded};

/// Two sites of which one never learns of the other, under faults.
const SPLIT_FOR_GOOD: &str = r#"
name = "<b>split</b> & </script> for good"
[run]
faults_for = "20s"
heal_within = "5s"
quiet_for = "2s"
[[orgs]]
name = "a.example"
[[sites]]
name = "here"
org = "a.example"
nodes = 5
processing_locations = ["DE"]
[[sites]]
name = "island"
org = "a.example"
nodes = 3
processing_locations = ["NO"]
seeds = ["island"]
[[tools]]
name = "crm/search"
sites = ["here"]
[[calls]]
name = "search"
tool = "crm/search"
[[faults]]
kind = "crash"
nodes = ["here-2", "island-3"]
at = "8s"
for = "5s"
[[faults]]
kind = "partition"
nodes = ["here-4"]
at = "10s"
for = "8s"
"#;

/// More nodes than there are lanes, for a moment.
const LARGE: &str = r#"
name = "large"
[run]
start_within = "1s"
faults_for = "2s"
heal_within = "100ms"
quiet_for = "0s"
[[orgs]]
name = "a.example"
[[sites]]
name = "here"
org = "a.example"
nodes = 125
processing_locations = ["DE"]
[[sites]]
name = "island"
org = "a.example"
nodes = 3
processing_locations = ["NO"]
seeds = ["island"]
[[faults]]
kind = "crash"
nodes = ["island-3"]
at = "1500ms"
"#;

/// A directory that is gone at the end of the test.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the browser made of a page: its document after the script ran, and what it logged.
struct Rendered {
    document: String,
    log: String,
}

impl Rendered {
    #[track_caller]
    fn count(&self, element: &str) -> usize {
        self.document.matches(element).count()
    }

    /// A number that the page says of itself.
    #[track_caller]
    fn says(&self, what: &str) -> usize {
        let attribute = format!("data-{what}=\"");
        let begin =
            self.document.find(&attribute).unwrap_or_else(|| panic!("no {attribute} in {}", self.log));
        let value = &self.document[begin + attribute.len()..];
        value[..value.find('"').expect("an end")].parse().expect("a number")
    }

    #[track_caller]
    fn is_without_errors(&self) {
        assert_eq!(self.says("errors"), 0, "{}", self.log);
        assert!(!self.log.contains("CONSOLE"), "the page logs: {}", self.log);
    }
}

fn browser() -> Option<PathBuf> {
    if std::env::var_os("SIMNET_NO_BROWSER").is_some() {
        return None;
    }
    let named = std::env::var_os("CHROMIUM").map(PathBuf::from);
    let usual = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = named.or_else(|| usual.iter().map(PathBuf::from).find(|path| path.is_file()));
    Some(found.expect("this test needs Chromium: install the package chromium, or set SIMNET_NO_BROWSER=1"))
}

/// Opens a page and waits until its script has run. `view` is what the address says after `#`.
fn render(page: &str, view: &str, name: &str) -> Option<Rendered> {
    let browser = browser()?;
    let scratch = Scratch(std::env::temp_dir().join(format!("simnet-browser-{}-{name}", std::process::id())));
    std::fs::create_dir_all(&scratch.0).expect("a directory");
    let file = scratch.0.join("page.html");
    std::fs::write(&file, page).expect("a file");
    let mut command = Command::new(browser);
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-dev-shm-usage",
    ]);
    command.args(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    command.args([
        "--window-size=1400,1000",
        "--enable-logging=stderr",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]);
    command.arg(profile(&scratch.0)).arg(format!("file://{}#{view}", file.display()));
    let output = command.output().expect("the browser starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    // What comes after is the run's data and the script itself.
    let document = text(&output.stdout).split("<script").next().unwrap_or_default().to_owned();
    Some(Rendered { document, log: text(&output.stderr) })
}

fn profile(directory: &Path) -> String {
    format!("--user-data-dir={}", directory.join("profile").display())
}

fn recorded(source: &Source, seed: u64) -> (Report, String) {
    let (report, chronicle) = run_recorded(source, seed, "test", |_| ()).expect("it can be run");
    let page = html::page(&source.scenario, &report, &chronicle);
    (report, page)
}

#[test]
fn a_calm_run_is_drawn_and_says_that_all_is_well() {
    let source = library::find("calm").expect("built in").source().expect("no mistakes");
    let (report, page) = recorded(&source, 3);
    let Some(drawn) = render(&page, "", "calm") else { return };
    drawn.is_without_errors();
    assert_eq!(drawn.count("<div class=\"node\""), report.figures.nodes);
    assert!(drawn.says("messages") > 100 && drawn.says("calls") > 20 && drawn.says("faults") == 0);
    assert_eq!(drawn.count("class=\"msg\"") + drawn.count("class=\"msg off\""), drawn.says("messages"));
    assert!(
        drawn.document.contains("every invariant held") && !drawn.document.contains("class=\"violation\"")
    );
}

#[test]
fn a_run_that_fails_shows_lanes_messages_faults_and_what_was_violated() {
    let source = library::source("test", SPLIT_FOR_GOOD).expect("no mistakes");
    let (report, page) = recorded(&source, 1);
    assert!(!report.is_ok(), "the island is never found");
    let Some(drawn) = render(&page, "", "violation") else { return };
    drawn.is_without_errors();
    assert_eq!(drawn.count("class=\"lane-line\""), 8);
    assert_eq!((drawn.says("faults"), drawn.count("class=\"fault\"")), (3, 3));
    assert_eq!(drawn.count("class=\"violation\""), report.violations.len());
    assert!(drawn.document.contains(&format!(">{}</text>", report.violations[0].invariant)));
    assert!(drawn.count("class=\"down\"") >= 2, "nodes that are down are marked");
    assert!(drawn.document.contains("&lt;b&gt;split&lt;/b&gt; &amp; &lt;/script&gt;"), "a name stays a name");
}

#[test]
fn the_address_says_what_is_seen_and_closer_means_more_of_it() {
    let source = library::find("mixed").expect("built in").source().expect("no mistakes");
    let (_, page) = recorded(&source, 5);
    let Some(whole) = render(&page, "", "whole") else { return };
    let close = render(&page, "from=20000&to=20400&show=fault:2", "close").expect("a browser");
    close.is_without_errors();
    assert!(whole.says("messages") <= 1200, "what is drawn at once is bounded");
    assert!(close.says("messages") > 0 && close.says("messages") < whole.says("messages"));
    assert_eq!(close.count("class=\"fault sel\""), 1);
    assert!(close.document.contains("<h2>byzantine</h2>") || close.document.contains("<h2>partition</h2>"));
}

#[test]
fn a_large_federation_has_as_many_lanes_as_can_be_read_and_says_so() {
    let source = library::source("test", LARGE).expect("no mistakes");
    let (_, page) = recorded(&source, 1);
    assert!(page.len() < 8 << 20, "{} bytes", page.len());
    let Some(drawn) = render(&page, "", "large") else { return };
    drawn.is_without_errors();
    assert_eq!(drawn.count("class=\"lane-line\""), html::LANES_MAX);
    assert!(drawn.document.contains(&format!("{} of 128 nodes have a lane", html::LANES_MAX)));
    assert!(drawn.document.contains(">island-3</div>"), "what something befell has a lane");
}
