//! How a command ends: an exit status, and where it failed what to do next.

use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use vlmessaging::{RequestError, SendError, StartError};

/// The exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Exit {
    /// What was asked for has been done.
    Ok = 0,
    /// Anything not named here: no router could be started, or an answer was not the right one.
    Failed = 1,
    /// The options, or what was on standard input, make no sense.
    Usage = 2,
    /// Nobody provides the service, or no hub answers.
    NotFound = 3,
    /// The message reached no handler, or nobody knows.
    NotDelivered = 4,
    /// The agent does not take such a message.
    NotUnderstood = 5,
    /// No answer in time.
    TimedOut = 6,
}

/// What went wrong, and what to do next.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Failure {
    #[serde(rename = "failure")]
    pub(crate) exit: Exit,
    #[serde(rename = "error")]
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) next: Option<String>,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), next: None }
    }

    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::new(Exit::Usage, text)
    }

    /// Says what to do next.
    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Self { next: Some(next.into()), ..self }
    }

    /// Tells a failure: people on standard error, programs as a line of JSON on standard output.
    pub(crate) fn tell(&self, program: &'static str, is_json: bool) {
        #[derive(Serialize)]
        struct Told<'a> {
            program: &'a str,
            ok: bool,
            #[serde(flatten)]
            failure: &'a Failure,
        }
        if is_json {
            print_json(&Told { program, ok: false, failure: self });
        } else {
            eprintln!("vlm: {}", self.text);
            if let Some(next) = &self.next {
                eprintln!("  {next}");
            }
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        let next = match &error {
            StartError::Listen(_) => "choose another endpoint, or see who is there: vlm ls",
            StartError::NoFreeEndpoint { .. } => "choose another folder with --folder",
            _ => return Self::new(Exit::Failed, error.to_string()),
        };
        Self::new(Exit::Failed, error.to_string()).next(next)
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        Self::new(Exit::NotDelivered, error.to_string()).next("see who is there: vlm ls")
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let text = error.to_string();
        match error {
            RequestError::NotSent(error) => error.into(),
            RequestError::NotUnderstood { .. } => {
                Self::new(Exit::NotUnderstood, text).next("correct the subject or the contents")
            }
            RequestError::TimedOut { .. } => Self::new(Exit::TimedOut, text)
                .next("wait longer with --timeout-ms, or see whether it is there: vlm ping"),
            _ => Self::new(Exit::NotDelivered, text).next("see who is there: vlm ls"),
        }
    }
}

/// Prints a line at once. A reader who has gone is no failure of what the line tells.
pub(crate) fn print(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// Prints a line of JSON.
pub(crate) fn print_json(line: &impl Serialize) {
    match serde_json::to_string(line) {
        Ok(line) => print(&line),
        Err(error) => eprintln!("vlm: a result cannot be shown as JSON: {error}"),
    }
}
