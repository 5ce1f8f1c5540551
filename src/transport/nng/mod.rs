//! The transport over nng Pair1, ipc and tcp: sockets for the router, with everything that nng 1.12.4 does not bear kept from it.
//!
//! All that come share one *poly* socket, which always reads; every dial has a *plain* socket of its own, for one connection.
//! On the wire the two are the same. nng's callbacks hand frames to the sink without copying them; what nng tells of pipes
//! goes through a channel to one owner thread per transport (`owner`), which alone decides about lives; whatever may wait is
//! done on threads that come and go. Unsafe code is in `sys` alone.
//!
//! # Dialing
//!
//! nng's non-blocking dial never says that it was refused, and its blocking one waits ten seconds for a mute peer, and for an
//! unplugged machine as long as the kernel does. So the blocking one runs on a thread of its own and reports, and the owner's
//! clock ends it at `Options::dial_limit`. Up to 64 dials wait at once. From `dial` to the event, median on a busy machine of two cores:
//! refused 84 µs (ipc, also for a stale file and none) and 180 µs (tcp), opened 360 µs (ipc) and 510 µs (tcp).
//!
//! # What nng does not bear, and what is done about it
//!
//! One stuck pipe blocks nng's only reaper thread, and then no end of a pipe is told in the whole process. Each of these was
//! provoked by `benches/churn.rs`, and found in nng's source:
//!
//! 1. *An ipc pipe that is closed while a frame is read from it* hangs: its reader looks for a close only between frames (TCP
//!    looks always), and the close overlooks a read that is being completed at that moment. Dialers that were flooded hung after
//!    about a hundred closes; on a busy machine even a silence of 20 ms before the close was not enough (two hangs in 100,000
//!    connections). So nng is made to find the end by itself, between two reads, which is safe: an accepted connection is shut
//!    for reading behind nng's back. It is found among the descriptors of the process by the listener's path and the peer's
//!    process; a shutdown takes all of them. One of several of one process is not told apart: it is unheard from then on, and
//!    closed when it has been silent for a second. A dialed pipe stops receiving: the next frame stays in nng's hands, nothing is read any
//!    more, and the socket is closed; a peer that has been silent for 20 ms is not waited for.
//! 2. *An ipc pipe that is sent on while it is read*, and whose peer goes, is closed by nng itself at that same bad moment: with
//!    answers to flooding peers on the ipc pipes that they had dialed it hung after 17,000 connections, which nothing here can
//!    prevent (`--answer-on-ipc`). So **send on accepted pipes only over TCP**, to peers that cannot be dialed; on ipc
//!    everybody can be. Over TCP it is safe.
//! 3. *A socket closed while its dial begins* leaves the dial waiting for ever, and the close for it; closed while it shakes
//!    hands, it loses the descriptor (53 in 2,159 such closes). So a dial is not interrupted in its first 100 ms; one that
//!    still waits then waits for a mute peer, and can be.
//! 4. *An aio freed while its operation is being completed* is a use after free: nng panicked within a second. Each is stopped,
//!    which waits, and then freed, on the closing thread.
//! 5. *An operation started while its socket is being closed* stays in the closed socket's list and is stopped through a wild
//!    pointer: a panic after 350 s of churn. A lock keeps the two apart.
//! 6. nng connects anew by itself. It is told to wait up to 24 days, and a socket whose pipe is gone is closed at once.
//!
//! A close that hangs nevertheless is reported as an error after five seconds and left behind; see [`is_closing_stuck`].
//!
//! # Listening
//!
//! An ipc path has one owner, by a lock on a file beside it named `.lock`; who listens there without one is found in
//! `/proc/net/unix` and not disturbed. Stale socket files are replaced, other files never touched. A shutdown removes our files, and leaves a successor's.
//! Where somebody removed the file of an endpoint, `mend` listens there once more, beside the listener that nobody reaches.
//! An accepted ipc pipe that is silent for `Options::silent_limit` is closed.
//!
//! # Cost
//!
//! The first transport of a process takes its threads from 1 to 8 (nng's 2 for tasks, 1 each for time, names, polling and reaping;
//! the owner; nng alone would start 12) and its memory from 2.3 to 2.7 MB; each further one takes one thread, and each ipc
//! endpoint two descriptors. The soft limit of open descriptors is raised to the hard one.
//!
//! # Not promised
//!
//! The peer of a pipe that is closed here is told when that is safe: usually at once, after up to 100 ms for a dial that had
//! just begun, after up to a second while a frame is being written to a peer that does not read. The end of the process waits for nothing.

