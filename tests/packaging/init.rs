//! The init.d script, as an administrator and as dpkg call it, with the exit codes of LSB.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::{self, shell, text, try_shell, wait_for};
use super::package::{self, download, fill, pid};

const SCRIPT: &str = "/etc/init.d/hekate";
const LOG: &str = "/var/log/hekate/hekate.log";

fn script(action: &str) -> Option<i32> {
    try_shell(&format!("{SCRIPT} {action}")).status.code()
}

/// Installs it and stops what the installation has started.
fn installed(package: &Path) {
    shell(&format!("dpkg -i {} && {SCRIPT} stop", package.display()));
}

fn log_has(line: &str, times: usize) -> bool {
    fs::read_to_string(LOG).is_ok_and(|log| log.matches(line).count() >= times)
}

/// The second process of a daemon is the one that stays, so asking `kill -0` is not enough.
fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn shellcheck_accepts_the_scripts() {
    let dist = Path::new(env!("CARGO_MANIFEST_DIR")).join("dist");
    let scripts = [
        "hekate.init",
        "debian/postinst",
        "debian/prerm",
        "debian/postrm",
    ];
    let scripts: Vec<PathBuf> = scripts.iter().map(|name| dist.join(name)).collect();
    let output = Command::new("shellcheck").args(&scripts).output();
    let output = output.expect("shellcheck: make test-deps");
    assert!(output.status.success(), "{}", text(&output.stdout));
}

#[test]
fn the_script_starts_reloads_restarts_and_stops() {
    let name = "init::the_script_starts_reloads_restarts_and_stops";
    machine::run(name, package::build, |package| {
        installed(package);
        let sample = fill(90);
        assert_eq!(script("status"), Some(3));
        assert_eq!(script("reload"), Some(7));
        assert_eq!(script("try-restart"), Some(0));
        assert_eq!(script("status"), Some(3));

        assert_eq!(script("start"), Some(0));
        assert_eq!(script("status"), Some(0));
        let first = pid();
        assert_eq!(script("start"), Some(0));
        assert_eq!(pid(), first, "it runs twice");
        download(&sample);

        for (times, action) in [(1, "reload"), (2, "force-reload")] {
            // The same line twice within a minute is held back.
            fill(90 + times as u64);
            assert_eq!(script(action), Some(0));
            wait_for("it has reloaded", || log_has("reloaded: ", times));
        }
        assert_eq!(pid(), first);
        rotated();

        assert_eq!(script("restart"), Some(0));
        let second = pid();
        assert!(second != first && !is_alive(first) && is_alive(second));
        download(&sample);

        assert_eq!(script("stop"), Some(0));
        assert!(!is_alive(second) && !Path::new("/run/hekate.pid").exists());
        assert_eq!(script("stop"), Some(0));
        assert_eq!(script("status"), Some(3));
    });
}

/// What cron does each week.
fn rotated() {
    shell("logrotate --force /etc/logrotate.d/hekate");
    wait_for("the new log is written to", || {
        log_has("log file reopened", 1)
    });
    shell(&format!(
        "test -s {LOG}.1 && test $(stat -c %U {LOG}) = hekate"
    ));
}

#[test]
fn the_exit_code_tells_failures_apart() {
    let name = "init::the_exit_code_tells_failures_apart";
    machine::run(name, package::build, |package| {
        installed(package);
        assert_eq!(script(""), Some(2));
        assert_eq!(script("dance"), Some(2));
        let as_nobody = format!("setpriv --reuid 65534 --clear-groups {SCRIPT}");
        for (action, code) in [("start", 4), ("stop", 4), ("status", 3)] {
            let output = try_shell(&format!("{as_nobody} {action}"));
            assert_eq!(output.status.code(), Some(code), "{action}");
        }

        // A number that was left behind and belongs to another process by now.
        shell("echo 1 >/run/hekate.pid");
        assert_eq!(script("status"), Some(1));
        assert_eq!(script("stop"), Some(0));
        assert!(is_alive(1));
        shell("echo rubbish >/run/hekate.pid");
        assert_eq!(script("status"), Some(1));
        assert_eq!(script("start"), Some(0));
        assert_eq!(script("status"), Some(0));

        // What would not start again is not stopped.
        let running = pid();
        shell("echo 'max-peer = 3' >>/etc/hekate/hekate.toml");
        assert_eq!(script("restart"), Some(6));
        for action in ["reload", "force-reload"] {
            let output = try_shell(&format!("{SCRIPT} {action}"));
            assert_eq!(output.status.code(), Some(6), "{action}");
            let output = text(&output.stderr);
            assert!(output.contains("unknown key \"max-peer\""), "{output}");
        }
        assert!(!log_has("reload", 1), "the daemon is output nevertheless");
        assert!(pid() == running && is_alive(running));
        assert_eq!(script("stop"), Some(0));
        assert_eq!(script("start"), Some(6));
        assert_eq!(script("status"), Some(3));
    });
}

