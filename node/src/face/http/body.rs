//! Reading a request's body: bounded in size and in time.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::{
    StatusCode,
    body::{Body as _, Incoming},
};

use super::reply::{self, Refusal};

/// Bytes that are set aside for a body on the word of its length alone; a longer one grows as it comes.
const RESERVED_BYTES_MAX: usize = 2 << 20;

/// The whole body, in the very buffer in which it came when it came in one piece.
///
/// # Errors
/// 413 above `bytes_max` (at once, if the length is declared), 408 when it takes longer than `timeout`, 400 when it
/// breaks off.
pub(super) async fn read(body: Incoming, bytes_max: usize, timeout: Duration) -> Result<Bytes, Refusal> {
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(timeout, collect(body, bytes_max)).await {
        Ok(bytes) => bytes,
        Err(_) => {
            Err(reply::text(StatusCode::REQUEST_TIMEOUT, "Request Timeout: the body came too slowly").into())
        }
    }
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Refusal> {
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let Some(first) = data(&mut body).await? else { return Ok(Bytes::new()) };
    if first.len() > bytes_max {
        return Err(too_large());
    }
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut whole = BytesMut::with_capacity(announced.min(bytes_max).min(RESERVED_BYTES_MAX));
    whole.extend_from_slice(&first);
    while let Some(more) = data(&mut body).await? {
        if whole.len() + more.len() > bytes_max {
            return Err(too_large());
        }
        whole.extend_from_slice(&more);
    }
    Ok(whole.freeze())
}

/// The next piece of data; trailers are passed over.
async fn data(body: &mut Incoming) -> Result<Option<Bytes>, Refusal> {
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|_| reply::text(StatusCode::BAD_REQUEST, "Bad Request: the body broke off"))?;
        if let Ok(data) = frame.into_data() {
            return Ok(Some(data));
        }
    }
    Ok(None)
}

fn too_large() -> Refusal {
    reply::text(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large: the message exceeds this node's limit")
        .into()
}
