//! URLs of trackers and redirects: nothing in them breaks out of a request, and what is shown of
//! them can be read again.

use hekate::tracker::announce::{Announce, Event, Identity};
use hekate::tracker::http;
use hekate::tracker::url::{Scheme, TrackerUrl, split_credentials};
use hekate::wire::message::{InfoHash, PeerId};

fn check_url(url: &TrackerUrl) {
    let shown = url.site.to_string();
    let (credentials, path) = split_credentials(&url.path);
    let again = TrackerUrl::parse(&format!("{shown}{path}")).expect("it was read before");
    assert_eq!(again.site, url.site);
    if url.site.scheme == Scheme::Udp {
        return;
    }
    let mut request = Vec::new();
    let identity = Identity {
        peer_id: PeerId([b'p'; 20]),
        key: 0,
        port: 1,
        ip: None,
    };
    let announce = Announce {
        info_hash: InfoHash([0; 20]),
        uploaded: 0,
        event: Event::None,
    };
    http::write_request(
        &mut request,
        (&url.site, &url.path),
        &identity,
        &announce,
        1,
        None,
    );
    let lines = 6 + usize::from(credentials.is_some());
    assert_eq!(request.split(|byte| *byte == b'\n').count(), lines);
    assert_eq!(
        request
            .windows(4)
            .filter(|four| four == b"\r\n\r\n")
            .count(),
        1
    );
    let line = request
        .split(|byte| *byte == b'\r')
        .next()
        .unwrap_or_default();
    assert_eq!(line.split(|byte| *byte == b' ').count(), 3);
}

/// Panics when it does not hold for these bytes.
pub fn check(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    let (url, location) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(url) = TrackerUrl::parse(url) else {
        return;
    };
    check_url(&url);
    if let Ok(to) = url.redirect(location) {
        assert_ne!(to.site.scheme, Scheme::Udp);
        assert!(url.site.scheme != Scheme::Https || to.site.scheme == Scheme::Https);
        check_url(&to);
    }
}
