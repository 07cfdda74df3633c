//! Bodies in content codings: gzip by zlib-rs, Brotli and Zstandard.
//!
//! An encoder costs memory for as long as its answer runs, so a core has so many of them at most; answers beyond that leave
//! as they came. Those of gzip and Zstandard are kept for the next answer; one of Brotli cannot begin anew. Windows are of
//! 256 KiB at most (of 32 KiB for gzip), which bounds an encoder to about a megabyte and a half and suits what passes through a
//! proxy.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, Write as _};
use std::rc::Rc;

use ringway_core::http::coding::Coding;
use zstd::stream::raw::{CParameter, Encoder as Zstd, InBuffer, Operation as _, OutBuffer};

/// Encoders at work on a core at a time.
const ACTIVE_LIMIT: usize = 128;
/// Encoders that a core keeps for later.
const IDLE_LIMIT: usize = 16;
/// Window sizes, as powers of two.
const WINDOW: u32 = 18;
/// What output grows by.
const STEP: usize = 16 << 10;

/// A core's encoders.
#[derive(Debug, Clone, Default)]
pub struct Encoders(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    active: Cell<usize>,
    idle: RefCell<Vec<(Coding, u32, Kind)>>,
}

enum Kind {
    Gzip(flate2::Compress),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Zstd(Zstd<'static>),
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Brotli(_) => "Brotli",
            Self::Zstd(_) => "Zstd",
        })
    }
}

impl Encoders {
    /// One for an answer; `None` when as many are at work as may be.
    pub fn take(&self, coding: Coding, level: u32) -> Option<Encoder> {
        let shared = &self.0;
        if shared.active.get() >= ACTIVE_LIMIT {
            return None;
        }
        let mut idle = shared.idle.borrow_mut();
        let known = idle.iter().rposition(|(of, at, _)| (*of, *at) == (coding, level));
        let kind = match known {
            Some(at) => idle.swap_remove(at).2,
            None => Kind::new(coding, level)?,
        };
        shared.active.set(shared.active.get() + 1);
        Some(Encoder { coding, level, kind: Some(kind), dirty: false, home: Rc::clone(shared) })
    }
}

impl Kind {
    fn new(coding: Coding, level: u32) -> Option<Self> {
        Some(match coding {
            Coding::Gzip => Self::Gzip(flate2::Compress::new_gzip(flate2::Compression::new(level), 15)),
            Coding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(Vec::new(), 4096, level, WINDOW))),
            Coding::Zstd => {
                let mut encoder = Zstd::new(i32::try_from(level).ok()?).ok()?;
                encoder.set_parameter(CParameter::WindowLog(WINDOW)).ok()?;
                Self::Zstd(encoder)
            }
        })
    }

    /// The same for another body, where that can be had.
    fn renewed(self) -> Option<Self> {
        match self {
            Self::Gzip(mut encoder) => {
                encoder.reset();
                Some(Self::Gzip(encoder))
            }
            Self::Zstd(mut encoder) => encoder.reinit().is_ok().then_some(Self::Zstd(encoder)),
            Self::Brotli(_) => None,
        }
    }
}

/// At work on one body. What it puts out goes behind what is there.
#[derive(Debug)]
pub struct Encoder {
    coding: Coding,
    level: u32,
    kind: Option<Kind>,
    /// It holds something that has not come out.
    dirty: bool,
    home: Rc<Shared>,
}

impl Encoder {
    /// The coding.
    pub fn coding(&self) -> Coding {
        self.coding
    }

    /// Takes more of the body.
    pub fn write(&mut self, data: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
        if data.is_empty() {
            return Ok(());
        }
        self.dirty = true;
        match self.kind() {
            Kind::Gzip(encoder) => gzip(encoder, data, flate2::FlushCompress::None, out),
            Kind::Brotli(encoder) => {
                encoder.write_all(data)?;
                out.append(encoder.get_mut());
                Ok(())
            }
            Kind::Zstd(encoder) => {
                let mut input = InBuffer::around(data);
                while input.pos() < data.len() {
                    zstd(out, |room| encoder.run(&mut input, room))?;
                }
                Ok(())
            }
        }
    }

