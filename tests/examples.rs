//! Every example runs as a program of its own, in a folder of its own, says what it should, and leaves nothing behind. Those of Python run in `tests/python`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what fails a fixture fails its test")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Longer than any example takes.
const HANG: Duration = Duration::from_mins(1);

/// What each example says: a line a line, with `*` for what differs from run to run.
const EXAMPLES: [(&str, &[&str]); 12] = [
    ("add_one_discovery_ipc", &["41 + 1 = 42, says <router_*::3>"]),
    ("add_one_discovery_tcp", &["41 + 1 = 42, says <127.0.0.1:*::router_*::3>"]),
    ("add_one_ipc", &["41 + 1 = 42"]),
    (
        "add_one_to_current",
        &[
            "here: 1, 2, its provider dies, 3 from another",
            "routers: 1, 2, its provider dies, 3 from another",
            "processes: 1, 2, its provider dies, 3 from another",
            "network: 1, 2, its provider dies, 3 from another",
        ],
    ),
    (
        "directory_dies",
        &["through the hub: 1 + 1 = 2", "the hub is dead: 2 + 1 = 3", "a newcomer, through another hub: 3 + 1 = 4"],
    ),
    ("local", &["41 + 1 = 42"]),
    (
        "not_delivered",
        &[
            "not delivered: \"ADD_ONE\" to <router_*::99> was not delivered: no such connection (says router_*)",
            "not delivered: \"ADD_ONE\" to <router_*::3> was not delivered: agent panicked (says <router_*::3>)",
            "not delivered: \"ADD_ONE\" to <router_*::3> was not delivered: * (says *)",
            "not sent:      \"ADD_ONE\" to <127.0.0.1:9::3> was not sent: no route: a machine router does not reach tcp://127.0.0.1:9",
        ],
    ),
    (
        "not_understood",
        &[
            "<3> does not understand \"ADD_TWO\": no handler for this subject",
            "<3> does not understand \"ADD_ONE\": contents asked for as i64: *expected i64",
        ],
    ),
    (
        "provider_dies",
        &[
            "told at once: \"PONDER\" to <router_*::3> was not delivered: peer lost, it may have been handled (says router_*)",
            "another provider says 41 + 1 = 42",
        ],
    ),
    ("threads", &["<3> says 41", "<4> says 42", "<5> says 43", "<6> says 44"]),
    ("timed_out", &["no reply from <3> to \"ADD_ONE\" within 250ms"]),
    (
        "two_processes",
        &["process * provides AddOneAgent at <router_*::3>", "process * hears from <router_*::3> that 41 + 1 = 42"],
    ),
];

/// Examples that kill a process: it leaves its socket, and the hub's if it was the hub, each with its lock.
const KILLERS: [&str; 3] = ["add_one_to_current", "directory_dies", "provider_dies"];

/// The folder of the examples' programs, built from the present sources.
fn programs() -> &'static Path {
    static PROGRAMS: OnceLock<PathBuf> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let profile = own.parent().and_then(Path::parent).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--examples", "--manifest-path"]);
        cargo.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        if !cfg!(feature = "default") {
            // The features are named as the sockets are.
            let kinds: Vec<String> = vlmessaging::Sockets::ALL.iter().map(ToString::to_string).collect();
            cargo.args(["--no-default-features", "--features", &kinds.join(",")]);
        }
        assert!(cargo.status().unwrap().success());
        profile.join("examples")
    })
}

/// Runs an example to its end, in a folder that must be empty afterwards, but for what the killed leave.
fn run(name: &str) -> Output {
    let folder = std::env::temp_dir().join(format!("vlm-example-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let mut program = Command::new(programs().join(name));
    program.env("VLM_FOLDER", &folder).env("RUST_BACKTRACE", "0");
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > HANG {
            child.kill().unwrap();
            panic!("{name} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let left: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().file_name()).collect();
    std::fs::remove_dir_all(&folder).unwrap();
    let of_the_killed = if KILLERS.contains(&name) { 4 } else { 0 };
    assert!(left.len() <= of_the_killed, "{name} leaves {left:?}");
    child.wait_with_output().unwrap()
}

/// Whether a line is as expected, where `*` stands for anything.
fn fits(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    let parts: Vec<&str> = pattern.split('*').collect();
    for (index, part) in parts.iter().enumerate() {
        let at = if index == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
        let Some(at) = at else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.is_empty() || pattern.ends_with('*')
}

#[test]
fn every_example_says_what_it_should() {
    for (name, lines) in EXAMPLES {
        let output = run(name);
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{name}: {said}{}", String::from_utf8_lossy(&output.stderr));
        let as_expected =
            said.lines().count() == lines.len() && said.lines().zip(lines).all(|(line, pattern)| fits(line, pattern));
        assert!(as_expected, "{name} says\n{said}instead of\n{}", lines.join("\n"));
    }
}

#[test]
fn no_example_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    let mut names: Vec<_> = files.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    names.sort_unstable();
    assert_eq!(names, EXAMPLES.map(|(name, _)| name));
}
