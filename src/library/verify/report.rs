//! The findings of a verification, as lines for a person or as JSON.

use std::fmt::{self, Display, Write};
use std::path::Path;

use serde_json::{Value, json};

use super::run::{Finding, Report};
use crate::torrent::content::ContentError;
use crate::torrent::printable::Printable;

/// The sums of a whole run.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sums {
    /// Torrents that were hashed.
    pub torrents: u64,
    /// Torrents with any fault.
    pub bad: u64,
    /// Metainfo files and directories that could not be read or used.
    pub refused: u64,
    /// Pieces that cannot be read completely.
    pub absent_pieces: u64,
    /// Pieces with another hash.
    pub corrupt_pieces: u64,
    /// Files that are no part of the torrent in whose directory they are.
    pub extra_files: u64,
    /// There are more of them than were counted.
    pub more_extra: bool,
}

impl Sums {
    /// Counts a finding.
    pub fn add(&mut self, finding: &Finding) {
        match finding {
            Finding::Torrent(report) => {
                self.torrents += 1;
                self.bad += u64::from(!report.is_good());
                self.absent_pieces += report.absent.len() as u64;
                self.corrupt_pieces += report.corrupt.len() as u64;
                self.extra_files += report.extra.len() as u64;
                self.more_extra |= report.more_extra;
            }
            Finding::Refused(_) | Finding::Index(_) => self.refused += 1,
        }
    }

    /// Returns true if nothing is missing, wrong or refused.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.bad == 0 && self.refused == 0
    }

    /// The last line, as JSON.
    #[must_use]
    pub fn json(&self) -> String {
        let sums = json!({
            "torrents": self.torrents,
            "bad": self.bad,
            "refused": self.refused,
            "absent_pieces": self.absent_pieces,
            "corrupt_pieces": self.corrupt_pieces,
            "extra_files": self.extra_files,
            "more_extra": self.more_extra,
        });
        format!("{sums}\n")
    }
}

impl Display for Sums {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{} torrents, {} bad, {} refused; {} pieces missing, {} corrupt; {}{} extra files",
            self.torrents,
            self.bad,
            self.refused,
            self.absent_pieces,
            self.corrupt_pieces,
            if self.more_extra { "more than " } else { "" },
            self.extra_files
        )
    }
}

/// Lines for a person: one for each fault and each extra file, none for a good torrent.
#[must_use]
pub fn text(finding: &Finding) -> String {
    let mut out = String::new();
    match finding {
        Finding::Refused(refusal) => out = format!("{refusal}\n"),
        Finding::Index(error) => out = format!("{error}\n"),
        Finding::Torrent(report) => {
            let path = Printable::path(&report.path);
            let mut line = |what: &dyn Display| {
                // Writing to a string cannot fail.
                let _ = writeln!(out, "{path}: {what}");
            };
            for fault in &report.faults {
                line(fault);
            }
            let pieces = report.pieces;
            for (list, what) in [(&report.absent, "missing"), (&report.corrupt, "corrupt")] {
                if !list.is_empty() {
                    line(&format_args!("of {pieces} pieces {what}: {}", Ranges(list)));
                }
            }
            for extra in &report.extra {
                line(&format_args!("extra file {}", Printable::path(extra)));
            }
            if report.more_extra {
                line(&"and more extra files, not listed");
            }
        }
    }
    out
}

/// One JSON object on a line.
#[must_use]
pub fn json(finding: &Finding) -> String {
    let object = match finding {
        Finding::Refused(refusal) => refused(&refusal.path, &refusal.reason),
        Finding::Index(error) => refused(&error.path, &error.fault),
        Finding::Torrent(report) => torrent(report),
    };
    format!("{object}\n")
}

fn refused(path: &Path, reason: &dyn Display) -> Value {
    json!({
        "path": printable(path),
        "state": "refused",
        "reason": reason.to_string(),
    })
}

fn torrent(report: &Report) -> Value {
    let extra: Vec<String> = report.extra.iter().map(|path| printable(path)).collect();
    json!({
        "path": printable(&report.path),
        "info_hash": report.info_hash.to_string(),
        "state": if report.is_good() { "good" } else { "bad" },
        "pieces": report.pieces,
        "files": report.faults.iter().map(fault).collect::<Vec<Value>>(),
        "absent": report.absent,
        "corrupt": report.corrupt,
        "extra": extra,
        "more_extra": report.more_extra,
    })
}

