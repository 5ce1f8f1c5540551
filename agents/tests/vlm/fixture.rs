//! A folder of sockets to each test, and the processes in it.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

/// A folder for the sockets of one test.
pub(crate) struct Folder(PathBuf);

/// A process that runs until it is told to end.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    /// The line that it printed first.
    pub(crate) up: Value,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Folder {
    pub(crate) fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("vlm-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    /// An endpoint in the folder.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("ipc://{}", self.0.join(name).display())
    }

    pub(crate) fn files(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.0).unwrap();
        files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vlm"));
        command.args(args).env("VLM_FOLDER", &self.0).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn vlm(&self, args: &[&str]) -> Ended {
        self.vlm_with(args, "")
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn vlm_with(&self, args: &[&str], input: &str) -> Ended {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_string();
        // From a thread of its own: the command may write before it has read all. It may also end before, which its status tells.
        let writing = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        let output = child.wait_with_output().unwrap();
        writing.join().unwrap();
        Ended {
            status: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs a command whose standard error is a terminal: what that shows.
    pub(crate) fn vlm_at_terminal(&self, args: &[&str]) -> String {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let theirs = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let theirs = std::fs::File::options().read(true).write(true).open(theirs).unwrap();
        let mut child = self.command(args).stdin(Stdio::null()).stderr(theirs).spawn().unwrap();
        let (mut shown, mut piece) = (Vec::new(), [0; 4096]);
        let mut terminal = std::fs::File::from(terminal);
        // It ends with an error, once the process has gone.
        while let Ok(length @ 1..) = terminal.read(&mut piece) {
            shown.extend_from_slice(&piece[..length]);
        }
        child.wait().unwrap();
        String::from_utf8(shown).unwrap()
    }

    /// Starts a command, and waits until it says that it is up.
    pub(crate) fn start(&self, args: &[&str]) -> Running {
        let mut child = self.command(args).arg("--json").stdin(Stdio::null()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let up = json_line(&mut out);
        assert_eq!(up["event"], "up");
        Running { child, out, up }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

impl Running {
    /// Its address, as it is typed.
    pub(crate) fn addr(&self, name: &str) -> String {
        typed(&self.up[name])
    }

    /// Ends it in order, as Ctrl-C does; its result and its exit status.
    pub(crate) fn end(self) -> (Value, i32) {
        self.end_by(Signal::INT)
    }

    pub(crate) fn end_by(self, signal: Signal) -> (Value, i32) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.result()
    }

    /// Waits until it ends by itself.
    pub(crate) fn result(mut self) -> (Value, i32) {
        let result = json_line(&mut self.out);
        (result, self.child.wait().unwrap().code().unwrap())
    }

    /// Ends it as a crash does.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of a test that failed; where it has ended there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// The only line, as JSON.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}{}", self.out, self.err);
        serde_json::from_str(&self.out).unwrap()
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// An address from JSON, as it is typed.
pub(crate) fn typed(addr: &Value) -> String {
    let text = |part: &Value| part.as_str().unwrap_or_default().to_string();
    format!("{}|{}|{}", text(&addr[0]), text(&addr[1]), addr[2])
}

fn json_line(out: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
}
