//! The package on a machine that systemd has booted: what the unit asks of systemd is done by systemd.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::machine::{self, shell, text, try_shell, wait_for};
use super::package::{self, download, fill};

const CONFIGURATION: &str = "/etc/hekate/hekate.toml";
const PEERS: &str = "127.0.0.1:6969";

/// A property of the unit, as systemd has it.
fn property(name: &str) -> String {
    let value = shell(&format!("systemctl show --value -p {name} hekate.service"));
    value.trim().to_owned()
}

fn pid() -> u32 {
    property("MainPID").parse().unwrap()
}

fn wait_for_property(name: &str, value: &str) {
    wait_for(&format!("{name} is {value}"), || property(name) == value);
}

/// The text of each line of the journal with this priority.
fn journal(priority: u8) -> String {
    // What was written before is in it.
    shell("journalctl --sync");
    shell(&format!(
        "journalctl -u hekate.service _COMM=hekate -o cat -p {priority}..{priority}"
    ))
}

/// Puts settings beside those of the package.
fn drop_in(name: &str, settings: &str) {
    let directory = "/etc/systemd/system/hekate.service.d";
    fs::create_dir_all(directory).unwrap();
    let text = format!("[Service]\n{settings}\n");
    fs::write(format!("{directory}/{name}.conf"), text).unwrap();
    shell("systemctl daemon-reload");
}

fn systemd_version() -> u32 {
    let version = shell("systemctl --version");
    version.split([' ', '.']).nth(1).unwrap().parse().unwrap()
}

fn install(package: &Path) {
    shell(&format!("dpkg -i {}", package.display()));
    // systemd says so only when Hekate has said that it is ready.
    assert_eq!(property("ActiveState"), "active");
    assert!(
        TcpStream::connect(PEERS).is_ok(),
        "ready and does not listen"
    );
}

#[test]
fn systemd_starts_reloads_watches_and_stops_it() {
    let name = "booted::systemd_starts_reloads_watches_and_stops_it";
    machine::boot(name, package::build, |package| {
        install(package);
        shell("systemctl is-enabled hekate.service");
        wait_for_property("StatusText", "0 torrents, 0 peers");
        confined();
        reloaded();
        logged();
        hung();
        misconfigured();
        loosened();
        shell("systemctl start hekate.service && systemctl stop hekate.service");
        assert_eq!(property("Result"), "success");
        assert_eq!(property("ExecMainStatus"), "0");
        shell("dpkg -P hekate");
        assert_eq!(property("LoadState"), "not-found");
    });
}

/// What the process has of what the unit asks for.
fn confined() {
    let pid = pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for line in [
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.lines().any(|found| found == line), "{status}");
    }
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let files = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let soft = files.unwrap().split_whitespace().nth(3).unwrap();
    // What a container may not have it does not get.
    let hard = shell("ulimit -H -n");
    let asked = property("LimitNOFILE");
    assert!(soft == asked || soft == hard.trim(), "{limits}");
    assert_eq!(asked, "524288");
    assert_eq!(asked, property("LimitNOFILESoft"));
    shell(&format!("test $(stat -c %U /proc/{pid}) = hekate"));
    shell("test $(stat -c %U:%a /var/lib/hekate) = hekate:750");
    shell("test $(stat -c %U:%a /var/log/hekate) = hekate:750");
    // Where it may write by its rights as a user, the system is still read-only for it.
    shell("install -d -o hekate /srv/hekate/own");
    let touch = "setpriv --reuid hekate --clear-groups touch /srv/hekate/own/x";
    shell(touch);
    let inside = try_shell(&format!("nsenter -t {pid} -m -r -- {touch}"));
    assert!(text(&inside.stderr).contains("Read-only file system"));
    // And it is known to be closed.
    let said = shell("systemd-analyze security --no-pager --threshold=14 hekate.service");
    println!("{}", said.lines().last().unwrap_or_default());
}

/// A reload takes up a torrent and a configuration, and one that is wrong changes nothing.
fn reloaded() {
    let running = pid();
    let sample = fill(100);
    shell(&format!("echo 'max-unchoked = 61' >>{CONFIGURATION}"));
    shell("systemctl reload hekate.service");
    let is_done = || shell("hekate status").contains(" in 61 slots");
    // An older one does not wait for the answer.
    if systemd_version() >= 253 {
        assert!(is_done(), "the reload is over before it is done");
    }
    wait_for("it has reloaded", is_done);
    wait_for_property("StatusText", "1 torrents, 0 peers");
    download(&sample);

    let kept = fs::read_to_string(CONFIGURATION).unwrap();
    shell(&format!("echo 'max-peer = 3' >>{CONFIGURATION}"));
    shell("systemctl reload hekate.service");
    wait_for("it says so", || journal(3).contains("reload failed, "));
    fs::write(CONFIGURATION, kept).unwrap();
    assert_eq!(
        (property("ActiveState"), pid()),
        ("active".to_owned(), running)
    );
}

