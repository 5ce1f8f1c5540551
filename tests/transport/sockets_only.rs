//! What only real sockets can show.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use vlmessaging::transport::{DialError, Event, ListenError, Options};
use vlmessaging::{Endpoint, Sockets};

use crate::world::{Kind, PATIENCE, World, connect_to};

macro_rules! on_sockets {
    ($($name:ident)*) => {
        #[cfg(feature = "nng")]
        mod nng { $(#[test] fn $name() { super::$name(super::Sockets::Nng); })* }
        #[cfg(feature = "sp")]
        mod sp { $(#[test] fn $name() { super::$name(super::Sockets::Sp); })* }
    };
}

on_sockets! {
    a_stale_socket_file_is_replaced
    who_listens_at_a_path_that_somebody_removed_is_reached_there_again
    another_programs_socket_in_the_place_of_ours_is_left_as_it_is
    a_file_that_is_not_a_socket_is_left_as_it_is
    a_path_where_another_program_listens_is_in_use_and_not_disturbed
    an_endpoint_that_cannot_be_is_invalid_by_name
    of_two_that_race_for_a_path_one_owns_it
    of_two_processes_that_race_for_a_path_one_owns_it
    a_killed_process_is_told_at_once
    a_tcp_port_in_use_is_refused_at_once
    port_0_becomes_the_real_one
    strangers_disturb_nobody
    a_peer_of_another_protocol_is_not_a_connection
    an_ipc_pipe_that_says_nothing_is_closed
    a_successors_socket_file_outlives_us
}

/// What a Pair1 peer says first.
const PAIR1: [u8; 8] = [0, b'S', b'P', 0, 0, 0x11, 0, 0];
/// The same of another protocol.
const PAIR0: [u8; 8] = [0, b'S', b'P', 0, 0, 0x10, 0, 0];

fn path_of(at: &Endpoint) -> &std::path::Path {
    std::path::Path::new(at.rest())
}

#[cfg(feature = "nng")]
#[test]
fn the_library_is_the_one_that_was_tested() {
    let version = vlmessaging::transport::nng::library_version();
    assert!(version.starts_with("1.12."), "{version}");
}

fn a_stale_socket_file_is_replaced(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let at = world.fresh();
    drop(UnixListener::bind(path_of(&at)).unwrap());
    let (a, b) = (world.peer(), world.peer());
    let pipe = a.dial(&at);
    assert_eq!(a.next(), Event::DialFailed { pipe, error: DialError::Refused });
    b.transport().listen(&at).unwrap();
    connect_to(&a, &b, &at);
}

fn a_file_that_is_not_a_socket_is_left_as_it_is(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let at = world.fresh();
    std::fs::write(path_of(&at), "precious").unwrap();
    let refused = world.peer().transport().listen(&at);
    assert!(matches!(refused, Err(ListenError::NotASocket { at: which }) if which == at));
    assert_eq!(std::fs::read(path_of(&at)).unwrap(), b"precious");
    std::fs::remove_file(path_of(&at)).unwrap();
}

fn who_listens_at_a_path_that_somebody_removed_is_reached_there_again(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let at = world.fresh();
    let (a, b) = (world.peer(), world.peer());
    b.transport().listen(&at).unwrap();
    b.transport().mend();
    let (there, here) = connect_to(&a, &b, &at);
    a.send(there, b"hello");
    assert_eq!(&b.received(here)[..], b"hello");
    let lock = format!("{}.lock", at.rest());
    for is_all in [false, true, false] {
        std::fs::remove_file(path_of(&at)).unwrap();
        if is_all {
            std::fs::remove_file(&lock).unwrap();
        }
        b.transport().mend();
        connect_to(&a, &b, &at);
        let refused = a.transport().listen(&at);
        assert!(matches!(refused, Err(ListenError::InUse { .. })), "it still has one owner");
    }
    a.send(there, b"still here");
    assert_eq!(&b.received(here)[..], b"still here");
}

fn another_programs_socket_in_the_place_of_ours_is_left_as_it_is(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let at = world.fresh();
    let peer = world.peer();
    peer.transport().listen(&at).unwrap();
    std::fs::remove_file(path_of(&at)).unwrap();
    let other = UnixListener::bind(path_of(&at)).unwrap();
    peer.transport().mend();
    peer.transport().shutdown(Duration::ZERO);
    UnixStream::connect(path_of(&at)).unwrap();
    other.accept().unwrap();
    std::fs::remove_file(path_of(&at)).unwrap();
}

fn a_path_where_another_program_listens_is_in_use_and_not_disturbed(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let at = world.fresh();
    let other = UnixListener::bind(path_of(&at)).unwrap();
    let refused = world.peer().transport().listen(&at);
    assert!(matches!(refused, Err(ListenError::InUse { .. })));
    other.set_nonblocking(true).unwrap();
    assert!(other.accept().is_err(), "it was not even connected to");
    std::fs::remove_file(path_of(&at)).unwrap();
}

fn an_endpoint_that_cannot_be_is_invalid_by_name(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let peer = world.peer();
    let long = format!("ipc:///tmp/{}", "x".repeat(200));
    for (text, said) in [
        (long.as_str(), "205 bytes"),
        ("ipc:///tmp/no/such/folder/r", "/tmp/no/such/folder"),
        ("ipc://relative", "begin with /"),
        ("tcp://127.0.0.1", "host:port"),
        ("tcp://127.0.0.1:99999", "65535"),
    ] {
        let error = peer.transport().listen(&Endpoint::from(text)).unwrap_err();
        assert!(matches!(&error, ListenError::Invalid { reason, .. } if reason.contains(said)), "{error}");
    }
    let pipe = peer.dial(&Endpoint::from(long.as_str()));
    let told = peer.next();
    assert!(matches!(told, Event::DialFailed { pipe: which, error: DialError::Invalid(_) } if which == pipe));
}

fn of_two_that_race_for_a_path_one_owns_it(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    for round in 0..40 {
        let at = world.fresh();
        if round % 2 == 0 {
            drop(UnixListener::bind(path_of(&at)).unwrap()); // Stale: where nng alone goes wrong.
        }
        let (a, b) = (world.peer(), world.peer());
        let line = Barrier::new(2);
        let owners = std::thread::scope(|scope| {
            let racers = [&a, &b].map(|peer| {
                let (at, line) = (&at, &line);
                scope.spawn(move || {
                    line.wait();
                    peer.transport().listen(at).is_ok()
                })
            });
            racers.map(|racer| racer.join().unwrap())
        });
        assert_ne!(owners[0], owners[1], "round {round}");
        let owner = if owners[0] { &a } else { &b };
        connect_to(&world.peer(), owner, &at);
    }
}

fn of_two_processes_that_race_for_a_path_one_owns_it(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    for round in 0..5 {
        let at = world.fresh();
        drop(UnixListener::bind(path_of(&at)).unwrap());
        let mut racers: Vec<_> = (0..3).map(|_| child(sockets, &at)).collect();
        let said: Vec<String> = racers.iter_mut().map(first_line).collect();
        assert_eq!(said.iter().filter(|said| *said == "listening").count(), 1, "round {round}: {said:?}");
        for racer in &mut racers {
            racer.kill().unwrap();
            racer.wait().unwrap();
        }
        // A killed process leaves its files; the next owner takes them over.
        let (a, b) = (world.peer(), world.peer());
        b.transport().listen(&at).unwrap();
        connect_to(&a, &b, &at);
    }
}

fn a_killed_process_is_told_at_once(sockets: Sockets) {
    if let Ok(at) = std::env::var("VLM_AT") {
        return the_other_process(sockets, &Endpoint::from(at));
    }
    let world = World::with(sockets, Kind::Ipc);
    let (a, at) = (world.peer(), world.fresh());
    let mut process = child(sockets, &at);
    assert_eq!(first_line(&mut process), "listening");
    let pipe = a.dial(&at);
    let Event::Opened { pid, .. } = a.next() else {
        panic!("not opened");
    };
    assert_eq!(pid, Some(process.id()));
    a.send(pipe, b"x");
    process.kill().unwrap();
    let began = Instant::now();
    a.closed(pipe);
    assert!(began.elapsed() < Duration::from_millis(500), "took {:?}", began.elapsed());
    process.wait().unwrap();
    let again = a.dial(&at);
    assert_eq!(a.next(), Event::DialFailed { pipe: again, error: DialError::Refused });
    world.peer().transport().listen(&at).unwrap();
}

fn a_tcp_port_in_use_is_refused_at_once(sockets: Sockets) {
    let world = World::with(sockets, Kind::Tcp);
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Endpoint::from(format!("tcp://{}", other.local_addr().unwrap()));
    let began = Instant::now();
    let refused = world.peer().transport().listen(&at);
    assert!(matches!(refused, Err(ListenError::InUse { at: which }) if which == at));
    assert!(began.elapsed() < Duration::from_millis(500));
}

fn port_0_becomes_the_real_one(sockets: Sockets) {
    let world = World::with(sockets, Kind::Tcp);
    let (a, b) = (world.peer(), world.peer());
    let at = b.transport().listen(&Endpoint::from("tcp://127.0.0.1:0")).unwrap();
    assert!(!at.as_str().ends_with(":0"));
    connect_to(&a, &b, &at);
}

fn strangers_disturb_nobody(sockets: Sockets) {
    for kind in [Kind::Ipc, Kind::Tcp] {
        let world = World::with(sockets, kind);
        let (a, b) = (world.peer(), world.peer());
        let at = b.listen();
        let (there, here) = connect_to(&a, &b, &at);
        for _ in 0..20 {
            for words in [&b""[..], &PAIR0, b"GET / HTTP/1.1\r\n\r\n", &PAIR1[..5]] {
                let mut stranger = Stranger::come(&at);
                stranger.say(words);
            }
        }
        let mut nonsense = Stranger::come(&at);
        nonsense.say(&PAIR1);
        b.opened();
        nonsense.say(&[0xff; 64]);
        nonsense.is_hung_up_on();
        a.send(there, b"still here");
        assert_eq!(b.received(here)[..], *b"still here");
        connect_to(&world.peer(), &b, &at);
    }
}

fn a_peer_of_another_protocol_is_not_a_connection(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let at = world.fresh();
    let other = UnixListener::bind(path_of(&at)).unwrap();
    let a = world.peer();
    let pipe = a.dial(&at);
    let (mut stream, _) = other.accept().unwrap();
    stream.write_all(&PAIR0).unwrap();
    let told = a.next();
    assert!(
        matches!(told, Event::DialFailed { pipe: which, error: DialError::System(_) } if which == pipe),
        "{told:?}"
    );
    std::fs::remove_file(path_of(&at)).unwrap();
}

fn an_ipc_pipe_that_says_nothing_is_closed(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let options = Options { silent_limit: Duration::from_millis(700), ..Options::default() };
    let (talker, mute, b) = (world.peer(), world.peer(), world.peer_with(options));
    let at = b.listen();
    let (said, heard) = connect_to(&talker, &b, &at);
    talker.send(said, b"hello");
    let (silent, came) = connect_to(&mute, &b, &at);
    b.closed(came);
    mute.closed(silent);
    assert_eq!(b.received(heard)[..], *b"hello");
    talker.send(said, b"and again");
    assert_eq!(b.received(heard)[..], *b"and again");
}

/// It comes while nobody else is there, and whoever looks after the time sleeps.
#[cfg(feature = "sp")]
#[test]
fn the_only_peer_that_says_nothing_is_hung_up_on_by_an_arbiter_too() {
    let world = World::on_an_arbiter(Sockets::Sp, Kind::Ipc);
    for _ in 0..100 {
        let b = world.peer_with(Options { silent_limit: Duration::from_millis(1), ..Options::default() });
        let mut mute = Stranger::come(&b.listen());
        mute.say(&PAIR1);
        mute.is_hung_up_on();
    }
}

fn a_successors_socket_file_outlives_us(sockets: Sockets) {
    let world = World::with(sockets, Kind::Ipc);
    let b = world.peer();
    let at = b.listen();
    std::fs::remove_file(path_of(&at)).unwrap();
    let successor = UnixListener::bind(path_of(&at)).unwrap();
    b.transport().shutdown(Duration::from_millis(200));
    successor.set_nonblocking(true).unwrap();
    let _visitor = UnixStream::connect(path_of(&at)).unwrap();
    assert!(successor.accept().is_ok());
    std::fs::remove_file(path_of(&at)).unwrap();
}

/// A connection by hand.
enum Stranger {
    Ipc(UnixStream),
    Tcp(TcpStream),
}

impl Stranger {
    fn come(to: &Endpoint) -> Self {
        match to.as_str().strip_prefix("ipc://") {
            Some(path) => Self::Ipc(UnixStream::connect(path).unwrap()),
            None => Self::Tcp(TcpStream::connect(to.rest()).unwrap()),
        }
    }

    fn say(&mut self, words: &[u8]) {
        // Being hung up on in the middle is what may happen to a stranger.
        let _ = match self {
            Self::Ipc(stream) => stream.write_all(words),
            Self::Tcp(stream) => stream.write_all(words),
        };
    }

    fn is_hung_up_on(&mut self) {
        let mut rest = Vec::new();
        let read = match self {
            Self::Ipc(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.read_to_end(&mut rest)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.read_to_end(&mut rest)
            }
        };
        let timed_out = read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out);
    }
}

/// This test program once more, as [`the_other_process`].
fn child(sockets: Sockets, at: &Endpoint) -> std::process::Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("sockets_only::{sockets}::a_killed_process_is_told_at_once"), "--nocapture"])
        .env("VLM_AT", at.as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What it said on its error output, where the test harness is silent.
fn first_line(child: &mut std::process::Child) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    let out = child.stderr.as_mut().unwrap();
    while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// Listens, says so on its error output, and stays until it is killed or its parent goes.
fn the_other_process(sockets: Sockets, at: &Endpoint) {
    let transport = sockets.start(std::sync::Arc::new(|_| ()), Options::default()).unwrap();
    let said = match transport.listen(at) {
        Ok(_) => "listening\n".to_owned(),
        Err(error) => format!("{error}\n"),
    };
    std::io::stderr().write_all(said.as_bytes()).unwrap();
    drop(std::io::stdin().read_to_end(&mut Vec::new()));
}