mod accepted;
mod closing;
mod dialed;
mod owner;
mod sys;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use self::accepted::{Accepted, Hall};
use self::dialed::Dialed;
use self::owner::{Note, Owner};
use self::sys::{Code, RawPipe, end_after_what_came, visitors_at};
use super::claim::Claim;
use super::lane::{Lane, Outlet};
use super::sockets::{NO_SCHEME, host_and_port, invalid, raise_descriptor_limit, with_port};
use super::{EventSink, ListenError, Options, PipeId, SendError, Transport};
use crate::addr::{Endpoint, Scheme};

/// Bytes that Pair1 puts before each frame and that nng counts against the limit of received messages.
const PAIR1_HEADER: usize = 4;
/// How long a shutdown waits for the closing itself, which takes milliseconds.
const CLOSING: Duration = Duration::from_secs(1);

/// Sockets of this process, over nng.
pub struct NngTransport {
    shared: Arc<Shared>,
}

struct Shared {
    options: Options,
    outlet: Arc<Outlet>,
    notes: Sender<Note>,
    hall: Hall,
    pipes: RwLock<HashMap<PipeId, Pipe>>,
    claims: Mutex<Vec<Claim>>,
    next: AtomicU64,
    over: AtomicBool,
}

#[derive(Clone)]
enum Pipe {
    Dialed(Arc<Dialed>),
    Accepted(Arc<Accepted>),
}

/// The version of the nng C library that is linked, as `1.12.4`.
#[must_use]
pub fn library_version() -> String {
    sys::version()
}

/// How many closes of this process wait or run; 0 when all is in order and nothing was closed within the last milliseconds.
#[must_use]
pub fn closing_backlog() -> usize {
    closing::backlog()
}

/// Whether a close hangs, which is also reported as an error: sockets closed since then stay open.
#[must_use]
pub fn is_closing_stuck() -> bool {
    closing::is_stuck()
}

impl NngTransport {
    /// Starts one; what happens is told to `sink` from threads of nng's and of its own.
    ///
    /// # Errors
    ///
    /// The system has no memory, descriptors or threads left.
    pub fn new(sink: EventSink, options: Options) -> io::Result<Self> {
        raise_descriptor_limit();
        let link = Arc::new(OnceLock::new());
        let receive_limit = options.max_frame.saturating_add(PAIR1_HEADER);
        let hall = Hall::open(link.clone(), receive_limit).map_err(system_error)?;
        let (notes, inbox) = channel();
        let shared = Arc::new(Shared {
            options,
            outlet: Arc::new(Outlet::new(sink)),
            notes,
            hall,
            pipes: RwLock::default(),
            claims: Mutex::default(),
            next: AtomicU64::new(1),
            over: AtomicBool::new(false),
        });
        link.get_or_init(|| Arc::downgrade(&shared));
        let owner = Owner::new(shared.clone());
        std::thread::Builder::new().name("vlm-nng".into()).spawn(move || owner.run(&inbox))?;
        Hall::receive(&shared).map_err(system_error)?;
        Ok(Self { shared })
    }

    fn end(&self, limit: Instant, done: Option<Sender<()>>) -> bool {
        if self.shared.over.swap(true, Ordering::SeqCst) {
            return false;
        }
        self.shared.note(Note::Shutdown(limit, done));
        true
    }
}

