//! The program that an interface runs for every frame. `ringway_core::dsr::Reference` says the same in plain code; the
//! two are compared over random and malformed frames by the `dsr` tests.
//!
//! ```text
//! own MAC? -> IPv4 | IPv6 -> TCP | UDP | ICMP error (its quoted header, ends swapped) -> VIP?
//!   -> flow table, unless a connection begins -> else table -> remember -> MAC addresses -> out
//! ```
//! Whatever it does not understand goes to the stack, untouched and counted.

use ringway_core::balance::hash;
use ringway_core::dsr::SLOTS;
use ringway_core::dsr::abi::{Counter, SOURCE_IP, STATELESS, WINDOW_SHIFT};

use crate::sys::bpf::Insn;

use super::asm::Op::{Add, And, Mul, Or, ShiftLeft, ShiftRight, Xor};
use super::asm::Reg::{Fp, R0, R1, R2, R3, R4, R6, R7, R8, R9};
use super::asm::When::{Above, AnyBit, AtLeast, Equal, NotEqual};
use super::asm::Width::{Byte, Double, Half, Word};
use super::asm::{Asm, Helper, Label, Reg};
use super::maps::Maps;

/// `XDP_DROP`.
pub const DROP: i32 = 1;
/// `XDP_PASS`.
pub const PASS: i32 = 2;
/// `XDP_TX`.
pub const TRANSMIT: i32 = 3;
/// `XDP_REDIRECT`.
pub const REDIRECT: u32 = 4;

// The stack: the flow's key, whose end is the VIP's key; a flow's value; an index; two spilled pointers; a copy of the
// VIP's value.
const KEY: i16 = -40;
const CLIENT_PORT: i16 = KEY + 16;
const VIP_KEY: i16 = -20;
const VIP_PORT: i16 = VIP_KEY + 16;
const PROTOCOL: i16 = VIP_KEY + 18;
const FAMILY: i16 = VIP_KEY + 19;
const FLOW: i16 = -56;
const INDEX: i16 = -60;
const STATS: i16 = -72;
const VIP: i16 = -88;
const VIP_TABLE: i16 = VIP;
const VIP_INDEX: i16 = VIP + 4;
const VIP_FLAGS: i16 = VIP + 8;
const VIP_CAP: i16 = VIP + 12;
const VIP_STATS: i16 = -96;

// Kept registers. R8 is the frame's end until the ports are read, then what the frame is; R9 the header being read,
// then the server.
const CONTEXT: Reg = R6;
const FRAME: Reg = R7;
const END: Reg = R8;
const KIND: Reg = R8;
const HEADER: Reg = R9;
const SERVER: Reg = R9;

/// In `KIND`: a TCP connection begins.
const SYN: u32 = 1;
/// In `KIND`: an ICMP error.
const ICMP: u32 = 2;

/// Where the IP header starts.
const IP: i16 = 14;

/// Bytes as the program loads them.
fn half(bytes: [u8; 2]) -> u32 {
    u16::from_ne_bytes(bytes).into()
}

struct Program<'m> {
    asm: Asm,
    maps: &'m Maps,
    ends: Vec<(Counter, i32, Label)>,
}

/// The program for an interface with this MAC address.
pub fn emit(maps: &Maps, mac: [u8; 6]) -> Vec<Insn> {
    let mut program = Program { asm: Asm::default(), maps, ends: Vec::new() };
    program.start(mac);
    let ports_known = program.parse();
    program.asm.bind(ports_known);
    program.choose();
    program.finish()
}

