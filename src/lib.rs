//! Ringway: an edge proxy and load balancer.
#![deny(unsafe_code)]
