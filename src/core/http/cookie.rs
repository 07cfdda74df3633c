//! Cookies of requests (RFC 6265 section 4.2.1).

/// The values of a cookie in one Cookie field, in their order: paths and domains may give a client several of one name.
pub fn cookies<'l>(line: &'l [u8], name: &[u8]) -> impl Iterator<Item = &'l [u8]> {
    line.split(|&byte| byte == b';').filter_map(move |pair| pair.trim_ascii().strip_prefix(name)?.strip_prefix(b"="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_name_are_found() {
        let found = |line: &'static str| -> Vec<&str> {
            cookies(line.as_bytes(), b"id").map(|value| std::str::from_utf8(value).unwrap()).collect()
        };
        assert_eq!(found("id=1"), ["1"]);
        assert_eq!(found("xid=0; id=1;id=2 ;  id=; idx=3; id; ID=4"), ["1", "2", ""]);
        assert_eq!(found(""), [""; 0]);
        assert_eq!(found(";;=;id"), [""; 0]);
        assert_eq!(found("id=a=b"), ["a=b"]);
    }
}
