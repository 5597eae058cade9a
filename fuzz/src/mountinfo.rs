//! The mount table: each line is one mount or none, and each mount point is shorter than its line.

use std::os::unix::ffi::OsStrExt;

use hekate::fuzzing;

/// Panics when it does not hold for these bytes.
pub fn check(table: &[u8]) {
    let points = fuzzing::mount_points(table);
    assert!(points.len() <= table.split(|&byte| byte == b'\n').count());
    let length: usize = points
        .iter()
        .map(|point| point.as_os_str().as_bytes().len())
        .sum();
    assert!(length <= table.len());
}
