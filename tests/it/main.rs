//! The whole proxy over real sockets: the binary as users run it, clients and origins of our own.
//!
//! Every test has loopback addresses of its own, so that ports cannot collide. `RINGWAY_TEST_DRIVER` names the driver
//! that is forced (`io_uring` unless set); every start asserts by the metrics that it is the one in use.
#![allow(clippy::tests_outside_test_module, reason = "this crate is nothing but tests")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    reason = "tests"
)]

mod support;

mod admin;
mod backend_limits;
mod backend_policy;
mod bad_input;
mod balance;
mod basic_auth;
mod bodies;
mod client_policy;
mod compression;
mod concurrency;
mod config;
mod diff;
mod explain;
mod external_auth;
mod filters;
mod forwarding;
mod given_up;
mod grpc;
mod http1;
mod http2;
mod http2_bounds;
mod http2_input;
mod http2_sim;
mod http2_storm;
mod http2_upstream;
mod lenient;
mod lifecycle;
mod limits;
mod pairings;
mod policies;
mod proxy_protocol;
mod relay;
mod reload;
mod replay;
mod retries;
mod route;
mod security;
mod session;
mod tcp;
mod tls;
mod tls_client;
mod tls_input;
mod tls_upstream;
mod udp;
mod upstream;
mod websocket;
