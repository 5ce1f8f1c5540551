//! The only unsafe code of the transport: nng's C functions behind owned, typed handles.
//!
//! What makes them sound to use from safe code:
//! - nng names sockets, pipes, dialers and listeners by numbers that it looks up on each call; a number whose object is gone
//!   gives an error, never a wild access.
//! - A callback's context is a box that is freed only after the object that calls it is: the socket is closed, the aio freed.
//!   Both wait for running callbacks, so neither may happen inside one: that is what [`Aio`]'s drop and [`Socket::close`] see to.

use std::ffi::{CStr, CString};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::raw::{c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::time::Duration;

// Links the C library; the `nng_sys` declarations are resolved from it.
use nng_c_sys as _;
use nng_sys as c;
use parking_lot::RwLock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// An nng error code; shown in nng's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) c_int);

/// What nng tells about a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PipeEvent {
    /// Connected; may still be turned away.
    Adding,
    /// Taken into the socket: frames flow.
    Added,
    /// Ended, or turned away.
    Gone,
}

/// nng's name of a pipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RawPipe(pub(super) c_int);

/// Is called from nng's threads; must call nothing of nng's.
pub(super) type Notify = Box<dyn Fn(PipeEvent, RawPipe) + Send + Sync>;

/// Is called from nng's threads when an operation ended, with the message if there is one.
pub(super) type Done = Box<dyn Fn(Result<(), Code>, Option<Msg>) + Send + Sync>;

/// An open socket. It stays open until [`Socket::close`]: dropping it leaves it behind on purpose.
pub(super) struct Socket {
    raw: c::nng_socket,
    notify: *mut Notify,
    /// Whether it was closed. Read-locked while an operation is started: one that starts while nng closes the socket may be left in
    /// the closed socket's list and stopped through a wild pointer (a panic within minutes of churn).
    closed: RwLock<bool>,
}

/// A listener of a socket, closed with it.
pub(super) struct Listener(c::nng_listener);

/// One operation at a time on a socket, without a thread waiting for it.
pub(super) struct Aio {
    slot: *mut Slot,
}

/// A message of nng's.
pub(super) struct Msg(*mut c::nng_msg);

struct Slot {
    aio: AtomicPtr<c::nng_aio>,
    done: Done,
}

unsafe extern "C" {
    // In the library since 1.9, not in the declarations of `nng_sys`, which are older.
    fn nng_init_set_parameter(parameter: c_int, value: u64);
}

// The numbers of nng.h.
const NUM_TASK_THREADS: c_int = 1;
const NUM_EXPIRE_THREADS: c_int = 2;
const NUM_RESOLVER_THREADS: c_int = 4;

// SAFETY: `raw` is a number, `notify` is only read by nng and freed by the one `close`; what it points to is Send + Sync.
unsafe impl Send for Socket {}
// SAFETY: as above; every nng call on a socket may come from any thread.
unsafe impl Sync for Socket {}
// SAFETY: nng allows an aio's functions from any thread, and its owner starts one operation at a time; `Done` is Send + Sync.
unsafe impl Send for Aio {}
// SAFETY: as above.
unsafe impl Sync for Aio {}
// SAFETY: a message has no ties to a thread, and is only read once it is shared.
unsafe impl Send for Msg {}
// SAFETY: as above.
unsafe impl Sync for Msg {}

/// Sets nng's thread counts. Only the first call does anything, and only before the first socket of the process.
pub(super) fn start_small() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tasks = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4)) as u64;
        for (parameter, value) in [(NUM_TASK_THREADS, tasks), (NUM_EXPIRE_THREADS, 1), (NUM_RESOLVER_THREADS, 1)] {
            // SAFETY: takes numbers; `Once` keeps other threads out, and nng ignores it when it already runs.
            unsafe { nng_init_set_parameter(parameter, value) };
        }
    });
}

/// The version of the C library that is linked.
pub(super) fn version() -> String {
    // SAFETY: returns a pointer to a constant text.
    unsafe { CStr::from_ptr(c::nng_version()) }.to_string_lossy().into_owned()
}

