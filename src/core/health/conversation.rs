//! A probe over TCP as a client that is no socket: a connection is opened, perhaps one request is sent and its status
//! read, and the connection is reset.
//!
//! Segments go in and come out; who has the wire and the clock is somebody else. What is lost is lost: the probe fails
//! at its timeout, and it takes several failures to matter. Only the SYN is repeated.

use std::net::SocketAddr;

use crate::dsr::segment::{ACK, PSH, RST, SYN, Segment};

use super::{Probe, ProbeError};

/// The status line of an answer is in its first bytes.
const ANSWER: usize = 256;

/// What comes of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it did not belong here, or there is more to come.
    Wait,
    /// Send this.
    Send(Outgoing),
    /// The probe is over; send this, if anything.
    Done(Result<(), ProbeError>, Option<Outgoing>),
}

/// A segment to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    data: Vec<u8>,
}

/// One probe.
#[derive(Debug, Clone)]
pub struct Conversation {
    source: SocketAddr,
    destination: SocketAddr,
    probe: Probe,
    sequence: u32,
    /// Of the peer, once it has answered.
    expected: Option<u32>,
    answer: Vec<u8>,
}

impl Conversation {
    /// A probe from and to these addresses; `sequence` is the first number.
    pub fn new(source: SocketAddr, destination: SocketAddr, probe: Probe, sequence: u32) -> Self {
        Self { source, destination, probe, sequence, expected: None, answer: Vec::new() }
    }

    /// What opens the connection, also when it is repeated.
    pub fn open(&self) -> Outgoing {
        Outgoing { sequence: self.sequence, acknowledged: 0, flags: SYN, data: Vec::new() }
    }

    /// Whether the connection has been opened.
    pub fn is_open(&self) -> bool {
        self.expected.is_some()
    }

    /// As a segment.
    pub fn segment<'o>(&self, outgoing: &'o Outgoing) -> Segment<'o> {
        Segment {
            source: self.source,
            destination: self.destination,
            sequence: outgoing.sequence,
            acknowledged: outgoing.acknowledged,
            flags: outgoing.flags,
            data: &outgoing.data,
        }
    }

    /// Takes a segment in.
    pub fn receive(&mut self, segment: &Segment<'_>) -> Next {
        if (segment.source, segment.destination) != (self.destination, self.source) {
            return Next::Wait;
        }
        let Some(expected) = self.expected else { return self.opening(segment) };
        if segment.flags & RST != 0 {
            return Next::Done(Err(ProbeError::Refused), None);
        }
        if segment.sequence != expected || segment.data.is_empty() {
            return Next::Wait;
        }
        let length = u32::try_from(segment.data.len()).unwrap_or(u32::MAX);
        self.expected = Some(expected.wrapping_add(length));
        let room = ANSWER - self.answer.len();
        self.answer.extend(&segment.data[..segment.data.len().min(room)]);
        match self.judge() {
            Some(result) => Next::Done(result, Some(self.reset())),
            None => Next::Send(self.outgoing(ACK, Vec::new())),
        }
    }

    fn opening(&mut self, segment: &Segment<'_>) -> Next {
        let ours = self.sequence.wrapping_add(1);
        if segment.flags & ACK == 0 || segment.acknowledged != ours {
            return Next::Wait;
        }
        if segment.flags & RST != 0 {
            return Next::Done(Err(ProbeError::Refused), None);
        }
        if segment.flags & SYN == 0 {
            return Next::Wait;
        }
        self.sequence = ours;
        self.expected = Some(segment.sequence.wrapping_add(1));
        let Probe::Http { path, host, .. } = &self.probe else {
            return Next::Done(Ok(()), Some(self.reset()));
        };
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: ringway-health\r\nconnection: close\r\n\r\n");
        let outgoing = self.outgoing(ACK | PSH, request.into_bytes());
        self.sequence = ours.wrapping_add(u32::try_from(outgoing.data.len()).unwrap_or(u32::MAX));
        Next::Send(outgoing)
    }

    fn outgoing(&self, flags: u8, data: Vec<u8>) -> Outgoing {
        Outgoing { sequence: self.sequence, acknowledged: self.expected.unwrap_or(0), flags, data }
    }

    fn reset(&self) -> Outgoing {
        self.outgoing(RST | ACK, Vec::new())
    }

    fn judge(&self) -> Option<Result<(), ProbeError>> {
        let Probe::Http { statuses, .. } = &self.probe else { return Some(Ok(())) };
        judge_answer(&self.answer, statuses)
            .or_else(|| (self.answer.len() >= ANSWER).then_some(Err(ProbeError::Malformed)))
    }
}