/// Closes all, without waiting for it.
impl Drop for NngTransport {
    fn drop(&mut self) {
        self.shared.outlet.shut(Duration::ZERO);
        self.end(Instant::now(), None);
    }
}

impl Transport for NngTransport {
    fn listen(&self, at: &Endpoint) -> Result<Endpoint, ListenError> {
        if self.shared.over.load(Ordering::SeqCst) {
            return Err(invalid(at, "the transport was shut down"));
        }
        match at.scheme() {
            Scheme::Ipc => self.shared.listen_ipc(at),
            Scheme::Tcp => self.shared.listen_tcp(at),
            Scheme::Unknown => Err(invalid(at, NO_SCHEME)),
        }
    }

    fn mend(&self) {
        let mut claims = self.shared.claims.lock();
        // Looked at under the lock, and after a shutdown there are none.
        if self.shared.over.load(Ordering::SeqCst) {
            return;
        }
        for claim in claims.iter_mut().filter(|claim| !claim.holds()) {
            self.shared.listen_again(claim);
        }
    }

    fn dial(&self, to: &Endpoint) -> PipeId {
        let id = self.shared.new_id();
        let lane = Lane::new(self.shared.outlet.clone());
        let pipe = Arc::new(Dialed::new(id, to.clone(), lane));
        let entry = Pipe::Dialed(pipe.clone());
        self.shared.pipes.write().insert(id, entry);
        self.shared.note(Note::DialBegun(pipe));
        id
    }

    fn send(&self, pipe: PipeId, frame: Bytes) -> Result<(), SendError> {
        let found = self.shared.pipes.read().get(&pipe).cloned();
        match found {
            _ if self.shared.over.load(Ordering::SeqCst) => Err(SendError::Gone(frame)),
            Some(Pipe::Dialed(pipe)) => pipe.send(frame),
            Some(Pipe::Accepted(pipe)) => pipe.send(&self.shared.hall, frame),
            None => Err(SendError::Gone(frame)),
        }
    }

    fn close(&self, pipe: PipeId) {
        let found = self.shared.pipes.read().get(&pipe).cloned();
        let ended = match found {
            Some(Pipe::Dialed(pipe)) => pipe.end(),
            Some(Pipe::Accepted(pipe)) => pipe.end(),
            None => false,
        };
        if ended {
            self.shared.note(Note::Retire(pipe));
        }
    }

    fn shutdown(&self, limit: Duration) {
        let by = Instant::now() + limit;
        self.shared.outlet.shut(limit.max(CLOSING));
        let (done, closed) = channel();
        if !self.end(by, Some(done)) || Outlet::is_inside() {
            return; // In a sink, the thread that closes may be this one.
        }
        let wait = by.saturating_duration_since(Instant::now()) + CLOSING;
        if closed.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
            tracing::error!("the sockets of a transport are still being closed; its socket files may remain");
        }
    }
}

impl Shared {
    fn note(&self, note: Note) {
        // The owner is only gone after a shutdown, when nothing matters any more.
        let _ = self.notes.send(note);
    }

