//! What is sent, how arrivals are counted, and what a run took from the machine.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};

/// Digits at the beginning of every body: its number.
const DIGITS: usize = 12;
/// Requests before those that count.
pub(crate) const WARM_UP: usize = 500;
/// An answer that takes longer does not come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What a client does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// Requests, one after another.
    Sequential { count: usize },
    /// Requests, so many of them at once.
    Outstanding { count: usize, window: usize },
    /// Messages one way.
    Stream { count: usize, size: usize },
    /// Messages one way of 64 bytes, from so many senders at once.
    Together { count: usize, senders: usize },
}

/// What came of it.
#[derive(Default, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Sequential: the median in microseconds. Else requests or messages a second.
    pub(crate) figure: f64,
    pub(crate) seconds: f64,
    /// Requests with the right answer, or distinct messages that arrived.
    pub(crate) good: u64,
    pub(crate) lost: u64,
    pub(crate) disordered: u64,
    /// Of both processes, per request or message, in microseconds.
    pub(crate) cpu: f64,
}

impl Load {
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Sequential { count }
            | Self::Outstanding { count, .. }
            | Self::Stream { count, .. }
            | Self::Together { count, .. } => count,
        }
    }

    /// As arguments of a process.
    pub(crate) fn words(self) -> [String; 3] {
        let (what, count, more) = match self {
            Self::Sequential { count } => ("sequential", count, 0),
            Self::Outstanding { count, window } => ("outstanding", count, window),
            Self::Stream { count, size } => ("stream", count, size),
            Self::Together { count, senders } => ("together", count, senders),
        };
        [what.into(), count.to_string(), more.to_string()]
    }

    pub(crate) fn parse(what: &str, count: &str, more: &str) -> Self {
        let count = count.parse().expect("a count");
        let more = more.parse().expect("a window or size");
        match what {
            "sequential" => Self::Sequential { count },
            "outstanding" => Self::Outstanding { count, window: more },
            "stream" => Self::Stream { count, size: more },
            "together" => Self::Together { count, senders: more },
            _ => panic!("no such load: {what}"),
        }
    }
}

/// The body numbered `number`, in `size` bytes. Made with as little as it takes: it is measured with what is sent.
pub(crate) fn body(number: usize, size: usize) -> String {
    const FILL: [u8; 1024] = [b'x'; 1024];
    let mut body = Vec::with_capacity(size);
    let mut digits = [b'0'; DIGITS];
    let mut rest = number;
    for digit in digits.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    body.extend_from_slice(&digits);
    while body.len() < size {
        body.extend_from_slice(&FILL[..FILL.len().min(size - body.len())]);
    }
    String::from_utf8(body).expect("digits and letters")
}

/// The bodies of one of several senders; each is in order for itself.
pub(crate) fn share(count: usize, senders: usize, sender: usize) -> impl Iterator<Item = String> {
    let letter = char::from(b'a' + u8::try_from(sender).expect("few senders"));
    let each = count / senders;
    (sender * each..(sender + 1) * each)
        .map(move |number| format!("{number:0DIGITS$}{}", letter.to_string().repeat(64 - DIGITS)))
}

pub(crate) fn number_of(body: &str) -> Option<usize> {
    body.get(..DIGITS)?.parse().ok()
}

/// Counts what arrives one way.
#[derive(Default)]
pub(crate) struct Tally(Mutex<Arrivals>);

#[derive(Default)]
struct Arrivals {
    seen: Vec<bool>,
    good: u64,
    disordered: u64,
    /// By the letter of the sender, as far as there were any.
    next: Vec<usize>,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Tally {
    pub(crate) fn arrived(&self, body: &str) {
        let now = Instant::now();
        let Some(number) = number_of(body) else { return };
        let mut arrivals = self.0.lock();
        if arrivals.seen.len() <= number {
            arrivals.seen.resize(number + 1, false);
        }
        if std::mem::replace(&mut arrivals.seen[number], true) {
            arrivals.disordered += 1;
            return;
        }
        arrivals.good += 1;
        let letter = body.as_bytes().get(DIGITS).copied().unwrap_or_default();
        if arrivals.next.is_empty() {
            arrivals.next.resize(usize::from(u8::MAX) + 1, 0);
        }
        let next = &mut arrivals.next[usize::from(letter)];
        let late = number < *next;
        *next = (number + 1).max(*next);
        arrivals.disordered += u64::from(late);
        arrivals.first.get_or_insert(now);
        arrivals.last = Some(now);
    }

    /// Waits until `count` have arrived, or nothing has for two seconds.
    pub(crate) fn wait(&self, count: usize) -> Outcome {
        let (mut before, mut since) = (0, Instant::now());
        loop {
            let good = self.0.lock().good;
            if good != before {
                (before, since) = (good, Instant::now());
            }
            if good >= count as u64 || since.elapsed() > Duration::from_secs(2) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let arrivals = self.0.lock();
        let seconds = arrivals.first.zip(arrivals.last).map_or(0.0, |(first, last)| (last - first).as_secs_f64());
        let (good, disordered) = (arrivals.good, arrivals.disordered);
        let figure = good as f64 / seconds.max(f64::MIN_POSITIVE);
        Outcome { figure, seconds, good, lost: (count as u64).saturating_sub(good), disordered, cpu: 0.0 }
    }
}

/// Of round trips in nanoseconds, of `count` that were tried.
pub(crate) fn of_round_trips(mut nanos: Vec<u64>, count: usize, seconds: f64) -> Outcome {
    nanos.sort_unstable();
    let figure = nanos.get(nanos.len() / 2).map_or(f64::NAN, |nanos| *nanos as f64 / 1e3);
    Outcome { figure, ..of_answers(nanos.len(), count, seconds) }
}

/// Of requests, of `count` that were tried.
pub(crate) fn of_answers(good: usize, count: usize, seconds: f64) -> Outcome {
    let lost = (count - good) as u64;
    Outcome { figure: good as f64 / seconds, seconds, good: good as u64, lost, ..Outcome::default() }
}

/// Keeps this thread, and the threads and processes that it makes, on CPU 0.
pub(crate) fn pin() {
    let mut only = CpuSet::new();
    only.set(0);
    sched_setaffinity(None, &only).expect("an affinity");
}

/// Time that the threads of a process have run, in microseconds; those that have ended do not count.
pub(crate) fn cpu_micros(process: u32) -> f64 {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{process}/task")) else { return f64::NAN };
    let nanos = |thread: std::fs::DirEntry| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<f64>().ok()
    };
    threads.flatten().filter_map(nanos).sum::<f64>() / 1e3
}

/// The system's load averages.
pub(crate) fn average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}
