//! What the facts mean. Pure.

mod host;
mod server;
mod slots;
mod source;

use super::{check::Check, facts::Facts};

/// Everything, in the order it is printed: from the connection inwards, then what is beside the source.
pub(super) fn all(facts: &Facts) -> Vec<Check> {
    let mut checks = server::connection(&facts.connection, &facts.source);
    checks.extend(server::server(facts));
    checks.extend(slots::settings(&facts.server));
    checks.extend(slots::idle(&facts.slots));
    checks.extend(source::source(&facts.source));
    checks.push(host::clock(facts.clock));
    checks.extend(facts.write.iter().flat_map(host::write));
    checks.extend(facts.store.iter().map(host::store));
    checks.extend(facts.unknown_proxy.as_deref().map(host::proxy));
    checks
}

#[cfg(test)]
mod tests;