impl Program<'_> {
    /// Where a frame ends that is counted so.
    fn end(&mut self, counter: Counter, verdict: i32) -> Label {
        if let Some((_, _, label)) = self.ends.iter().find(|end| (end.0, end.1) == (counter, verdict)) {
            return *label;
        }
        let label = self.asm.label();
        self.ends.push((counter, verdict, label));
        label
    }

    fn pass(&mut self, counter: Counter) -> Label {
        self.end(counter, PASS)
    }

    /// Adds 1. Uses R1 and R2.
    fn count(&mut self, counter: Counter) {
        self.asm.load(Double, R1, Fp, STATS);
        self.add(R1, i16::try_from(counter as usize * 8).expect("few counters"), None);
    }

    /// Adds 1, or a register, to a counter at a pointer. Uses R2.
    fn add(&mut self, at: Reg, off: i16, amount: Option<Reg>) {
        self.asm.load(Double, R2, at, off);
        match amount {
            Some(amount) => self.asm.op(Add, R2, amount),
            None => self.asm.op_value(Add, R2, 1),
        }
        self.asm.store(Double, at, off, R2);
    }

    /// Leaves `short` unless `bytes` from `base` on are in the frame. Uses R1.
    fn need(&mut self, base: Reg, bytes: i32, short: Counter) {
        let short = self.pass(short);
        self.asm.copy(R1, base);
        self.asm.op_value(Add, R1, bytes);
        self.asm.jump_if(Above, R1, END, short);
    }

    /// Looks the key on the stack up in a map: R0 points to the value. R1 to R5 are lost.
    fn lookup(&mut self, map: i32, key: i16, missing: Label) {
        self.asm.set_map(R1, map);
        self.asm.set_stack(R2, key);
        self.asm.call(Helper::MapLookup);
        self.asm.jump_if_null(R0, missing);
    }

    /// Copies words from a header to the stack. Uses R2.
    fn copy_words(&mut self, from: Reg, off: i16, to: i16, words: i16) {
        for word in 0..words {
            self.asm.load(Word, R2, from, off + 4 * word);
            self.asm.store(Word, Fp, to + 4 * word, R2);
        }
    }

    fn start(&mut self, mac: [u8; 6]) {
        let broken = self.asm.label();
        let good = self.asm.label();
        self.asm.copy(CONTEXT, R1);
        self.asm.store_value(Word, Fp, INDEX, 0);
        self.lookup(self.maps.stats.raw(), INDEX, broken);
        self.asm.jump(good);
        // There is nothing to count in; the verifier wants it said.
        self.asm.bind(broken);
        self.asm.exit_with(PASS);
        self.asm.bind(good);
        self.asm.store(Double, Fp, STATS, R0);
        self.count(Counter::Received);
        self.asm.load(Word, FRAME, CONTEXT, 0);
        self.asm.load(Word, END, CONTEXT, 4);
        for word in 0..5 {
            self.asm.store_value(Double, Fp, KEY + 8 * word, 0);
        }
        self.need(FRAME, i32::from(IP) + 20, Counter::PassOther);
        // A frame that a switch floods, or that we sent ourselves, is not ours to forward: it could go round for ever.
        let other_host = self.pass(Counter::PassOtherHost);
        let [a, b, c, d, e, f] = mac;
        self.asm.load(Word, R2, FRAME, 0);
        self.asm.jump_if_value(NotEqual, R2, u32::from_ne_bytes([a, b, c, d]), other_host);
        self.asm.load(Half, R2, FRAME, 4);
        self.asm.jump_if_value(NotEqual, R2, half([e, f]), other_host);
    }

    /// From the frame to the flow's key and its kind; the label is where that is done.
    fn parse(&mut self) -> Label {
        let (ipv4, ipv6) = (self.asm.label(), self.asm.label());
        let (transport, quoted, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        let other = self.pass(Counter::PassOther);
        self.asm.load(Half, R2, FRAME, 12);
        self.asm.jump_if_value(Equal, R2, half([0x08, 0x00]), ipv4);
        self.asm.jump_if_value(Equal, R2, half([0x86, 0xdd]), ipv6);
        self.asm.jump(other);
        self.asm.bind(ipv4);
        self.ipv4(transport, quoted);
        self.asm.bind(ipv6);
        self.ipv6(transport, quoted);
        // The header quoted by an ICMP error went the other way. R3 is its protocol.
        self.asm.bind(quoted);
        self.protocol_is_served(other);
        self.ports(2, 0);
        self.asm.set(KIND, ICMP.cast_signed());
        self.asm.jump(done);
        self.asm.bind(transport);
        self.transport(other, done);
        done
    }

    /// Goes on with R3, the protocol, in the key if it is TCP or UDP.
    fn protocol_is_served(&mut self, other: Label) {
        let served = self.asm.label();
        self.asm.store(Byte, Fp, PROTOCOL, R3);
        self.asm.jump_if_value(Equal, R3, 6, served);
        self.asm.jump_if_value(NotEqual, R3, 17, other);
        self.asm.bind(served);
    }

    /// Ports, by where they stand in the header.
    fn ports(&mut self, client: i16, vip: i16) {
        self.asm.load(Half, R2, HEADER, client);
        self.asm.store(Half, Fp, CLIENT_PORT, R2);
        self.asm.load(Half, R2, HEADER, vip);
        self.asm.store(Half, Fp, VIP_PORT, R2);
    }

    fn transport(&mut self, other: Label, done: Label) {
        let udp = self.asm.label();
        self.protocol_is_served(other);
        self.asm.jump_if_value(Equal, R3, 17, udp);
        self.need(HEADER, 20, Counter::PassMalformed);
        self.ports(0, 2);
        // SYN without ACK.
        self.asm.load(Byte, R2, HEADER, 13);
        self.asm.op_value(And, R2, 0x12);
        self.asm.set(KIND, 0);
        self.asm.jump_if_value(NotEqual, R2, 0x02, done);
        self.asm.set(KIND, SYN.cast_signed());
        self.asm.jump(done);
        self.asm.bind(udp);
        self.need(HEADER, 8, Counter::PassMalformed);
        self.ports(0, 2);
        self.asm.set(KIND, 0);
        self.asm.jump(done);
    }

    fn ipv4(&mut self, transport: Label, quoted: Label) {
        let icmp = self.asm.label();
        let other = self.pass(Counter::PassOther);
        let header = self.pass(Counter::PassHeader);
        let fragment = self.pass(Counter::PassFragment);
        self.asm.load(Byte, R2, FRAME, IP);
        self.asm.jump_if_value(NotEqual, R2, 0x45, header);
        // More fragments follow, or this is not the first.
        self.asm.load(Half, R2, FRAME, IP + 6);
        self.asm.jump_if_value(AnyBit, R2, half([0x3f, 0xff]), fragment);
        self.asm.store_value(Byte, Fp, FAMILY, 4);
        for address in [KEY, VIP_KEY] {
            self.asm.store_value(Half, Fp, address + 10, -1);
        }
        self.asm.load(Byte, R3, FRAME, IP + 9);
        self.asm.copy(HEADER, FRAME);
        self.asm.op_value(Add, HEADER, i32::from(IP) + 20);
        self.asm.jump_if_value(Equal, R3, 1, icmp);
        self.copy_words(FRAME, IP + 12, KEY + 12, 1);
        self.copy_words(FRAME, IP + 16, VIP_KEY + 12, 1);
        self.asm.jump(transport);

        self.asm.bind(icmp);
        self.need(HEADER, 8 + 20 + 4, Counter::PassMalformed);
        let is_error = self.asm.label();
        self.asm.load(Byte, R2, HEADER, 0);
        self.asm.jump_if_value(Equal, R2, 3, is_error);
        self.asm.jump_if_value(Equal, R2, 11, is_error);
        self.asm.jump_if_value(NotEqual, R2, 12, other);
        self.asm.bind(is_error);
        self.asm.load(Byte, R2, HEADER, 8);
        self.asm.jump_if_value(NotEqual, R2, 0x45, header);
        self.asm.load(Half, R2, HEADER, 8 + 6);
        self.asm.jump_if_value(AnyBit, R2, half([0x1f, 0xff]), fragment);
        // Who quotes a packet of the VIP sends the error to the VIP.
        self.asm.load(Word, R2, HEADER, 8 + 12);
        self.asm.load(Word, R4, FRAME, IP + 16);
        self.asm.jump_if(NotEqual, R2, R4, other);
        self.asm.load(Byte, R3, HEADER, 8 + 9);
        self.copy_words(HEADER, 8 + 16, KEY + 12, 1);
        self.copy_words(HEADER, 8 + 12, VIP_KEY + 12, 1);
        self.asm.op_value(Add, HEADER, 8 + 20);
        self.asm.jump(quoted);
    }

    fn ipv6(&mut self, transport: Label, quoted: Label) {
        let icmp = self.asm.label();
        let other = self.pass(Counter::PassOther);
        let header = self.pass(Counter::PassHeader);
        let fragment = self.pass(Counter::PassFragment);
        self.need(FRAME, i32::from(IP) + 40, Counter::PassMalformed);
        self.asm.load(Byte, R2, FRAME, IP);
        self.asm.op_value(And, R2, 0xf0);
        self.asm.jump_if_value(NotEqual, R2, 0x60, header);
        self.asm.store_value(Byte, Fp, FAMILY, 6);
        self.asm.load(Byte, R3, FRAME, IP + 6);
        self.asm.copy(HEADER, FRAME);
        self.asm.op_value(Add, HEADER, i32::from(IP) + 40);
        self.asm.jump_if_value(Equal, R3, 44, fragment);
        // Hop-by-hop options, routing, authentication, destination options.
        for extension in [0, 43, 51, 60] {
            self.asm.jump_if_value(Equal, R3, extension, header);
        }
        self.asm.jump_if_value(Equal, R3, 58, icmp);
        self.copy_words(FRAME, IP + 8, KEY, 4);
        self.copy_words(FRAME, IP + 24, VIP_KEY, 4);
        self.asm.jump(transport);

        self.asm.bind(icmp);
        self.need(HEADER, 8 + 40 + 4, Counter::PassMalformed);
        // Types 1 to 4 are errors about a packet.
        self.asm.load(Byte, R2, HEADER, 0);
        self.asm.jump_if_value(Equal, R2, 0, other);
        self.asm.jump_if_value(Above, R2, 4, other);
        self.asm.load(Byte, R2, HEADER, 8);
        self.asm.op_value(And, R2, 0xf0);
        self.asm.jump_if_value(NotEqual, R2, 0x60, header);
        for word in 0..4 {
            self.asm.load(Word, R2, HEADER, 8 + 8 + 4 * word);
            self.asm.load(Word, R4, FRAME, IP + 24 + 4 * word);
            self.asm.jump_if(NotEqual, R2, R4, other);
        }
        self.asm.load(Byte, R3, HEADER, 8 + 6);
        self.copy_words(HEADER, 8 + 24, KEY, 4);
        self.copy_words(HEADER, 8 + 8, VIP_KEY, 4);
        self.asm.op_value(Add, HEADER, 8 + 40);
        self.asm.jump(quoted);
    }

    /// From the key to the server, and out.
    fn choose(&mut self) {
        let error = self.end(Counter::DropError, DROP);
        let no_vip = self.pass(Counter::PassNoVip);
        let (table, connection, send) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.lookup(self.maps.vips.raw(), VIP_KEY, no_vip);
        for word in 0..2 {
            self.asm.load(Double, R1, R0, 8 * word);
            self.asm.store(Double, Fp, VIP + 8 * word, R1);
        }
        self.lookup(self.maps.vip_stats.raw(), VIP_INDEX, error);
        self.asm.store(Double, Fp, VIP_STATS, R0);

        let not_icmp = self.asm.label();
        let lookup_flow = self.asm.label();
        self.asm.jump_if_value(NotEqual, KIND, ICMP, not_icmp);
        self.count(Counter::Icmp);
        self.asm.jump(lookup_flow);
        self.asm.bind(not_icmp);
        self.asm.jump_if_value(Equal, KIND, SYN, connection);
        self.asm.bind(lookup_flow);
        self.asm.load(Word, R1, Fp, VIP_FLAGS);
        self.asm.jump_if_value(AnyBit, R1, STATELESS, table);
        self.known_flow(table, send);

        self.asm.bind(connection);
        self.count(Counter::Syn);
        self.asm.bind(table);
        self.by_table(error, send);
        self.asm.bind(send);
        self.send(error);
    }

    /// The flow table; a flow whose server has gone is a new one.
    fn known_flow(&mut self, table: Label, send: Label) {
        self.lookup(self.maps.flows.raw(), KEY, table);
        self.asm.copy(R9, R0);
        self.asm.call(Helper::CoarseTime);
        self.asm.store(Double, R9, 8, R0);
        self.asm.load(Word, R1, R9, 0);
        self.asm.store(Word, Fp, INDEX, R1);
        self.lookup(self.maps.servers.raw(), INDEX, table);
        self.asm.load(Byte, R1, R0, 6);
        self.asm.jump_if_value(Equal, R1, 0, table);
        self.asm.copy(SERVER, R0);
        self.count(Counter::FlowHit);
        self.asm.jump(send);
    }

    /// The flow's slot in the service's table, remembered unless it must not be.
    fn by_table(&mut self, error: Label, send: Label) {
        let no_server = self.end(Counter::DropNoServer, DROP);
        self.count(Counter::FlowMiss);
        self.slot();
        self.asm.copy(R9, R0);
        self.asm.op_value(ShiftLeft, R9, 1);
        self.lookup(self.maps.tables.raw(), VIP_TABLE, error);
        self.asm.op(Add, R0, R9);
        self.asm.load(Half, R9, R0, 0);
        self.asm.store(Double, Fp, FLOW, R9);
        self.asm.store(Word, Fp, INDEX, R9);
        // An empty slot is past the end of the servers.
        self.lookup(self.maps.servers.raw(), INDEX, no_server);
        self.asm.load(Byte, R1, R0, 6);
        self.asm.jump_if_value(Equal, R1, 0, no_server);
        self.asm.copy(SERVER, R0);
        self.asm.jump_if_value(Equal, KIND, ICMP, send);
        self.asm.load(Word, R1, Fp, VIP_FLAGS);
        self.asm.jump_if_value(AnyBit, R1, STATELESS, send);

        let (insert, same_window, capped, failed) =
            (self.asm.label(), self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.call(Helper::CoarseTime);
        self.asm.store(Double, Fp, FLOW + 8, R0);
        self.asm.load(Word, R1, Fp, VIP_CAP);
        self.asm.jump_if_value(Equal, R1, 0, insert);
        self.asm.load(Double, R3, Fp, VIP_STATS);
        self.asm.op_value(ShiftRight, R0, WINDOW_SHIFT.cast_signed());
        self.asm.load(Double, R4, R3, 32);
        self.asm.jump_if(Equal, R4, R0, same_window);
        self.asm.store(Double, R3, 32, R0);
        self.asm.store_value(Double, R3, 40, 0);
        self.asm.bind(same_window);
        self.asm.load(Double, R4, R3, 40);
        self.asm.jump_if(AtLeast, R4, R1, capped);
        self.asm.op_value(Add, R4, 1);
        self.asm.store(Double, R3, 40, R4);

        self.asm.bind(insert);
        self.asm.set_map(R1, self.maps.flows.raw());
        self.asm.set_stack(R2, KEY);
        self.asm.set_stack(R3, FLOW);
        self.asm.set(R4, 0);
        self.asm.call(Helper::MapUpdate);
        let remembered = self.asm.label();
        self.asm.jump_if_null(R0, remembered);
        self.asm.jump(failed);
        self.asm.bind(remembered);
        self.asm.load(Double, R3, Fp, VIP_STATS);
        self.add(R3, 16, None);
        self.count(Counter::FlowNew);
        self.asm.jump(send);
        self.asm.bind(failed);
        self.count(Counter::FlowFailed);
        self.asm.jump(send);
        self.asm.bind(capped);
        self.add(R3, 24, None);
        self.count(Counter::FlowCapped);
    }

    /// The flow's slot in R0, as `ringway_core::dsr::pick`. Uses R1 to R4.
    fn slot(&mut self) {
        let finish = self.asm.label();
        self.asm.set_double(R0, hash::SEED);
        self.asm.set_double(R3, hash::MULTIPLIER);
        for word in 0..2 {
            self.asm.load(Double, R1, Fp, KEY + 8 * word);
            self.step(Some(R1));
        }
        self.asm.load(Word, R4, Fp, VIP_FLAGS);
        self.asm.jump_if_value(AnyBit, R4, SOURCE_IP, finish);
        // The VIP's address stands at half a word.
        for word in 0..2 {
            self.asm.load(Word, R1, Fp, VIP_KEY + 8 * word);
            self.asm.load(Word, R4, Fp, VIP_KEY + 8 * word + 4);
            self.asm.op_value(ShiftLeft, R4, 32);
            self.asm.op(Or, R1, R4);
            self.step(Some(R1));
        }
        self.asm.load(Half, R1, Fp, CLIENT_PORT);
        for (width, off, shift) in [(Half, VIP_PORT, 16), (Byte, PROTOCOL, 32)] {
            self.asm.load(width, R4, Fp, off);
            self.asm.op_value(ShiftLeft, R4, shift);
            self.asm.op(Or, R1, R4);
        }
        self.step(Some(R1));
        self.asm.bind(finish);
        self.step(None);
        self.step(None);
        self.asm.op_value(ShiftRight, R0, 32);
        self.asm.op_value(Mul, R0, i32::try_from(SLOTS).expect("a small constant"));
        self.asm.op_value(ShiftRight, R0, 32);
    }

    /// `ringway_core::balance::hash::step` with a word in a register, or 0. The hash is in R0, the multiplier in R3.
    fn step(&mut self, word: Option<Reg>) {
        if let Some(word) = word {
            self.asm.op(Xor, R0, word);
        }
        self.asm.op(Mul, R0, R3);
        self.asm.copy(R2, R0);
        self.asm.op_value(ShiftRight, R2, 32);
        self.asm.op(Xor, R0, R2);
    }

    /// Counts, writes the MAC addresses, and leaves.
    fn send(&mut self, error: Label) {
        self.asm.copy(R1, CONTEXT);
        self.asm.call(Helper::XdpBufferLength);
        self.asm.copy(R8, R0);
        self.lookup(self.maps.server_stats.raw(), INDEX, error);
        self.add(R0, 0, None);
        self.add(R0, 8, Some(R8));
        self.asm.load(Double, R1, Fp, VIP_STATS);
        self.add(R1, 0, None);
        self.add(R1, 8, Some(R8));
        // A MAC address is read as one word, so that it is never half an old one.
        for (from, to) in [(0, 0), (8, 6)] {
            self.asm.load(Double, R1, SERVER, from);
            self.asm.store(Word, FRAME, to, R1);
            self.asm.op_value(ShiftRight, R1, 32);
            self.asm.store(Half, FRAME, to + 4, R1);
        }
        let redirect = self.asm.label();
        self.asm.load(Word, R9, SERVER, 16);
        self.asm.load(Word, R1, CONTEXT, 12);
        self.asm.jump_if(NotEqual, R9, R1, redirect);
        self.count(Counter::Sent);
        self.asm.exit_with(TRANSMIT);
        self.asm.bind(redirect);
        self.count(Counter::Redirected);
        self.asm.set_map(R1, self.maps.outgoing.raw());
        self.asm.copy(R2, R9);
        self.asm.low_half(R2);
        // What is returned when the interface is not in the map.
        self.asm.set(R3, DROP);
        self.asm.call(Helper::RedirectMap);
        self.asm.exit();
    }

    fn finish(mut self) -> Vec<Insn> {
        for (counter, verdict, label) in std::mem::take(&mut self.ends) {
            self.asm.bind(label);
            self.count(counter);
            self.asm.exit_with(verdict);
        }
        self.asm.finish()
    }
}
