//! The framing of HTTP responses, from bytes in any split (RFC 9112). Every part is bounded.

mod coding;

use thiserror::Error;

use self::coding::Coding;

/// Status line and header fields together. Trackers send a few hundred bytes.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// Fields of one response.
const MAX_FIELDS: usize = 64;

/// The body, as it is sent and decompressed. A tracker that ignores `numwant` sends 200 peers as
/// dictionaries, in 16 KB.
pub const MAX_BODY_BYTES: usize = 64 * 1024;

/// A line of chunked framing: a length in hexadecimal and chunk extensions, or a field of the trailer.
const MAX_CHUNK_LINE_BYTES: usize = 1024;

/// Fields of a trailer, and interim responses (1xx), that are skipped.
const MAX_SKIPPED: u32 = 16;

/// Why bytes are no usable response.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum ResponseError {
    /// Not HTTP/1.
    #[error("the response is not HTTP/1: {0}")]
    Malformed(httparse::Error),
    /// More than [`MAX_HEAD_BYTES`] without an end of the header.
    #[error("the header of the response is longer than {MAX_HEAD_BYTES} bytes")]
    HeadTooLong,
    /// More than [`MAX_BODY_BYTES`], announced or sent.
    #[error("the body of the response is longer than {MAX_BODY_BYTES} bytes")]
    BodyTooLong,
    /// A length that is not a number, or two that differ.
    #[error("the length of the response is not a number")]
    BadLength,
    /// Chunks that do not follow their framing.
    #[error("the chunks of the response are malformed")]
    BadChunk,
    /// An encoding other than gzip and deflate, or several.
    #[error("the response has an unknown encoding")]
    Encoded,
    /// A body that is not in the encoding that it is said to have.
    #[error("the body of the response cannot be decompressed")]
    BadEncoding,
    /// More than `MAX_SKIPPED` interim responses or trailers.
    #[error("the response has too many interim responses or trailers")]
    Endless,
    /// The connection ended inside a response.
    #[error("the connection was closed inside a response")]
    Truncated,
}

/// One whole response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Response {
    /// The three digits.
    pub status: u16,
    /// The field `Location`.
    pub location: Option<String>,
    /// Seconds in the field `Retry-After`.
    pub retry_after_s: Option<u64>,
    /// The connection may carry another request.
    pub keep_alive: bool,
    /// It may carry several requests at the same time: HTTP/1.0 has no pipelining.
    pub may_pipeline: bool,
    /// The body without its framing, decompressed.
    pub body: Vec<u8>,
}

/// Parses responses one after another.
#[derive(Debug, Default)]
pub struct Reader {
    state: State,
    /// The incomplete head, or line of chunked framing.
    line: Vec<u8>,
    response: Option<Response>,
    coding: Coding,
    skipped: u32,
}

/// What the next bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum State {
    #[default]
    Head,
    /// This many bytes of the body are left.
    Length(usize),
    UntilClose,
    ChunkLength,
    Chunk(usize),
    /// The end of line behind a chunk.
    ChunkEnd,
    Trailer,
}

