//! Both ends of the socket, and clients that do not keep to the rules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::messages::{CallReport, CallRequest, StatusReport, WhenOffline};
use super::server::CONNECTIONS_MAX;
use super::*;

const IN_TIME: Duration = Duration::from_secs(60);

/// Echoes calls, says two notes on `Peers`, refuses `Tools`, and never answers `Servers`.
struct Echo {
    /// How many `Servers` requests are running.
    waiting: watch::Sender<usize>,
}

impl ControlHandler for Echo {
    async fn handle(&self, request: Request, events: Events) -> Result<Response, ControlFault> {
        match request {
            Request::Status => Ok(Response::Status(Box::default())),
            Request::Call(call) => Ok(Response::Call(CallReport::Result(call.arguments.expect("arguments")))),
            Request::Peers => {
                events.send(Event::Note("one".into())).await;
                events.send(Event::Note("two".into())).await;
                Ok(Response::Peers(Vec::new()))
            }
            Request::Servers => {
                let _running = Running::new(&self.waiting);
                std::future::pending().await
            }
            _ => Err(ControlFault::new(FaultKind::Denied, "no").next("ask nicely")),
        }
    }
}

struct Running<'a>(&'a watch::Sender<usize>);

impl<'a> Running<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Running(count)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    path: PathBuf,
    waiting: watch::Receiver<usize>,
    _cancel: DropGuard,
}

fn start() -> Fixture {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("comity.sock");
    let server = ControlServer::bind(&path).expect("bind");
    let (sender, waiting) = watch::channel(0);
    let cancel = CancellationToken::new();
    tokio::spawn(server.run(Arc::new(Echo { waiting: sender }), cancel.clone()));
    Fixture { dir, path, waiting, _cancel: cancel.drop_guard() }
}

impl Fixture {
    async fn ask(&self, request: Request) -> Result<Response, ClientError> {
        let client = ControlClient::connect(&self.path)?;
        timeout(IN_TIME, client.request(&request, |_| ())).await.expect("in time")
    }

    /// Waits until this many `Servers` requests are running.
    async fn running(&mut self, wanted: usize) {
        let reached = self.waiting.wait_for(|count| *count == wanted);
        timeout(IN_TIME, reached).await.expect("in time").expect("the server runs");
    }

    /// Sends bytes as they are and returns the first line of the answer, if there is one.
    async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = BufReader::new(UnixStream::connect(&self.path).await.expect("connect"));
        // The server may answer and close before it has read everything.
        let _ = stream.write_all(bytes).await;
        let mut line = String::new();
        let _ = timeout(IN_TIME, stream.read_line(&mut line)).await.expect("in time");
        line
    }
}

#[tokio::test]
async fn a_request_is_answered_and_raw_json_is_carried_unchanged() {
    let f = start();
    let Ok(Response::Status(report)) = f.ask(Request::Status).await else { panic!("a status") };
    assert_eq!(*report, StatusReport::default());
    let text = r#"{"z": 18446744073709551616, "a": 1.0}"#;
    let call = CallRequest {
        tool: "t".into(),
        arguments: Some(RawValue::from_string(text.into()).expect("JSON")),
        constraints: None,
        when_offline: WhenOffline::Fail,
    };
    let Ok(Response::Call(CallReport::Result(result))) = f.ask(Request::Call(call)).await else {
        panic!("a result")
    };
    assert_eq!(result.get(), text);
}

#[tokio::test]
async fn events_come_in_order_before_the_answer() {
    let f = start();
    let client = ControlClient::connect(&f.path).expect("connect");
    let mut notes = Vec::new();
    let answer = client.request(&Request::Peers, |event| notes.push(format!("{event:?}"))).await;
    assert!(matches!(answer, Ok(Response::Peers(_))));
    assert_eq!(notes, ["Note(\"one\")", "Note(\"two\")"]);
}

#[tokio::test]
async fn a_fault_says_what_to_do_next() {
    let f = start();
    let Err(ClientError::Fault(fault)) = f.ask(Request::Tools).await else { panic!("a fault") };
    assert_eq!((fault.kind, fault.next.as_deref()), (FaultKind::Denied, Some("ask nicely")));
}