impl Socket {
    /// A Pair1 socket for any number of peers (`poly`) or for one. `notify` hears of its pipes.
    pub(super) fn open(poly: bool, notify: Notify) -> Result<Self, Code> {
        start_small();
        let mut raw = c::nng_socket::default();
        // SAFETY: `raw` is a valid place for the result.
        check(unsafe { if poly { c::nng_pair1_open_poly(&raw mut raw) } else { c::nng_pair1_open(&raw mut raw) } })?;
        let notify = Box::into_raw(Box::new(notify));
        for event in [c::NNG_PIPE_EV_ADD_PRE, c::NNG_PIPE_EV_ADD_POST, c::NNG_PIPE_EV_REM_POST] {
            // SAFETY: the callback has the right type, and `notify` lives until the socket is closed.
            unsafe { c::nng_pipe_notify(raw, event, Some(on_pipe), notify.cast()) };
        }
        Ok(Self { raw, notify, closed: RwLock::new(false) })
    }

    /// Limits received messages to `bytes`; holds for what is dialed or listened at afterwards.
    pub(super) fn limit_received(&self, bytes: usize) -> Result<(), Code> {
        // SAFETY: the name is a C text.
        check(unsafe { c::nng_socket_set_size(self.raw, name(c::NNG_OPT_RECVMAXSZ), bytes) })
    }

    /// Puts nng's own reconnecting off by up to 24 days; holds for what is dialed afterwards.
    pub(super) fn never_reconnect(&self) -> Result<(), Code> {
        for option in [c::NNG_OPT_RECONNMINT, c::NNG_OPT_RECONNMAXT] {
            // SAFETY: the name is a C text.
            check(unsafe { c::nng_socket_set_ms(self.raw, option.as_ptr().cast(), i32::MAX) })?;
        }
        Ok(())
    }

    /// Sends small frames over TCP at once; holds for what is dialed or listened at afterwards.
    pub(super) fn no_delay(&self) -> Result<(), Code> {
        // SAFETY: the name is a C text.
        check(unsafe { c::nng_socket_set_bool(self.raw, name(c::NNG_OPT_TCP_NODELAY), true) })
    }

    /// Connects to `url`; waits until that worked or failed, or the socket is closed.
    pub(super) fn dial_blocking(&self, url: &str) -> Result<(), Code> {
        let url = c_text(url)?;
        let mut dialer = c::nng_dialer::default();
        // SAFETY: `dialer` is a valid place, `url` a C text that nng copies.
        check(unsafe { c::nng_dialer_create(&raw mut dialer, self.raw, url.as_ptr()) })?;
        // SAFETY: takes a number.
        check(unsafe { c::nng_dialer_start(dialer, 0) })
    }

    /// A listener at `url` that does not listen yet.
    pub(super) fn listener(&self, url: &str) -> Result<Listener, Code> {
        let url = c_text(url)?;
        let mut listener = c::nng_listener::default();
        // SAFETY: `listener` is a valid place, `url` a C text that nng copies.
        check(unsafe { c::nng_listener_create(&raw mut listener, self.raw, url.as_ptr()) })?;
        Ok(Listener(listener))
    }

    /// Starts to receive one message; a closed socket does nothing.
    pub(super) fn receive(&self, aio: &Aio) {
        let closed = self.closed.read();
        if !*closed {
            // SAFETY: the aio lives, and its owner starts one operation at a time.
            unsafe { c::nng_recv_aio(self.raw, aio.raw()) };
        }
    }

    /// Starts to send one message; one that fails is freed, as by a closed socket.
    pub(super) fn send(&self, aio: &Aio, msg: Msg) {
        let closed = self.closed.read();
        if !*closed {
            // SAFETY: as for `receive`; the message's ownership goes to the aio, and `on_done` takes back what was not sent.
            unsafe {
                c::nng_aio_set_msg(aio.raw(), msg.into_raw());
                c::nng_send_aio(self.raw, aio.raw());
            }
        }
    }

    /// Whether a message waits to be received, so that nothing is being read from the peer.
    pub(super) fn is_parked(&self) -> bool {
        self.is_raised(c::NNG_OPT_RECVFD)
    }

