//! The responses of an HTTP tracker are the same however they are split, and never beyond bounds.

use hekate::tracker::announce::{self, Answer, MAX_INTERVAL_S, MIN_INTERVAL_S};
use hekate::tracker::response::{MAX_BODY_BYTES, Reader, Response, ResponseError};

type Outcome = (Vec<Response>, Option<ResponseError>);

fn feed<'a>(parts: impl Iterator<Item = &'a [u8]>) -> Outcome {
    let mut reader = Reader::default();
    let mut responses = Vec::new();
    for mut part in parts {
        while !part.is_empty() {
            match reader.read(part) {
                Ok((used, response)) => {
                    assert!(used > 0);
                    part = &part[used..];
                    responses.extend(response);
                }
                Err(error) => return (responses, Some(error)),
            }
        }
    }
    match reader.finish() {
        Ok(response) => responses.extend(response),
        Err(error) => return (responses, Some(error)),
    }
    (responses, None)
}

/// Panics when it does not hold for these bytes.
pub fn check(data: &[u8]) {
    let [size, stream @ ..] = data else {
        return;
    };
    let whole = feed([stream].into_iter());
    assert_eq!(feed(stream.chunks(usize::from(*size) + 1)), whole);
    assert_eq!(feed(stream.chunks(1)), whole);
    for response in whole.0 {
        assert!(response.body.len() <= MAX_BODY_BYTES);
        assert!(response.status >= 200);
        if let Ok(Answer::Accepted { terms, .. }) = announce::parse_answer(&response.body) {
            assert!((MIN_INTERVAL_S..=MAX_INTERVAL_S).contains(&terms.interval_s));
            assert!(terms.min_interval_s <= terms.interval_s);
        }
    }
}
