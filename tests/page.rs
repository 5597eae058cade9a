//! The status page as people use it: by day and by night, on a phone, by keyboard.
//!
//! Owns a headless browser that is spoken to by the protocol of its developers' tools, over a pipe.
//! What the figures say is in `tests/status.rs`.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use support::daemon::Daemon;
use support::leecher::{FAST, Leecher};
use support::torrent::TorrentBuilder;
use support::wait_until;

/// Debian's browser; a machine without it is told of by `make test-deps`.
const CHROMIUM: &str = "/usr/bin/chromium";
const FLAGS: &[&str] = &[
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
];
const DEADLINE: Duration = Duration::from_secs(60);

/// What WCAG 2.1 demands of text, level AA.
const CONTRAST: f64 = 4.5;

/// The least contrast of a text with what is behind it, in every state that the page can show, and
/// which text it is.
const LEAST_CONTRAST: &str = r#"(() => {
  const part = (c) => (c <= 10.0 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4);
  const numbers = (color) => color.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  const ground = (place) => {
    for (; place; place = place.parentElement) {
      const color = numbers(getComputedStyle(place).backgroundColor);
      if (color.length < 4 || color[3] > 0) return color;
    }
    return [255, 255, 255];
  };
  const says = (place) => [...place.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
  let least = [99, ""];
  const look = () => {
    for (const place of document.querySelectorAll("body *")) {
      if (!says(place) || !place.checkVisibility() || place.closest("svg")) continue;
      const [one, other] = [numbers(getComputedStyle(place).color), ground(place)].map(light);
      const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
      if (ratio < least[0]) least = [ratio.toFixed(2), `${place.tagName}.${place.className}`];
    }
  };
  for (const phase of ["starting", "indexing", "serving", "stopping", "lost"]) {
    document.getElementById("phase").className = `badge ${phase}`;
    look();
  }
  for (const state of document.querySelectorAll("td.state")) {
    for (const name of ["up", "resting", "probing"]) {
      state.className = `state ${name}`;
      state.nextSibling.className = "late";
      look();
    }
  }
  return least.join(" ");
})()"#;

/// How far to the right the page and what is in its cells reach.
const WIDTH: &str = r#"(() => {
  const cells = [...document.querySelectorAll("th, td, dd, a:not(.skip)")];
  const seen = cells.filter((cell) => cell.checkVisibility());
  const ends = seen.map((cell) => cell.getBoundingClientRect().right);
  return String(Math.max(document.documentElement.scrollWidth, ...ends));
})()"#;

/// Where the focus is, how wide its mark is, and whether it is to be seen.
const FOCUS: &str = r#"(() => {
  const place = document.activeElement;
  const style = getComputedStyle(place);
  const { left, top, bottom } = place.getBoundingClientRect();
  const seen = left >= 0 && bottom > 0 && top < innerHeight && style.outlineStyle === "solid";
  const name = place.id || place.getAttribute("aria-labelledby") || place.getAttribute("href");
  return [name, seen ? style.outlineWidth : "unseen"].join(" ");
})()"#;

struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    sent: u32,
    session: String,
    _profile: tempfile::TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Browser {
    /// Starts it with one empty page.
    fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // It listens at descriptor 3 and answers at 4.
        let mut child = Command::new("sh")
            .args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1"])
            .args(["sh", CHROMIUM])
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Self {
            to: child.stdin.take().unwrap(),
            from: BufReader::new(child.stdout.take().unwrap()),
            child,
            sent: 0,
            session: String::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", "\"url\":\"about:blank\"");
        let target = value(&target, "targetId").to_owned();
        let attach = format!("\"targetId\":\"{target}\",\"flatten\":true");
        let session = browser.call("Target.attachToTarget", &attach);
        let session = value(&session, "sessionId").to_owned();
        browser.session = format!(",\"sessionId\":\"{session}\"");
        browser
    }

    /// Calls a method of the protocol; answers its answer.
    fn call(&mut self, method: &str, parameters: &str) -> String {
        self.sent += 1;
        let (id, session) = (self.sent, &self.session);
        write!(
            self.to,
            "{{\"id\":{id},\"method\":\"{method}\",\"params\":{{{parameters}}}{session}}}\0"
        )
        .unwrap();
        loop {
            let mut message = Vec::new();
            self.from.read_until(0, &mut message).unwrap();
            let message = String::from_utf8(message).unwrap();
            assert!(!message.is_empty(), "{method}: the browser is gone");
            // Everything else tells of what has happened.
            if message.starts_with(&format!("{{\"id\":{id},")) {
                assert!(!message.contains("\"error\":"), "{method}: {message}");
                return message;
            }
        }
    }

    /// The value of an expression, which is a text without quotation marks.
    fn ask(&mut self, expression: &str) -> String {
        let expression = expression.replace('\\', "\\\\").replace('"', "\\\"");
        let expression = expression.replace('\n', " ");
        let answer = self.call(
            "Runtime.evaluate",
            &format!("\"expression\":\"{expression}\""),
        );
        value(&answer, "value").to_owned()
    }

    fn wait_for(&mut self, expression: &str) {
        wait_until(DEADLINE, expression, || {
            self.ask(&format!("String({expression})")) == "true"
        });
    }

    /// Shows the page in a window of this width, by day or by night, with something in each table.
    fn open(&mut self, url: &str, width: u32, scheme: &str) {
        let metrics = format!("\"width\":{width},\"height\":844");
        let metrics = format!("{metrics},\"deviceScaleFactor\":1,\"mobile\":false");
        self.call("Emulation.setDeviceMetricsOverride", &metrics);
        let feature = format!("{{\"name\":\"prefers-color-scheme\",\"value\":\"{scheme}\"}}");
        self.call(
            "Emulation.setEmulatedMedia",
            &format!("\"features\":[{feature}]"),
        );
        self.call("Page.navigate", &format!("\"url\":\"{url}\""));
        self.wait_for("document.querySelectorAll('#busiest tr').length > 0");
        self.wait_for("document.getElementById('trackers').textContent.includes(' ago: ')");
    }

    fn press(&mut self, key: &str, code: u32, text: &str) {
        let what = format!("\"key\":\"{key}\",\"code\":\"{key}\",\"windowsVirtualKeyCode\":{code}");
        let down = format!("\"type\":\"keyDown\",\"text\":\"{text}\",{what}");
        self.call("Input.dispatchKeyEvent", &down);
        self.call(
            "Input.dispatchKeyEvent",
            &format!("\"type\":\"keyUp\",{what}"),
        );
    }
}

