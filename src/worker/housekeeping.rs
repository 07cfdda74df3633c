//! What a core does once a second: ages its pools, gives memory back, publishes its gauges.

use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringway_core::http::Date;

use super::Core;
use super::remains::Pieces;
use crate::{buffer, downstream, relay, rt, sys};

/// Runs for ever.
pub(super) async fn run(core: Rc<Core>) {
    let mut wanted = 0;
    loop {
        rt::sleep(Duration::from_secs(1)).await;
        let now = now();
        core.date.set(Date::at(now));
        core.seconds.set(now);
        let generation = core.generation();
        let mut pooled = 0;
        let pieces = Pieces::default();
        for backend in generation.backends() {
            pieces.next().await;
            backend.make_room();
            for endpoint in backend.endpoints() {
                endpoint.sweep();
                pooled += endpoint.idle();
            }
        }
        drop(generation);
        core.graves.free().await;
        // Free blocks beyond what the last seconds needed go back, a quarter of them each second.
        wanted = buffer::in_use().max(wanted / 4 * 3);
        buffer::trim(wanted);
        downstream::trim();
        relay::trim_pipes();
        sys::give_memory_back();
        let pipes = relay::pipes();
        core.metrics.pipes_in_use.set(pipes.in_use as u64);
        core.metrics.spliced.set(pipes.spliced);
        core.metrics.pipes_refused.set(pipes.refused);
        core.metrics.connections.set(core.conns.len() as u64);
        core.metrics.pool_idle.set(pooled as u64);
        core.metrics.buffers_in_use.set(buffer::in_use() as u64);
    }
}

/// The time of day, in seconds since 1970. A clock before that is one that has not been set.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
