//! Where the contract is tried: peers with their events in a queue, and a way to let things happen until one comes.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vlmessaging::transport::memory::{MemoryNet, MemoryTransport};
use vlmessaging::transport::{Event, EventSink, Options, PipeId, SendError, Transport};
use vlmessaging::{Endpoint, Sockets};

/// Far above what anything here takes: a test that waits that long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Memory,
    Ipc,
    Tcp,
}

/// How transports over sockets are made here.
#[derive(Clone, Copy, Debug)]
enum Made {
    With(Sockets),
    /// On an arbiter, which then serves them.
    OnAnArbiter(Sockets),
}

/// A network, its folder and what it ends with.
pub(crate) struct World {
    pub(crate) kind: Kind,
    made: Made,
    net: MemoryNet,
    dir: PathBuf,
    next: AtomicUsize,
}

#[derive(Clone)]
enum Own {
    Memory(Arc<MemoryTransport>),
    Sockets(Arc<dyn Transport>),
}

/// One transport and what it was told.
pub(crate) struct Peer<'w> {
    world: &'w World,
    own: Own,
    told: Arc<Told>,
}

#[derive(Default)]
struct Told {
    events: Mutex<VecDeque<Event>>,
    more: Condvar,
}

impl World {
    pub(crate) fn simulated() -> Self {
        Self::of(Kind::Memory, Made::With(Sockets::ALL[0]))
    }

    pub(crate) fn with(sockets: Sockets, kind: Kind) -> Self {
        Self::of(kind, Made::With(sockets))
    }

    pub(crate) fn on_an_arbiter(sockets: Sockets, kind: Kind) -> Self {
        Self::of(kind, Made::OnAnArbiter(sockets))
    }

    fn of(kind: Kind, made: Made) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("vlm-transport-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        Self { kind, made, net: MemoryNet::new(), dir, next: AtomicUsize::new(0) }
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn net(&self) -> &MemoryNet {
        &self.net
    }

    pub(crate) fn peer(&self) -> Peer<'_> {
        self.peer_with(Options::default())
    }

    pub(crate) fn peer_with(&self, options: Options) -> Peer<'_> {
        let told = Arc::new(Told::default());
        let heard = told.clone();
        let sink: EventSink = Arc::new(move |event| heard.push(event));
        let own = match self.kind {
            Kind::Memory => Own::Memory(self.net.transport(sink, options)),
            Kind::Ipc | Kind::Tcp => Own::Sockets(self.start(sink, options)),
        };
        Peer { world: self, own, told }
    }

    /// A transport of the kind that is tried here.
    pub(crate) fn start(&self, sink: EventSink, options: Options) -> Arc<dyn Transport> {
        match (self.kind, self.made) {
            (Kind::Memory, _) => self.net.transport(sink, options),
            (_, Made::With(sockets)) => sockets.start(sink, options).unwrap(),
            (_, Made::OnAnArbiter(sockets)) => {
                let (made, transport) = std::sync::mpsc::channel();
                assert!(arbiter().spawn_fn(move || made.send(sockets.start(sink, options).unwrap()).unwrap()));
                transport.recv().unwrap()
            }
        }
    }

    /// An endpoint that nobody has listened at.
    pub(crate) fn fresh(&self) -> Endpoint {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        match self.kind {
            Kind::Tcp => Endpoint::from("tcp://127.0.0.1:0"),
            _ => Endpoint::from(format!("ipc://{}/r{number}", self.dir.display())),
        }
    }

    /// An endpoint that can be dialed and where nobody is.
    pub(crate) fn nobody(&self) -> Endpoint {
        match self.kind {
            Kind::Tcp => {
                let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
                Endpoint::from(format!("tcp://{}", free.local_addr().unwrap()))
            }
            _ => self.fresh(),
        }
    }
}

/// No test leaves a socket file behind.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let files = || -> Vec<_> {
            let entries = std::fs::read_dir(&self.dir).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        // A shutdown from within a sink cannot wait for its own closing.
        let end = Instant::now() + PATIENCE;
        while !files().is_empty() && Instant::now() < end {
            std::thread::yield_now();
        }
        let left = files();
        std::fs::remove_dir_all(&self.dir).unwrap();
        assert!(left.is_empty(), "files left behind: {left:?}");
    }
}