/// The text that an answer has under this name.
fn value<'a>(answer: &'a str, name: &str) -> &'a str {
    let (_, rest) = answer
        .split_once(&format!("\"{name}\":\""))
        .unwrap_or_else(|| panic!("no {name} in {answer}"));
    rest.split('"').next().unwrap()
}

/// A daemon with a peer, whose torrent and tracker have names as long as some are.
struct Scene {
    _daemon: Daemon,
    _leecher: Leecher,
    _dir: tempfile::TempDir,
    url: String,
    browser: Browser,
}

/// Nothing when there is no browser, and that is allowed.
fn scene() -> Option<Scene> {
    if !Path::new(CHROMIUM).exists() && std::env::var_os("HEKATE_SKIP_MISSING_CLIENTS").is_some() {
        println!("skipped: {CHROMIUM} is not installed");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let tracker = "http://a-tracker-whose-name-is-somewhat-long.invalid:6969/announce";
    let torrent = TorrentBuilder::new(72)
        .name("a_name_that_nothing_can_be_broken_at".repeat(3))
        .announce(&[tracker]);
    let sample = torrent.write(dir.path()).unwrap();
    let mut daemon = Daemon::seed_with(dir.path(), &["--status", "127.0.0.1:0"]);
    let line = daemon.wait_for_line("status at http://");
    let url = line[line.find("http://").unwrap()..].to_owned();
    let mut leecher = Leecher::connect(daemon.address, sample.info_hash, FAST);
    leecher.until_unchoked();
    leecher.block(0, 0, 16384);
    Some(Scene {
        _daemon: daemon,
        _leecher: leecher,
        _dir: dir,
        url,
        browser: Browser::start(),
    })
}

#[test]
fn every_text_has_contrast_in_light_and_dark_mode() {
    let Some(mut scene) = scene() else { return };
    let mut grounds = Vec::new();
    for scheme in ["light", "dark"] {
        scene.browser.open(&scene.url, 1280, scheme);
        let ground = "getComputedStyle(document.body).backgroundColor";
        grounds.push(scene.browser.ask(ground));
        let least = scene.browser.ask(LEAST_CONTRAST);
        println!("{scheme}: {least}");
        let (ratio, _) = least.split_once(' ').unwrap();
        assert!(
            ratio.parse::<f64>().unwrap() >= CONTRAST,
            "{scheme}: {least}"
        );
    }
    assert_ne!(grounds[0], grounds[1], "there is no night");
}

#[test]
fn a_phone_shows_the_page_without_scrolling_sideways() {
    let Some(mut scene) = scene() else { return };
    for width in [320, 390, 1280] {
        scene.browser.open(&scene.url, width, "light");
        let reach: f64 = scene.browser.ask(WIDTH).parse().unwrap();
        assert!(reach <= f64::from(width), "{width}: it reaches to {reach}");
        // Without columns each figure says by itself what it is.
        let label = "getComputedStyle(document.querySelector('#busiest td'), '::before').content";
        let label = scene.browser.ask(&format!("{label}.replaceAll('\"', '')"));
        assert_eq!(label.contains("Rate"), width < 1000, "{width}: {label:?}");
    }
}

#[test]
fn the_keyboard_reaches_every_control_with_visible_focus() {
    let Some(mut scene) = scene() else { return };
    let browser = &mut scene.browser;
    browser.open(&scene.url, 1280, "light");
    browser.press("Tab", 9, "");
    assert_eq!(browser.ask(FOCUS), "#main 3px", "the link that skips");
    browser.press("Enter", 13, "\\r");
    browser.wait_for("document.activeElement.id === 'main'");
    let stops = [
        "h-busiest",
        "h-trackers",
        "metrics",
        "status.json",
        "torrents?limit=100",
        "peers?limit=100",
        "status.txt",
    ];
    for stop in stops {
        browser.press("Tab", 9, "");
        assert_eq!(browser.ask(FOCUS), format!("{stop} 3px"));
    }
}
