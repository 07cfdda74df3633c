//! What else than a good ClientHello comes to a TLS port: each has its alert or status, its metric, and leaves nothing
//! behind.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, ProtocolVersion};

use crate::support::client::{Client, Ended};
use crate::support::eventually;
use crate::support::proxy::{Proxy, gateway, policy};
use crate::support::tls::{Authority, Connector};
use crate::tls::{https, route, s_client, tls_route};

/// The hello that a client sends.
fn hello(connector: &Connector, name: &str) -> (ClientConnection, Vec<u8>) {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut client = ClientConnection::new(connector.config.clone(), name).unwrap();
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).unwrap();
    (client, bytes)
}

/// The records of one handshake message cut into records of `size`.
fn in_records_of(size: usize, record: &[u8]) -> Vec<u8> {
    let header = &record[..3];
    record[5..]
        .chunks(size)
        .flat_map(|piece| [header, &u16::try_from(piece.len()).unwrap().to_be_bytes()[..], piece].concat())
        .collect()
}

/// Finishes a handshake whose hello has been sent.
fn finish(
    mut client: ClientConnection,
    mut stream: TcpStream,
) -> Client<rustls::StreamOwned<ClientConnection, TcpStream>> {
    while client.is_handshaking() {
        client.complete_io(&mut stream).unwrap();
    }
    Client::over(rustls::StreamOwned::new(client, stream))
}

/// Asserts that no buffer is left in use and no connection open.
fn nothing_is_left(proxy: &Proxy) {
    proxy.expect_metric("ringway_connections_active", &[], 0.0);
    eventually("no buffer is in use", || {
        proxy.metric("ringway_worker_buffers_in_use", &[]) <= 4.0
            && proxy.metric("ringway_worker_connections", &[]) == 0.0
    });
}

#[test]
fn a_hello_in_any_number_of_pieces() {
    let authority = Authority::new("ca");
    let behind = Proxy::start(&https(&authority, &["echo"]));
    let pass = Proxy::start(
        &(gateway("  - {name: sni, port: 8080, protocol: TLS, tls: {mode: Passthrough}}\n")
            + &tls_route("site", "site.example", "", &[&behind.address])),
    );
    let connector = Connector::new(&authority);
    for address in [&behind.address, &pass.address] {
        for (records_of, segments_of) in [(16_384, 1), (1, 16_384), (100, 7), (1, 3)] {
            let (client, bytes) = hello(&connector, "site.example");
            // The key share of X25519MLKEM768 alone is 1,216 bytes.
            assert!(bytes.len() > 1216);
            let bytes = in_records_of(records_of, &bytes);
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nodelay(true).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            for piece in bytes.chunks(segments_of) {
                stream.write_all(piece).unwrap();
            }
            let mut client = finish(client, stream);
            client.send("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n");
            assert_eq!(client.response().status, 200, "records of {records_of}, segments of {segments_of}");
        }
    }
    nothing_is_left(&pass);
}

/// What a connection gives back for these bytes.
fn answer(proxy: &Proxy, bytes: &[u8]) -> Vec<u8> {
    let mut client = proxy.client();
    client.try_send(bytes);
    match client.rest() {
        Ok(all) | Err(Ended::Reset(all)) => all,
        Err(other) => panic!("no end: {other:?}"),
    }
}

#[test]
fn garbage_instead_of_a_hello() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    assert_eq!(answer(&proxy, b"\x00\x01\x02garbage"), b"");
    assert_eq!(answer(&proxy, b"SSH-2.0-OpenSSH_9.2\r\n"), b"");
    // SSL 2.0's hello.
    assert_eq!(answer(&proxy, b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10"), b"");
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"not_tls\""], 3.0);
    nothing_is_left(&proxy);
}

#[test]
fn plain_http_is_told_that_it_is() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: site.example\r\n\r\n");
    let response = client.response();
    assert_eq!(response.status, 400);
    assert_eq!(response.header("connection"), Some("close"));
    assert!(response.text().contains("HTTPS"));
    client.expect_close();
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"not_tls\""], 1.0);
}

