//! The PROXY protocol at both ends: who a peer says that its client is, and what endpoints are told.
//!
//! A header is taken from peers that are trusted only, ahead of every other byte, TLS included. What comes with it in
//! one read is kept for whoever serves the connection.

use std::cell::OnceCell;
use std::net::SocketAddr;

use ringway_core::model::{ProxyHeader, ProxyProtocol};
use ringway_core::proxy_protocol::{
    self as codec, Extras, HeaderError, Origin, PP2_CLIENT_CERT_CONN, PP2_CLIENT_CERT_SESS, PP2_CLIENT_SSL, SslInfo,
};
use rustix::net::Shutdown;

use super::tls::Secure;
use super::{Client, Conn};
use crate::buffer::{Buf, Class};
use crate::metrics::DownstreamError;
use crate::rt::{self, Stream};
use crate::tls::Version;
use crate::worker::Core;

/// Longest header that is read, in bytes: what a buffer holds.
const MAX: usize = Class::Head.capacity();

/// Reads the header that the policy asks for, if it does. `false`: the connection is refused.
pub(super) async fn read(core: &Core, policy: &ProxyProtocol, conn: &mut Conn, stream: &mut Stream) -> bool {
    if !policy.trusted.iter().any(|net| net.contains(&conn.client.source.ip())) {
        // Whatever it says of itself is not believed. Where a header is not required, it is a client like any other.
        if !policy.optional {
            core.metrics.downstream_error(DownstreamError::ProxyUntrusted);
        }
        return policy.optional;
    }
    let by = rt::tick_after(policy.timeout);
    let mut buf = Buf::new(Class::Head);
    loop {
        stream.rd.deadline().arm(by, Shutdown::Read);
        let (read, back) = stream.rd.read(buf).await;
        buf = back;
        let late = stream.rd.deadline().disarm();
        let ended = !matches!(read, Ok(1..));
        if late || (ended && buf.is_empty()) {
            let reason = if late { DownstreamError::ProxyTimeout } else { DownstreamError::Aborted };
            core.metrics.downstream_error(reason);
            return false;
        }
        let (len, origin) = match codec::parse(buf.data(), MAX) {
            Ok(None) if !ended && buf.room() > 0 => continue,
            Ok(Some(header)) => (header.len, header.origin),
            Err(HeaderError::NotProxy) if policy.optional => (0, Origin::Unknown),
            Ok(None) | Err(_) => {
                core.metrics.downstream_error(DownstreamError::ProxyHeader);
                return false;
            }
        };
        buf.consume(len);
        if let Origin::Stream { source, destination } = origin {
            conn.client.says(source, destination);
        }
        conn.first = (!buf.is_empty()).then_some(buf);
        return true;
    }
}

impl Conn {
    /// The header for an endpoint that wants one.
    pub(super) fn header(&self, wanted: &ProxyHeader, id: impl FnOnce() -> u64) -> Vec<u8> {
        self.client.header(wanted, self.secure.as_deref(), id)
    }
}

impl Client {
    /// A proxy in front has said who it is.
    fn says(&mut self, source: SocketAddr, destination: SocketAddr) {
        let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
        self.source = canonical(source);
        self.destination = OnceCell::from(canonical(destination));
    }

    /// The header for an endpoint that wants one. It is the same for one connection of one client, so that kept
    /// connections that it was sent on serve that client again.
    pub(super) fn header(&self, wanted: &ProxyHeader, secure: Option<&Secure>, id: impl FnOnce() -> u64) -> Vec<u8> {
        let flow = self.flow();
        let origin = Origin::Stream { source: flow.source, destination: flow.destination };
        let mut out = Vec::with_capacity(128);
        match wanted {
            ProxyHeader::V1 => codec::write_v1(&origin, &mut out),
            ProxyHeader::V2(tlvs) => {
                let name = secure.and_then(|secure| secure.server_name.as_deref()).or(self.server_name.as_deref());
                let cipher = secure.map(|secure| secure.cipher.replace("TLS13_", "TLS_"));
                let id = tlvs.unique_id.then(|| format!("{:016x}", self.id.get_or_init(id)));
                let extras = Extras {
                    alpn: secure.filter(|_| tlvs.alpn).and_then(|secure| secure.alpn.as_deref()).map(str::as_bytes),
                    authority: name.filter(|_| tlvs.authority).map(str::as_bytes),
                    ssl: secure.filter(|_| tlvs.ssl).map(|secure| ssl(secure, cipher.as_deref())),
                    unique_id: id.as_deref().map(str::as_bytes),
                    crc32c: tlvs.crc32c,
                    noop: 0,
                };
                codec::write_v2(&origin, &extras, &mut out);
            }
        }
        out
    }
}

fn ssl<'s>(secure: &'s Secure, cipher: Option<&'s str>) -> SslInfo<'s> {
    let client = secure.client.as_ref();
    let shown = match (client, secure.resumed) {
        (None, _) => 0,
        (Some(_), false) => PP2_CLIENT_CERT_CONN | PP2_CLIENT_CERT_SESS,
        (Some(_), true) => PP2_CLIENT_CERT_SESS,
    };
    let name = client.and_then(|client| client.subject.split(',').find_map(|part| part.trim().strip_prefix("CN=")));
    SslInfo {
        client: PP2_CLIENT_SSL | shown,
        verified: client.is_some_and(|client| client.verified),
        version: Some(match secure.version {
            Version::Tls12 => b"TLSv1.2",
            Version::Tls13 => b"TLSv1.3",
        }),
        cipher: cipher.map(str::as_bytes),
        common_name: name.map(str::as_bytes),
        ..SslInfo::default()
    }
}
