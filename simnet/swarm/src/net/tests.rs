use std::time::Duration;

use comity_simnet::library;
use libp2p::futures::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::*;

/// Two nodes on either side of the cut of the scenario `split`, whose first step cuts and whose second mends.
const WEST: usize = 0;
const EAST: usize = 20;

const LONG: Duration = Duration::from_secs(60);

async fn connected() -> (Shared, Pipe, Pipe) {
    let split = library::find("split").unwrap().source().unwrap();
    let net = Shared::new(Stage::new(&split.scenario, 1).unwrap());
    let mut incoming = net.listen(Process { node: EAST, boot: 1 });
    net.listen(Process { node: WEST, boot: 1 });
    let dialler = net.connect(Process { node: WEST, boot: 1 }, EAST).unwrap();
    let listener = incoming.recv().await.unwrap();
    (net, dialler, listener)
}

async fn read(pipe: &mut Pipe, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    pipe.read_exact(&mut bytes).await.unwrap();
    bytes
}

#[tokio::test(start_paused = true)]
async fn bytes_arrive_in_order_when_their_time_has_come() {
    let (net, mut west, mut east) = connected().await;
    let began = net.lock().now();
    for byte in 0..20 {
        west.write_all(&[byte; 10]).await.unwrap();
    }
    let expected: Vec<u8> = (0..20).flat_map(|byte| [byte; 10]).collect();
    assert_eq!(read(&mut east, 200).await, expected);
    let took = net.lock().now().since(began);
    assert!((Duration::from_millis(10)..Duration::from_millis(200)).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cut_holds_bytes_back_until_it_is_mended() {
    let (net, mut west, mut east) = connected().await;
    net.lock().stage.carry_out(0);
    west.write_all(b"held").await.unwrap();
    assert!(timeout(LONG, read(&mut east, 4)).await.is_err(), "nothing passes a cut");
    assert!(!net.lock().answers(WEST, EAST) && net.lock().stage.is_reachable(WEST, 1));
    net.lock().stage.carry_out(1);
    net.mended();
    west.write_all(b" on").await.unwrap();
    assert_eq!(timeout(LONG, read(&mut east, 7)).await.unwrap(), b"held on");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_gone_says_nothing_and_hears_nothing() {
    let (net, mut west, mut east) = connected().await;
    net.vanish(EAST);
    assert!(east.read(&mut [0; 1]).await.is_err() && east.write(b"x").await.is_err());
    drop(east);
    west.write_all(b"into the dark").await.unwrap();
    assert!(timeout(LONG, west.read(&mut [0; 1])).await.is_err(), "nobody tells");
    assert!(!net.lock().answers(WEST, EAST));
    assert!(net.connect(Process { node: WEST, boot: 1 }, EAST).is_none());
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_dropped_ends_the_stream_behind_what_was_sent() {
    let (net, mut west, mut east) = connected().await;
    west.write_all(b"last").await.unwrap();
    drop(west);
    assert_eq!(read(&mut east, 4).await, b"last");
    assert_eq!(east.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(east.write(b"x").await.is_err());
    drop(east);
    assert!(net.lock().wires.is_empty(), "a connection that nobody holds is forgotten");
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_read_stops_whoever_writes() {
    let (_net, mut west, mut east) = connected().await;
    let all = vec![7; WINDOW_BYTES + 1];
    assert!(timeout(LONG, west.write_all(&all)).await.is_err(), "the window is full");
    assert_eq!(read(&mut east, 1).await, [7]);
    assert!(timeout(LONG, west.write(b"x")).await.is_ok(), "there is room again");
}
