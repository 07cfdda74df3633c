//! When to parse a head that arrives in parts.
//!
//! Parsing after every read would cost a client's drip of single bytes the square of the head's length. A head is
//! parsed when its first bytes come (most are whole then, and what is malformed shows early), when its end has come,
//! and each time its length has doubled.

/// Remembers what was seen of one head.
#[derive(Debug, Default, Clone, Copy)]
pub struct HeadScanner {
    seen: usize,
    parsed: usize,
}

impl HeadScanner {
    /// Nothing seen.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether parsing `buf`, the head so far, may tell something new.
    pub fn should_parse(&mut self, buf: &[u8]) -> bool {
        let from = self.seen.saturating_sub(3).min(buf.len());
        let complete = memchr::memmem::find(&buf[from..], b"\r\n\r\n").is_some();
        self.seen = buf.len();
        if complete || self.parsed == 0 || buf.len() >= 2 * self.parsed {
            self.parsed = buf.len();
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drip_is_parsed_a_logarithmic_number_of_times() {
        let head = [b"GET / HTTP/1.1\r\nA: ".as_slice(), &vec![b'x'; 60_000], b"\r\n\r\n"].concat();
        let mut scanner = HeadScanner::new();
        let parsed: Vec<usize> = (1..=head.len()).filter(|&n| scanner.should_parse(&head[..n])).collect();
        assert!(parsed.len() < 20, "{parsed:?}");
        assert_eq!(parsed.last(), Some(&head.len()));
    }
}