#[tokio::test]
async fn only_the_owner_may_use_the_socket_and_one_node_a_directory() {
    let f = start();
    assert_eq!(fs::metadata(&f.path).expect("metadata").permissions().mode() & 0o777, 0o600);
    let second = ControlServer::bind(&f.path);
    assert!(matches!(&second, Err(BindError::AlreadyRunning(dir)) if dir == f.dir.path()), "{second:?}");
    assert!(f.ask(Request::Status).await.is_ok(), "the attempt must not harm the one that runs");
}

#[tokio::test]
async fn what_a_dead_node_left_is_no_obstacle() {
    let dir = tempfile::tempdir().expect("temp dir");
    let path = dir.path().join("comity.sock");
    assert!(matches!(ControlClient::connect(&path), Err(ClientError::NotRunning(_))));
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    assert!(matches!(ControlClient::connect(&path), Err(ClientError::NotRunning(_))));
    drop(ControlServer::bind(&path).expect("takes over"));
    assert!(!path.exists(), "removed on the way out");
}

#[tokio::test]
async fn a_long_path_is_no_obstacle() {
    let dir = tempfile::tempdir().expect("temp dir");
    let long = dir.path().join("d".repeat(120));
    fs::create_dir(&long).expect("mkdir");
    let server = ControlServer::bind(&long.join("comity.sock")).expect("bind");
    let cancel = CancellationToken::new();
    tokio::spawn(server.run(Arc::new(Echo { waiting: watch::channel(0).0 }), cancel.clone()));
    let client = ControlClient::connect(&long.join("comity.sock")).expect("connect");
    assert!(client.request(&Request::Status, |_| ()).await.is_ok());
    cancel.cancel();
}

#[tokio::test]
async fn what_is_no_request_is_refused_and_the_next_is_served() {
    let f = start();
    for bytes in [&b"nonsense\n"[..], b"{\"unknown\":1}\n", b"\xff\xfe\n", b"\n"] {
        let line = f.raw(bytes).await;
        assert!(line.contains("\"usage\""), "{line}");
    }
    // A line that is too long is cut off; whether its answer gets through is a matter of timing.
    f.raw(&vec![b'x'; frame::REQUEST_BYTES_MAX + 2]).await;
    drop(UnixStream::connect(&f.path).await.expect("connect and go"));
    assert!(f.ask(Request::Status).await.is_ok());
}

#[tokio::test]
async fn a_line_has_a_bound_and_an_end() {
    for (bytes, bytes_max, part) in
        [("123\n", 2, "TooLong"), ("12", 3, "Ended"), ("", 3, "Ended"), ("1}\n", 9, "Malf")]
    {
        let error = frame::read_line::<u32, _>(&mut bytes.as_bytes(), bytes_max).await.expect_err(bytes);
        assert!(format!("{error:?}").starts_with(part), "{bytes:?}: {error:?}");
    }
    assert_eq!(frame::read_line::<u32, _>(&mut &b"12\n"[..], 3).await.expect("fits"), 12);
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_request() {
    let mut f = start();
    let client = ControlClient::connect(&f.path).expect("connect");
    let asked = tokio::spawn(async move { client.request(&Request::Servers, |_| ()).await });
    f.running(1).await;
    asked.abort();
    f.running(0).await;
}

#[tokio::test]
async fn too_many_clients_are_told_so_and_the_others_served() {
    let mut f = start();
    let mut asked = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let client = ControlClient::connect(&f.path).expect("connect");
        asked.push(tokio::spawn(async move { client.request(&Request::Servers, |_| ()).await }));
    }
    f.running(CONNECTIONS_MAX).await;
    let refused = f.raw(b"").await;
    assert!(refused.contains("\"busy\""), "{refused}");
    asked.pop().expect("one").abort();
    f.running(CONNECTIONS_MAX - 1).await;
    // The slot is given back an instant after the handler has gone.
    let served = async { while f.ask(Request::Status).await.is_err() {} };
    timeout(IN_TIME, served).await.expect("in time");
}
