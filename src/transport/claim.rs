//! One owner per ipc path: a lock on a side file, held as long as the owner listens.
//!
//! Without, two processes that start at once on a stale path would both believe that they own it, and a listener is found out about only by
//! connecting to it. The lock decides among ourselves; `/proc/net/unix` tells of a live listener that has none (a Python program) without
//! disturbing it. (nng alone would also delete a regular file in the way.)

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::addr::Endpoint;
use crate::transport::ListenError;

/// What a unix socket's address holds, less its closing NUL.
pub(in crate::transport) const LONGEST_PATH: usize = 107;

/// A path that is ours until this is released.
pub(in crate::transport) struct Claim {
    path: PathBuf,
    side: PathBuf,
    lock: File,
    bound: Option<(u64, u64)>,
}

impl Claim {
    /// Claims the path of `at`, which exists at most as a stale socket file afterwards.
    pub(in crate::transport) fn take(at: &Endpoint) -> Result<Self, ListenError> {
        let path = PathBuf::from(at.rest());
        check_path(at)?;
        check_file(at, &path)?;
        let side = side_file(&path);
        let lock = lock(&side)
            .map_err(|source| ListenError::System { at: at.clone(), source })?
            .ok_or_else(|| ListenError::InUse { at: at.clone() })?;
        let claim = Self { path, side, lock, bound: None };
        // Again, under the lock: the last owner may just have gone, or somebody put a file there.
        let checked = check_file(at, &claim.path);
        if checked.is_ok() && is_listened_at(&claim.path) {
            claim.give_back();
            return Err(ListenError::InUse { at: at.clone() });
        }
        match checked {
            Ok(()) => Ok(claim),
            Err(error) => {
                claim.give_back();
                Err(error)
            }
        }
    }

    /// Removes a stale socket file, so that the path can be bound.
    pub(in crate::transport) fn clear(&self) {
        // If it cannot be removed, binding says why.
        let _ = std::fs::remove_file(&self.path);
    }

    /// Notes which file is ours, after it was bound.
    pub(in crate::transport) fn bound(&mut self) {
        self.bound = identity(&self.path);
    }

    pub(in crate::transport) fn endpoint(&self) -> Endpoint {
        Endpoint::from(format!("ipc://{}", self.path.display()))
    }

    /// Whether who dials the path comes to the file that was bound.
    pub(in crate::transport) fn holds(&self) -> bool {
        identity(&self.path) == self.bound
    }

    /// Whether the path can be bound again, after somebody removed the file that was. Another's file is left as it is.
    pub(in crate::transport) fn renew(&mut self) -> bool {
        if identity(&self.path).is_some() {
            return false;
        }
        let own = self.lock.metadata().ok().map(|own| (own.dev(), own.ino()));
        if own.is_some() && identity(&self.side) == own {
            return true;
        }
        // The side file went too, and somebody may have claimed the path since.
        match lock(&self.side) {
            Ok(Some(lock)) if identity(&self.path).is_none() => {
                self.lock = lock;
                true
            }
            _ => false,
        }
    }

    #[cfg(feature = "nng")]
    pub(in crate::transport) fn path(&self) -> &Path {
        &self.path
    }

    /// Lets nobody come any more: the file goes, if it is ours. What was bound to it stays connected.
    pub(in crate::transport) fn unlink(&self) {
        if self.bound.is_some() && identity(&self.path) == self.bound {
            // If it cannot be removed now, the release tries again.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    #[cfg(feature = "nng")]
    /// Moves a successor's file out of the way of nng, which unlinks by name when it closes. Give it to `release`.
    pub(in crate::transport) fn shelter(&self) -> Option<PathBuf> {
        let found = identity(&self.path)?;
        if Some(found) == self.bound {
            return None;
        }
        let aside = side_name(&self.path, ".moved");
        std::fs::rename(&self.path, &aside).ok().map(|()| aside)
    }

    /// Removes what is ours, after the listener was closed.
    pub(in crate::transport) fn release(self, sheltered: Option<PathBuf>) {
        if let Some(aside) = sheltered {
            if let Err(error) = std::fs::rename(&aside, &self.path) {
                tracing::error!(%error, "a socket file of another program could not be put back from {}", aside.display());
            }
        } else {
            self.unlink();
        }
        self.give_back();
    }

    /// The side file is removed while it is locked; who waits for it looks whether it still is the file of that name.
    fn give_back(self) {
        let _ = std::fs::remove_file(&self.side);
    }
}

/// What can be said about the path of an ipc endpoint without looking at files.
fn check_path(at: &Endpoint) -> Result<(), ListenError> {
    let invalid = |reason: String| ListenError::Invalid { at: at.clone(), reason };
    path_fault(at.rest()).map_or(Ok(()), |reason| Err(invalid(reason)))?;
    let folder = Path::new(at.rest()).parent().unwrap_or(Path::new("/"));
    if !folder.is_dir() {
        return Err(invalid(format!("the folder {} does not exist", folder.display())));
    }
    Ok(())
}

/// What is wrong with a path as the address of a unix socket.
pub(in crate::transport) fn path_fault(path: &str) -> Option<String> {
    if !path.starts_with('/') {
        return Some("the path must begin with /".into());
    }
    if path.ends_with('/') || path.contains('\0') {
        return Some("the path must name a file".into());
    }
    (path.len() > LONGEST_PATH).then(|| {
        let length = path.len();
        format!("the path has {length} bytes, a unix socket takes {LONGEST_PATH}")
    })
}

fn check_file(at: &Endpoint, path: &Path) -> Result<(), ListenError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => Err(ListenError::NotASocket { at: at.clone() }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ListenError::System { at: at.clone(), source: error })
        }
        _ => Ok(()),
    }
}

/// `None` if another has it.
fn lock(side: &Path) -> io::Result<Option<File>> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(side)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let own = file.metadata()?;
        if identity(side) == Some((own.dev(), own.ino())) {
            return Ok(Some(file));
        }
        // The last owner removed it between our opening and locking: that lock is of no file any more.
    }
}

/// Whether a socket of this path listens, told by the kernel without connecting to it.
fn is_listened_at(path: &Path) -> bool {
    const ACCEPTS: u32 = 1 << 16;
    let Some(path) = path.to_str() else {
        return false;
    };
    let Ok(table) = std::fs::read_to_string("/proc/net/unix") else {
        return std::os::unix::net::UnixStream::connect(path).is_ok();
    };
    if !Path::new(path).exists() {
        return false; // Its file was removed: nobody can reach it there.
    }
    table.lines().any(|line| {
        let mut fields = line.split_whitespace();
        let flags = fields.nth(3).and_then(|f| u32::from_str_radix(f, 16).ok());
        flags.is_some_and(|flags| flags & ACCEPTS != 0) && line.ends_with(&format!(" {path}"))
    })
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = std::fs::symlink_metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

fn side_file(path: &Path) -> PathBuf {
    side_name(path, ".lock")
}

fn side_name(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}
