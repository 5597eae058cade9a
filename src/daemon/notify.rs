//! Notifications to the service manager: the protocol of `sd_notify(3)`.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use rustix::time::{ClockId, clock_gettime};

/// The service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    watchdog_ms: Option<u64>,
}

impl Notifier {
    /// Connects to the service manager that `NOTIFY_SOCKET` names. If that fails, logs a warning and
    /// sends nothing.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(address) = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
        else {
            return Self::default();
        };
        let socket = connect(&address)
            .inspect_err(|error| {
                log::warn!("cannot use the service manager's socket {address:?}: {error}");
            })
            .ok();
        let variable = |name| env::var(name).ok();
        let pid = variable("WATCHDOG_PID");
        Self {
            socket,
            watchdog_ms: watchdog_ms(variable("WATCHDOG_USEC").as_deref(), pid.as_deref()),
        }
    }

    /// The interval of [`Notifier::alive`], half of what the watchdog demands.
    #[must_use]
    pub fn watchdog_ms(&self) -> Option<u64> {
        self.watchdog_ms.filter(|_| self.is_connected())
    }

    /// Returns true if there is a service manager.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends one line on what the daemon is doing.
    pub fn status(&self, line: &str) {
        self.send(&format!("STATUS={line}"));
    }

    /// The daemon listens. Sends its process id too, since it may have forked.
    pub fn ready(&self) {
        self.send(&format!("READY=1\nMAINPID={}", std::process::id()));
    }

    /// A reload begins. It ends with [`Notifier::ready`].
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    /// The daemon stops.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// The loop turns.
    pub fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(message.as_bytes())
        {
            // A busy manager may miss a message; another one follows.
            log::debug!("the service manager does not listen: {error}");
        }
    }
}

/// A non-blocking socket to a path or, after an `@`, to an abstract name.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    match address.as_bytes() {
        [b'@', name @ ..] => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
        _ => socket.connect(address)?,
    }
    Ok(socket)
}

/// Half of the time-out of the watchdog, if it is for this process.
fn watchdog_ms(usec: Option<&str>, pid: Option<&str>) -> Option<u64> {
    let is_ours = pid.is_none_or(|pid| pid.parse() == Ok(std::process::id()));
    let usec: u64 = usec?.parse().ok()?;
    (is_ours && usec > 0).then_some((usec / 2000).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_is_reached_at_an_abstract_name() {
        let name = format!("hekate-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier {
            socket: Some(connect(OsStr::new(&format!("@{name}"))).unwrap()),
            watchdog_ms: None,
        };
        notifier.status("well");
        let mut message = [0; 64];
        let length = manager.recv(&mut message).unwrap();
        assert_eq!(message.get(..length), Some(&b"STATUS=well"[..]));
    }

    #[test]
    fn the_watchdog_interval_is_halved_and_only_applies_to_its_process() {
        let own = std::process::id().to_string();
        assert_eq!(watchdog_ms(Some("3000000"), Some(&own)), Some(1500));
        assert_eq!(watchdog_ms(Some("3000000"), None), Some(1500));
        assert_eq!(watchdog_ms(Some("3000000"), Some("1")), None);
        for none in [None, Some("0"), Some("soon")] {
            assert_eq!(watchdog_ms(none, None), None);
        }
    }
}
