//! A bare socket, unix or TCP, whose writer coalesces: what the machine can do without any protocol. A frame is its length, its kind, and the body.

use std::io::{BufReader, BufWriter, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Instant;

use crate::kid::{Kid, serve};
use crate::load::{Load, Outcome, PATIENCE, Tally, WARM_UP, body, number_of, of_answers, of_round_trips, share};

const QUESTION: u8 = b'Q';
const ONE_WAY: u8 = b'E';
/// Bytes that are written at once. As much as a frame of the library holds.
const BUFFER: usize = 64 << 10;

type Reader = BufReader<Box<dyn Read + Send>>;
type Writer = BufWriter<Box<dyn Write + Send>>;

pub(crate) struct Client {
    pub(crate) server: Kid,
    writer: Writer,
    reader: Reader,
}

impl Client {
    /// Over tcp, or else a unix socket.
    pub(crate) fn start(over: &str, folder: &str) -> Self {
        let at = if over.starts_with("tcp") { "127.0.0.1:0".to_owned() } else { format!("{folder}/unix") };
        let server = Kid::start(&["@server", "bare", &at]);
        let at = server.ready();
        let (reader, writer) = if at.starts_with('/') {
            let stream = UnixStream::connect(at).expect("a unix socket");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            of_unix(stream)
        } else {
            let stream = TcpStream::connect(at).expect("a tcp socket");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            of_tcp(stream)
        };
        Self { server, writer, reader }
    }

    pub(crate) fn warm_up(&mut self) {
        assert!((0..WARM_UP).all(|number| self.ask(&body(number, 64))), "the socket answers");
    }

    pub(crate) fn run(&mut self, load: Load) -> Outcome {
        match load {
            Load::Sequential { count } => self.sequential(count),
            Load::Outstanding { count, window } => self.outstanding(count, window),
            Load::Together { count, senders } => {
                self.one_way(count, (0..senders).flat_map(|sender| share(count, senders, sender)))
            }
            Load::Stream { count, size } => self.one_way(count, (0..count).map(|number| body(number, size))),
        }
    }

    fn one_way(&mut self, count: usize, bodies: impl Iterator<Item = String>) -> Outcome {
        bodies.for_each(|body| write(&mut self.writer, ONE_WAY, &body));
        self.writer.flush().expect("the server reads");
        let told = self.server.ask(&format!("wait {count}"), PATIENCE).expect("the server counts");
        serde_json::from_str(&told).expect("an outcome")
    }

    fn ask(&mut self, body: &str) -> bool {
        write(&mut self.writer, QUESTION, body);
        self.writer.flush().expect("the server reads");
        read(&mut self.reader).is_some_and(|(_, answer)| answer == body)
    }

    fn sequential(&mut self, count: usize) -> Outcome {
        let mut nanos = Vec::with_capacity(count);
        let began = Instant::now();
        for number in 0..count {
            let (body, asked) = (body(number, 64), Instant::now());
            if !self.ask(&body) {
                break;
            }
            nanos.push(u64::try_from(asked.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        of_round_trips(nanos, count, began.elapsed().as_secs_f64())
    }

    fn outstanding(&mut self, count: usize, window: usize) -> Outcome {
        let (mut asked, mut good) = (0, 0);
        let began = Instant::now();
        while good < count {
            // Half a window at once: the other half is being answered meanwhile.
            if asked - good <= window / 2 {
                while asked < count && asked - good < window {
                    write(&mut self.writer, QUESTION, &body(asked, 64));
                    asked += 1;
                }
                self.writer.flush().expect("the server reads");
            }
            match read(&mut self.reader) {
                Some((_, answer)) if number_of(&answer).is_some() => good += 1,
                _ => break,
            }
        }
        of_answers(good, count, began.elapsed().as_secs_f64())
    }
}

/// The other process: answers questions, when there is nothing more to read, and counts the rest. It listens at a path or an address.
pub(crate) fn server(words: &[&str]) {
    let [at] = *words else { panic!("a path or an address") };
    let tally = Arc::new(Tally::default());
    let counted = tally.clone();
    if at.starts_with('/') {
        let listener = UnixListener::bind(at).expect("a unix socket");
        std::thread::spawn(move || answer(of_unix(listener.accept().expect("a client").0), &counted));
        serve(at, &tally);
    }
    let listener = TcpListener::bind(at).expect("a tcp socket");
    let at = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || answer(of_tcp(listener.accept().expect("a client").0), &counted));
    serve(&at, &tally);
}

fn answer((mut reader, mut writer): (Reader, Writer), tally: &Tally) {
    while let Some((kind, text)) = read(&mut reader) {
        match kind {
            QUESTION => write(&mut writer, QUESTION, &text),
            _ => tally.arrived(&text),
        }
        if reader.buffer().is_empty() && writer.flush().is_err() {
            return;
        }
    }
}

fn of_unix(stream: UnixStream) -> (Reader, Writer) {
    let other = stream.try_clone().expect("another handle");
    (BufReader::with_capacity(BUFFER, Box::new(other)), BufWriter::with_capacity(BUFFER, Box::new(stream)))
}

fn of_tcp(stream: TcpStream) -> (Reader, Writer) {
    stream.set_nodelay(true).expect("an option");
    let other = stream.try_clone().expect("another handle");
    (BufReader::with_capacity(BUFFER, Box::new(other)), BufWriter::with_capacity(BUFFER, Box::new(stream)))
}

fn write(writer: &mut impl Write, kind: u8, body: &str) {
    let length = u32::try_from(body.len()).expect("a small body").to_le_bytes();
    let written = writer
        .write_all(&length)
        .and_then(|()| writer.write_all(&[kind]))
        .and_then(|()| writer.write_all(body.as_bytes()));
    written.expect("the other side reads");
}

/// None at the end.
fn read(reader: &mut impl Read) -> Option<(u8, String)> {
    let mut head = [0; 5];
    reader.read_exact(&mut head).ok()?;
    let [length @ .., kind] = head;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    reader.read_exact(&mut body).ok()?;
    Some((kind, String::from_utf8(body).ok()?))
}
