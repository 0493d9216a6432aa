//! The client for browsers against the service, in Chromium. What a tab holds in the end is compared with SQL.

mod accounts;
mod basics;
mod decisions;
mod health;
mod interruptions;
mod package;
mod rates;
mod subscriptions;
mod tabs;
mod traces;
mod values;
mod volume;
