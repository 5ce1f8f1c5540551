//! What is asked of the system: sockets that never wait, and the set of them that is watched.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt,
};

use crate::addr::Endpoint;

/// Connections that may wait to be accepted. The system has a limit of its own, 4,096 as a rule.
const BACKLOG: i32 = 4096;
/// An idle TCP connection is probed after 15 s, then three times every 5 s: a Python peer that was unplugged is noticed in half a minute.
const KEEP_IDLE: Duration = Duration::from_secs(15);
const KEEP_EVERY: Duration = Duration::from_secs(5);
const KEEP_TRIES: u32 = 3;
/// Sockets told of at once.
const EVENTS: usize = 64;
/// Bytes up to which a message is put together and sent in the plainest way. Default 512: copying costs less than telling of two parts.
const SHORT: usize = 512;
const BELL: u64 = 0;
const DOORS: u64 = u64::MAX;

const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
const NEVER_WAITS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

/// Watched sockets, each under a key above 0, and a bell that any thread can ring.
///
/// Whoever serves alone watches it all. An arbiter watches the doors, and each open connection by itself: one look less for each message. While it comes round,
/// open connections are not watched here as well, which would make each message dearer.
pub(super) struct Set {
    all: OwnedFd,
    /// What is no open connection, or waits for room to write; itself watched in `all`.
    doors: OwnedFd,
    bell: OwnedFd,
}

/// What a look at a [`Set`] found.
pub(super) struct Ready(Vec<Event>);

impl Ready {
    pub(super) fn new() -> Self {
        Self(Vec::with_capacity(EVENTS))
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn fill(&mut self, epoll: &OwnedFd, wait: Option<&Timespec>) {
        self.0.reserve(EVENTS);
        // An interrupted look has found nothing.
        let _ = epoll::wait(epoll, rustix::buffer::spare_capacity(&mut self.0), wait);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// There may be more.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= EVENTS
    }

    /// Keys, whether one can be written to, and whether its other side has ended: then what is read last is the end.
    pub(super) fn keys(&self) -> impl Iterator<Item = (u64, bool, bool)> {
        let ended = EventFlags::RDHUP | EventFlags::ERR | EventFlags::HUP;
        let writable = EventFlags::OUT | EventFlags::ERR | EventFlags::HUP;
        self.0
            .iter()
            .map(move |&Event { flags, data }| (data.u64(), flags.intersects(writable), flags.intersects(ended)))
    }
}

impl Set {
    pub(super) fn new() -> io::Result<Self> {
        let (all, doors) = (epoll::create(epoll::CreateFlags::CLOEXEC)?, epoll::create(epoll::CreateFlags::CLOEXEC)?);
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&all, &bell, EventData::new_u64(BELL), EventFlags::IN)?;
        epoll::add(&all, &doors, EventData::new_u64(DOORS), EventFlags::IN)?;
        Ok(Self { all, doors, bell })
    }

    /// The doors themselves can be watched.
    pub(super) fn handle(&self) -> io::Result<OwnedFd> {
        self.doors.try_clone()
    }

    pub(super) fn ring(&self) {
        // Fails only if it was rung 2^64 times.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// The bell has been heard by the one whom it calls.
    pub(super) fn unring(&self) {
        // Fails if it was not rung.
        let _ = rustix::io::read(&self.bell, &mut [0_u8; 8]);
    }

    /// What is ready, after at most `wait` (for ever if none). Whether the bell is ringing.
    pub(super) fn look(&self, wait: Option<Duration>, ready: &mut Ready) -> bool {
        let wait = wait.map(|wait| Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) });
        ready.clear();
        ready.fill(&self.all, wait.as_ref());
        let is_at = |key: u64| ready.0.iter().any(|event| event.data.u64() == key);
        let (rings, doors) = (is_at(BELL), is_at(DOORS));
        ready.0.retain(|event| event.data.u64() != BELL && event.data.u64() != DOORS);
        if doors {
            ready.fill(&self.doors, Some(&NO_WAIT));
        }
        rings
    }

    /// What is ready at the doors.
    pub(super) fn look_at_doors(&self, ready: &mut Ready) {
        ready.clear();
        ready.fill(&self.doors, Some(&NO_WAIT));
    }

    /// Watches a socket at the doors.
    pub(super) fn add(&self, socket: impl AsFd, key: u64, writing: bool) -> io::Result<()> {
        Ok(epoll::add(&self.doors, socket, EventData::new_u64(key), interest(true, writing))?)
    }

    /// Changes what is looked for at the doors.
    pub(super) fn change(&self, socket: impl AsFd, key: u64, reading: bool, writing: bool) {
        // A socket that has been taken out is not looked for any more.
        let _ = epoll::modify(&self.doors, socket, EventData::new_u64(key), interest(reading, writing));
    }

    /// A connection is open, and not watched at the doors any more.
    pub(super) fn let_in(&self, socket: impl AsFd) {
        // It is there.
        let _ = epoll::delete(&self.doors, socket);
    }

    /// Watches an open connection with all others.
    pub(super) fn watch(&self, socket: impl AsFd, key: u64) -> io::Result<()> {
        Ok(epoll::add(&self.all, socket, EventData::new_u64(key), interest(true, false))?)
    }

    pub(super) fn unwatch(&self, socket: impl AsFd) {
        // It is watched.
        let _ = epoll::delete(&self.all, socket);
    }

    /// An open connection waits for room to write, or does not any more.
    pub(super) fn wait_for_room(&self, socket: impl AsFd, key: u64, waits: bool) {
        // It has been taken out if this fails, or is there already.
        let _ = if waits {
            epoll::add(&self.doors, socket, EventData::new_u64(key), interest(false, true))
        } else {
            epoll::delete(&self.doors, socket)
        };
    }

    pub(super) fn remove(&self, socket: impl AsFd + Copy) {
        // Closing it would remove it too, once nobody holds it any more.
        let _ = epoll::delete(&self.doors, socket);
        let _ = epoll::delete(&self.all, socket);
    }
}

