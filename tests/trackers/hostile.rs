//! Broken and hostile trackers: each is bounded, and none holds up an honest one.
//!
//! Owns what each does wrong. It must not know how that is noticed.

use std::io::Write;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use hekate::metrics::trackers::TrackerState;
use hekate::timers::Time;
use hekate::tracker::announcer::Limits;

use crate::driver::{Counters, Driver, config, counters};
use crate::scripted::{Http, Udp, Visitor, accepted, honest, is_connect, ok};

/// Torrents of each proof: more than a bad tracker may be asked about.
const TORRENTS: u32 = 300;

/// Time-outs so short that a test can wait for several of them.
const LIMITS: Limits = Limits {
    connect_ms: 500,
    answer_ms: 300,
    idle_ms: 60_000,
    resend_ms: 200,
    backoff_ms: 50,
    wake_ms: 100,
    silence_ms: 200,
    shutdown_ms: 500,
};

/// After this time a packet is sent again.
const RESEND: Duration = Duration::from_millis(LIMITS.resend_ms);

fn driver() -> Driver {
    let mut config = config();
    config.limits = LIMITS;
    Driver::new(config)
}

/// Announces to a bad tracker and an honest one until the honest one has everything and the bad one
/// was asked at least `asked` times.
fn beside_an_honest_one(bad: &str, asked: impl Fn() -> bool) -> Counters {
    let good = Http::answering(accepted());
    let mut driver = driver();
    driver.add(0..TORRENTS, &[bad, &good.url()]);
    let accepted = |counters: Counters| counters.accepted >= u64::from(TORRENTS);
    driver.until("the honest tracker", |announcer| {
        accepted(counters(announcer)) && asked()
    });
    counters(&driver.announcer)
}

/// Expects that a tracker which answers every request so is left alone, again and again.
fn is_left_alone(answer: impl Into<Vec<u8>>) {
    let bad = Http::answering(answer);
    let counters = beside_an_honest_one(&bad.url(), || bad.requests() >= 6);
    assert_eq!(counters.accepted, u64::from(TORRENTS), "{counters:?}");
    // One request for each rest, and few before it is found out.
    assert!(bad.requests() < 40, "{} requests", bad.requests());
    assert!(counters.failed >= 1, "{counters:?}");
}

#[test]
fn an_endless_header_is_abandoned() {
    let bad = Http::new(|visitor| {
        while visitor.request().is_some() {
            visitor.say("HTTP/1.1 200 OK\r\n");
            while visitor.say("X-More: and more of it\r\n") {}
        }
    });
    beside_an_honest_one(&bad.url(), || bad.requests() >= 3);
}

#[test]
fn an_announced_length_of_a_gigabyte_is_refused() {
    is_left_alone("HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n");
}

#[test]
fn a_body_of_a_gigabyte_is_abandoned() {
    let bad = Http::new(|visitor| {
        while visitor.request().is_some() {
            visitor.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
            while visitor.say("10\r\n0123456789abcdef\r\n") {}
        }
    });
    beside_an_honest_one(&bad.url(), || bad.requests() >= 3);
}

#[test]
fn a_body_that_is_not_bencode_is_a_failure() {
    is_left_alone(ok("<html>parked</html>"));
    is_left_alone(ok("d8:intervali1800e"));
    is_left_alone(ok(&"l".repeat(60_000)));
}

#[test]
fn an_answer_that_is_not_http_is_a_failure() {
    is_left_alone("SSH-2.0-OpenSSH_9\r\n\r\n");
}

#[test]
fn a_server_error_is_a_failure() {
    is_left_alone("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
}

fn gzipped(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).unwrap();
    let packed = encoder.finish().unwrap();
    let head = "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n";
    let head = format!("{head}Content-Length: {}\r\n\r\n", packed.len());
    [head.as_bytes(), &packed].concat()
}

#[test]
fn a_compressed_answer_is_accepted() {
    let tracker = Http::answering(gzipped(b"d8:intervali1800e5:peers0:e"));
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&tracker.url()]);
    driver.accepted(TORRENTS.into());
}

#[test]
fn a_compressed_body_of_fifty_megabytes_is_a_failure() {
    is_left_alone(gzipped(&vec![b'0'; 50_000_000]));
}

#[test]
fn an_encoding_that_is_wrong_or_unknown_is_a_failure() {
    for coding in ["gzip", "br"] {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Encoding: {coding}\r\n");
        is_left_alone(format!("{head}Content-Length: 1\r\n\r\nx"));
    }
}

