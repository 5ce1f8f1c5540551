//! Processes that this program starts: itself again, in another role.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// A process that ends with its handle, or when its parent does: its standard input closes then.
pub(crate) struct Kid {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Kid {
    pub(crate) fn start(words: &[&str]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program's path"));
        let mut child =
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("another process");
        let input = child.stdin.take();
        let output = child.stdout.take().expect("it was piped");
        let (told, lines) = channel();
        std::thread::spawn(move || {
            // Nobody listens any more once the handle is gone.
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| told.send(line))
        });
        Self { child, input, lines }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints, if there is one in time.
    pub(crate) fn line(&self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    /// What follows `READY`: the first line of a server.
    pub(crate) fn ready(&self) -> String {
        self.ready_within(Duration::from_secs(10))
    }

    pub(crate) fn ready_within(&self, limit: Duration) -> String {
        let line = self.line(limit).expect("the server is ready in time");
        line.strip_prefix("READY ").expect("a READY line").to_owned()
    }

    pub(crate) fn ask(&mut self, line: &str, limit: Duration) -> Option<String> {
        let input = self.input.as_mut()?;
        writeln!(input, "{line}").ok()?;
        self.line(limit)
    }

    /// Whether it ended by itself.
    pub(crate) fn ends(&mut self, limit: Duration) -> bool {
        let by = std::time::Instant::now() + limit;
        while std::time::Instant::now() < by {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return true;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        false
    }
}

impl Drop for Kid {
    fn drop(&mut self) {
        drop(self.input.take());
        if !self.ends(Duration::from_secs(1)) {
            // It has ended in this moment, or is ended: both are what is wanted.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A server's side: says that it is ready, and answers what its parent asks until that is gone.
pub(crate) fn serve(address: &str, tally: &crate::load::Tally) -> ! {
    println!("READY {address}");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let count = line.strip_prefix("wait ").and_then(|count| count.parse().ok());
        let outcome = tally.wait(count.expect("wait and a count"));
        println!("{}", serde_json::to_string(&outcome).expect("an outcome"));
    }
    std::process::exit(0)
}
