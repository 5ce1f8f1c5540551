//! Bytes of one connection become frames: pure, and strict. What a peer claims costs nothing; memory grows only as bytes arrive.
//!
//! A message is (over ipc after a byte `01`) its length in 8 bytes, big-endian, counting what follows: 3 zero bytes, a hop count, and the frame.

use bytes::Bytes;

/// What each side says first: protocol 0x11, Pair1.
pub(super) const HANDSHAKE: [u8; 8] = [0, b'S', b'P', 0, 0, 0x11, 0, 0];
/// The 3 zero bytes and the hop count.
const HOPS: usize = 4;
/// Kind, length and hops.
pub(super) const LONGEST_HEAD: usize = 1 + 8 + HOPS;
/// Hops that a message may have made. 8, as nng: one with more is dropped.
const MOST_HOPS: u8 = 8;
/// Memory that is reserved at once for a frame of which only the head is here. Default 64 KiB; then as much again as there is already.
const RESERVE: usize = 64 << 10;

/// Why a connection cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("it does not speak Pair1")]
    Protocol,
    #[error("a frame of {0} bytes is longer than the limit")]
    TooLong(u64),
}

/// The receiving end of one connection.
pub(super) struct Inlet {
    ipc: bool,
    limit: usize,
    head: [u8; LONGEST_HEAD],
    have: usize,
    /// The frame being received, and the bytes it will have.
    body: Option<(Vec<u8>, usize)>,
    drops: bool,
}

/// What stands before a frame of so many bytes.
pub(super) fn head(ipc: bool, length: usize) -> ([u8; LONGEST_HEAD], usize) {
    let mut head = [0; LONGEST_HEAD];
    head[0] = 1;
    let start = usize::from(ipc);
    head[start..start + 8].copy_from_slice(&((length + HOPS) as u64).to_be_bytes());
    head[start + 8..start + 8 + HOPS].copy_from_slice(&[0, 0, 0, 1]);
    (head, start + 8 + HOPS)
}

impl Inlet {
    pub(super) fn new(ipc: bool, limit: usize) -> Self {
        Self { ipc, limit, head: [0; LONGEST_HEAD], have: 0, body: None, drops: false }
    }

    /// The frame under way, with room for more of it, where so much is missing that it is best read into its place.
    pub(super) fn place(&mut self, worth: usize) -> Option<&mut Vec<u8>> {
        let (body, whole) = self.body.as_mut().filter(|(body, whole)| whole - body.len() >= worth)?;
        grow(body, *whole);
        Some(body)
    }

    /// After bytes were read into [`place`](Self::place).
    pub(super) fn placed(&mut self, tell: &mut impl FnMut(Bytes)) -> Result<(), Fault> {
        let Some((body, whole)) = &mut self.body else { return Ok(()) };
        let beyond = if body.len() > *whole { body.split_off(*whole) } else { Vec::new() };
        self.finish(tell);
        self.take(&beyond, tell)
    }

    /// Takes what came, and tells each whole frame.
    pub(super) fn take(&mut self, mut bytes: &[u8], tell: &mut impl FnMut(Bytes)) -> Result<(), Fault> {
        while !bytes.is_empty() {
            let Some((body, whole)) = &mut self.body else {
                bytes = self.take_head(bytes, tell)?;
                continue;
            };
            let missing = *whole - body.len();
            if body.is_empty() && bytes.len() >= missing && !self.drops {
                // Most frames are whole in one read. They are copied: as a slice, a small frame that is kept would keep all of what was read.
                tell(Bytes::copy_from_slice(&bytes[..missing]));
                bytes = &bytes[missing..];
                (self.have, self.body) = (0, None);
                continue;
            }
            let part = missing.min(bytes.len());
            grow(body, *whole);
            body.extend_from_slice(&bytes[..part]);
            bytes = &bytes[part..];
            self.finish(tell);
        }
        Ok(())
    }

    /// Takes bytes of the head; the rest comes back.
    fn take_head<'a>(&mut self, bytes: &'a [u8], tell: &mut impl FnMut(Bytes)) -> Result<&'a [u8], Fault> {
        let start = usize::from(self.ipc);
        let whole = start + 8 + HOPS;
        let part = (whole - self.have).min(bytes.len());
        self.head[self.have..self.have + part].copy_from_slice(&bytes[..part]);
        self.have += part;
        if self.ipc && self.head[0] != 1 {
            return Err(Fault::Protocol);
        }
        if self.have >= start + 8 {
            let mut length = [0; 8];
            length.copy_from_slice(&self.head[start..start + 8]);
            let length = u64::from_be_bytes(length);
            let frame = length.checked_sub(HOPS as u64).ok_or(Fault::Protocol)?;
            let frame =
                usize::try_from(frame).ok().filter(|frame| *frame <= self.limit).ok_or(Fault::TooLong(length))?;
            if self.have == whole {
                let hops = &self.head[start + 8..whole];
                if hops[..3] != [0; 3] {
                    return Err(Fault::Protocol);
                }
                self.drops = hops[3] > MOST_HOPS;
                self.body = Some((Vec::new(), frame));
                if frame == 0 {
                    self.finish(tell);
                }
            }
        }
        Ok(&bytes[part..])
    }

    /// Tells the frame if it is whole.
    fn finish(&mut self, tell: &mut impl FnMut(Bytes)) {
        if let Some((body, _)) = self.body.take_if(|(body, whole)| body.len() == *whole) {
            self.have = 0;
            if !self.drops {
                tell(Bytes::from(body));
            }
        }
    }
}

