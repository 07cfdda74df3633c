//! One load thread: its connections, its part of the rate, its recorder.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};

use super::schedule::Schedule;
use super::{Fault, Plan, Protocol, http1, http2, tcp, udp};
use crate::failure::{Context as _, Result};
use crate::histogram::Latencies;
use crate::{rt, sys};

/// What all threads see.
#[derive(Debug)]
pub(crate) struct Shared {
    base: Instant,
    /// The window, in nanoseconds since `base`.
    begin: AtomicU64,
    end: AtomicU64,
    stop: AtomicBool,
    /// Requests left to start, where they are counted.
    left: Option<AtomicI64>,
    /// Answers so far, for the progress line.
    pub(crate) done: AtomicU64,
    /// Idle connections that have had their first answer.
    opened: AtomicU64,
}

impl Shared {
    pub(crate) fn new(count: Option<u64>) -> Self {
        Self {
            base: Instant::now(),
            // A counted run has no warm-up: everything belongs to it.
            begin: AtomicU64::new(if count.is_some() { 0 } else { u64::MAX }),
            end: AtomicU64::new(u64::MAX),
            stop: AtomicBool::new(false),
            left: count.map(|count| AtomicI64::new(i64::try_from(count).unwrap_or(i64::MAX))),
            done: AtomicU64::new(0),
            opened: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the start.
    #[allow(clippy::cast_possible_truncation, reason = "584 years fit")]
    pub(crate) fn now(&self) -> u64 {
        self.base.elapsed().as_nanos() as u64
    }

    pub(crate) fn open_window(&self) -> u64 {
        if self.left.is_none() {
            self.begin.store(self.now(), Ordering::Relaxed);
        }
        self.begin.load(Ordering::Relaxed)
    }

    pub(crate) fn close_window(&self) -> u64 {
        let now = self.now();
        self.end.store(now, Ordering::Relaxed);
        now
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// How many idle connections are opened before memory is first read; they are no part of the growth.
    pub(crate) fn warm_goal(&self, plan: &Plan) -> u64 {
        (plan.connections as u64 / 2).min(64)
    }

    fn in_window(&self, at: u64) -> bool {
        self.begin.load(Ordering::Relaxed) <= at && at < self.end.load(Ordering::Relaxed)
    }
}

/// What one thread found.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) latencies: Latencies,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) due: u64,
    pub(crate) unfinished: u64,
    pub(crate) handshakes: u64,
    pub(crate) resumed: u64,
    pub(crate) faults: BTreeMap<Fault, u64>,
    pub(crate) first_fault: Option<String>,
    /// The thread could not work at all.
    pub(crate) failure: Option<String>,
}

impl Record {
    pub(crate) fn failed(why: &str) -> Self {
        Self { failure: Some(why.to_owned()), ..Self::default() }
    }
}

/// A connection that waits for its next request.
#[derive(Debug, Default)]
struct Seat {
    job: Cell<Option<u64>>,
    waker: RefCell<Option<Waker>>,
}

/// A load thread, seen by its connections.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) plan: Plan,
    pub(crate) shared: Arc<Shared>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    index: usize,
    record: RefCell<Record>,
    next_id: Cell<u64>,
    schedule: Option<RefCell<Schedule>>,
    seats: Vec<Seat>,
    /// Idle connections that were woken to open.
    let_in: Cell<usize>,
    /// When the request that each connection works on was to start; for what is unanswered at the end.
    pub(crate) current: Vec<Cell<Option<u64>>>,
}

impl Worker {
    /// A number that no other request of the run has.
    pub(crate) fn id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    pub(crate) fn source(&self, connection: usize) -> Option<std::net::IpAddr> {
        super::source(&self.plan, connection + self.index)
    }

    /// Whether the window of figures has begun.
    pub(crate) fn measuring(&self) -> bool {
        self.shared.begin.load(Ordering::Relaxed) != u64::MAX
    }

    pub(crate) fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
            || self.shared.left.as_ref().is_some_and(|left| left.load(Ordering::Relaxed) <= 0)
    }

    /// The intended start of the connection's next request, which is now in a closed loop; none when the run ends.
    pub(crate) async fn next(&self, connection: usize) -> Option<u64> {
        self.current[connection].set(None);
        let intended = match &self.schedule {
            None => {
                let go = !self.shared.stop.load(Ordering::Relaxed)
                    && self.shared.left.as_ref().is_none_or(|left| left.fetch_sub(1, Ordering::Relaxed) > 0);
                go.then(|| self.shared.now())
            }
            Some(schedule) if !self.stopping() => {
                let waited = schedule.borrow_mut().release(connection);
                match waited {
                    Some(intended) => Some(intended),
                    None => self.seat(connection).await,
                }
            }
            // What was due before the end is still asked: leaving it out would leave out the slowest.
            Some(schedule) => schedule.borrow_mut().next_waiting(),
        };
        self.current[connection].set(intended);
        intended
    }

