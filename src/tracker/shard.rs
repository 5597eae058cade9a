//! Which torrents this machine announces, of a library that several machines serve.
//!
//! Torrents are divided by info-hash, so that machines agree without communicating, whatever copies of
//! the library they have.

use std::fmt;
use std::str::FromStr;

use crate::wire::message::InfoHash;

/// Machines that share a library at most: a thousand times 20 million torrents are enough.
const MAX_SHARES: u32 = 1000;

/// One share of all info-hashes: they are uniformly distributed, so that shares are equal.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shard {
    /// From 1.
    number: u32,
    of: u32,
}

impl Shard {
    /// Returns true if an info-hash is in this share. It is in exactly one.
    #[must_use]
    pub fn has(&self, info_hash: &InfoHash) -> bool {
        let [.., a, b, c, d, e, f, g, h] = info_hash.0;
        let last = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        last % u64::from(self.of) == u64::from(self.number - 1)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/');
        let parts = parts.and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) && of <= MAX_SHARES => {
                Ok(Self { number, of })
            }
            _ => Err(format!(
                "must be a share and the number of shares, as in 1/3, up to {MAX_SHARES}"
            )),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_torrent_is_in_one_share_and_shares_are_equal() {
        let mut random = fastrand::Rng::with_seed(6);
        for of in [1, 2, 3, 7] {
            let shards: Vec<Shard> = (1..=of)
                .map(|number| format!("{number}/{of}").parse().unwrap())
                .collect();
            let mut counts = vec![0_u32; shards.len()];
            for _ in 0..7000 {
                let info_hash = InfoHash(std::array::from_fn(|_| random.u8(..)));
                let has: Vec<bool> = shards.iter().map(|shard| shard.has(&info_hash)).collect();
                assert_eq!(has.iter().filter(|has| **has).count(), 1);
                (counts.iter_mut().zip(has)).for_each(|(count, has)| *count += u32::from(has));
            }
            let fair = 7000 / of;
            for count in counts {
                assert!((fair * 9 / 10..=fair * 11 / 10).contains(&count), "{count}");
            }
        }
    }

    #[test]
    fn an_invalid_share_is_refused() {
        for wrong in [
            "",
            "1",
            "0/2",
            "3/2",
            "1/0",
            "-1/2",
            "1/2/3",
            "1/1001",
            "a/b",
            "1/4294967296",
        ] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong:?}");
        }
        assert_eq!("2/3".parse::<Shard>().unwrap().to_string(), "2/3");
    }
}
