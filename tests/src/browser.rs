//! Pages in Chromium, used as people use them.

use std::{
    env,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::{Value, json};

use crate::driver::Driver;

/// Widths of a small phone, a phone, a tablet, a laptop, and screens on walls.
const WIDTHS: [u32; 6] = [320, 390, 768, 1280, 1920, 3840];

/// A tab of a browser.
#[derive(Debug, Clone)]
pub struct Tab {
    driver: Arc<Driver>,
    name: String,
    folder: PathBuf,
}

impl Tab {
    /// A tab of a browser that was never used, and keeps its data in this folder.
    ///
    /// # Panics
    /// When Chromium or what drives it is not installed.
    pub async fn open(folder: &Path) -> Self {
        let driver = Arc::new(Driver::script(&["browser-driver.mjs"]));
        let tab = Self { driver, name: "first".to_owned(), folder: folder.to_path_buf() };
        tab.call(json!({"do": "open", "folder": tab.folder})).await;
        tab
    }

    /// Another tab of the same browser.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn open_beside(&self, name: &str) -> Self {
        let tab = Self { name: name.to_owned(), ..self.clone() };
        tab.call(json!({"do": "open", "folder": tab.folder})).await;
        tab
    }

    /// Does what `tests/sdk/browser-driver.mjs` has under this name.
    ///
    /// # Panics
    /// When it fails.
    pub async fn call(&self, command: Value) -> Value {
        self.driver.ask(&self.name, command).await.expect("the driver goes on")
    }

    /// Opens a page.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn go(&self, url: &str) {
        self.call(json!({"do": "go", "url": url})).await;
    }

    /// Fills in the field with this label.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn fill(&self, label: &str, value: &str) {
        self.call(json!({"do": "fill", "label": label, "value": value})).await;
    }

    /// Presses the button with these words.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn press(&self, button: &str) {
        self.call(json!({"do": "click", "button": button})).await;
    }

    /// Clicks the first that the selector finds.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn click(&self, selector: &str) {
        self.call(json!({"do": "click", "selector": selector})).await;
    }

    /// Waits until the page shows these words in what the selector finds.
    ///
    /// # Panics
    /// When it does not.
    pub async fn shows(&self, selector: &str, words: &str) {
        self.call(json!({"do": "shows", "selector": selector, "words": words})).await;
    }

    /// Waits until it does not show them any more.
    ///
    /// # Panics
    /// When it still does.
    pub async fn hides(&self, selector: &str, words: &str) {
        self.call(json!({"do": "hides", "selector": selector, "words": words})).await;
    }

    /// The text of each that the selector finds.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn texts(&self, selector: &str) -> Vec<String> {
        let texts = self.call(json!({"do": "texts", "selector": selector})).await;
        serde_json::from_value(texts).expect("a list of texts")
    }

    /// The value of an expression in JavaScript.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn evaluate(&self, script: &str) -> Value {
        self.call(json!({"do": "evaluate", "script": script})).await
    }

    /// Takes the network away, or gives it back.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn set_offline(&self, offline: bool) {
        self.call(json!({"do": "offline", "offline": offline})).await;
    }

    /// Whoever sees badly, has no mouse or a narrow screen can use the page as it is, in light and dark.
    ///
    /// # Panics
    /// When they cannot.
    pub async fn is_accessible(&self) {
        for scheme in ["light", "dark"] {
            self.call(json!({"do": "scheme", "scheme": scheme})).await;
            assert_eq!(self.call(json!({"do": "axe"})).await, json!([]), "{scheme}");
        }
        assert_eq!(self.call(json!({"do": "overflows", "widths": WIDTHS})).await, json!([]));
        self.call(json!({"do": "scheme", "scheme": "light"})).await;
    }

    /// The page has logged no error, and broken no rule of its policy, since this was asked last.
    ///
    /// # Panics
    /// When it has.
    pub async fn has_no_errors(&self) {
        assert_eq!(self.call(json!({"do": "errors"})).await, json!([]));
    }

    /// Forgets errors that were to be expected, such as those of a network that was taken away.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn forget_errors(&self) {
        self.call(json!({"do": "errors"})).await;
    }

    /// For people who want to see it: pictures of the page, in the folder that `KAIROS_TEST_SCREENSHOTS` names, if it does.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn picture(&self, name: &str, sizes: &[(&str, u32, u32)]) {
        let Some(folder) = env::var_os("KAIROS_TEST_SCREENSHOTS").map(PathBuf::from) else { return };
        for (size, width, height) in sizes {
            self.call(json!({"do": "size", "width": width, "height": height})).await;
            let file = folder.join(format!("{name}-{size}.png"));
            self.call(json!({"do": "screenshot", "file": file})).await;
        }
        self.call(json!({"do": "size", "width": 1280, "height": 800})).await;
    }

    /// Ends the browser with all its tabs.
    ///
    /// # Panics
    /// As [`Self::call`].
    pub async fn end(self) {
        self.call(json!({"do": "end"})).await;
    }
}
