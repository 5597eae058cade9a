//! Warnings at the start about kernel limits that are too low for the configuration.

use std::fs;

/// The most connections that the kernel keeps for a listening socket until they are accepted.
const BACKLOG_LIMIT: &str = "/proc/sys/net/core/somaxconn";

/// The most mappings that a process may have.
const MAPPINGS_LIMIT: &str = "/proc/sys/vm/max_map_count";

/// One line for each limit that is below what the daemon would use, with a value that suffices.
#[must_use]
pub fn warnings(backlog: u64, mappings: u64) -> Vec<String> {
    judge(read(BACKLOG_LIMIT), backlog, read(MAPPINGS_LIMIT), mappings)
}

fn read(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn judge(
    backlog_limit: Option<u64>,
    backlog: u64,
    mappings_limit: Option<u64>,
    mappings: u64,
) -> Vec<String> {
    // The other half is for the program itself, and for mappings that were evicted while in use.
    let mappings = 2 * mappings;
    let backlog_limit = backlog_limit.filter(|limit| *limit < backlog);
    let mappings_limit = mappings_limit.filter(|limit| *limit < mappings);
    let backlog_line = backlog_limit.map(|limit| {
        format!("bursts of connections may have to wait: net.core.somaxconn is {limit}, set it to {backlog}")
    });
    let mappings_line = mappings_limit.map(|limit| {
        format!("mapping content may fail: vm.max_map_count is {limit}, set it to {mappings}")
    });
    backlog_line.into_iter().chain(mappings_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_small_is_named_with_what_is_enough() {
        let lines = judge(Some(128), 4096, Some(65_000), 32_765).join("\n");
        assert!(lines.contains("net.core.somaxconn is 128, set it to 4096"));
        assert!(lines.contains("vm.max_map_count is 65000, set it to 65530"));
        assert!(judge(Some(4096), 4096, Some(65_530), 32_765).is_empty());
        assert!(judge(None, 4096, None, 32_765).is_empty());
    }
}
