//! The deployment kit in `deploy/`: its files by the tools they are for, and all of it at work, without containers but with
//! the same programs and the same files.

mod backup;
mod compose;
mod dashboards;
mod files;
mod monitoring;
mod mqtt;
mod programs;
mod proxies;
mod stack;
mod story;