/// The journal has priorities, and no time but its own.
fn logged() {
    let said = journal(6);
    assert!(
        said.contains("\nreactor: listening on 0.0.0.0:6969\n"),
        "{said}"
    );
    assert!(said.lines().all(|line| !line.contains("INFO")), "{said}");
    assert!(!said.contains("reload failed"), "{said}");
}

/// A loop that does not turn is ended and started again.
fn hung() {
    assert_eq!(property("WatchdogUSec"), "30s");
    let before = pid();
    // The same sooner. A process that is stopped is like one that hangs.
    drop_in("sooner", "WatchdogSec=1\nRestartSec=100ms");
    shell("systemctl restart hekate.service");
    let hanging = pid();
    assert_ne!(hanging, before);
    shell(&format!("kill -STOP {hanging}"));
    wait_for_property("NRestarts", "1");
    wait_for_property("ActiveState", "active");
    assert_ne!(pid(), hanging);
    shell("journalctl -u hekate.service --grep 'Watchdog timeout'");
    assert!(TcpStream::connect(PEERS).is_ok());
}

/// What is wrong in the configuration is said by the exit code, and not tried again.
fn misconfigured() {
    let kept = fs::read_to_string(CONFIGURATION).unwrap();
    shell(&format!("echo 'max-peer = 3' >>{CONFIGURATION}"));
    let restart = try_shell("systemctl restart hekate.service");
    assert!(!restart.status.success());
    // One that is tried again is activating.
    assert_eq!(property("ActiveState"), "failed");
    assert_eq!(property("ExecMainStatus"), "78");
    let said = shell("systemctl status --no-pager hekate.service || test $? = 3");
    assert!(said.contains("unknown key \"max-peer\""), "{said}");
    fs::write(CONFIGURATION, kept).unwrap();
    // What breaks otherwise is.
    shell("systemctl reset-failed hekate.service && systemctl start hekate.service");
    shell("systemctl kill --signal=KILL hekate.service");
    wait_for_property("NRestarts", "1");
    wait_for_property("ActiveState", "active");
}

/// A port below 1024, as the manual says. The capability for it is given up again.
fn loosened() {
    let settings = [
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "PrivateUsers=no",
        "SystemCallFilter=capset",
    ];
    drop_in("low", &settings.join("\n"));
    shell(&format!(
        "echo 'port = 80' >>{CONFIGURATION} && systemctl restart hekate.service"
    ));
    assert!(TcpStream::connect("127.0.0.1:80").is_ok());
    let status = fs::read_to_string(format!("/proc/{}/status", pid())).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
}

#[test]
fn peers_wait_at_the_socket_of_systemd_while_the_daemon_starts() {
    let name = "booted::peers_wait_at_the_socket_of_systemd_while_the_daemon_starts";
    machine::boot(name, package::build, |package| {
        install(package);
        let sample = fill(101);
        shell("systemctl stop hekate.service && systemctl enable --now hekate.socket");
        assert_eq!(property("ActiveState"), "inactive");
        // Whoever comes first starts it.
        download(&sample);
        assert_eq!(property("ActiveState"), "active");
        shell("systemctl stop hekate.service");
        let address: SocketAddr = PEERS.parse().unwrap();
        let mut early = TcpStream::connect(address).unwrap();
        early
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        wait_for_property("ActiveState", "active");
        // A stranger is let go by the daemon, and not by systemd.
        std::io::Write::write_all(&mut early, &[0; 96]).unwrap();
        early.read_to_end(&mut Vec::new()).ok();
        wait_for("it has met the stranger", || {
            shell("hekate status --json").contains("\"encryption_failed\":1")
        });
        download(&sample);

        // A low port, as the manual says.
        let directory = "/etc/systemd/system/hekate.socket.d";
        shell(&format!(
            "mkdir -p {directory} && printf '[Socket]\\nListenStream=\\nListenStream=80\\n' \
                >{directory}/port.conf && systemctl daemon-reload && systemctl stop hekate.service \
                hekate.socket && systemctl start hekate.socket hekate.service"
        ));
        assert!(TcpStream::connect("127.0.0.1:80").is_ok());
        assert!(TcpStream::connect(address).is_err());

        // Nothing starts it again while it is removed, and nothing is left that would.
        shell("dpkg -r hekate");
        assert!(TcpStream::connect("127.0.0.1:80").is_err());
        shell("dpkg --purge hekate");
        let link = Path::new("/etc/systemd/system/sockets.target.wants/hekate.socket");
        assert!(link.symlink_metadata().is_err(), "it is enabled still");
    });
}

#[test]
fn a_kernel_without_landlock_is_logged_and_serves() {
    let name = "booted::a_kernel_without_landlock_is_logged_and_serves";
    machine::boot(name, package::build, |package| {
        install(package);
        assert!(journal(6).contains("sandbox: active"));
        // What such a kernel answers.
        drop_in(
            "older",
            "SystemCallFilter=\nSystemCallFilter=~landlock_create_ruleset\nSystemCallErrorNumber=ENOSYS",
        );
        let sample = fill(102);
        shell("systemctl restart hekate.service");
        let said = journal(4);
        let line = "sandbox: not active: this kernel has no Landlock";
        assert!(said.contains(line), "{said}");
        download(&sample);
    });
}
