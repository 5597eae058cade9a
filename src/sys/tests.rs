//! What the kernel really does, asked through the safe signatures.

use super::*;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};

/// A file of `pages` pages, each filled with its number.
fn file(pages: u8) -> (File, u64) {
    let mut file = tempfile::tempfile().unwrap();
    for page in 0..pages {
        file.write_all(&vec![page; page_size()]).unwrap();
    }
    (file, u64::from(pages) * page_size() as u64)
}

fn received(slices: &[Slice<'_>]) -> Vec<u8> {
    let (near, mut far) = UnixStream::pair().unwrap();
    // Read while it is written, since a socket need not hold it all.
    let reader = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).map(|_| bytes)
    });
    let taken = writev(near.as_fd(), slices).unwrap();
    drop(near);
    let bytes = reader.join().unwrap().unwrap();
    assert_eq!(bytes.len(), taken);
    bytes
}

#[test]
fn parts_are_written_in_order() {
    let (file, length) = file(3);
    let mapping = map(&file, length).unwrap();
    let page = page_size();
    let bytes = received(&[
        Slice::Bytes(b"ab"),
        Slice::Mapped {
            mapping: &mapping,
            offset: page as u64 - 1,
            length: page + 2,
        },
        Slice::Zeros { length: 5 },
        Slice::Bytes(b""),
        Slice::Bytes(b"cd"),
    ]);
    let mapped = [vec![0], vec![1; page], vec![2]].concat();
    assert_eq!(bytes, [b"ab", mapped.as_slice(), &[0; 5], b"cd"].concat());
}

#[test]
fn zeros_may_be_longer_than_the_buffer_they_come_from() {
    let length = ZEROS.len() * 2 + 7;
    let bytes = received(&[Slice::Zeros { length }, Slice::Bytes(b"x")]);
    assert_eq!(bytes, [vec![0; length], b"x".to_vec()].concat());
}

#[test]
fn what_does_not_fit_the_table_is_left() {
    let one = Slice::Bytes(b"x");
    assert_eq!(received(&[one; MAX_SLICES + 5]).len(), MAX_SLICES);
    let zeros = Slice::Zeros {
        length: ZEROS.len() * 2,
    };
    let mut slices = [one; MAX_SLICES];
    *slices.last_mut().unwrap() = zeros;
    assert_eq!(received(&slices).len(), MAX_SLICES - 1 + ZEROS.len());
}

#[test]
fn ranges_beyond_the_mapping_are_refused() {
    let (file, length) = file(2);
    let mapping = map(&file, length).unwrap();
    assert!(map(&file, 0).is_err());
    let (near, _far) = UnixStream::pair().unwrap();
    for (start, end) in [(0, length + 1), (length, length + 1), (5, 4)] {
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        let range = || start..end;
        assert_eq!(kind(mapping.populate(range())), io::ErrorKind::InvalidInput);
        assert_eq!(
            kind(mapping.will_need(range())),
            io::ErrorKind::InvalidInput
        );
        assert!(mapping.is_in_page_cache(range()).is_err());
        assert!(PageTable::open().unwrap().has(&mapping, range()).is_err());
    }
    for (offset, length) in [(0, 8193), (length, 1), (u64::MAX, 1)] {
        let slice = Slice::Mapped {
            mapping: &mapping,
            offset,
            length: length * page_size() / 4096,
        };
        let error = writev(near.as_fd(), &[slice]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }
}

#[test]
fn a_truncated_file_is_an_error_and_not_a_signal() {
    let (file, length) = file(2);
    let mapping = map(&file, length).unwrap();
    let page = page_size() as u64;
    mapping.populate(0..length).unwrap();
    file.set_len(page).unwrap();
    mapping.populate(0..page).unwrap();
    let error = mapping.populate(page..length).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    let (near, _far) = UnixStream::pair().unwrap();
    let slice = Slice::Mapped {
        mapping: &mapping,
        offset: page,
        length: 1,
    };
    let error = writev(near.as_fd(), &[slice]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
}

#[test]
fn a_fault_that_waits_for_the_disk_is_counted() {
    let directory = std::env::current_exe().unwrap();
    let mut file = tempfile::tempfile_in(directory.parent().unwrap()).unwrap();
    file.write_all(&[1; 4096]).unwrap();
    evict(&file).unwrap();
    let mapping = map(&file, 4096).unwrap();
    let slice = Slice::Mapped {
        mapping: &mapping,
        offset: 0,
        length: 4096,
    };
    let before = major_faults().unwrap();
    assert_eq!(received(&[slice]), [1; 4096]);
    let after = major_faults().unwrap();
    assert_eq!(received(&[slice]), [1; 4096]);
    assert_eq!((after - before, major_faults().unwrap()), (1, after));
}

#[test]
fn a_socket_is_writable_until_it_is_full_and_when_it_has_failed() {
    let (near, far) = UnixStream::pair().unwrap();
    assert!(is_writable(near.as_fd()).unwrap());
    near.set_nonblocking(true).unwrap();
    while (&near).write(&[0; 4096]).is_ok() {}
    assert!(!is_writable(near.as_fd()).unwrap());
    // Not by dropping it: a child that another test is starting may hold it a moment longer.
    far.shutdown(Shutdown::Both).unwrap();
    assert!(is_writable(near.as_fd()).unwrap());
}

#[test]
fn the_descriptor_limit_is_raised_once() {
    let limit = raise_descriptor_limit().unwrap();
    assert!(limit > 0);
    assert_eq!(raise_descriptor_limit().unwrap(), limit);
}

#[test]
fn discarded_bytes_are_gone_and_the_next_are_not() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut far, _) = listener.accept().unwrap();
    assert_eq!(
        recv_discard(far.as_fd(), 10).unwrap_err().kind(),
        io::ErrorKind::WouldBlock
    );
    near.write_all(b"0123456789abc").unwrap();
    // On the loopback what is written has arrived.
    assert_eq!(recv_discard(far.as_fd(), 10).unwrap(), 10);
    drop(near);
    let mut rest = String::new();
    far.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "abc");
    assert_eq!(recv_discard(far.as_fd(), 10).unwrap(), 0);
}

#[test]
fn a_process_is_asked_to_stop() {
    let mut command = Command::new("sleep");
    command.arg("60");
    die_with_parent(&mut command);
    let mut child = command.spawn().unwrap();
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
}

#[test]
fn random_bytes_are_not_the_same_twice() {
    let (mut one, mut two) = ([0; 300], [0; 300]);
    fill_random(&mut one).unwrap();
    fill_random(&mut two).unwrap();
    assert_ne!(one, two);
    assert!(
        one.chunks(16)
            .all(|part| part.iter().any(|byte| *byte != 0))
    );
}

#[test]
fn a_socket_tells_what_it_holds_and_that_its_receiver_has_no_room() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_receiver, _) = listener.accept().unwrap();
    let before = tcp_load(sender.as_fd()).unwrap();
    assert_eq!((before.held_bytes, before.receiver_limited_us), (0, 0));
    assert!(before.is_in_slow_start);
    sender.set_nonblocking(true).unwrap();
    while sender.write(&[0; 64 * 1024]).is_ok() {}
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut load = tcp_load(sender.as_fd()).unwrap();
    while load.receiver_limited_us == 0 {
        assert!(Instant::now() < deadline, "{load:?}");
        std::thread::yield_now();
        load = tcp_load(sender.as_fd()).unwrap();
    }
    assert!(load.held_bytes > 0 && load.busy_us >= load.receiver_limited_us);
}
