//! The `ringway` command.
use std::sync::Arc;
use ringway_core::model::*;
use ringway::{snapshot::*, metrics::Registry, rt, worker, sys};
#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
fn main() {
    let drv = if std::env::args().nth(1).as_deref() == Some("epoll") { rt::Driver::Epoll } else { rt::Driver::IoUring };
    let up: std::net::SocketAddr = "127.0.0.1:19000".parse().unwrap();
    let rule = HttpRule { matches: vec![HttpMatch::default()], filters: Filters::default(), action: Action::Forward(vec![WeightedTarget{weight:1,target:Target::Backend(BackendId(0))}]), timeouts: RouteTimeouts::default() };
    let model = Model { routes: vec!["r".into(), "t".into()], backends: vec![Backend{name:"b".into(), endpoints: vec![Endpoint{address: EndpointAddress::Tcp(up), weight:1}], settings: BackendSettings::default()}],
      sockets: vec![Socket{bind:format!("127.0.0.1:{}", std::env::var("RW_PORT").unwrap_or("18080".into())).parse().unwrap(), client: ClientPolicy::default(), protocol: Protocol::Http(vec![HttpListener{name:"l".into(), hostname: HostPattern::Any, routes: vec![HttpRoute{id:RouteId(0), hostnames: vec![HostPattern::Any], rules: vec![rule]}]}])},
        Socket{bind:"127.0.0.1:0".parse().unwrap(), client: ClientPolicy::default(), protocol: Protocol::Tcp(TcpListener{name:"t".into(), route: Some((RouteId(1), vec![WeightedTarget{weight:1,target:Target::Backend(BackendId(0))}]))})}] };
    let mut reg = Registry::new(1);
    let ms = reg.bind(&model);
    let snap = Arc::new(Snapshot::compile(1, model, &mut SocketIds::default()));
    let (tx, rx) = rt::mailbox().unwrap();
    let listeners = snap.sockets.iter().map(|s| (s.id, sys::listen(s.bind, sys::Listening::Shared).unwrap())).collect();
    let (dtx, _drx) = std::sync::mpsc::channel();
    tx.send(worker::Message::Apply{snapshot: snap, metrics: ms[0].clone(), listeners, done: dtx});
    worker::run(worker::Settings{id:0, driver: drv, pin: Some(core_affinity::CoreId{id:0}), max_streams: 100000}, 1, reg.unbound(0), rx).unwrap();
}