#[test]
fn malformed_and_endless_hellos() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    const DECODE_ERROR: &[u8] = &[21, 3, 3, 0, 2, 2, 50];
    // A record without content, a server's hello, a hello whose lengths lie.
    assert_eq!(answer(&proxy, b"\x16\x03\x01\x00\x00"), DECODE_ERROR);
    assert_eq!(answer(&proxy, b"\x16\x03\x01\x00\x04\x02\x00\x00\x00"), DECODE_ERROR);
    let (_, mut lying) = hello(&Connector::new(&authority), "site.example");
    lying[43] = 255;
    assert_eq!(answer(&proxy, &lying), DECODE_ERROR);
    // A message of more than 64 KiB is refused by its length; one of nothing but small records when the buffer is full.
    let mut large = b"\x16\x03\x01\x00\x04\x01\x01\x00\x00".to_vec();
    assert_eq!(answer(&proxy, &large), DECODE_ERROR);
    large = b"\x16\x03\x01\x00\x04\x01\x00\xff\x00".to_vec();
    while large.len() < 80 << 10 {
        large.extend(b"\x16\x03\x01\x00\x01\x00");
    }
    // The proxy reads on after the alert, so that no reset overtakes it.
    assert_eq!(answer(&proxy, &large), DECODE_ERROR);
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"bad_hello\""], 5.0);
    nothing_is_left(&proxy);
    // The length is believed when its record is there, not before: this one is waited for.
    let timeout = policy("  timeout: {tls: {handshakeTimeout: 300ms}}\n");
    let proxy = Proxy::start(&(https(&authority, &["echo"]) + &timeout));
    assert_eq!(answer(&proxy, b"\x16\x03\x01\x40\x00\x01\x01\x00\x00"), b"");
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"handshake_timeout\""], 1.0);
    nothing_is_left(&proxy);
}

#[test]
fn a_hello_or_handshake_that_does_not_come() {
    let authority = Authority::new("ca");
    let yaml = https(&authority, &["echo"]) + &policy("  timeout: {tls: {handshakeTimeout: 500ms}}\n");
    let proxy = Proxy::start(&yaml);
    let silent = proxy.client();
    let (_, bytes) = hello(&Connector::new(&authority), "site.example");
    // One byte every now and then does not help.
    let mut slow = proxy.client();
    let mut stopped = proxy.client();
    stopped.send(&bytes);
    for byte in bytes.iter().take(20) {
        slow.try_send([*byte]);
        std::thread::sleep(Duration::from_millis(60));
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"handshake_timeout\""], 3.0);
    for mut client in [silent, slow] {
        assert!(matches!(client.rest(), Ok(_) | Err(Ended::Reset(_))));
    }
    let mut client = stopped;
    // The server's flight, and then the end.
    assert!(matches!(client.rest(), Ok(flight) if flight.len() > 500));
    nothing_is_left(&proxy);
}

#[test]
fn a_server_name_that_is_an_address_is_none() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    // rustls sends no name for an address; openssl sends what it is told.
    let shown = s_client(&proxy.address, &["-servername", "127.0.0.1"], "");
    assert!(shown.contains("CN = site.example"), "{shown}");
    let named = gateway(
        "  - {name: tls, port: 8080, protocol: HTTPS, hostname: site.example, tls: {certificateRefs: [{name: site}]}}\n",
    ) + &route(&["echo"])
        + &authority.leaf(&["site.example"]).secret("site");
    let proxy = Proxy::start(&named);
    for arguments in [&["-servername", "127.0.0.1"][..], &["-noservername"], &["-servername", "other.example"]] {
        let shown = s_client(&proxy.address, arguments, "");
        assert!(shown.contains("unrecognized name"), "{arguments:?}: {shown}");
    }
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"no_server_name\""], 3.0);
    nothing_is_left(&proxy);
}

