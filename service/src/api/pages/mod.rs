//! Pages that people open in a browser. Their files are in the binary; what they show, they ask the API for.
//!
//! | Path | What |
//! | --- | --- |
//! | `/admin/` | how the service is, for operators |
//! | `/mirror/` | a household's habits, on a wall or in a hand |
//!
//! **Invariants**
//!
//! - Pages have nothing secret in them: who opens one shows a token to the API.
//! - A page loads nothing but its own files, runs no inline script, and is shown in no other page's frame.
//! - Its links are relative, so that it works under every base path.

mod asset;
mod mirror;
mod status;

pub(super) use self::mirror::BUILD as MIRROR_BUILD;
use super::endpoint::{Access, Answer, Endpoint};

pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::get("/admin", status::to_page, Access::Anybody, "Leads to the status page", Answer::Elsewhere),
        Endpoint::get("/admin/", status::page, Access::Anybody, "The status page for operators", Answer::Page),
        Endpoint::get("/admin/{status_file}", status::file, Access::Anybody, "A file of it", Answer::File),
        Endpoint::get("/mirror", mirror::to_page, Access::Anybody, "Leads to the mirror", Answer::Elsewhere),
        Endpoint::get("/mirror/", mirror::page, Access::Anybody, "The mirror", Answer::Page),
        Endpoint::get("/mirror/{mirror_file}", mirror::file, Access::Anybody, "A file of it", Answer::File),
        Endpoint::get(
            "/mirror/{build}/{build_file}",
            mirror::build_file,
            Access::Anybody,
            "A file of one of its builds",
            Answer::File,
        ),
    ]
}
