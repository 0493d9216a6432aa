//! Pages that people open in a browser. Their files are in the binary; what they show, they ask the API for.
//!
//! | Path | What |
//! | --- | --- |
//! | `/admin/` | how the service is, for operators |
//!
//! **Invariants**
//!
//! - Pages have nothing secret in them: who opens one shows a token to the API.
//! - A page loads nothing but its own files, runs no inline script, and is shown in no other page's frame.
//! - Its links are relative, so that it works under every base path.

mod asset;
mod status;

use super::endpoint::{Access, Answer, Endpoint};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/admin", status::to_page, Access::Anybody, "Leads to the status page", Answer::Elsewhere),
        Endpoint::get("/admin/", status::page, Access::Anybody, "The status page for operators", Answer::Page),
        Endpoint::get("/admin/{status_file}", status::file, Access::Anybody, "A file of it", Answer::File),
    ]
}