#[test]
fn nothing_in_common_and_broken_records() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    let name = ["-servername", "site.example"];
    let shown = s_client(&proxy.address, &[&name[..], &["-tls1_2", "-cipher", "AES128-SHA"]].concat(), "");
    assert!(shown.contains("handshake failure"), "{shown}");
    // A record that does not decrypt, after the handshake and with a request on its way.
    let connector = Connector::new(&authority);
    let mut client = connector.client(&proxy.address, "site.example");
    client.get("/");
    client.stream.sock.write_all(b"\x17\x03\x03\x00\x20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa").unwrap();
    let mut byte = [0; 1];
    let error = client.stream.read(&mut byte).expect_err("an alert");
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    // A record cut in two by the end of the connection.
    let mut client = connector.client(&proxy.address, "site.example");
    client.get("/");
    client.stream.sock.write_all(b"\x17\x03\x03\x00\x20aaaa").unwrap();
    client.stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(matches!(client.rest(), Ok(_) | Err(Ended::Reset(_))));
    proxy.expect_metric("ringway_downstream_errors_total", &["reason=\"handshake\""], 1.0);
    nothing_is_left(&proxy);
}

#[test]
fn what_may_not_come_after_the_handshake() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    let connector = Connector::new(&authority);
    let cases: [(&[u8], &str); 5] = [
        (b"\x14\x03\x03\x00\x01\x01", "UnexpectedMessage"),
        (b"\x15\x03\x03\x00\x02\x01\x00", "UnexpectedMessage"),
        (b"\x18\x03\x03\x00\x20", "UnexpectedMessage"),
        (b"\x17\x03\x03\x41\x01", "RecordOverflow"),
        (b"\x17\x03\x03\x00\x05aaaaa", "BadRecordMac"),
    ];
    for (record, alert) in cases {
        let mut client = connector.client(&proxy.address, "site.example");
        client.get("/");
        client.stream.sock.write_all(record).unwrap();
        let error = client.stream.read(&mut [0; 1]).expect_err("an alert");
        assert!(error.to_string().contains(alert), "{error}");
    }
    nothing_is_left(&proxy);
}

#[test]
fn keys_may_change_but_not_for_ever() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    let mut client = Connector::new(&authority).client(&proxy.address, "site.example");
    // The library asks for the other side's next keys as well.
    for times in [1, 2, 31] {
        for _ in 0..times {
            client.stream.conn.refresh_traffic_keys().unwrap();
        }
        assert_eq!(client.get("/").status, 200, "{times}");
    }
    for _ in 0..33 {
        client.stream.conn.refresh_traffic_keys().unwrap();
    }
    client.stream.flush().unwrap();
    let error = client.stream.read(&mut [0; 1]).expect_err("an alert");
    assert!(error.to_string().contains("UnexpectedMessage"), "{error}");
    nothing_is_left(&proxy);
}

/// RUSTSEC-2024-0336: a close_notify amid the handshake must end it, and not make the proxy turn for ever.
#[test]
fn a_close_notify_amid_the_handshake_ends_it() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    const CLOSE_NOTIFY: &[u8] = &[21, 3, 3, 0, 2, 1, 0];
    for _ in 0..20 {
        let (_, bytes) = hello(&Connector::new(&authority), "site.example");
        let mut client = proxy.client();
        client.send([&bytes[..], CLOSE_NOTIFY].concat());
        // The server's flight may come first.
        assert!(matches!(client.rest(), Ok(_) | Err(Ended::Reset(_))));
    }
    nothing_is_left(&proxy);
    // It still serves, on all its cores.
    for _ in 0..4 {
        assert_eq!(Connector::new(&authority).client(&proxy.address, "site.example").get("/").status, 200);
    }
}

#[test]
fn renegotiation_is_refused() {
    let authority = Authority::new("ca");
    let proxy = Proxy::start(&https(&authority, &["echo"]));
    // `R` on a line of its own makes s_client ask for it.
    let shown = s_client(&proxy.address, &["-servername", "site.example", "-tls1_2"], "R\n");
    assert!(shown.contains("RENEGOTIATING"), "{shown}");
    assert!(shown.contains("no renegotiation") || shown.contains("unexpected message"), "{shown}");
    assert_eq!(Connector::new(&authority).client(&proxy.address, "site.example").version(), ProtocolVersion::TLSv1_3);
    nothing_is_left(&proxy);
}
