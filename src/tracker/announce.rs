//! What an announce says and what its answer may say, whatever carries them.
//!
//! Owns the vocabulary, the reading of an HTTP tracker's dictionary (BEP 3), and the bounds of what
//! a tracker may ask for. It must not know sockets, nor when announces are made.

use std::net::IpAddr;

use thiserror::Error;

use crate::bencode::{BencodeError, Dictionary, Value};
use crate::torrent::printable::Printable;
use crate::wire::message::{InfoHash, PeerId};

/// What a tracker gets that names no interval, or one of zero: the usual half hour.
pub const DEFAULT_INTERVAL_S: u32 = 1800;

/// The shortest interval that is honoured. A tracker that asks for less is broken or hostile.
pub const MIN_INTERVAL_S: u32 = 60;

/// The longest. A torrent that is announced less than once a day is not announced.
pub const MAX_INTERVAL_S: u32 = 24 * 3600;

/// A `tracker id` that is longer is not kept, since every request would carry it.
pub const MAX_TRACKER_ID_BYTES: usize = 128;

/// Peers that are asked for. A seeder needs none, but some trackers read zero as "as many as
/// possible".
pub const PEERS_WANTED: u32 = 1;

/// The same for a torrent whose peers are called: what trackers give without being asked.
pub const PEERS_TO_CALL: u32 = 50;

/// Who announces: the same in every announce of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// What peers will be told.
    pub peer_id: PeerId,
    /// Proves to the tracker that it is still us when the address changes.
    pub key: u32,
    /// Where peers may connect.
    pub port: u16,
    /// Where peers may connect when it is not where the announce comes from.
    pub ip: Option<IpAddr>,
}

/// What has happened to the torrent. A seeder never completes anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Nothing: it is still there.
    None,
    /// It is announced for the first time.
    Started,
    /// It is not served any more.
    Stopped,
}

/// One announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announce {
    /// Which torrent.
    pub info_hash: InfoHash,
    /// Bytes uploaded since it was started.
    pub uploaded: u64,
    /// What has happened.
    pub event: Event,
}

/// When the tracker wants to hear of the torrent again. Both are within bounds, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// At the latest then.
    pub interval_s: u32,
    /// Not before; at most the interval.
    pub min_interval_s: u32,
}

impl Terms {
    /// Reads what a tracker said, in seconds, and brings it within bounds.
    #[must_use]
    pub fn new(interval_s: Option<i64>, min_interval_s: Option<i64>) -> Self {
        let bounded = |seconds: i64| {
            let seconds = seconds.clamp(MIN_INTERVAL_S.into(), MAX_INTERVAL_S.into());
            u32::try_from(seconds).unwrap_or(MAX_INTERVAL_S)
        };
        let said = |seconds: Option<i64>| seconds.filter(|seconds| *seconds > 0).map(bounded);
        let interval_s = said(interval_s).unwrap_or(DEFAULT_INTERVAL_S);
        // Who names no minimum is not asked much earlier than at the interval.
        let least = said(min_interval_s).unwrap_or(interval_s - interval_s / 4);
        Self {
            interval_s: interval_s.max(least),
            min_interval_s: least,
        }
    }
}

impl Default for Terms {
    fn default() -> Self {
        Self::new(None, None)
    }
}

/// When an announce that was refused may be tried again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Retry {
    /// The tracker did not say: at its usual interval.
    Unsaid,
    /// After so many seconds, within the bounds of intervals (BEP 31).
    After(u32),
    /// Not again (BEP 31).
    Never,
}

/// What a tracker answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The torrent is known to it now.
    Accepted {
        /// When it wants to hear of it again.
        terms: Terms,
        /// To be repeated in later announces (BEP 3).
        tracker_id: Option<Box<[u8]>>,
        /// Something for a person to read.
        warning: Option<String>,
    },
    /// The tracker does not want it.
    Refused {
        /// Why, fit to be shown.
        reason: String,
        /// When to try again.
        retry: Retry,
    },
}

/// Why an answer makes no sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AnswerError {
    /// Not a dictionary.
    #[error("the answer is not bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// A dictionary that is neither consent nor refusal.
    #[error("the answer has neither an interval nor a reason for failure")]
    Empty,
}

/// Reads the dictionary of an HTTP tracker. Peers are [`super::peers`]' matter.
///
/// # Errors
/// An [`AnswerError`] when it is no tracker's answer. What follows the dictionary is ignored.
pub fn parse_answer(body: &[u8]) -> Result<Answer, AnswerError> {
    let (mut interval, mut min_interval) = (None, None);
    let (mut failure, mut warning, mut tracker_id) = (None, None, None);
    let mut retry = Retry::Unsaid;
    let mut has_peers = false;
    for entry in Dictionary::open(body)? {
        match entry? {
            (b"interval", value) => interval = seconds(value),
            (b"min interval", value) => min_interval = seconds(value),
            (b"failure reason", Value::Bytes(reason)) => failure = Some(shown(reason)),
            (b"warning message", Value::Bytes(text)) => warning = Some(shown(text)),
            (b"tracker id", Value::Bytes(id)) if id.len() <= MAX_TRACKER_ID_BYTES => {
                tracker_id = Some(id.into());
            }
            (b"retry in", value) => retry = parse_retry(value),
            (b"peers" | b"peers6" | b"complete" | b"incomplete", _) => has_peers = true,
            _ => {}
        }
    }
    if let Some(reason) = failure {
        return Ok(Answer::Refused { reason, retry });
    }
    if interval.is_none() && !has_peers {
        return Err(AnswerError::Empty);
    }
    Ok(Answer::Accepted {
        terms: Terms::new(interval, min_interval),
        tracker_id,
        warning,
    })
}

