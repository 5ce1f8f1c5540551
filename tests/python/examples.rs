//! The Python programs that a reader of this project is shown.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use vlmessaging::{FOLDER_VARIABLE, Router, Sockets};

use crate::environment::python;
use crate::peer::{AddOne, Folder};

/// Longer than either program takes: Python's rounds may be ten seconds apart.
const HANG: Duration = Duration::from_secs(40);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust program of an example, built from the present sources.
fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let profile = own.parent().and_then(Path::parent).unwrap();
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--example", name, "--manifest-path"]).arg(root().join("Cargo.toml"));
    cargo.arg("--target-dir").arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    if !cfg!(feature = "default") {
        // The features are named as the sockets are.
        let kinds: Vec<String> = Sockets::ALL.iter().map(ToString::to_string).collect();
        cargo.args(["--no-default-features", "--features", &kinds.join(",")]);
    }
    assert!(cargo.status().unwrap().success());
    profile.join("examples").join(name)
}

fn start(program: &mut Command, folder: &Folder) -> Child {
    let program = program.env(FOLDER_VARIABLE, folder.path()).env("PYTHONDONTWRITEBYTECODE", "1");
    program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits for its end; what it said, without the chatter of the package, which is indented, or an empty line where two of its threads talk at once.
fn said(mut child: Child) -> Vec<String> {
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > HANG {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(child.wait().unwrap().success(), "{out}{err}");
    out.lines().filter(|line| !line.is_empty() && !line.starts_with("    ")).map(String::from).collect()
}

#[test]
fn two_processes_of_two_languages_find_each_other() {
    let rust = example("two_processes");
    let script = root().join("examples/two_processes.py");
    for rust_provides in [true, false] {
        let folder = Folder::new();
        let (of_rust, of_python) = if rust_provides { ("provide", "ask") } else { ("ask", "provide") };
        let rust = start(Command::new(&rust).arg(of_rust), &folder);
        let python = start(Command::new(python()).arg(&script).arg(of_python), &folder);
        let (rust, python) = (said(rust), said(python));
        let (provider, asker) = if rust_provides { (rust, python) } else { (python, rust) };
        assert!(provider[0].contains("provides AddOneAgent at <router_"), "{provider:?}");
        assert!(asker[0].contains(" hears from <router_") && asker[0].ends_with("> that 41 + 1 = 42"), "{asker:?}");
    }
}

#[actix::test]
async fn the_readmes_python_program_runs_alone_and_beside_rust() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let program = readme.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = Folder::new();
    let program = program.replace("ipc:///tmp/hub_1", &format!("ipc://{}/hub_1", folder.path()));
    let run = || start(Command::new(python()).args(["-c", &program]), &folder);

    assert_eq!(said(run()), ["42"]);
    let (builder, _) = folder.hub(Router::machine());
    let router = builder.start().await.unwrap();
    let agent = router.spawn(AddOne::default());
    let _entry = agent.register("Another").await.unwrap();
    let beside = run();
    let ended = tokio::task::spawn_blocking(move || said(beside)).await.unwrap();
    assert_eq!(ended, ["42"]);
    router.shutdown().await;
}
