//! Any records at an established TLS connection, under a cipher that changes nothing: what the fuzz target `tls_records` and
//! the test `tls_records` of the core share.

use ringway_core::tls::established::{Heard, Peer, Side};
use ringway_core::tls::record::{ContentType, Fault, Protection, TAG};

/// A vector that nonces are made of.
pub(crate) const IV: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// What a conversation has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) data: Vec<u8>,
    pub(crate) tickets: Vec<Vec<u8>>,
    pub(crate) updates: usize,
    /// The peer has closed it, or has been refused.
    pub(crate) end: Option<Result<(), Fault>>,
}

/// A record as a peer sends it.
pub(crate) fn sealed(protection: Protection, number: u64, content: ContentType, text: &[u8]) -> Vec<u8> {
    let inputs = protection.outgoing(&IV, number, content, text.len());
    let mut record = inputs.prefix().to_vec();
    record.extend_from_slice(text);
    record.extend(protection.inner(content));
    record.extend_from_slice(&[0xaa; TAG]);
    record
}

/// A conversation whose records `script` describes by type, length and text, or whose bytes it is, where `first` says so;
/// they come in pieces of a size.
pub(crate) fn run(first: u8, script: &[u8], piece: usize) -> Conversation {
    let protection =
        [Protection::Tls13, Protection::Tls12Explicit, Protection::Tls12Implicit][usize::from(first & 15) % 3];
    let side = if first & 16 == 0 { Side::Server } else { Side::Client };
    let mut bytes = script.to_vec();
    if first & 224 != 0 {
        bytes.clear();
        let (mut rest, mut number) = (script, 0);
        while let [kind, len, behind @ ..] = rest {
            let content = match kind % 5 {
                0 => ContentType::Alert,
                1 => ContentType::ChangeCipherSpec,
                2 => ContentType::ApplicationData,
                _ => ContentType::Handshake,
            };
            let (text, after) = behind.split_at(behind.len().min(usize::from(*len)));
            bytes.extend(sealed(protection, number, content, text));
            (rest, number) = (after, number + 1);
        }
    }
    let mut peer = Peer::new(side, protection == Protection::Tls13);
    let mut found = Conversation { data: Vec::new(), tickets: Vec::new(), updates: 0, end: None };
    let (mut came, mut number) = (Vec::new(), 0);
    for piece in bytes.chunks(piece) {
        came.extend_from_slice(piece);
        loop {
            match next(protection, number, &came, &mut peer, &mut found) {
                Ok(None) => break,
                Ok(Some(len)) => {
                    came.drain(..len);
                    number += 1;
                }
                Err(fault) => found.end = Some(Err(fault)),
            }
            if found.end.is_some() {
                return found;
            }
        }
    }
    found
}

/// Takes one record; returns its length.
fn next(
    protection: Protection,
    number: u64,
    came: &[u8],
    peer: &mut Peer,
    found: &mut Conversation,
) -> Result<Option<usize>, Fault> {
    let Some(record) = protection.arrived(&IV, number, came)? else { return Ok(None) };
    assert!(record.len <= came.len());
    let text = &came[protection.prefix()..record.len - TAG];
    let (content, len) = protection.opened(&record, text)?;
    let tickets = &mut found.tickets;
    let heard = peer.hear(content, &text[..len], |ticket| {
        tickets.push(ticket.to_vec());
        true
    })?;
    match heard {
        Heard::Data => found.data.extend_from_slice(&text[..len]),
        Heard::End => found.end = Some(Ok(())),
        Heard::Update { .. } => found.updates += 1,
        Heard::Nothing | Heard::Renegotiation => {}
    }
    Ok(Some(record.len))
}
