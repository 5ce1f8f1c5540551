//! The transport in Rust alone: the wire of nng's Pair1 over unix sockets and TCP, on sockets that never wait.
//!
//! Who serves reads frames and tells them: the arbiter that the transport was made on, on its own thread, so that nothing is woken between a socket and an agent;
//! else a thread that keeps it (`home`). The arbiter's tokio watches each open connection by itself; the keeper has them all in a set of its own (`net`) while it
//! serves. Frames are written by the thread that sends them, as far as they fit; the rest follows when there is room.
//!
//! # What it promises beyond the contract
//!
//! - A frame that was handed over is never dropped while its pipe lives, also on accepted pipes and on ipc: `Sent` says that the system has all of it.
//! - Any pipe may be closed at any time. What is on its way is written first; the other side reads the end at once.
//! - `Sent` and `Closed` may be told on the calling thread, before `send` or `close` returns: hold no lock that the sink takes.
//! - A length that a peer claims reserves nothing (`inlet`). Who does not shake hands within `Options::dial_limit` is hung up on.
//!
//! # When the other side ends
//!
//! Killed or closed: the system says so at once. Frozen: nothing is said here; links ask. Unplugged: links ask, and TCP probes after 15 s of silence,
//! for peers without links.
//!
//! # Cost
//!
//! One thread, asleep; while there are connections it wakes ten times a second to see that the arbiter comes round, and every 2 ms while messages
//! come and go. Each connection is one descriptor,
//! each ipc endpoint two. No unsafe code.

mod hall;
mod home;
mod inlet;
mod net;
mod pipe;

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rustix::io::Errno;

use self::hall::Hall;
use self::home::Home;
use self::net::Set;
use self::pipe::{Exit, Pipe, Written};
use super::claim::Claim;
use super::lane::{Lane, Outlet};
use super::sockets::{NO_SCHEME, host_and_port, invalid, raise_descriptor_limit, with_port};
use super::workers::Workers;
use super::{DialError, Event, EventSink, Handed, ListenError, Options, PipeId, SendError, Transport};
use crate::addr::{Endpoint, Scheme};
use crate::hash::BySequence;

/// How long a shutdown waits for the closing itself, which takes milliseconds.
const CLOSING: Duration = Duration::from_secs(1);
/// The keeper's stack. It calls sinks, as the arbiter does.
const STACK: usize = 1 << 20;
/// Names are looked up on these. Up to 8 at once; the others wait in line.
static RESOLVERS: Workers = Workers::new("vlm-sp-names", 8);

/// Tells the transports of a process apart.
static NUMBER: AtomicU64 = AtomicU64::new(0);

thread_local! {
    // Most frames of a thread go where the one before went.
    static LAST: Cell<Option<Last>> = const { Cell::new(None) };
}

/// Where the last frame of a thread left. That of a pipe that has ended takes none.
struct Last {
    transport: u64,
    exit: Arc<Exit>,
}

/// Sockets of this process.
pub struct SpTransport {
    shared: Arc<Shared>,
}

struct Shared {
    number: u64,
    options: Options,
    outlet: Arc<Outlet>,
    set: Set,
    pipes: RwLock<HashMap<PipeId, Arc<Pipe>, BySequence>>,
    listeners: RwLock<HashMap<u64, Arc<Listener>>>,
    jobs: Jobs,
    hall: Mutex<Hall>,
    home: Home,
    next: AtomicU64,
    over: AtomicBool,
    ending: Mutex<Option<(Instant, Option<Sender<()>>)>>,
}

struct Listener {
    at: Endpoint,
    socket: OwnedFd,
    claim: Mutex<Option<Claim>>,
}

/// What is asked of whoever serves next.
#[derive(Default)]
struct Jobs {
    queue: Mutex<Vec<Job>>,
    waiting: AtomicBool,
}

enum Job {
    Dial(Arc<Pipe>, Endpoint),
    /// The addresses of a name.
    Resolved(PipeId, Result<Vec<SocketAddr>, String>),
    /// Closed here.
    Retire(PipeId),
    /// The other side reads no more.
    Broken(PipeId),
}

impl Jobs {
    fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst)
    }

    fn take(&self) -> Vec<Job> {
        if !self.is_waiting() {
            return Vec::new();
        }
        let mut queue = self.queue.lock();
        self.waiting.store(false, Ordering::SeqCst);
        std::mem::take(&mut *queue)
    }
}

