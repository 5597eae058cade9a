//! The dictionary of an HTTP tracker: its intervals are bounded, its texts fit one line, and its peers
//! are so many at most.

use hekate::tracker::announce::{self, Answer, MAX_INTERVAL_S, MIN_INTERVAL_S, Retry};
use hekate::tracker::peers;

fn is_one_line(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Panics when it does not hold for these bytes.
pub fn check(body: &[u8]) {
    assert!(peers::from_answer(body).len() <= peers::MAX_PEERS);
    let bounds = MIN_INTERVAL_S..=MAX_INTERVAL_S;
    match announce::parse_answer(body) {
        Ok(Answer::Accepted {
            terms,
            tracker_id,
            warning,
            ..
        }) => {
            assert!(bounds.contains(&terms.interval_s));
            assert!(terms.min_interval_s <= terms.interval_s);
            assert!(tracker_id.is_none_or(|id| id.len() <= announce::MAX_TRACKER_ID_BYTES));
            assert!(warning.is_none_or(|text| is_one_line(&text)));
        }
        Ok(Answer::Refused { reason, retry }) => {
            assert!(is_one_line(&reason));
            if let Retry::After(seconds) = retry {
                assert!(bounds.contains(&seconds));
            }
        }
        Err(_) => {}
    }
}
