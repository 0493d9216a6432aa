//! Pages that the binary serves, in Chromium against the running service.

mod mirror;
mod status;
mod wall;