impl Reader {
    /// Takes bytes as they come. Returns how many were used, and a response when one is complete; the
    /// other bytes are to be given again.
    ///
    /// # Errors
    /// A [`ResponseError`], after which the connection cannot be used.
    pub fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Response>), ResponseError> {
        let mut rest = input;
        while !rest.is_empty() {
            if self.step(&mut rest)? {
                let response = self.take()?;
                return Ok((input.len() - rest.len(), response));
            }
        }
        Ok((input.len(), None))
    }

    /// The connection has ended. Returns the response that it ends, if any.
    ///
    /// # Errors
    /// [`ResponseError::Truncated`] if a response is incomplete.
    pub fn finish(&mut self) -> Result<Option<Response>, ResponseError> {
        match self.state {
            State::UntilClose => self.take(),
            State::Head if self.line.is_empty() => Ok(None),
            _ => Err(ResponseError::Truncated),
        }
    }

    fn take(&mut self) -> Result<Option<Response>, ResponseError> {
        self.state = State::Head;
        self.line = Vec::new();
        self.skipped = 0;
        let Some(mut response) = self.response.take() else {
            return Ok(None);
        };
        response.body = self.coding.decode(response.body)?;
        Ok(Some(response))
    }

    /// Uses some bytes. Returns true if the response is complete.
    fn step(&mut self, rest: &mut &[u8]) -> Result<bool, ResponseError> {
        match self.state {
            State::Head => self.head(rest),
            State::Length(left) => {
                let left = self.body(rest, left)?;
                self.state = State::Length(left);
                Ok(left == 0)
            }
            State::UntilClose => {
                self.body(rest, usize::MAX)?;
                Ok(false)
            }
            State::Chunk(left) => {
                let left = self.body(rest, left)?;
                self.state = if left == 0 {
                    State::ChunkEnd
                } else {
                    State::Chunk(left)
                };
                Ok(false)
            }
            State::ChunkLength | State::ChunkEnd | State::Trailer => self.chunk_line(rest),
        }
    }

    fn head(&mut self, rest: &mut &[u8]) -> Result<bool, ResponseError> {
        let is_line = take_until(rest, &mut self.line, b'\n');
        // An empty line before the status line is ignored (RFC 9112, section 2.2).
        if matches!(&*self.line, b"\n" | b"\r\n") {
            self.line.clear();
        }
        let is_whole = self.line.ends_with(b"\n\r\n") || self.line.ends_with(b"\n\n");
        if !is_line || !is_whole {
            return bounded(&self.line, MAX_HEAD_BYTES, ResponseError::HeadTooLong);
        }
        let (response, state, coding) = parse_head(&self.line)?;
        self.line.clear();
        if (100..200).contains(&response.status) {
            return self.skip();
        }
        self.response = Some(response);
        self.coding = coding;
        self.state = state;
        Ok(state == State::Length(0))
    }

    /// Moves at most `left` bytes to the body. Returns how many are left.
    fn body(&mut self, rest: &mut &[u8], left: usize) -> Result<usize, ResponseError> {
        let (part, tail) = rest.split_at(left.min(rest.len()));
        *rest = tail;
        let response = self.response.as_mut().expect("a body is of a response");
        if response.body.len() + part.len() > MAX_BODY_BYTES {
            return Err(ResponseError::BodyTooLong);
        }
        response.body.extend_from_slice(part);
        Ok(left - part.len())
    }

    fn chunk_line(&mut self, rest: &mut &[u8]) -> Result<bool, ResponseError> {
        let ended = take_until(rest, &mut self.line, b'\n');
        bounded(&self.line, MAX_CHUNK_LINE_BYTES, ResponseError::BadChunk)?;
        if !ended {
            return Ok(false);
        }
        let line = self.line.trim_ascii_end();
        let state = match self.state {
            State::ChunkEnd if line.is_empty() => State::ChunkLength,
            State::ChunkLength => match parse_chunk_length(line)? {
                0 => State::Trailer,
                length => State::Chunk(length),
            },
            State::Trailer if line.is_empty() => return Ok(true),
            State::Trailer => {
                self.line.clear();
                return self.skip();
            }
            _ => return Err(ResponseError::BadChunk),
        };
        self.state = state;
        self.line.clear();
        Ok(false)
    }

    fn skip(&mut self) -> Result<bool, ResponseError> {
        self.skipped += 1;
        if self.skipped > MAX_SKIPPED {
            return Err(ResponseError::Endless);
        }
        Ok(false)
    }
}

/// Moves bytes to `line`, up to and with `end`. Whether that was found.
fn take_until(rest: &mut &[u8], line: &mut Vec<u8>, end: u8) -> bool {
    let length = rest.iter().position(|byte| *byte == end).map(|at| at + 1);
    let (part, tail) = rest.split_at(length.unwrap_or(rest.len()));
    line.extend_from_slice(part);
    *rest = tail;
    length.is_some()
}

