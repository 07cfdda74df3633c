//! Storms of frames, valid and not, at the interface of streams, by the harness of the fuzz target `http2_server`.
//! `RINGWAY_SIM_SEED=0x2a cargo test --profile quick --test it http2_storm` replays one seed.

#[path = "../fuzz/harness/http2_server.rs"]
mod harness;

use ringway::rt::Driver;

use crate::support::Random;
use crate::support::h2::{CONTINUATION, GOAWAY, block, frame, post};
use crate::support::h2::{DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE};

const KINDS: [u8; 10] =
    [DATA, DATA, HEADERS, HEADERS, RST_STREAM, SETTINGS, PING, WINDOW_UPDATE, PRIORITY, CONTINUATION];

fn storm(random: &mut Random) -> Vec<u8> {
    let mut bytes = frame(SETTINGS, 0, 0, &[]);
    // Streams whose requests have not ended.
    let mut open = Vec::new();
    let mut next = 1;
    // Half of them keep to the rules.
    let wild = random.below(2) * 6;
    for _ in 0..1 + random.below(60) {
        let flags = [0, END_STREAM, END_HEADERS, END_STREAM | END_HEADERS][random.below(4)];
        let ends = flags & END_STREAM;
        let at = if open.is_empty() { None } else { Some(random.below(open.len())) };
        match (random.below(16 + wild), at) {
            (0..=4, _) | (5..=15, None) => {
                let path = ["/", "/r", "/i", "/e", "/body"][random.below(5)];
                bytes.extend(frame(HEADERS, END_HEADERS | ends, next, &block(&post(path))));
                if ends == 0 {
                    open.push(next);
                }
                next += 2;
            }
            (5..=11, Some(at)) => {
                bytes.extend(frame(DATA, ends, open[at], &vec![b'x'; random.below(800)]));
                if ends != 0 {
                    open.swap_remove(at);
                }
            }
            (12, Some(at)) => bytes.extend(frame(RST_STREAM, 0, open.swap_remove(at), &[0, 0, 0, 8])),
            (13, Some(at)) => bytes.extend(frame(WINDOW_UPDATE, 0, open[at], &[0, 0, 4, 0])),
            (14, Some(at)) => {
                bytes.extend(frame(HEADERS, END_HEADERS | END_STREAM, open.swap_remove(at), &block(&[("x-end", "1")])));
            }
            (15, Some(_)) => {
                bytes.extend(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, u8::try_from(random.below(256)).unwrap(), 0]));
            }
            // Any frame with any payload, at any stream.
            (16..=19, _) => {
                let payload: Vec<u8> = (0..random.below(40)).map(|_| random.next().to_le_bytes()[0]).collect();
                let id = u32::try_from(random.below(2 + next as usize)).unwrap();
                bytes.extend(frame(KINDS[random.below(KINDS.len())], flags, id, &payload));
            }
            (20, _) => bytes.extend(frame(GOAWAY, 0, 0, &[0; 8])),
            // A byte that is another.
            _ => {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
        }
    }
    if wild > 0 {
        bytes.truncate(bytes.len() - random.below(bytes.len()) / 2);
    }
    bytes
}

#[test]
fn any_frames_come_to_an_end() {
    let driver = if crate::support::proxy::driver() == "epoll" { Driver::Epoll } else { Driver::IoUring };
    let seeds = match std::env::var("RINGWAY_SIM_SEED") {
        Ok(text) => vec![u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("a seed in hexadecimal")],
        Err(_) => (1..=2000).collect(),
    };
    let (mut served, mut silent) = (0, 0);
    for seed in seeds {
        let bytes = storm(&mut Random(seed));
        let ended = std::panic::catch_unwind(|| harness::serve(driver, &bytes));
        let (end, requests, told) = ended.unwrap_or_else(|_| panic!("seed {seed:#x}"));
        assert!(end.is_some(), "seed {seed:#x}: it has ended without saying how");
        served += requests;
        silent += usize::from(told.is_empty());
    }
    eprintln!("{served} requests, {silent} connections that were told nothing");
}
