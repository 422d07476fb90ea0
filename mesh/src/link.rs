//! The I/O of one link: frames of the core's machine, both ways, on the one `/comity/link/1` stream of a connection.
//!
//! A link is one task. It knows nothing of what the frames mean; it bounds them. The machine judges silence (its pings)
//! and a hello that does not come; the link judges a frame that stalls, one that is too long, and a peer that does not
//! read what it asked for.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use comity_protocol::mesh::ConnectionId;
use comity_protocol::mesh::wire::{HELLO_FRAME_MAX, LINK_FRAME_MAX};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connections::OpenStreamError;
use super::frame::{self, FrameError};
use super::streams::MeshStream;

/// Frames that may wait to be written to one peer. More end the link as too slow.
pub const QUEUE_FRAMES_MAX: usize = 4096;

/// Bytes that may wait to be written to one peer. More end the link as too slow.
pub const QUEUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Frames from all links that may wait for the driver; the links' readers wait in turn when it is full.
pub const INBOX_FRAMES_MAX: usize = 64;

/// How long one frame may take, to come in or to go out.
const FRAME_DEADLINE: Duration = Duration::from_secs(20);

/// How long a link that we end waits for the peer to end its half, so that the last frames arrive before the connection
/// is closed (closing a QUIC connection throws away what is still under way).
const LINGER: Duration = Duration::from_secs(1);

/// What a link tells the driver.
#[derive(Debug)]
pub enum LinkEvent {
    /// A frame came in.
    Frame(Vec<u8>),
    /// The link is over; always last.
    Ended(LinkEnd),
}

/// How a link ended.
#[derive(Debug, thiserror::Error)]
pub enum LinkEnd {
    /// All that was queued has been written, and the peer has had time to read it.
    #[error("ended by us")]
    Finished,
    /// The peer ended it between frames.
    #[error("the peer ended the link")]
    ByPeer,
    /// No stream could be opened.
    #[error("the link could not be opened: {0}")]
    NotOpened(OpenStreamError),
    /// A frame failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
}

/// The driver's end of a link. Dropping it writes what is queued and ends the link.
#[derive(Debug)]
pub struct Link {
    frames: mpsc::Sender<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    frame_max: Arc<AtomicUsize>,
}

/// Whether a link took a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The peer reads too slowly: too much waits for it.
    #[error("the peer reads too slowly: too much is queued for it")]
    TooSlow,
    /// The link has ended.
    #[error("the link has ended")]
    Ended,
}

impl Link {
    /// Queues a frame.
    ///
    /// # Errors
    /// [`SendError`]; the frame is then lost, and so should be the link.
    pub fn send(&self, frame: Vec<u8>) -> Result<(), SendError> {
        let length = frame.len();
        if self.queued_bytes.fetch_add(length, Ordering::AcqRel) + length > QUEUE_BYTES_MAX {
            return Err(SendError::TooSlow);
        }
        self.frames.try_send(frame).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::TooSlow,
            mpsc::error::TrySendError::Closed(_) => SendError::Ended,
        })
    }

    /// Allows frames of full length: the peer is no stranger any more.
    pub fn accept(&self) {
        self.frame_max.store(LINK_FRAME_MAX, Ordering::Release);
    }
}

/// A link on the stream that `stream` will give, and the task that runs it.
/// The task ends after it has said [`LinkEvent::Ended`], or when `events` is closed.
pub fn link(
    connection: ConnectionId,
    stream: impl Future<Output = Result<MeshStream, OpenStreamError>> + Send + 'static,
    events: mpsc::Sender<(ConnectionId, LinkEvent)>,
) -> (Link, impl Future<Output = ()> + Send + 'static) {
    let (frames, queue) = mpsc::channel(QUEUE_FRAMES_MAX);
    let queued_bytes = Arc::new(AtomicUsize::new(0));
    let frame_max = Arc::new(AtomicUsize::new(HELLO_FRAME_MAX));
    let io = LinkIo {
        connection,
        events,
        queue,
        queued_bytes: queued_bytes.clone(),
        frame_max: frame_max.clone(),
    };
    (Link { frames, queued_bytes, frame_max }, io.run(stream))
}

struct LinkIo {
    connection: ConnectionId,
    events: mpsc::Sender<(ConnectionId, LinkEvent)>,
    queue: mpsc::Receiver<Vec<u8>>,
    queued_bytes: Arc<AtomicUsize>,
    frame_max: Arc<AtomicUsize>,
}

impl LinkIo {
    async fn run(self, stream: impl Future<Output = Result<MeshStream, OpenStreamError>>) {
        let (connection, events) = (self.connection, self.events.clone());
        let end = match stream.await {
            Ok(stream) => self.pump(stream).await,
            Err(error) => LinkEnd::NotOpened(error),
        };
        let _driver_has_gone = events.send((connection, LinkEvent::Ended(end))).await;
    }

