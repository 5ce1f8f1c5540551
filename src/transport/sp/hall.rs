//! What whoever serves holds meanwhile: the connections' receiving ends, and what is due when.
//!
//! One thread at a time serves. Sinks are called from here; what they do (`send`, `dial`, `close`) needs nothing of this.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::task::AbortHandle;

use super::inlet::{Fault, HANDSHAKE, Inlet};
use super::net::{self, Ready};
use super::pipe::Pipe;
use super::{Job, Shared};
use crate::addr::{Endpoint, Scheme};
use crate::hash::BySequence;
use crate::transport::lane::Lane;
use crate::transport::sockets::check_dialable;
use crate::transport::{DialError, Event, Origin};

/// Bytes read at once. Default 64 KiB: a full frame of a Rust router's link.
const READ: usize = 64 << 10;
/// A frame of which so much is missing is read into its place. Default 16 KiB: below, reading what follows with the same call is worth more.
const IN_PLACE: usize = 16 << 10;
/// Reads of one connection in one turn. Default 8: then others have their turn, and agents theirs.
const READS: usize = 8;
/// Connections accepted of one listener in one turn. Default 32.
const ACCEPTS: usize = 32;
/// How long a listener rests when there is no descriptor left for who comes. Default 100 ms.
const NO_ROOM: Duration = Duration::from_millis(100);
/// How long until a unix socket is dialed again whose backlog is full. Default 5 ms.
const FULL_BACKLOG: Duration = Duration::from_millis(5);
/// How long a connection that was closed here stays until the other side has read the end. Default 1 s: milliseconds as a rule.
const LEAVE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Hall {
    sockets: HashMap<u64, Socket, BySequence>,
    due: BinaryHeap<Reverse<(Instant, u64, Due)>>,
    scratch: Vec<u8>,
    /// Some open connection may be watched by the arbiter alone.
    some_unwatched: bool,
}

struct Socket {
    pipe: Arc<Pipe>,
    origin: Origin,
    socket: Option<Arc<OwnedFd>>,
    stage: Stage,
    inlet: Inlet,
    heard: bool,
    /// In the set, beside the arbiter's own watch.
    watched: bool,
    /// The arbiter's task that reads it.
    reader: Option<AbortHandle>,
}

impl Socket {
    fn new(pipe: Arc<Pipe>, origin: Origin, inlet: Inlet) -> Self {
        let stage = Stage::Waiting;
        Self { pipe, origin, socket: None, stage, inlet, heard: false, watched: false, reader: None }
    }
}

enum Stage {
    /// Waits for its name's addresses, or for room in the listener's backlog.
    Waiting,
    /// TCP is connecting; other addresses of the name are tried next.
    Connecting(Vec<SocketAddr>),
    /// Reads the other side's first 8 bytes.
    Shaking(usize),
    Open,
    /// Closed here: what still comes is dropped.
    Leaving,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    DialLimit,
    ShakeLimit,
    DialAgain,
    Silent,
    Left,
    ListenAgain,
}

impl Hall {
    /// Does what was asked for and what is ready. Whether there is more to do at once.
    pub(super) fn turn(&mut self, shared: &Arc<Shared>, ready: &Ready) -> bool {
        for job in shared.jobs.take() {
            self.do_job(shared, job);
        }
        let mut more = ready.is_full();
        for (key, writable, ended) in ready.keys() {
            more |= self.is_ready(shared, key, writable);
            // A short read says that no more had come, but not whether the end had: that is not told a second time.
            more |= ended && self.sockets.contains_key(&key);
        }
        more | shared.jobs.is_waiting()
    }

    /// When [`Hall::act_on_time`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, ..))| *at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }

    pub(super) fn is_writing(&self) -> bool {
        self.sockets.values().any(|socket| socket.pipe.is_writing())
    }

