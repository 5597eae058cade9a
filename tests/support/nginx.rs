//! nginx in a directory of its own.
//!
//! Owns what every configuration needs. It must not know what its server is for.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

/// How to start nginx with one server, whose block has this content. It is one process: nothing is left
/// when that is killed.
pub(crate) fn command(program: impl AsRef<OsStr>, directory: &Path, server: &str) -> Command {
    let root = directory.display();
    let configuration = format!(
        "daemon off; master_process off; user root; pid {root}/pid; error_log {root}/error;
         events {{ worker_connections 512; }}
         http {{
           access_log off; client_body_temp_path {root}/a; proxy_temp_path {root}/b;
           fastcgi_temp_path {root}/c; uwsgi_temp_path {root}/d; scgi_temp_path {root}/e;
           server {{ {server} }}
         }}"
    );
    let file = directory.join("nginx.conf");
    fs::write(&file, configuration).unwrap();
    let mut command = Command::new(program);
    command.arg("-c").arg(file).arg("-p").arg(directory);
    command
}