impl SpTransport {
    /// Starts one. Made on an actix arbiter, it is served there, else by a thread of its own.
    ///
    /// # Errors
    ///
    /// The system has no descriptors or threads left.
    pub fn new(sink: EventSink, options: Options) -> io::Result<Self> {
        raise_descriptor_limit();
        let shared = Arc::new(Shared {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            options,
            outlet: Arc::new(Outlet::new(sink)),
            set: Set::new()?,
            pipes: RwLock::default(),
            listeners: RwLock::default(),
            jobs: Jobs::default(),
            hall: Mutex::default(),
            home: Home::default(),
            next: AtomicU64::new(1),
            over: AtomicBool::new(false),
            ending: Mutex::default(),
        });
        home::settle(&shared)?;
        let transport = Self { shared: shared.clone() };
        let keeper = std::thread::Builder::new().name("vlm-sp".into()).stack_size(STACK);
        keeper.spawn(move || home::keep(&shared))?;
        Ok(transport)
    }

    fn end(&self, by: Instant, done: Option<Sender<()>>) -> bool {
        let is_first = {
            let mut ending = self.shared.ending.lock();
            let is_first = !self.shared.over.swap(true, Ordering::SeqCst);
            if is_first {
                *ending = Some((by, done));
            }
            is_first
        };
        self.shared.call_all();
        is_first
    }
}

/// Closes all, without waiting for it.
impl Drop for SpTransport {
    fn drop(&mut self) {
        self.shared.outlet.shut(Duration::ZERO);
        self.end(Instant::now(), None);
    }
}

impl Transport for SpTransport {
    fn listen(&self, at: &Endpoint) -> Result<Endpoint, ListenError> {
        if self.shared.is_over() {
            return Err(invalid(at, "the transport was shut down"));
        }
        match at.scheme() {
            Scheme::Ipc => self.shared.listen_ipc(at),
            Scheme::Tcp => self.shared.listen_tcp(at),
            Scheme::Unknown => Err(invalid(at, NO_SCHEME)),
        }
    }

    fn mend(&self) {
        if self.shared.is_over() {
            return;
        }
        let lost =
            |(_, listener): &(&u64, &Arc<Listener>)| listener.claim.lock().as_ref().is_some_and(|claim| !claim.holds());
        let lost: Vec<u64> = self.shared.listeners.read().iter().filter(lost).map(|(key, _)| *key).collect();
        for key in lost {
            self.shared.listen_again(key);
        }
    }

    fn dial(&self, to: &Endpoint) -> PipeId {
        let id = self.shared.new_id();
        let lane = Lane::new(self.shared.outlet.clone());
        let pipe = Arc::new(Pipe::new(id, to.scheme() == Scheme::Ipc, true, lane));
        self.shared.know(&pipe);
        self.shared.ask(Job::Dial(pipe, to.clone()));
        id
    }

    fn send(&self, pipe: PipeId, frame: Bytes) -> Result<(), SendError> {
        let found = self.shared.pipes.read().get(&pipe).cloned();
        if self.hand_over(pipe, frame)? == Handed::Gone
            && let Some(pipe) = found
        {
            pipe.lane.tell(Event::Sent { pipe: pipe.id });
        }
        Ok(())
    }

    fn hand_over(&self, pipe: PipeId, frame: Bytes) -> Result<Handed, SendError> {
        let shared = &self.shared;
        let last = LAST.try_with(Cell::take).ok().flatten();
        let last = last.filter(|last| last.transport == shared.number && last.exit.id == pipe);
        let last = last.or_else(|| {
            let exit = shared.pipes.read().get(&pipe)?.exit.clone();
            Some(Last { transport: shared.number, exit })
        });
        let Some(last) = last.filter(|_| !shared.is_over()) else { return Err(SendError::Gone(frame)) };
        let written = last.exit.send(&shared.set, frame);
        // A thread that ends keeps nothing.
        let _ = LAST.try_with(|place| place.set(Some(last)));
        match written? {
            Written::Whole => return Ok(Handed::Gone),
            Written::InPart => shared.home.rouse_keeper(),
            Written::Broken(frame) => {
                shared.ask(Job::Broken(pipe));
                return Err(SendError::Gone(frame));
            }
        }
        Ok(Handed::Going)
    }

    fn keeps_all(&self) -> bool {
        true
    }

    fn close(&self, pipe: PipeId) {
        let found = self.shared.pipes.read().get(&pipe).cloned();
        if found.is_some_and(|pipe| pipe.end(DialError::Closed)) {
            self.shared.forget(pipe);
            self.shared.ask(Job::Retire(pipe));
        }
    }

    fn shutdown(&self, limit: Duration) {
        let by = Instant::now() + limit;
        self.shared.outlet.shut(limit.max(CLOSING));
        let (done, closed) = channel();
        if !self.end(by, Some(done)) || Outlet::is_inside() {
            return; // In a sink, the thread that closes may be this one, or wait for it.
        }
        let wait = by.saturating_duration_since(Instant::now()) + CLOSING;
        if closed.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the sockets of a transport are still being closed; its socket files may remain");
        }
    }
}

