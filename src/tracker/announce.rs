//! Announces and their answers by any transport, and the answer of an HTTP tracker (BEP 3).

use std::net::IpAddr;

use thiserror::Error;

use crate::bencode::{BencodeError, Dictionary, Value};
use crate::torrent::printable::Printable;
use crate::wire::message::{InfoHash, PeerId};

/// The interval if a tracker names none, or zero: the usual half hour.
pub const DEFAULT_INTERVAL_S: u32 = 1800;

/// The shortest interval that is honoured, in seconds. A tracker that asks for less is broken or hostile.
pub const MIN_INTERVAL_S: u32 = 60;

/// The longest interval that is honoured: peers find a torrent that is announced once a day.
pub const MAX_INTERVAL_S: u32 = 24 * 3600;

/// A longer `tracker id` is not kept, since every request would carry it.
pub const MAX_TRACKER_ID_BYTES: usize = 128;

/// Peers that an announce asks for. A seeder needs none, but some trackers read zero as "as many as
/// possible".
pub const PEERS_WANTED: u32 = 1;

/// The same for a torrent whose peers are dialled: the usual default of trackers.
pub const PEERS_TO_DIAL: u32 = 50;

/// Who announces: the same in every announce of the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The peer id that trackers give to peers.
    pub peer_id: PeerId,
    /// Identifies us to the tracker when the address changes.
    pub key: u32,
    /// The port that peers connect to.
    pub port: u16,
    /// The address that peers connect to, if the announce comes from another one.
    pub ip: Option<IpAddr>,
}

/// The event of an announce. A seeder never completes a torrent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// None: the torrent is still served.
    None,
    /// The torrent is announced for the first time.
    Started,
    /// The torrent is not served any more.
    Stopped,
}

/// One announce.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announce {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Bytes uploaded since `started`.
    pub uploaded: u64,
    /// What has happened to the torrent.
    pub event: Event,
}

/// When the tracker wants the next announce, in seconds from [`MIN_INTERVAL_S`] to
/// [`MAX_INTERVAL_S`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// At the latest.
    pub interval_s: u32,
    /// At the earliest; at most the interval.
    pub min_interval_s: u32,
}

impl Terms {
    /// The terms of a tracker's answer, brought within bounds.
    #[must_use]
    pub fn new(interval_s: Option<i64>, min_interval_s: Option<i64>) -> Self {
        let bounded = |seconds: i64| {
            let seconds = seconds.clamp(MIN_INTERVAL_S.into(), MAX_INTERVAL_S.into());
            u32::try_from(seconds).unwrap_or(MAX_INTERVAL_S)
        };
        let said = |seconds: Option<i64>| seconds.filter(|seconds| *seconds > 0).map(bounded);
        let interval_s = said(interval_s).unwrap_or(DEFAULT_INTERVAL_S);
        // Without a minimum, a tracker is not asked much earlier than at the interval.
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
    /// The tracker named no time: at its usual interval.
    Unsaid,
    /// After this many seconds, within the bounds of intervals (BEP 31).
    After(u32),
    /// Not again (BEP 31).
    Never,
}

/// The answer of a tracker.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The announce was accepted.
    Accepted {
        /// When the tracker wants the next announce.
        terms: Terms,
        /// To be repeated in later announces (BEP 3).
        tracker_id: Option<Box<[u8]>>,
        /// A message for a person, with unprintable bytes escaped.
        warning: Option<String>,
        /// Complete peers, ourselves included; 0 if it was not said.
        seeds: u32,
    },
    /// The announce was refused.
    Refused {
        /// The reason, with unprintable bytes escaped.
        reason: String,
        /// When to try again.
        retry: Retry,
    },
}

/// Why bytes are no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AnswerError {
    /// Not a dictionary.
    #[error("the answer is not bencode: {0}")]
    Bencode(#[from] BencodeError),
    /// A dictionary that neither accepts nor refuses.
    #[error("the answer has neither an interval nor a reason for failure")]
    Empty,
}

/// Parses the dictionary of an HTTP tracker, except its peers, which [`super::peers`] parses.
///
/// # Errors
/// An [`AnswerError`] if it is no tracker's answer. Bytes behind the dictionary are ignored.
pub fn parse_answer(body: &[u8]) -> Result<Answer, AnswerError> {
    let (mut interval, mut min_interval) = (None, None);
    let (mut failure, mut warning, mut tracker_id) = (None, None, None);
    let mut retry = Retry::Unsaid;
    let (mut has_peers, mut seeds) = (false, 0);
    for entry in Dictionary::open(body)? {
        match entry? {
            (b"interval", value) => interval = number(value),
            (b"min interval", value) => min_interval = number(value),
            (b"failure reason", Value::Bytes(reason)) => failure = Some(shown(reason)),
            (b"warning message", Value::Bytes(text)) => warning = Some(shown(text)),
            (b"tracker id", Value::Bytes(id)) if id.len() <= MAX_TRACKER_ID_BYTES => {
                tracker_id = Some(id.into());
            }
            (b"retry in", value) => retry = parse_retry(value),
            (b"complete", value) => {
                has_peers = true;
                seeds = number(value)
                    .map_or(0, |count| u32::try_from(count.max(0)).unwrap_or(u32::MAX));
            }
            (b"peers" | b"peers6" | b"incomplete", _) => has_peers = true,
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
        seeds,
    })
}

/// A number, which some trackers write as a string.
fn number(value: Value<'_>) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(number.saturated()),
        Value::Bytes(digits) => std::str::from_utf8(digits).ok()?.parse().ok(),
        _ => None,
    }
}

/// BEP 31: minutes, or the word "never".
fn parse_retry(value: Value<'_>) -> Retry {
    if value == Value::Bytes(b"never") {
        return Retry::Never;
    }
    match number(value) {
        Some(minutes) if minutes > 0 => {
            let terms = Terms::new(Some(minutes.saturating_mul(60)), None);
            Retry::After(terms.interval_s)
        }
        _ => Retry::Unsaid,
    }
}

/// Text of a tracker with unprintable bytes escaped.
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
            seeds: 0,
        }
    }

    fn refused(reason: &str, retry: Retry) -> Answer {
        Answer::Refused {
            reason: reason.to_owned(),
            retry,
        }
    }

    #[test]
    fn a_usual_answer_is_parsed() {
        let body = b"d8:completei0e10:incompletei0e8:intervali1800e12:min intervali900e5:peers0:e";
        assert_eq!(parse_answer(body), Ok(terms(1800, 900)));
        let body = b"d8:intervali600e5:peersld2:ip9:127.0.0.14:porti1eee6:peers60:ejunk";
        assert_eq!(parse_answer(body), Ok(terms(600, 450)));
    }

    #[test]
    fn tracker_id_and_warning_are_parsed() {
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
    fn complete_peers_are_counted() {
        for (body, expected) in [
            (&b"d8:completei2ee"[..], 2),
            (b"d8:complete1:2e", 2),
            (b"d8:completei-2ee", 0),
            (b"d8:completei99999999999999999999ee", u32::MAX),
            (b"d8:intervali60ee", 0),
        ] {
            let Ok(Answer::Accepted { seeds, .. }) = parse_answer(body) else {
                panic!("refused");
            };
            assert_eq!(seeds, expected, "{}", body.escape_ascii());
        }
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
    fn refusals_name_the_time_of_the_next_try() {
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
    fn bytes_that_are_no_answer_are_an_error() {
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