#[test]
fn what_rests_for_long_is_asked_soon_after_it_is_woken() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let breaks = Arc::clone(&is_broken);
    let tracker = Http::new(move |visitor| {
        while visitor.request().is_some() && !breaks.load(Ordering::SeqCst) {
            visitor.say(accepted());
        }
    });
    let silent = Udp::new(|_, _, _| {});
    let mut config = config();
    config.limits = Limits {
        backoff_ms: 30 * 60 * 1000,
        resend_ms: 30 * 60 * 1000,
        ..LIMITS
    };
    let mut driver = Driver::new(config);
    driver.add(0..3, &[&tracker.url(), &silent.url()]);
    driver.until("the rest", |announcer| {
        let figures = announcer.figures(Time(0));
        let mut states = figures.named.iter().map(|tracker| tracker.state);
        states.any(|state| matches!(state, TrackerState::Resting(_)))
    });
    is_broken.store(false, Ordering::SeqCst);
    let now = driver.now();
    let figures = driver.announcer.figures(now);
    let trouble = figures.named[0].trouble.clone().unwrap().0;
    assert_eq!(trouble, "IPv4: the connection was closed");
    driver.announcer.wake(now);
    // The one that broke it waits for its own time.
    let took = driver.accepted(2);
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn the_only_announce_of_a_tracker_is_made_soon_after_it_is_woken() {
    let is_broken = Arc::new(AtomicBool::new(true));
    let breaks = Arc::clone(&is_broken);
    let tracker = Http::new(move |visitor| {
        while visitor.request().is_some() && !breaks.load(Ordering::SeqCst) {
            visitor.say(accepted());
        }
    });
    let mut driver = driver();
    driver.add(0..1, &[&tracker.url()]);
    driver.until("the failure", |announcer| counters(announcer).failed == 1);
    is_broken.store(false, Ordering::SeqCst);
    let now = driver.now();
    // It waits for five minutes, longer than its tracker rests.
    driver.announcer.wake(now);
    driver.accepted(1);
}

/// A tracker that closes its connections at first, for so many requests.
fn broken_for(requests: usize) -> Http {
    let count = AtomicUsize::new(0);
    Http::new(move |visitor| {
        while visitor.request().is_some() && count.fetch_add(1, Ordering::SeqCst) >= requests {
            visitor.say(accepted());
        }
    })
}

#[test]
fn the_first_tracker_that_answers_after_an_outage_wakes_the_others() {
    let [soon, late] = [1, 9].map(broken_for);
    let mut driver = driver();
    driver.add(0..20, &[&late.url()]);
    driver.until("failures", |_| late.requests() == 9);
    // It rests for at least twelve seconds now.
    driver.add(20..22, &[&soon.url()]);
    // Each failure has cost an announce that waits for its own time.
    let took = driver.accepted(1 + 11);
    assert!(took < Duration::from_secs(6), "{took:?}");
}

#[test]
fn a_tracker_that_asked_for_a_pause_is_not_woken() {
    let busy =
        Http::answering("HTTP/1.1 503 Busy\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n");
    let good = Http::answering(accepted());
    let mut driver = driver();
    driver.add(0..1, &[&busy.url()]);
    driver.until("the pause", |_| busy.requests() >= 1);
    let turns = driver.now().after(100);
    while driver.now() < turns {
        driver.turn(turns);
    }
    let now = driver.now();
    driver.announcer.wake(now);
    driver.add(1..301, &[&good.url()]);
    driver.accepted(300);
    let turns = driver.now().after(2 * LIMITS.wake_ms);
    while driver.now() < turns {
        driver.turn(turns);
    }
    assert_eq!(busy.requests(), 1);
}

#[test]
fn the_next_try_that_is_said_is_the_next_that_is_made() {
    let tracker = Http::answering(ok("<html>parked</html>"));
    let mut driver = driver();
    driver.add(0..1, &[&tracker.url()]);
    driver.until("the failure", |announcer| counters(announcer).failed == 1);
    // The back-off is 50 ms, but the only announce there is waits for five minutes.
    let figures = driver.announcer.figures(driver.now());
    let state = figures.named[0].state;
    assert!(
        matches!(state, TrackerState::Resting(300..=376)),
        "{state:?}"
    );
}

#[test]
fn a_second_answer_to_one_request_is_ignored() {
    is_left_alone([ok("x"), ok("y")].concat());
}

