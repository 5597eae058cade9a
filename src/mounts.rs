//! The mount table (`proc_pid_mountinfo(5)`).
//!
//! A mount over a directory makes no event in that directory: only this table shows it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

const TABLE: &str = "/proc/self/mountinfo";

/// The mount table of this process. It has an urgent event (`POLLPRI`) when it has changed since it was
/// last polled.
pub(crate) fn open() -> io::Result<File> {
    File::open(TABLE)
}

/// One mount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Mount {
    /// Where it is.
    pub(crate) point: PathBuf,
    /// The mounted file system: the mount id, the device and the directory on it.
    what: Vec<u8>,
    /// An automounter has mounted it: such mounts come and go on access.
    pub(crate) is_automatic: bool,
}

/// Every mount; none when the table cannot be read.
pub(crate) fn all() -> Vec<Mount> {
    fs::read(TABLE).map_or(Vec::new(), |table| parse(&table))
}

/// Reads a mount table; lines that are not of its form are passed over.
pub(crate) fn parse(table: &[u8]) -> Vec<Mount> {
    let lines = || table.split(|&byte| byte == b'\n').filter_map(Line::parse);
    let automounters = lines().filter(|line| line.is_automounter);
    let automounters: HashSet<&[u8]> = automounters.map(|line| line.number).collect();
    lines()
        .map(|line| Mount {
            point: OsString::from_vec(unescaped(line.point)).into(),
            what: [line.number, line.device, line.root].join(&b' '),
            is_automatic: automounters.contains(line.parent),
        })
        .collect()
}

/// The fields of a line of the table that matter, as bytes of the line.
struct Line<'a> {
    number: &'a [u8],
    parent: &'a [u8],
    device: &'a [u8],
    root: &'a [u8],
    point: &'a [u8],
    is_automounter: bool,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|&byte| byte == b' ');
        Some(Line {
            number: fields.next()?,
            parent: fields.next()?,
            device: fields.next()?,
            root: fields.next()?,
            point: fields.next()?,
            // Options, of any number, end with a hyphen. Then comes the type.
            is_automounter: fields.skip_while(|field| *field != b"-").nth(1) == Some(b"autofs"),
        })
    }
}

/// Space, tab, line feed and backslash are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let escaped = after.split_first_chunk::<3>().filter(|_| byte == b'\\');
        let decoded = escaped.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 8).ok()?, after))
        });
        let (byte, after) = decoded.unwrap_or((byte, after));
        out.push(byte);
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn mount_points_are_read_with_their_escapes() {
        let table = b"36 35 98:0 /m /mnt/a\\040b rw - ext3 /dev/r rw\n\
            37 35 0:5 / /x\\134y\\0 rw shared:1 - tmpfs t rw\n\n";
        let mounts = parse(table);
        let points: Vec<&Path> = mounts.iter().map(|mount| mount.point.as_path()).collect();
        assert_eq!(points, [Path::new("/mnt/a b"), Path::new("/x\\y\\0")]);
        assert_eq!(mounts[1].what, b"37 0:5 /");
        let table = b"40 1 0:6 / /net rw shared:9 - autofs auto rw\n\
            41 40 0:7 / /net/a rw - nfs a:/x rw\n42 41 0:8 / /net/a/b rw - ext4 /dev/b rw\n";
        let automatic = parse(table).into_iter().map(|mount| mount.is_automatic);
        assert_eq!(automatic.collect::<Vec<_>>(), [false, true, false]);
        assert!(all().iter().any(|mount| mount.point == Path::new("/")));
    }
}
