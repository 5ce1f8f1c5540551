//! nng alone: callbacks receive, no codec, no actor. The first byte of a frame says whether it is a question.

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use nng::options::transport::tcp::NoDelay;
use nng::options::{Options, RecvBufferSize, SendBufferSize};
use nng::{Aio, AioResult, AioState, Message, Protocol, Socket};
use nng_sys::nng_socket;

use crate::kid::{Kid, serve};
use crate::load::{Load, Outcome, PATIENCE, Tally, WARM_UP, body, number_of, of_answers, of_round_trips, share};

const QUESTION: u8 = b'Q';
const ONE_WAY: u8 = b'E';
/// Messages in a buffered socket.
const BUFFER: i32 = 1024;

/// How the sockets of two processes are used.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As the library does: each side receives on its poly listener and sends on the plain socket that it dialed.
    TwoWays,
    /// Both ways on one plain pipe.
    OnePipe,
    /// The same with buffers.
    Buffered,
}

impl Shape {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::TwoWays => "two-ways",
            Self::OnePipe => "one-pipe",
            Self::Buffered => "buffered",
        }
    }

    fn parse(word: &str) -> Self {
        let found = [Self::TwoWays, Self::OnePipe, Self::Buffered].into_iter().find(|shape| shape.word() == word);
        found.expect("a shape")
    }
}

/// A client's sockets, and what its server says.
pub(crate) struct Client {
    pub(crate) server: Kid,
    sender: Socket,
    answers: Receiver<Message>,
    /// Kept for its callback.
    #[expect(dead_code, reason = "it ends with its handle")]
    receiving: Aio,
}

impl Client {
    /// Starts a server, and connects.
    pub(crate) fn start(shape: &str, over: &str, folder: &str) -> Self {
        let server_url = url(over, folder, "server");
        match Shape::parse(shape) {
            Shape::TwoWays => {
                let client_url = url(over, folder, "client");
                let listener = poly_listener(&client_url);
                let server = Kid::start(&["@server", "raw", shape, &server_url, &client_url]);
                server.ready();
                Self::with(server, dialer(&server_url, Shape::TwoWays), listener)
            }
            shape => {
                let server = Kid::start(&["@server", "raw", shape.word(), &server_url]);
                let sender = dialer(&server.ready(), shape);
                let receiver = sender.nng_socket();
                Self::with(server, sender, receiver)
            }
        }
    }

    fn with(server: Kid, sender: Socket, receiver: nng_socket) -> Self {
        let (got, answers) = channel();
        // The client may have ended with an answer on its way.
        let receiving = receive(receiver, move |message| drop(got.send(message)));
        Self { server, sender, answers, receiving }
    }

    pub(crate) fn run(&mut self, load: Load) -> Outcome {
        match load {
            Load::Sequential { count } => self.sequential(count),
            Load::Outstanding { count, window } => self.outstanding(count, window),
            Load::Stream { count, size } => self.stream(count, size),
            Load::Together { count, senders } => self.together(count, senders),
        }
    }

    /// Asks, and says whether the right answer came.
    pub(crate) fn ask(&self, body: &str) -> bool {
        self.send(QUESTION, body);
        self.answers.recv_timeout(PATIENCE).is_ok_and(|answer| text(&answer) == body)
    }

