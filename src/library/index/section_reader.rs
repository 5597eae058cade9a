//! Reading within one section of an index file.
//!
//! The bytes of the last read are kept, so reading in order costs few system calls.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::error::{Fault, IndexError};
use super::format::{Part, Section};

/// Reads one section of a file.
pub(super) struct SectionReader<'a> {
    file: &'a File,
    /// Of the file, for errors.
    path: &'a Path,
    pub(super) part: Part,
    section: Section,
    /// The least number of bytes of a read, as far as the section goes.
    ahead_bytes: usize,
    /// The offset of `bytes` in the section.
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> SectionReader<'a> {
    pub(super) fn new(
        (file, path): (&'a File, &'a Path),
        part: Part,
        section: Section,
        ahead_bytes: usize,
    ) -> Self {
        SectionReader {
            file,
            path,
            part,
            section,
            ahead_bytes,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// The bytes at an offset of the section.
    ///
    /// # Errors
    /// [`Fault::Damaged`] beyond the section: then a number in another section is wrong.
    /// [`Fault::Unreadable`] with an error of pread(2).
    pub(super) fn at(&mut self, offset: u64, length: u64) -> Result<&[u8], IndexError> {
        let (path, part) = (self.path, self.part);
        self.read(offset, length).map_err(|error| {
            let fault = match error.kind() {
                ErrorKind::InvalidInput | ErrorKind::UnexpectedEof => Fault::Damaged(part.name()),
                _ => Fault::Unreadable(error),
            };
            fault.of(path)
        })
    }

    fn read(&mut self, offset: u64, length: u64) -> io::Result<&[u8]> {
        let end = offset.saturating_add(length);
        if end > self.section.length {
            return Err(ErrorKind::InvalidInput.into());
        }
        let held = self.start..self.start + self.bytes.len() as u64;
        if offset < held.start || end > held.end {
            let wanted = length.max(self.ahead_bytes as u64);
            let wanted = wanted.min(self.section.length - offset);
            let wanted = usize::try_from(wanted).map_err(|_| ErrorKind::InvalidInput)?;
            self.start = offset;
            self.bytes.resize(wanted, 0);
            let in_file = self.section.offset.saturating_add(offset);
            if let Err(error) = self.file.read_exact_at(&mut self.bytes, in_file) {
                self.bytes.clear();
                return Err(error);
            }
        }
        let narrow = |bytes| usize::try_from(bytes).expect("the range is in memory");
        let from = narrow(offset - self.start);
        let bytes = self.bytes.get(from..from + narrow(length));
        Ok(bytes.expect("the range is in memory"))
    }

    /// The fixed-width entry of this index.
    ///
    /// # Errors
    /// As [`SectionReader::at`].
    pub(super) fn entry<const N: usize>(&mut self, index: u64) -> Result<&[u8; N], IndexError> {
        let bytes = self.at(index.saturating_mul(N as u64), N as u64)?;
        Ok(bytes.try_into().expect("as many bytes were read"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn reader(file: &File, section: Section, ahead_bytes: usize) -> SectionReader<'_> {
        SectionReader::new(
            (file, Path::new("index")),
            Part::Names,
            section,
            ahead_bytes,
        )
    }

    #[test]
    fn every_range_of_the_section_is_read_and_nothing_beyond() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..200).collect();
        file.write_all(&bytes).unwrap();
        let section = Section {
            offset: 20,
            length: 150,
            ..Section::default()
        };
        for ahead in [0, 7, 1000] {
            let mut reader = reader(&file, section, ahead);
            for (offset, length) in [(0, 10), (5, 10), (149, 1), (150, 0), (3, 147), (0, 1)] {
                let expected = &bytes[20 + offset..20 + offset + length];
                let found = reader.at(offset as u64, length as u64).unwrap();
                assert_eq!(found, expected);
            }
            for (offset, length) in [(150, 1), (0, 151), (u64::MAX, 1), (1, u64::MAX)] {
                let error = reader.read(offset, length).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
                let error = reader.at(offset, length).unwrap_err();
                assert!(matches!(error.fault, Fault::Damaged("names")), "{error}");
            }
        }
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let section = Section {
            offset: 0,
            length: 20,
            ..Section::default()
        };
        let mut reader = reader(&file, section, 4);
        assert_eq!(reader.at(0, 8).unwrap(), [0; 8]);
        let error = reader.read(5, 8).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        assert_eq!(reader.at(0, 2).unwrap(), [0; 2]);
    }
}