#[test]
fn a_connection_closed_without_an_answer_is_a_failure() {
    let bad = Http::new(|visitor| drop(visitor.request()));
    beside_an_honest_one(&bad.url(), || bad.requests() >= 4);
    assert!(bad.requests() < 40);
}

#[test]
fn a_tracker_that_never_answers_times_out() {
    let bad = Http::new(Visitor::wait);
    beside_an_honest_one(&bad.url(), || bad.requests() >= 3);
    assert!(bad.requests() < 40);
}

#[test]
fn an_answer_in_single_bytes_is_accepted() {
    let bad = Http::new(|visitor| {
        while visitor.request().is_some() {
            for byte in accepted().bytes() {
                visitor.say([byte]);
                thread::sleep(Duration::from_millis(20));
            }
        }
    });
    let counters = beside_an_honest_one(&bad.url(), || bad.requests() >= 3);
    assert_eq!(counters.accepted, u64::from(TORRENTS));
}

#[test]
fn a_refused_connection_is_retried_with_back_off() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bad = format!("http://{}/", port.local_addr().unwrap());
    drop(port);
    let counters = beside_an_honest_one(&bad, || true);
    assert_eq!(counters.failed, 0, "no torrent is to blame: {counters:?}");
    beside_an_honest_one("http://name.invalid/", || true);
}

#[test]
fn a_redirect_loop_is_a_failure() {
    let other = Http::new(Visitor::wait);
    let back = format!("http://{}/announce", other.address);
    let circle =
        Http::answering("HTTP/1.1 302 Found\r\nLocation: /announce?x\r\nContent-Length: 0\r\n\r\n");
    beside_an_honest_one(&circle.url(), || circle.requests() >= 12);
    assert!(circle.requests() < 60, "{}", circle.requests());
    let away = Http::answering(format!(
        "HTTP/1.1 302 Found\r\nLocation: udp://{back}\r\nContent-Length: 0\r\n\r\n"
    ));
    beside_an_honest_one(&away.url(), || away.requests() >= 2);
    assert_eq!(other.requests(), 0);
}

#[test]
fn a_redirect_is_followed_once_for_the_whole_library() {
    let target = Http::answering(accepted());
    let address = target.address;
    let origin = Http::new(move |visitor| {
        while let Some(request) = visitor.request() {
            let path = request.split(' ').nth(1).unwrap();
            visitor.say(format!(
                "HTTP/1.1 301 Moved\r\nLocation: http://{address}{path}\r\nContent-Length: 0\r\n\r\n"
            ));
        }
    });
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&origin.url()]);
    driver.accepted(TORRENTS.into());
    assert_eq!((origin.requests(), target.requests()), (1, 300));
}

#[test]
fn a_temporary_redirect_is_followed_each_time() {
    let machines = [(); 2].map(|()| Http::answering(accepted()));
    let addresses = [0, 1].map(|number: usize| machines[number].address);
    let origin = redirecting("302 Found", move |path| {
        let machine = usize::from(path.contains("%A5%A5&") && path.contains("0%A5"));
        Some(format!("http://{}{path}", addresses[machine]))
    });
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&origin.url()]);
    driver.accepted(TORRENTS.into());
    let counters = counters(&driver.announcer);
    assert_eq!((origin.requests(), counters.sent), (300, 600));
    // Connections stay open there too.
    assert!(counters.connections < 30, "{counters:?}");
    let now = driver.now();
    let figures = driver.announcer.figures(now);
    // What is announced elsewhere counts where it is redirected from.
    let [named] = &figures.named[..] else {
        panic!("{figures:?}");
    };
    assert_eq!((named.sums.torrents, named.sums.accepted), (300, 300));
}

#[test]
fn targets_of_redirects_are_bounded() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = port.local_addr().unwrap().port();
    let count = AtomicUsize::new(0);
    let bad = redirecting("301 Moved", move |path| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        let is_failing = path.starts_with("/bad/");
        is_failing.then(|| format!("http://127.1.{}.1:{port}{path}", number % 250))
    });
    let mut driver = driver();
    let url = |path: &str| format!("http://{}/{path}/announce", bad.address);
    driver.add(0..100, &[&url("good")]);
    driver.add(100..150, &[&url("bad")]);
    driver.add(150..TORRENTS, &[&url("good")]);
    driver.until("the end", |announcer| {
        let counters = counters(announcer);
        (counters.accepted, counters.failed) == (250, 50)
    });
    let now = driver.now();
    let figures = driver.announcer.figures(now);
    assert_eq!(figures.named.len(), 1);
    assert!((1..=8).contains(&figures.others), "{}", figures.others);
}

