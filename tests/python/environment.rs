//! The Python that the peers run in: a virtual environment under `target/python` with the package at the version this library follows.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The package, and what it needs at the versions that its wire was examined with.
const PACKAGES: [&str; 3] = ["vl-messaging==2026.1.11", "amazon.ion==0.15.0", "pynng==0.9.0"];

/// The interpreter of the environment, which is made if there is none of these versions.
///
/// # Panics
///
/// When it cannot be made, saying what to do.
pub(crate) fn python() -> &'static Path {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match MADE.get_or_init(prepare) {
        Ok(python) => python,
        Err(why) => panic!(
            "these tests need a Python 3 with venv, and a pip that can install {}: {why}. Install python3-venv, or let pip reach \
             a package index, and run them again",
            PACKAGES.join(", ")
        ),
    }
}

fn prepare() -> Result<PathBuf, String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in the target folder");
    let home = target.join("python");
    let (python, stamp) = (home.join("bin/python"), home.join("installed"));
    // One test process at a time: the others wait, and find it done.
    let lock = File::create(target.join("python.lock")).map_err(|error| error.to_string())?;
    lock.lock().map_err(|error| error.to_string())?;
    let wanted = PACKAGES.join("\n");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) && python.exists() {
        return Ok(python);
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))?;
    run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(PACKAGES))?;
    fs::write(&stamp, wanted).map_err(|error| error.to_string())?;
    Ok(python)
}

/// Runs a command to its end; the error is the last that it said.
fn run(command: &mut Command) -> Result<(), String> {
    let output =
        command.output().map_err(|error| format!("{} does not run: {error}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    Err(said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it failed without a word").trim().into())
}