    /// Whether the last message was written out whole.
    pub(super) fn is_written(&self) -> bool {
        self.is_raised(c::NNG_OPT_SENDFD)
    }

    fn is_raised(&self, option: &[u8]) -> bool {
        let mut fd: c_int = -1;
        // SAFETY: the name is a C text, `fd` a valid place.
        if unsafe { c::nng_socket_get_int(self.raw, name(option), &raw mut fd) } != 0 || fd < 0 {
            return false;
        }
        // SAFETY: the descriptor is the socket's own and is closed with it; the caller keeps the socket open meanwhile.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Closes it and waits until its pipes are gone. Never from a callback. Only the first call does anything.
    pub(super) fn close(&self) {
        if std::mem::replace(&mut *self.closed.write(), true) {
            return;
        }
        // SAFETY: takes a number. After it returned no pipe is left, so nobody calls `notify` any more; the flag makes this the only free.
        unsafe {
            c::nng_close(self.raw);
            drop(Box::from_raw(self.notify));
        }
    }
}

impl Listener {
    /// nng's name of it.
    pub(super) fn id(&self) -> c_int {
        // SAFETY: takes a number.
        unsafe { c::nng_listener_id(self.0) }
    }

    /// Listens, until the socket is closed; gives the port if it is TCP. One that cannot is removed.
    pub(super) fn start(&self) -> Result<Option<u16>, Code> {
        // SAFETY: takes a number.
        if let Err(code) = check(unsafe { c::nng_listener_start(self.0, 0) }) {
            // SAFETY: takes a number.
            unsafe { c::nng_listener_close(self.0) };
            return Err(code);
        }
        let mut port: c_int = 0;
        // SAFETY: the name is a C text, `port` a valid place.
        let known = unsafe { c::nng_listener_get_int(self.0, name(c::NNG_OPT_TCP_BOUND_PORT), &raw mut port) };
        Ok((known == 0).then(|| u16::try_from(port).ok()).flatten())
    }
}

impl RawPipe {
    /// Ends the pipe; does not wait.
    pub(super) fn close(self) {
        // SAFETY: takes a number.
        unsafe { c::nng_pipe_close(self.c()) };
    }

    /// nng's name of the listener that it came to.
    pub(super) fn listener(self) -> c_int {
        // SAFETY: takes and returns numbers.
        unsafe { c::nng_listener_id(c::nng_pipe_listener(self.c())) }
    }

    /// The process at the other end of an ipc pipe.
    pub(super) fn peer_pid(self) -> Option<u32> {
        let mut pid = 0;
        // SAFETY: the name is a C text, `pid` a valid place.
        let code = unsafe { c::nng_pipe_get_uint64(self.c(), name(c::NNG_OPT_IPC_PEER_PID), &raw mut pid) };
        (code == 0).then(|| u32::try_from(pid).ok()).flatten()
    }

    /// This end of a TCP pipe.
    pub(super) fn local(self) -> Option<SocketAddr> {
        self.address(c::NNG_OPT_LOCADDR)
    }

    /// The other end of a TCP pipe.
    pub(super) fn remote(self) -> Option<SocketAddr> {
        self.address(c::NNG_OPT_REMADDR)
    }

    fn address(self, option: &[u8]) -> Option<SocketAddr> {
        let mut address = c::nng_sockaddr::default();
        // SAFETY: the name is a C text, `address` a valid place.
        if unsafe { c::nng_pipe_get_addr(self.c(), name(option), &raw mut address) } != 0 {
            return None;
        }
        // SAFETY: the union was zeroed and then filled by nng; the family says which part of it holds, and every bit pattern is valid.
        unsafe {
            if u32::from(address.s_family) == c::nng_sockaddr_family::NNG_AF_INET as u32 {
                let v4 = address.s_in;
                let ip = Ipv4Addr::from(u32::from_be(v4.sa_addr));
                return Some(SocketAddr::from((ip, u16::from_be(v4.sa_port))));
            }
            if u32::from(address.s_family) == c::nng_sockaddr_family::NNG_AF_INET6 as u32 {
                let v6 = address.s_in6;
                let ip = Ipv6Addr::from(v6.sa_addr);
                return Some(SocketAddr::from((ip, u16::from_be(v6.sa_port))));
            }
        }
        None
    }