fn grow(body: &mut Vec<u8>, whole: usize) {
    let room = body.capacity() - body.len();
    if room == 0 {
        body.reserve_exact(body.len().max(RESERVE).min(whole - body.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(ipc: bool, frame: &[u8]) -> Vec<u8> {
        let (head, length) = head(ipc, frame.len());
        [&head[..length], frame].concat()
    }

    fn read(ipc: bool, limit: usize, pieces: &[&[u8]]) -> (Vec<Bytes>, Result<(), Fault>) {
        let (mut inlet, mut frames) = (Inlet::new(ipc, limit), Vec::new());
        for piece in pieces {
            if let Err(fault) = inlet.take(piece, &mut |frame| frames.push(frame)) {
                return (frames, Err(fault));
            }
        }
        (frames, Ok(()))
    }

    #[test]
    fn frames_are_whole_wherever_the_bytes_are_cut() {
        let sent: Vec<Vec<u8>> = vec![vec![], vec![1], vec![2; 40], vec![], vec![3; 7]];
        for ipc in [true, false] {
            let bytes: Vec<u8> = sent.iter().flat_map(|frame| message(ipc, frame)).collect();
            for step in 1..bytes.len() {
                let pieces: Vec<&[u8]> = bytes.chunks(step).collect();
                let (frames, outcome) = read(ipc, 1000, &pieces);
                assert_eq!(
                    (frames, outcome),
                    (sent.iter().cloned().map(Bytes::from).collect(), Ok(())),
                    "cut every {step}"
                );
            }
        }
    }

    #[test]
    fn a_long_frame_is_read_into_its_place_and_what_follows_is_not_lost() {
        let (long, next) = (vec![7; 300_000], vec![8; 5]);
        let bytes = [message(true, &long), message(true, &next)].concat();
        let (mut inlet, mut frames) = (Inlet::new(true, 1 << 20), Vec::new());
        inlet.take(&bytes[..100], &mut |frame| frames.push(frame)).unwrap();
        let mut at = 100;
        while at < bytes.len() {
            let Some(body) = inlet.place(1) else { break };
            let part = (body.capacity() - body.len()).min(bytes.len() - at);
            body.extend_from_slice(&bytes[at..at + part]);
            at += part;
            inlet.placed(&mut |frame| frames.push(frame)).unwrap();
        }
        inlet.take(&bytes[at..], &mut |frame| frames.push(frame)).unwrap();
        assert_eq!(frames, [Bytes::from(long), Bytes::from(next)]);
    }

    #[test]
    fn a_claim_reserves_no_memory_beyond_a_little() {
        let mut inlet = Inlet::new(false, 1 << 40);
        let claim = [&((1_u64 << 40) + 4).to_be_bytes()[..], &[0, 0, 0, 1], b"x"].concat();
        inlet.take(&claim, &mut |_| panic!("not whole")).unwrap();
        assert!(inlet.place(1).unwrap().capacity() <= RESERVE + 1);
    }

    #[test]
    fn what_is_no_message_ends_it() {
        assert_eq!(read(true, 1000, &[&[2]]).1, Err(Fault::Protocol));
        assert_eq!(read(false, 1000, &[&3_u64.to_be_bytes()]).1, Err(Fault::Protocol));
        assert_eq!(read(false, 1000, &[&1005_u64.to_be_bytes()]).1, Err(Fault::TooLong(1005)));
        assert_eq!(read(false, 1000, &[&[0xff; 8]]).1, Err(Fault::TooLong(u64::MAX)));
        assert_eq!(read(false, 1000, &[&5_u64.to_be_bytes(), &[0, 0, 1, 1]]).1, Err(Fault::Protocol));
    }

    #[test]
    fn a_message_that_made_too_many_hops_is_dropped_alone() {
        let far = [&5_u64.to_be_bytes()[..], &[0, 0, 0, 9], b"x"].concat();
        let (frames, outcome) = read(false, 1000, &[&far, &message(false, b"y")]);
        assert_eq!((frames, outcome), (vec![Bytes::from_static(b"y")], Ok(())));
    }
}