/// One for all tests, on a thread of its own, to the end of the process.
fn arbiter() -> actix::ArbiterHandle {
    static ARBITER: OnceLock<actix::ArbiterHandle> = OnceLock::new();
    let start = || {
        let (started, handle) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            actix::System::new().block_on(async move {
                started.send(actix::Arbiter::current()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        handle.recv().unwrap()
    };
    ARBITER.get_or_init(start).clone()
}

impl Told {
    fn push(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.push_back(event);
        self.more.notify_all();
    }
}

impl Peer<'_> {
    pub(crate) fn transport(&self) -> &dyn Transport {
        match &self.own {
            Own::Memory(transport) => &**transport,
            Own::Sockets(transport) => &**transport,
        }
    }

    pub(crate) fn memory(&self) -> &MemoryTransport {
        match &self.own {
            Own::Memory(transport) => transport,
            Own::Sockets(_) => panic!("only in the simulated network"),
        }
    }

    pub(crate) fn listen(&self) -> Endpoint {
        self.transport().listen(&self.world.fresh()).unwrap()
    }

    pub(crate) fn dial(&self, to: &Endpoint) -> PipeId {
        self.transport().dial(to)
    }

    pub(crate) fn close(&self, pipe: PipeId) {
        self.transport().close(pipe);
    }

    pub(crate) fn try_send(&self, pipe: PipeId, frame: &[u8]) -> Result<(), SendError> {
        self.transport().send(pipe, Bytes::copy_from_slice(frame))
    }

    /// Sends and waits for `Sent`; what else comes is kept.
    pub(crate) fn send(&self, pipe: PipeId, frame: &[u8]) {
        self.try_send(pipe, frame).unwrap();
        self.until(|event| matches!(event, Event::Sent { pipe: which } if *which == pipe));
    }

    /// The next event.
    pub(crate) fn next(&self) -> Event {
        self.until(|_| true)
    }

    /// The next event of that sort; others before it are kept in order.
    pub(crate) fn until(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        self.find(PATIENCE, &wanted)
            .unwrap_or_else(|| panic!("nothing of the sort came; there was {:?}", self.told.events.lock().unwrap()))
    }

    /// All that has come and was not asked for.
    pub(crate) fn all(&self) -> Vec<Event> {
        self.told.events.lock().unwrap().drain(..).collect()
    }

    pub(crate) fn opened(&self) -> PipeId {
        match self.until(|event| matches!(event, Event::Opened { .. })) {
            Event::Opened { pipe, .. } => pipe,
            _ => unreachable!(),
        }
    }

    pub(crate) fn received(&self, from: PipeId) -> Bytes {
        match self.until(|event| matches!(event, Event::Received { pipe, .. } if *pipe == from)) {
            Event::Received { frame, .. } => frame,
            _ => unreachable!(),
        }
    }

    pub(crate) fn closed(&self, which: PipeId) {
        self.until(|event| *event == Event::Closed { pipe: which });
    }

    /// Nothing of the sort comes for a while: a second of simulated time, a tenth of a real one.
    pub(crate) fn stays_without(&self, wanted: impl Fn(&Event) -> bool) {
        let found = match self.world.kind {
            Kind::Memory => {
                self.world.net.advance(Duration::from_secs(1));
                self.take(&wanted)
            }
            _ => self.find(Duration::from_millis(100), &wanted),
        };
        assert_eq!(found, None);
    }

    fn find(&self, patience: Duration, wanted: &dyn Fn(&Event) -> bool) -> Option<Event> {
        match self.world.kind {
            Kind::Memory => self.find_in_simulated_time(patience, wanted),
            _ => self.find_in_real_time(patience, wanted),
        }
    }

    fn find_in_simulated_time(&self, patience: Duration, wanted: &dyn Fn(&Event) -> bool) -> Option<Event> {
        let net = &self.world.net;
        let until = net.now() + patience;
        loop {
            if let Some(event) = self.take(wanted) {
                return Some(event);
            }
            let next = net.next_due().filter(|at| *at <= until)?;
            net.advance(next.saturating_sub(net.now()));
        }
    }

    fn find_in_real_time(&self, patience: Duration, wanted: &dyn Fn(&Event) -> bool) -> Option<Event> {
        let end = Instant::now() + patience;
        let mut events = self.told.events.lock().unwrap();
        loop {
            if let Some(at) = events.iter().position(wanted) {
                return events.remove(at);
            }
            let left = end.checked_duration_since(Instant::now())?;
            events = self.told.more.wait_timeout(events, left).unwrap().0;
        }
    }

    fn take(&self, wanted: &dyn Fn(&Event) -> bool) -> Option<Event> {
        let mut events = self.told.events.lock().unwrap();
        let at = events.iter().position(wanted)?;
        events.remove(at)
    }
}

/// The end of a test takes its sockets along.
impl Drop for Peer<'_> {
    fn drop(&mut self) {
        self.transport().shutdown(Duration::from_millis(500));
    }
}

/// A dialer and a listener, connected: their pipes.
pub(crate) fn connect(dialer: &Peer, listener: &Peer) -> (PipeId, PipeId) {
    let at = listener.listen();
    connect_to(dialer, listener, &at)
}

pub(crate) fn connect_to(dialer: &Peer, listener: &Peer, at: &Endpoint) -> (PipeId, PipeId) {
    let dialed = dialer.dial(at);
    assert_eq!(dialer.opened(), dialed);
    (dialed, listener.opened())
}
