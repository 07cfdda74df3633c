//! The server's end of a connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use h2::Reason;
use h2::server::{Builder, Connection, Handshake};
use ringway_core::http2::flood::Flood;

use super::SEND_BUFFER;
use super::message::{Chunk, Request};
use super::transport::{Transport, Wire};
use crate::buffer::Buf;
use crate::rt::Stream;

/// What a peer may do.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// SETTINGS_MAX_CONCURRENT_STREAMS
    pub streams: u32,
    /// SETTINGS_MAX_HEADER_LIST_SIZE
    pub header_list: u32,
    /// SETTINGS_INITIAL_WINDOW_SIZE: what one stream may have waiting.
    pub stream_window: u32,
    /// The connection's window.
    pub connection_window: u32,
}

/// Streams that the peer may make this side reset in a connection's life before it ends: by data beyond a window, say,
/// or a malformed request (CVE-2025-8671).
const PROVOKED_RESETS: usize = 256;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides are done.
    Clean,
    /// It broke.
    Broken,
    /// The peer broke the protocol.
    Protocol,
    /// The peer cost too much: a flood that the codec saw.
    Calm,
    /// A flood that the guard saw.
    Flood(Flood),
}

/// A connection. It moves only while it is polled, by one task.
pub struct Server {
    state: State,
    transport: Transport,
    pumps: Option<Pin<Box<dyn Future<Output = ()>>>>,
    end: Option<End>,
}

enum State {
    Handshake(Box<Handshake<Wire, Chunk>>),
    Open(Box<Connection<Wire, Chunk>>),
    Over,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("transport", &self.transport).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Server {
    /// On a stream of which `first` has been read already. It must be polled until it has ended: operations are in
    /// flight.
    pub fn new(stream: Stream, first: Option<Buf>, settings: Settings) -> Self {
        let (transport, wire, read, write) = Transport::new(stream, first, true);
        let mut builder = Builder::new();
        builder
            .enable_connect_protocol()
            .max_concurrent_streams(settings.streams)
            .max_header_list_size(settings.header_list)
            .initial_window_size(settings.stream_window)
            .initial_connection_window_size(settings.connection_window)
            .max_send_buffer_size(SEND_BUFFER)
            .max_local_error_reset_streams(Some(PROVOKED_RESETS));
        let pumps = async move {
            let (read, write) = (std::pin::pin!(read), std::pin::pin!(write));
            crate::rt::join(read, write).await;
        };
        Self {
            state: State::Handshake(Box::new(builder.handshake(wire))),
            transport,
            pumps: Some(Box::pin(pumps)),
            end: None,
        }
    }

    /// The next request; `None` when the connection has ended and its stream is closed.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        loop {
            self.poll_pumps(cx);
            if let Poll::Ready(Some(request)) = self.poll_codec(cx) {
                return Poll::Ready(Some(request));
            }
            // What the codec has written leaves at once.
            self.poll_pumps(cx);
            if self.pumps.is_none() && matches!(self.state, State::Over) {
                return Poll::Ready(None);
            }
            if !self.transport.progressed() {
                return Poll::Pending;
            }
        }
    }

    fn poll_pumps(&mut self, cx: &mut Context<'_>) {
        if let Some(pumps) = &mut self.pumps
            && pumps.as_mut().poll(cx).is_ready()
        {
            self.pumps = None;
        }
    }

    fn poll_codec(&mut self, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        loop {
            if let (Some(flood), State::Open(_), None) = (self.transport.flood(), &self.state, self.end) {
                self.abort(End::Flood(flood), Reason::ENHANCE_YOUR_CALM);
            }
            let end = match &mut self.state {
                State::Handshake(handshake) => match std::task::ready!(Pin::new(&mut **handshake).poll(cx)) {
                    Ok(connection) => {
                        self.state = State::Open(Box::new(connection));
                        continue;
                    }
                    Err(error) => end_of(&error),
                },
                State::Open(connection) => match std::task::ready!(connection.poll_accept(cx)) {
                    Some(Ok((request, respond))) => return Poll::Ready(Some(Request::new(request, respond))),
                    Some(Err(error)) => end_of(&error),
                    None => End::Clean,
                },
                State::Over => return Poll::Ready(None),
            };
            self.end.get_or_insert(end);
            // The codec's last frames are with the transport, or the stream is of no use.
            self.state = State::Over;
            self.transport.close();
        }
    }

    /// Tells the peer to open no more streams, and, once it has heard that, which was the last one (RFC 9113 section
    /// 6.8). The connection ends with the last stream.
    pub fn go_away(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.graceful_shutdown();
        }
    }

    /// Ends the connection because its client costs too much.
    pub fn calm_down(&mut self) {
        self.abort(End::Calm, Reason::ENHANCE_YOUR_CALM);
    }

    /// Ends the connection whatever its streams do.
    pub fn close(&mut self) {
        match &self.state {
            State::Open(_) => self.abort(End::Clean, Reason::NO_ERROR),
            State::Handshake(_) => {
                self.end.get_or_insert(End::Broken);
                self.state = State::Over;
                self.transport.close();
            }
            State::Over => {}
        }
    }

    fn abort(&mut self, end: End, reason: Reason) {
        if let State::Open(connection) = &mut self.state {
            self.end.get_or_insert(end);
            connection.abrupt_shutdown(reason);
        }
    }

    /// Whether the peer has sent its preface.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// How it ended.
    pub fn end(&self) -> Option<End> {
        self.end
    }
}

fn end_of(error: &h2::Error) -> End {
    match error.reason() {
        _ if error.is_io() => End::Broken,
        Some(Reason::NO_ERROR) => End::Clean,
        Some(Reason::ENHANCE_YOUR_CALM) if !error.is_remote() => End::Calm,
        Some(_) if error.is_remote() => End::Broken,
        _ => End::Protocol,
    }
}