#[test]
fn a_failing_redirect_of_one_path_does_not_stop_the_others() {
    let bad = redirecting("301 Moved", |path| {
        path.starts_with("/bad/").then(|| "/bad/again".to_owned())
    });
    let mut driver = driver();
    let url = |path: &str| format!("http://{}/{path}/announce", bad.address);
    driver.add(0..1, &[&url("bad")]);
    driver.add(1..100, &[&url("good")]);
    driver.add(100..109, &[&url("bad")]);
    driver.add(109..TORRENTS, &[&url("good")]);
    driver.accepted(u64::from(TORRENTS) - 10);
    // Each of the bad ones was asked for as often as a redirect is followed.
    assert!(
        bad.requests() <= TORRENTS as usize + 60,
        "{}",
        bad.requests()
    );
}

/// Answers a request for one of `paths` with a redirect to where it leads, all else as a tracker.
fn redirecting(
    status: &'static str,
    lead: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> Http {
    Http::new(move |visitor| {
        while let Some(request) = visitor.request() {
            let path = request.split(' ').nth(1).unwrap();
            visitor.say(match lead(path) {
                Some(to) => {
                    format!("HTTP/1.1 {status}\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
                }
                None => accepted(),
            });
        }
    })
}

#[test]
fn a_redirect_applies_to_its_own_path_only() {
    for status in ["301 Moved", "302 Found", "307 Elsewhere", "308 Moved"] {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&seen);
        let other = Http::new(move |visitor| {
            while let Some(request) = visitor.request() {
                noted.lock().unwrap().push(request);
                visitor.say(accepted());
            }
        });
        let address = other.address;
        let origin = redirecting(status, move |path| {
            let bought = path.starts_with("/key-of-one/");
            bought.then(|| format!("http://{address}{path}"))
        });
        let mut driver = driver();
        let url = |key: &str| format!("http://{}/{key}/announce", origin.address);
        driver.add(0..20, &[&url("key-of-one")]);
        driver.add(20..TORRENTS, &[&url("key-of-another")]);
        driver.accepted(TORRENTS.into());
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|request| request.contains("/key-of-one/")));
        assert_eq!(seen.len(), 20, "{status}");
    }
}

#[test]
fn a_busy_tracker_is_not_asked_until_its_retry_after() {
    let busy =
        Http::answering("HTTP/1.1 503 Busy\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n");
    beside_an_honest_one(&busy.url(), || busy.requests() >= 1);
    assert_eq!(busy.requests(), 1);
}

#[test]
fn a_torrent_that_breaks_the_tracker_does_not_stop_the_others() {
    let bad = Http::new(|visitor| {
        while let Some(request) = visitor.request() {
            if request.contains("%00%00%00%05%A5") {
                return;
            }
            visitor.say(accepted());
        }
    });
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&bad.url()]);
    driver.accepted(u64::from(TORRENTS) - 1);
}

#[test]
fn udp_answers_with_the_wrong_transaction_id_are_ignored() {
    let bad = Udp::new(|socket, from, packet| {
        let mut answer = honest(packet, 1800);
        answer[7] ^= 1;
        socket.send_to(&answer, from).ok();
    });
    let counters = beside_an_honest_one(&bad.url(), || bad.packets() >= 3);
    assert_eq!(counters.accepted, u64::from(TORRENTS));
    // Nothing but requests for a connection.
    assert!(bad.packets() < 10, "{}", bad.packets());
}

#[test]
fn udp_answers_from_another_address_are_ignored() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let bad = Udp::new(move |_, from, packet| {
        other.send_to(&honest(packet, 1800), from).ok();
    });
    let counters = beside_an_honest_one(&bad.url(), || bad.packets() >= 3);
    assert_eq!(counters.accepted, u64::from(TORRENTS));
}

#[test]
fn truncated_udp_answers_are_ignored() {
    let bad = Udp::new(|socket, from, packet| {
        let answer = honest(packet, 1800);
        let length = if is_connect(packet) { 16 } else { 19 };
        socket.send_to(&answer[..length], from).ok();
    });
    let counters = beside_an_honest_one(&bad.url(), || bad.packets() >= 60);
    assert_eq!(counters.accepted, u64::from(TORRENTS));
}

#[test]
fn a_connect_answer_to_an_announce_is_ignored() {
    let bad = Udp::new(|socket, from, packet| {
        let mut answer = honest(packet, 1800);
        answer[..4].copy_from_slice(&[0; 4]);
        socket.send_to(&answer, from).ok();
    });
    let counters = beside_an_honest_one(&bad.url(), || bad.packets() >= 60);
    assert_eq!(counters.accepted, u64::from(TORRENTS));
}

