//! A Unix socket for one user and its group.
//!
//! Nobody else can connect at any moment, whatever the umask is. Root changes the owner of that socket
//! only: its directory may belong to a user who puts other files there.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, Gid, Mode, Uid, chownat};
use rustix::process::umask;
use socket2::{Domain, SockAddr, Socket, Type};

use super::identity::Owner;

/// Connecting takes write permission. A new socket has every permission that the umask leaves, and
/// `chmod` afterwards would be late.
const ALL_BUT_USER_AND_GROUP: Mode = Mode::XUSR.union(Mode::XGRP).union(Mode::RWXO);

/// Most connections that wait to be accepted.
const BACKLOG: i32 = 128;

/// Creates a socket at a free path and listens. No thread may be running yet, since the umask belongs
/// to the process.
///
/// # Errors
/// Those of bind(2), and if another file is at the path afterwards.
pub fn listen(path: &Path, owner: Option<Owner>) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    let mask = umask(ALL_BUT_USER_AND_GROUP);
    let bound = socket.bind(&address);
    umask(mask);
    bound?;
    if let Some(owner) = owner {
        give(path, owner)?;
    }
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Changes the owner of a socket without following a symlink. A socket with a second name is refused:
/// somebody may have linked that of another program here.
fn give(path: &Path, owner: Owner) -> io::Result<()> {
    let flags = libc::O_PATH | libc::O_NOFOLLOW;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.file_type().is_socket() || metadata.nlink() != 1 {
        return Err(io::Error::other("another file has replaced it"));
    }
    let (user, group) = (Uid::from_raw(owner.user), Gid::from_raw(owner.group));
    Ok(chownat(
        file,
        c"",
        Some(user),
        Some(group),
        AtFlags::EMPTY_PATH,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_the_socket_itself_is_given_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let ours = directory.path().metadata().unwrap();
        let owner = Owner {
            user: ours.uid(),
            group: ours.gid(),
        };
        // Not by `listen`: the mask would be that of the other tests too.
        let _listener = UnixListener::bind(&path).unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(give(&link, owner).is_err(), "a link is followed");
        let file = directory.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(give(&file, owner).is_err(), "a file is given away");
        give(&path, owner).unwrap();
        std::fs::hard_link(&path, directory.path().join("second")).unwrap();
        assert!(give(&path, owner).is_err(), "it has another name");
    }
}