    fn c(self) -> c::nng_pipe {
        // SAFETY: the type is one number, in C as in its declaration.
        unsafe { std::mem::transmute::<c_int, c::nng_pipe>(self.0) }
    }
}

impl Aio {
    /// `done` is called after each operation.
    pub(super) fn new(done: Done) -> Result<Self, Code> {
        start_small();
        let slot = Box::into_raw(Box::new(Slot { aio: AtomicPtr::new(ptr::null_mut()), done }));
        let mut aio = ptr::null_mut();
        // SAFETY: `aio` is a valid place; the slot lives until the aio is freed.
        let made = check(unsafe { c::nng_aio_alloc(&raw mut aio, Some(on_done), slot.cast()) });
        if let Err(code) = made {
            // SAFETY: nobody else has the pointer.
            drop(unsafe { Box::from_raw(slot) });
            return Err(code);
        }
        // SAFETY: the slot lives, see above.
        unsafe { (*slot).aio.store(aio, Ordering::Release) };
        Ok(Self { slot })
    }

    /// Ends the operation under way, if any: its callback says so.
    pub(super) fn cancel(&self) {
        // SAFETY: the aio lives as long as `self`.
        unsafe { c::nng_aio_cancel(self.raw()) };
    }

    fn raw(&self) -> *mut c::nng_aio {
        // SAFETY: the slot lives as long as `self`.
        unsafe { (*self.slot).aio.load(Ordering::Acquire) }
    }
}

/// Freeing waits for a running callback, and the last owner may be one: it is done on the closing thread.
impl Drop for Aio {
    fn drop(&mut self) {
        let doomed = Doomed(self.slot);
        super::closing::run(move || doomed.free());
    }
}

struct Doomed(*mut Slot);

// SAFETY: the only pointer left to the slot, whose parts are Send.
unsafe impl Send for Doomed {}

impl Doomed {
    fn free(self) {
        // SAFETY: stopping the aio cancels its operation and waits for its callback; after that nobody else has the slot.
        // Freeing alone would not do: one that is just being completed is then freed under nng's hands (a panic within seconds).
        unsafe {
            let aio = (*self.0).aio.load(Ordering::Acquire);
            c::nng_aio_stop(aio);
            c::nng_aio_free(aio);
            drop(Box::from_raw(self.0));
        }
    }
}

impl Msg {
    /// A message with this body.
    pub(super) fn new(body: &[u8]) -> Result<Self, Code> {
        let mut raw = ptr::null_mut();
        // SAFETY: `raw` is a valid place.
        check(unsafe { c::nng_msg_alloc(&raw mut raw, body.len()) })?;
        // SAFETY: the new message's body has `body.len()` bytes of its own.
        unsafe { ptr::copy_nonoverlapping(body.as_ptr(), c::nng_msg_body(raw).cast(), body.len()) };
        Ok(Self(raw))
    }

    /// The pipe that it came from.
    pub(super) fn pipe(&self) -> RawPipe {
        // SAFETY: the message lives; takes and returns numbers.
        RawPipe(unsafe { c::nng_pipe_id(c::nng_msg_get_pipe(self.0)) })
    }

    /// Addresses it to one pipe of a poly socket.
    pub(super) fn set_pipe(&mut self, pipe: RawPipe) {
        // SAFETY: the message lives and is ours alone.
        unsafe { c::nng_msg_set_pipe(self.0, pipe.c()) };
    }

    fn into_raw(self) -> *mut c::nng_msg {
        let raw = self.0;
        std::mem::forget(self);
        raw
    }
}

impl AsRef<[u8]> for Msg {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the message lives, and its body does not change or move once it was received.
        unsafe {
            match c::nng_msg_len(self.0) {
                0 => &[],
                len => std::slice::from_raw_parts(c::nng_msg_body(self.0).cast(), len),
            }
        }
    }
}