/// A file that is missing, damaged or unreadable.
fn fault(error: &ContentError) -> Value {
    match error {
        ContentError::Missing(path) | ContentError::Dangling { path, .. } => {
            json!({ "path": printable(path), "fault": "missing" })
        }
        ContentError::WrongSize {
            path,
            expected,
            found,
        } => json!({
            "path": printable(path),
            "fault": if found < expected { "short" } else { "long" },
            "expected": expected,
            "found": found,
        }),
        ContentError::Unreadable(path, _)
        | ContentError::NotRegular(path)
        | ContentError::Escapes { path, .. }
        | ContentError::Unsafe(path) => json!({
            "path": printable(path),
            "fault": "unreadable",
            "reason": error.to_string(),
        }),
    }
}

fn printable(path: &Path) -> String {
    Printable::path(path).to_string()
}

/// Ascending numbers, those in a row as a range.
struct Ranges<'a>(&'a [u32]);

impl Display for Ranges<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let in_a_row = |one: &u32, next: &u32| one.checked_add(1) == Some(*next);
        for (number, run) in self.0.chunk_by(in_a_row).enumerate() {
            if number > 0 {
                formatter.write_str(", ")?;
            }
            match run {
                [first, .., last] => write!(formatter, "{first}-{last}")?,
                [only] => write!(formatter, "{only}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    use crate::torrent::catalogue::{Refusal, RefusalReason};
    use crate::wire::message::InfoHash;

    fn bad() -> Finding {
        Finding::Torrent(Report {
            path: "/l/a \"b\".torrent".into(),
            info_hash: InfoHash([0xab; 20]),
            pieces: 12,
            faults: vec![
                ContentError::Missing("a".into()),
                ContentError::WrongSize {
                    path: "b".into(),
                    expected: 5,
                    found: 3,
                },
            ],
            absent: vec![0],
            corrupt: vec![2, 3, 4, 9, 11],
            extra: vec!["m/x".into()],
            more_extra: false,
        })
    }

    fn refused() -> Finding {
        Finding::Refused(Refusal {
            path: "/l/c\n.torrent".into(),
            reason: RefusalReason::NotRegular,
        })
    }

    fn good() -> Finding {
        let Finding::Torrent(mut report) = bad() else {
            panic!();
        };
        report.faults.clear();
        report.absent.clear();
        report.corrupt.clear();
        report.extra.clear();
        Finding::Torrent(report)
    }

    #[test]
    fn a_person_reads_a_line_for_each_fault() {
        let expected = [
            "content a is missing",
            "content b has 3 bytes, not 5",
            "of 12 pieces missing: 0",
            "of 12 pieces corrupt: 2-4, 9, 11",
            "extra file m/x",
        ]
        .map(|line| format!("/l/a \"b\".torrent: {line}\n"));
        assert_eq!(text(&bad()), expected.concat());
        assert_eq!(text(&good()), "");
        assert_eq!(text(&refused()), "/l/c\\n.torrent: not a regular file\n");
    }

    #[test]
    fn a_program_reads_one_object_for_each_torrent() {
        let expected = r#"{"path":"/l/a \"b\".torrent","info_hash":"HASH","state":"bad","pieces":12,"files":[{"path":"a","fault":"missing"},{"path":"b","fault":"short","expected":5,"found":3}],"absent":[0],"corrupt":[2,3,4,9,11],"extra":["m/x"],"more_extra":false}"#;
        let expected = expected.replace("HASH", &"ab".repeat(20));
        assert_eq!(json(&bad()), expected + "\n");
        assert_eq!(
            json(&refused()),
            "{\"path\":\"/l/c\\\\n.torrent\",\"state\":\"refused\",\"reason\":\"not a regular file\"}\n"
        );
        assert!(json(&good()).contains("\"state\":\"good\""));
        let error = io::Error::from_raw_os_error(5);
        assert_eq!(
            fault(&ContentError::Unreadable("m/x".into(), error)).to_string(),
            r#"{"path":"m/x","fault":"unreadable","reason":"content m/x is unreadable: Input/output error (os error 5)"}"#
        );
    }

    #[test]
    fn the_sums_say_whether_all_is_good() {
        let mut sums = Sums::default();
        sums.add(&good());
        assert!(sums.is_good());
        sums.add(&bad());
        assert!(!sums.is_good());
        assert_eq!(
            sums.to_string(),
            "2 torrents, 1 bad, 0 refused; 1 pieces missing, 5 corrupt; 1 extra files\n"
        );
        let mut sums = Sums::default();
        sums.add(&refused());
        assert!(!sums.is_good());
        assert!(
            sums.json()
                .starts_with("{\"torrents\":0,\"bad\":0,\"refused\":1,")
        );
    }
}
