//! Responses as trackers send them, as servers in front of them do, and as nobody should.

use std::io::Write;

use super::*;

type Outcome = Result<Vec<Response>, ResponseError>;

/// Feeds parts of at most `size` bytes, then the end of the connection.
fn read(stream: &[u8], size: usize) -> Outcome {
    let mut reader = Reader::default();
    let mut responses = Vec::new();
    for part in stream.chunks(size) {
        let mut rest = part;
        while !rest.is_empty() {
            let (used, response) = reader.read(rest)?;
            assert!(used > 0);
            rest = &rest[used..];
            responses.extend(response);
        }
    }
    responses.extend(reader.finish()?);
    Ok(responses)
}

/// The outcome, which has to be the same however the stream is split.
fn outcome(stream: &[u8]) -> Outcome {
    let whole = read(stream, usize::MAX);
    for size in [1, 2, 3, 7, 100] {
        assert_eq!(read(stream, size), whole, "in parts of {size}");
    }
    whole
}

fn one(stream: &[u8]) -> Response {
    let mut responses = outcome(stream).expect("a response");
    assert_eq!(responses.len(), 1);
    responses.remove(0)
}

#[test]
fn two_responses_on_one_connection() {
    let stream = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde\
        HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nConnection: close\r\n\r\n";
    let responses = outcome(stream).unwrap();
    let seen: Vec<_> = responses
        .iter()
        .map(|response| {
            (
                response.status,
                response.body.as_slice(),
                response.keep_alive,
            )
        })
        .collect();
    assert_eq!(seen, [(200, &b"de"[..], true), (404, b"", false)]);
    assert!(responses[0].may_pipeline);
}

#[test]
fn an_old_server_closes_unless_it_says_otherwise() {
    let old =
        one(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 000002\r\n\r\nde");
    assert!(!old.keep_alive && !old.may_pipeline);
    let old = one(b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 2\r\n\r\nde");
    assert!(old.keep_alive && !old.may_pipeline);
}

#[test]
fn without_a_length_the_body_ends_with_the_connection() {
    let response = one(b"HTTP/1.1 200 OK\n\nd8:intervali60ee");
    assert_eq!(response.body, b"d8:intervali60ee");
    assert!(!response.keep_alive);
}

#[test]
fn chunks_are_joined_and_trailers_passed_over() {
    let stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 99\r\n\r\n\
        3;name=x\r\nd1:\r\n00A \r\n0123456789\r\n0\r\nX-A: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
    let responses = outcome(stream).unwrap();
    assert_eq!(responses[0].body, b"d1:0123456789");
    assert_eq!((responses.len(), responses[1].status), (2, 204));
}

#[test]
fn interim_responses_are_passed_over() {
    let stream = b"HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(one(stream).status, 200);
    let endless = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(17);
    assert_eq!(outcome(&endless), Err(ResponseError::Endless));
}

#[test]
fn what_a_redirect_or_a_busy_server_says() {
    let stream = b"HTTP/1.1 503 Busy\r\nLocation: http://b/\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n";
    let response = one(stream);
    assert_eq!(response.location.as_deref(), Some("http://b/"));
    assert_eq!(response.retry_after_s, Some(120));
}

#[test]
fn endless_heads_are_cut() {
    let line = [
        b"HTTP/1.1 200 OK\r\nX: ".to_vec(),
        vec![b'x'; MAX_HEAD_BYTES],
    ]
    .concat();
    assert_eq!(outcome(&line), Err(ResponseError::HeadTooLong));
    let fields = [
        b"HTTP/1.1 200 OK\r\n".to_vec(),
        b"X: y\r\n".repeat(MAX_HEAD_BYTES),
    ]
    .concat();
    assert_eq!(outcome(&fields), Err(ResponseError::HeadTooLong));
    let many = [
        b"HTTP/1.1 200 OK\r\n".to_vec(),
        b"X: y\r\n".repeat(65),
        b"\r\n".to_vec(),
    ]
    .concat();
    let error = ResponseError::Malformed(httparse::Error::TooManyHeaders);
    assert_eq!(outcome(&many), Err(error));
}

#[test]
fn large_bodies_are_cut_whether_announced_or_not() {
    let gigabyte = b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";
    assert_eq!(outcome(gigabyte), Err(ResponseError::BodyTooLong));
    let more = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n";
    assert_eq!(outcome(more), Err(ResponseError::BodyTooLong));
    let body = vec![b'x'; MAX_BODY_BYTES + 1];
    let silent = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &body].concat();
    assert_eq!(outcome(&silent), Err(ResponseError::BodyTooLong));
    let head = &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..];
    let chunk = [head, b"FFFFFFFF\r\n", &body].concat();
    assert_eq!(outcome(&chunk), Err(ResponseError::BodyTooLong));
    let chunks = [head, &b"1\r\nx\r\n".repeat(MAX_BODY_BYTES + 1)].concat();
    assert_eq!(read(&chunks, 4096), Err(ResponseError::BodyTooLong));
}

