//! What a core does once a second: ages its pools, gives memory back, publishes its gauges.

use std::rc::Rc;
use std::time::Duration;

use super::Core;
use crate::{buffer, rt};

/// Runs for ever.
pub(super) async fn run(core: Rc<Core>) {
    let mut busiest = 0;
    for second in 0_u64.. {
        rt::sleep(Duration::from_secs(1)).await;
        let generation = core.generation();
        let mut pooled = 0;
        for backend in generation.backends() {
            for endpoint in backend.endpoints() {
                endpoint.sweep();
                pooled += endpoint.idle();
            }
        }
        drop(generation);
        busiest = busiest.max(buffer::in_use());
        // Free blocks beyond what the last ten seconds needed go back.
        if second % 10 == 9 {
            buffer::trim(busiest);
            busiest = 0;
        }
        core.metrics.connections.set(core.conns.len() as u64);
        core.metrics.pool_idle.set(pooled as u64);
        core.metrics.buffers_in_use.set(buffer::in_use() as u64);
    }
}