fn interest(reading: bool, writing: bool) -> EventFlags {
    let mut interest = EventFlags::empty();
    interest.set(EventFlags::IN | EventFlags::RDHUP, reading);
    interest.set(EventFlags::OUT, writing);
    interest
}

pub(super) fn listen_ipc(path: &Path) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, NEVER_WAITS, None)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// The socket, and its port.
pub(super) fn listen_tcp(at: SocketAddr) -> Result<(OwnedFd, u16), Errno> {
    let socket = tcp_socket(at)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &at)?;
    rustix::net::listen(&socket, BACKLOG)?;
    let port = ends(&socket).0.map_or(0, |at| at.port());
    Ok((socket, port))
}

pub(super) fn accept(listener: &OwnedFd) -> Result<OwnedFd, Errno> {
    rustix::net::accept_with(listener, NEVER_WAITS)
}

pub(super) fn connect_ipc(path: &str) -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, NEVER_WAITS, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// A connection under way: it can be written to when it is decided.
pub(super) fn connect_tcp(to: SocketAddr) -> Result<OwnedFd, Errno> {
    let socket = tcp_socket(to)?;
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// How a connection under way was decided.
pub(super) fn connected(socket: &OwnedFd) -> Result<(), Errno> {
    sockopt::socket_error(socket)??;
    let (local, remote) = ends(socket);
    // A port of one's own that nobody listened at connects to itself.
    if local == remote { Err(Errno::CONNREFUSED) } else { Ok(()) }
}

fn tcp_socket(at: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    rustix::net::socket_with(family, SocketType::STREAM, NEVER_WAITS, Some(ipproto::TCP))
}

/// What controls the congestion of a connection within the machine, where there is none. Default `reno`, which every Linux has and everybody may choose: it costs least. Others, BBR above all, pace each
/// segment by a timer.
const WITHIN: &str = "reno";

/// Small frames leave at once, and a dead machine is found out about.
pub(super) fn tune_tcp(socket: &OwnedFd) {
    let tuned = sockopt::set_tcp_nodelay(socket, true)
        .and_then(|()| sockopt::set_socket_keepalive(socket, true))
        .and_then(|()| sockopt::set_tcp_keepidle(socket, KEEP_IDLE))
        .and_then(|()| sockopt::set_tcp_keepintvl(socket, KEEP_EVERY))
        .and_then(|()| sockopt::set_tcp_keepcnt(socket, KEEP_TRIES));
    if let Err(error) = tuned {
        tracing::debug!(%error, "a TCP connection stays as the system made it");
    }
    let is_here = |end: Option<SocketAddr>| end.is_some_and(|end| end.ip().is_loopback());
    let (local, remote) = ends(socket);
    if is_here(local)
        && is_here(remote)
        && let Err(error) = sockopt::set_tcp_congestion(socket, WITHIN)
    {
        tracing::debug!(%error, "a TCP connection within the machine is paced as one over a network");
    }
}

/// Writes what fits of a message from byte `from` on.
pub(super) fn write(socket: &OwnedFd, head: &[u8], frame: &[u8], from: usize) -> Result<usize, Errno> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let (head, frame) = (&head[from.min(head.len())..], &frame[from.saturating_sub(head.len())..]);
    let mut flat = [0; SHORT];
    let flat = flat.get_mut(..head.len() + frame.len()).map(|flat| {
        let (start, rest) = flat.split_at_mut(head.len());
        start.copy_from_slice(head);
        rest.copy_from_slice(frame);
        &*flat
    });
    loop {
        let written = match flat {
            Some(flat) => rustix::net::send(socket, flat, flags),
            None => {
                let parts = [IoSlice::new(head), IoSlice::new(frame)];
                rustix::net::sendmsg(socket, &parts, &mut SendAncillaryBuffer::default(), flags)
            }
        };
        match written {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Ok(0),
            other => return other,
        }
    }
}

/// The last byte is on its way to the other side, which then reads the end.
pub(super) fn end_writing(socket: &OwnedFd) {
    // Fails only if it has ended already.
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Write);
}

/// Nothing more is said or heard.
pub(super) fn end(socket: &OwnedFd) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// Both ends of a TCP connection.
pub(super) fn ends(socket: &OwnedFd) -> (Option<SocketAddr>, Option<SocketAddr>) {
    let local = rustix::net::getsockname(socket).ok().and_then(|at| SocketAddr::try_from(at).ok());
    let remote = rustix::net::getpeername(socket).ok().flatten().and_then(|at| SocketAddr::try_from(at).ok());
    (local, remote)
}

pub(super) fn endpoint(at: SocketAddr) -> Endpoint {
    Endpoint::from(format!("tcp://{at}"))
}

/// The process at the other end of a unix socket.
pub(super) fn peer_pid(socket: &OwnedFd) -> Option<u32> {
    sockopt::socket_peercred(socket).ok().and_then(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()).ok())
}