/// What the first bytes of an HTTP/1 answer mean for a check; `None`: there are too few of them.
pub fn judge_answer(bytes: &[u8], statuses: &[(u16, u16)]) -> Option<Result<(), ProbeError>> {
    const START: &[u8] = b"HTTP/1.";
    let common = bytes.len().min(START.len());
    if bytes[..common] != START[..common] {
        return Some(Err(ProbeError::Malformed));
    }
    // `HTTP/1.1 200` and what ends the number.
    let line = bytes.get(..13)?;
    let digits = std::str::from_utf8(&line[9..12]).ok().and_then(|digits| digits.parse::<u16>().ok());
    let well_formed = line[8] == b' ' && line[7].is_ascii_digit() && !line[12].is_ascii_digit();
    match digits.filter(|status| well_formed && (100..600).contains(status)) {
        None => Some(Err(ProbeError::Malformed)),
        Some(status) if statuses.iter().any(|(low, high)| (*low..=*high).contains(&status)) => Some(Ok(())),
        Some(status) => Some(Err(ProbeError::Status(status))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(probe: Probe) -> Conversation {
        Conversation::new("10.0.0.1:61000".parse().unwrap(), "10.0.0.100:80".parse().unwrap(), probe, u32::MAX)
    }

    fn answer<'d>(to: &Conversation, sequence: u32, acknowledged: u32, flags: u8, data: &'d [u8]) -> Segment<'d> {
        Segment { source: to.destination, destination: to.source, sequence, acknowledged, flags, data }
    }

    #[test]
    fn an_accepted_connection_is_reset() {
        let mut it = conversation(Probe::Tcp);
        assert_eq!(it.receive(&answer(&it, 9, 7, SYN | ACK, b"")), Next::Wait);
        let Next::Done(Ok(()), Some(reset)) = it.receive(&answer(&it, 9, 0, SYN | ACK, b"")) else { panic!() };
        assert_eq!((reset.sequence, reset.acknowledged, reset.flags), (0, 10, RST | ACK));
    }

    #[test]
    fn a_refused_connection_is_a_failure() {
        let mut it = conversation(Probe::Tcp);
        assert_eq!(it.receive(&answer(&it, 0, 0, RST | ACK, b"")), Next::Done(Err(ProbeError::Refused), None));
    }

    #[test]
    fn http_answers_are_judged_by_status_however_they_are_cut() {
        let probe = Probe::Http { path: "/ready".into(), host: "a".into(), statuses: vec![(200, 299)] };
        let cases: [(&[u8], Result<(), ProbeError>); 5] = [
            (b"HTTP/1.1 204 No Content\r\n\r\n", Ok(())),
            (b"HTTP/1.0 503 x\r\n\r\n", Err(ProbeError::Status(503))),
            (b"SSH-2.0-OpenSSH_9.9\r\n", Err(ProbeError::Malformed)),
            (b"HTTP/1.1 2000 \r\n", Err(ProbeError::Malformed)),
            (b"HTTP/1.1 x00 \r\n\r\n", Err(ProbeError::Malformed)),
        ];
        for (bytes, wanted) in cases {
            for cut in 1..bytes.len() {
                let mut it = conversation(probe.clone());
                let Next::Send(request) = it.receive(&answer(&it, 5, 0, SYN | ACK, b"")) else { panic!() };
                assert!(request.data.starts_with(b"GET /ready HTTP/1.1\r\nhost: a\r\n"));
                let mut next = it.receive(&answer(&it, 6, 0, ACK, &bytes[..cut]));
                // Out of order and twice: neither counts.
                assert!(matches!(next, Next::Done(..)) || it.receive(&answer(&it, 6, 0, ACK, b"zz")) == Next::Wait);
                if let Next::Send(_) = next {
                    let sequence = 6 + u32::try_from(cut).unwrap();
                    next = it.receive(&answer(&it, sequence, 0, ACK, &bytes[cut..]));
                }
                let Next::Done(result, Some(_)) = next else { panic!("{cut}: {next:?}") };
                assert_eq!(result, wanted, "cut at {cut}");
            }
        }
    }

    #[test]
    fn an_endless_line_is_no_answer() {
        let probe = Probe::Http { path: "/".into(), host: "a".into(), statuses: vec![(200, 200)] };
        let mut it = conversation(probe);
        it.receive(&answer(&it, 0, 0, SYN | ACK, b""));
        let Next::Done(Err(ProbeError::Malformed), _) = it.receive(&answer(&it, 1, 0, ACK, &[b'H'; 1000])) else {
            panic!()
        };
    }
}
