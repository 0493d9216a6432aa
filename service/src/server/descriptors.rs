//! Room for sockets: each open stream holds a file descriptor.

use rustix::process::{Resource, getrlimit, setrlimit};

/// What the process needs beside sockets: the store's files, connections to Postgres.
const OTHERS: u64 = 200;

/// Raises the process's own limit as far as the system allows, and warns where it does not reach for so many sockets.
pub(super) fn make_room(socket_count_max: usize) {
    let needed = socket_count_max as u64 + OTHERS;
    let mut limit = getrlimit(Resource::Nofile);
    let reachable = limit.maximum.unwrap_or(u64::MAX);
    if limit.current.is_some_and(|current| current < needed.min(reachable)) {
        limit.current = Some(needed.min(reachable));
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files could not be raised");
        }
    }
    if reachable < needed {
        tracing::warn!(
            "the system allows {reachable} open files, {needed} may be needed: further clients will wait; raise it \
             (`ulimit -Hn`, `LimitNOFILE=` of systemd, `ulimits` of a container), or lower `limits.connections_max`"
        );
    }
}