    fn sequential(&self, count: usize) -> Outcome {
        let mut nanos = Vec::with_capacity(count);
        let began = Instant::now();
        for number in 0..count {
            let body = body(number, 64);
            let asked = Instant::now();
            if !self.ask(&body) {
                break;
            }
            nanos.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        of_round_trips(nanos, count, began.elapsed().as_secs_f64())
    }

    fn outstanding(&self, count: usize, window: usize) -> Outcome {
        let (mut asked, mut good) = (0, 0);
        let began = Instant::now();
        while good < count {
            while asked < count && asked - good < window {
                self.send(QUESTION, &body(asked, 64));
                asked += 1;
            }
            match self.answers.recv_timeout(PATIENCE) {
                Ok(answer) if number_of(text(&answer)).is_some() => good += 1,
                _ => break,
            }
        }
        of_answers(good, count, began.elapsed().as_secs_f64())
    }

    fn stream(&mut self, count: usize, size: usize) -> Outcome {
        for number in 0..count {
            self.send(ONE_WAY, &body(number, size));
        }
        let told = self.server.ask(&format!("wait {count}"), PATIENCE).expect("the server counts");
        serde_json::from_str(&told).expect("an outcome")
    }

    fn together(&mut self, count: usize, senders: usize) -> Outcome {
        std::thread::scope(|threads| {
            for sender in 0..senders {
                let socket = self.sender.clone();
                threads.spawn(move || {
                    for body in share(count, senders, sender) {
                        socket.send(frame(ONE_WAY, &body)).expect("raw nng sends");
                    }
                });
            }
        });
        let told = self.server.ask(&format!("wait {count}"), PATIENCE).expect("the server counts");
        serde_json::from_str(&told).expect("an outcome")
    }

    pub(crate) fn warm_up(&self) {
        assert!((0..WARM_UP).all(|number| self.ask(&body(number, 64))), "raw nng answers");
    }

    fn send(&self, kind: u8, body: &str) {
        self.sender.send(frame(kind, body)).expect("raw nng sends");
    }
}

/// Dials a one-pipe server, and says whether it answers.
pub(crate) fn ask_once(url: &str) -> bool {
    let sender = dialer(url, Shape::OnePipe);
    let (got, answers) = channel();
    let _receiving = receive(sender.nng_socket(), move |message| drop(got.send(message)));
    sender.send(frame(QUESTION, "once")).is_ok() && answers.recv_timeout(PATIENCE).is_ok()
}

/// The other process: answers questions and counts the rest.
pub(crate) fn server(words: &[&str]) {
    let [shape, server_url, ref client_url @ ..] = *words else { panic!("shape and url") };
    let tally = Arc::new(Tally::default());
    let counted = tally.clone();
    let (receiver, sender);
    match Shape::parse(shape) {
        Shape::TwoWays => {
            receiver = poly_listener(server_url);
            sender = dialer(client_url[0], Shape::TwoWays);
        }
        shape => {
            sender = plain(shape);
            sender.listen(server_url).expect("raw nng listens");
            receiver = sender.nng_socket();
        }
    }
    let answering = sender.clone();
    let _receiving = receive(receiver, move |message| match message[0] {
        // A client that has ended takes no answer.
        QUESTION => drop(answering.send(frame(QUESTION, text(&message)))),
        _ => counted.arrived(text(&message)),
    });
    serve(server_url, &tally);
}

fn plain(shape: Shape) -> Socket {
    let socket = Socket::new(Protocol::Pair1).expect("a socket");
    if shape == Shape::Buffered {
        socket.set_opt::<SendBufferSize>(BUFFER).expect("a buffer");
        socket.set_opt::<RecvBufferSize>(BUFFER).expect("a buffer");
    }
    socket.set_opt::<NoDelay>(true).expect("no delay");
    socket
}

fn dialer(url: &str, shape: Shape) -> Socket {
    let socket = plain(shape);
    socket.dial(url).expect("raw nng dials");
    socket
}

/// A Pair1 socket for any number of peers; it stays open to the end of the process.
#[expect(unsafe_code, reason = "the safe crate opens no poly socket")]
fn poly_listener(url: &str) -> nng_socket {
    let mut socket = nng_socket::default();
    let address = CString::new(url).expect("an address");
    // SAFETY: a place for the result, and a C text that nng copies.
    let listens = unsafe {
        nng_sys::nng_pair1_open_poly(&raw mut socket) == 0
            && nng_sys::nng_listen(socket, address.as_ptr(), std::ptr::null_mut(), 0) == 0
    };
    assert!(listens, "raw nng listens at {url}");
    socket
}

/// Has nng's threads call `take` with each message, one at a time.
fn receive(socket: nng_socket, take: impl Fn(Message) + Send + Sync + 'static) -> Aio {
    let receiving = Aio::new(move |aio, result| {
        // An error means that the socket is closed.
        if let AioResult::Recv(Ok(message)) = result {
            take(message);
            receive_next(socket, &aio);
        }
    });
    let receiving = receiving.expect("an aio");
    receive_next(socket, &receiving);
    receiving
}

#[expect(unsafe_code, reason = "the safe crate's functions take no poly socket")]
fn receive_next(socket: nng_socket, aio: &Aio) {
    // SAFETY: no operation is under way, so the state is right and the aio free; it lives until the process ends.
    unsafe {
        aio.set_state(AioState::Receiving, Ordering::Release);
        nng_sys::nng_recv_aio(socket, aio.nng_aio());
    }
}

fn frame(kind: u8, body: &str) -> Message {
    let mut message = Message::with_capacity(body.len() + 1);
    message.push_back(&[kind]);
    message.push_back(body.as_bytes());
    message
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message[1..]).unwrap_or_default()
}

/// Where to listen: a file, or a port that was free a moment ago.
fn url(over: &str, folder: &str, who: &str) -> String {
    if over == "ipc" {
        return format!("ipc://{folder}/{who}");
    }
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|port| port.local_addr());
    format!("tcp://{}", free.expect("a free port"))
}