#[test]
fn lengths_and_chunks_that_are_none() {
    for length in ["x", "-1", "+1", "", "1 2", "0x10"] {
        let stream = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(
            outcome(stream.as_bytes()),
            Err(ResponseError::BadLength),
            "{length}"
        );
    }
    let two = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n";
    assert_eq!(outcome(two), Err(ResponseError::BadLength));
    let long = "1".repeat(MAX_CHUNK_LINE_BYTES + 1);
    for chunk in [
        "x\r\n",
        "\r\n",
        "-1\r\n",
        "+1\r\n",
        "1\r\nxy\r\n",
        "10000000000000000\r\n",
        &long,
    ] {
        let stream = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
        assert_eq!(
            outcome(stream.as_bytes()),
            Err(ResponseError::BadChunk),
            "{chunk}"
        );
    }
    let trailers = [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"[..],
        &b"X: y\r\n".repeat(17),
    ];
    assert_eq!(outcome(&trailers.concat()), Err(ResponseError::Endless));
}

#[test]
fn unknown_encodings_are_refused() {
    for field in [
        "Content-Encoding: br",
        "Content-Encoding: gzip, gzip",
        "Content-Encoding: gzip\r\nContent-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
    ] {
        let stream = format!("HTTP/1.1 200 OK\r\n{field}\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(outcome(stream.as_bytes()), Err(ResponseError::Encoded));
    }
    let plain = b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(one(plain).status, 200);
}

fn compressed(coding: &str, body: &[u8]) -> Vec<u8> {
    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
    let best = Compression::best();
    let finish = match coding {
        "gzip" | "x-gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), best);
            encoder.write_all(body).and_then(|()| encoder.finish())
        }
        "zlib" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), best);
            encoder.write_all(body).and_then(|()| encoder.finish())
        }
        _ => {
            let mut encoder = DeflateEncoder::new(Vec::new(), best);
            encoder.write_all(body).and_then(|()| encoder.finish())
        }
    };
    finish.unwrap()
}

fn encoded(field: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Encoding: {field}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn compressed_bodies_are_read() {
    let body = b"d8:intervali1800e5:peers0:e";
    for (field, coding) in [
        ("gzip", "gzip"),
        ("X-GZip", "x-gzip"),
        ("deflate", "zlib"),
        ("Deflate", "raw"),
    ] {
        let packed = compressed(coding, body);
        assert_eq!(one(&encoded(field, &packed)).body, body, "{field}");
        // What is cut short is no answer.
        let cut = &packed[..packed.len() / 2];
        let cut = outcome(&encoded(field, cut));
        assert_eq!(cut, Err(ResponseError::BadEncoding), "{field}");
    }
    assert_eq!(one(&encoded("gzip", b"")).body, b"");
    let plain = outcome(&encoded("gzip", body));
    assert_eq!(plain, Err(ResponseError::BadEncoding));
    // The next response on the connection is not affected.
    let packed = encoded("gzip", &compressed("gzip", body));
    let both = [
        &packed[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde",
    ]
    .concat();
    let bodies = outcome(&both).unwrap().into_iter();
    let bodies: Vec<Vec<u8>> = bodies.map(|response| response.body).collect();
    assert_eq!(bodies, [&body[..], b"de"]);
}

#[test]
fn a_compressed_body_becomes_no_longer_than_a_plain_one() {
    for (field, coding) in [("gzip", "gzip"), ("deflate", "zlib"), ("deflate", "raw")] {
        let packed = |length: usize| encoded(field, &compressed(coding, &vec![b'0'; length]));
        assert_eq!(one(&packed(MAX_BODY_BYTES)).body.len(), MAX_BODY_BYTES);
        for length in [MAX_BODY_BYTES + 1, 50_000_000] {
            assert_eq!(outcome(&packed(length)), Err(ResponseError::BodyTooLong));
        }
    }
}

#[test]
fn what_is_not_http_is_refused() {
    for stream in [
        &b"SSH-2.0-OpenSSH\r\n\r\n"[..],
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2\r\n\r\n",
        b"HTTP/1.1 099 A\r\n\r\n",
    ] {
        assert!(matches!(outcome(stream), Err(ResponseError::Malformed(_))));
    }
}

#[test]
fn an_end_inside_a_response_is_an_error() {
    let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nde";
    for length in 1..whole.len() {
        assert_eq!(
            outcome(&whole[..length]),
            Err(ResponseError::Truncated),
            "{length}"
        );
    }
    assert_eq!(outcome(b""), Ok(vec![]));
}
