//! The server's end of a connection.

use std::rc::Rc;
use std::task::{Context, Poll};

use ringway_core::http2::flood::Flood;
use ringway_core::http2::frame::Code;
use ringway_core::http2::{self as codec, Limits, Role};

use super::message::Request;
use super::transport::{Link, Pumps};
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

/// Streams that the peer may make this side reset at once before the connection ends: by data beyond a window, say, or a
/// malformed request (CVE-2025-8671).
const PROVOKED_RESETS: u32 = 256;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides are done.
    Clean,
    /// It broke.
    Broken,
    /// The peer broke the protocol.
    Protocol,
    /// The peer cost too much.
    Calm,
    /// The peer sent too much of one kind of frame.
    Flood(Flood),
}

/// A connection. It moves only while it is polled, by one task.
pub struct Server {
    link: Rc<Link>,
    pumps: Option<Pumps>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("link", &self.link).finish_non_exhaustive()
    }
}

impl Server {
    /// On a stream of which `first` has been read already. It must be polled until it has ended: operations are in
    /// flight.
    pub fn new(stream: Stream, first: Option<Buf>, settings: Settings) -> Self {
        let Settings { streams, header_list, stream_window, connection_window } = settings;
        let limits =
            Limits { streams, header_list, stream_window, window: connection_window, provoked_resets: PROVOKED_RESETS };
        let (link, pumps) = Link::new(stream, first, Role::Server, limits);
        Self { link, pumps: Some(pumps) }
    }

    /// The next request; `None` when the connection has ended and its stream is closed.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Request>> {
        self.link.driven_by(cx);
        loop {
            if let Some(request) = self.link.next_request() {
                return Poll::Ready(Some(request));
            }
            self.link.turn();
            if let Some(request) = self.link.next_request() {
                return Poll::Ready(Some(request));
            }
            // What has been written leaves at once.
            if let Some(pumps) = &mut self.pumps
                && pumps.as_mut().poll(cx).is_ready()
            {
                self.pumps = None;
            }
            if self.pumps.is_none() {
                self.link.finish();
                return Poll::Ready(None);
            }
            if !self.link.progressed() {
                return Poll::Pending;
            }
        }
    }

    /// Tells the peer to open no more streams, and, once it has heard that, which was the last one (RFC 9113 section
    /// 6.8). The connection ends with the last stream.
    pub fn go_away(&mut self) {
        self.link.with(|connection, out| connection.go_away(out));
    }

    /// Ends the connection because its client costs too much.
    pub fn calm_down(&mut self) {
        self.link.with(|connection, out| connection.abort(Code::ENHANCE_YOUR_CALM, out));
    }

    /// Ends the connection whatever its streams do.
    pub fn close(&mut self) {
        self.link.with(|connection, out| connection.abort(Code::NO_ERROR, out));
    }

    /// Whether the peer has sent its preface.
    pub fn is_open(&self) -> bool {
        self.link.look(|connection| connection.is_settled())
    }

    /// How it ended.
    pub fn end(&self) -> Option<End> {
        Some(match self.link.look(|connection| connection.end())? {
            codec::End::Protocol(Code::ENHANCE_YOUR_CALM) | codec::End::Aborted(Code::ENHANCE_YOUR_CALM) => End::Calm,
            codec::End::Protocol(_) => End::Protocol,
            codec::End::Flood(flood) => End::Flood(flood),
            codec::End::Closed(true) => End::Broken,
            codec::End::Done | codec::End::Aborted(_) | codec::End::Closed(false) => End::Clean,
        })
    }
}