impl Drop for Msg {
    fn drop(&mut self) {
        // SAFETY: ours alone.
        unsafe { c::nng_msg_free(self.0) };
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: returns a C text that stays valid until the next call for an unknown code.
        let text = unsafe { CStr::from_ptr(c::nng_strerror(self.0)) };
        f.write_str(&text.to_string_lossy().to_lowercase())
    }
}

/// A panic must not run into C: it is reported and ends here.
fn guarded(what: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(what)).is_err() {
        tracing::error!("a panic in a callback of nng was caught");
    }
}

unsafe extern "C" fn on_pipe(pipe: c::nng_pipe, event: c::nng_pipe_ev, notify: *mut c_void) {
    let event = match event {
        c::NNG_PIPE_EV_ADD_PRE => PipeEvent::Adding,
        c::NNG_PIPE_EV_ADD_POST => PipeEvent::Added,
        _ => PipeEvent::Gone,
    };
    // SAFETY: takes a number; `notify` is the box of `Socket::open`, alive until after the last call.
    let (id, notify) = unsafe { (c::nng_pipe_id(pipe), &*notify.cast::<Notify>()) };
    guarded(|| notify(event, RawPipe(id)));
}

unsafe extern "C" fn on_done(slot: *mut c_void) {
    // SAFETY: the slot of `Aio::new`, alive until the aio was freed, which waits for this call.
    let slot = unsafe { &*slot.cast::<Slot>() };
    let aio = slot.aio.load(Ordering::Acquire);
    // SAFETY: inside its callback the aio lives and no operation is under way; what message it holds is ours from here.
    let (result, msg) = unsafe {
        let msg = c::nng_aio_get_msg(aio);
        c::nng_aio_set_msg(aio, ptr::null_mut());
        (check(c::nng_aio_result(aio)), msg)
    };
    let msg = (!msg.is_null()).then(|| Msg(msg));
    guarded(|| (slot.done)(result, msg));
}

/// This process's connections that came to the unix socket at `path`, of the process `pid` if one is asked for. They are nng's,
/// which does not say which is whose; what is given are duplicates, so that none is closed or becomes another meanwhile.
pub(super) fn visitors_at(path: &Path, pid: Option<u32>) -> Vec<OwnedFd> {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(duplicate).filter(|fd| came_to(fd, path) && pid.is_none_or(|pid| is_from(fd, pid))).collect()
}

/// Lets nng read what has come, and then find the end: it closes the connection itself, at the one moment when that is safe.
pub(super) fn end_after_what_came(connection: &OwnedFd) {
    // Fails only if the peer has gone already.
    let _ = rustix::net::shutdown(connection, rustix::net::Shutdown::Read);
}

fn duplicate(number: c_int) -> Option<OwnedFd> {
    // SAFETY: borrowed for one call, which fails if the number is not open (any more) and changes nothing.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    rustix::io::fcntl_dupfd_cloexec(borrowed, 0).ok()
}

fn came_to(fd: &OwnedFd, path: &Path) -> bool {
    let Ok(address) = rustix::net::getsockname(fd) else {
        return false;
    };
    let Ok(address) = rustix::net::SocketAddrUnix::try_from(address) else {
        return false;
    };
    let here = address.path_bytes() == Some(path.as_os_str().as_bytes());
    here && rustix::net::sockopt::socket_acceptconn(fd) == Ok(false)
}

fn is_from(fd: &OwnedFd, pid: u32) -> bool {
    let peer = rustix::net::sockopt::socket_peercred(fd);
    peer.is_ok_and(|peer| u32::try_from(peer.pid.as_raw_nonzero().get()) == Ok(pid))
}

fn check(code: c_int) -> Result<(), Code> {
    if code == 0 { Ok(()) } else { Err(Code(code)) }
}

fn name(option: &[u8]) -> *const std::os::raw::c_char {
    option.as_ptr().cast()
}

fn c_text(text: &str) -> Result<CString, Code> {
    CString::new(text).map_err(|_| Code(c::NNG_EADDRINVAL as c_int))
}

/// How long a close may take before it is given up; far above the milliseconds that it takes.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(5);