    /// The end of everything: dials are given up, connections are closed once what is on its way has gone.
    pub(super) fn leave_all(&mut self, shared: &Arc<Shared>) {
        let keys: Vec<u64> = self.sockets.keys().copied().collect();
        for key in keys {
            if let Some(socket) = self.sockets.get(&key) {
                socket.pipe.end_silently();
            }
            self.leave(shared, key);
        }
    }

    pub(super) fn drop_all(&mut self) {
        self.sockets.clear();
        self.due.clear();
    }

    pub(super) fn act_on_time(&mut self, shared: &Arc<Shared>, now: Instant) {
        while let Some(Reverse((at, key, due))) = self.due.peek().copied() {
            if at > now {
                return;
            }
            self.due.pop();
            self.act(shared, key, due);
        }
    }

    fn act(&mut self, shared: &Arc<Shared>, key: u64, due: Due) {
        if due == Due::ListenAgain {
            if let Some(listener) = shared.listeners.read().get(&key) {
                shared.set.change(&listener.socket, key, true, false);
            }
            return;
        }
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let is_undecided = matches!(socket.stage, Stage::Waiting | Stage::Connecting(_) | Stage::Shaking(_));
        match due {
            Due::DialLimit | Due::ShakeLimit if is_undecided => {
                self.finish(shared, key, DialError::TimedOut(shared.options.dial_limit));
            }
            Due::DialAgain if matches!(socket.stage, Stage::Waiting) => self.dial_ipc(shared, key),
            Due::Silent if !socket.heard => {
                tracing::debug!(pipe = key, "closing an ipc pipe that said nothing");
                self.finish(shared, key, DialError::Closed);
            }
            Due::Left => self.remove(shared, key),
            _ => {}
        }
    }

    fn after(&mut self, shared: &Shared, delay: Duration, key: u64, due: Due) {
        let at = Instant::now() + delay;
        let is_next = self.next_due().is_none_or(|next| at < next);
        self.due.push(Reverse((at, key, due)));
        if is_next {
            shared.reckon_anew();
        }
    }

    // ---- what was asked for ----------------------------------------------------------------

    fn do_job(&mut self, shared: &Arc<Shared>, job: Job) {
        match job {
            Job::Dial(pipe, to) => self.dial(shared, pipe, to),
            Job::Resolved(id, Ok(addresses)) => self.dial_tcp(shared, id.0, addresses),
            Job::Resolved(id, Err(error)) => self.finish(shared, id.0, DialError::System(error)),
            Job::Retire(id) => self.leave(shared, id.0),
            Job::Broken(id) => {
                // The other side may have said something before.
                while self.read(shared, id.0) {}
                self.finish(shared, id.0, DialError::Closed);
            }
        }
    }

    fn dial(&mut self, shared: &Arc<Shared>, pipe: Arc<Pipe>, to: Endpoint) {
        let (id, key) = (pipe.id, pipe.id.0);
        if pipe.lane.is_over() {
            return shared.forget(id); // Closed before it began.
        }
        let inlet = Inlet::new(pipe.ipc, shared.options.max_frame);
        let origin = Origin::Dialed(to.clone());
        self.sockets.insert(key, Socket::new(pipe, origin, inlet));
        if let Err(error) = check_dialable(&to) {
            return self.finish(shared, key, error);
        }
        self.after(shared, shared.options.dial_limit, key, Due::DialLimit);
        match (to.scheme(), to.rest().parse()) {
            (Scheme::Tcp, Ok(address)) => self.dial_tcp(shared, key, vec![address]),
            (Scheme::Tcp, Err(_)) => super::resolve(shared, id, to.rest()),
            _ => self.dial_ipc(shared, key),
        }
    }

    fn dial_ipc(&mut self, shared: &Arc<Shared>, key: u64) {
        let Some(Origin::Dialed(to)) = self.sockets.get(&key).map(|socket| &socket.origin) else { return };
        match net::connect_ipc(to.rest()) {
            Ok(socket) => self.shake(shared, key, socket),
            Err(Errno::AGAIN) => self.after(shared, FULL_BACKLOG, key, Due::DialAgain),
            Err(error) => self.finish(shared, key, dial_error(error)),
        }
    }

