//! A rule in the host's firewall that drops what is for a VIP and reaches the stack all the same.
//!
//! The kernel owns the addresses (it answers ARP for them), and nothing listens there: a frame that the program does
//! not forward, or every frame if somebody takes the program away, would be answered by a reset, which ends the
//! client's connection. Silence does not: the client repeats.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use ringway_core::dsr::Transport;

/// The table, of which everything is ours.
const TABLE: &str = "inet ringway_dsr";

/// What is guarded at the moment.
#[derive(Debug, Default)]
pub(super) struct Guard {
    set: Option<BTreeSet<(SocketAddr, Transport)>>,
}

impl Guard {
    /// Guards exactly these. Nothing happens when that is so already.
    pub(super) fn apply(&mut self, vips: BTreeSet<(SocketAddr, Transport)>) -> io::Result<()> {
        if self.set.as_ref() == Some(&vips) {
            return Ok(());
        }
        nft(&script(&vips))?;
        self.set = Some(vips);
        Ok(())
    }

    /// Whether the rule is in force as far as is known.
    pub(super) fn is_set(&self) -> bool {
        self.set.is_some()
    }
}

/// Removes the rule.
pub(super) fn remove() -> io::Result<()> {
    nft(&format!("table {TABLE}\ndelete table {TABLE}\n"))
}

/// One transaction: packets meet the old rules or the new ones.
fn script(vips: &BTreeSet<(SocketAddr, Transport)>) -> String {
    let elements = |v4: bool| {
        let of_family = vips.iter().filter(|(vip, _)| vip.is_ipv4() == v4);
        let all: Vec<String> = of_family
            .map(|(vip, transport)| {
                let transport = transport.as_str().to_lowercase();
                format!("{} . {transport} . {}", vip.ip(), vip.port())
            })
            .collect();
        if all.is_empty() { String::new() } else { format!("elements = {{ {} }};", all.join(", ")) }
    };
    format!(
        "table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n  \
         set v4 {{ type ipv4_addr . inet_proto . inet_service; {} }}\n  \
         set v6 {{ type ipv6_addr . inet_proto . inet_service; {} }}\n  \
         chain input {{\n    type filter hook input priority -300; policy accept;\n    \
         iif lo accept\n    \
         ip daddr . meta l4proto . th dport @v4 counter drop\n    \
         ip6 daddr . meta l4proto . th dport @v6 counter drop\n  }}\n}}\n",
        elements(true),
        elements(false),
    )
}

fn nft(script: &str) -> io::Result<()> {
    let not_found = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => {
            io::Error::other("the command `nft` is missing: install the package nftables (apt-get install nftables)")
        }
        _ => error,
    };
    let mut command = Command::new("nft");
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Daemons are often started without the directories of administrators.
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).spawn().map_err(not_found)?;
    child.stdin.take().expect("piped").write_all(script.as_bytes())?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("nft: {}", message.lines().next().unwrap_or("failed without a word"))))
}
