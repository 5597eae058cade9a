//! Compressed bodies of HTTP responses (RFC 9110, section 8.4.1), decompressed within a bound.

use std::io::Read;

use flate2::read::{DeflateDecoder, GzDecoder, ZlibDecoder};

use super::{MAX_BODY_BYTES, ResponseError};

/// How a body is compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Coding {
    #[default]
    Identity,
    Gzip,
    Deflate,
}

impl Coding {
    /// Parses the field `Content-Encoding`.
    pub(super) fn parse(value: &[u8]) -> Result<Self, ResponseError> {
        match value.trim_ascii().to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Ok(Self::Identity),
            b"gzip" | b"x-gzip" => Ok(Self::Gzip),
            b"deflate" => Ok(Self::Deflate),
            _ => Err(ResponseError::Encoded),
        }
    }

    /// Decompresses a body. Stops at [`MAX_BODY_BYTES`], whatever the body would become.
    pub(super) fn decode(self, body: Vec<u8>) -> Result<Vec<u8>, ResponseError> {
        match self {
            _ if body.is_empty() => Ok(body),
            Self::Identity => Ok(body),
            Self::Gzip => bounded_read(GzDecoder::new(&*body)),
            // Some servers send it without the header of zlib (RFC 1950).
            Self::Deflate => match bounded_read(ZlibDecoder::new(&*body)) {
                Err(ResponseError::BadEncoding) => bounded_read(DeflateDecoder::new(&*body)),
                read => read,
            },
        }
    }
}

/// Reads all that a decoder has, if that is not too much.
fn bounded_read(decoder: impl Read) -> Result<Vec<u8>, ResponseError> {
    let mut plain = Vec::new();
    let most = MAX_BODY_BYTES as u64 + 1;
    let read = decoder.take(most).read_to_end(&mut plain);
    match read {
        Ok(_) if plain.len() > MAX_BODY_BYTES => Err(ResponseError::BodyTooLong),
        Ok(_) => Ok(plain),
        Err(_) => Err(ResponseError::BadEncoding),
    }
}