/// Some trackers write their numbers as strings.
fn seconds(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Integer(seconds) => Some(seconds.saturated()),
        Value::Bytes(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

/// BEP 31: minutes, or the word "never".
fn parse_retry(value: Value<'_>) -> Retry {
    if value == Value::Bytes(b"never") {
        return Retry::Never;
    }
    match seconds(value) {
        Some(minutes) if minutes > 0 => {
            let terms = Terms::new(Some(minutes.saturating_mul(60)), None);
            Retry::After(terms.interval_s)
        }
        _ => Retry::Unsaid,
    }
}

/// Text of a tracker as it may stand in a log.
#[must_use]
pub fn shown(text: &[u8]) -> String {
    Printable(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(interval_s: u32, min_interval_s: u32) -> Answer {
        Answer::Accepted {
            terms: Terms {
                interval_s,
                min_interval_s,
            },
            tracker_id: None,
            warning: None,
        }
    }

    fn refused(reason: &str, retry: Retry) -> Answer {
        Answer::Refused {
            reason: reason.to_owned(),
            retry,
        }
    }

    #[test]
    fn a_usual_answer_is_read() {
        let body = b"d8:completei1e10:incompletei0e8:intervali1800e12:min intervali900e5:peers0:e";
        assert_eq!(parse_answer(body), Ok(terms(1800, 900)));
        let body = b"d8:intervali600e5:peersld2:ip9:127.0.0.14:porti1eee6:peers60:ejunk";
        assert_eq!(parse_answer(body), Ok(terms(600, 450)));
    }

    #[test]
    fn what_is_to_be_kept_or_shown_is_read() {
        let body = b"d8:intervali60e10:tracker id3:\x00ab15:warning message4:a\nb!e";
        let Ok(Answer::Accepted {
            tracker_id,
            warning,
            ..
        }) = parse_answer(body)
        else {
            panic!("refused");
        };
        assert_eq!(tracker_id.as_deref(), Some(&b"\x00ab"[..]));
        assert_eq!(warning.as_deref(), Some("a\\nb!"));
        let long = [&b"d8:intervali60e10:tracker id129:"[..], &[1; 129], b"e"].concat();
        assert!(matches!(
            parse_answer(&long),
            Ok(Answer::Accepted {
                tracker_id: None,
                ..
            })
        ));
    }

    #[test]
    fn intervals_are_brought_within_bounds() {
        for (body, expected) in [
            (&b"d8:intervali0ee"[..], terms(1800, 1350)),
            (b"d8:intervali-5ee", terms(1800, 1350)),
            (b"d8:intervali1ee", terms(60, 45)),
            (b"d8:intervali3155760000ee", terms(86400, 64800)),
            (
                b"d8:intervali99999999999999999999999ee",
                terms(86400, 64800),
            ),
            (b"d8:interval4:18005:peers0:e", terms(1800, 1350)),
            (b"d8:intervali600e12:min intervali1200ee", terms(1200, 1200)),
            (b"d8:intervali600e12:min intervali0ee", terms(600, 450)),
            (b"d5:peers0:e", terms(1800, 1350)),
        ] {
            assert_eq!(parse_answer(body), Ok(expected), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn refusals_say_when_to_try_again() {
        for (body, expected) in [
            (
                &b"d14:failure reason2:noe"[..],
                refused("no", Retry::Unsaid),
            ),
            (
                b"d14:failure reason2:no8:retry ini5ee",
                refused("no", Retry::After(300)),
            ),
            (
                b"d14:failure reason2:no8:retry in1:5e",
                refused("no", Retry::After(300)),
            ),
            (
                b"d14:failure reason2:no8:retry in5:nevere",
                refused("no", Retry::Never),
            ),
            (
                b"d14:failure reason2:no8:retry ini-1ee",
                refused("no", Retry::Unsaid),
            ),
            (
                b"d14:failure reason2:no8:retry ini9223372036854775807ee",
                refused("no", Retry::After(MAX_INTERVAL_S)),
            ),
            (
                b"d14:failure reason1:\x1b8:intervali60ee",
                refused("\\u{1b}", Retry::Unsaid),
            ),
        ] {
            assert_eq!(parse_answer(body), Ok(expected), "{}", body.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for body in [
            &b""[..],
            b"<html>",
            b"d8:intervali1800e",
            b"i5e",
            b"d8:interval",
        ] {
            assert!(matches!(parse_answer(body), Err(AnswerError::Bencode(_))));
        }
        for body in [&b"de"[..], b"d14:failure reasoni5ee", b"d8:intervallee"] {
            assert_eq!(parse_answer(body), Err(AnswerError::Empty));
        }
    }
}