    fn new_id(&self) -> PipeId {
        PipeId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn receive_limit(&self) -> usize {
        self.options.max_frame.saturating_add(PAIR1_HEADER)
    }

    /// Makes a place for a pipe before its first frame can come. Called inside nng's notification: no call into nng.
    fn expect(&self, raw: RawPipe) {
        let id = self.new_id();
        let pipe = Arc::new(Accepted::new(id, raw, Lane::new(self.outlet.clone())));
        self.hall.pipes.write().insert(raw, pipe.clone());
        self.pipes.write().insert(id, Pipe::Accepted(pipe));
    }

    fn listen_ipc(&self, at: &Endpoint) -> Result<Endpoint, ListenError> {
        let mut claim = Claim::take(at)?;
        match self.start_listener(at) {
            Ok(bound) => {
                claim.bound();
                self.claims.lock().push(claim);
                Ok(bound)
            }
            Err(code) => {
                claim.release(None);
                Err(listen_error(at, code))
            }
        }
    }

    /// The listener whose file is gone stays with its pipes: nobody comes to it, and closing it would end them.
    fn listen_again(&self, claim: &mut Claim) {
        if !claim.renew() {
            return;
        }
        let at = claim.endpoint();
        match self.start_listener(&at) {
            Ok(_) => {
                claim.bound();
                tracing::warn!(%at, "its socket file had been removed: listening again");
            }
            Err(code) => tracing::warn!(%at, %code, "its socket file was removed, and cannot be made again"),
        }
    }

    fn listen_tcp(&self, at: &Endpoint) -> Result<Endpoint, ListenError> {
        host_and_port(at.rest()).map_err(|reason| invalid(at, reason))?;
        self.start_listener(at).map_err(|code| listen_error(at, code))
    }

    /// The endpoint as bound. Its name is known before anybody can come to it.
    fn start_listener(&self, at: &Endpoint) -> Result<Endpoint, Code> {
        let listener = self.hall.socket.listener(at.as_str())?;
        let names = &self.hall.listeners;
        names.write().insert(listener.id(), at.clone());
        let port = listener.start().inspect_err(|_| {
            names.write().remove(&listener.id());
        })?;
        let bound = with_port(at, port);
        names.write().insert(listener.id(), bound.clone());
        Ok(bound)
    }

    /// Lets nobody come over ipc any more.
    fn unlink(&self) {
        for claim in &*self.claims.lock() {
            claim.unlink();
        }
    }

    /// Ends every connection that came over ipc, each once nng has read what came. Whether none is left.
    fn hang_up_on_ipc(&self) -> bool {
        let claims = self.claims.lock();
        let visitors = claims.iter().flat_map(|claim| visitors_at(claim.path(), None));
        visitors.map(|fd| end_after_what_came(&fd)).count() == 0
    }

    /// Closes what listens and whoever came. On the closing thread: it waits for nng.
    fn close_hall(&self) {
        let claims = std::mem::take(&mut *self.claims.lock());
        let claims: Vec<_> = claims.into_iter().map(|claim| (claim.shelter(), claim)).collect();
        self.hall.socket.close();
        for (sheltered, claim) in claims {
            claim.release(sheltered);
        }
        self.hall.pipes.write().clear();
        self.pipes.write().clear();
    }
}

/// Both ends of a TCP pipe, or the process at the other end of an ipc one, as far as nng still knows them.
fn ends(raw: RawPipe, tcp: bool) -> (Option<Endpoint>, Option<Endpoint>, Option<u32>) {
    let endpoint = |address: SocketAddr| Endpoint::from(format!("tcp://{address}"));
    if tcp {
        let (local, remote) = (raw.local(), raw.remote());
        (local.map(endpoint), remote.map(endpoint), None)
    } else {
        (None, None, raw.peer_pid())
    }
}

fn listen_error(at: &Endpoint, code: Code) -> ListenError {
    match code.0.cast_unsigned() {
        nng_sys::NNG_EADDRINUSE => ListenError::InUse { at: at.clone() },
        nng_sys::NNG_EADDRINVAL => invalid(at, code.to_string()),
        _ => ListenError::System { at: at.clone(), source: system_error(code) },
    }
}

fn system_error(code: Code) -> io::Error {
    let number = code.0.cast_unsigned();
    if number & nng_sys::NNG_ESYSERR != 0 {
        return io::Error::from_raw_os_error((number & !nng_sys::NNG_ESYSERR).cast_signed());
    }
    let kind = match number {
        nng_sys::NNG_EPERM => io::ErrorKind::PermissionDenied,
        nng_sys::NNG_ENOENT => io::ErrorKind::NotFound,
        nng_sys::NNG_ENOMEM => io::ErrorKind::OutOfMemory,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, code.to_string())
}