/// Never whole, but perhaps too long.
fn bounded(line: &[u8], limit: usize, error: ResponseError) -> Result<bool, ResponseError> {
    if line.len() > limit {
        Err(error)
    } else {
        Ok(false)
    }
}

/// The response, what follows the head, and how the body is compressed.
fn parse_head(head: &[u8]) -> Result<(Response, State, Coding), ResponseError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut fields);
    let whole = parsed.parse(head).map_err(ResponseError::Malformed)?;
    let status = parsed.code.filter(|status| *status >= 100);
    let (httparse::Status::Complete(_), Some(status)) = (whole, status) else {
        return Err(ResponseError::Malformed(httparse::Error::Status));
    };
    let modern = parsed.version == Some(1);
    let mut response = Response {
        status,
        location: None,
        retry_after_s: None,
        keep_alive: modern,
        may_pipeline: modern,
        body: Vec::new(),
    };
    let (mut length, mut chunked, mut coding) = (None, false, Coding::Identity);
    for field in parsed.headers.iter() {
        let is = |name| field.name.eq_ignore_ascii_case(name);
        let has = |token: &str| has_token(field.value, token);
        if is("content-length") {
            let said = parse_length(field.value)?;
            if length.is_some_and(|earlier| earlier != said) {
                return Err(ResponseError::BadLength);
            }
            length = Some(said);
        } else if is("transfer-encoding") {
            // Another coding than this one would have to be undone.
            if !field.value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(ResponseError::Encoded);
            }
            chunked = true;
        } else if is("content-encoding") {
            // Nobody compresses twice.
            if coding != Coding::Identity {
                return Err(ResponseError::Encoded);
            }
            coding = Coding::parse(field.value)?;
        } else if is("connection") {
            response.keep_alive = !has("close") && (modern || has("keep-alive"));
        } else if is("location") {
            response.location = std::str::from_utf8(field.value).ok().map(str::to_owned);
        } else if is("retry-after") {
            let digits = std::str::from_utf8(field.value).ok();
            response.retry_after_s = digits.and_then(|digits| digits.trim().parse().ok());
        }
    }
    let state = match length {
        // RFC 9112, section 6.3: these have no body, and chunks count more than a length.
        _ if matches!(status, 100..200 | 204 | 304) => State::Length(0),
        _ if chunked => State::ChunkLength,
        Some(length) if length > MAX_BODY_BYTES => return Err(ResponseError::BodyTooLong),
        Some(length) => State::Length(length),
        None => {
            response.keep_alive = false;
            State::UntilClose
        }
    };
    Ok((response, state, coding))
}

/// Leading zeros are let pass: opentracker pads its lengths with blanks or zeros.
fn parse_length(value: &[u8]) -> Result<usize, ResponseError> {
    let digits = value.trim_ascii();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(ResponseError::BadLength);
    }
    Ok(digits.iter().fold(0_usize, |value, digit| {
        let digit = usize::from(digit - b'0');
        value.saturating_mul(10).saturating_add(digit)
    }))
}

fn parse_chunk_length(line: &[u8]) -> Result<usize, ResponseError> {
    let digits = line.split(|byte| *byte == b';').next();
    let digits = digits.and_then(|digits| std::str::from_utf8(digits.trim_ascii_end()).ok());
    // `from_str_radix` takes a sign too.
    let digits = digits.filter(|digits| !digits.starts_with(['+', '-']));
    let length = digits.and_then(|digits| usize::from_str_radix(digits, 16).ok());
    length.ok_or(ResponseError::BadChunk)
}

/// Whether a list of tokens has this one (RFC 9110, section 5.6.1).
fn has_token(value: &[u8], token: &str) -> bool {
    let mut tokens = value.split(|byte| *byte == b',');
    tokens.any(|found| found.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

#[cfg(test)]
mod tests;
