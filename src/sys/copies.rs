//! Copies of parts of mapped files, in memory of ours.
//!
//! Only the kernel may load mapped bytes: it answers EFAULT where a load of ours would kill the process.
//! So it copies them, as it does into a socket, into a file that lies in memory and is mapped here.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use memmap2::{MmapOptions, MmapRaw};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};

use super::{Slice, lend};

/// A buffer that the kernel copies parts into.
#[derive(Debug)]
pub struct Copies {
    file: OwnedFd,
    raw: MmapRaw,
}

impl Copies {
    /// A buffer of so many bytes.
    ///
    /// # Errors
    /// Those of `memfd_create(2)`, ftruncate(2) and mmap(2).
    pub fn new(length: usize) -> io::Result<Self> {
        let file = memfd_create("copies", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, length as u64)?;
        let raw = MmapOptions::new().len(length).map_raw(&file)?;
        Ok(Self { file, raw })
    }

    /// Copies the parts in order with one system call, at most `most` bytes of them, and returns the
    /// copies. What does not fit the buffer or the kernel's table is left out.
    ///
    /// # Errors
    /// `InvalidInput` for a mapped part beyond its mapping; what pwritev(2) answers, EFAULT when the
    /// first byte is one that its mapped file no longer has.
    pub fn fill(&mut self, slices: &[Slice<'_>], most: usize) -> io::Result<&mut [u8]> {
        let most = most.min(self.raw.len());
        let copied = lend(slices, most, |table, used| {
            // SAFETY: see `lend`; the kernel only reads. It writes to the file, and so to our mapping of
            // it, to which no reference exists while `self` is borrowed here.
            unsafe { libc::pwritev(self.file.as_raw_fd(), table, used, 0) }
        })?;
        // SAFETY: the mapping has as many bytes as the file, which nobody else has a descriptor of, and
        // `copied` is no more than these. The reference borrows `self`, so the file is not written to
        // while it exists, and the mapping outlives it.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.raw.as_mut_ptr(), copied) })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::super::map;
    use super::*;

    #[test]
    fn parts_are_copied_in_order_up_to_the_limit() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 5000]).unwrap();
        let mapping = map(&file, 5000).unwrap();
        let parts = [
            Slice::Bytes(b"head"),
            Slice::Mapped {
                mapping: &mapping,
                offset: 4990,
                length: 10,
            },
            Slice::Zeros { length: 3 },
            Slice::Bytes(b"tail"),
        ];
        let mut copies = Copies::new(4096).unwrap();
        let whole = b"head\x07\x07\x07\x07\x07\x07\x07\x07\x07\x07\0\0\0tail";
        assert_eq!(copies.fill(&parts, 100).unwrap(), whole);
        for most in 1..whole.len() {
            assert_eq!(copies.fill(&parts, most).unwrap(), &whole[..most]);
        }
        let long = [Slice::Zeros { length: 200_000 }];
        assert_eq!(copies.fill(&long, usize::MAX).unwrap().len(), 4096);
    }

    #[test]
    fn a_file_that_has_become_shorter_is_an_error_and_no_signal() {
        let file: File = tempfile::tempfile().unwrap();
        file.set_len(8192).unwrap();
        let mapping = map(&file, 8192).unwrap();
        file.set_len(0).unwrap();
        let gone = Slice::Mapped {
            mapping: &mapping,
            offset: 0,
            length: 100,
        };
        let mut copies = Copies::new(4096).unwrap();
        let error = copies.fill(&[gone], 100).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
        // What comes before it is copied.
        let parts = [Slice::Bytes(b"head"), gone];
        assert_eq!(copies.fill(&parts, 100).unwrap(), b"head");
    }
}
