//! `/comity/blob/1`: offers and descriptors by digest. One stream is one request: a list of digests, answered by one
//! frame each in the same order, empty where the peer has no such blob or may not give it.

use std::sync::Arc;
use std::time::Duration;

use comity_protocol::advert::OFFER_SET_BYTES_MAX;
use comity_protocol::codec;
use comity_protocol::ids::BlobDigest;
use comity_protocol::mesh::wire::{BLOB_REQUEST_BYTES_MAX, BLOBS_PER_REQUEST_MAX, BlobRequest};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use super::frame::{self, FrameError};

/// How long a whole pull may take, once the peer is reached.
pub const PULL_DEADLINE: Duration = Duration::from_secs(30);

/// Bytes that one pull takes in; blobs beyond it count as not given, and are asked for again in another pull.
pub const PULL_BYTES_MAX: usize = 4 * 1024 * 1024;

/// How long the peer may take over one frame.
const FRAME_DEADLINE: Duration = Duration::from_secs(10);

/// Why a pull failed as a whole.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A frame failed.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The peer ended the stream before its last answer.
    #[error("the peer ended the pull early")]
    Ended,
    /// The peer gave something else than what was asked for.
    #[error("the peer gave bytes that do not have the digest asked for")]
    WrongDigest,
    /// The pull took too long.
    #[error("the pull took longer than {} s", PULL_DEADLINE.as_secs())]
    TooSlow,
    /// The request is not one.
    #[error("the request is malformed: {0}")]
    Malformed(String),
}

/// Pulls `digests` over `stream`: as many answers as digests, each with the digest asked for, or `None`.
///
/// # Errors
/// [`PullError`]. A peer that gives wrong bytes is cut off at the first of them.
pub async fn pull(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    digests: Vec<BlobDigest>,
) -> Result<Vec<Option<Vec<u8>>>, PullError> {
    timeout(PULL_DEADLINE, pull_all(stream, digests)).await.unwrap_or(Err(PullError::TooSlow))
}

async fn pull_all(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    digests: Vec<BlobDigest>,
) -> Result<Vec<Option<Vec<u8>>>, PullError> {
    let request = codec::encode(&BlobRequest { digests: digests.clone() });
    frame::write(&mut stream, &request, FRAME_DEADLINE).await?;
    frame::flush(&mut stream, FRAME_DEADLINE).await?;
    let mut blobs = Vec::with_capacity(digests.len());
    let mut room = PULL_BYTES_MAX;
    for digest in &digests {
        if room < OFFER_SET_BYTES_MAX {
            blobs.push(None);
            continue;
        }
        let blob = frame::read(&mut stream, || OFFER_SET_BYTES_MAX, FRAME_DEADLINE)
            .await?
            .ok_or(PullError::Ended)?;
        room -= blob.len();
        blobs.push(check(*digest, blob)?);
    }
    Ok(blobs)
}

fn check(digest: BlobDigest, blob: Vec<u8>) -> Result<Option<Vec<u8>>, PullError> {
    if blob.is_empty() {
        return Ok(None);
    }
    if BlobDigest::of(&blob) != digest {
        return Err(PullError::WrongDigest);
    }
    Ok(Some(blob))
}

/// Reads what a peer asks for.
///
/// # Errors
/// [`PullError`].
pub async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Result<Vec<BlobDigest>, PullError> {
    let read = frame::read(stream, || BLOB_REQUEST_BYTES_MAX, FRAME_DEADLINE);
    let frame =
        timeout(FRAME_DEADLINE, read).await.map_err(|_| PullError::TooSlow)??.ok_or(PullError::Ended)?;
    let request: BlobRequest = codec::decode(&frame, BLOB_REQUEST_BYTES_MAX)
        .map_err(|error| PullError::Malformed(error.to_string()))?;
    if request.digests.len() > BLOBS_PER_REQUEST_MAX {
        return Err(PullError::Malformed(format!("{} digests", request.digests.len())));
    }
    Ok(request.digests)
}

/// Answers a request, then ends the stream and waits until the peer has ended its half too.
///
/// # Errors
/// [`PullError`], also when the peer reads too slowly.
pub async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    blobs: Vec<Option<Arc<[u8]>>>,
) -> Result<(), PullError> {
    let all = async {
        for blob in blobs {
            frame::write(&mut stream, blob.as_deref().unwrap_or_default(), FRAME_DEADLINE).await?;
        }
        stream.shutdown().await.map_err(FrameError::Io)?;
        let _ended = stream.read(&mut [0; 1]).await;
        Ok(())
    };
    timeout(PULL_DEADLINE, all).await.unwrap_or(Err(PullError::TooSlow))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn serve(stream: tokio::io::DuplexStream, give: impl Fn(BlobDigest) -> Option<Arc<[u8]>>) {
        let mut stream = stream;
        let digests = read_request(&mut stream).await.unwrap();
        answer(stream, digests.into_iter().map(give).collect()).await.unwrap();
    }

    #[tokio::test]
    async fn blobs_come_in_the_order_asked_for() {
        let known: Vec<Arc<[u8]>> =
            (1..=3_u8).map(|n| Arc::from(vec![n; 100_000 * usize::from(n)])).collect();
        let digests: Vec<_> = known.iter().map(|blob| BlobDigest::of(blob)).collect();
        let asked = vec![digests[2], BlobDigest::of(b"unknown"), digests[0]];
        let (ours, theirs) = tokio::io::duplex(1000);
        let server =
            serve(theirs, |digest| known.iter().find(|blob| BlobDigest::of(blob) == digest).cloned());
        let (pulled, ()) = tokio::join!(pull(ours, asked), server);
        assert_eq!(pulled.unwrap(), [Some(known[2].to_vec()), None, Some(known[0].to_vec())]);
    }

    #[tokio::test]
    async fn wrong_bytes_end_a_pull() {
        let (ours, theirs) = tokio::io::duplex(1000);
        let server = serve(theirs, |_| Some(Arc::from(&b"something else"[..])));
        let pulled = tokio::select! {
            pulled = pull(ours, vec![BlobDigest::of(b"this")]) => pulled,
            () = async { server.await; std::future::pending().await } => unreachable!(),
        };
        assert!(matches!(pulled, Err(PullError::WrongDigest)));
    }

    #[tokio::test]
    async fn requests_are_bounded() {
        let digests = vec![BlobDigest::of(b"x"); BLOBS_PER_REQUEST_MAX + 1];
        let (mut ours, mut theirs) = tokio::io::duplex(10_000);
        let request = codec::encode(&BlobRequest { digests });
        frame::write(&mut ours, &request, FRAME_DEADLINE).await.unwrap();
        assert!(matches!(read_request(&mut theirs).await, Err(PullError::Malformed(_))));
        frame::write(&mut ours, b"\xffnonsense", FRAME_DEADLINE).await.unwrap();
        assert!(matches!(read_request(&mut theirs).await, Err(PullError::Malformed(_))));
    }
}