#[test]
fn stopping_keeps_the_pid_file_of_a_new_daemon() {
    let name = "init::stopping_keeps_the_pid_file_of_a_new_daemon";
    machine::run(name, package::build, |package| {
        installed(package);
        // Another start comes and is done while this one runs its first program.
        shell(
            r#"rm -rf /var/lib/hekate
            for name in rm mkdir; do
                mv /usr/bin/$name /usr/bin/$name.real
                cat >/usr/bin/$name <<END
#!/bin/sh
if mkdir.real /tmp/once 2>/dev/null; then /etc/init.d/hekate start >&2; fi
exec $name.real "\$@"
END
                chmod 755 /usr/bin/$name
            done"#,
        );
        assert_eq!(script("status"), Some(3));
        let output = try_shell(&format!("{SCRIPT} start"));
        let output = text(&output.stdout) + &text(&output.stderr);
        assert_eq!(script("status"), Some(0), "{output}");
        let running = pid();
        assert!(is_alive(running));
        // The process that went to the background first may not be reaped yet.
        wait_for("one daemon runs", || {
            shell("pgrep -c -x hekate").trim() == "1"
        });
        assert_eq!(script("stop"), Some(0));
        assert!(!is_alive(running));
    });
}

#[test]
fn the_script_needs_neither_lsb_nor_start_stop_daemon() {
    let name = "init::the_script_needs_neither_lsb_nor_start_stop_daemon";
    machine::run(name, package::build, |package| {
        installed(package);
        shell("rm -r /lib/lsb && rm /usr/sbin/start-stop-daemon");
        // And it heeds the settings.
        shell(
            "cat >/etc/default/hekate <<'END'\nPIDFILE=/run/other.pid\n\
             LOG_FILE=/var/log/other/log\nDAEMON_ARGS='--port 7001 --max-unchoked 7'\nEND",
        );
        assert_eq!(script("start"), Some(0));
        assert_eq!(script("status"), Some(0));
        let log = fs::read_to_string("/var/log/other/log").unwrap();
        assert!(log.contains("in 7 slots") && log.contains(":7001"), "{log}");
        assert_eq!(script("restart"), Some(0));
        assert_eq!(script("stop"), Some(0));
        assert!(!Path::new("/run/other.pid").exists());
    });
}

#[test]
fn make_install_installs_the_files_of_the_package() {
    let name = "init::make_install_installs_the_files_of_the_package";
    machine::run(name, package::build, |_| {
        let make = |target: &str| {
            shell(&format!(
                "make -C {} --no-print-directory CARGO=false PROFILE=dev CARGO_TARGET_DIR={} {target}",
                env!("CARGO_MANIFEST_DIR"),
                machine::target().display()
            ))
        };
        make("install");
        make("install");
        shell("adduser --quiet --system --group --no-create-home hekate && mkdir -p /srv/hekate");
        let sample = fill(91);
        assert_eq!(script("start"), Some(0));
        assert!(shell("readlink /proc/$(cat /run/hekate.pid)/exe").starts_with("/usr/local/bin/"));
        download(&sample);
        assert_eq!(script("stop"), Some(0));
        shell("test -e /etc/hekate/hekate.toml.new");
        make("uninstall");
        let left = shell("find /usr/local /etc /lib/systemd -name '*hekate*' -type f");
        assert_eq!(left, "/etc/hekate/hekate.toml\n");
    });
}
