//! What the app knows of the device's network, which the client cannot ask.

/// The network a device is in, as its system tells the app.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum NetworkKind {
    /// Data costs nothing.
    #[default]
    Unmetered,
    /// Data costs: buckets of late priorities wait, see
    /// [`ClientOptions::metered_priority_max`](crate::ClientOptions::metered_priority_max).
    Metered,
    /// None: no connection is tried until there is one.
    None,
}
