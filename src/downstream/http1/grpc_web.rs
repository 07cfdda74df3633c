//! gRPC-Web at rules for gRPC: what comes from an endpoint is an answer of gRPC, and what leaves is one of gRPC-Web.

use std::io;

use ringway_core::grpc::web::Answer;

use super::io::{Filled, Watch};
use super::origin::Source;
use crate::buffer::{Buf, Class};
use crate::rt::Tick;

/// An endpoint's answer, translated.
pub(super) struct Translated<'s, S> {
    from: &'s mut S,
    answer: Answer,
    /// Translated bytes that did not fit, from `at` on.
    ahead: Vec<u8>,
    at: usize,
    /// What is left of the trailers, once the end has come.
    end: Option<Vec<u8>>,
}

impl<'s, S: Source> Translated<'s, S> {
    pub(super) fn new(from: &'s mut S, answer: Answer) -> Self {
        Self { from, answer, ahead: Vec::new(), at: 0, end: None }
    }

    /// How the call ended, where its body has said it.
    pub(super) fn status(&self) -> Option<u8> {
        self.answer.status()
    }

    /// Takes what stands in the buffer for what has come.
    fn translate(&mut self, buf: &mut Buf) {
        if self.answer.awaits_head() {
            // A head comes alone.
            if let Some(head) = self.answer.head(buf.data()) {
                self.ahead = head;
                buf.clear();
            }
        } else if self.answer.is_encoded() {
            self.answer.body(buf.data(), &mut self.ahead);
            buf.clear();
        }
        self.finish(buf);
    }

    /// Takes note of the end, and gives what fits of what is ahead.
    fn finish(&mut self, buf: &mut Buf) {
        if let Some(trailers) = self.from.take_end() {
            self.end = Some(self.answer.end(trailers, &mut self.ahead));
        }
        self.give(buf);
    }

    fn give(&mut self, buf: &mut Buf) {
        let left = &self.ahead[self.at..];
        let taken = left.len().min(buf.room());
        if taken > 0 {
            let fits = buf.push(&left[..taken]);
            debug_assert!(fits, "no more than there is room for");
            self.at += taken;
        }
        if self.at == self.ahead.len() {
            self.ahead.clear();
            self.at = 0;
        }
    }
}

impl<S: Source> Source for Translated<'_, S> {
    const FRAMES: bool = true;

    async fn fill(&mut self, mut buf: Buf, by: Tick, watch: Watch<'_>) -> (Filled, Buf) {
        if !self.ahead.is_empty() || self.end.is_some() {
            self.give(&mut buf);
            return (Filled::Data, buf);
        }
        // What is left of a head is one that does not fit, and is refused.
        let is_rest = !buf.is_empty();
        let (filled, mut buf) = self.from.fill(buf, by, watch).await;
        if filled == Filled::Data && !is_rest {
            self.translate(&mut buf);
        }
        (filled, buf)
    }

    fn read_now(&mut self, buf: &mut Buf) -> io::Result<Option<usize>> {
        let before = buf.len();
        if self.ahead.is_empty() && self.end.is_none() {
            if self.answer.is_encoded() {
                let mut raw = Buf::new(Class::Body);
                self.from.read_now(&mut raw)?;
                self.answer.body(raw.data(), &mut self.ahead);
            } else {
                self.from.read_now(buf)?;
            }
            self.finish(buf);
        } else {
            self.give(buf);
        }
        Ok(Some(buf.len() - before))
    }

    fn take_end(&mut self) -> Option<Vec<u8>> {
        if self.ahead.is_empty() { self.end.take() } else { None }
    }

    fn give_up(&mut self, trailers: &[u8]) -> bool {
        let open = self.answer.is_open() && self.from.give_up(trailers);
        if open {
            self.end = Some(self.answer.end(trailers.to_vec(), &mut self.ahead));
        }
        open
    }
}
