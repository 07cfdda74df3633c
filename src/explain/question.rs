//! What is asked about.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Where to.
    pub url: Url,
    /// The request's method.
    pub method: String,
    /// Its fields, as `name: value`, besides Host.
    pub headers: Vec<String>,
    /// The name in the TLS handshake; none: the URL's host.
    pub server_name: Option<String>,
    /// The client.
    pub from: Option<Peer>,
    /// What is connected to; none: the URL's host, if it is an address, and its port.
    pub to: Option<Peer>,
    /// Keys of session tokens; none: the machine's.
    pub session_keys: Option<PathBuf>,
}

impl Question {
    /// The address that is connected to, if one is named, and the port.
    pub(super) fn destination(&self) -> (Option<IpAddr>, u16) {
        let (ip, port) = match self.to {
            Some(to) => (Some(to.ip), to.port),
            None => (self.url.ip(), None),
        };
        (ip, port.unwrap_or_else(|| self.url.port()))
    }

    /// The name in the TLS handshake. Addresses are not sent (RFC 6066 section 3).
    pub(super) fn server_name(&self) -> Option<String> {
        let host = || Some(self.url.host.clone()).filter(|_| self.url.ip().is_none());
        self.server_name.clone().or_else(host).map(|name| name.trim_end_matches('.').to_lowercase())
    }
}

/// An address, with or without a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The address.
    pub ip: IpAddr,
    /// The port.
    pub port: Option<u16>,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(Self { ip: address.ip(), port: Some(address.port()) });
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let ip = bare.parse().map_err(|_invalid| format!("\"{text}\" is neither an IP address nor IP:PORT"))?;
        Ok(Self { ip, port: None })
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

/// What a URL's scheme stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// A request in plain.
    Http,
    /// A request in TLS.
    Https,
    /// A TCP connection.
    Tcp,
    /// A TLS connection with anything in it.
    Tls,
    /// Datagrams.
    Udp,
}

impl Scheme {
    /// As in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Udp => "udp",
        }
    }

    fn port(self) -> Option<u16> {
        match self {
            Self::Http => Some(80),
            Self::Https | Self::Tls => Some(443),
            Self::Tcp | Self::Udp => None,
        }
    }
}

/// A URL taken apart as little as a client does: what the proxy makes of the rest is its own matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Its scheme.
    pub scheme: Scheme,
    /// Its host, without brackets.
    pub host: String,
    /// Host and port as written: a request's Host.
    pub authority: String,
    port: u16,
    /// Path and query as written, without a fragment; `/` where there is none.
    pub target: String,
}

impl Url {
    /// The port that is connected to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host, if it is an address.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for Url {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) =
            text.split_once("://").ok_or("expected SCHEME://HOST, such as https://www.example.com/path")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => Scheme::Http,
            "https" | "wss" => Scheme::Https,
            "tcp" => Scheme::Tcp,
            "tls" => Scheme::Tls,
            "udp" => Scheme::Udp,
            other => return Err(format!("{other}:// is not explained: http, https, tcp, tls and udp are")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(at);
        let (host, port) = match authority.strip_prefix('[') {
            Some(inside) => {
                let (host, port) = inside.split_once(']').ok_or("`[` without its `]`")?;
                (host, port.strip_prefix(':'))
            }
            None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
        };
        if host.is_empty() {
            return Err("the URL has no host".to_owned());
        }
        let port = match port {
            Some(port) => port.parse().map_err(|_invalid| format!("\"{port}\" is not a port"))?,
            None => scheme.port().ok_or_else(|| format!("{}:// needs a port", scheme.as_str()))?,
        };
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { scheme, host: host.to_owned(), authority: authority.to_owned(), port, target })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority)?;
        match self.scheme {
            Scheme::Http | Scheme::Https => f.write_str(&self.target),
            Scheme::Tcp | Scheme::Tls | Scheme::Udp => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let url: Url = "https://[2001:db8::1]:8443?q#part".parse().unwrap();
        assert_eq!((url.host.as_str(), url.port(), url.target.as_str()), ("2001:db8::1", 8443, "/?q"));
        let url: Url = "HTTP://www.example.com/a//b".parse().unwrap();
        assert_eq!(
            (url.port(), url.target.as_str(), url.to_string().as_str()),
            (80, "/a//b", "http://www.example.com/a//b")
        );
        for bad in ["www.example.com", "ftp://x", "http:///x", "tcp://10.0.0.1", "http://x:y", "http://[::1"] {
            assert!(bad.parse::<Url>().is_err(), "{bad}");
        }
    }

    #[test]
    fn peers_have_a_port_or_not() {
        assert_eq!("10.0.0.1:5".parse::<Peer>().unwrap().port, Some(5));
        assert_eq!("[::1]".parse::<Peer>().unwrap().to_string(), "::1");
        assert!("x:5".parse::<Peer>().is_err());
    }
}
