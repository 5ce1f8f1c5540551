//! The socket protocol by hand, as a peer that has no library speaks it, or fails to.
//!
//! Each side says `00 53 50 00 00 11 00 00`. A message is its length in 8 bytes (over ipc after a byte `01`), a header of 4 bytes, and the frame.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};

use bytes::Bytes;
use vlmessaging::wire::{self, Encoded, Envelope, Profile};
use vlmessaging::{Addr, Endpoint, Scheme};

pub(crate) const HANDSHAKE: [u8; 8] = [0, 0x53, 0x50, 0, 0, 0x11, 0, 0];
const HEADER: [u8; 4] = [0, 0, 0, 1];

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One connection.
pub(crate) struct Sp {
    stream: Box<dyn Stream>,
    ipc: bool,
}

impl Sp {
    /// Connects and says nothing.
    pub(crate) fn mute(to: &Endpoint) -> Self {
        match to.scheme() {
            Scheme::Tcp => Self::over_tcp(TcpStream::connect(to.rest()).unwrap()),
            _ => Self::over(UnixStream::connect(to.rest()).unwrap()),
        }
    }

    /// Connects and shakes hands.
    pub(crate) fn dial(to: &Endpoint) -> Self {
        let mut sp = Self::mute(to);
        sp.shake_hands();
        sp
    }

    /// Takes the next connection at a path and shakes hands.
    pub(crate) fn accept(listener: &UnixListener) -> Self {
        let mut sp = Self::over(listener.accept().unwrap().0);
        sp.shake_hands();
        sp
    }

    /// The same at a port.
    pub(crate) fn accept_tcp(listener: &TcpListener) -> Self {
        let mut sp = Self::over_tcp(listener.accept().unwrap().0);
        sp.shake_hands();
        sp
    }

    fn over_tcp(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(super::LONG)).unwrap();
        Self { stream: Box::new(stream), ipc: false }
    }

    fn over(stream: UnixStream) -> Self {
        stream.set_read_timeout(Some(super::LONG)).unwrap();
        Self { stream: Box::new(stream), ipc: true }
    }

    fn shake_hands(&mut self) {
        self.write(&HANDSHAKE);
        let mut said = [0; 8];
        self.stream.read_exact(&mut said).unwrap();
        assert_eq!(said, HANDSHAKE);
    }

    /// Bytes as they are. The other side may have had enough: that is its right.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// The beginning of a message that claims so many bytes.
    pub(crate) fn claim(&mut self, length: u64) {
        let kind: &[u8] = if self.ipc { &[1] } else { &[] };
        self.write(&[kind, &length.to_be_bytes()].concat());
    }

    /// One frame.
    pub(crate) fn send(&mut self, frame: &[u8]) {
        let kind: &[u8] = if self.ipc { &[1] } else { &[] };
        let length = (frame.len() + HEADER.len()) as u64;
        self.write(&[kind, &length.to_be_bytes(), &HEADER, frame].concat());
    }

    /// The next frame; none if the other side ended the connection.
    pub(crate) fn receive(&mut self) -> Option<Bytes> {
        let mut head = [0; 9];
        let head = &mut head[usize::from(!self.ipc)..];
        self.stream.read_exact(head).ok()?;
        let length = u64::from_be_bytes(head[head.len() - 8..].try_into().unwrap());
        let mut body = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut body).ok()?;
        Some(Bytes::from(body).slice(HEADER.len()..))
    }

    /// The next message that is no hello.
    pub(crate) fn receive_message(&mut self) -> Option<Envelope> {
        loop {
            let envelope = wire::read_message(&self.receive()?, Profile::Rust).unwrap();
            if envelope.subject != "SET_ROUTE_BACK_TO_ME" {
                return Some(envelope);
            }
        }
    }

    /// Waits until the other side ends the connection.
    pub(crate) fn is_ended(&mut self) -> bool {
        let mut rest = Vec::new();
        !matches!(self.stream.read_to_end(&mut rest), Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut))
    }
}

/// A socket where somebody answers the phone and says nothing more.
pub(crate) fn listen(at: &Endpoint) -> UnixListener {
    UnixListener::bind(at.rest()).unwrap()
}

/// A message as one frame.
pub(crate) fn frame(envelope: &Envelope) -> Vec<u8> {
    let mut frame = Vec::new();
    wire::write_message(envelope, &mut frame);
    frame
}

/// A message without contents.
pub(crate) fn message(from: Addr, to: Addr, subject: &str) -> Envelope {
    Envelope {
        from,
        to,
        subject: subject.into(),
        id: Some(5),
        reply_to: None,
        contents: Encoded::null(),
        meta: Encoded::empty_struct(),
    }
}

/// A hello that claims an endpoint, with what else it says in `meta`.
pub(crate) fn hello(claimed: &str, meta: Encoded) -> Vec<u8> {
    let hello = message(Addr::default(), Addr::local(0), "SET_ROUTE_BACK_TO_ME");
    frame(&Envelope { id: None, contents: wire::encode(&claimed).unwrap(), meta, ..hello })
}