impl Shared {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn new_id(&self) -> PipeId {
        PipeId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn know(&self, pipe: &Arc<Pipe>) {
        self.pipes.write().insert(pipe.id, pipe.clone());
    }

    fn forget(&self, pipe: PipeId) {
        self.pipes.write().remove(&pipe);
    }

    fn ask(&self, job: Job) {
        let is_first = {
            let mut queue = self.jobs.queue.lock();
            queue.push(job);
            !self.jobs.waiting.swap(true, Ordering::SeqCst)
        };
        if is_first {
            self.call();
        }
    }

    fn listen_ipc(&self, at: &Endpoint) -> Result<Endpoint, ListenError> {
        let mut claim = Claim::take(at)?;
        claim.clear();
        match net::listen_ipc(Path::new(at.rest())) {
            Ok(socket) => {
                claim.bound();
                self.start_listener(at.clone(), socket, Some(claim))
            }
            Err(error) => {
                claim.release(None);
                Err(listen_error(at, error))
            }
        }
    }

    /// The listener whose file is gone is let go of once another is in its place. Its pipes stay.
    fn listen_again(&self, key: u64) {
        let Some(old) = self.listeners.read().get(&key).cloned() else { return };
        let mut held = old.claim.lock();
        let Some(claim) = held.as_mut().filter(|_| !self.is_over()) else { return };
        if !claim.renew() {
            return;
        }
        let at = claim.endpoint();
        let again = match net::listen_ipc(Path::new(at.rest())) {
            Ok(socket) => {
                claim.bound();
                self.start_listener(at.clone(), socket, held.take())
            }
            Err(error) => Err(listen_error(&at, error)),
        };
        match again {
            Ok(_) => {
                tracing::warn!(%at, "its socket file had been removed: listening again");
                self.listeners.write().remove(&key);
                self.set.remove(&old.socket);
            }
            Err(error) => tracing::warn!(%at, %error, "its socket file was removed, and cannot be made again"),
        }
    }

    fn listen_tcp(&self, at: &Endpoint) -> Result<Endpoint, ListenError> {
        let (host, port) = host_and_port(at.rest()).map_err(|reason| invalid(at, reason))?;
        let addresses: Vec<SocketAddr> = match host {
            "" | "*" => vec![(Ipv4Addr::UNSPECIFIED, port).into()],
            _ => at.rest().to_socket_addrs().map_err(|error| invalid(at, error.to_string()))?.collect(),
        };
        let mut outcome = Err(invalid(at, "the name has no address"));
        for address in addresses {
            outcome = net::listen_tcp(address).map_err(|error| listen_error(at, error));
            if outcome.is_ok() {
                break;
            }
        }
        let (socket, port) = outcome?;
        self.start_listener(with_port(at, Some(port)), socket, None)
    }

    /// Its name is known before anybody can come to it.
    fn start_listener(&self, at: Endpoint, socket: OwnedFd, claim: Option<Claim>) -> Result<Endpoint, ListenError> {
        let key = self.new_id().0;
        let listener = Arc::new(Listener { at: at.clone(), socket, claim: Mutex::new(claim) });
        self.listeners.write().insert(key, listener.clone());
        if let Err(source) = self.set.add(&listener.socket, key, false) {
            self.listeners.write().remove(&key);
            listener.release();
            return Err(ListenError::System { at, source });
        }
        Ok(at)
    }

    fn stop_listening(&self) {
        let listeners = std::mem::take(&mut *self.listeners.write());
        for listener in listeners.into_values() {
            self.set.remove(&listener.socket);
            listener.release();
        }
    }
}

impl Listener {
    fn release(&self) {
        if let Some(claim) = self.claim.lock().take() {
            claim.release(None);
        }
    }
}

/// Looks up the addresses of a name, on a thread that may wait. The first one is tried first.
fn resolve(shared: &Arc<Shared>, pipe: PipeId, name: &str) {
    let (shared, name) = (shared.clone(), name.to_owned());
    RESOLVERS.run(Box::new(move || {
        let found = name.to_socket_addrs().map_err(|error| error.to_string());
        shared.ask(Job::Resolved(pipe, found.map(|found| found.collect::<Vec<_>>().into_iter().rev().collect())));
    }));
}

fn listen_error(at: &Endpoint, error: Errno) -> ListenError {
    match error {
        Errno::ADDRINUSE => ListenError::InUse { at: at.clone() },
        _ => ListenError::System { at: at.clone(), source: error.into() },
    }
}
