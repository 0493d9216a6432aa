//! Programs that the kit consists of, as `./kairos test` has fetched them.

use std::{
    env,
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use kairos_tests::service::service_binary;

use crate::tidy::root;

/// Where `./kairos test` unpacks them: they are not installed, since a system would start them as services.
pub(super) fn fetched() -> PathBuf {
    let service = service_binary();
    let target = service.parent().and_then(Path::parent).expect("target/<profile>/kairos-sync");
    target.join("deploy-tools")
}

/// PocketBase comes from elsewhere.
pub(super) fn pocketbase_folder() -> PathBuf {
    let folder = fetched().with_file_name("pocketbase").join("bin");
    assert!(folder.join("pocketbase").is_file(), "PocketBase is not fetched: run `./kairos test`");
    folder
}

/// The folder `deploy/`.
pub(super) fn kit() -> PathBuf {
    root().join("deploy")
}

/// A program, fetched or installed.
pub(super) fn program(name: &str) -> Command {
    let own = ["bin", "usr/bin", "usr/sbin"].map(|folder| fetched().join(folder).join(name));
    let own = own.into_iter().find(|path| path.is_file());
    let installed = || {
        let path = env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).collect();
        folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    };
    let path = own.or_else(installed).unwrap_or_else(|| panic!("{name} is not there: run `./kairos test`"));
    let mut command = Command::new(path);
    command.env("LD_LIBRARY_PATH", libraries()).env("PATH", search_path());
    command
}

/// Fetched programs before installed ones.
pub(super) fn search_path() -> OsString {
    let own = ["bin", "usr/bin", "usr/sbin"].map(|folder| fetched().join(folder));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = own.into_iter().chain([pocketbase_folder()]).chain(env::split_paths(&path));
    env::join_paths(folders).expect("no colons in paths")
}

/// What fetched programs need and the system may lack: Debian has a folder per kind of machine.
pub(super) fn libraries() -> OsString {
    let folders = fs::read_dir(fetched().join("usr/lib")).into_iter().flatten().filter_map(Result::ok);
    env::join_paths(folders.map(|folder| folder.path())).expect("no colons in paths")
}

/// Runs a command to its end, and gives what it printed; it must succeed.
pub(super) fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("it runs");
    let printed = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(status.success(), "{command:?}: {status}\n{}\n{}", printed[0], printed[1]);
    printed.concat()
}

/// A program that runs until this is dropped.
pub(super) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it, with its output in a file of this folder.
    pub(super) fn start(mut command: Command, folder: &Path, name: &str) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("writable");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("writable")).stderr(file);
        Self { child: command.spawn().expect("it runs"), log }
    }

    /// What it printed.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails when it has ended.
    pub(super) fn expect_alive(&mut self) {
        let ended = self.child.try_wait().expect("the system tells");
        assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