    /// Both halves run in this one task: it ends when either has.
    async fn pump(self, stream: impl AsyncRead + AsyncWrite) -> LinkEnd {
        let (mut input, mut output) = tokio::io::split(stream);
        let Self { connection, events, mut queue, queued_bytes, frame_max } = self;
        let written = tokio::select! {
            end = read_frames(&mut input, connection, &events, &frame_max) => return end,
            written = write_frames(&mut output, &mut queue, &queued_bytes) => written,
        };
        match written {
            Ok(()) => {
                drain(&mut input).await;
                LinkEnd::Finished
            }
            Err(error) => LinkEnd::Frame(error),
        }
    }
}

async fn read_frames(
    input: &mut (impl AsyncRead + Unpin),
    connection: ConnectionId,
    events: &mpsc::Sender<(ConnectionId, LinkEvent)>,
    frame_max: &AtomicUsize,
) -> LinkEnd {
    loop {
        let frame = match frame::read(input, || frame_max.load(Ordering::Acquire), FRAME_DEADLINE).await {
            Ok(Some(frame)) => frame,
            Ok(None) => return LinkEnd::ByPeer,
            Err(error) => return error.into(),
        };
        if events.send((connection, LinkEvent::Frame(frame))).await.is_err() {
            return LinkEnd::Finished;
        }
    }
}

/// Writes what is queued, flushing when nothing more waits, until the queue is closed; then ends our half.
async fn write_frames(
    output: &mut (impl AsyncWrite + Unpin),
    queue: &mut mpsc::Receiver<Vec<u8>>,
    queued_bytes: &AtomicUsize,
) -> Result<(), FrameError> {
    while let Some(frame) = queue.recv().await {
        frame::write(output, &frame, FRAME_DEADLINE).await?;
        queued_bytes.fetch_sub(frame.len(), Ordering::AcqRel);
        if queue.is_empty() {
            frame::flush(output, FRAME_DEADLINE).await?;
        }
    }
    timeout(LINGER, output.shutdown()).await.map_err(|_| FrameError::TooSlow(LINGER))?.map_err(Into::into)
}

/// Reads and forgets until the peer ends its half, or [`LINGER`] is over.
async fn drain(input: &mut (impl AsyncRead + Unpin)) {
    let mut sink = [0; 4096];
    let until_end = async { while matches!(input.read(&mut sink).await, Ok(count) if count > 0) {} };
    let _in_time = timeout(LINGER, until_end).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn io() -> (Link, LinkIo, mpsc::Receiver<(ConnectionId, LinkEvent)>) {
        let (events, inbox) = mpsc::channel(INBOX_FRAMES_MAX);
        let (frames, queue) = mpsc::channel(QUEUE_FRAMES_MAX);
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let frame_max = Arc::new(AtomicUsize::new(HELLO_FRAME_MAX));
        let io = LinkIo {
            connection: ConnectionId(1),
            events,
            queue,
            queued_bytes: queued_bytes.clone(),
            frame_max: frame_max.clone(),
        };
        (Link { frames, queued_bytes, frame_max }, io, inbox)
    }

    #[tokio::test]
    async fn what_is_queued_is_written_before_a_link_ends() {
        let (link, io, _inbox) = io();
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let task = tokio::spawn(io.pump(ours));
        for byte in 0..3 {
            link.send(vec![byte; 2000]).unwrap();
        }
        drop(link);
        for byte in 0..3 {
            let frame = frame::read(&mut theirs, || 2000, FRAME_DEADLINE).await.unwrap();
            assert_eq!(frame, Some(vec![byte; 2000]));
        }
        assert!(frame::read(&mut theirs, || 2000, FRAME_DEADLINE).await.unwrap().is_none());
        drop(theirs);
        assert!(matches!(task.await.unwrap(), LinkEnd::Finished));
    }

    #[tokio::test]
    async fn a_stranger_may_send_less_than_a_peer() {
        let long = vec![1; HELLO_FRAME_MAX + 1];
        for accepted in [false, true] {
            let (link, io, mut inbox) = io();
            if accepted {
                link.accept();
            }
            let (ours, mut theirs) = tokio::io::duplex(LINK_FRAME_MAX);
            let task = tokio::spawn(io.pump(ours));
            frame::write(&mut theirs, &long, FRAME_DEADLINE).await.unwrap();
            if accepted {
                let (_, event) = inbox.recv().await.unwrap();
                assert!(matches!(event, LinkEvent::Frame(frame) if frame == long));
                drop(theirs);
                assert!(matches!(task.await.unwrap(), LinkEnd::ByPeer));
            } else {
                let end = task.await.unwrap();
                assert!(matches!(&end, LinkEnd::Frame(FrameError::TooLong { .. })), "{end}");
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_fills_a_bounded_queue() {
        let (link, io, _inbox) = io();
        let (ours, _theirs) = tokio::io::duplex(16);
        let task = tokio::spawn(io.pump(ours));
        let mut sent = 0;
        let error = loop {
            match link.send(vec![0; 64 * 1024]) {
                Ok(()) => sent += 64 * 1024,
                Err(error) => break error,
            }
        };
        assert_eq!(error, SendError::TooSlow);
        assert!(sent <= QUEUE_BYTES_MAX);
        task.abort();
    }
}