    /// Everything that was taken can be read from what has come out.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if !std::mem::take(&mut self.dirty) {
            return Ok(());
        }
        match self.kind() {
            Kind::Gzip(encoder) => gzip(encoder, &[], flate2::FlushCompress::Sync, out),
            Kind::Brotli(encoder) => {
                encoder.flush()?;
                out.append(encoder.get_mut());
                Ok(())
            }
            Kind::Zstd(encoder) => {
                while zstd(out, |room| encoder.flush(room))? > 0 {}
                Ok(())
            }
        }
    }

    /// The body has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match self.kind() {
            Kind::Gzip(encoder) => gzip(encoder, &[], flate2::FlushCompress::Finish, out),
            Kind::Zstd(encoder) => {
                while zstd(out, |room| encoder.finish(room, true))? > 0 {}
                Ok(())
            }
            Kind::Brotli(_) => {
                if let Some(Kind::Brotli(encoder)) = self.kind.take() {
                    out.append(&mut encoder.into_inner());
                }
                Ok(())
            }
        }
    }

    fn kind(&mut self) -> &mut Kind {
        self.kind.as_mut().expect("nothing follows the end of a body")
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let home = &self.home;
        home.active.set(home.active.get() - 1);
        let mut idle = home.idle.borrow_mut();
        if idle.len() < IDLE_LIMIT
            && let Some(kind) = self.kind.take().and_then(Kind::renewed)
        {
            idle.push((self.coding, self.level, kind));
        }
    }
}

fn gzip(
    encoder: &mut flate2::Compress,
    mut data: &[u8],
    flush: flate2::FlushCompress,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    loop {
        out.reserve(STEP);
        let before = encoder.total_in();
        let status = encoder.compress_vec(data, out, flush)?;
        let taken = usize::try_from(encoder.total_in() - before).expect("no more than was given");
        data = &data[taken..];
        // Where room is left, nothing waits to come out.
        let rest = out.len() == out.capacity() || !data.is_empty();
        if status == flate2::Status::StreamEnd || (!rest && flush != flate2::FlushCompress::Finish) {
            return Ok(());
        }
    }
}

/// One step with room for its output; how much it says is left.
fn zstd(out: &mut Vec<u8>, step: impl FnOnce(&mut OutBuffer<'_, Vec<u8>>) -> io::Result<usize>) -> io::Result<usize> {
    out.reserve(STEP);
    let at = out.len();
    step(&mut OutBuffer::around_pos(out, at))
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    const ALL: [(Coding, u32); 3] = [(Coding::Gzip, 6), (Coding::Brotli, 4), (Coding::Zstd, 3)];

    /// What can be read of bytes that may be cut.
    fn decode(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut from: Box<dyn io::Read> = match coding {
            Coding::Gzip => Box::new(flate2::read::GzDecoder::new(bytes)),
            Coding::Brotli => Box::new(brotli::Decompressor::new(bytes, 4096)),
            Coding::Zstd => Box::new(zstd::stream::read::Decoder::new(bytes).unwrap()),
        };
        let mut piece = [0; 4096];
        while let Ok(read) = from.read(&mut piece) {
            if read == 0 {
                break;
            }
            out.extend_from_slice(&piece[..read]);
        }
        out
    }

    #[test]
    fn bodies_come_out_as_they_went_in_and_flushed_parts_at_once() {
        let encoders = Encoders::default();
        for (coding, level) in ALL {
            for round in 0..3_usize {
                let mut encoder = encoders.take(coding, level).unwrap();
                let (mut body, mut out) = (Vec::new(), Vec::new());
                for step in 0..40_usize {
                    let part: Vec<u8> = (0..step * 997).map(|n| u8::try_from(n * (round + 1) % 251).unwrap()).collect();
                    encoder.write(&part, &mut out).unwrap();
                    body.extend_from_slice(&part);
                    if step % 3 == 0 {
                        encoder.flush(&mut out).unwrap();
                        assert!(decode(coding, &out) == body, "{coding:?} {round} {step}");
                    }
                }
                encoder.finish(&mut out).unwrap();
                assert!(decode(coding, &out) == body, "{coding:?} {round}");
                assert!(out.len() < body.len() / 4, "{coding:?}: {} of {}", out.len(), body.len());
            }
            let mut out = Vec::new();
            encoders.take(coding, level).unwrap().finish(&mut out).unwrap();
            assert_eq!(decode(coding, &out), b"", "{coding:?}");
        }
    }

    #[test]
    fn there_are_so_many_at_a_time_and_some_are_kept() {
        let encoders = Encoders::default();
        let taken: Vec<_> = std::iter::from_fn(|| encoders.take(Coding::Zstd, 1)).collect();
        assert_eq!(taken.len(), ACTIVE_LIMIT);
        drop(taken);
        assert_eq!(encoders.0.idle.borrow().len(), IDLE_LIMIT);
        assert_eq!(encoders.0.active.get(), 0);
    }
}
