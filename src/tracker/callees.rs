//! For which torrents `--connect` dials peers.
//!
//! Owns what may be said of it: all torrents, or some by their info-hash. It must not know how peers
//! are called.

use std::collections::HashSet;

use crate::wire::message::InfoHash;

/// See the module's text. Nobody's at first.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Callees {
    all: bool,
    torrents: HashSet<InfoHash>,
}

impl Callees {
    /// Reads `all` and info-hashes.
    ///
    /// # Errors
    /// When one is neither.
    pub fn parse(values: &[String]) -> Result<Self, String> {
        let mut callees = Self::default();
        for value in values {
            match InfoHash::from_hex(value) {
                Some(info_hash) => drop(callees.torrents.insert(info_hash)),
                None if value == "all" => callees.all = true,
                None => return Err("neither `all` nor an info-hash of 40 digits".to_owned()),
            }
        }
        Ok(callees)
    }

    /// Whether peers of this torrent are called.
    #[must_use]
    pub fn has(&self, info_hash: &InfoHash) -> bool {
        self.all || self.torrents.contains(info_hash)
    }

    /// Whether nobody's are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.torrents.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_some_by_their_info_hash() {
        let parse = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            Callees::parse(&values)
        };
        let (one, other) = (InfoHash([0x1a; 20]), InfoHash([0x2b; 20]));
        assert!(parse(&[]).unwrap().is_empty());
        assert!(!parse(&[]).unwrap().has(&one));
        assert!(parse(&["all"]).unwrap().has(&one));
        let some = parse(&[&one.to_string(), &one.to_string().to_uppercase()]).unwrap();
        assert!(some.has(&one) && !some.has(&other) && !some.is_empty());
        for wrong in [
            "",
            "All",
            "/srv/library",
            "1a1a",
            "+a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a1a",
        ] {
            assert!(parse(&[wrong]).is_err(), "{wrong}");
        }
    }
}