    /// Connects to the last of these, and to the others if that fails.
    fn dial_tcp(&mut self, shared: &Arc<Shared>, key: u64, mut addresses: Vec<SocketAddr>) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let mut error = DialError::System("the name has no address".into());
        while let Some(address) = addresses.pop() {
            let tried = net::connect_tcp(address).map_err(dial_error);
            match tried.and_then(|fd| {
                shared.set.add(&fd, key, true).map(|()| fd).map_err(|e| DialError::System(e.to_string()))
            }) {
                Ok(fd) => {
                    socket.socket = Some(Arc::new(fd));
                    socket.stage = Stage::Connecting(addresses);
                    return;
                }
                Err(failed) => error = failed,
            }
        }
        self.finish(shared, key, error);
    }

    fn tcp_decided(&mut self, shared: &Arc<Shared>, key: u64) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let (Stage::Connecting(others), Some(fd)) = (&mut socket.stage, socket.socket.clone()) else { return };
        let others = std::mem::take(others);
        match net::connected(&fd) {
            Ok(()) => {
                net::tune_tcp(&fd);
                shared.set.change(&*fd, key, true, false);
                self.say_hands(shared, key);
            }
            Err(error) if others.is_empty() => self.finish(shared, key, dial_error(error)),
            Err(_) => {
                shared.set.remove(&*fd);
                self.dial_tcp(shared, key, others);
            }
        }
    }

    // ---- connections -----------------------------------------------------------------------

    fn accept(&mut self, shared: &Arc<Shared>, key: u64) -> bool {
        let Some(listener) = shared.listeners.read().get(&key).cloned() else { return false };
        for _ in 0..ACCEPTS {
            let socket = match net::accept(&listener.socket) {
                Ok(socket) => socket,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    tracing::error!(at = %listener.at, "no descriptor or memory for who comes");
                    shared.set.change(&listener.socket, key, false, false);
                    self.after(shared, NO_ROOM, key, Due::ListenAgain);
                    return false;
                }
                Err(Errno::AGAIN) => return false,
                // Who came has gone already.
                Err(_) => continue,
            };
            let id = shared.new_id();
            let ipc = listener.at.scheme() == Scheme::Ipc;
            if !ipc {
                net::tune_tcp(&socket);
            }
            let pipe = Arc::new(Pipe::new(id, ipc, false, Lane::new(shared.outlet.clone())));
            let inlet = Inlet::new(ipc, shared.options.max_frame);
            let origin = Origin::Accepted(Some(listener.at.clone()));
            self.sockets.insert(id.0, Socket::new(pipe, origin, inlet));
            self.after(shared, shared.options.dial_limit, id.0, Due::ShakeLimit);
            self.shake(shared, id.0, socket);
        }
        true
    }

    /// A connection stands: each side says what it speaks.
    fn shake(&mut self, shared: &Arc<Shared>, key: u64, fd: OwnedFd) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        if let Err(error) = shared.set.add(&fd, key, false) {
            return self.finish(shared, key, DialError::System(error.to_string()));
        }
        socket.socket = Some(Arc::new(fd));
        self.say_hands(shared, key);
    }

    fn say_hands(&mut self, shared: &Arc<Shared>, key: u64) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        socket.stage = Stage::Shaking(0);
        let said = socket.socket.as_ref().map(|fd| net::write(fd, &HANDSHAKE, &[], 0));
        match said {
            Some(Ok(8)) => {}
            Some(Err(error)) => self.finish(shared, key, dial_error(error)),
            _ => self.finish(shared, key, DialError::System("the connection takes no byte".into())),
        }
    }

    fn is_ready(&mut self, shared: &Arc<Shared>, key: u64, writable: bool) -> bool {
        let Some(socket) = self.sockets.get_mut(&key) else { return self.accept(shared, key) };
        if let Stage::Connecting(_) = socket.stage {
            self.tcp_decided(shared, key);
            return false;
        }
        if writable && socket.pipe.is_writing() {
            let gone = socket.pipe.write_on(&shared.set);
            if let (Stage::Leaving, Some(fd)) = (&socket.stage, &socket.socket) {
                if !socket.pipe.is_writing() {
                    net::end_writing(fd);
                }
            } else if gone {
                socket.pipe.tell_sent();
            }
        }
        (0..READS).all(|_| self.read(shared, key))
    }

    /// Has all open connections in the set, for a keeper that looks whether one waits. One that the system does not watch is ended: nobody else may read it.
    pub(super) fn watch_all(&mut self, shared: &Arc<Shared>) {
        if !std::mem::take(&mut self.some_unwatched) {
            return;
        }
        let mut failed = Vec::new();
        for (key, socket) in &mut self.sockets {
            if let (Stage::Open | Stage::Leaving, false, Some(fd)) = (&socket.stage, socket.watched, &socket.socket) {
                match shared.set.watch(&**fd, *key) {
                    Ok(()) => socket.watched = true,
                    Err(error) => failed.push((*key, error)),
                }
            }
        }
        for (key, error) in failed {
            tracing::error!(pipe = key, %error, "a connection cannot be watched, and was ended");
            self.finish(shared, key, DialError::System(error.to_string()));
        }
    }

    /// Reads what an open connection has to say, as its arbiter. Whether there may be more; none if it has ended.
    pub(super) fn attend(&mut self, shared: &Arc<Shared>, key: u64) -> Option<bool> {
        if let Some(socket) = self.sockets.get_mut(&key)
            && let Some(fd) = socket.socket.as_ref().filter(|_| socket.watched)
        {
            shared.set.unwatch(&**fd);
            socket.watched = false;
            self.some_unwatched = true;
        }
        let more = (0..READS).all(|_| self.read(shared, key));
        self.sockets.contains_key(&key).then_some(more)
    }

    /// From now on this task reads the connection, as others may. Ends it if the connection has ended.
    pub(super) fn is_read_by(&mut self, key: u64, reader: AbortHandle) {
        match self.sockets.get_mut(&key) {
            Some(socket) => socket.reader = Some(reader),
            None => reader.abort(),
        }
    }

    /// Reads once. Whether there may be more.
    fn read(&mut self, shared: &Arc<Shared>, key: u64) -> bool {
        let Some(Socket { socket: Some(fd), pipe, stage, inlet, heard, .. }) = self.sockets.get_mut(&key) else {
            return false;
        };
        self.scratch.resize(READ, 0);
        let mut tell = |frame| pipe.lane.tell(Event::Received { pipe: pipe.id, frame });
        let outcome = match stage {
            Stage::Waiting | Stage::Connecting(_) => return false,
            &mut Stage::Shaking(have) => {
                let fd = fd.clone();
                return self.read_hands(shared, key, have, &fd);
            }
            Stage::Leaving => rustix::io::read(fd, &mut self.scratch[..]).map(|read| (read, read == READ, Ok(()))),
            Stage::Open => {
                if let Some(place) = inlet.place(IN_PLACE) {
                    let room = place.capacity() - place.len();
                    let read = rustix::io::read(fd, rustix::buffer::spare_capacity(place));
                    read.map(|read| (read, read == room, inlet.placed(&mut tell)))
                } else {
                    let read = rustix::io::read(fd, &mut self.scratch[..]);
                    read.map(|read| (read, read == READ, inlet.take(&self.scratch[..read], &mut tell)))
                }
            }
        };
        match outcome {
            Ok((1.., more, Ok(()))) => {
                *heard = true;
                more
            }
            Err(Errno::AGAIN) => false,
            Err(Errno::INTR) => true,
            Ok((0, _, Ok(()))) | Err(_) => {
                self.finish(shared, key, DialError::Closed);
                false
            }
            Ok((_, _, Err(fault))) => {
                tracing::warn!(pipe = key, %fault, "a connection was ended");
                self.finish(shared, key, DialError::Closed);
                false
            }
        }
    }

    fn read_hands(&mut self, shared: &Arc<Shared>, key: u64, have: usize, fd: &Arc<OwnedFd>) -> bool {
        // No byte beyond is read: frames are read later, as frames.
        let read = rustix::io::read(fd, &mut self.scratch[have..HANDSHAKE.len()]);
        let now = match read {
            Err(Errno::AGAIN) => return false,
            Err(Errno::INTR) => return true,
            Ok(0) => return self.refuse(shared, key, "it hung up before it said what it speaks".into()),
            Err(error) => return self.refuse(shared, key, error.to_string()),
            Ok(read) => have + read,
        };
        let Some(socket) = self.sockets.get_mut(&key) else { return false };
        if self.scratch[have..now] != HANDSHAKE[have..now] {
            return self.refuse(shared, key, Fault::Protocol.to_string());
        }
        socket.stage = Stage::Shaking(now);
        if now < HANDSHAKE.len() {
            return true;
        }
        self.opened(shared, key, fd);
        true
    }

    fn opened(&mut self, shared: &Arc<Shared>, key: u64, fd: &Arc<OwnedFd>) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let (pipe, origin) = (socket.pipe.clone(), socket.origin.clone());
        shared.set.let_in(&**fd);
        self.some_unwatched = true;
        socket.stage = Stage::Open;
        let is_to_speak = pipe.ipc && !pipe.dialed;
        let (local, remote) = if pipe.ipc { (None, None) } else { net::ends(fd) };
        let pid = if pipe.ipc { net::peer_pid(fd) } else { None };
        pipe.open(fd.clone());
        if !pipe.dialed {
            shared.know(&pipe);
        }
        let (local, remote) = (local.map(net::endpoint), remote.map(net::endpoint));
        pipe.lane.open(Event::Opened { pipe: pipe.id, origin, local, remote, pid });
        shared.welcome(key, fd.clone());
        if is_to_speak {
            self.after(shared, shared.options.silent_limit, key, Due::Silent);
        }
    }

    fn refuse(&mut self, shared: &Arc<Shared>, key: u64, reason: String) -> bool {
        tracing::debug!(pipe = key, reason, "a connection did not come to be");
        self.finish(shared, key, DialError::System(reason));
        false
    }

    // ---- ends ------------------------------------------------------------------------------

    /// It cannot be served.
    pub(super) fn give_up(&mut self, shared: &Arc<Shared>, key: u64) {
        self.finish(shared, key, DialError::Closed);
    }

    /// It has ended: told, and let go of.
    fn finish(&mut self, shared: &Arc<Shared>, key: u64, error: DialError) {
        if let Some(socket) = self.sockets.get(&key) {
            socket.pipe.end(error);
            self.remove(shared, key);
        }
    }

    /// Its end has been told: what is on its way is written, the other side reads the end, and then it is let go of.
    fn leave(&mut self, shared: &Arc<Shared>, key: u64) {
        let Some(socket) = self.sockets.get_mut(&key) else { return };
        let (Stage::Open, Some(fd)) = (&socket.stage, &socket.socket) else { return self.remove(shared, key) };
        if !socket.pipe.is_writing() {
            net::end_writing(fd);
        }
        socket.stage = Stage::Leaving;
        shared.forget(socket.pipe.id);
        self.after(shared, LEAVE, key, Due::Left);
    }

    fn remove(&mut self, shared: &Shared, key: u64) {
        if let Some(socket) = self.sockets.remove(&key) {
            if let Some(fd) = &socket.socket {
                shared.set.remove(&**fd);
                // The other side reads the end now, also if an arbiter that does not come round holds the descriptor.
                net::end(fd);
            }
            if let Some(reader) = socket.reader {
                reader.abort();
            }
            socket.pipe.let_go();
            shared.forget(socket.pipe.id);
        }
    }
}

fn dial_error(error: Errno) -> DialError {
    match error {
        Errno::CONNREFUSED | Errno::NOENT => DialError::Refused,
        error => DialError::System(std::io::Error::from(error).to_string()),
    }
}
