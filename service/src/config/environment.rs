//! The environment, behind a trait so that tests need not set variables of the process.

use std::{collections::HashMap, hash::BuildHasher};

/// Where environment variables come from.
pub trait Environment {
    /// The value of a variable; `None` where it is not set, empty or not text.
    fn variable(&self, name: &str) -> Option<String>;
}

/// The environment of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnvironment;

impl Environment for ProcessEnvironment {
    fn variable(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }
}

impl<S: BuildHasher> Environment for HashMap<&str, &str, S> {
    fn variable(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| (*value).to_owned()).filter(|value| !value.is_empty())
    }
}
