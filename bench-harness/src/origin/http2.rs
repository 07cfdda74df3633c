//! HTTP/2 by prior knowledge as a server, by the `h2` crate: the answers of HTTP/1.1, and unary calls of gRPC.

use std::rc::Rc;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use monoio::net::TcpStream;

use super::Lie;
use super::http1::{FILL, ID, Settings};
use crate::wire::Wire;

const WRONG: [u8; ID] = *b"ffffffffffffffff";

/// Serves one connection, of which the preface has been read.
pub(super) async fn connection(stream: TcpStream, first: Vec<u8>, settings: Rc<Settings>) {
    let (wire, pumps) = Wire::new(stream, None, first, 64 << 10);
    monoio::spawn(pumps);
    let mut builder = h2::server::Builder::new();
    builder
        .max_concurrent_streams(1024)
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .max_send_buffer_size(8 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(wire).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        if settings.delay.is_zero() && request.method() == Method::GET {
            let _reset = answer(&request, respond, &settings);
        } else {
            let settings = Rc::clone(&settings);
            monoio::spawn(async move {
                monoio::time::sleep(settings.delay).await;
                let _reset = call(request, respond, &settings).await;
            });
        }
    }
}

fn size(request: &Request<RecvStream>) -> Option<usize> {
    request.uri().path().rsplit('/').next()?.parse().ok()
}

/// The stream of an answer's body, the id for it, and the lie that is to be told.
type Begun = (SendStream<Bytes>, [u8; ID], Option<Lie>);

/// Sends the head of an answer.
fn head(
    request: &Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    settings: &Settings,
    content_type: &'static str,
    length: Option<usize>,
) -> Result<Begun, h2::Error> {
    let id: Option<[u8; ID]> = request.headers().get("x-bench-id").and_then(|value| value.as_bytes().try_into().ok());
    let id = id.unwrap_or([b'0'; ID]);
    let lie = settings.lies();
    let shown = if lie == Some(Lie::HeadId) { WRONG } else { id };
    let mut response = Response::new(());
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static(content_type));
    headers.insert("x-bench-id", HeaderValue::from_bytes(&shown).unwrap_or(HeaderValue::from_static("")));
    if let Some(length) = length {
        headers.insert("content-length", HeaderValue::from(length));
    }
    Ok((respond.send_response(response, false)?, if lie == Some(Lie::BodyId) { WRONG } else { id }, lie))
}

fn answer(
    request: &Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    settings: &Settings,
) -> Result<(), h2::Error> {
    let Some(size) = size(request) else {
        let mut refusal = Response::new(());
        *refusal.status_mut() = http::StatusCode::BAD_REQUEST;
        return respond.send_response(refusal, true).map(drop);
    };
    let (mut stream, id, lie) = head(request, &mut respond, settings, "application/octet-stream", Some(size))?;
    let size = if lie == Some(Lie::ShortBody) { size.saturating_sub(1) } else { size };
    if size <= 16 << 10 {
        let mut body = BytesMut::with_capacity(size);
        fill(&mut body, size, &id);
        return stream.send_data(body.freeze(), true);
    }
    // Nothing of a large body is copied here.
    stream.send_data(Bytes::copy_from_slice(&id), false)?;
    let mut left = size - 2 * ID;
    while left > 0 {
        let part = left.min(FILL.len());
        stream.send_data(Bytes::from_static(&FILL[..part]), false)?;
        left -= part;
    }
    stream.send_data(Bytes::copy_from_slice(&id), true)
}

fn fill(body: &mut BytesMut, size: usize, id: &[u8; ID]) {
    if size < 2 * ID {
        body.extend_from_slice(&id[..size.min(ID)]);
        body.put_bytes(b'x', size.saturating_sub(ID));
    } else {
        body.extend_from_slice(id);
        body.put_bytes(b'x', size - 2 * ID);
        body.extend_from_slice(id);
    }
}

/// A call, whose message must carry the id of its head; or any other request, when its body has been read.
async fn call(
    mut request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    settings: &Settings,
) -> Result<(), h2::Error> {
    let mut message = BytesMut::new();
    while let Some(data) = request.body_mut().data().await {
        let data = data?;
        request.body_mut().flow_control().release_capacity(data.len())?;
        message.extend_from_slice(&data);
    }
    let content_type = request.headers().get("content-type").map_or(&b""[..], HeaderValue::as_bytes);
    if !content_type.starts_with(b"application/grpc") {
        return answer(&request, respond, settings);
    }
    let size = size(&request).unwrap_or(0);
    let (mut stream, id, _) = head(&request, &mut respond, settings, "application/grpc", None)?;
    let asked = request.headers().get("x-bench-id").map_or(&b""[..], HeaderValue::as_bytes);
    let carried = message.len().saturating_sub(5).min(ID);
    // 3: INVALID_ARGUMENT.
    let right = message.len() >= 5 && asked.len() == ID && message[5..5 + carried] == asked[..carried];
    let mut body = BytesMut::with_capacity(5 + size);
    body.put_u8(0);
    body.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    fill(&mut body, size, &id);
    stream.send_data(body.freeze(), false)?;
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(if right { "0" } else { "3" }));
    stream.send_trailers(trailers)
}
