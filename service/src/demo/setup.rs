//! The configuration file of a service for the demo, tests and benchmarks.

use std::{fmt::Write, fs, io, path::PathBuf};

use crate::demo::token::TokenMint;

/// What goes into the file.
#[derive(Clone)]
pub struct ServiceSetup {
    /// Gets `<name>.yaml`, its log and its data.
    pub folder: PathBuf,
    /// Tells several services in one folder apart; also part of the slot's name, so lower case and digits.
    pub name: String,
    /// The source, as the replication role.
    pub source_uri: String,
    /// The source, as the role that writes; `None`: the replication role's connection writes.
    pub write_uri: Option<String>,
    /// The role writes run as.
    pub write_role: Option<String>,
    /// The rules file.
    pub rules: PathBuf,
    /// HTTP port.
    pub port: u16,
    /// Whose tokens are accepted.
    pub mint: TokenMint,
}

impl ServiceSetup {
    /// Writes the file and returns its path.
    ///
    /// # Errors
    /// When the folder cannot be written to.
    pub fn write(&self) -> io::Result<PathBuf> {
        let path = self.folder.join(format!("{}.yaml", self.name));
        fs::write(&path, self.to_yaml())?;
        Ok(path)
    }

    /// Where the service keeps its store.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join(format!("{}-data", self.name))
    }

    fn to_yaml(&self) -> String {
        let Self { name, source_uri, port, .. } = self;
        let mut yaml = format!(
            "replication:\n  connections:\n    - type: postgresql\n      uri: {source_uri}\n      sslmode: disable\n      \
             slot_name_prefix: kairos_{name}_\nport: {port}\nmirror: true\nsync_config:\n  path: {}\ndata_dir: {}\n{}",
            self.rules.display(),
            self.data_dir().display(),
            self.mint.client_auth_yaml(),
        );
        if self.write_uri.is_some() || self.write_role.is_some() {
            yaml.push_str("write:\n");
        }
        if let Some(uri) = &self.write_uri {
            writeln!(yaml, "  uri: {uri}").expect("a string takes all");
        }
        if let Some(role) = &self.write_role {
            writeln!(yaml, "  role: {role}").expect("a string takes all");
        }
        yaml
    }
}
