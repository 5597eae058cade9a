//! The unit and the socket of systemd, as systemd reads them.

use super::machine::{self, shell, text, try_shell};
use super::package;

/// What systemd-analyze gives at most, from 0 (best) to 10. What is left is that anybody may call,
/// which is what Hekate is for, and that a group may read a status socket.
const EXPOSURE: &str = "--threshold=14";

/// What versions of systemd before 253 say of what they do not know.
const OLDER: &[&str] = &[
    "Failed to parse service type, ignoring: notify-reload",
    "Unknown key 'ReloadSignal' in section [Service], ignoring.",
];

#[test]
fn systemd_analyze_accepts_the_unit_and_its_exposure() {
    let name = "unit::systemd_analyze_accepts_the_unit_and_its_exposure";
    machine::run(name, package::build, |package| {
        shell(&format!("dpkg -i {}", package.display()));
        for unit in ["hekate.service", "hekate.socket"] {
            let output = try_shell(&format!(
                "systemd-analyze verify /lib/systemd/system/{unit}"
            ));
            let said = text(&output.stdout) + &text(&output.stderr);
            let version = shell("systemctl --version");
            let version: u32 = version.split(' ').nth(1).unwrap().parse().unwrap();
            let is_known =
                |line: &str| version < 253 && OLDER.iter().any(|old| line.ends_with(old));
            let unknown: Vec<&str> = said.lines().filter(|line| !is_known(line)).collect();
            assert!(
                output.status.success() && unknown.is_empty(),
                "{unit}: {said}"
            );
        }
        shell(&format!(
            "systemd-analyze security --offline=true {EXPOSURE} /lib/systemd/system/hekate.service"
        ));
    });
}