    async fn seat(&self, connection: usize) -> Option<u64> {
        let seat = &self.seats[connection];
        poll_fn(|context| {
            if let Some(intended) = seat.job.take() {
                return Poll::Ready(Some(intended));
            }
            if self.stopping() {
                return Poll::Ready(None);
            }
            *seat.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// An answer came, of so many bytes of payload.
    pub(crate) fn answered(&self, intended: u64, bytes: usize) {
        let now = self.shared.now();
        let mut record = self.record.borrow_mut();
        if self.shared.in_window(intended) {
            record.latencies.record(now.saturating_sub(intended));
        }
        if self.shared.in_window(now) {
            record.requests += 1;
            record.bytes += bytes as u64;
        }
        drop(record);
        self.shared.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of bulk went past.
    pub(crate) fn moved(&self, bytes: usize) {
        if self.shared.in_window(self.shared.now()) {
            self.record.borrow_mut().bytes += bytes as u64;
        }
        self.shared.done.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn handshake(&self, resumed: bool) {
        let mut record = self.record.borrow_mut();
        record.handshakes += 1;
        record.resumed += u64::from(resumed);
    }

    /// An idle connection has had its first answer, or will not have one: the next may open.
    pub(crate) fn opened(&self) {
        self.shared.opened.fetch_add(1, Ordering::Relaxed);
        self.let_open();
    }

    /// How many idle connections may have begun to open. The first few open at once. The others wait until memory has
    /// been read, and come in turn: a burst of thousands would measure the listen queue.
    fn may_open(&self) -> usize {
        let narrow = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let warm = narrow(self.shared.warm_goal(&self.plan));
        if self.measuring() { warm.max(narrow(self.shared.opened()).saturating_add(32)) } else { warm }
    }

    /// Wakes those whose turn it has become. Each looking for itself every few milliseconds would take the load's core.
    fn let_open(&self) {
        let until = self.may_open().min(self.seats.len());
        for seat in &self.seats[self.let_in.replace(until.max(self.let_in.get())).min(until)..until] {
            if let Some(waker) = seat.waker.take() {
                waker.wake();
            }
        }
    }

    /// Waits until it is an idle connection's turn to open; `false` when the run ends before.
    pub(crate) async fn turn(&self, connection: usize) -> bool {
        poll_fn(|context| {
            if self.stopping() {
                return Poll::Ready(false);
            }
            if connection < self.may_open() {
                return Poll::Ready(true);
            }
            *self.seats[connection].waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until the run ends.
    pub(crate) async fn end(&self, connection: usize) {
        poll_fn(|context| {
            if self.stopping() {
                return Poll::Ready(());
            }
            *self.seats[connection].waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    pub(crate) fn fault(&self, fault: Fault, what: impl FnOnce() -> String) {
        let mut record = self.record.borrow_mut();
        *record.faults.entry(fault).or_default() += 1;
        record.first_fault.get_or_insert_with(what);
    }

    /// Starts what is due until the run ends. A timer of its own wakes it: the runtime's has milliseconds, and requests
    /// of a whole millisecond in one go would be a burst.
    async fn pace(&self, schedule: &RefCell<Schedule>, interval: Duration) -> io::Result<()> {
        let timer =
            rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        // A wake-up costs about as much as a request, so those of a tenth of a millisecond start together.
        let period = interval.max(Duration::from_micros(100)).min(Duration::from_millis(100));
        let time = Timespec { tv_sec: 0, tv_nsec: period.subsec_nanos().into() };
        rustix::time::timerfd_settime(
            &timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec { it_interval: time, it_value: time },
        )?;
        // Waiting for readiness is the same for every descriptor, and the runtime offers it on streams.
        let timer = monoio::net::TcpStream::from_std(timer.into())?;
        let mut ticks = [0; 8];
        while !self.stopping() {
            timer.readable(false).await?;
            match rustix::io::read(sys::descriptor(&timer), &mut ticks) {
                Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
            if self.stopping() {
                break;
            }
            schedule.borrow_mut().advance(self.shared.now(), |connection, intended| {
                let seat = &self.seats[connection];
                seat.job.set(Some(intended));
                if let Some(waker) = seat.waker.take() {
                    waker.wake();
                }
            });
        }
        Ok(())
    }

    /// What was due and is unanswered when the run has ended counts with the time that it has waited so far.
    fn settle(&self) {
        let now = self.shared.now();
        let mut unanswered: Vec<u64> = self.current.iter().filter_map(Cell::take).collect();
        let in_flight = unanswered.len();
        unanswered.extend(self.seats.iter().filter_map(|seat| seat.job.take()));
        let started = unanswered.len();
        if let Some(schedule) = &self.schedule {
            unanswered.extend(schedule.borrow_mut().abandon());
        }
        let overloaded = unanswered.len() > started;
        let mut record = self.record.borrow_mut();
        for intended in unanswered {
            if self.shared.in_window(intended) {
                record.unfinished += 1;
                record.latencies.record(now.saturating_sub(intended));
            }
        }
        if self.schedule.is_some() {
            record.due = record.latencies.count();
        }
        // Where more waits behind them, they are late with all the others, not lost.
        if in_flight > 0 && !overloaded {
            *record.faults.entry(Fault::Timeout).or_default() += in_flight as u64;
            record.first_fault.get_or_insert_with(|| {
                format!("{in_flight} requests had no answer within {} s after the end", self.plan.timeout)
            });
        }
    }
}

/// Runs one thread's share until the run ends, and reports what it found.
pub(crate) fn run(
    plan: Plan,
    index: usize,
    connections: usize,
    shared: Arc<Shared>,
    tls: Option<Arc<rustls::ClientConfig>>,
    report: Sender<Record>,
) -> Result<()> {
    rt::run(work(plan, index, connections, shared, tls, report)).context(|| "cannot make an event loop".to_owned())
}

async fn work(
    plan: Plan,
    index: usize,
    connections: usize,
    shared: Arc<Shared>,
    tls: Option<Arc<rustls::ClientConfig>>,
    report: Sender<Record>,
) {
    let rate = plan.rate.map(|rate| rate * connections as f64 / plan.connections as f64);
    let timeout = Duration::from_secs_f64(plan.timeout);
    // What asks one question at a time: a connection, or each of the streams of one.
    let slots = connections * plan.streams;
    let worker = Rc::new(Worker {
        schedule: rate.map(|rate| RefCell::new(Schedule::new(rate, shared.now()))),
        seats: (0..slots).map(|_| Seat::default()).collect(),
        let_in: Cell::new(0),
        current: (0..slots).map(|_| Cell::new(None)).collect(),
        // Threads count apart, in ranges that a run does not exhaust.
        next_id: Cell::new((index as u64 + 1) << 40),
        record: RefCell::default(),
        plan,
        shared,
        tls,
        index,
    });
    let alive = Rc::new(Cell::new(connections));
    for connection in 0..connections {
        let (worker, alive) = (Rc::clone(&worker), Rc::clone(&alive));
        monoio::spawn(async move {
            match worker.plan.protocol {
                Protocol::Http1 => http1::connection(&worker, connection).await,
                Protocol::Http2 | Protocol::Grpc => http2::connection(&worker, connection).await,
                Protocol::TcpEcho | Protocol::TlsHello => tcp::echo(&worker, connection).await,
                Protocol::TcpBulk => tcp::bulk(&worker, connection).await,
                Protocol::UdpEcho => udp::echo(&worker, connection).await,
            }
            alive.set(alive.get() - 1);
        });
    }
    if let (Some(rate), Some(_)) = (rate, &worker.schedule) {
        let paced = Rc::clone(&worker);
        monoio::spawn(async move {
            let Some(schedule) = &paced.schedule else { return };
            if let Err(error) = paced.pace(schedule, Duration::from_secs_f64(1.0 / rate)).await {
                paced.fault(Fault::Timeout, || format!("the timer failed: {error}"));
            }
        });
    }
    let mut ending = None;
    loop {
        monoio::time::sleep(Duration::from_millis(10)).await;
        if alive.get() == 0 {
            break;
        }
        if worker.plan.idle {
            worker.let_open();
        }
        if worker.stopping() {
            let began = *ending.get_or_insert_with(Instant::now);
            for seat in &worker.seats {
                if let Some(waker) = seat.waker.take() {
                    waker.wake();
                }
            }
            // Idle connections still have to prove that they are open.
            let patience = if worker.plan.idle {
                timeout + Duration::from_secs(8) + worker.plan.last_turn(worker.plan.connections)
            } else {
                timeout
            };
            if began.elapsed() > patience {
                break;
            }
        }
    }
    worker.settle();
    let _main_is_gone = report.send(worker.record.take());
    if alive.get() > 0 {
        // Buffers of operations in flight belong to the kernel: this thread keeps them until the process ends.
        std::future::pending::<()>().await;
    }
}