#[test]
fn udp_answers_that_are_late_are_ignored() {
    let late = Udp::new(|socket, from, packet| {
        if !is_connect(packet) {
            thread::sleep(Duration::from_millis(10 + LIMITS.resend_ms));
        }
        socket.send_to(&honest(packet, 1800), from).ok();
    });
    beside_an_honest_one(&late.url(), || late.packets() >= 10);
}

#[test]
fn intervals_of_zero_and_of_a_century_are_bounded() {
    for interval in [0, -1, i32::MAX] {
        let tracker = Udp::new(move |socket, from, packet| {
            socket.send_to(&honest(packet, interval), from).ok();
        });
        let mut driver = driver();
        driver.add(0..TORRENTS, &[&tracker.url()]);
        driver.accepted(TORRENTS.into());
        let turns = driver.now().after(300);
        while driver.now() < turns {
            driver.turn(turns);
        }
        assert_eq!(counters(&driver.announcer).sent, u64::from(TORRENTS));
    }
}

#[test]
fn a_lost_packet_is_sent_again() {
    let lost = AtomicUsize::new(0);
    let tracker = Udp::new(move |socket, from, packet| {
        // Every tenth is lost, and so is the first request for a connection.
        if !lost.fetch_add(1, Ordering::SeqCst).is_multiple_of(10) {
            socket.send_to(&honest(packet, 1800), from).ok();
        }
    });
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&tracker.url()]);
    driver.accepted(TORRENTS.into());
    let counters = counters(&driver.announcer);
    assert_eq!(
        (counters.accepted, counters.failed),
        (TORRENTS.into(), 0),
        "{counters:?}"
    );
}

#[test]
fn a_udp_tracker_is_retried_soon_after_a_short_outage() {
    let mut silent_since: Option<Instant> = None;
    let tracker = Udp::new(move |socket, from, packet| {
        // A whole window of announces is lost, and what follows them for a while.
        if !is_connect(packet) {
            silent_since.get_or_insert_with(Instant::now);
        }
        let away = silent_since.is_some_and(|since| since.elapsed() < 3 * RESEND);
        if !away {
            socket.send_to(&honest(packet, 1800), from).ok();
        }
    });
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&tracker.url()]);
    let took = driver.accepted(TORRENTS.into());
    // Asked for a connection after one, two and four times the time of a packet, and not later.
    assert!(took < 15 * RESEND, "{took:?}");
}

#[test]
fn an_old_connection_id_is_renewed() {
    let announces = AtomicUsize::new(0);
    let tracker = Udp::new(move |socket, from, packet| {
        let refused = !is_connect(packet) && announces.fetch_add(1, Ordering::SeqCst) < 5;
        let answer = if refused {
            [&[0, 0, 0, 3], &packet[12..16], b"Connection ID missmatch."].concat()
        } else {
            honest(packet, 1800)
        };
        socket.send_to(&answer, from).ok();
    });
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&tracker.url()]);
    driver.accepted(TORRENTS.into());
    assert_eq!(counters(&driver.announcer).refused, 0);
}

#[test]
fn a_returning_tracker_gets_every_torrent() {
    let requests = AtomicUsize::new(0);
    let tracker = Http::new(move |visitor| {
        while visitor.request().is_some() {
            let answer = match requests.fetch_add(1, Ordering::SeqCst) {
                0..4 => "HTTP/1.1 502 Bad\r\nContent-Length: 0\r\n\r\n".to_owned(),
                _ => accepted(),
            };
            visitor.say(answer);
        }
    });
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&tracker.url()]);
    // Those that failed themselves come again minutes later.
    driver.accepted(u64::from(TORRENTS) - 4);
}

#[test]
fn a_stop_does_not_wait_for_dead_trackers() {
    let dead = Http::new(Visitor::wait);
    let good = Http::answering(accepted());
    let mut driver = driver();
    driver.add(0..TORRENTS, &[&dead.url(), &good.url()]);
    driver.accepted(TORRENTS.into());
    let before = good.requests();
    let now = driver.now();
    driver.announcer.shutdown(now);
    let took = driver.until("the end", |announcer| announcer.is_done());
    assert!(
        took < Duration::from_millis(LIMITS.shutdown_ms + 200),
        "{took:?}"
    );
    assert_eq!(good.requests() - before, TORRENTS as usize);
}
